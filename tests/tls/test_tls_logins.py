"""A session with TLS, a client certificate and a login: what milters and policy servers hear of it, which restrictions it
passes, what anvil counts. The same sessions at Debian's postfix, where that is unpacked."""
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from instance import free_port, wait_for  # noqa: E402
from login_server import LoginServer, word  # noqa: E402
from milter.scripted_milter import ScriptedMilter  # noqa: E402
from oracle import Oracle  # noqa: E402
from restrictions.policy_servers import PolicyServer  # noqa: E402
from tls_ca import TestCA, TlsClient, client_context  # noqa: E402

with_oracle = pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
BOTH = ["ours", pytest.param("debian", marks=with_oracle)]
TLS12 = ssl.TLSVersion.TLSv1_2


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return TestCA(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def chains(ca, tmp_path_factory):
    """{who: (key, certificate, chain)}"""
    other = TestCA(tmp_path_factory.mktemp("other"), "Other CA")
    return {"server": ca.make("mx.server.example"), "known": ca.make("known.example", usage="clientAuth"),
            "unknown": ca.make("unknown.example", usage="clientAuth"),
            "stranger": other.make("stranger.example", usage="clientAuth")}


def main_cf(ca, chains, more=""):
    return f"""\
smtpd_tls_chain_files = {chains["server"][2]}
smtpd_tls_security_level = may
smtpd_tls_CAfile = {ca.cert}
smtpd_tls_ask_ccert = yes
smtpd_tls_fingerprint_digest = sha256
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/login
smtpd_error_sleep_time = 0
local_recipient_maps =
local_transport = discard
default_transport = discard
myhostname = mx.example
{more}
"""


class World:
    """A server of either kind, with a login server."""

    def __init__(self, which, make_instance, config):
        self.debian = which == "debian"
        self.server = Oracle(main_cf=config).start() if self.debian else make_instance(main_cf=config)
        queue = self.server.directory / "queue"
        self.logins = LoginServer(queue / "private/login")
        self.port, self.log = self.server.port, self.server.log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.logins.stop()
        if self.debian:
            self.server.stop()


# --- who hears what ---
def facts_heard(which, make_instance, ca, chains, login=True):
    """(milter's macro lines, policy attributes) of one session."""
    port = free_port()
    policy = PolicyServer(("127.0.0.1", port))
    with ScriptedMilter() as milter:
        more = (f"smtpd_milters = {milter.name}\nsmtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:{port}\n"
                "smtpd_authorized_xforward_hosts = 127.0.0.1\n")
        with World(which, make_instance, main_cf(ca, chains, more)) as world:
            with TlsClient(world.port, context=client_context(chains["known"][2], highest=TLS12)) as client:
                client.hello()
                if login:
                    assert client.command("AUTH PLAIN " + word("good"))[-1].startswith("235")
                    assert client.command("MAIL FROM:<s@there.example> AUTH=<joe+40home.example>")[-1].startswith("250")
                else:
                    assert client.command("XFORWARD NAME=spike.example ADDR=192.0.2.7 PORT=4711 PROTO=SMTP "
                                          "HELO=spike.example")[-1].startswith("250")
                    assert client.command("MAIL FROM:<s@there.example>")[-1].startswith("250")
                assert client.command("RCPT TO:<a@localhost>")[-1].startswith("250")
                client.command("DATA")
                assert client.command("Subject: t\r\n\r\nhello\r\n.")[-1].startswith("250")
                client.command("QUIT")
            wait_for(lambda: "quit" in milter.names(), what="the milter's end")
        macros = [re.sub(r"\bi=\w+", "i=ID", line) for line in milter.events if line.startswith("macro-")]
        macros = [re.sub(r"(port\}|v)=[\w. ]+?(?= \{|$)", r"\1=X", line) for line in macros]
    policy.close()
    return macros, policy.asked[0]


def value(macros, name):
    found = {match for line in macros for match in re.findall(r"\{?" + name + r"\}?=(.*?)(?= \{|$)", line)}
    assert len(found) == 1, (name, macros)
    return found.pop()


def test_milter_and_policy(make_instance, ca, chains):
    macros, asked = facts_heard("ours", make_instance, ca, chains)
    for name, wanted in (("tls_version", "TLSv1.2"), ("cipher_bits", "256"), ("cert_subject", "known.example"),
                         ("cert_issuer", "Test CA"), ("auth_type", "PLAIN"), ("auth_authen", "joe"),
                         ("auth_author", "<joe+40home.example>")):
        assert value(macros, name) == wanted
    assert value(macros, "cipher") == "ECDHE-RSA-AES256-GCM-SHA384"
    wanted = {"sasl_method": "PLAIN", "sasl_username": "joe", "sasl_sender": "<joe+40home.example>",
              "ccert_subject": "known.example", "ccert_issuer": "Test+20CA",
              "ccert_fingerprint": ca.fingerprint(chains["known"][1]), "encryption_protocol": "TLSv1.2",
              "encryption_cipher": "ECDHE-RSA-AES256-GCM-SHA384", "encryption_keysize": "256"}
    assert {name: asked[name] for name in wanted} == wanted
    assert re.fullmatch("([0-9A-F]{2}:){31}[0-9A-F]{2}", asked["ccert_pubkey_fingerprint"])
    assert asked["ccert_pubkey_fingerprint"] != asked["ccert_fingerprint"]


@with_oracle
@pytest.mark.parametrize("login", [True, False], ids=["login", "xforward"])
def test_same_facts_as_debians(make_instance, ca, chains, login):
    ours, asked_us = facts_heard("ours", make_instance, ca, chains, login)
    theirs, asked_them = facts_heard("debian", make_instance, ca, chains, login)
    assert [line for line in ours if "daemon_name" not in line] == [line for line in theirs if "daemon_name" not in line]
    differ = {"instance", "mail_version", "connection", "client_port", "server_port", "queue_id", "compatibility_level"}
    common = (set(asked_us) & set(asked_them)) - differ
    assert set(asked_them) - set(asked_us) == set()
    assert {name: asked_us[name] for name in common} == {name: asked_them[name] for name in common}


# --- client certificates in restrictions ---
def key_fingerprint(chains, who, digest="sha256"):
    key = subprocess.run(["openssl", "x509", "-in", chains[who][1], "-noout", "-pubkey"], check=True,
                         capture_output=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=key, check=True, capture_output=True).stdout
    text = subprocess.run(["openssl", "dgst", f"-{digest}", "-c"], input=der, check=True, capture_output=True).stdout
    return text.decode().split("= ")[1].strip().upper()


FP, KEY, SHA1 = "FINGERPRINT", "KEYPRINT", "SHA1PRINT"  # of who is known
# main.cf; who may relay
ROWS = {
    "fingerprint": (f"smtpd_relay_restrictions = permit_tls_clientcerts, reject\nrelay_clientcerts = inline:{{ {FP}=x }}",
                    {"known"}),
    "key": (f"smtpd_relay_restrictions = permit_tls_clientcerts, reject\nrelay_clientcerts = inline:{{ {KEY}=x }}", {"known"}),
    "digest": ("smtpd_tls_fingerprint_digest = sha1\nsmtpd_relay_restrictions = permit_tls_clientcerts, reject\n"
               f"relay_clientcerts = inline:{{ {SHA1}=x }}", {"known"}),
    "other digest": ("smtpd_tls_fingerprint_digest = sha1\nsmtpd_relay_restrictions = permit_tls_clientcerts, reject\n"
                     f"relay_clientcerts = inline:{{ {FP}=x }}", set()),
    "nobody": ("smtpd_relay_restrictions = permit_tls_clientcerts, reject\nrelay_clientcerts =", set()),
    "all": ("smtpd_relay_restrictions = permit_tls_all_clientcerts, reject", {"known", "unknown"}),
    "table": (f"smtpd_relay_restrictions = check_ccert_access inline:{{ {FP}=OK }}, reject", {"known"}),
    "table of keys": (f"smtpd_relay_restrictions = check_ccert_access inline:{{ {KEY}=OK }}, reject", {"known"}),
    "search order": ("smtpd_relay_restrictions = check_ccert_access { inline:{ " + KEY + "=OK }, "
                     "{ search_order = cert_fingerprint } }, reject", set()),
    "search order of keys": ("smtpd_relay_restrictions = check_ccert_access { inline:{ " + KEY + "=OK }, "
                             "{ search_order = pubkey_fingerprint, cert_fingerprint } }, reject", {"known"}),
    "refused": (f"smtpd_relay_restrictions = check_ccert_access inline:{{ {FP}=REJECT }}, permit_mynetworks, reject",
                {"unknown", "stranger", "none"}),
    # a stranger's certificate is nobody's, but its fingerprint is its own
    "stranger": ("smtpd_relay_restrictions = permit_tls_clientcerts, reject\nrelay_clientcerts = inline:{ STRANGER=x }",
                 {"stranger"}),
}


@pytest.mark.parametrize("which", BOTH)
@pytest.mark.parametrize("name", ROWS)
def test_client_certificates(make_instance, ca, chains, name, which):
    config, wanted = ROWS[name]
    known = chains["known"][1]
    for mark, text in ((FP, ca.fingerprint(known)), (KEY, key_fingerprint(chains, "known")),
                       (SHA1, ca.fingerprint(known, "sha1")), ("STRANGER", ca.fingerprint(chains["stranger"][1]))):
        config = config.replace(mark, text)
    with World(which, make_instance, main_cf(ca, chains, config)) as world:
        heard = set()
        for who in ("known", "unknown", "stranger", "none"):
            chain = chains[who][2] if who != "none" else None
            with TlsClient(world.port, context=client_context(chain)) as client:
                client.hello()
                client.command("MAIL FROM:<s@there.example>")
                if client.command("RCPT TO:<x@elsewhere.example>")[-1].startswith("250"):
                    heard.add(who)
                client.command("QUIT")
    assert heard == wanted


@pytest.mark.parametrize("which", BOTH)
def test_certificate_said_in_the_clear_counts_for_nothing(make_instance, ca, chains, which):
    """permit_tls_all_clientcerts without TLS."""
    with World(which, make_instance, main_cf(ca, chains, "smtpd_relay_restrictions = permit_tls_all_clientcerts, reject")) as w:
        with TlsClient(w.port) as client:
            client.command("EHLO client.example")
            client.command("MAIL FROM:<s@there.example>")
            assert client.command("RCPT TO:<x@elsewhere.example>")[-1].startswith("554")


# --- renegotiation ---
@pytest.mark.parametrize("which", BOTH)
def test_renegotiation_is_refused(make_instance, ca, chains, which):
    """TL-03. s_client asks for it when a line is "R"."""
    with World(which, make_instance, main_cf(ca, chains)) as world:
        client = subprocess.Popen(["openssl", "s_client", "-tls1_2", "-starttls", "smtp", "-connect",
                                   f"127.0.0.1:{world.port}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT)
        try:
            said = b""
            while b"250 CHUNKING" not in said:
                said += client.stdout.read1()
            client.stdin.write(b"R\n")
            client.stdin.flush()
            said, _ = client.communicate(timeout=30)
        finally:
            client.kill()
            client.wait()
        assert b"RENEGOTIATING" in said and b"no renegotiation" in said, said
        wait_for(lambda: "lost connection after" in world.log(), what="the end of the session")
        with TlsClient(world.port, context=client_context(highest=TLS12)) as other:
            other.hello()
            assert other.mail().startswith("250")


# --- anvil ---
RATES = "smtpd_client_event_limit_exceptions =\nanvil_rate_time_unit = 600s\n"


def normal(reply):
    return re.sub(r" from \S+$", " from CLIENT", re.sub(r"\b(?:\w+\.)?example ", "HOST ", reply))


@pytest.mark.parametrize("which", BOTH)
def test_auth_rate(make_instance, ca, chains, which):
    with World(which, make_instance, main_cf(ca, chains, RATES + "smtpd_client_auth_rate_limit = 2")) as world:
        replies = []
        for text in ("good", "fail", "good"):
            with TlsClient(world.port, context=client_context(highest=TLS12)) as client:
                client.hello()
                replies.append(normal(client.command("AUTH PLAIN " + word(text))[-1]))
                client.command("QUIT")
        assert [reply[:3] for reply in replies[:2]] == ["235", "535"]
        assert replies[2] == "450 4.7.1 Error: too many AUTH commands from CLIENT"
        wait_for(lambda: re.search(r"AUTH command rate limit exceeded: 3 from localhost\[127.0.0.1\] for service ", world.log()))
        assert sum(line.startswith("AUTH") for line in world.logins.lines) == 2  # the third was not asked about


@pytest.mark.parametrize("which", BOTH)
def test_new_tls_session_rate(make_instance, ca, chains, which):
    """Resumed sessions do not count."""
    config = main_cf(ca, chains, RATES + "smtpd_client_new_tls_session_rate_limit = 2\nsmtpd_tls_ask_ccert = no")
    with World(which, make_instance, config) as world:
        context = client_context(highest=TLS12)
        session = None
        for resumed in (False, True, True):
            with TlsClient(world.port, context=context, session=session) as client:
                client.hello()
                session = client.socket.session
                assert client.socket.session_reused == resumed
                assert client.command("NOOP")[-1].startswith("250")
                client.command("QUIT")
        with TlsClient(world.port, context=client_context(highest=TLS12)) as client:
            client.hello()
            client.command("QUIT")
        with TlsClient(world.port, context=client_context(highest=TLS12)) as client:
            client.command("EHLO client.example")
            client.starttls()
            assert normal(client.reply()[-1]) == "421 4.7.0 HOST Error: too many new TLS sessions from CLIENT"
            assert client.file.read() == b""
        wait_for(lambda: re.search(r"New TLS session rate limit exceeded: 3 from localhost\[127.0.0.1\] for service ",
                                   world.log()), what="the record")
        # who has had enough new ones is refused before the next
        with TlsClient(world.port, context=client_context(highest=TLS12)) as client:
            client.command("EHLO client.example")
            assert client.command("STARTTLS")[-1].startswith(("220", "454"))
