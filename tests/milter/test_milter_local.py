"""What needs no other server to compare with: filters that fail, several in a row, settings of their own, mail that did
not come by SMTP, tables for clients, checks of what filters add."""
import re

import pytest

from instance import wait_for
from milter.both_servers import SESSION, play
from milter.scripted_milter import (ALL_NR, CONTINUE, DISCARD, HDR_LEADSPC, REJECT, RCPT_REJ, SHUTDOWN, TEMPFAIL,
                                    ScriptedMilter, addheader, addrcpt, chgheader, quarantine, replbody, replycode)

ONE = SESSION[:1] + SESSION[2:7] + ["QUIT"]
MAIL = "local_recipient_maps =\nlocal_transport = discard\n"


@pytest.fixture
def milter():
    with ScriptedMilter() as one:
        yield one


@pytest.fixture
def other():
    with ScriptedMilter() as one:
        yield one


def replies(server, session=ONE):
    return dict(play(server.port, session))


def logged(server, pattern):
    return wait_for(lambda: re.search(pattern, server.log()), what=pattern)


def held(server):
    """The content of the one message in the hold queue."""
    def look():
        found = re.findall(r"(\w+): milter-hold", server.log())
        shown = server.command("postcat", "-qbh", found[-1], capture_output=True) if found else None
        return shown and shown.returncode == 0 and shown.stdout
    return wait_for(look, what="a held message")


ACTIONS = {"accept": "250 2.0.0", "reject": "550 5.5.0 Service unavailable",
           "tempfail": "451 4.7.1 Service unavailable - try again later", "quarantine": "250 2.0.0",
           "shutdown": "421 4.7.1 Service unavailable - try again later"}


@pytest.mark.parametrize("action", ACTIONS)
def test_default_action(make_instance, milter, action):
    """At the end of a message, silence and a hang-up are the same; before it, too."""
    server = make_instance(main_cf=MAIL + f"smtpd_milters = {{ {milter.name}, content_timeout=1s, command_timeout=1s, "
                           f"default_action={action} }}\n")
    for fault in ("close", 5):
        milter.replies = {"eom": fault}
        assert replies(server)["message"].startswith(ACTIONS[action])
        milter.replies = {"mail": fault}
        heard = replies(server)
        first = heard["MAIL FROM:<s@client.example> BODY=8BITMIME"]
        if action in ("accept", "quarantine"):
            assert heard["message"].startswith("250")
        else:
            assert first == ACTIONS[action]
    if action == "quarantine":
        for stage in ("MAIL", "END-OF-MESSAGE"):
            wait_for(lambda: len(re.findall(f"milter-hold: {stage}", server.log())) == 2, what="both in the log")


def test_nobody_there(make_instance):
    """Since 3.11 the client is sent away, and finds another filter when it comes back."""
    server = make_instance(main_cf=MAIL + "smtpd_milters = inet:127.0.0.1:9\n")
    assert replies(server) == {"connect": "421 mail.example Service unavailable - try again later", ONE[0]: None}
    logged(server, "connect to Milter service inet:127.0.0.1:9: ")


def test_several(make_instance, milter, other):
    """Each sees what the one before has changed; the first refusal is the last word."""
    server = make_instance(main_cf=MAIL + f"smtpd_milters = {milter.name}, {other.name}\n")
    milter.replies = {"eom": [addheader("X-One", "1"), chgheader(1, "X-A", "changed"), replbody(b"new\r\n"), CONTINUE]}
    other.replies = {"eom": [quarantine("to be looked at"), chgheader(1, "X-One", "2"), CONTINUE]}
    assert replies(server)["message"].startswith("250")
    assert "header X-One: '1\\x00'" in other.events and "header X-A: 'changed\\x00'" in other.events
    assert other.bodies == [b"new\r\n"] and milter.bodies != other.bodies
    message = held(server)
    assert "X-One: 2\n\nnew\n" in message and "X-A: changed\n" in message
    logged(server, "milter-hold: END-OF-MESSAGE from .*: to be looked at;")
    other.clear()
    milter.replies = {"header": REJECT}
    assert replies(server)["message"] == "550 5.7.1 Command rejected"
    assert "header" not in other.names() and "data" in other.names()


