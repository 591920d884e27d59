"""Debian's postsrsd, as its documentation configures it: two tcp: tables for canonical addresses."""
import os
import pwd
import re
import shutil
import signal
import subprocess
import time

import pytest

from instance import free_port, wait_for

ME = pwd.getpwuid(os.geteuid()).pw_name
PROGRAM = shutil.which("postsrsd", path=os.environ.get("PATH", "") + ":/usr/sbin")


class Srs:
    IDLE_SECONDS = 1  # it hangs up on us all the time

    def __init__(self, directory):
        self.forward, self.reverse = free_port(), free_port()
        self.secret = directory / "secret"
        self.secret.write_text("a secret of the test\n")
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen([PROGRAM, "-4", f"-f{self.forward}", f"-r{self.reverse}", "-l127.0.0.1",
                                         "-dmail.example", f"-s{self.secret}", f"-t{self.IDLE_SECONDS}"],
                                        start_new_session=True)

    def stop(self):
        """With its children, one for each connection."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


@pytest.fixture
def srs(tmp_path):
    one = Srs(tmp_path)
    yield one
    one.stop()


@pytest.mark.skipif(not PROGRAM, reason="postsrsd is not installed (packaging/deps/test.txt)")
def test_there_and_back(make_instance, srs):
    i = make_instance(main_cf=f"""\
sender_canonical_maps = tcp:127.0.0.1:{srs.forward}
sender_canonical_classes = envelope_sender
recipient_canonical_maps = tcp:127.0.0.1:{srs.reverse}
recipient_canonical_classes = envelope_recipient, header_recipient
transport_maps = inline:{{ {{there.example=discard:}} }}
minimal_backoff_time = 1s
""")

    def send(sender, recipient):
        with i.smtp() as s:
            s.ehlo("client.example")
            s.mail(sender)
            code, text = s.rcpt(recipient)
            if code != 250:
                return code
            return s.data(f"From: {sender}\nTo: {recipient}\nSubject: test\n\nhello\n")[0]

    wait_for(lambda: send("user+x@there.example", f"{ME}@mail.example") == 250, 20, "postsrsd")
    i.wait_log("relay=local")
    wait_for(i.queue_is_empty)
    text = (i.mail / ME).read_text()
    address = re.search(r"Return-Path: <(SRS0=[^=]{4}=[^=]{2}=there\.example=user\+x@mail\.example)>", text).group(1)
    assert "From: user+x@there.example\n" in text  # the envelope only
    # our own senders stay what they are; the connection has been closed by the other side meanwhile
    time.sleep(2 * srs.IDLE_SECONDS)
    assert send(f"{ME}@mail.example", f"{ME}@mail.example") == 250
    wait_for(lambda: f"Return-Path: <{ME}@mail.example>" in (i.mail / ME).read_text())
    # a bounce comes back
    assert send("", address) == 250
    line = i.wait_log("to=<user+x@there.example>")
    assert f"orig_to=<{address}>" in line and "status=sent" in line
    # what somebody made up is nobody here
    assert send("", address.replace("SRS0=", "SRS0=x", 1)) == 550
    # without it nobody is let in under a wrong name, and nobody refused for good
    srs.stop()
    assert send("other@there.example", f"{ME}@mail.example") == 451
    srs.start()
    wait_for(lambda: send("other@there.example", f"{ME}@mail.example") == 250, 30, "postsrsd to be asked again")
    wait_for(lambda: "=there.example=other@mail.example>" in (i.mail / ME).read_text())
