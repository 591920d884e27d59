"""header_checks, body_checks and strict MIME: each row played against our server, and against Debian's postfix where that is
unpacked. What the client hears, what the log says, what is stored."""
import re
import socket

import pytest

from instance import Instance, wait_for
from oracle import Oracle

COMMON = """\
mydestination = $myhostname, localhost, here.example
local_recipient_maps =
defer_transports = local
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_recipient_limit = 1000
syslog_name = postfix
"""
HEADER = """header_checks = regexp:{{/^X-Rej:/ REJECT no}, {/^X-RejN/ REJECT}, {/^X-Rej4/ REJECT 4.2.1 later}, \
{/^X-Warn/ WARN watch it}, {/^X-Info/ INFO i}, {/^X-Ign/ IGNORE}, {/^X-Strip/ STRIP why}, {/^X-Pre/ PREPEND X-New: 1}, \
{/^X-BadPre/ PREPEND nothing here}, {/^X-Repl/ REPLACE X-Done: y}, {/^X-BadRepl/ REPLACE none}, \
{/^X-Bcc/ BCC b@here.example}, {/^X-Disc/ DISCARD gone}, {/^X-Filt/ FILTER smtp:[127.0.0.1]:9}, {/^X-Hold/ HOLD it}, \
{/^X-Pass/ PASS p}, {/^X-Redir/ REDIRECT r@here.example}, {/^X-Unk/ FROB x}, {/^X-Dunno/ DUNNO}}
body_checks = regexp:{{/^rej/ REJECT body}, {/^ign/ IGNORE}, {/^pre/ PREPEND new line}, {/^repl/ REPLACE other}, \
{/^strip/ STRIP}, {/^warn/ WARN w}}
body_checks_size_limit = 4000
"""
CLASSES = """header_checks = regexp:{{/^X-/ WARN H}}
mime_header_checks = regexp:{{/./ WARN M}}
nested_header_checks = regexp:{{/./ WARN N}}
body_checks = regexp:{{/./ WARN B}}
"""
STRICT = "strict_8bitmime = yes\nstrict_8bitmime_body = yes\nstrict_mime_encoding_domain = yes\nmime_nesting_limit = 3\n"


def nested(depth):
    lines = ["X-A: 1"]
    for i in range(depth):
        lines += [f'Content-Type: multipart/mixed; boundary="b{i}"', "", f"--b{i}"]
    return lines + ["", "deep"] + [f"--b{i}--" for i in reversed(range(depth))]


MIXED = ["X-A: 1", "Content-Type: multipart/mixed; boundary=q", "", "p", "--q", "Content-Type: message/rfc822", "", "X-N: in",
         "Content-Type: multipart/digest; boundary=w", "", "--w", "", "X-D: dig", "", "dbody", "--w--", "--q--", "epi"]
FROM = "from localhost[127.0.0.1]; from=<a@there.example> to=<u@here.example> proto=ESMTP helo=<c.example>"


def warned(*pairs):
    return [f"warning: {'body' if kind == 'B' else 'header'} {text} {FROM}: {kind}" for kind, text in pairs]


