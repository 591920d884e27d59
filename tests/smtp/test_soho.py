"""What a small office does (SOHO_README, SASL_README): mail through providers' gateways at ports 587 and 465, an account for
each of some senders, addresses of the inner network replaced, inner header fields removed. The provider has the stock
services of master.cf and a real Dovecot for its passwords; behind it everything arrives at a sink."""
import base64
import hashlib
import hmac
import os
import pathlib
import re
import shutil
import smtplib
import ssl
import tempfile

import pytest

from instance import free_port, wait_for
from sasl.test_dovecot_login import Dovecot
from sasl.test_submission import stock_lines
from smtp.login_host import LoginHost
from tls.tls_ca import TestCA

USER = "nobody" if os.geteuid() == 0 else None
ACCOUNTS = {"office": "o", "anna": "geheim", "berta": "b"}


@pytest.fixture(scope="module")
def ca():
    """Where anybody may read: each start of a pytest shuts its own directory to others."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="angarium-ca-"))
    directory.chmod(0o755)
    yield TestCA(directory / "ca")
    shutil.rmtree(directory)


def send(mail, sender, to="x@far.example", text="Subject: x\r\n\r\nhello\r\n"):
    def results():
        return re.findall(rf"to=<{to}>, relay.* dsn=([\d.]+), status=(.*)", mail.log())
    have = len(results())
    with smtplib.SMTP("127.0.0.1", mail.port, timeout=60) as smtp:
        smtp.sendmail(sender, [to], text)
    wait_for(lambda: len(results()) > have, 60, "a result")
    return results()[-1]


@pytest.fixture
def provider(make_instance, ca):
    if not shutil.which("dovecot"):
        pytest.skip("no dovecot (dovecot-core)")
    sink = LoginHost(hello=())
    ports = free_port(), free_port()
    mail = make_instance(name="provider", main_cf=f"""\
smtpd_tls_chain_files = {ca.make("localhost")[2]}
smtpd_tls_security_level = may
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_sasl_security_options = noplaintext, noanonymous
smtpd_sasl_tls_security_options = noanonymous
mynetworks =
default_transport = smtp:[127.0.0.1]:{sink.port}
""", master_extra=stock_lines("submission", ports[0]) + stock_lines("submissions", ports[1]))
    if os.geteuid() == 0:
        (mail.queue / "private").chmod(0o777)
    server = Dovecot(mail.directory, mail.queue / "private/auth")
    (server.base / "users").write_text("".join(f"{user}:{password}\n" for user, password in ACCOUNTS.items()))
    server.start()
    yield mail, *ports, sink
    server.stop()
    sink.close()


OFFICE = """\
relayhost = [localhost]:{submission}
smtp_host_lookup = native
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = texthash:{etc}/sasl_passwd
smtp_sasl_type = {kind}
smtp_sender_dependent_authentication = yes
sender_dependent_relayhost_maps = texthash:{etc}/relayhosts
sender_dependent_default_transport_maps = texthash:{etc}/transports
smtp_tls_security_level = encrypt
smtp_tls_CAfile = {ca}
smtp_sasl_tls_security_options = noanonymous
smtp_generic_maps = texthash:{etc}/generic
smtp_header_checks = regexp:{etc}/header_checks
"""
SERVICES = """\
smtps unix - - n - - smtp -o smtp_tls_wrappermode=yes -o smtp_tls_security_level=encrypt
strict unix - - n - - smtp -o {smtp_sasl_mechanism_filter=plain, login} -o {smtp_sasl_tls_security_options=noplaintext}
 -o {smtp_sasl_tls_verified_security_options=noanonymous} -o smtp_tls_security_level=LEVEL
