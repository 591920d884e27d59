"""Content in 8 bits for a server that does not announce 8BITMIME: beside Debian's Postfix, byte for byte."""
import os
import re
import smtplib

import pytest

from instance import Instance, wait_for
from oracle import Oracle
from smtp.login_host import LoginHost

USER = "nobody" if os.geteuid() == 0 else None
UE = b"\xc3\xbc"
EIGHT = b"Content-Transfer-Encoding: 8bit\n"
HEAD = b"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n" + EIGHT


def multi(*parts, head=EIGHT, boundary=b"b", kind=b"mixed", end=b"--b--\n"):
    return (b"MIME-Version: 1.0\nContent-Type: multipart/" + kind + b'; boundary="' + boundary + b'"\n' + head + b"\npre " + UE +
            b"\n" + b"".join(b"--" + boundary + b"\n" + part for part in parts) + end)


def message(kind, text, head=EIGHT):
    return b"MIME-Version: 1.0\nContent-Type: message/" + kind + b"\n" + head + b"\n" + text


# every byte but NUL, LF and CR
ALL = bytes(i for i in range(1, 256) if i not in (10, 13))
LINES = [b"", b"x", UE, b"a=b", b"blank ", b"tab\t", b" ", b"\t", b"in side", b".", b"..", b".x", b"From here", b"From",
         b"from x",
         b"--", b"--b", b"=", b"=3D", b"y ", b"\x7f\x01z", b"z" + b" " * 90, b"-", UE + b" "]