# name: (main.cf, lines of the message, the reply, log records behind the queue id, stored lines or None)
OK = "250 2.0.0 Ok: queued as ID"
ROWS = {
    "reject": (HEADER, ["X-Rej: foo", "", "x"], "550 5.7.1 no", [f"reject: header X-Rej: foo {FROM}: 5.7.1 no"], None),
    "reject_plain": (HEADER, ["X-RejN: foo", "", "x"], "550 5.7.1 message content rejected",
                     [f"reject: header X-RejN: foo {FROM}: 5.7.1 message content rejected"], None),
    "reject_soft": (HEADER, ["X-Rej4: foo", "", "x"], "451 4.2.1 later",
                    [f"reject: header X-Rej4: foo {FROM}: 4.2.1 later"], None),
    "header_edits": (HEADER, ["X-Warn: a", "X-Info: b", "X-Ign: c", "X-Strip: d", "X-Pre: e", "X-Repl: f", "X-Dunno: g", "", "x"],
                     OK, [f"warning: header X-Warn: a {FROM}: watch it", f"info: header X-Info: b {FROM}: i",
                          f"strip: header X-Strip: d {FROM}: why", f"prepend: header X-Pre: e {FROM}: X-New: 1",
                          f"replace: header X-Repl: f {FROM}: X-Done: y"],
                     ["X-Warn: a", "X-Info: b", "X-New: 1", "X-Pre: e", "X-Done: y", "X-Dunno: g", "", "x"]),
    "bad_answers": (HEADER, ["X-BadPre: a", "X-BadRepl: b", "X-Unk: c", "", "x"], OK, [],
                    ["X-BadPre: a", "X-BadRepl: b", "X-Unk: c", "", "x"]),
    "bcc": (HEADER, ["X-Bcc: a", "", "x"], OK, [f"bcc: header X-Bcc: a {FROM}: b@here.example"], ["X-Bcc: a", "", "x"]),
    "discard": (HEADER, ["X-Disc: a", "X-Rej: b", "", "x"], OK, [f"discard: header X-Disc: a {FROM}: gone"], None),
    "filter": (HEADER, ["X-Filt: a", "", "x"], OK, [f"filter: header X-Filt: a {FROM}: smtp:[127.0.0.1]:9"],
               ["X-Filt: a", "", "x"]),
    "hold": (HEADER, ["X-Hold: a", "X-Hold: b", "", "x"], OK, [f"hold: header X-Hold: a {FROM}: it"],
             ["X-Hold: a", "X-Hold: b", "", "x"]),
    "pass": (HEADER, ["X-Pass: a", "X-Rej: b", "", "rej"], OK, [f"pass: header X-Pass: a {FROM}: p"],
             ["X-Pass: a", "X-Rej: b", "", "rej"]),
    "redirect": (HEADER, ["X-Redir: a", "", "x"], OK, [f"redirect: header X-Redir: a {FROM}: r@here.example"],
                 ["X-Redir: a", "", "x"]),
    "folded": (HEADER, ["X-Warn: a", "\tb " + "y" * 300, "", "x"], OK,
               [f"warning: header X-Warn: a??b {'y' * 187} {FROM}: watch it"], ["X-Warn: a", "\tb " + "y" * 300, "", "x"]),
    "body_reject": (HEADER, ["S: a", "", "ok", "rej"], "550 5.7.1 body", [f"reject: body rej {FROM}: 5.7.1 body"], None),
    "body_edits": (HEADER, ["S: a", "", "ign", "pre", "repl", "strip", "warn", "", "end"], OK,
                   [f"prepend: body pre {FROM}: new line", f"replace: body repl {FROM}: other", f"strip: body strip {FROM}",
                    f"warning: body warn {FROM}: w"], ["S: a", "", "new line", "pre", "other", "warn", "", "end"]),
    "body_pieces": (HEADER, ["S: a", "", "y" * 2048 + "repl" + "z" * 100, "end"], OK, [f"replace: body repl{'z' * 100} {FROM}: other"],
                    ["S: a", "", "y" * 2048 + "other", "end"]),
    "body_size_limit": (HEADER, ["S: a", "", *["1234567890" * 30] * 14, "rej"], OK, [],
                        ["S: a", "", *["1234567890" * 30] * 14, "rej"]),
    "classes": (CLASSES, MIXED, OK, warned(
        ("H", "X-A: 1"), ("M", "Content-Type: multipart/mixed; boundary=q"), ("B", "p"), ("B", "--q"),
        ("M", "Content-Type: message/rfc822"), ("N", "X-N: in"), ("M", "Content-Type: multipart/digest; boundary=w"), ("B", "--w"),
        ("N", "X-D: dig"), ("B", "dbody"), ("B", "--w--"), ("B", "--q--"), ("B", "epi")), MIXED),
    "mime_off": (CLASSES + "disable_mime_input_processing = yes\nbody_checks =\n", MIXED, OK,
                 warned(("H", "X-A: 1"), ("M", "Content-Type: multipart/mixed; boundary=q")), MIXED),
    "domain": (STRICT, ["Content-Type: message/rfc822", "Content-Transfer-Encoding: base64", "", "x"],
               "550 5.6.0 invalid message/* or multipart/* encoding domain",
               ["reject: mime-error invalid message/* or multipart/* encoding domain: base64 from localhost[127.0.0.1]; "
                "from=<a@there.example> to=<u@here.example>"], None),
    "8bit_header": (STRICT, ["X-A: ü", "", "x"], "550 5.6.0 improper use of 8-bit data in message header",
                    ["reject: mime-error improper use of 8-bit data in message header: X-A: ü from localhost[127.0.0.1]; "
                     "from=<a@there.example> to=<u@here.example>"], None),
    "8bit_body": (STRICT, ["X-A: b", "", "ü"], "550 5.6.0 improper use of 8-bit data in message body",
                  ["reject: mime-error improper use of 8-bit data in message body: ü from localhost[127.0.0.1]; "
                   "from=<a@there.example> to=<u@here.example>"], None),
    "8bit_said": (STRICT, ["Content-Transfer-Encoding: 8bit", "", "ü"], OK, [], ["Content-Transfer-Encoding: 8bit", "", "ü"]),
    "7bit_headers": ("strict_7bit_headers = yes\n", ["X-A: ü", "", "ü"], "550 5.6.0 improper use of 8-bit data in message header",
                     ["reject: mime-error improper use of 8-bit data in message header: X-A: ü from localhost[127.0.0.1]; "
                      "from=<a@there.example> to=<u@here.example>"], None),
    "nesting": (STRICT, nested(6), "550 5.6.0 MIME nesting exceeds safety limit",
                ['reject: mime-error MIME nesting exceeds safety limit: Content-Type: multipart/mixed; boundary="b5" from '
                 'localhost[127.0.0.1]; from=<a@there.example> to=<u@here.example>'], None),
    "nesting_allowed": (STRICT, nested(5), OK, [], nested(5)),
    "options_off": (HEADER + "receive_override_options = no_header_body_checks\n", ["X-Rej: a", "", "rej"], OK, [],
                    ["X-Rej: a", "", "rej"]),
    "failed_table": ("header_checks = hash:/nonexistent/checks\n", ["X: a", "", "x"],
                     "451 4.3.0 Error: queue file write error", [], None),
    "end_fixed": ("", ["X-A: b", "no field", "x"], OK, [], ["X-A: b", "", "no field", "x"]),
}
UNENDED = "message header was not terminated by empty line"
NEWER = {  # than Debian's
    "end_named": ("non_empty_end_of_header_action = add_header\n", ["X-A: b", "no field", "x"], OK, [],
                  ["X-A: b", f"MIME-Error: {UNENDED}", "", "no field", "x"]),
    "end_as_it_should_be": ("non_empty_end_of_header_action = add_header\n", ["X-A: b", "", "x"], OK, [], ["X-A: b", "", "x"]),
    "end_refused": ("non_empty_end_of_header_action = reject\n", ["X-A: b", "no field", "x"], f"550 5.6.0 {UNENDED}",
                    [f"reject: mime-error {UNENDED}: no field from localhost[127.0.0.1]; from=<a@there.example> to=<u@here.example>"],
                    None),
    "end_not_refused": ("non_empty_end_of_header_action = reject\n", ["X-A: b", "", "x"], OK, [], ["X-A: b", "", "x"]),
}


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.file = self.socket.makefile("rb")

    def reply(self):
        while True:
            line = self.file.readline().decode().rstrip("\r\n")
            if line[3:4] != "-":
                return line

    def say(self, text):
        self.socket.sendall(text.encode() + b"\r\n")
        return self.reply()


