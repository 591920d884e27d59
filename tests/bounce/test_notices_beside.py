"""Notices as Debian's Postfix writes them: the same mail through both, the stored bytes compared. Ids, dates and
boundaries are made equal first, and the templates are the same file. Each case has a sender of its own."""
import os
import pathlib
import re
import shutil
import smtplib
import subprocess
import tempfile

import pytest

from instance import Instance, wait_for
from oracle import Oracle

NOBODY = 65534
TEMPLATES = """\
failure_template = <<END
{charset}From: Post office <office@mail.example>
Subject: It came back
Postmaster-Subject: A copy of it

Host $myhostname gives up after $maximal_queue_lifetime_days day(s); $$5 for {word}
END
delay_template = <<END
Subject: It is late
Postmaster-Subject: A copy of it is late

Waiting for $delay_warning_time_hours hour(s)
of $maximal_queue_lifetime_weeks week(s).
END
success_template = <<END
Subject: It has come

Rejoice.
END
verify_template = <<END
Subject: It would come

As asked.
END
"""
CONFIG = """\
myhostname = mail.example
mydomain = mail.example
myorigin = mail.example
mail_name = Postfix
mydestination = localhost
alias_maps =
virtual_mailbox_domains = box.example
virtual_mailbox_maps = inline:{{ {names} }}
virtual_mailbox_base = {boxes}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
virtual_alias_maps = inline:{{ {{postmaster@mail.example=postmaster@box.example}},
    {{alias@box.example=gone@err.example}} }}
recipient_delimiter = +-
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_reject_unlisted_recipient = no
smtpd_authorized_verp_clients = 127.0.0.0/8
export_environment = TZ MAIL_CONFIG LANG LD_LIBRARY_PATH
minimal_backoff_time = 1000s
bounce_template_file = {template}
default_transport = error:5.1.2 no way out
transport_maps = inline:{{ {{err.example=error:5.1.6 moved away}}, {{retry.example=retry:4.7.9 come again}},
    {{disc.example=discard:}}, {{long.example=error:5.7.1 {long}}}, {{odd.example=error:no status at all}},
    {{class.example=error:4.2.2 a wrong class}} }}
"""
LONG = " ".join(f"reason{n}" for n in range(40)) + " " + "x" * 120
PLAIN = b"Subject: original\r\nMessage-Id: <m@here.example>\r\nX-Mark: 1\r\n\r\nthe body\r\n"
EIGHT = "Subject: caf\u00e9\r\nMessage-Id: <m@here.example>\r\n\r\nstra\u00dfe\r\n".encode()
MESSAGES = {
    "plain": PLAIN,
    "eight": EIGHT,
    "no_body": b"Subject: nothing\r\nMessage-Id: <m@here.example>\r\n\r\n",
    "only_header": b"Subject: nothing\r\nMessage-Id: <m@here.example>\r\n",
    "big": b"Subject: big\r\nMessage-Id: <m@here.example>\r\n\r\n" + b"0123456789\r\n" * 200,
    "folded": b"Subject: a\r\n b\r\n\tc\r\nMessage-Id: <m@here.example>\r\nTo: x@y.example,\r\n  z@y.example\r\n\r\nb\r\n",
    "mime": (b"Message-Id: <m@here.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
             b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b\r\nContent-Type: application/octet-stream\r\n"
             b"Content-Transfer-Encoding: base64\r\n\r\nAAECAw==\r\n--b--\r\n"),
    "report": (b"Message-Id: <m@here.example>\r\nContent-Type: multipart/report; boundary=x\r\n\r\n--x\r\n\r\n--x--\r\n"),
    "dots": b"Subject: dots\r\nMessage-Id: <m@here.example>\r\n\r\n..\r\n...x\r\nFrom here\r\n\r\n\r\n",
    "no_id": b"Subject: no id\r\n\r\nb\r\n",
    "bad_id": b"Subject: bad id\r\nMessage-Id: garbage <m@here.example> (c)\r\n\r\nb\r\n",
    "thread": b"Message-Id: <m@here.example>\r\nReferences: <a@x> <b@x>\r\nIn-Reply-To: <b@x>\r\n\r\nb\r\n",
    "long_header": b"Message-Id: <m@here.example>\r\nX-Long: " + b"word " * 400 + b"x\r\n\r\nb\r\n",
}


def case(rcpts, mail="", rcpt="", message="plain", sender=None, sort=False):
    return {"rcpts": rcpts if isinstance(rcpts, list) else rcpts.split(), "mail": mail.split(), "rcpt": rcpt.split(),
            "message": message, "sender": sender, "sort": sort}


