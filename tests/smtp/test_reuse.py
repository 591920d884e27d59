"""Sessions of the SMTP client that serve more than one message: what the server sees, what the log says (conn_use=), beside
Debian's Postfix."""
import os
import pwd
import re
import smtplib
import time

import pytest

from instance import Instance, wait_for
from oracle import Oracle
from sink import Sink

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


class Both:
    """An Angarium or a Postfix that relays everything to one server."""

    def __init__(self, kind, server, main_cf):
        text = f"relayhost = [127.0.0.1]:{server.port}\n{main_cf.format(port=server.port)}"
        user = USER if os.geteuid() == 0 else None
        self.system = Oracle(main_cf=text) if kind == "oracle" else Instance(main_cf=text, user=user)

    def send(self, to="someone@far.example", count=1):
        with smtplib.SMTP("127.0.0.1", self.system.port, timeout=60) as smtp:
            for _ in range(count):
                assert not smtp.sendmail("me@here.example", [to], "Subject: x\r\n\r\nhello\r\n")

    def results(self):
        """Of each delivery so far, in order: (conn_use or None, status)."""
        return [(int(use) if use else None, status) for use, status in
                re.findall(r"relay=\S+(?:, conn_use=(\d+))?, delay=.* status=(\w+)", self.system.log())]

    def wait(self, count):
        wait_for(lambda: len(self.results()) >= count, 60, f"{count} deliveries")

    def send_and_wait(self, **kwargs):
        have = len(self.results())
        self.send(**kwargs)
        self.wait(have + kwargs.get("count", 1))


@pytest.fixture
def server():
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def run(server):
    running = []

    def start(kind, main_cf=""):
        if kind == "oracle" and Oracle.why_not():
            pytest.skip(Oracle.why_not())
        both = Both(kind, server, main_cf)
        both.system.start()
        running.append(both.system)
        return both

    yield start
    for system in running:
        print(f"--- log:\n{system.log()}")
        system.stop()


KINDS = ["angarium", "oracle"]
LISTED = "smtp_connection_cache_destinations = other.example, 127.0.0.1\n"


@pytest.mark.parametrize("kind", KINDS)
def test_single_messages(run, server, kind):
    """Without a backlog each message has a connection, which ends with it."""
    mail = run(kind)
    for number in (1, 2):
        mail.send_and_wait()
        wait_for(lambda: "QUIT" in server.verbs(number))
    assert server.connections == 2
    assert mail.results() == [(None, "sent")] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_backlog(run, server, kind):
    """Messages that wait for each other share a connection. The first one was alone when it was begun."""
    mail = run(kind, "default_destination_concurrency_limit = 1\n")
    server.go.clear()
    mail.send()
    wait_for(lambda: server.waiting == 1)
    mail.send(count=3)
    wait_for(lambda: mail.system.log().count("(queue active)") == 4)
    server.go.set()
    mail.wait(4)
    assert mail.results() == [(None, "sent"), (None, "sent"), (2, "sent"), (3, "sent")]
    assert server.connections == 2
    assert server.verbs(1) == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize("kind", KINDS)
def test_on_demand_no(run, server, kind):
    mail = run(kind, "default_destination_concurrency_limit = 1\nsmtp_connection_cache_on_demand = no\n")
    server.go.clear()
    mail.send(count=3)
    wait_for(lambda: server.waiting == 1)
    server.go.set()
    mail.wait(3)
    assert mail.results() == [(None, "sent")] * 3
    assert server.connections == 3


@pytest.mark.parametrize("kind", KINDS)
def test_listed_destination(run, server, kind):
    mail = run(kind, LISTED + "smtp_connection_cache_time_limit = 20s\nconnection_cache_ttl_limit = 20s\n")
    for _ in range(3):
        mail.send_and_wait()
    assert mail.results() == [(None, "sent"), (2, "sent"), (3, "sent")]
    assert server.connections == 1


@pytest.mark.parametrize("kind", KINDS)
def test_listed_in_a_table(run, server, kind, tmp_path):
    table = tmp_path / "destinations.in"
    table.write_text("127.0.0.1 whatever\n")
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.owner() == pwd.getpwuid(os.geteuid()).pw_name and str(parent) not in ("/", "/tmp"):
            parent.chmod(0o755)
    mail = run(kind, f"smtp_connection_cache_destinations = texthash:{table}\n"
                     "smtp_connection_cache_time_limit = 20s\nconnection_cache_ttl_limit = 20s\n")
    mail.send_and_wait()
    mail.send_and_wait()
    assert mail.results() == [(None, "sent"), (2, "sent")]


