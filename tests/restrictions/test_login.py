"""Rows about logins, with a client that a trusted proxy says has logged in (XCLIENT LOGIN)."""
import smtplib

import pytest

from instance import free_port

WORLD = """\
mydestination = here.example
local_recipient_maps =
local_transport = discard:
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_sender_login_maps = inline:{ {ann@here.example = ann}, {both@here.example = ann, joe} }
"""
NOT_OWNED = "5.7.1 <{}>: Sender address rejected: not owned by user joe"
# restriction, sender, with the login joe, without a login
ROWS = [
    ("permit_sasl_authenticated, reject", "x@y.example", 250, 554),
    ("check_sasl_access inline:{ {joe = REJECT not you} }", "x@y.example",
     "5.7.1 <joe>: SASL login name rejected: not you", 250),
    ("reject_sender_login_mismatch", "ann@here.example", NOT_OWNED,
     "5.7.1 <ann@here.example>: Sender address rejected: not logged in"),
    ("reject_sender_login_mismatch", "both@here.example", 250, 553),
    ("reject_sender_login_mismatch", "x@y.example", NOT_OWNED, 250),
    ("reject_authenticated_sender_login_mismatch", "ann@here.example", NOT_OWNED, 250),
    ("reject_known_sender_login_mismatch", "x@y.example", 250, 250),
    ("reject_known_sender_login_mismatch", "ann@here.example", NOT_OWNED, 553),
    ("reject_unauthenticated_sender_login_mismatch", "ann@here.example", 250, 553),
]


@pytest.fixture(scope="module")
def ports():
    from instance import Instance
    ports, lines = {}, ""
    for restriction, *_ in ROWS:
        if restriction not in ports:
            ports[restriction] = free_port()
            lines += (f"127.0.0.1:{ports[restriction]} inet n - n - - smtpd "
                      f"-o {{ smtpd_recipient_restrictions = {restriction} }}\n")
    with Instance(main_cf=WORLD, master_extra=lines, name="login") as instance:
        yield ports
        print(instance.log())


def answer(port, sender, login):
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo("x")
        if login:
            assert client.docmd("XCLIENT", f"LOGIN={login}")[0] == 220
            client.ehlo("x")
        client.mail(sender)
        code, text = client.rcpt("user@here.example")
        return code, text.decode()


@pytest.mark.parametrize("restriction, sender, with_login, without", ROWS)
def test_row(ports, restriction, sender, with_login, without):
    for expected, login in ((with_login, "joe"), (without, None)):
        code, text = answer(ports[restriction], sender, login)
        assert expected in (code, text) or expected.format(sender) == text, (login, code, text)