LENGTHS = [70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 148, 149, 150, 151, 152, 153, 998, 999, 2047, 2048, 2049, 2050, 5000]
# name: the message; all go with BODY=8BITMIME but those whose names begin with "plain"
MESSAGES = {
    "text": HEAD + b"\n" + b"hello " + UE + b"\n",
    "lines": HEAD + b"\n" + b"\n".join(LINES) + b"\n",
    "all": HEAD + b"\n" + ALL + b"\n" + ALL[::-1] + b"\n",
    "lengths": HEAD + b"\n" + b"\n".join(b"x" * n for n in LENGTHS) + b"\n",
    "lengths8": HEAD + b"\n" + b"\n".join((UE * n)[:n] for n in LENGTHS) + b"\n",
    "blanks": HEAD + b"\n" + b"\n".join(b"x" * n + b" " for n in range(66, 82)) + b"\n",
    "blanks2": HEAD + b"\n" + b"\n".join(b"x" * n + b" \t y" for n in range(66, 82)) + b"\n",
    "mixedlengths": HEAD + b"\n" + b"\n".join(b"x" * n + UE + b"yyy" for n in range(66, 82)) + b"\n",
    "froms": HEAD + b"\n" + b"\n".join(b"x" * n + b"From .." for n in range(66, 82)) + b"\n",
    "noend": HEAD + b"\nend " + UE,
    "headonly": HEAD,
    "headempty": HEAD + b"\n",
    "nomime": b"Subject: x\n\nhello " + UE + b"\n",
    "noversion": b"Subject: x\n" + EIGHT + b"\nhello " + UE + b"\n",
    "version2": b"MIME-Version: 2.0\n" + EIGHT + b"\nhello " + UE + b"\n",
    "typeonly": b"MIME-Version: 1.0\nContent-Type: text/plain\n\nhello " + UE + b"\n",
    "noheader": UE + b"\n",
    "ascii": HEAD + b"\n" + b"a=b \n" + b"x" * 80 + b"\n",
    "binary": HEAD.replace(b"8bit", b"binary") + b"\n" + UE + b"=\n",
    "upper": HEAD.replace(b"8bit", b"8BIT (really) ") + b"\n" + UE + b"=\n",
    "folded": HEAD.replace(b" 8bit", b"\n\t8bit") + b"\n" + UE + b"=\n",
    "quoted": HEAD.replace(b"8bit", b'"8bit"') + b"\n" + UE + b"=\n",
    "seven": HEAD.replace(b"8bit", b"7bit") + b"\n" + UE + b"=\n",
    "base64": HEAD.replace(b"8bit", b"base64") + b"\n" + UE + b"=\n",
    "qp": HEAD.replace(b"8bit", b"quoted-printable") + b"\n" + UE + b"=C3\n",
    "unknown": HEAD.replace(b"8bit", b"x-uuencode") + b"\n" + UE + b"=\n",
    "noenc": HEAD.replace(b" 8bit", b"") + b"\n" + UE + b"=\n",
    "twice": HEAD + EIGHT + b"\n" + UE + b"=\n",
    "twice7": HEAD + EIGHT.replace(b"8bit", b"7bit") + b"\n" + UE + b"=\n",
    "twice8": HEAD.replace(b"8bit", b"7bit") + EIGHT + b"\n" + UE + b"=\n",
    "twiceqp": HEAD + EIGHT.replace(b"8bit", b"base64") + b"\n" + UE + b"=\n",
    "twiceqp8": HEAD.replace(b"8bit", b"base64") + EIGHT + b"\n" + UE + b"=\n",
    "header": b"Subject: " + UE + b"\n" + HEAD + b"\n" + UE + b"\n",
    "header7": b"Subject: " + UE + b"\nMIME-Version: 1.0\n\nx\n",
    "first": EIGHT + b"MIME-Version: 1.0\nX-After: y\nContent-Type: text/html\nX-Last: z\n\n" + UE + b"=\n",
    "image": HEAD.replace(b"text/plain", b"image/png") + b"\n" + UE + b"=\n",
    "strange": HEAD.replace(b"text/plain", b"what") + b"\n" + UE + b"=\n",
    "spaced": HEAD.replace(b"Encoding:", b"Encoding :") + b"\n" + UE + b"=\n",
    "multi": multi(b"\nno head " + UE + b"\n", HEAD + b"\n" + UE + b" =\n", b"Content-Type: text/html\n\n" + UE + b"=\n",
                   EIGHT + b"X: y\n\nx=\n--\n--bb\n") + b"post " + UE + b"\n",
    "multi7": multi(HEAD + b"\n" + UE + b" =\n", head=b""),
    "multibinary": multi(HEAD + b"\n" + UE + b" =\n", head=EIGHT.replace(b"8bit", b"binary")),
    "multiqp": multi(HEAD + b"\n" + UE + b" =\n", b"\n=" + UE + b"\n", head=EIGHT.replace(b"8bit", b"quoted-printable")),
    "multinobound": HEAD.replace(b"text/plain", b"multipart/mixed") + b"\npre " + UE + b"=\n--b\n\nx " + UE + b"=\n",
    "multiunended": multi(HEAD + b"\n" + UE + b" =\n", HEAD + b"\nlast=" + UE, end=b""),
    "attached64": multi(HEAD + b"\n" + UE + b" =\n",
                        b"Content-Type: image/png; name=x\nContent-Transfer-Encoding: base64\n\nAAAA=\n"),
    "nested": multi(EIGHT + b"Content-Type: multipart/alternative; boundary=i\n\npre=" + UE + b"\n--i\n" + HEAD + b"\n" +
                    UE + b"=\n--i\n\n" +
                    UE + b"=\n--i--\npost=" + UE + b"\n", HEAD + b"\n" + UE + b"=\n"),
    "nestedopen": multi(EIGHT + b"Content-Type: multipart/alternative; boundary=i\n\npre=" + UE + b"\n--i\n" + HEAD +
                        b"\n" + UE + b"=\n",
                        HEAD + b"\n" + UE + b"=\n"),
    "partmessage": multi(b"Content-Type: message/rfc822\n" + EIGHT + b"\nSubject: in\n" + HEAD + b"\n" + UE + b"=\n",
                         b"Content-Type: message/rfc822\n\nSubject: in\n" + HEAD + b"\n" + UE + b"=\n"),
    "digest": multi(b"\nSubject: in\n" + HEAD + b"\n" + UE + b"=\n", EIGHT + b"\nSubject: in\n" + HEAD + b"\n" + UE + b"=\n",
                    b"Content-Type: text/plain\n" + EIGHT + b"\nSubject: in\n" + UE + b"=\n", kind=b"digest"),
    "message": message(b"rfc822", b"Subject: in\n" + HEAD + b"\n" + UE + b"=\n"),
    "message7": message(b"rfc822", b"Subject: in\n" + HEAD + b"\n" + UE + b"=\n", head=b""),
    "messageplain": message(b"rfc822", b"Subject: in\n\n" + UE + b"=\n"),
    "messagehead": message(b"rfc822", b"Subject: " + UE + b"\n" + HEAD + b"\n" + UE + b"=\n"),
    "messagenohead": message(b"rfc822", b"\n" + UE + b"=\n"),
    "messageend": message(b"rfc822", b"Subject: in\n" + EIGHT),
    "messagemulti": message(b"rfc822", multi(HEAD + b"\n" + UE + b"=\n")),
    "messagemessage": message(b"rfc822", message(b"rfc822", HEAD + b"\n" + UE + b"=\n")),
    "messageqp": message(b"rfc822", b"Subject: in\n" + HEAD + b"\n" + UE + b"=\n",
                         head=EIGHT.replace(b"8bit", b"quoted-printable")),
    "global": message(b"global", b"Subject: in\n" + HEAD + b"\n" + UE + b"=\n"),
    "partial": message(b"partial; id=x; number=1", b"Subject: in\n" + HEAD + b"\n" + UE + b"=\n"),
    "external": message(b"external-body; access-type=x", HEAD + b"\n" + UE + b"=\n"),
    "delivery": message(b"delivery-status", b"Reporting-MTA: dns; " + UE + b"\n\n" + UE + b"=\n"),
    "messagenone": b"MIME-Version: 1.0\nContent-Type: message\n" + EIGHT + b"\nA: " + UE + b"=\n\n" + UE + b"=\n",
    "messagefeedback": multi(b"Content-Type: message/feedback-report\n" + EIGHT + b"\nA: b=" + UE + b"\n\nx=" + UE + b"\n",
                             b"Content-Type: message/feedback-report\n\nA: b=" + UE + b"\n\nx=" + UE + b"\n"),
    "enctypeorder": b"MIME-Version: 1.0\n" + EIGHT + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + EIGHT +
                    b"\n" + UE + b"=\n--b--\n",
    "headerlong": HEAD + b"X-Long: " + b"x" * 1200 + b"\n\n" + UE + b"=\n",
    "deep": b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n" % i + EIGHT + b"\n--b%d\n" % i
                     for i in range(110)) + EIGHT + b"\n" + UE + b"=\n",
    "colon": HEAD + b"no header here " + UE + b"=\nmore=\n",
    "partcolon": multi(EIGHT + b"no header here=" + UE + b"\nmore=\n"),
    "partblank": multi(EIGHT + b" \n" + UE + b"=\n", b" x\n" + EIGHT + b"\n" + UE + b"=\n"),
    "cr": HEAD + b"\n" + UE + b"a\rb\n",
    "pieceblank": HEAD + b"\n" + b"x" * 2047 + b" y\n" + b"x" * 2047 + b" \n" + b"x" * 2046 + b" \ty\n" + b"x" * 2043 + b" \ty\n",
    "global7": message(b"global", b"Subject: in\n" + HEAD + b"\n" + UE + b"=\n", head=b""),
    "partglobal": multi(b"Content-Type: message/global\n" + EIGHT + b"\nSubject: " + UE + b"\n" + HEAD + b"\n" + UE + b"=\n"),
    "messagecolon": message(b"rfc822", b"Subject: in\n" + EIGHT + b"no header=" + UE + b"\nmore=\n"),
    "messagecolon7": message(b"rfc822", b"Subject: in\nno header=" + UE + b"\nmore=\n"),
    "comment": HEAD.replace(b"8bit", b"(c) 8bit") + b"\n" + UE + b"=\n",
    "semicolon": HEAD.replace(b"8bit", b"8bit; x") + b"\n" + UE + b"=\n",
    "words": HEAD.replace(b"8bit", b"8bit x") + b"\n" + UE + b"=\n",
    "slash": HEAD.replace(b"8bit", b"8bit/x") + b"\n" + UE + b"=\n",
    "empty": HEAD + EIGHT.replace(b" 8bit", b"") + b"\n" + UE + b"=\n",
    "typetwice": HEAD.replace(b"text/plain", b"multipart/mixed; boundary=b") + b"Content-Type: text/plain\n\n" + UE +
                 b"=\n--b\n\nx\n",
    "parttrailing": multi(HEAD + b"\nblank \n", HEAD + b"\n" + b"x" * 72 + b"=", HEAD + b"\nx \n") + b"post \n",
    "boundarybreak": multi(HEAD + b"\n" + b"x" * 73 + b"--b\n"),
    "messageopen": multi(b"Content-Type: message/rfc822\n" + EIGHT + b"no header=" + UE + b"\n\nSubject: x\n" + EIGHT +
                         b"\n" + UE + b"=\n"),
    "partheadonly": multi(EIGHT, HEAD, EIGHT + b"X: y\n"),
    "plaineight": HEAD + b"\n" + UE + b"=\n",
    "plain": b"Subject: x\n\n" + UE + b"=\n",
    "plaintype": b"MIME-Version: 1.0\nContent-Type: text/plain\n\n" + UE + b"=\n",
    "plainmulti7": multi(HEAD + b"\n" + UE + b" =\n", head=b""),
}


