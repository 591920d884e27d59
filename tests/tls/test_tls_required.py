"""TLS-Required: no (RFC 8689, 5; tls_required_enable): the message goes without TLS rather than not at all."""
import pytest

from instance import wait_for
from sink import Sink

REFUSED = "status=deferred (TLS is required, but was not offered by host 127.0.0.1[127.0.0.1])"


@pytest.mark.parametrize("header, settings, goes", [
    ("TLS-Required: no\n", "", True),
    ("tls-required:  No\n", "", True),
    ("TLS-Required: no\n", "tls_required_enable = no\n", False),
    ("TLS-Required: yes\n", "", False),
    ("X-TLS-Required: no\n", "", False),
    ("TLS-Required: no\nRequire-TLS-ESMTP: yes\n", "", False),
    ("TLS-Required: no\n", "smtp_tls_wrappermode = yes\n", False),
])
def test_message(make_instance, header, settings, goes):
    sink = Sink()
    mail = make_instance(main_cf=f"relayhost = [127.0.0.1]:{sink.port}\nsmtp_tls_security_level = encrypt\n"
                                 f"smtp_starttls_timeout = 3s\nsmtp_helo_timeout = 3s\n{settings}")
    assert mail.sendmail("-f", "a@here.example", "u@there.example", message=f"{header}Subject: x\n\nx\n").returncode == 0
    wait_for(lambda: "status=" in mail.log())
    assert ("status=sent" in mail.log()) == goes, mail.log()
    if not goes and "wrapper" not in settings:
        assert REFUSED in mail.log()


@pytest.mark.parametrize("settings, named", [("", True), ("tls_required_enable = no\n", False)])
def test_returned(make_instance, settings, named):
    """What is returned says the same."""
    mail = make_instance(main_cf="transport_maps = inline:{{u@there.example=error:not now}}\n"
                                 f"defer_transports = smtp\n{settings}")
    mail.sendmail("-f", "a@here.example", "u@there.example", message="TLS-Required: no\nSubject: x\n\nx\n")
    line = mail.wait_log("sender non-delivery notification: ")
    notice = wait_for(lambda: mail.command("postcat", "-qh", line.split()[-1], capture_output=True).stdout)
    assert ("\nTLS-Required: no\n" in notice) == named, notice