@pytest.mark.parametrize("kind", KINDS)
def test_count_limit(run, server, kind):
    mail = run(kind, LISTED + "smtp_connection_cache_time_limit = 20s\nconnection_cache_ttl_limit = 20s\n"
                              "smtp_connection_reuse_count_limit = 1\n")
    for _ in range(3):
        mail.send_and_wait()
    assert mail.results() == [(None, "sent"), (2, "sent"), (None, "sent")]
    wait_for(lambda: server.verbs(1)[-1] == "QUIT")
    assert server.connections == 2


@pytest.mark.parametrize("kind", KINDS)
def test_time_limit(run, server, kind):
    """The clock of smtp_connection_reuse_time_limit runs from the connection on; the message that ends after it is the
    last one."""
    mail = run(kind, LISTED + "smtp_connection_cache_time_limit = 60s\nconnection_cache_ttl_limit = 60s\n"
                              "smtp_connection_reuse_time_limit = 3s\n")
    mail.send_and_wait()
    if time.monotonic() - server.connected > 2:
        pytest.skip("too slow a machine, now: the first message has used up the time")
    time.sleep(server.connected + 4.5 - time.monotonic())  # Postfix counts whole seconds
    mail.send_and_wait()
    mail.send_and_wait()
    assert mail.results() == [(None, "sent"), (2, "sent"), (None, "sent")]
    wait_for(lambda: server.verbs(1)[-1] == "QUIT")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", ["smtp_connection_cache_time_limit = 1s\nconnection_cache_ttl_limit = 60s\n",
                                     "smtp_connection_cache_time_limit = 60s\nconnection_cache_ttl_limit = 1s\n"])
def test_idle_connections_end(run, server, kind, setting):
    mail = run(kind, LISTED + setting)
    mail.send_and_wait()
    wait_for(lambda: server.verbs(1)[-1] in ("QUIT", "<lost>"))
    if kind == "angarium":
        assert server.verbs(1)[-1] == "QUIT"
    mail.send_and_wait()
    assert mail.results() == [(None, "sent")] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_server_closes_idle_connection(run, server, kind):
    server.idle = 0.5
    mail = run(kind, LISTED + "smtp_connection_cache_time_limit = 60s\nconnection_cache_ttl_limit = 60s\n")
    mail.send_and_wait()
    wait_for(lambda: server.verbs(1)[-1] == "<closed>")
    mail.send_and_wait()
    assert mail.results() == [(None, "sent")] * 2
    assert server.connections == 2


@pytest.mark.parametrize("kind", KINDS)
def test_refused_recipient_before(run, server, kind):
    """What was left open by a message without recipients does not reach the next one."""
    mail = run(kind, LISTED + "smtp_connection_cache_time_limit = 60s\nconnection_cache_ttl_limit = 60s\n"
                              "notify_classes =\n")
    mail.send_and_wait(to="refused@far.example")
    # the notice goes to the same server
    wait_for(lambda: len(mail.results()) == 2)
    mail.send_and_wait()
    assert [status for _, status in mail.results()] == ["bounced", "sent", "sent"]
    assert server.connections == 1
    assert server.verbs(1)[:5] == ["EHLO", "MAIL", "RCPT", "DATA", "RSET"]


@pytest.mark.parametrize("kind", KINDS)
def test_lmtp(run, server, kind):
    """The same with the other program's parameters, and its count of uses."""
    mail = run(kind, "default_transport = lmtp:inet:127.0.0.1:{port}\nrelayhost =\n"
                     "lmtp_connection_cache_destinations = 127.0.0.1\nlmtp_connection_cache_time_limit = 20s\n"
                     "connection_cache_ttl_limit = 20s\nlmtp_connection_reuse_count_limit = 1\n")
    for _ in range(3):
        mail.send_and_wait()
    assert mail.results() == [(None, "sent"), (2, "sent"), (None, "sent")]
    assert server.verbs(1)[0] == "LHLO"
    wait_for(lambda: server.verbs(1)[-1] == "QUIT")


def test_reload_ends_kept_sessions(run, server):
    mail = run("angarium", LISTED + "smtp_connection_cache_time_limit = 60s\nconnection_cache_ttl_limit = 60s\n")
    mail.send_and_wait()
    mail.system.reload()
    wait_for(lambda: server.verbs(1)[-1] == "QUIT")
    mail.send_and_wait()
    assert mail.results() == [(None, "sent")] * 2


def test_many_at_once(run, server):
    """A busy destination: many sessions, all used again, and none lost."""
    mail = run("angarium", "default_destination_concurrency_limit = 10\ninitial_destination_concurrency = 10\n")
    server.go.clear()
    mail.send(count=60)
    server.go.set()
    mail.wait(60)
    assert {status for _, status in mail.results()} == {"sent"}
    assert server.connections < 40
    assert sum(use is not None for use, _ in mail.results()) >= 20
    wait_for(lambda: all(server.verbs(n)[-1] == "QUIT" for n in range(1, server.connections + 1)), 30)
