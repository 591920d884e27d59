"""What the SMTP client changes in a message and its envelope on the way out, and in what the server says: beside Debian's
Postfix. One row a case; both must say the same to the server, send it the same bytes, and log the same."""
import os
import pathlib
import re
import shutil
import smtplib
import socket
import tempfile
import time

import pytest

from instance import Instance, wait_for
from name_server import Names
from oracle import Oracle
from smtp.login_host import LoginHost

USER = "nobody" if os.geteuid() == 0 else None
MESSAGE = """\
From: Me <me@here.example>
Sender: s@here.example
To: x@{domain}
Cc: Other <o@here.example>, p@else.example
Reply-To: r@here.example
Errors-To: e@here.example
X-Me: me@here.example
Subject: hello
Date: Sun, 22 Nov 2026 03:18:19 +0000
Message-Id: <1@here.example>
Received: from a
\tby b
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

pre me@here.example
--b
Content-Type: text/plain; name=x.exe
X-Part: p

line one
line two
--b
Content-Type: message/rfc822

From: me@here.example
Subject: nested

nested body
--b--
"""
FILES = {
    "head": "/^Subject/ INFO note\n/^To:/ REJECT no\n/^Cc/ STRIP gone\n/^X-Me/ DUNNO\n/^Received/ REPLACE Received: short\n"
            "/^From/ REPLACE no header\n/^Reply-To/ PASS\n/^Errors/ HOLD\n/^Sender/ WARN look\n",
    "private": "/^Received:/ IGNORE\n/^X-Me:/ IGNORE\n/^Subject/ PREPEND X-Before: 1\n",
    "mime": "/^Content-Type:.*name=/ REPLACE Content-Type: text/x\n/^X-Part/ IGNORE\n",
    "nested": "/^Subject/ REPLACE Subject: changed\n/^From/ INFO seen\n",
    "body": "/two/ REPLACE zwei\n/one/ PREPEND zero\n/nested body/ IGNORE\n/^pre/ WARN w\n/--b/ INFO i\n",
    "bad": "/^Subject/ NONSENSE x\n/^To:/ PREPEND\n/^Cc/ REPLACE\n/^From/ PREPEND bad header\n",
    "generic": "/^From/ REPLACE From: me@here.example\n/^Reply-To:/ INFO x\n",
    "hide": "/^250-SIZE.*/ 250-NOTHING\n",
    "later": "/^250 2.1.5.*/ 450 4.2.1 later\n",
    "refuse": "/^220 .*/ 554 5.3.2 no\n",
}
GENERIC = {"generic_maps": "inline:{{me@here.example=out@isp.example},{@here.example=other@isp.example}}"}
# name, smtp_... parameters, keywords of EHLO, what stands in the log beside the result (of `smtp`); HOST: 127.0.0.1[127.0.0.1]
CASES = [
    ("plain", {}, ["DSN"]),
    ("generic", GENERIC, ["DSN"]),
    ("genericrcpt", {"generic_maps": "inline:{{x@genericrcpt.example=y@other.example},"
                                     "{me@here.example=Out <out@isp.example>}}"}, ["DSN"]),
    ("genericchecks", {**GENERIC, "header_checks": "regexp:DIR/generic"}, []),
    ("head", {"header_checks": "regexp:DIR/head"}, []),
    ("private", {"header_checks": "regexp:DIR/private"}, []),
    ("parts", {"mime_header_checks": "regexp:DIR/mime", "nested_header_checks": "regexp:DIR/nested",
               "body_checks": "regexp:DIR/body"}, []),
    ("bad", {"header_checks": "regexp:DIR/bad"}, []),
    ("headfails", {"header_checks": "fail:x"}, []),
    ("bodyfails", {"body_checks": "fail:x"}, []),
    ("hide", {"reply_filter": "regexp:DIR/hide"}, ["SIZE 10", "DSN"]),
    ("later", {"reply_filter": "regexp:DIR/later"}, []),
    ("refuse", {"reply_filter": "regexp:DIR/refuse"}, []),
    ("filterfails", {"reply_filter": "fail:x"}, []),
    ("keywords", {"discard_ehlo_keyword_address_maps": "inline:{{127.0.0.1=DSN,SIZE}}"}, ["SIZE 10", "DSN"]),
    ("silent", {"discard_ehlo_keyword_address_maps": "inline:{{127.0.0.1=DSN,silent-discard}}",
                "discard_ehlo_keywords": "size"}, ["DSN"]),
    ("elsewhere", {"discard_ehlo_keyword_address_maps": "inline:{{127.0.0.2=DSN}}", "discard_ehlo_keywords": "dsn"},
     ["DSN"]),
    ("keywordsfail", {"discard_ehlo_keyword_address_maps": "fail:x"}, ["DSN"]),
    ("xforward", {"send_xforward_command": "yes"}, ["XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"]),
    ("xforwardsome", {"send_xforward_command": "yes"}, ["XFORWARD NAME FOO HELO"]),
    ("xforwardno", {}, ["XFORWARD NAME HELO"]),
]


