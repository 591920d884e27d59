"""Session tickets: which process of ours gave one out does not matter, which service did, does."""
import os
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from instance import free_port, wait_for  # noqa: E402
from tls_ca import TestCA, TlsClient, client_context  # noqa: E402

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return TestCA(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def ticket_instance(make_instance, ca):
    chain = ca.make("mx.server.example")[2]

    def make(main_cf="", **kwargs):
        return make_instance(main_cf=f"smtpd_tls_chain_files = {chain}\nsmtpd_tls_security_level = may\n"
                                     f"smtpd_tls_loglevel = 2\n{main_cf}", **kwargs)
    return make


class Visitor:
    """A client that keeps its ticket."""

    def __init__(self, version, chain=None):
        self.context = client_context(chain, lowest=version, highest=version)
        self.session = None

    def visit(self, port):
        """Was the session resumed?"""
        with TlsClient(port, context=self.context, session=self.session) as client:
            client.hello()
            reused = client.socket.session_reused
            client.command("NOOP")  # in TLSv1.3 the ticket comes after the handshake
            self.session = client.socket.session
            client.command("QUIT")
        return reused


@pytest.mark.parametrize("version", VERSIONS)
def test_resumed_by_any_process(ticket_instance, version):
    instance = ticket_instance()
    visitor = Visitor(version)
    assert not visitor.visit(instance.port)
    assert visitor.visit(instance.port)
    first = set(instance.pids("smtpd"))
    for pid in first:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not first & set(instance.pids("smtpd")), what="the end of the worker")
    assert visitor.visit(instance.port)
    assert not first & set(instance.pids("smtpd"))
    wait_for(lambda: "Reusing old session (RFC 5077 session ticket)\n" in instance.log(), what="the log line")


def test_resumed_after_reload(ticket_instance):
    instance = ticket_instance()
    visitor = Visitor(VERSIONS[1])
    assert not visitor.visit(instance.port)
    manager = instance.pids("tlsmgr")
    assert len(manager) == 1
    before = set(manager + instance.pids("smtpd"))
    instance.reload()
    wait_for(lambda: not before & set(instance.pids("tlsmgr") + instance.pids("smtpd")), what="the end of both")
    assert visitor.visit(instance.port)


def test_several_workers(ticket_instance):
    instance = ticket_instance("service_worker_limit = 4\n")
    visitors = [Visitor(VERSIONS[1]) for _ in range(4)]
    for visitor in visitors:
        assert not visitor.visit(instance.port)
    for _ in range(4):
        assert all(visitor.visit(instance.port) for visitor in visitors)


def test_not_of_another_service(ticket_instance, ca):
    """One that asks for no certificate must not open the door of one that does."""
    other = free_port()
    instance = ticket_instance(master_extra=f"127.0.0.1:{other} inet n - n - - smtpd -o smtpd_tls_ask_ccert=yes\n"
                                            f" -o smtpd_tls_CAfile={ca.cert}\n")
    for version in VERSIONS:
        visitor = Visitor(version)
        assert not visitor.visit(instance.port)
        assert not visitor.visit(other)


def test_client_certificate_of_a_resumed_session(ticket_instance, ca):
    chain = ca.make("user.example", usage="clientAuth")[2]
    instance = ticket_instance(f"smtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = {ca.cert}\n")
    visitor = Visitor(VERSIONS[1], chain)
    assert not visitor.visit(instance.port)
    assert visitor.visit(instance.port)
    wait_for(lambda: instance.log().count("disconnect from") == 2, what="both sessions in the log")
    prints = re.findall(r"subject_CN=user.example, issuer=Test CA, fingerprint=(\S+),", instance.log())
    assert prints == [ca.fingerprint(str(chain).replace(".chain", ".pem"))] * 2
    lines = re.findall(r"(\w+) TLS connection established from .*?key-exchange X25519(.*)", instance.log())
    # what signed nothing in this session is not named
    assert lines == [("Trusted", " server-signature RSA-PSS (2048 bits) server-digest SHA256 client-signature RSA-PSS "
                                 "(2048 bits) client-digest SHA256"), ("Trusted", "")]


def test_keys_change(ticket_instance):
    """Each key has its turn; the ones before still open their tickets."""
    instance = ticket_instance("smtpd_tls_session_cache_timeout = 8\n")
    visitor = Visitor(VERSIONS[1])
    assert not visitor.visit(instance.port)

    def keys():
        return {int(x) for x in re.findall(r"Issuing session ticket, key expiration: (\d+)", instance.log())}

    def changed():
        assert visitor.visit(instance.port)
        return len(keys()) > 2

    wait_for(changed, seconds=60, what="the third key")
    ordered = sorted(keys())
    assert all(4 <= b - a <= 5 for a, b in zip(ordered, ordered[1:]))


@pytest.mark.parametrize("off", ["tls_session_ticket_cipher =", "smtpd_tls_session_cache_timeout = 0",
                                 "tls_ssl_options = NO_TICKET", "tls_session_ticket_cipher = aes-256-gcm"])
def test_no_tickets(ticket_instance, off):
    instance = ticket_instance(off + "\n")
    for version in VERSIONS:
        visitor = Visitor(version)
        assert not visitor.visit(instance.port)
        assert not visitor.session or not visitor.session.has_ticket
        assert not visitor.visit(instance.port)
    assert not instance.pids("tlsmgr")
    assert ("tls_session_ticket_cipher: invalid value: aes-256-gcm; session tickets disabled" in
            instance.log()) == ("gcm" in off)


def test_without_tlsmgr(ticket_instance):
    """There are no tickets then, and TLS works."""
    instance = ticket_instance("tlsmgr_service_name = nowhere\n")
    for version in VERSIONS:
        visitor = Visitor(version)
        assert not visitor.visit(instance.port)
        assert not visitor.visit(instance.port)
    assert instance.log().count("warning: problem talking to service private/nowhere: ") == 1


@pytest.mark.parametrize("always", ["yes", "no"])
def test_session_ids(ticket_instance, always):
    instance = ticket_instance(f"smtpd_tls_always_issue_session_ids = {always}\ntls_session_ticket_cipher =\n")
    text = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{instance.port}", "-starttls", "smtp",
                           "-tls1_2"], input="Q\n", capture_output=True, text=True, timeout=60).stdout
    identity = re.search(r"Session-ID: (\w*)\n", text).group(1)
    assert bool(identity) == (always == "yes")