def send(port, lines):
    """The reply to the message, and its queue id when it was taken."""
    c = Client(port)
    c.reply()
    for command in ("EHLO c.example", "MAIL FROM:<a@there.example>", "RCPT TO:<u@here.example>", "DATA"):
        assert c.say(command)[0] in "23", command
    reply = c.say("\r\n".join([*lines, "."]))
    c.say("QUIT")
    c.socket.close()
    taken = re.search(r"queued as (\w+)", reply)
    return re.sub(r"queued as \w+", "queued as ID", reply), taken and taken.group(1)


def records(log, queue_id=None):
    """What cleanup said, without queue ids; `message-id` and the like are left out."""
    found = re.findall(r"cleanup\[\d+\]: (\w+): (.*)", log)
    return [text for name, text in found if name not in ("warning", "error") and not re.match(r"(resent-)?message-id=|removed", text)]


def stored(postcat):
    text = re.search(r"\*\*\* MESSAGE CONTENTS.*?\*\*\*\n(.*?)\*\*\* HEADER", postcat, re.S).group(1)
    lines = text.rstrip("\n").split("\n")
    while lines and re.match(r"Received: |\t(by|for) |\t\w+, ", lines[0]):
        lines.pop(0)
    return [line for line in lines if not re.match(r"(Message-Id|Date|From|To): ", line)]


