"""ADDRESS_REWRITING_README and BACKSCATTER_README: what becomes of addresses, and mail that lies about them."""
from guide_world import STRANGER, Mail, Scenario

GUIDE = "ADDRESS_REWRITING"
BOX = "status=sent \\(delivered to mailbox\\)"
HERE = "127.0.0.1"
# What becomes of one address in the header and in the envelope, seen where the mail comes to.
TO = "to \\['%s'\\]"


def standard(to, becomes):
    return Mail(to, f"to=<{becomes}>", by="sendmail", came=(TO % becomes, f"^Cc: {becomes}$"), header=f"Cc: {to}\n")


DOMAINS = "mydestination = $myhostname, localhost\nmyorigin = home.example\nappend_dot_mydomain = yes\n"


def masked(sender, becomes, to="x@there.example", rcpt="x@there.example"):
    return Mail(to, f"to=<{rcpt}>", by=HERE, sender=sender, header=f"Cc: {sender}\n",
                came=(f"^From <{becomes}> to \\['{rcpt}'\\]", f"^Cc: {becomes}$"))


def luser(value, to, becomes):
    return Scenario(GUIDE, f"local catch-all: {value}", (
        f"luser_relay = {value}\nlocal_recipient_maps =\nrecipient_delimiter = +\n"
        "alias_maps = inline:{ {sysadmin+ghost=a@seen.example} {sysadmin+ghost+tag=b@seen.example} }\n"), [
            Mail(to, f"to=<{becomes}>, .*status=sent")])