class Run:
    def __init__(self, kind, directory):
        directory.chmod(0o755)
        for name, text in FILES.items():
            (directory / name).write_text(text)
        self.hosts = {case[0]: LoginHost((), case[2]) for case in CASES}
        self.program = program = "lmtp" if kind == "lmtp" else "smtp"
        services = "".join(
            f"s_{name} unix - - n - - {program}" + "".join(
                f" -o {{{program}_{self.spelled(parameter)}={value.replace('DIR', str(directory))}}}"
                for parameter, value in parameters.items())
            + "\n" for name, parameters, _ in CASES)
        routes = ", ".join(f"{{{name}.example = s_{name}:[127.0.0.1]:{host.port}}}" for name, host in self.hosts.items())
        main_cf = (f"transport_maps = inline:{{{routes}}}\nmyhostname = mail.example\nnotify_classes =\n"
                   "smtpd_client_port_logging = no\n")
        if kind == "oracle":
            system = Oracle(main_cf=main_cf, master_extra=services)
        else:
            system = Instance(main_cf=main_cf, master_extra=services, user=USER)
        try:
            system.start()
            with smtplib.SMTP("127.0.0.1", system.port, timeout=60, local_hostname="cli.example") as smtp:
                for name in self.hosts:
                    smtp.sendmail("me@here.example", [f"x@{name}.example"],
                                  MESSAGE.format(domain=f"{name}.example").replace("\n", "\r\n"))
            wait_for(lambda: len(set(re.findall(r"to=<x@(\w+)\.example>, .*status=", system.log()))) == len(CASES), 60,
                     "all results")
        finally:
            self.log = system.log()
            system.stop()
            for host in self.hosts.values():
                host.close()

    def spelled(self, parameter):
        return parameter.replace("ehlo", "lhlo") if self.program == "lmtp" else parameter

    def said(self, name):
        # Debian's says RSET where all recipients were refused, and QUIT at once behind it
        lines = [line for line in self.hosts[name].lines() if line not in ("QUIT", "RSET")]
        return [re.sub(r"PORT=\d+|IDENT=\w+", "=", line) for line in lines]

    def content(self, name):
        """Without our own Received:, which is the first field."""
        text = "".join(self.hosts[name].content)
        return re.sub(r"\AReceived: from cli(.*\r\n)([ \t].*\r\n)*", "", text)

    def logged(self, name):
        """What smtp says of that message."""
        queue_id = re.search(rf"(\w+): to=<x@{name}\.example>", self.log).group(1)
        lines = re.findall(rf"/(?:\w+/)?{self.program}\[\d+\]: (?:warning: )?{queue_id}: (.*)", self.log)
        lines = [re.sub(r"relay=(\S+?):?\d*, delay=.*, dsn", r"relay=\1, dsn", line) for line in lines]
        return [re.sub(r"Received: from cli.*?: Received", "Received: OURS: Received", line) for line in lines]


