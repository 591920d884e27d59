"""The before-queue content filter (smtpd_proxy_filter) beside Debian's postfix: the same filter, the same client, and the
client's replies, what the filter is told and the log are the same words."""
import re
import socket

import pytest

from instance import Instance, free_port, wait_for
from oracle import Oracle
from proxyfilter.filter_server import FilterServer

pytestmark = pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))

COMMON = """\
myhostname = mx.here.example
mydestination = localhost
mail_name = Mail
mynetworks = 127.0.0.0/8
local_recipient_maps =
notify_classes =
smtpd_proxy_timeout = 4s
message_size_limit = 20000
smtpd_forbid_bare_newline = normalize
smtpd_forbid_bare_newline_exclusions =
smtpd_forbid_unauth_pipelining = no
smtpd_junk_command_limit = 1000
"""
MAIL, RCPT, OTHER = "MAIL FROM:<a@there.example>", "RCPT TO:<x@localhost>", "RCPT TO:<y@localhost>"
MESSAGE = "Subject: x\r\n\r\nbody\r\n..dot\r\n."
OPEN = ["EHLO client.example", MAIL, RCPT]
WHOLE = [*OPEN, "DATA", MESSAGE, "QUIT"]
TWO = ["EHLO client.example", MAIL + " SIZE=100  BODY=8BITMIME", RCPT + " NOTIFY=NEVER", OTHER, "DATA", MESSAGE, "NOOP",
       "QUIT"]
ADJUST = "smtpd_proxy_options = speed_adjust"


def action(text):
    return f"smtpd_recipient_restrictions = check_client_access inline:{{{{127.0.0.1 = {text}}}}}, permit"