def test_messages_of_one_session(make_instance, milter):
    """MI-03: a filter that has accepted one message hears of the next; one after the other over the same connection."""
    server = make_instance(main_cf=MAIL + f"smtpd_milters = {milter.name}\n")
    milter.replies = {"mail:s@": b"a", "mail:s2@": CONTINUE}
    two = ONE[:-1] + ["MAIL FROM:<s2@client.example>", "RCPT TO:<a@localhost>", "DATA", ONE[-2], "QUIT"]
    heard = play(server.port, two)
    assert [reply for said, reply in heard if said == "message"] == ["250 2.0.0 Ok: queued as ID"] * 2
    assert milter.names().count("eom") == 1 and milter.connections == 1


def test_mute_and_large(make_instance):
    """A filter that answers nothing but the end, and a body of many packets."""
    with ScriptedMilter(protocol=ALL_NR) as milter:
        server = make_instance(main_cf=MAIL + f"smtpd_milters = {milter.name}\n")
        milter.replies = {"eom": [addheader("X-Size", "large"), quarantine("x"), CONTINUE]}
        body = "".join(f"{n} " + "y" * (n % 300) + "\r\n" for n in range(5000))
        message = "Subject: x\r\n\r\n" + body
        heard = dict(play(server.port, ONE, message))
        assert heard["message"].startswith("250")
        assert milter.bodies == [body.encode()]
        assert held(server).endswith("X-Size: large\n\n" + body.replace("\r\n", "\n"))


def test_refused_recipients(make_instance):
    with ScriptedMilter(protocol=RCPT_REJ) as milter:
        server = make_instance(main_cf=f"smtpd_milters = {milter.name}\nlocal_recipient_maps = inline:{{ a=x }}\n"
                               "local_transport = discard\n")
        assert replies(server)["RCPT TO:<b@localhost>"].startswith("550 5.1.1")
        assert any("{rcpt_mailer}=error" in line and "{rcpt_host}=5.1.1" in line for line in milter.events)


def test_leading_space(make_instance):
    with ScriptedMilter(protocol=HDR_LEADSPC) as milter:
        server = make_instance(main_cf=MAIL + f"smtpd_milters = {milter.name}\n")
        milter.replies = {"eom": [addheader("X-Tight", "v"), addheader("X-Wide", "  v"), quarantine("x"), CONTINUE]}
        assert replies(server)["message"].startswith("250")
        assert "header Subject: ' a\\x00'" in milter.events
        assert "X-Tight:v\nX-Wide:  v\n" in held(server)


def test_tables_for_clients(make_instance, milter, other):
    server = make_instance(main_cf=MAIL + f"smtpd_milters = {milter.name}\nsmtpd_milter_maps = inline:"
                           f"{{ {{ 127.0.0.1 = {other.name} }} }}\n")
    assert replies(server)["message"].startswith("250")
    assert milter.connections == 0 and "eom" in other.names()
    server = make_instance(main_cf=MAIL + f"smtpd_milters = {milter.name}\n"
                           "smtpd_milter_maps = inline:{ 127.0.0.1=disable }\n")
    assert replies(server)["message"].startswith("250")
    assert milter.connections == 0


def test_no_milters(make_instance, milter):
    server = make_instance(main_cf=MAIL + f"smtpd_milters = {milter.name}\n", smtpd_args=" -o receive_override_options=no_milters")
    assert replies(server)["message"].startswith("250") and milter.connections == 0


def test_unix_socket(make_instance, tmp_path):
    server = make_instance(main_cf=MAIL, start=False)
    with ScriptedMilter(path=server.queue / "filter") as milter:
        server.extra += "smtpd_milters = unix:filter\nnon_smtpd_milters = unix:filter\n"
        server.write_config()
        server.start()
        assert replies(server)["message"].startswith("250")
        assert milter.names().count("eom") == 1
        assert server.sendmail("-f", "joe@client.example", "root@localhost").returncode == 0
        wait_for(lambda: milter.names().count("eom") == 2, what="local mail")
        assert "mail 'joe@client.example'" in milter.events and "helo 'localhost'" in milter.events


