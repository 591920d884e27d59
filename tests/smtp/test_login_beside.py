"""Logins of the SMTP client beside Debian's Postfix: what the server hears, what becomes of the mail, what is logged. One row
a case; each runs with Debian's client, with ours and the Cyrus library, and with our own mechanisms."""
import base64
import os
import re
import smtplib

import pytest

from instance import Instance, wait_for
from oracle import Oracle
from smtp.login_host import LoginHost

USER = "nobody" if os.geteuid() == 0 else None
pytestmark = pytest.mark.skipif(not os.path.exists("/usr/lib/x86_64-linux-gnu/sasl2/libplain.so.2") and
                                not os.path.exists("/usr/lib/aarch64-linux-gnu/sasl2/libplain.so.2"),
                                reason="no Cyrus SASL plug-ins (libsasl2-modules)")


def b64(text):
    return base64.b64encode(text.encode()).decode()


PLAIN = "AUTH PLAIN " + b64("\0anna\0geheim")
SENT = ["MAIL FROM:<me@here.example>", "RCPT TO:<x@CASE.example>", "DATA", "QUIT"]
LOGIN = ["AUTH LOGIN", b64("anna"), b64("geheim")]
NOT_LOGGED_IN = "deferred (SASL authentication failed; server HOST said: "
CANNOT = "4.7.0 deferred (SASL authentication failed; cannot authenticate to server HOST: "
NO_MECHANISM = CANNOT + "no mechanism available)"
OK = "2.0.0 sent (250 2.0.0 taken)"
ASK_LOGIN = ["334 " + b64("Username:"), "334 " + b64("Password:"), "235 ok"]

# name, parameters beside those of COMMON, keywords of EHLO, replies to AUTH, what is said, what becomes of it; NEXTHOP and
# DOMAIN stand for the case's. `cyrus`, `native`: where ours is other than Debian's.
COMMON = {"sasl_auth_enable": "yes", "sasl_password_maps": "inline:{NEXTHOP=anna:geheim}",
          "sasl_security_options": "noanonymous"}