# name, the filter's words, parameters of the service, what the client says
CASES = [
    ("plain", {}, "", TWO),
    ("helo", {}, "", ["HELO client.example", *WHOLE[1:]]),
    ("no_helo", {}, "", WHOLE[1:]),
    ("no_xforward", {"offer": ""}, "", TWO),
    ("some_xforward", {"offer": "xforward PROTO name"}, "", WHOLE),
    ("ehlo_name", {}, "smtpd_proxy_ehlo = other.name", WHOLE),
    ("banner_lines", {"CONNECT": "220-a\r\n220 b"}, "", WHOLE),
    ("banner_554", {"CONNECT": "554 no"}, "", TWO),
    ("banner_421", {"CONNECT": "421 no"}, "", TWO),
    ("banner_none", {"CONNECT": None}, "", TWO),
    ("banner_hang", {"CONNECT": "HANG"}, "", [*OPEN, "QUIT"]),
    ("ehlo_500", {"EHLO": "500 what"}, "", TWO),
    ("ehlo_421", {"EHLO": "421 what"}, "", TWO),
    ("xforward_500", {"XFORWARD": "500 what"}, "", TWO),
    ("mail_451", {"MAIL": "451 4.3.0 later"}, "", TWO),
    ("mail_354", {"MAIL": "354 what"}, "", TWO),
    ("mail_close", {"MAIL": None}, "", TWO),
    ("rcpt_550", {"RCPT": "550 5.1.1 nobody"}, "", TWO),
    ("rcpt_lines", {"RCPT": "550-5.1.1 nobody\r\n550 5.1.1 here"}, "", TWO),
    ("rcpt_251", {"RCPT": "251 elsewhere"}, "", TWO),
    ("rcpt_354", {"RCPT": "354 what"}, "", TWO),
    ("rcpt_close", {"RCPT": None}, "", TWO),
    ("rcpt_421", {"RCPT": "421 4.3.2 bye"}, "", [*OPEN, "NOOP"]),
    ("rcpt_second", {"RCPT": ["250 ok", "550 5.1.1 nobody"]}, "", TWO),
    ("data_550", {"DATA": "550 5.7.1 no"}, "", TWO),
    ("data_250", {"DATA": "250 what"}, "", TWO),
    ("data_close", {"DATA": None}, "", TWO),
    ("dot_550", {"dot": "550 5.7.1 virus"}, "", TWO),
    ("dot_lines", {"dot": "550-5.7.1 virus\r\n550 5.7.1 found"}, "", TWO),
    ("dot_421", {"dot": "421 4.7.1 bye"}, "", [*WHOLE[:-1], "NOOP"]),
    ("dot_521", {"dot": "521 5.7.1 bye"}, "", [*WHOLE[:-1], "NOOP"]),
    ("dot_354", {"dot": "354 what"}, "", TWO),
    ("dot_220", {"dot": "220 fine"}, "", TWO),
    ("dot_close", {"dot": None}, "", TWO),
    ("dot_hang", {"dot": "HANG"}, "", WHOLE),
    ("dot_bye", {"dot": ("250 2.0.0 Ok: taken", None)}, "", WHOLE),
    ("too_large", {}, "", [*OPEN, "DATA", "Subject: x\r\n\r\n" + ("x" * 60 + "\r\n") * 400 + ".", "NOOP", "QUIT"]),
    ("end_of_data", {}, "smtpd_end_of_data_restrictions = reject", [*WHOLE[:-1], "NOOP", "QUIT"]),
    ("bdat", {}, "", [*OPEN, "BDAT 6\r\na: b\r\n", "BDAT 6\r\n\r\n.x\r\n", "BDAT 3 LAST\r\n.\r\n", "NOOP", "QUIT"]),
    ("bdat_refused", {"DATA": "550 5.7.1 no"}, "", [*OPEN, "BDAT 6\r\na: b\r\n", "BDAT 6 LAST\r\n\r\n.x\r\n", "QUIT"]),
    ("rset", {}, "", [*OPEN, "RSET", MAIL, RCPT, "DATA", MESSAGE, MAIL, RCPT, "DATA", MESSAGE, "QUIT"]),
    ("quit", {}, "", [*OPEN, "QUIT"]),
    ("lost", {}, "", [*OPEN, "DATA", "CLOSE"]),
    ("mailbox_lines", {}, "", [*OPEN, "DATA", "From me\r\n>From you\r\na: b\r\n\r\nx\r\n.", "QUIT"]),
    ("blank_first", {}, "", [*OPEN, "DATA", " a: b\r\n\r\nx\r\n.", "QUIT"]),
    ("no_header", {}, "", [*OPEN, "DATA", "x\r\n.", "QUIT"]),
    ("long_line", {}, "", [*OPEN, "DATA", "a: b\r\n\r\n" + "x" * 9000 + "\r\n.", "QUIT"]),
    ("open_early", {}, "smtpd_delay_open_until_valid_rcpt = no", [*OPEN, OTHER, *WHOLE[3:]]),
    ("open_early_refused", {"MAIL": "550 5.7.1 not you"}, "smtpd_delay_open_until_valid_rcpt = no", [*OPEN, "QUIT"]),
    ("forwarded", {}, "smtpd_authorized_xforward_hosts = 127.0.0.1",
     [OPEN[0], "XFORWARD NAME=far.example ADDR=192.0.2.9 HELO=fh IDENT=ABC PORT=99 SOURCE=REMOTE", *WHOLE[1:]]),
    ("xclient", {}, "smtpd_authorized_xclient_hosts = 127.0.0.1\nlocal_header_rewrite_clients = permit_mynetworks",
     [OPEN[0], "XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::9 PORT=99 PROTO=SMTP", "HELO a+b", *WHOLE[1:]]),
    ("stranger", {}, "smtpd_authorized_xclient_hosts = 127.0.0.1\nlocal_header_rewrite_clients = permit_mynetworks",
     [OPEN[0], "XCLIENT NAME=far.example ADDR=192.0.2.9", *WHOLE]),
    ("filter", {}, action("FILTER smtp:x"), WHOLE),
    ("hold", {}, action("HOLD"), WHOLE),
    ("discard", {}, action("DISCARD"), WHOLE),
    ("redirect", {}, action("REDIRECT x@y"), WHOLE),
    ("bcc", {}, action("BCC x@y"), WHOLE),
    ("prepend", {}, action("PREPEND X-Old: 1"), WHOLE),
    ("footer", {"dot": "550 5.7.1 no"}, "smtpd_reject_footer = see there", WHOLE),
    ("soft_bounce", {"dot": "550-5.7.1 no\r\n550 5.7.1 really"}, "soft_bounce = yes", WHOLE),
    ("verp", {}, "smtpd_authorized_verp_clients = 127.0.0.1", [OPEN[0], MAIL + " XVERP", *WHOLE[2:]]),
    ("command_filter", {}, "smtpd_command_filter = regexp:{{/^RCPT/ RCPT TO:<z@localhost>}}", WHOLE),
    ("content_filter", {}, "content_filter = smtp:x", WHOLE),
    ("no_reception", {}, "receive_override_options = no_unknown_recipient_checks,no_address_mappings", WHOLE),
    ("adjust", {}, ADJUST, TWO),
    ("adjust_banner", {"CONNECT": "554 no"}, ADJUST, TWO),
    ("adjust_ehlo", {"EHLO": "500 what"}, ADJUST, TWO),
    ("adjust_mail", {"MAIL": "451 4.3.0 later"}, ADJUST, TWO),
    ("adjust_rcpt", {"RCPT": "550 5.1.1 nobody"}, ADJUST, TWO),
    ("adjust_rcpt_second", {"RCPT": ["250 ok", "550 5.1.1 nobody"]}, ADJUST, TWO),
    ("adjust_rcpt_close", {"RCPT": None}, ADJUST, TWO),
    ("adjust_data", {"DATA": "550 5.7.1 no"}, ADJUST, TWO),
    ("adjust_data_250", {"DATA": "250 what"}, ADJUST, TWO),
    ("adjust_dot", {"dot": "550 5.7.1 virus"}, ADJUST, TWO),
    ("adjust_dot_close", {"dot": None}, ADJUST, TWO),
    ("adjust_quit", {}, ADJUST, [*OPEN, "QUIT"]),
    ("adjust_lost", {}, ADJUST, [*OPEN, "DATA", "CLOSE"]),
    ("adjust_end_of_data", {}, ADJUST + "\nsmtpd_end_of_data_restrictions = reject", [*WHOLE[:-1], "NOOP", "QUIT"]),
    ("adjust_bdat", {}, ADJUST, [*OPEN, "BDAT 6\r\na: b\r\n", "BDAT 6 LAST\r\n\r\n.x\r\n", "QUIT"]),
]
NO_FILTER = [("refused", "", TWO), ("refused_adjust", ADJUST, TWO)]


