"""postscreen with TLS, and behind a proxy."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tls"))

from instance import start_many  # noqa: E402
from screens import Screen, play  # noqa: E402
from tls_ca import TestCA, TlsClient  # noqa: E402

DEEP = "postscreen_pipelining_enable = yes\n"


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return TestCA(tmp_path_factory.mktemp("ca")).make("mx.server.example")[2]


@pytest.fixture
def make_screen():
    yield from start_many(Screen)


# --- TLS ends here ---
def test_starttls(make_screen, chain):
    """What was said in the clear is forgotten, and the tests go on."""
    p = make_screen(main_cf=DEEP + f"smtpd_tls_chain_files = {chain}\nsmtpd_tls_security_level = may\nsmtpd_tls_loglevel = 1\n"
                                   "smtpd_helo_required = yes\n")
    with TlsClient(p.port) as client:
        assert "250-STARTTLS" in client.command("EHLO x")
        client.starttls()
        assert client.peer_common_name() == "mx.server.example"
        assert client.command("MAIL FROM:<a@b>")[-1].startswith("503 ")
        assert "250-STARTTLS" not in client.command("EHLO y")
        assert client.command("STARTTLS")[-1].startswith("554 5.5.1")
        assert client.command("MAIL FROM:<a@b>")[-1].startswith("250 ")
        assert client.command("RCPT TO:<u@localhost>")[-1].startswith("450 4.3.2")
        assert client.command("QUIT")[-1].startswith("221 ")
    p.wait_log("TLS connection established from [127.0.0.1]:")
    p.wait_log("helo=<y>")
    p.wait_log("PASS NEW")


def test_mandatory(make_screen, chain):
    p = make_screen(main_cf=DEEP + f"smtpd_tls_chain_files = {chain}\nsmtpd_tls_security_level = may\n"
                                   "postscreen_tls_security_level = encrypt\n")
    heard = play(p, [1, "EHLO x\r\n", 1, "MAIL FROM:<a@b>\r\n", 1, "NOOP\r\n", 1, "QUIT\r\n", 1])
    assert heard.endswith("530 5.7.0 Must issue a STARTTLS command first\r\n250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n")


def test_what_comes_with_starttls_in_the_clear_is_refused(make_screen, chain):
    p = make_screen(main_cf=DEEP + "postscreen_pipelining_action = ignore\n"
                            f"smtpd_tls_chain_files = {chain}\nsmtpd_tls_security_level = may\n")
    heard = play(p, [1, "EHLO x\r\n", 1, "STARTTLS\r\nMAIL FROM:<injected@x>\r\n", 1, 1])
    assert heard.endswith("554 5.5.0 Error: SMTP protocol synchronization\r\n<end>")
    assert "injected@x" not in heard


def test_without_a_certificate(make_screen):
    p = make_screen(main_cf=DEEP + "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = /nonexistent\n")
    heard = play(p, [1, "EHLO x\r\n", 1, "STARTTLS\r\n", 1, "QUIT\r\n", 1])
    assert "250-STARTTLS" not in heard
    assert "454 4.7.0 TLS not available due to local problem" in heard


# --- behind a proxy ---
def test_the_client_is_whom_the_proxy_names(make_screen):
    """Also for smtpd, which gets the connection."""
    p = make_screen(main_cf="postscreen_upstream_proxy_protocol = haproxy\n")
    heard = play(p, ["PROXY TCP4 198.51.100.7 203.0.113.25 4711 25\r\n", 1, "EHLO x\r\n", 1, "QUIT\r\n", 1])
    assert "250-PIPELINING" in heard
    p.wait_log("CONNECT from [198.51.100.7]:4711 to [203.0.113.25]:25")
    p.wait_log("PASS NEW [198.51.100.7]:4711")
    p.wait_log("smtpd[")
    p.wait_log("connect from unknown[198.51.100.7]")


def test_a_health_check_is_the_proxy_itself(make_screen):
    p = make_screen(main_cf="postscreen_upstream_proxy_protocol = haproxy\n")
    play(p, ["PROXY UNKNOWN\r\n", 1, "QUIT\r\n", 1])
    p.wait_log("PASS NEW [127.0.0.1]:")


@pytest.mark.parametrize("said", ["EHLO x\r\n", "PROXY TCP4 1.2.3.4\r\n", "", "\r\n\r\n\0\r\nQUIT\n"])
def test_without_a_proper_header(make_screen, said):
    p = make_screen(main_cf="postscreen_upstream_proxy_protocol = haproxy\npostscreen_upstream_proxy_timeout = 1s\n")
    assert play(p, [said, 1, 1]).startswith("421 4.3.2 No system resources\r\n")
    p.wait_log("warning: haproxy read: ")
    assert "CONNECT from" not in p.log()