CASES = [
    ("plain", {}, ["AUTH PLAIN LOGIN"], ["235 2.7.0 ok"], [PLAIN, *SENT], OK),
    ("off", {"sasl_auth_enable": "no"}, ["AUTH PLAIN LOGIN"], [], SENT, OK),
    ("wrong", {}, ["AUTH PLAIN"], ["535 5.7.8 Error: authentication failed"], [PLAIN, "QUIT"],
     "4.7.8 " + NOT_LOGGED_IN + "535 5.7.8 Error: authentication failed)"),
    ("later", {}, ["AUTH PLAIN"], ["454 4.7.0 later"], [PLAIN, "QUIT"], "4.7.0 " + NOT_LOGGED_IN + "454 4.7.0 later)"),
    ("hard", {"sasl_auth_soft_bounce": "no"}, ["AUTH PLAIN"], ["535 5.7.8 no"], [PLAIN, "QUIT"],
     "5.7.8 bounced (SASL authentication failed; server HOST said: 535 5.7.8 no)"),
    ("plaincode", {}, ["AUTH PLAIN"], ["535 bad"], [PLAIN, "QUIT"], "4.0.0 " + NOT_LOGGED_IN + "535 bad)"),
    ("login", {}, ["AUTH LOGIN"], ASK_LOGIN, [*LOGIN, *SENT], OK),
    ("cram", {}, ["AUTH PLAIN CRAM-MD5"], ["334 " + b64("<1.2@host>"), "235 ok"],
     ["AUTH CRAM-MD5", b64("anna e48ea70d98d36168ed0a9202a8c22c78"), *SENT], OK),
    ("equals", {}, ["AUTH=PLAIN LOGIN"], ["235 ok"], [PLAIN, *SENT], OK),
    ("twice", {}, ["AUTH LOGIN", "AUTH=PLAIN"], ["235 ok"], [PLAIN, *SENT], OK),
    ("lower", {}, ["auth plain"], ["235 ok"], [PLAIN, *SENT], OK),
    ("unknown", {}, ["AUTH XYZ"], ["235 ok"], ["QUIT"], NO_MECHANISM),
    ("plaintext", {"sasl_security_options": "noplaintext, noanonymous"}, ["AUTH PLAIN LOGIN"], [], ["QUIT"], NO_MECHANISM),
    ("default", {"sasl_security_options": None}, ["AUTH PLAIN LOGIN"], [], ["QUIT"], NO_MECHANISM),
    ("filtered", {"sasl_mechanism_filter": "cram-md5"}, ["AUTH PLAIN LOGIN"], [], ["QUIT"],
     "4.7.0 deferred (SASL authentication failed: server HOST offered no compatible authentication mechanisms for this "
     "type of connection security)"),
    ("notplain", {"sasl_mechanism_filter": "!plain, static:all"}, ["AUTH PLAIN LOGIN"], ASK_LOGIN, [*LOGIN, *SENT], OK),
    ("empty", {}, ["AUTH"], [], ["QUIT"],
     "4.7.0 deferred (SASL authentication failed: server HOST offered no compatible authentication mechanisms for this "
     "type of connection security)"),
    ("none", {}, ["SIZE 0"], [], None, OK),
    ("discarded", {"discard_ehlo_keywords": "auth"}, ["AUTH PLAIN"], [], SENT, OK),
    ("stranger", {"sasl_password_maps": "inline:{other=anna:geheim}"}, ["AUTH PLAIN"], [], SENT, OK),
    ("nopassword", {"sasl_password_maps": "inline:{NEXTHOP=anna}"}, ["AUTH PLAIN"], ["235 ok"],
     ["AUTH PLAIN " + b64("\0anna\0"), *SENT], OK),
    ("colon", {"sasl_password_maps": "inline:{NEXTHOP=anna:ge:heim}"}, ["AUTH PLAIN"], ["235 ok"],
     ["AUTH PLAIN " + b64("\0anna\0ge:heim"), *SENT], OK),
    ("byhost", {"sasl_password_maps": "inline:{{127.0.0.1=host:b},{NEXTHOP=anna:a}}"}, ["AUTH PLAIN"], ["235 ok"],
     ["AUTH PLAIN " + b64("\0host\0b"), *SENT], OK),
    ("sender", {"sasl_password_maps": "inline:{{me@here.example=berta:b},{NEXTHOP=anna:a}}",
                "sender_dependent_authentication": "yes"}, ["AUTH PLAIN"], ["235 ok"],
     ["AUTH PLAIN " + b64("\0berta\0b"), *SENT], OK),
    ("senderdomain", {"sasl_password_maps": "inline:{{@here.example=berta:b},{NEXTHOP=anna:a}}",
                      "sender_dependent_authentication": "yes"}, ["AUTH PLAIN"], ["235 ok"],
     ["AUTH PLAIN " + b64("\0berta\0b"), *SENT], OK),
    ("senderoff", {"sasl_password_maps": "inline:{{me@here.example=berta:b},{NEXTHOP=anna:a}}"}, ["AUTH PLAIN"],
     ["235 ok"], ["AUTH PLAIN " + b64("\0anna\0a"), *SENT], OK),
    ("failed", {"sasl_password_maps": "fail:x"}, ["AUTH PLAIN"], [], ["QUIT"],
     "4.3.0 deferred (local data error while talking to HOST)"),
    ("more", {}, ["AUTH PLAIN"], ["334 " + b64("x"), "235 ok"], [PLAIN, "QUIT"], CANNOT + "generic failure)"),
    ("noprompt", {}, ["AUTH LOGIN"], ["334", "334 ", "235 ok"], [*LOGIN, *SENT], OK),
    ("lost", {}, ["AUTH PLAIN"], [None], [PLAIN],
     "4.4.2 deferred (lost connection with HOST while performing the EHLO handshake)"),
    ("lostlater", {}, ["AUTH LOGIN"], ["334 " + b64("x"), None], LOGIN[:2],
     "4.4.2 deferred (lost connection with HOST while performing the EHLO handshake)"),
    ("dummy", {"send_dummy_mail_auth": "yes"}, ["AUTH PLAIN", "8BITMIME", "DSN"], ["235 ok"],
     [PLAIN, SENT[0] + " AUTH=<>", "RCPT TO:<x@CASE.example> ORCPT=rfc822;x@CASE.example", *SENT[2:]], OK),
    ("dummystranger", {"send_dummy_mail_auth": "yes", "sasl_password_maps": "inline:{other=anna:geheim}"}, ["AUTH PLAIN"],
     [], SENT, OK),
    ("authzid", {"!send_cyrus_sasl_authzid": "yes"}, ["AUTH PLAIN"], ["235 ok"],
     ["AUTH PLAIN " + b64("anna\0anna\0geheim"), *SENT], OK),
    ("goaway", {}, ["AUTH PLAIN"], ["421 4.3.0 go away"], None, "4.3.0 " + NOT_LOGGED_IN + "421 4.3.0 go away)"),
    ("yes250", {}, ["AUTH PLAIN"], ["250 ok"], [PLAIN, *SENT], OK),
]
OURS = {("native", "more"): CANNOT + "the server asks for more than the mechanism has)"}
EXPLAINED = {
    "unknown": {"cyrus": "the server offers XYZ; smtp_sasl_type = cyrus has no plug-in for XYZ; it has ",
                "native": "the server offers XYZ; smtp_sasl_type = native does not know XYZ"},
    "plaintext": "the server offers PLAIN LOGIN; smtp_sasl_security_options excludes PLAIN (noplaintext), "
                 "LOGIN (noplaintext)",
    "default": "the server offers PLAIN LOGIN; smtp_sasl_security_options excludes PLAIN (noplaintext), "
               "LOGIN (noplaintext)",
    "filtered": "the server offers PLAIN LOGIN; smtp_sasl_mechanism_filter leaves none",
    "empty": "the server offers no mechanism",
}