"""


@pytest.mark.parametrize("kind", ["native", "cyrus"])
def test_small_office(make_instance, provider, ca, kind):
    isp, submission, submissions, sink = provider
    mail = make_instance(start=False, user=USER, name="office", master_extra=SERVICES.split("strict")[0])
    mail.extra = OFFICE.format(submission=submission, kind=kind, etc=mail.etc, ca=ca.cert)
    (mail.etc / "sasl_passwd").write_text(f"[localhost]:{submission} office:o\nanna@office.local anna:geheim\n"
                                          f"[localhost]:{submissions} berta:b\n")
    (mail.etc / "relayhosts").write_text(f"anna@office.local [localhost]:{submission}\n")
    (mail.etc / "transports").write_text(f"berta@office.local smtps:[localhost]:{submissions}\n")
    (mail.etc / "generic").write_text("anna@office.local anna@isp.example\n@office.local office@isp.example\n")
    (mail.etc / "header_checks").write_text("/^Received:/ IGNORE\n/^X-Originating-IP:/ IGNORE\n/^User-Agent:/ IGNORE\n")
    mail.write_config()
    mail.start()
    text = "From: {0}@office.local\r\nX-Originating-IP: 10.0.0.7\r\nUser-Agent: x\r\nSubject: x\r\n\r\nhello\r\n"
    for user, account, address in (("carl", "office", "office"), ("anna", "anna", "anna"), ("berta", "berta", "office")):
        have = len(sink.content)
        assert send(mail, f"{user}@office.local", text=text.format(user))[1].startswith("sent (250 2.0.0 Ok: queued as")
        isp.wait_log(f"sasl_username={account}")
        wait_for(lambda: len(sink.content) > have, 60, "the message")
        content = sink.content[-1]
        assert f"From: {address}@isp.example\r\n" in content
        assert "office.local" not in content and "10.0.0.7" not in content and "User-Agent" not in content
    assert "MAIL FROM:<anna@isp.example>" in "\n".join(line for _, line in sink.said)
    assert "postfix/submission/smtpd[" in isp.log() and "postfix/submissions/smtpd[" in isp.log()
    for secret in ("geheim", base64.b64encode(b"geheim").decode()):
        assert secret not in mail.log() + isp.log()


@pytest.mark.parametrize("level, verified", [("encrypt", False), ("verify", True)])
def test_security_options_with_tls(make_instance, provider, ca, level, verified):
    """smtp_sasl_tls_security_options, and smtp_sasl_tls_verified_security_options where the server has proved itself."""
    _, submission, _, _ = provider
    mail = make_instance(user=USER, name="office", master_extra=SERVICES.replace("LEVEL", level), main_cf=f"""\
default_transport = strict:[localhost]:{submission}
smtp_host_lookup = native
smtp_sasl_auth_enable = yes
smtp_sasl_type = native
smtp_sasl_password_maps = static:office:o
smtp_tls_CAfile = {ca.cert}
""")
    dsn, result = send(mail, "me@here.example")
    if verified:
        assert result.startswith("sent")
    else:
        assert (dsn, result) == ("4.7.0", "deferred (SASL authentication failed; cannot authenticate to server "
                                          "localhost[127.0.0.1]: no mechanism available)")
        mail.wait_log("smtp_sasl_tls_security_options excludes PLAIN (noplaintext)")


class ScramHost(LoginHost):
    """Knows one password, and SCRAM-SHA-256-PLUS with tls-unique (RFC 5802, RFC 5929)."""

    def __init__(self, wrap, **kwargs):
        super().__init__(hello=["AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN"], wrap=wrap, **kwargs)
        self.good = None

    def serve(self, client, number):
        plain = self.wrap

        def wrap(sock):
            wrapped = plain(sock)
            self.binding = wrapped.get_channel_binding("tls-unique")
            return wrapped
        self.wrap = wrap
        super().serve(client, number)

    def login(self, peer, number, say):
        def decode(text):
            return base64.b64decode(text).decode("latin-1")

        def challenge(text):
            say("334 " + base64.b64encode(text.encode()).decode())
            return decode(self.line(peer, number))

        def sign(key, text):
            return hmac.new(key, text.encode("latin-1"), "sha256").digest()
        first = decode(self.said[-1][1].split()[2])
        header, bare = re.match(r"(p=tls-unique,,)(.*)", first).groups()
        server_first = f"r={bare.partition('r=')[2]}xyz,s={base64.b64encode(b'salt').decode()},i=4096"
        final, _, proof = challenge(server_first).rpartition(",p=")
        salted = hashlib.pbkdf2_hmac("sha256", b"geheim", b"salt", 4096)
        message = f"{bare},{server_first},{final}"
        bound = final.startswith("c=" + base64.b64encode(header.encode() + self.binding).decode() + ",r=")
        client_key = sign(salted, "Client Key")
        signature = sign(hashlib.sha256(client_key).digest(), message)
        self.good = bound and base64.b64decode(proof) == bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        if not self.good:
            say("535 5.7.8 no")
            return True
        server = base64.b64encode(sign(sign(salted, "Server Key"), message)).decode()
        challenge("v=" + server)
        say("235 2.7.0 ok")
        return True


@pytest.mark.parametrize("program", ["smtp", "lmtp"])
def test_bound_to_the_tls_session(make_instance, ca, program):
    """SCRAM-SHA-256-PLUS, and lmtp_sasl_tls_..._options."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.make("localhost")[2])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host = ScramHost(lambda sock: context.wrap_socket(sock, server_side=True))
    mail = make_instance(user=USER, main_cf=f"""\
default_transport = {program}:[127.0.0.1]:{host.port}
{program}_tls_wrappermode = yes
{program}_tls_security_level = encrypt
{program}_sasl_auth_enable = yes
{program}_sasl_type = native
{program}_sasl_security_options = noplaintext, forward_secrecy
{program}_sasl_tls_security_options = mutual_auth
{program}_sasl_password_maps = static:anna:geheim
""")
    try:
        assert send(mail, "me@here.example")[1] == "sent (250 2.0.0 taken)"
        assert host.good and host.lines()[0].startswith("AUTH SCRAM-SHA-256-PLUS ")
    finally:
        host.close()