class Host(LoginHost):
    """`taken`: what came for each recipient's domain, and the MAIL before it."""

    def __init__(self, hello):
        self.taken = {}
        super().__init__((), hello)

    def converse(self, peer, number):
        def say(text):
            peer.write(text + b"\r\n")
            peer.flush()
        say(b"220 host.example ESMTP")
        mail = name = b""
        while line := peer.readline():
            verb = line.split()[0].upper()
            if verb in (b"EHLO", b"LHLO"):
                say(b"\r\n".join([b"250-host.example", *(b"250-" + k.encode() for k in self.hello), b"250 DSN"]))
                continue
            if verb == b"MAIL":
                mail = line
            elif verb == b"RCPT":
                name = re.search(rb"@(\w+)\.", line)[1]
            elif verb == b"DATA":
                say(b"354 go on")
                text = b""
                while (part := peer.readline()) != b".\r\n":
                    if not part:
                        return
                    text += part
                self.taken[name.decode()] = (mail, text)
            say(b"250 ok")


# services beside the default one, which converts: their options, and what the server announces
SERVICES = {
    "off": ("smtp", "disable_mime_output_conversion=yes", []),
    "able": ("smtp", "", ["8BITMIME"]),
    "sized": ("smtp", "", ["SIZE 1000000"]),
    "sizedoff": ("smtp", "disable_mime_output_conversion=yes", ["SIZE 1000000"]),
    "local": ("lmtp", "", []),
    "localoff": ("lmtp", "disable_mime_output_conversion=yes", []),
    "checks": ("smtp", "smtp_header_checks=regexp:{{/^Content-Transfer-Encoding:/ PREPEND X-Primary: y}} -o "
               "smtp_mime_header_checks=regexp:{{/^Content-Transfer-Encoding:/ PREPEND X-Part: y}} -o "
               "smtp_nested_header_checks=regexp:{{/^Content-Transfer-Encoding:/ PREPEND X-Nested: y}} -o "
               "smtp_body_checks=regexp:{{/=C3/ PREPEND seen}}", []),
    "plainparts": ("smtp", "disable_mime_input_processing=yes", []),
}
BODIES = ((), ("BODY=7BIT",), ("BODY=8BITMIME",))


