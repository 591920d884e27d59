"""Beside Debian's postfix: the same filter hears, refuses and changes the same things. What 3.12 does differently from
Debian's 3.7 (or 3.7 plainly wrong) stands in DIFFERENT, with the reason.
"""
import difflib
import pathlib
import pwd
import shutil
import tempfile

import pytest

from instance import Instance
from milter.both_servers import SESSION, MESSAGE, Server
from milter.scripted_milter import (ACCEPT, CONN_FAIL, CONTINUE, DISCARD, PROGRESS, REJECT, SHUTDOWN, SKIP_REST,
                                    TEMPFAIL, HDR_LEADSPC, NR_HDR, NOBODY, NOHDRS, RCPT_REJ, ScriptedMilter, addheader,
                                    addrcpt, addrcpt_par, chgfrom, chgheader, delrcpt, insheader, quarantine, replbody,
                                    replycode)
from oracle import Oracle

pytestmark = pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))

MACROS = ("i j v _ {daemon_name} {daemon_addr} {daemon_port} {client_addr} {client_name} {client_port} {client_ptr} "
          "{mail_addr} {mail_host} {mail_mailer} {rcpt_addr} {rcpt_host} {rcpt_mailer} {auth_type} {tls_version} "
          "{foo} {dd}")
WORLD = """\
smtpd_milters = {milter}
myhostname = both.example
mail_name = Postfix
milter_macro_v = version
milter_default_action = tempfail
local_recipient_maps = inline:{{ a=x, b=x, new=x, root=x }}
mail_spool_directory = {mail}/
alias_maps =
local_transport = virtual
virtual_mailbox_base = {mail}
virtual_mailbox_maps = inline:{{ a@localhost=a/, b@localhost=b/, new@localhost=new/ }}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_transport = virtual
mydestination =
virtual_mailbox_domains = localhost
"""


@pytest.fixture(scope="module")
def milter():
    with ScriptedMilter() as one:
        yield one


def world(milter, mail, extra=""):
    Oracle.make_users()
    user = pwd.getpwnam("postfix")
    mail.mkdir()
    shutil.chown(mail, "postfix", "postfix")
    return WORLD.format(milter=milter.name, mail=mail, uid=user.pw_uid, gid=user.pw_gid) + extra


@pytest.fixture(scope="module")
def servers(milter):
    base = pathlib.Path(tempfile.mkdtemp(prefix="angarium-milter-"))
    base.chmod(0o755)
    oracle = Oracle(main_cf=world(milter, base / "theirs"))
    ours = Instance(main_cf=world(milter, base / "ours"), name="both")
    try:
        yield Server(oracle.start(), base / "theirs"), Server(ours.start(), base / "ours")
    finally:
        print(ours.log())
        oracle.stop()
        ours.stop()
        shutil.rmtree(base)


REPLIES = {
    "accept": ACCEPT, "reject": REJECT, "tempfail": TEMPFAIL, "discard": DISCARD, "connfail": CONN_FAIL,
    "skip": SKIP_REST, "progress": [PROGRESS, PROGRESS, CONTINUE], "shutdown": SHUTDOWN, "garbage": b"Z",
    "close": "close", "code550": replycode("550 5.7.1 my %% text"), "code450": replycode("450 4.2.0 later"),
    "code421": replycode("421 4.3.0 go away"), "nodsn": replycode("554 just text"),
    "lines": replycode("554-5.7.1 one\r\n554 5.7.1 two"), "toolong": bytearray(b"\x7f\xff\xff\xffc"),
}
STAGES = ["connect", "helo", "unknown", "mail", "rcpt", "data", "header", "eoh", "body", "eom"]
# (stage, reply): why they are not the same
DIFFERENT = {
    **{("unknown", reply): "3.7 ends with a panic" for reply in ("accept", "discard")},
    ("unknown", "reject"): "since 3.9 the reply is that to any unknown command",
    **{(stage, "shutdown"): "3.7 accepts the message" for stage in ("header", "eoh", "body", "eom")},
    **{(stage, reply): "3.7 goes on with a filter that has lost its place in the conversation"
       for stage in ("header", "eoh", "body", "eom") for reply in ("discard",)},
}


def compare(theirs, ours, *what):
    for name in what:
        if ours[name] != theirs[name]:
            print("\n".join(difflib.unified_diff([str(x) for x in theirs[name]], [str(x) for x in ours[name]], "theirs",
                                                 "ours", lineterm="")))
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("reply", REPLIES)
def test_reply(servers, milter, stage, reply):
    if (stage, reply) in DIFFERENT:
        pytest.skip(DIFFERENT[stage, reply])
    key = "rcpt:a@" if stage == "rcpt" else stage
    theirs, ours = (s.situation(milter, {key: REPLIES[reply]}) for s in servers)
    compare(theirs, ours, "heard", "events", "log")


