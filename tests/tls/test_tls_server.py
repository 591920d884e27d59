"""STARTTLS and wrapper mode of smtpd, as clients see them."""
import re
import socket
import ssl
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from instance import wait_for  # noqa: E402
from tls_ca import TestCA, TlsClient, client_context  # noqa: E402


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return TestCA(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server_chain(ca):
    return ca.make("mx.server.example")[2]


@pytest.fixture
def tls_instance(make_instance, server_chain):
    def make(main_cf="", level="may", **kwargs):
        return make_instance(main_cf=f"smtpd_tls_chain_files = {server_chain}\nsmtpd_tls_security_level = {level}\n"
                                     "smtpd_tls_loglevel = 1\nlocal_recipient_maps =\nlocal_transport = discard\n"
                                     + main_cf, **kwargs)
    return make


def logged(instance, pattern):
    return wait_for(lambda: re.search(pattern, instance.log()), what=f"{pattern} in the log")


def test_session_begins_anew(tls_instance):
    """RFC 3207, 4.2: nothing said in the clear counts after the handshake."""
    instance = tls_instance("smtpd_helo_required = yes\n")
    with TlsClient(instance.port) as client:
        assert "250-STARTTLS" in client.command("EHLO client.example")
        client.command("MAIL FROM:<x@x.example>")
        assert client.starttls()[-1] == "220 2.0.0 Ready to start TLS"
        assert client.command("RCPT TO:<a@localhost>")[-1] == "503 5.5.1 Error: need MAIL command"
        assert client.command("MAIL FROM:<x@x.example>")[-1].startswith("503 5.5.1 Error: send HELO/EHLO first")
        assert "250-STARTTLS" not in client.command("EHLO client.example")
        assert client.command("STARTTLS")[-1] == "554 5.5.1 Error: TLS already active"
        assert client.mail().startswith("250 2.0.0 Ok: queued")
        assert client.command("QUIT")[-1] == "221 2.0.0 Bye"
    logged(instance, r"Anonymous TLS connection established from \S+\[127.0.0.1\]: TLSv1.3 with cipher "
                     r"TLS_AES_256_GCM_SHA384 \(256/256 bits\) key-exchange X25519 server-signature RSA-PSS "
                     r"\(2048 bits\) server-digest SHA256\n")
    logged(instance, r"disconnect from \S+ ehlo=2 starttls=1/2 mail=2/3 rcpt=1/2 data=1 quit=1 commands=8/11")


@pytest.mark.parametrize("level, offered, reply", [
    ("none", False, "502 5.5.1 Error: command not implemented"), ("may", True, "220 2.0.0 Ready to start TLS"),
    ("encrypt", True, "220 2.0.0 Ready to start TLS"), ("verify", True, "220 2.0.0 Ready to start TLS")])
def test_levels(tls_instance, level, offered, reply):
    instance = tls_instance(level=level)
    with TlsClient(instance.port) as client:
        assert ("250-STARTTLS" in client.command("EHLO client.example")) == offered
        first = client.command("MAIL FROM:<x@x.example>")[-1]
        if level in ("encrypt", "verify"):
            assert first == "530 5.7.0 Must issue a STARTTLS command first"
            assert client.command("NOOP")[-1] == "250 2.0.0 Ok"
            assert client.command("RSET")[-1] == first
        else:
            assert first == "250 2.1.0 Ok"
        assert client.command("STARTTLS x")[-1] == "501 5.5.4 Syntax: STARTTLS"
        assert client.starttls()[-1] == reply
        client.command("EHLO client.example")
        assert client.mail().startswith("250 ")
    if level == "verify":
        logged(instance, 'warning: smtpd_tls_security_level: unsupported TLS level "verify", using "encrypt"')


@pytest.mark.parametrize("old, mandatory", [("smtpd_use_tls", False), ("smtpd_enforce_tls", True)])
def test_old_parameters(tls_instance, old, mandatory):
    instance = tls_instance(f"smtpd_tls_security_level =\n{old} = yes\n")
    with TlsClient(instance.port) as client:
        assert "250-STARTTLS" in client.command("EHLO client.example")
        assert client.command("MAIL FROM:<x@x.example>")[-1].startswith("530" if mandatory else "250")


def test_wrong_level_is_fatal(tls_instance):
    instance = tls_instance(level="foo")
    with socket.create_connection(("127.0.0.1", instance.port)):
        logged(instance, 'fatal: Invalid TLS level "foo"')


def test_unknown_words(tls_instance):
    """They are named, and TLS goes on without them."""
    instance = tls_instance("smtpd_tls_loglevel = loud\ntls_ssl_options = NO_TICKET, FAST\ntls_disable_workarounds = X\n")
    with TlsClient(instance.port) as client:
        assert client.hello()
    for name, word, value in (("smtpd_tls_loglevel", "loud", "loud"), ("tls_ssl_options", "FAST", "NO_TICKET, FAST"),
                              ("tls_disable_workarounds", "X", "X")):
        logged(instance, f'warning: unknown {name} value "{word}" in "{value}"')


def test_wrapper_mode(tls_instance):
    instance = tls_instance("smtpd_tls_wrappermode = yes\nsmtpd_tls_received_header = yes\n")
    with TlsClient(instance.port, wrapped=True) as client:
        assert client.transcript[0].startswith("220 ")
        assert "250-STARTTLS" not in client.command("EHLO client.example")
        assert client.mail().startswith("250 2.0.0 Ok: queued")
    with pytest.raises((ssl.SSLError, OSError)):
        TlsClient(instance.port, wrapped=True, context=client_context(highest=ssl.TLSVersion.TLSv1_2,
                                                                     ciphers="NULL-SHA:@SECLEVEL=0"))
    logged(instance, r"SSL_accept error from \S+\[127.0.0.1\]: -1\n")
    logged(instance, r"warning: TLS library problem: error:\w+:SSL routines::no shared cipher:")
    logged(instance, r"lost connection after CONNECT from")


@pytest.mark.parametrize("refuse", ["yes", "no"])
def test_plaintext_behind_starttls(tls_instance, refuse):
    """What was sent in the clear behind STARTTLS is never a command, whatever smtpd_forbid_unauth_pipelining says."""
    instance = tls_instance(f"smtpd_forbid_unauth_pipelining = {refuse}\n")
    with TlsClient(instance.port) as client:
        client.command("EHLO client.example")
        client.send("STARTTLS\r\nMAIL FROM:<injected@x.example>\r\n")
        assert client.reply() == ["554 5.5.0 Error: SMTP protocol synchronization"]
        assert client.file.read() == b""
    logged(instance, r"improper command pipelining after STARTTLS from \S+: MAIL FROM:<injected@x.example>\\r\\n")
    logged(instance, r"disconnect from \S+ ehlo=1 starttls=0/1 commands=1/2")


def test_half_a_command_in_the_clear(tls_instance):
    """The other half, encrypted, does not complete it."""
    instance = tls_instance()
    with TlsClient(instance.port) as client:
        client.command("EHLO client.example")
        client.send("STARTTLS\r\n")
        client.reply()
        client.send("MAIL FR")
        with pytest.raises((ssl.SSLError, OSError)):
            client._wrap()
    logged(instance, r"SSL_accept error from \S+\[127.0.0.1\]: -1\n")
    logged(instance, r"lost connection after STARTTLS from")


def test_silence_in_the_handshake(tls_instance):
    instance = tls_instance("smtpd_starttls_timeout = 1\n")
    with TlsClient(instance.port) as client:
        client.command("EHLO client.example")
        client.command("STARTTLS")
        assert client.file.read() == b""
    logged(instance, r"SSL_accept error from \S+\[127.0.0.1\]: Connection timed out\n")


def test_broken_certificate(tls_instance, ca):
    """Plain mail goes on."""
    other_key = ca.make("other.example")[0]
    certificate = ca.make("mine.example")[1]
    instance = tls_instance(f"smtpd_tls_chain_files =\nsmtpd_tls_cert_file = {certificate}\n"
                            f"smtpd_tls_key_file = {other_key}\n")
    with TlsClient(instance.port) as client:
        assert "250-STARTTLS" not in client.command("EHLO client.example")
        assert client.command("STARTTLS")[-1] == "454 4.7.0 TLS not available due to local problem"
        assert client.mail().startswith("250 ")
    logged(instance, re.escape(f'warning: cannot get RSA private key from file "{other_key}": disabling TLS support'))
    logged(instance, "warning: TLS library problem: error:05800074:x509 certificate routines::key values mismatch:")


def test_broken_chain_in_wrapper_mode(tls_instance):
    instance = tls_instance("smtpd_tls_chain_files = /dev/null\nsmtpd_tls_wrappermode = yes\n")
    with TlsClient(instance.port) as client:
        assert client.transcript == [""]
    logged(instance, "warning: No PEM data in /dev/null")
    logged(instance, r"warning: Wrapper-mode request dropped from \S+\[127.0.0.1\] for service 127.0.0.1:\d+. TLS "
                     "context initialization failed. For details see earlier warnings in your logs.")


def renew(how, path, ca):
    """Put a new chain in the place of `path`."""
    chain = ca.make("new.server.example")[2]
    if how == "link":
        path.unlink()
        path.symlink_to(chain)
    elif how == "rename":
        chain.rename(path)
    else:
        path.write_text(chain.read_text())


@pytest.mark.parametrize("how", ["link", "rename", "write"])
def test_new_certificate_without_reload(tls_instance, ca, tmp_path, how):
    first = ca.make("old.server.example")[2]
    path = tmp_path / "chain.pem"
    tmp_path.chmod(0o755)
    if how == "link":  # as certbot's live/ directory
        path.symlink_to(first)
    else:
        path.write_text(first.read_text())
    instance = tls_instance(f"smtpd_tls_chain_files = {path}\n")

    def name():
        with TlsClient(instance.port) as client:
            client.hello()
            return client.peer_common_name()

    with TlsClient(instance.port) as staying:
        staying.hello()
        assert staying.peer_common_name() == "old.server.example"
        assert staying.command("MAIL FROM:<x@x.example>")[-1].startswith("250 ")
        renew(how, path, ca)
        wait_for(lambda: name() == "new.server.example", what="the new certificate")
        for command in ("RCPT TO:<a@localhost>", "DATA", "Subject: t\r\n\r\nhello\r\n."):  # what has begun goes on
            assert staying.command(command)[-1][0] in "23"
    logged(instance, f"file {path} has changed -- restarting")


def test_server_certificates_of_clients(tls_instance, ca):
    """tls_trust_server_ccerts: public authorities make no others any more."""
    instance = tls_instance(f"smtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = {ca.cert}\ntls_trust_server_ccerts = yes\n")
    for usage, word in (("serverAuth", "Trusted"), ("codeSigning", "Untrusted")):
        chain = ca.make("user.example", usage=usage)[2]
        with TlsClient(instance.port, context=client_context(chain)) as client:
            client.hello()
        logged(instance, rf"\b{word} TLS connection established from")


@pytest.mark.parametrize("wrapped", [False, True], ids=["starttls", "wrapper"])
@pytest.mark.parametrize("certificate", ["none", "untrusted", "trusted"])
def test_required_client_certificate(tls_instance, ca, tmp_path, wrapped, certificate):
    maker = TestCA(tmp_path / "other", "Other CA") if certificate == "untrusted" else ca
    chain = None if certificate == "none" else maker.make("user.example", usage="clientAuth")[2]
    instance = tls_instance(f"smtpd_tls_req_ccert = yes\nsmtpd_tls_CAfile = {ca.cert}\n"
                            f"smtpd_tls_wrappermode = {'yes' if wrapped else 'no'}\n", level="encrypt")
    why = {"none": "No client certificate presented", "untrusted": "Client certificate not trusted"}.get(certificate)
    with TlsClient(instance.port, wrapped=wrapped, context=client_context(chain)) as client:
        if not wrapped:
            client.command("EHLO client.example")
            client.starttls()
            if why:
                client.reply()
        if why:  # at once: in wrapper mode the client waits for us
            assert client.transcript[-1] == f"421 4.7.1 mail.example Error: {why}"
            assert client.file.read() == b""
            logged(instance, rf"NOQUEUE: abort: TLS from \S+\[127.0.0.1\]: {why}\n")
        else:
            client.command("EHLO client.example")
            assert client.mail().startswith("250 ")
    if certificate == "untrusted":
        logged(instance, r"certificate verification failed for \S+\[127.0.0.1\]: untrusted issuer /CN=Other CA\n")