@pytest.fixture(scope="module")
def run():
    made = {}
    # where anybody may read: each start of a pytest shuts its own directory to others
    directory = pathlib.Path(tempfile.mkdtemp(prefix="angarium-outgoing-"))

    def one(kind):
        if kind == "oracle" and Oracle.why_not():
            pytest.skip(Oracle.why_not())
        if kind not in made:
            made[kind] = Run(kind, directory)
        return made[kind]
    yield one
    shutil.rmtree(directory)


def test_header_privacy_and_generic_maps(run):
    """The two that small sites need most, in words of their own."""
    ours = run("angarium")
    assert ours.said("generic")[0] == "MAIL FROM:<out@isp.example>"
    text = ours.content("generic")
    assert "From: Me <out@isp.example>\r\n" in text and "Cc: Other <other@isp.example>, p@else.example\r\n" in text
    assert "X-Me: me@here.example\r\n" in text and "pre me@here.example\r\n" in text
    text = ours.content("private")
    assert "Received:" not in text and "X-Me" not in text and "X-Before: 1\r\nSubject: hello\r\n" in text


def test_beside_debian(run):
    ours, theirs, wrong = run("angarium"), run("oracle"), []
    for name, _, _ in CASES:
        for what in ("said", "content", "logged"):
            a, b = getattr(ours, what)(name), getattr(theirs, what)(name)
            if a != b:
                wrong.append(f"{name}: {what}:\n  ours   {a}\n  theirs {b}")
    assert not wrong, "\n".join(wrong)


def test_warnings(run):
    log = run("angarium").log
    for line in ("unsupported command in smtp_header_checks map: REJECT no",
                 "unsupported command in smtp_header_checks map: PASS",
                 'bad REPLACE header text "no header" in smtp_header_checks map -- need "headername: headervalue"',
                 "REPLACE action without text in smtp_header_checks map", "discarding EHLO keywords: SIZE DSN"):
        assert line in log, line
    assert log.count("discarding EHLO keywords") == 2


def test_lmtp_does_the_same(run):
    """lmtp_generic_maps and the rest of the table, in the parameters of lmtp(8)."""
    ours, lmtp, wrong = run("angarium"), run("lmtp"), []
    for name, _, _ in CASES:
        a, b = ours.logged(name), [line.replace("lmtp", "smtp").replace("lhlo", "ehlo") for line in lmtp.logged(name)]
        for what, one, other in (("said", ours.said(name), lmtp.said(name)), ("logged", a, b),
                                 ("content", ours.content(name), lmtp.content(name))):
            if one != other:
                wrong.append(f"{name}: {what}:\n  smtp {one}\n  lmtp {other}")
    assert not wrong, "\n".join(wrong)


class SlowHost(LoginHost):
    """Takes a message in small bites for `seconds`, and then the rest at once; says nothing to XFORWARD."""

    def __init__(self, seconds, hello):
        self.seconds = seconds
        super().__init__(hello=hello)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)

    def converse(self, peer, number):
        def say(text):
            peer.write(text + b"\r\n")
            peer.flush()
        say(b"220 slow")
        while line := self.line(peer, number):
            if line.startswith((b"EHLO", b"LHLO")):
                say(b"250-slow\r\n250 " + self.hello[0].encode())
            elif line.startswith(b"DATA"):
                say(b"354 go on")
                end = time.monotonic() + self.seconds
                while time.monotonic() < end:
                    if not peer.read(65536):
                        return
                    time.sleep(0.05)
                while (part := peer.readline()) != b".\r\n":
                    if not part:
                        return
                say(b"250 2.0.0 taken")
            elif not line.startswith(b"XFORWARD"):
                say(b"250 ok")