EDITS = {
    "nothing": [],
    "add": [addheader("X-Add", "one"), addheader("X-Multi", "one\n\ttwo"), addheader("X-Emp", "")],
    "ins0": [insheader(0, "X-Ins", "v")], "ins1": [insheader(1, "X-Ins", "v")], "ins2": [insheader(2, "X-Ins", "v")],
    "ins5": [insheader(5, "X-Ins", "v")], "ins99": [insheader(99, "X-Ins", "v")],
    "spaces": [insheader(1, "X-Lead", "  v"), addheader("X-Lead", " v")],
    "chg1": [chgheader(1, "X-A", "new")], "chg2": [chgheader(2, "x-a", "new2")], "chg3": [chgheader(3, "X-A", "third")],
    "chg0": [chgheader(0, "X-A", "zero")], "received": [chgheader(1, "Received", "changed")],
    "del1": [chgheader(1, "X-A", "")], "del2": [chgheader(2, "Subject", "")], "delnone": [chgheader(7, "X-A", "")],
    "folded": [chgheader(1, "X-Long", "")],
    "body": [replbody(b"new body\r\nno end")], "pieces": [replbody(b"part1 "), replbody(b"part2\r\n.dot\r\n")],
    "cut": [replbody(b"part1\r"), replbody(b"\npart2\r\n")], "emptybody": [replbody(b"")],
    "from": [chgfrom("<new@client.example>")], "frombare": [chgfrom("new@client.example")], "null": [chgfrom("<>")],
    "fromargs": [chgfrom("<new@client.example>", "RET=HDRS ENVID=abc FOO=bar")],
    "rcpt": [addrcpt("<new@localhost>")], "rcptpar": [addrcpt_par("<new@localhost>", "NOTIFY=NEVER BAR=x")],
    "rcptdel": [addrcpt("<new@localhost>"), delrcpt("<a@localhost>")], "rcptnone": [delrcpt("<no@localhost>")],
    "quarantine": [quarantine("this is why")],
    "combined": [addheader("X-First", "1"), insheader(1, "X-Ins", "2"), chgheader(1, "X-First", "changed"),
                 chgheader(1, "X-Ins", ""), replbody(b"q\r\n"), addrcpt("<new@localhost>")],
    "newline": [addheader("X-Ctl", "a\r\nEvil: yes")], "newline2": [addheader("X-Ctl", "a\nEvil: yes")],
    "noend": [b"hX-A"], "trailing": [b"hX-A\0val\0more"],
    "progress": [PROGRESS, addheader("X-Add", "one"), PROGRESS],
}
DELIVERED = {"rcpt": 3, "rcptpar": 3, "combined": 3, "quarantine": 0, "noend": 0, "trailing": 0}
ONE = SESSION[:1] + SESSION[2:7] + ["QUIT"]


@pytest.mark.parametrize("edit", EDITS)
def test_edit(servers, milter, edit):
    theirs, ours = (s.situation(milter, {"eom": EDITS[edit] + [CONTINUE]}, ONE, deliveries=DELIVERED.get(edit, 2))
                    for s in servers)
    if edit == "quarantine":  # since 3.10 the log says why
        theirs["log"] = [line.replace("milter triggers HOLD action", "this is why") for line in theirs["log"]]
    compare(theirs, ours, "heard", "events", "log", "stored", "bodies")


LONG_LINES = "Subject: large\r\n\r\n" + "".join(f"line {n} " + "x" * (n % 200) + "\r\n" for n in range(4000))


@pytest.mark.parametrize("edit", ["nothing", "add", "ins0", "del2", "body", "combined"])
def test_large(servers, milter, edit):
    """A message that is a file of its own from the beginning."""
    theirs, ours = (s.situation(milter, {"eom": EDITS[edit] + [CONTINUE]}, ONE, LONG_LINES, DELIVERED.get(edit, 2))
                    for s in servers)
    compare(theirs, ours, "heard", "events" if edit == "never" else "log", "stored", "bodies")


def test_what_is_heard(servers, milter):
    """Macros, arguments, order."""
    session = ["EHLO client.example", "MAIL FROM:<>", "RCPT TO:<a@localhost> NOTIFY=NEVER ORCPT=rfc822;a@b", "RSET",
               "NOOP", 'MAIL FROM:<"a b"@client.example> SIZE=10', "RCPT TO:<nobody@localhost>", "RCPT TO:<b@localhost>",
               "RCPT TO:<x@far.example>", "DATA", MESSAGE, "QUIT"]
    theirs, ours = (s.situation(milter, {}, session) for s in servers)
    compare(theirs, ours, "heard", "events")