def check(server, postcat, row):
    _, lines, want_reply, want_log, want_stored = row
    before = len(server.log())
    reply, queue_id = send(server.port, lines)
    assert reply == want_reply
    wait_for(lambda: "disconnect from" in server.log()[before:], what="the end of the session")
    wait_for(lambda: len(records(server.log()[before:])) >= len(want_log), what=f"{len(want_log)} log records")
    assert records(server.log()[before:]) == want_log
    if want_stored is not None:
        text = wait_for(lambda: postcat(queue_id), what="the message in the queue")
        assert stored(text) == want_stored
    elif queue_id:
        assert not postcat(queue_id)


@pytest.mark.parametrize("name", [*ROWS, *NEWER])
def test_checks(make_instance, name):
    row = (ROWS | NEWER)[name]
    server = make_instance(main_cf=COMMON + row[0])

    def postcat(queue_id):
        done = server.command("postcat", "-q", queue_id, capture_output=True)
        return done.stdout if done.returncode == 0 else ""
    check(server, postcat, row)
    if name == "bcc":
        assert "recipient: b@here.example" in postcat(server.queue_ids()[0])
    if name == "redirect":
        assert "recipient: r@here.example" in postcat(server.queue_ids()[0])
    if name == "filter":
        assert "smtp:[127.0.0.1]:9" in postcat(server.queue_ids()[0])
    if name == "hold":
        assert server.listing()[0]["queue_name"] == "hold"
    if name == "bad_answers":
        for text in ('bad PREPEND header text "nothing here" in header_checks map -- need "headername: headervalue"',
                     'bad REPLACE header text "none" in header_checks map -- need "headername: headervalue"',
                     "unknown command in header_checks map: FROB x"):
            assert f"warning: {text}" in server.log()
    if name == "failed_table":
        assert "header_checks map lookup problem -- message not accepted, try again later" in server.log()


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
@pytest.mark.parametrize("name", ROWS)
def test_oracle_checks(name):
    with Oracle(main_cf=COMMON + ROWS[name][0]) as server:
        def postcat(queue_id):
            done = server.command("postcat", "-q", queue_id, capture_output=True)
            return done.stdout.decode() if done.returncode == 0 else ""
        check(server, postcat, ROWS[name])


def test_local_mail_is_checked(make_instance):
    """pickup's mail goes through the same checks; what is refused comes back to its sender."""
    server = make_instance(main_cf=COMMON + HEADER)
    assert server.sendmail("-f", "a@here.example", "u@here.example", message="X-Rej: a\n\nx\n").returncode == 0
    server.wait_log("reject: header X-Rej: a from local; from=<a@here.example> to=<u@here.example>: 5.7.1 no")
    server.wait_log("status=bounced (no)")


def test_8bit_is_seen(make_instance):
    """detect_8bit_encoding_header: mail without BODY=8BITMIME that says so itself."""
    for value, wanted in (("yes", True), ("no", False)):
        server = make_instance(main_cf=f"{COMMON}detect_8bit_encoding_header = {value}\n")
        _, queue_id = send(server.port, ["Content-Transfer-Encoding: 8bit", "", "x"])
        text = wait_for(lambda: server.command("postcat", "-q", queue_id, capture_output=True).stdout, what="the message")
        assert ("encoding=8bit" in text) == wanted