SCENARIOS = {
    "headers of strangers": Scenario(GUIDE, "rewrite headers or not", "myorigin = home.example\n", [
        Mail("{me}@localhost", f"to=<{{me}}@localhost>, .*{BOX}", header="From: who\n"),
        Mail("{me}@localhost", f"to=<{{me}}@localhost>, .*{BOX}", by=HERE, header="From: us\n")],
        stored={"mail/{me}": ["^From: who$", "^From: us@home.example$"]}),
    "headers of strangers, marked": Scenario(GUIDE, "label as invalid", "remote_header_rewrite_domain = domain.invalid\n", [
        Mail("{me}@localhost", f"to=<{{me}}@localhost>, .*{BOX}", header="From: who\n")],
        stored={"mail/{me}": ["^From: who@domain.invalid$"]}),
    "headers of everybody": Scenario(GUIDE, "rewrite all headers", "local_header_rewrite_clients = static:all\n", [
        Mail("{me}@localhost", f"to=<{{me}}@localhost>, .*{BOX}", header="From: who\n", by=STRANGER)],
        stored={"mail/{me}": ["^From: who@hostname.home.example$"]}),
    "standard form": Scenario(GUIDE, "standard form", DOMAINS, [
        Mail("@hosta.example,@hostb.example:user@route.example", "to=<user@route.example>", by=HERE,
             header="Cc: <@hosta.example,@hostb.example:user@route.example>\n",
             came=(TO % "user@route.example", "^Cc: <user@route.example>$")),
        standard("bang.example!user", "user@bang.example"),
        standard("user%percent.example", "user@percent.example"),
        Mail("user%pct.example@hostname.home.example", "to=<user@pct.example>", by="sendmail", came=(TO % "user@pct.example",)),
        standard("plain", "plain@home.example"),
        standard("user@host", "user@host.home.example"),
        standard("user@dot.example.", "user@dot.example"),
        Mail("user@dots.example..", "501 5.1.3|550 5.1.|bad address", by=HERE)]),
    "canonical": Scenario(GUIDE, "canonical mapping", DOMAINS + "canonical_maps = hash:{etc}/canonical\n", [
        Mail("w@there.example", "to=<w@there.example>", by=HERE, sender="wilma@home.example", header="From: wilma\nCc: wilma\n",
             came=("^From <Wilma.Flint@home.example> ", "^From: Wilma.Flint@home.example$", "^Cc: Wilma.Flint@home.example$")),
        Mail("wilma@home.example", "to=<Wilma.Flint@home.example>, orig_to=<wilma@home.example>", by=HERE)],
        files={"canonical": "wilma Wilma.Flint\n"}),
    "canonical, one side each": Scenario(GUIDE, "sender and recipient canonical mapping", (
        "sender_canonical_maps = hash:{etc}/sender_canonical\nrecipient_canonical_maps = hash:{etc}/recipient_canonical\n"
        "canonical_maps = inline:{ {pretty@home.example=prettier@home.example} }\n"), [
            Mail("ugly@home.example", "to=<u@other.example>, orig_to=<ugly@home.example>", by=HERE, sender="ugly@home.example",
                 header="From: ugly@home.example\nTo: ugly@home.example\n",
                 came=("^From <prettier@home.example> to \\['u@other.example'\\]", "^From: prettier@home.example$", "^To: u@other.example$"))],
        files={"sender_canonical": "ugly@home.example pretty@home.example\n",
               "recipient_canonical": "ugly@home.example u@other.example\n"}),
    "generic mapping": Scenario(GUIDE, "generic mapping for outgoing SMTP mail", "smtp_generic_maps = hash:{etc}/generic\n", [
        Mail("g@there.example", "to=<g@there.example>", by=HERE, sender="who@home.example",
             header="From: who@home.example\nReply-To: any@home.example\n",
             came=("^From <who@isp.example> ", "^From: who@isp.example$", "^Reply-To: office@isp.example$")),
        Mail("{me}@localhost", "to=<{me}@localhost>", by=HERE, sender="who@home.example", header="From: who@home.example\n")],
        files={"generic": "who@home.example who@isp.example\n@home.example office@isp.example\n"},
        stored={"mail/{me}": ["^From: who@home.example$"]}),
    "masquerading": Scenario(GUIDE, "address masquerading", "masquerade_domains = foo.home.example home.example\n", [
        masked("a@any.thing.foo.home.example", "a@foo.home.example"),
        masked("a@any.thing.else.home.example", "a@home.example"),
        masked("b@there.example", "b@there.example", to="x@deep.home.example", rcpt="x@deep.home.example")]),
    "masquerading, not all": Scenario(GUIDE, "address masquerading, exceptions of domains", (
        "masquerade_domains = !foo.home.example home.example\n"), [
            masked("a@any.thing.foo.home.example", "a@any.thing.foo.home.example"), masked("b@foo.home.example", "b@foo.home.example"),
            masked("a@any.thing.else.home.example", "a@home.example")]),
    "masquerading, not root": Scenario(GUIDE, "address masquerading, exceptions of users", (
        "masquerade_domains = home.example\nmasquerade_exceptions = root\n"), [
            masked("root@deep.home.example", "root@deep.home.example"), masked("toor@deep.home.example", "toor@home.example")]),
    "masquerading of recipients": Scenario(GUIDE, "address masquerading of recipients", (
        "masquerade_domains = home.example\n"
        "masquerade_classes = envelope_sender, envelope_recipient,\n    header_sender, header_recipient\n"), [
            masked("a@deep.home.example", "a@home.example", to="x@deeper.home.example", rcpt="x@home.example")]),
    "copies": Scenario(GUIDE, "automatic BCC", (
        "always_bcc = all@seen.example\nsender_bcc_maps = inline:{ {s@home.example=from@seen.example} }\n"
        "recipient_bcc_maps = inline:{ {r@there.example=to@seen.example} }\n"), [
            Mail("r@there.example", "to=<r@there.example>", by=HERE, sender="s@home.example"),
            *[Mail("q@there.example", f"to=<{who}@seen.example>", by=HERE) for who in ("all", "from", "to")]]),
    "virtual aliasing": Scenario(GUIDE, "virtual aliasing", "virtual_alias_maps = hash:{etc}/virtual\n", [
        Mail("First.Last", f"to=<{{me}}@hostname.home.example>, orig_to=<First.Last>, .*{BOX}", by="sendmail", header="Cc: First.Last\n")],
        files={"virtual": "First.Last {me}\n"}, stored={"mail/{me}": ["^Cc: First.Last@hostname.home.example$"]}),
    "classes of addresses": Scenario(GUIDE, "resolve to destination", (
        "local_transport = discard:local\nvirtual_transport = discard:virtual\nrelay_transport = discard:relay\n"
        "default_transport = discard:default\nvirtual_mailbox_domains = v.example\nvirtual_mailbox_maps = static:x\n"
        "relay_domains = r.example\nproxy_interfaces = 198.51.100.4\n"), [
            Mail("{me}@hostname.home.example", "to=<{me}@hostname.home.example>, .*\\(local\\)", by=HERE),
            Mail("{me}@[127.0.0.1]", "to=<{me}@\\[127.0.0.1\\]>, .*\\(local\\)", by=HERE),
            Mail("{me}@[198.51.100.4]", "to=<{me}@\\[198.51.100.4\\]>, .*\\(local\\)", by=HERE),
            Mail("a@v.example", "to=<a@v.example>, .*\\(virtual\\)", by=HERE),
            Mail("a@r.example", "to=<a@r.example>, .*\\(relay\\)", by=HERE),
            Mail("a@sub.r.example", "to=<a@sub.r.example>, .*\\(relay\\)", by=HERE),
            Mail("a@there.example", "to=<a@there.example>, .*\\(default\\)", by=HERE)]),
    "transport switch": Scenario(GUIDE, "mail transport switch", "transport_maps = hash:{etc}/transport\n", [
        Mail("a@slow.example", "to=<a@slow.example>, relay=other.example\\[", by=HERE),
        Mail("b@slow.example", "to=<b@slow.example>, .*\\(this one\\)", by=HERE)],
        files={"transport": "slow.example smtp:[other.example]\nb@slow.example discard:this one\n"}),
    "relocated users": Scenario(GUIDE, "relocated users", "relocated_maps = hash:{etc}/relocated\n", [
        Mail("{me}@localhost", "5.1.6 .*User has moved to other@elsewhere.example"),
        Mail("{me}@localhost", "dsn=5.1.6, status=bounced \\(User has moved to other@elsewhere.example\\)", by="sendmail", sender="<>")],
        files={"relocated": "{me}@localhost other@elsewhere.example\n"}),
    "alias database": Scenario(GUIDE, "local alias database", (
        "alias_maps = hash:{etc}/aliases\nalias_database = hash:{etc}/aliases\n"), [
            Mail("Postmaster@localhost", f"to=<{{me}}@hostname.home.example>, orig_to=<Postmaster@localhost>, .*{BOX}", by=HERE, header="To: Postmaster\n"),
            Mail("first.last@localhost", "to=<first.last@localhost>, .*delivered to file: {top}/boxes/file", by=HERE)],
        files={"aliases": "postmaster: {me}\nfirst.last: {top}/boxes/file\n"}, stored={"mail/{me}": ["^To: Postmaster@"]}),
    "forward files": Scenario(GUIDE, "per-user forward files", "forward_path = {top}/forward/$user.forward\nalias_maps =\n", [
        Mail("nobody@localhost", "to=<n@seen.example>, orig_to=<nobody@localhost>", by=HERE),
        Mail("daemon@localhost", f"to=<daemon@localhost>, .*{BOX}", by=HERE)],
        files={"forward/nobody.forward": "\\nobody, n@seen.example\n"}),
    "catch-all $user": luser("$user@other.host.example", "ghost+tag@localhost", "ghost@other.host.example"),
    "catch-all $local": luser("$local@other.host.example", "ghost+tag@localhost", "ghost\\+tag@other.host.example"),
    "catch-all sysadmin+$user": luser("sysadmin+$user", "ghost+tag@localhost", "a@seen.example"),
    "catch-all sysadmin+$local": luser("sysadmin+$local", "ghost+tag@localhost", "b@seen.example"),
    "fallback": Scenario(GUIDE, "local catch-all: fallback_transport", "fallback_transport = discard:fallen\nlocal_recipient_maps =\n", [
        Mail("ghost@localhost", "to=<ghost@localhost>, .*\\(fallen\\)")]),

    "random recipients": Scenario("BACKSCATTER", "random recipient addresses", "smtpd_error_sleep_time = 0\n", [
        Mail("random@localhost", "550 5.1.1 .*User unknown", sender="<>")]),
    "forged servers": Scenario("BACKSCATTER", "forged mail server information", (
        "header_checks = pcre:{etc}/header_checks\nbody_checks = pcre:{etc}/body_checks\n"
        "canonical_maps = hash:{etc}/canonical\nnested_header_checks =\n"), [
            Mail("{me}@localhost", f"550 5.7.1 forged {what}", sender="<>", header=header) for what, header in (
                ("client name in Received: header: liar.example", "Received: from liar.example (x [192.0.2.1])\n"),
                ("client name in Received: header: liar.example", "Received: from h.example ([192.0.2.1] helo=liar.example)\n"),
                ("client name in Received: header: liar.example", "Received: from h.example (EHLO liar.example)\n"),
                ("mail server name in Received: header: liar.example", "Received: from a by liar.example with x\n"),
                ("domain name in Message-ID: header: liar.example", "Message-ID: <stuff@liar.example>\n"),
                ("client name in Received: header: liar.example", "X: y\n\n> Received: from liar.example (x)\n"),
                ("client name in Received: header: liar.example", "X: y\n\nReceived: from h.example (HELO liar.example)\n"),
                ("mail server name in Received: header: liar.example", "X: y\n\nReceived: from a  by liar.example with x\n"),
                ("domain name in Message-ID: header: liar.example", "X: y\n\n> Message-ID: <stuff@liar.example>\n"))] + [
            Mail("{me}@localhost", f"to=<{{me}}@localhost>, .*{BOX}", sender="<>", header=header) for header in (
                "Received: from mx.liar.example (x)\n", "Message-ID: <!&!AAAA==@liar.example>\n",
                "X: y\n\n> Message-ID: <!&!AAAA==@liar.example>\n")] + [
            Mail("a@there.example", "to=<a@there.example>", by=HERE, sender="u@mx.liar.example", came=("^From <u@liar.example> ",))],
        files={"header_checks": r"""if /^Received:/
/^Received: +from +(liar\.example) +/
    reject forged client name in Received: header: $1
/^Received: +from +[^ ]+ +\(([^ ]+ +[he]+lo=|[he]+lo +)(liar\.example)\)/
    reject forged client name in Received: header: $2
/^Received:.* +by +(liar\.example)\b/
    reject forged mail server name in Received: header: $1
endif
/^Message-ID:.* <!&!/ DUNNO
/^Message-ID:.*@(liar\.example)/
    reject forged domain name in Message-ID: header: $1
""", "body_checks": r"""if /^[> ]*Received:/
/^[> ]*Received: +from +(liar\.example) /
    reject forged client name in Received: header: $1
/^[> ]*Received: +from +[^ ]+ +\(([^ ]+ +[he]+lo=|[he]+lo +)(liar\.example)\)/
    reject forged client name in Received: header: $2
/^[> ]*Received:.* +by +(liar\.example)\b/
    reject forged mail server name in Received: header: $1
endif
/^[> ]*Message-ID:.* <!&!/ DUNNO
/^[> ]*Message-ID:.*@(liar\.example)/
    reject forged domain name in Message-ID: header: $1
""", "canonical": "@mx.liar.example @liar.example\n"}),
    "virus scanners": Scenario("BACKSCATTER", "virus scanners", "header_checks = pcre:{etc}/header_checks\n", [
        Mail("{me}@localhost", f"to=<{{me}}@localhost>, .*{BOX}", header="Content-Disposition: attachment\n")],
        files={"header_checks": "/^Content-Disposition:.*VIRUS1_FOUND/\n    DISCARD virus notification\n"
                                "/^X-Subject: *Your email contains VIRUSES/ DISCARD virus notification\n"}),
}
