"""haproxy in front of smtpd, with both versions of its PROXY header, and its health checks."""
import shutil
import subprocess

import pytest

from instance import free_port, wait_for
from smtpd.dialogue import Client

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