class Server:
    """A server with a service for each case, and the filter they share."""

    def __init__(self, kind):
        self.filter = FilterServer()
        closed = free_port()
        self.ports, lines = {}, ""
        cases = [(name, conf, f"127.0.0.1:{self.filter.port}") for name, _, conf, _ in CASES]
        cases += [(name, conf, f"127.0.0.1:{closed}") for name, conf, _ in NO_FILTER]
        for name, conf, at in cases:
            self.ports[name] = free_port()
            lines += f"127.0.0.1:{self.ports[name]} inet n - n - - smtpd\n  -o smtpd_proxy_filter={at}\n"
            lines += "".join(f"  -o {{ {line} }}\n" for line in conf.splitlines())
        if kind == "oracle":
            self.server = Oracle(main_cf=COMMON)
            self.server.write()
            with open(self.server.directory / "etc/master.cf", "a") as master_cf:
                master_cf.write(lines)
            self.write, self.server.write = self.server.write, lambda: None
        else:
            self.server = Instance(main_cf=COMMON, master_extra=lines, name="proxyfilter")
        self.server.start()

    def stop(self):
        self.server.stop()
        self.filter.close()

    def play(self, name, replies, lines):
        """Replies to the client, sessions of the filter, records of smtpd."""
        replies = dict(replies)
        self.filter.offer = replies.pop("offer", "XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT DOMAIN")
        self.filter.reset(**replies)
        before = len(self.server.log())
        said = talk(self.ports[name], lines)
        wait_for(lambda: "disconnect from" in self.server.log()[before:], what="the end of the session")
        wait_for(lambda: all(s and s[-1] == "<closed>" for s in self.filter.sessions) or "HANG" in replies.values())
        return said, self.filter.sessions, self.server.log()[before:]


