"""Parameters that concern reading the configuration and the commands: that each has the effect the manual states."""
import os
import socket
import subprocess

import pytest

from instance import Instance, build_directory, start_many

MISSING = "virtual_alias_maps = texthash:/nonexistent/virtual\n"


@pytest.fixture
def instance():
    yield from start_many(Instance)


def ask(mail, recipient):
    with mail.smtp() as smtp:
        smtp.helo("client.example")
        smtp.mail("a@client.example")
        return smtp.rcpt(recipient)[0]


def test_table_that_cannot_be_opened(instance):
    """daemon_table_open_error_is_fatal: the daemon ends, with the name of the file; by default it lives, and mail waits."""
    mail = instance(main_cf=MISSING)
    assert ask(mail, "root@localhost") == 451
    assert "fatal" not in mail.log()
    mail = instance(main_cf=MISSING + "daemon_table_open_error_is_fatal = yes\n")
    smtp = mail.smtp()
    smtp.helo("client.example")
    smtp.mail("a@client.example")
    smtp.sock.sendall(b"RCPT TO:<root@localhost>\r\n")
    line = mail.wait_log("fatal: open database /nonexistent/virtual: No such file or directory")
    assert "/master[" not in line
    smtp.close()  # no QUIT: the answer to RCPT may take a minute


@pytest.mark.parametrize("value", ["yes", "no"])
def test_helpful_warnings(instance, value):
    """The warnings of the kind "do not list ...", and these only."""
    mail = instance(main_cf=f"helpful_warnings = {value}\nmydestination = both.example\n"
                            "virtual_alias_domains = both.example\n")
    assert ask(mail, "nobody@both.example") == 250
    assert ("do not list domain both.example in BOTH" in mail.log()) == (value == "yes")


@pytest.mark.parametrize("value, result, said", [
    ("yes", "new@x.example", "5.1.6 <old@here.example>: Recipient address rejected: User has moved to new@x.example"),
    ("no", "5.1.3 try new@x", "5.1.3 <old@here.example>: Recipient address rejected: try new@x")])
def test_relocated_prefix(instance, value, result, said):
    mail = instance(main_cf=f"relocated_prefix_enable = {value}\nmydestination = here.example\n"
                            f"relocated_maps = inline:{{ {{old@here.example={result}}} }}\n")
    with mail.smtp() as smtp:
        smtp.helo("client.example")
        smtp.mail("a@client.example")
        code, text = smtp.rcpt("old@here.example")
    assert code == 550
    assert text.decode() == said


def test_version_in_the_log(instance):
    mail = instance(main_cf="mail_version = 9.9-test\n")
    mail.wait_log("daemon started -- version 9.9-test, configuration ")
    mail.reload()
    mail.wait_log("reload -- version 9.9-test, configuration ")


def test_trigger_timeout(tmp_path):
    """A service that does not even take the connection: postkick gives up, and not before the time."""
    public = tmp_path / "queue/public"
    public.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as service, socket.socket(socket.AF_UNIX) as first:
        service.bind(str(public / "x"))
        service.listen(0)
        first.connect(str(public / "x"))  # the queue of connections is full
        for seconds in (0, 3):  # 0 is below what is allowed
            (tmp_path / "main.cf").write_text(f"queue_directory = {tmp_path}/queue\ntrigger_timeout = {seconds}s\n")
            before = os.times().elapsed
            done = subprocess.run([build_directory() / "sbin/postkick", "-c", tmp_path, "public", "x", "W"], timeout=120,
                                  capture_output=True, text=True, env={**os.environ, "MAIL_CONFIG": ""})
            assert done.returncode == 1
            if seconds:
                assert os.times().elapsed - before > 2.5
                assert "unable to look up public/x: timeout" in done.stderr
            else:
                assert "invalid trigger_timeout: 0 (min 1)" in done.stderr


@pytest.mark.parametrize("value, errors", [("yes", 1), ("", 20)])
def test_stress(instance, value, errors):
    """What depends on $stress by default: here smtpd_hard_error_limit."""
    mail = instance(main_cf=f"stress = {value}\nsmtpd_error_sleep_time = 0\n")
    with socket.create_connection(("127.0.0.1", mail.port), timeout=60) as client:
        stream = client.makefile("rb")
        assert stream.readline().startswith(b"220")
        for _ in range(errors):
            client.sendall(b"NONSENSE\r\n")
            assert stream.readline().startswith(b"50")
        rest = stream.read()
        assert rest.startswith(b"421") and rest.count(b"\r\n") == 1


def test_name_of_the_instance(instance):
    """multi_instance_name is the name in the log."""
    mail = instance(main_cf="multi_instance_name = postfix-two\n")
    mail.wait_log("postfix-two/master[")