class Run:
    def __init__(self, kind, main_cf="", messages=None, services=None):
        """Every message to a server that does not announce 8BITMIME, and some to `services`."""
        messages, services = messages or MESSAGES, SERVICES if services is None else services
        self.hosts = {name: Host(hello) for name, (_, _, hello) in services.items()}
        self.host = Host([])
        rows = "".join(f"s_{name} unix - - n - - {program}" + "".join(f" -o {{{o}}}" for o in options.split(" -o ") if o) + "\n"
                       for name, (program, options, _) in services.items())
        routes = ", ".join(f"{{s{i}{name}.example = s_{name}:[127.0.0.1]:{host.port}}}" for name, host in self.hosts.items()
                           for i in range(len(BODIES)))
        main_cf = (f"transport_maps = inline:{{{routes}}}\n" * bool(services) +
                   f"default_transport = smtp:[127.0.0.1]:{self.host.port}\nmyhostname = mail.example\nnotify_classes =\n"
                   + main_cf)
        if kind == "oracle":
            system = Oracle(main_cf=main_cf, master_extra=rows)
        else:
            system = Instance(main_cf=main_cf, master_extra=rows, user=USER)
        try:
            system.start()
            with smtplib.SMTP("127.0.0.1", system.port, timeout=60, local_hostname="cli.example") as smtp:
                smtp.ehlo()

                def send(name, text, options):
                    smtp.sendmail("me@here.example", [f"x@{name}.example"], text.replace(b"\n", b"\r\n"), mail_options=options)
                for name, text in messages.items():
                    send(name, text, () if name.startswith("plain") else ("BODY=8BITMIME",))
                for name in services:
                    for i, options in enumerate(BODIES):
                        send(f"s{i}{name}", messages["multi"] if i != 1 else messages["lines"].replace(EIGHT, b""), options)
            expected = len(messages) + len(BODIES) * len(services)
            wait_for(lambda: len(set(re.findall(r"to=<x@(\w+)\.example>, .*status=", system.log()))) == expected, 60,
                     "all results")
        finally:
            self.log = system.log()
            system.stop()
            for host in (self.host, *self.hosts.values()):
                host.close()

    def result(self, name):
        """MAIL, and the content without what is different in each run; or what the log says."""
        for host in (self.host, *self.hosts.values()):
            if name in host.taken:
                mail, text = host.taken[name]
                text = re.sub(rb"\AReceived: .*\r\n([ \t].*\r\n)*", b"", text)
                text = re.sub(rb"(?m)^(Message-Id|Date): .*\r\n", b"", text)
                return re.sub(rb"SIZE=\d+", b"SIZE=", mail), text
        return re.search(rf"to=<x@{name}\.example>, relay=(\S+?):\d+, .*, (dsn=.*)", self.log).groups()


