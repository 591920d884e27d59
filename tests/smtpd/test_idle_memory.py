"""Many clients that do nothing: what they cost, and what happens when there are too many."""
import os
import re
import resource
import selectors
import socket

import pytest

from instance import SANITIZED, wait_for
from smtpd.dialogue import Client

IDLE, FLOOD = 2000, 5000
PSS_LIMIT = 64 * 1024 * 1024


def smtpd_processes(instance):
    """pids of the instance's smtpd processes: their program is the one below its directory"""
    program = str(instance.directory / "libexec" / "smtpd")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/exe") == program:
                found.append(int(pid))
        except OSError:
            continue
    return found


def pss(pids):
    total = 0
    for pid in pids:
        text = open(f"/proc/{pid}/smaps_rollup").read()
        total += int(re.search(r"^Pss:\s+(\d+) kB", text, re.M).group(1)) * 1024
    return total


@pytest.fixture(autouse=True)
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * FLOOD + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} descriptors, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect_all(port, count):
    """Sockets that have been told to connect, and what each has heard once the server had time for all."""
    selector, clients = selectors.DefaultSelector(), []
    for i in range(count):
        s = socket.socket()
        s.setblocking(False)
        s.bind((f"127.0.{1 + i // 200}.{1 + i % 200}", 0))
        s.connect_ex(("127.0.0.1", port))
        clients.append(s)
        selector.register(s, selectors.EVENT_READ)
    heard = {}
    while len(heard) < count:
        ready = selector.select(timeout=60)
        assert ready, f"{count - len(heard)} of {count} clients heard nothing for a minute"
        for key, _ in ready:
            try:
                heard[key.fileobj] = key.fileobj.recv(1000)
            except ConnectionError:
                heard[key.fileobj] = b""
            selector.unregister(key.fileobj)
    selector.close()
    return clients, heard


CONF = """\
smtpd_peername_lookup = yes
smtpd_client_connection_count_limit = 0
smtpd_timeout = 600s
default_process_limit = {limit}
"""


def test_idle_sessions_are_small(make_instance):
    """After a greeting, an EHLO and a refused recipient: what a session that has done something leaves behind, too."""
    instance = make_instance(main_cf=CONF.format(limit=IDLE + 100))
    clients, heard = connect_all(instance.port, IDLE)
    assert all(h.startswith(b"220 ") for h in heard.values())
    for data in (b"EHLO client.example\r\n", b"MAIL FROM:<a@there.example>\r\n", b"RCPT TO:<x@elsewhere.example>\r\n",
                 b"RSET\r\n"):
        for s in clients:
            s.setblocking(True)
            s.settimeout(60)
            s.sendall(data)
        for s in clients:
            assert s.recv(4096)
    pids = smtpd_processes(instance)
    assert pids
    used = pss(pids)
    print(f"{IDLE} idle sessions: {len(pids)} smtpd processes, {used // 1024} KiB together, {used // IDLE} bytes each")
    if not SANITIZED:
        assert used < PSS_LIMIT
    for s in clients:
        s.close()


def test_five_thousand_at_once(make_instance):
    """More than the process limit allows: each hears something proper or is closed, and then the server still works."""
    instance = make_instance(main_cf=CONF.format(limit=500) + "smtpd_timeout = 5s\n")
    clients = []
    selector = selectors.DefaultSelector()
    for i in range(FLOOD):
        s = socket.socket()
        s.setblocking(False)
        s.bind((f"127.0.{1 + i // 200}.{1 + i % 200}", 0))
        s.connect_ex(("127.0.0.1", instance.port))
        clients.append(s)
        selector.register(s, selectors.EVENT_READ)
    served = 0
    while served < 500:
        ready = selector.select(timeout=60)
        assert ready
        for key, _ in ready:
            try:
                got = key.fileobj.recv(1000)
            except ConnectionError:
                got = b""
            assert got == b"" or got.startswith((b"220 ", b"421 ")), got
            served += 1
            selector.unregister(key.fileobj)
    used = pss(smtpd_processes(instance))
    print(f"{FLOOD} connections: {served} served, {used // 1024} KiB")
    if not SANITIZED:
        assert used < PSS_LIMIT
    for s in clients:
        s.close()
    selector.close()

    def works():
        client = Client(instance.port)
        try:
            return client.reply()[:1] and client.ask("EHLO again.example")
        finally:
            client.close()
    assert wait_for(works, 60)[-1].startswith("250 ")
    assert "fatal" not in instance.log() and "panic" not in instance.log()