LOCAL = {
    "accept": ({}, r"status=sent"),
    "reject": ({"eom": replycode("550 5.7.9 my text")}, r"milter-reject: END-OF-MESSAGE .*: 5.7.9 my text;"),
    "tempfail": ({"mail": TEMPFAIL}, r"milter-reject: MAIL from localhost\[127.0.0.1\]: 4.7.1 Service unavailable"),
    "shutdown": ({"data": SHUTDOWN}, r"milter-reject: DATA .*: 4.7.0 Server closing connection;"),
    "discard": ({"data": DISCARD}, r"milter-discard: DATA .*: milter triggers DISCARD action;"),
    "rcpt": ({"rcpt": REJECT}, r"milter configuration error: can't reject recipient"),
}


@pytest.mark.parametrize("what", LOCAL)
def test_local_mail(make_instance, milter, what):
    """MI-09: only a real refusal returns mail that nobody waits for."""
    server = make_instance(main_cf=MAIL + f"non_smtpd_milters = {milter.name}\n")
    milter.replies, line = LOCAL[what]
    assert server.sendmail("-f", "joe@client.example", "root@localhost").returncode == 0
    logged(server, line)
    left = {"accept": 0, "discard": 0, "reject": 0}.get(what, 1)
    wait_for(lambda: len(list((server.queue / "maildrop").iterdir())) == left, what="the maildrop")
    if what == "reject":
        logged(server, r"to=<root@localhost>.*dsn=5.7.9, status=bounced \(my text\)")


def test_checks_of_what_is_added(make_instance, milter, tmp_path):
    table = tmp_path / "checks"
    table.write_text("/^X-Rej/ REJECT no such header\n/^X-Hold/ HOLD kept\n/^X-Rep/ REPLACE X-Replaced: yes\n"
                     "/^X-Ign/ IGNORE\n/^X-Disc/ DISCARD\n/^X-Pre/ PREPEND X-No: no\n/^X-Pass/ PASS\n")
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    server = make_instance(main_cf=MAIL + f"smtpd_milters = {milter.name}\nmilter_header_checks = regexp:{table}\n")
    milter.replies = {"eom": [addheader("X-Hold", "v"), addheader("X-Rep", "v"), addheader("X-Ign", "v"),
                              addheader("X-Pre", "v"), addheader("X-Pass", "v"), quarantine("q"), CONTINUE]}
    assert replies(server)["message"].startswith("250")
    logged(server, r"milter-header-hold: header X-Hold: v from localhost\[127.0.0.1\]; from=.* to=.*: kept")
    logged(server, "milter-header-replace: header X-Rep: v")
    logged(server, "prepend action is not implemented")
    logged(server, "unsupported command in milter_header_checks map: PASS")
    milter.replies = {"eom": [addheader("X-Rej", "v"), addheader("X-Other", "v"), CONTINUE]}
    session = ONE[:-1] + ["MAIL FROM:<s2@client.example>", "QUIT"]
    heard = dict(play(server.port, session))
    assert heard["message"] == "550 5.7.1 no such header"
    assert heard["MAIL FROM:<s2@client.example>"].startswith("250")  # the filter is still in its place
    milter.replies = {"eom": [addheader("X-Disc", "v"), CONTINUE]}
    assert replies(server)["message"].startswith("250")
    logged(server, "milter-header-discard: header X-Disc: v")


def test_many_added(make_instance, milter):
    """A filter that never stops adding: bounded, and refused."""
    server = make_instance(main_cf=MAIL + f"smtpd_milters = {milter.name}\n")
    milter.replies = {"eom": [addheader("X-A", "v" * 60000)] * 60 + [CONTINUE]}
    assert replies(server)["message"].startswith("451 4.3.0")
    milter.replies = {"eom": [addrcpt("<a@localhost>")] * 20001 + [CONTINUE]}
    assert replies(server)["message"].startswith("4")
