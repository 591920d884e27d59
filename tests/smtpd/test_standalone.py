"""`sendmail -bs`: SMTP on standard input and output."""
import os
import subprocess

import pytest

from instance import wait_for
from smtpd.dialogue import WORLD

SESSION = (b"EHLO client.example\r\nMAIL FROM:<a@there.example>\r\nRCPT TO:<user@here.example>\r\nDATA\r\n"
           b"Subject: x\r\n\r\nbody\r\n..\r\n.\r\nRSET\r\nMAIL FROM:<b@there.example>\r\nRCPT TO:<user@here.example>\r\n"
           b"QUIT\r\n")


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("command", [["bin/sendmail", "-bs"], ["libexec/smtpd", "-S"]], ids=lambda c: " ".join(c))
def test_session(make_instance, command, running):
    instance = make_instance(main_cf=WORLD)
    if not (instance.directory / command[0]).exists():
        pytest.skip(f"no {command[0]} yet")
    if not running:
        instance.postfix("stop")
    environment = {**os.environ, "MAIL_CONFIG": str(instance.etc)}
    done = subprocess.run([str(instance.directory / command[0]), *command[1:]], input=SESSION, env=environment,
                          capture_output=True, timeout=60)
    replies = done.stdout.decode().split("\r\n")
    codes = [r[:3] for r in replies if r and r[3:4] != "-"]
    assert codes == ["220", "250", "250", "250", "354", "250", "250", "250", "250", "221"], done
    assert done.returncode == 0
    queued = [r for r in replies if "queued as" in r]
    assert len(queued) == 1
    if running:
        wait_for(lambda: "from=<a@there.example>" in instance.log(), what="pickup and the queue manager")
        wait_for(lambda: "to=<user@here.example>" in instance.log(), what="delivery")
        assert "from=<b@there.example>" not in instance.log()
    else:
        assert len(list((instance.queue / "maildrop").iterdir())) == 1