def service(kind, case, host):
    name, parameters = case[0], {**COMMON, **case[1]}
    text = f"{kind}_{name} unix - - n - - smtp"
    for parameter, value in parameters.items():
        if value is not None:
            value = value.replace("NEXTHOP", f"[127.0.0.1]:{host.port}")
            full = parameter[1:] if parameter.startswith("!") else "smtp_" + parameter
            text += f" -o {{{full}={value}}}"
    return text + (" -o smtp_sasl_type=native" if kind == "native" else "") + "\n"


class Run:
    """One mail system with all the cases, and what it did."""

    def __init__(self, kinds):
        self.hosts = {(kind, case[0]): LoginHost(case[3], case[2]) for kind in kinds for case in CASES}
        services = "".join(service(kind, case, self.hosts[kind, case[0]]) for kind in kinds for case in CASES)
        routes = ", ".join(f"{{{kind}.{name}.example = {kind}_{name}:[127.0.0.1]:{host.port}}}"
                           for (kind, name), host in self.hosts.items())
        main_cf = (f"transport_maps = inline:{{{routes}}}\nbounce_queue_lifetime = 1d\nnotify_classes =\n"
                   "default_destination_concurrency_limit = 1\nsmtp_generic_maps =\n")
        if kinds == ["oracle"]:
            system = Oracle(main_cf=main_cf, master_extra=services)
        else:
            system = Instance(main_cf=main_cf, master_extra=services, user=USER)
        try:
            system.start()
            with smtplib.SMTP("127.0.0.1", system.port, timeout=60) as smtp:
                for kind, name in self.hosts:
                    smtp.sendmail("me@here.example", [f"x@{kind}.{name}.example"], "Subject: x\r\n\r\nhello\r\n")
            wait_for(lambda: len(self.results(system.log())) == len(self.hosts), 60, "all results")
        finally:
            self.log = system.log()
            system.stop()
            for host in self.hosts.values():
                host.close()

    @staticmethod
    def results(log):
        return {(kind, name): f"{dsn} {rest}" for kind, name, dsn, rest in re.findall(
            r"to=<x@(\w+)\.(\w+)\.example>, .* dsn=([\d.]+), status=(.*)", log)}

    def said(self, kind, name):
        return [line.replace(f"{kind}.{name}.example", "CASE.example") for line in self.hosts[kind, name].lines()]

    def result(self, kind, name):
        return self.results(self.log)[kind, name].replace("127.0.0.1[127.0.0.1]", "HOST")


@pytest.fixture(scope="module")
def runs():
    made = {}

    def run(kind):
        if kind == "oracle" and Oracle.why_not():
            pytest.skip(Oracle.why_not())
        kinds = ["oracle"] if kind == "oracle" else ["cyrus", "native"]
        for one in kinds:
            if one == kind and one not in made:
                made.update(dict.fromkeys(kinds, Run(kinds)))
        return made[kind]
    return run


@pytest.mark.parametrize("kind", ["oracle", "cyrus", "native"])
def test_cases(runs, kind):
    run, wrong = runs(kind), []
    for name, _, _, _, said, result in CASES:
        have = run.said(kind, name), run.result(kind, name)
        if said is not None and have[0] != said:
            wrong.append((name, have[0], said))
        result = OURS.get((kind, name), result)
        if have[1] != result:
            wrong.append((name, have[1], result))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("kind", ["cyrus", "native"])
def test_log_says_what_to_change(runs, kind):
    run = runs(kind)
    for name, text in EXPLAINED.items():
        text = text if isinstance(text, str) else text[kind]
        line = f"warning: 127.0.0.1[127.0.0.1]:{run.hosts[kind, name].port}: cannot log in: {text}"
        assert line in run.log, (name, line, [entry for entry in run.log.splitlines() if "cannot log in" in entry])


def test_no_secret_in_the_log(runs):
    for kind in ("cyrus", "native"):
        log = runs(kind).log
        for secret in ("geheim", b64("geheim"), PLAIN.split()[2]):
            assert secret not in log