NEVER = 1000000000  # bytes a second, which nobody has
TIME_LIMITS = {  # of a message: what takes it, the options, what becomes of it
    "each": ("smtp", "slow", f"smtp_per_request_deadline=no smtp_min_data_rate={NEVER}", "sent"),
    "rate": ("smtp", "slow", "smtp_per_request_deadline=yes smtp_min_data_rate=1", "sent"),
    "all": ("smtp", "slow", f"smtp_per_request_deadline=yes smtp_min_data_rate={NEVER}", "sending message body"),
    "lmtprate": ("lmtp", "slow", "lmtp_per_request_deadline=yes lmtp_min_data_rate=1", "sent"),
    "lmtpall": ("lmtp", "slow", f"lmtp_per_request_deadline=yes lmtp_min_data_rate={NEVER}", "sending message body"),
    "xforward": ("smtp", "silent", "smtp_send_xforward_command=yes smtp_xforward_timeout=1s", "sending XFORWARD"),
    "lmtpxforward": ("lmtp", "silent", "lmtp_send_xforward_command=yes lmtp_xforward_timeout=1s", "sending XFORWARD"),
}


def test_time_limits(make_instance):
    """smtp_per_request_deadline with smtp_min_data_rate: all of a message has smtp_data_xfer_timeout, and more for what
    has gone; without it each write has. smtp_xforward_timeout. And those of lmtp(8)."""
    hosts = {"slow": SlowHost(12, ["8BITMIME"]), "silent": SlowHost(0, ["XFORWARD HELO"])}
    services = "".join(f"{name} unix - - n - - {program} -o {program}_data_xfer_timeout=8s -o {options.replace(' ', ' -o ')}\n"
                       for name, (program, _, options, _) in TIME_LIMITS.items())
    routes = ", ".join(f"{{{name}.example = {name}:{'inet:' if program == 'lmtp' else ''}[127.0.0.1]:{hosts[host].port}}}"
                       for name, (program, host, _, _) in TIME_LIMITS.items())
    mail = make_instance(user=USER, master_extra=services, main_cf=f"transport_maps = inline:{{{routes}}}\n"
                         "message_size_limit = 50000000\n")
    with smtplib.SMTP("127.0.0.1", mail.port, timeout=60) as smtp:
        for kind, size in ("silent", 1), ("slow", 250000):
            smtp.sendmail("me@here.example", [f"x@{name}.example" for name, row in TIME_LIMITS.items() if row[1] == kind],
                          "Subject: x\r\n\r\n" + ("x" * 78 + "\r\n") * size)

    def results():
        return dict(re.findall(r"to=<x@(\w+)\.example>, .*status=(.*)", mail.log()))
    wait_for(lambda: len(results()) == len(TIME_LIMITS), 90, "all results")
    for name, (_, _, _, expected) in TIME_LIMITS.items():
        assert expected in results()[name], name
        assert ("timed out" in results()[name]) == (expected != "sent"), name
    for host in hosts.values():
        host.close()


@pytest.mark.parametrize("program", ["smtp", "lmtp"])
def test_dns_reply_filter(make_instance, program):
    """An address that is taken out of the answers is not used."""
    host = LoginHost(())
    names = Names({("mx.far.example", "A"): (60, ["127.0.0.2", "127.0.0.1"])})
    mail = make_instance(user=USER, dns=names.address, main_cf=f"""\
default_transport = {program}:[mx.far.example]:{host.port}
{program}_dns_reply_filter = pcre:{{{{/ A 127.0.0.2$$/ IGNORE}}}}
{program}_randomize_addresses = no
""")
    with smtplib.SMTP("127.0.0.1", mail.port, timeout=60) as smtp:
        smtp.sendmail("me@here.example", ["x@far.example"], "Subject: x\r\n\r\nhello\r\n")
    assert "relay=mx.far.example[127.0.0.1]" in mail.wait_log("status=sent")
    assert "ignoring DNS RR: mx.far.example" in mail.log()
    assert "127.0.0.2]" not in mail.log()
    host.close()
    names.close()