ADDRESSES = ["a@err.example", "A.B@Err.Example", "a+tag@err.example", '"a b"@err.example', '"a\\"b"@err.example',
             "a=b@err.example", "a!b@err.example", "x" * 60 + "@err.example", "alias@box.example",
             "a@long.example", "a@odd.example", "a@class.example", "a@nowhere.example", "postmaster@err.example",
             "a'b@err.example", "{a}@err.example", "#1/2@err.example"]
OPTIONS = [("", ""), ("RET=HDRS", ""), ("RET=FULL", ""), ("ENVID=abc+2Bdef", ""), ("RET=HDRS ENVID=QQ314159", ""),
           ("BODY=8BITMIME", ""), ("BODY=8BITMIME RET=HDRS", ""), ("", "NOTIFY=FAILURE"), ("", "NOTIFY=NEVER"),
           ("", "NOTIFY=DELAY"), ("", "NOTIFY=SUCCESS"), ("", "NOTIFY=SUCCESS,FAILURE,DELAY"),
           ("", "ORCPT=rfc822;first@there.example"), ("", "ORCPT=rfc822;fi+2Brst@there.example"),
           ("ENVID=1", "NOTIFY=FAILURE ORCPT=rfc822;a@err.example")]
DELIVERED = [case("user@box.example", rcpt="NOTIFY=SUCCESS"), case("a@disc.example", rcpt="NOTIFY=SUCCESS"),
             case("user@box.example", mail="ENVID=e RET=FULL", rcpt="NOTIFY=SUCCESS ORCPT=rfc822;o@there.example"),
             case("user@box.example a@disc.example", rcpt="NOTIFY=SUCCESS", sort=True),
             case("user@box.example", mail="BODY=8BITMIME", rcpt="NOTIFY=SUCCESS", message="eight")]
LATE = [case("a@retry.example"), case("a@retry.example b@retry.example"), case("a@retry.example", "RET=FULL"),
        case("a@retry.example", "", "NOTIFY=DELAY ORCPT=rfc822;o@there.example"),
        case("a@retry.example", "", "NOTIFY=FAILURE"), case("a@retry.example", "", "NOTIFY=NEVER"),
        case("a@retry.example", "BODY=8BITMIME ENVID=e1", "", "eight")]
NAMES = ", ".join(f"{{{name}@box.example={name}/}}" for name in
                  ["user", "copy", "second", "late", "postmaster"] + [f"s{n}" for n in range(100)])
GROUPS = {
    "usual": ("", {}, [case([a]) for a in ADDRESSES] + [case("a@err.example", m, r) for m, r in OPTIONS]
              + [case("a@err.example", message=name) for name in MESSAGES] + DELIVERED
              + [case("a@err.example b@err.example c@err.example", sort=True),
                 case("a@err.example b@odd.example c@nowhere.example d@long.example", sort=True),
                 case("a@err.example user@box.example", rcpt="NOTIFY=SUCCESS,FAILURE"),
                 case("a@err.example", sender=""),
                 case("a@err.example", sender="double-bounce@mail.example")]),
    "seven bits, small, obsolete From": (
        "smtputf8_enable = no\nbounce_size_limit = 600\nheader_from_format = obsolete\n", {"own_from": False},
        [case("a@err.example", message=name) for name in ("plain", "big", "mime", "only_header")]
        + [case("a@err.example", "BODY=8BITMIME", "", "eight")] + DELIVERED[:2]),
    "other charset, threads": (
        "enable_threaded_bounces = yes\n", {"charset": "iso-8859-1"},
        [case("a@err.example", message=name)
         for name in ("plain", "no_id", "bad_id", "thread", "eight")] + DELIVERED[:1]),
    "copies and delays": (
        "notify_classes = bounce, 2bounce, delay\nbounce_notice_recipient = copy@box.example\n"
        "2bounce_notice_recipient = second@box.example\ndelay_notice_recipient = late@box.example\n"
        "delay_warning_time = 1s\n", {},
        LATE + [case("a@err.example"), case("a@err.example", "RET=FULL ENVID=e2"), case("a@err.example", sender=""),
                case("a@err.example", sender="", message="big"), case("a@err.example", "", "NOTIFY=NEVER")]),
    "VERP": ("", {}, [case("a@err.example b@err.example", "XVERP", sort=True), case("a@err.example", "XVERP=-="),
                      case("alias@box.example", "XVERP"), case("a@long.example", "XVERP=+=")]),
    "VERP, one notice": ("disable_verp_bounces = yes\n", {},
                         [case("a@err.example b@err.example", "XVERP", sort=True)]),
}
COUNT = sum(len(cases) for _, _, cases in GROUPS.values())
assert COUNT >= 80