@pytest.fixture(scope="module")
def run():
    made = {}

    def one(kind):
        if kind == "oracle" and Oracle.why_not():
            pytest.skip(Oracle.why_not())
        if kind not in made:
            made[kind] = Run(kind)
        return made[kind]
    return one


def test_beside_debian(run):
    ours, theirs, wrong = run("angarium"), run("oracle"), []
    for name in [*MESSAGES, *(f"s{i}{name}" for name in SERVICES for i in range(len(BODIES)))]:
        a, b = ours.result(name), theirs.result(name)
        if a != b:
            wrong.append(f"{name}:\n  ours   {a}\n  theirs {b}")
    assert not wrong, "\n".join(wrong)


def test_disable_mime_output_conversion(run):
    """In words of their own, where there is no Debian: what goes out with it, and without."""
    ours = run("angarium")
    for name in ("s0off", "s2localoff", "s2able"):
        assert EIGHT.strip() in ours.result(name)[1] and UE + b" =\r\n" in ours.result(name)[1], name
    for name in ("text", "s2local", "s0local", "s2plainparts"):
        mail, text = ours.result(name)
        assert b"Transfer-Encoding: quoted-printable\r\n" in text and b"=C3=BC" in text and b"BODY" not in mail, name
    assert b" BODY=8BITMIME" in ours.result("s2able")[0] and b" BODY=7BIT" in ours.result("s1able")[0]
    assert b"SIZE=" in ours.result("s0sizedoff")[0] and b"SIZE=" not in ours.result("s0sized")[0]
    assert ours.result("deep") == ("127.0.0.1[127.0.0.1]", "dsn=5.6.0, status=bounced (MIME nesting exceeds safety limit)")


def test_force_mime_input_conversion():
    """cleanup's side of the same code (Debian's 3.7 has none): what it converts is what smtp converts, but that the field
    comes before those that cleanup adds; and header_checks and body_checks see it."""
    some = {name: text for name, text in MESSAGES.items() if name != "deep"}
    services = {"able": ("smtp", "", ["8BITMIME"])}
    forced = Run("angarium", """\
force_mime_input_conversion = yes
disable_mime_output_conversion = yes
header_checks = regexp:{{/^Content-Transfer-Encoding: q/ WARN field}}
body_checks = regexp:{{/^hello =C3=BC$$/ WARN line}}
""", some, services)
    plain = Run("angarium", "", some, {})
    wrong = []
    for name in some:
        a, b = (r.result(name)[1].partition(b"\r\n\r\n") for r in (forced, plain))
        if a[2] != b[2] or sorted(a[0].split(b"\r\n")) != sorted(b[0].split(b"\r\n")):
            wrong.append(f"{name}:\n  forced {a}\n  smtp   {b}")
    assert not wrong, "\n".join(wrong)
    assert b"Encoding: 7bit\r\n" in forced.result("s2able")[1]
    for text in ("warning: header Content-Transfer-Encoding: quoted-printable from", "warning: body hello =C3=BC from"):
        assert text in forced.log, text
