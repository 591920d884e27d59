"""haproxy in front of smtpd, with both versions of its PROXY header, and its health checks."""
import contextlib
import shutil
import smtplib
import ssl
import subprocess

import pytest

from instance import free_port, wait_for
from smtpd.dialogue import Client
from tls.tls_ca import TestCA

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="no haproxy")

CONF = """\
global
  maxconn 100
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend first
  bind 127.0.0.1:{first}
  default_backend v1
frontend second
  bind 127.0.0.1:{second}
  default_backend v2
backend v1
  server mail 127.0.0.1:{mail} send-proxy check inter 1s
backend v2
  server mail 127.0.0.1:{mail} send-proxy-v2
"""


@pytest.fixture
def front(make_instance):
    mail = make_instance(main_cf="smtpd_upstream_proxy_protocol = haproxy\nsmtpd_upstream_proxy_timeout = 10s\n"
                         "mynetworks = 127.0.0.7\ndefault_transport = discard:\n")
    first, second = free_port(), free_port()
    conf = mail.directory / "haproxy.cfg"
    conf.write_text(CONF.format(first=first, second=second, mail=mail.port))
    process = subprocess.Popen(["haproxy", "-db", "-f", str(conf)])
    try:
        yield mail, first, second
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_client_behind_haproxy(front):
    mail, first, second = front
    for port, address in ((first, "127.0.0.7"), (second, "127.0.0.7"), (first, "127.0.0.8"), (second, "127.0.0.8")):
        def connect():
            try:
                client = Client(port, address)
            except ConnectionError:
                return None
            greeting = client.reply()
            return client if greeting else None
        client = wait_for(connect, what="haproxy")
        client.ask("EHLO client.example")
        client.ask("MAIL FROM:<a@here.example>")
        reply = client.ask("RCPT TO:<b@elsewhere.example>")[0]
        # mynetworks is about the client, not about haproxy
        assert reply.startswith("250" if address.endswith("7") else "454"), (address, reply)
        client.ask("QUIT")
        mail.wait_log(f"[{address}]")
    # health checks, which name nobody, connect and go away
    assert "panic" not in mail.log() and mail.running()


WRAPPED = """\
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend through
  bind 127.0.0.1:{through}
  default_backend passes
frontend ends
  bind 127.0.0.1:{ends} ssl crt {chain}
  default_backend clear
backend passes
  server mail 127.0.0.1:{wrapped} send-proxy-v2
backend clear
  server mail 127.0.0.1:{plain} send-proxy-v2-ssl-cn
"""


def test_wrapper_mode(make_instance, tmp_path):
    """Port 465: haproxy passes TLS on, with its header in the clear before it; or it ends TLS itself, and what it says of
    that in its header does not make the session one with TLS."""
    chain = TestCA(tmp_path / "ca").make("mail.example")[2]
    through, ends, wrapped = free_port(), free_port(), free_port()
    mail = make_instance(main_cf="smtpd_upstream_proxy_protocol = haproxy\nmynetworks = 127.0.0.7\n"
                         "default_transport = discard:\nsmtpd_tls_loglevel = 1\n"
                         f"smtpd_tls_chain_files = {chain}\nsmtpd_tls_received_header = yes\n",
                         master_extra=f"127.0.0.1:{wrapped} inet n - n - - smtpd\n  -o smtpd_tls_wrappermode=yes\n")
    conf = mail.directory / "haproxy.cfg"
    conf.write_text(WRAPPED.format(through=through, ends=ends, chain=chain, wrapped=wrapped, plain=mail.port))
    process = subprocess.Popen(["haproxy", "-db", "-f", str(conf)])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        for port, address in ((through, "127.0.0.7"), (through, "127.0.0.8"), (ends, "127.0.0.7"), (ends, "127.0.0.8")):
            def connect():
                with contextlib.suppress(OSError, smtplib.SMTPServerDisconnected):
                    return smtplib.SMTP_SSL("127.0.0.1", port, timeout=60, context=context, source_address=(address, 0))
            with wait_for(connect, what="haproxy") as client:
                client.ehlo("client.example")
                client.mail("a@here.example")
                code, _ = client.rcpt("b@elsewhere.example")
                assert code == (250 if address.endswith("7") else 454), (port, address)
        for address in ("127.0.0.7", "127.0.0.8"):
            mail.wait_log(f"TLS connection established from unknown[{address}]: TLSv1.3")
        wait_for(lambda: mail.log().count("disconnect from") >= 4)
        assert mail.log().count("TLS connection established") == 2
    finally:
        process.terminate()
        process.wait(timeout=20)