def normal(raw):
    """Without what differs between two runs."""
    text = raw.decode("latin-1")
    text = re.sub(r"[A-Z][a-z]{2}, {1,2}\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4} \([A-Z]+\)", "DATE", text)
    text = re.sub(r"\b\d{14}\.[0-9A-F]{8,}@", "STAMP@", text)
    text = re.sub(r"\b[0-9A-F]{9,}\b", "ID", text)
    return re.sub(r"\bID\.\d+(\.\d+)?/mail\.example", "BOUNDARY", text)


def submit(port, cases):
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as s:
        s.ehlo("client.example")
        for number, c in enumerate(cases):
            sender = f"s{number}@box.example" if c["sender"] is None else c["sender"]
            answers = [s.mail(sender, c["mail"])]
            answers += [s.docmd(f"RCPT TO:<{rcpt}> {' '.join(c['rcpt'])}".rstrip()) for rcpt in c["rcpts"]]
            answers.append(s.data(MESSAGES[c["message"]]))
            assert all(code == 250 for code, _ in answers), (c, answers)


def stored(boxes):
    """{mailbox: its notices}"""
    found = {}
    for path in boxes.glob("*/new/*"):
        raw = path.read_bytes()
        if b"multipart/report; report-type" in raw.split(b"\n\n")[0]:
            found.setdefault(path.parent.parent.name, []).append(normal(raw))
    return {name: sorted(texts) for name, texts in found.items()}


def prepare(parent, name, settings, options):
    boxes = pathlib.Path(parent) / name
    boxes.mkdir()
    os.chown(boxes, NOBODY, NOBODY)
    template = pathlib.Path(parent) / f"{name}.cf"
    charset = options.get("charset")
    text = TEMPLATES.format(charset=f"Charset: {charset}\n" if charset else "", word="caf\u00e9" if charset else "you")
    if options.get("own_from") is False:
        text = text.replace("From: Post office <office@mail.example>\n", "")
    template.write_text(text, encoding="latin-1")
    template.chmod(0o644)
    return boxes, CONFIG.format(boxes=boxes, template=template, long=LONG, names=NAMES) + settings


def our_rest(i):
    return all(e["queue_name"] == "deferred" for e in i.listing())


def their_rest(queue):
    """Nothing is on its way: what is left waits for its next try."""
    return not any(p.is_file() for n in ("incoming", "active", "maildrop") for p in (queue / n).rglob("*"))


def run_ours(parent, settings, options, cases):
    boxes, config = prepare(parent, "ours", settings, options)
    with Instance(main_cf=config) as i:
        submit(i.port, cases)
        wait_for(lambda: our_rest(i), 60, "the queue at rest")
        return stored(boxes), i.log()


def started(config):
    """Its port may have been taken by another since it was looked for."""
    for _ in range(5):
        o = Oracle(main_cf=config)
        try:
            o.start()
        except subprocess.CalledProcessError:
            o.stop()
            continue
        return o
    raise RuntimeError("Debian's Postfix does not start")


def run_theirs(parent, settings, options, cases):
    boxes, config = prepare(parent, "theirs", settings, options)
    o = started(config)
    try:
        submit(o.port, cases)
        wait_for(lambda: their_rest(o.directory / "queue"), 60, "their queue at rest")
        return stored(boxes), o.log()
    finally:
        o.stop()


def difference(a, b):
    with tempfile.TemporaryDirectory() as d:
        for side, texts in zip("ab", (a, b)):
            (pathlib.Path(d) / side).write_text("\n-----\n".join(texts))
        return subprocess.run(["diff", f"{d}/a", f"{d}/b"], capture_output=True, text=True, check=False).stdout


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
@pytest.mark.parametrize("group", GROUPS)
def test_beside(group):
    settings, options, cases = GROUPS[group]
    parent = tempfile.mkdtemp(prefix="beside-")
    os.chmod(parent, 0o755)
    try:
        ours, our_log = run_ours(parent, settings, options, cases)
        theirs, their_log = run_theirs(parent, settings, options, cases)
    finally:
        shutil.rmtree(parent)
    assert theirs, their_log
    different = []
    for name in sorted(set(ours) | set(theirs)):
        a, b = ours.get(name, []), theirs.get(name, [])
        number = re.match(r"s(\d+)", name)
        c = cases[int(number.group(1))] if number else None
        if not c or c["sort"]:  # of several, delivered at once
            a, b = [sorted("\n\n".join(t).split("\n\n")) for t in (a, b)]
        if a != b:
            different.append((name, c))
            print("=====", name, c)
            print(difference(a, b))
    assert not different
    kinds = re.compile(r": (sender|postmaster) (\S+(?: status)?) notification: ")
    assert sorted(kinds.findall(our_log)) == sorted(kinds.findall(their_log))