def talk(port, lines):
    said = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s, s.makefile("rwb") as f:
        def reply():
            lines = []
            while line := f.readline():
                lines.append(line.decode().rstrip("\r\n"))
                if line[3:4] != b"-":
                    return lines
            return [*lines, "<end>"]
        reply()
        for line in lines:
            if line == "CLOSE":
                return said
            if "\r\n" in line and not line.startswith("BDAT") and not said[-1][-1].startswith("354"):
                continue
            try:
                f.write(line.encode() + (b"" if line.startswith("BDAT") else b"\r\n"))
                f.flush()
                answer = reply()
            except OSError:  # the server has closed
                answer = ["<end>"]
            if not line.startswith("EHLO"):
                said.append(answer)
    return said


def normal(text):
    text = re.sub(r"PORT=\d{4,5}", "PORT=N", text)
    text = re.sub(r"\w{3}, +\d+ \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4} \(\w+\)", "DATE", text)
    return re.sub(r"127\.0\.0\.1:\d+", "FILTER", text)


def filtered(sessions):
    """What the filter was told. Of content that is broken off nobody is told how much; Postfix also says QUIT in the middle
    of it, where it is one more line."""
    out = []
    for session in sessions:
        words = [normal(w.decode("latin-1") if isinstance(w, bytes) else w) for w in session]
        if "<cut>" in words:
            at = words.index("<cut>")
            words = words[:max(at - 1, 0)] + words[at:]
        out.append(words)
    return out


def records(log):
    """smtpd's lines without time and process."""
    found = re.findall(r"postfix/(?:\S+/)?smtpd\[\d+\]: (.*)", log)
    # the last reply of the filter, which had nothing to do with it, stands in Postfix's log when the content is too large
    found = [re.sub(r"proxy-reject: END-OF-MESSAGE: (354 go on|552 5.3.4 Error: message file too big);",
                    "proxy-reject: END-OF-MESSAGE: TOO LARGE;", r) for r in found]
    # 3.12: "NOQUEUE:" in front, and XCLIENT that worked counts as such
    found = [re.sub(r"^NOQUEUE: lost connection", "lost connection", r) for r in found]
    found = [re.sub(r" xclient=.* commands=.*", "", r) for r in found]
    return [normal(r) for r in found if "overriding earlier entry" not in r]


@pytest.fixture(scope="module")
def servers():
    made = []
    try:
        for kind in ("oracle", "ours"):
            made.append(Server(kind))
        yield made
    finally:
        for server in made:
            server.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0])
def test_same_words(servers, case):
    name, replies, _, lines = case
    theirs, mine = (server.play(name, replies, lines) for server in servers)
    assert mine[0] == theirs[0]
    assert filtered(mine[1]) == filtered(theirs[1])
    assert records(mine[2]) == records(theirs[2])


@pytest.mark.parametrize("case", NO_FILTER, ids=lambda c: c[0])
def test_no_filter(servers, case):
    name, _, lines = case
    theirs, mine = (server.play(name, {}, lines) for server in servers)
    assert mine[0] == theirs[0]
    assert records(mine[2]) == records(theirs[2])
    assert any("connect to proxy filter" in r for r in records(mine[2]))
