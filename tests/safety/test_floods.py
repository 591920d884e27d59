"""Floods and zombies: bounded memory and time, a log that can be read, and good clients who notice nothing."""
import contextlib
import re
import resource
import selectors
import smtplib
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pytest

from instance import SANITIZED, wait_for
from smtpd.dialogue import Client
from smtpd.test_idle_memory import connect_all, pss, smtpd_processes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "postscreen"))
from screens import Screen  # noqa: E402

CONNECTS = 5_000 if SANITIZED else 50_000
ZOMBIES = 1_000 if SANITIZED else 10_000
AT_ONCE = 100
MEBIBYTE = 1024 * 1024
GOOD, BAD = "127.0.0.1", "127.0.0.66"
MAIN_CF = "local_recipient_maps =\nlocal_transport = discard\nmynetworks = 127.0.0.1\n"


@pytest.fixture(autouse=True)
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ZOMBIES + 2000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} descriptors, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, soft), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class GoodClient:
    """Sends messages, one connection each, until it is told to stop; anything but success ends the test."""

    def __init__(self, port, source=GOOD):
        self.sent, self.failed, self.over = 0, None, threading.Event()
        self.port, self.source = port, source
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.over.is_set():
                with smtplib.SMTP("127.0.0.1", self.port, timeout=60, source_address=(self.source, 0)) as client:
                    client.sendmail("a@there.example", ["user@localhost"], "Subject: x\r\n\r\nhello\r\n")
                self.sent += 1
        except (OSError, smtplib.SMTPException) as e:
            self.failed = e

    def stop(self):
        self.over.set()
        self.thread.join(90)
        assert self.failed is None, self.failed
        return self.sent


def flood(port, source, count):
    """Connect again and again and take what is said; {first three letters: how often}."""
    selector, begun, heard = selectors.DefaultSelector(), 0, {}
    while begun < count or selector.get_map():
        while begun < count and len(selector.get_map()) < AT_ONCE:
            s = socket.socket()
            s.setblocking(False)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.bind((source, 0))
            s.connect_ex(("127.0.0.1", port))
            selector.register(s, selectors.EVENT_READ)
            begun += 1
        ready = selector.select(60)
        assert ready, "nobody hears anything for a minute"
        for key, _ in ready:
            try:
                got = key.fileobj.recv(100)
            except OSError:
                got = b""
            heard[got[:3]] = heard.get(got[:3], 0) + 1
            selector.unregister(key.fileobj)
            key.fileobj.close()
    return heard


def test_fifty_thousand_connects_from_one_address(make_instance):
    server = make_instance(main_cf=MAIN_CF + "smtpd_client_connection_rate_limit = 30\nanvil_rate_time_unit = 600s\n"
                           "smtpd_client_connection_count_limit = 20\n")
    with server.smtp() as client:
        client.noop()
    before = pss(server.pids())
    good = GoodClient(server.port)
    heard = flood(server.port, BAD, CONNECTS)
    sent, grown = good.stop(), pss(server.pids()) - before
    print(f"{heard}, {sent} good messages meanwhile, {grown // 1024} KiB more")
    assert heard.get(b"220", 0) <= 30 and heard[b"421"] >= CONNECTS * 0.9
    assert sent >= 3
    if not SANITIZED:
        assert grown < 24 * MEBIBYTE
    # a line says who and why; no connection has more than its three
    server.wait_log(f"warning: Connection rate limit exceeded: 31 from unknown[{BAD}] for service ")
    of_bad = sum(f"[{BAD}]" in line for line in server.log().splitlines())
    assert of_bad <= 3 * CONNECTS + 100
    assert not re.search("panic|fatal|error: ", server.log())


def silent_crowd(port):
    crowd, heard = connect_all(port, ZOMBIES)
    return crowd, heard


def test_zombies_at_smtpd(make_instance):
    """They are greeted and say nothing."""
    server = make_instance(main_cf=MAIN_CF + f"default_process_limit = {ZOMBIES + 500}\nsmtpd_timeout = 600s\n"
                           "smtpd_client_connection_count_limit = 0\n")
    crowd, heard = silent_crowd(server.port)
    assert all(text.startswith(b"220 ") for text in heard.values())
    good = GoodClient(server.port)
    wait_for(lambda: good.sent >= 20 or good.failed, 60, "twenty good messages")
    good.stop()
    used = pss(smtpd_processes(server))
    print(f"{ZOMBIES} zombies at smtpd: {used // 1024} KiB")
    if not SANITIZED:
        assert used < 160 * MEBIBYTE
    for s in crowd:
        s.close()
    wait_for(lambda: server.log().count("lost connection after CONNECT") >= ZOMBIES, 60, "the end of the zombies")


def test_zombies_at_postscreen():
    """They wait for the end of the greeting, and cost no session; who has passed before goes on to smtpd."""
    screen = Screen(main_cf=f"postscreen_pre_queue_limit = {ZOMBIES + 500}\npostscreen_client_connection_count_limit = 0\n"
                    f"postscreen_greet_wait = 300s\npostscreen_access_list = cidr:{{ {{ {GOOD}/32 permit }} }}\n"
                    f"default_process_limit = {ZOMBIES + 500}\nlocal_transport = discard\n")
    try:
        screen.start()
        crowd = []
        for i in range(ZOMBIES):
            s = socket.socket()
            s.settimeout(60)
            s.bind((f"127.0.{2 + i // 200}.{1 + i % 200}", 0))
            s.connect(("127.0.0.1", screen.port))
            crowd.append(s)
        wait_for(lambda: screen.log().count("CONNECT from [127.0.") >= ZOMBIES, 60, "all of them")
        good = GoodClient(screen.port)
        wait_for(lambda: good.sent >= 20 or good.failed, 60, "twenty good messages")
        good.stop()
        used = pss(screen.pids("postscreen"))
        print(f"{ZOMBIES} zombies at postscreen: {used // 1024} KiB")
        assert len(screen.pids("postscreen")) == 1
        if not SANITIZED:
            assert used < 160 * MEBIBYTE
        for s in crowd:
            s.close()
        wait_for(lambda: screen.log().count("HANGUP after") >= ZOMBIES, 60, "the end of the zombies")
    finally:
        screen.stop()


LORIS = {
    "command": (b"", b"NOOP abcdefghijklmnopqrstuvwxyz", "421 4.4.2 "),
    "content": (b"EHLO c.example\r\nMAIL FROM:<a@there.example>\r\nRCPT TO:<user@localhost>\r\nDATA\r\n", b"abcdefgh" * 8,
                "421 4.4.2 "),
    "chunk": (b"EHLO c.example\r\nMAIL FROM:<a@there.example>\r\nRCPT TO:<user@localhost>\r\nBDAT 1000 LAST\r\n",
              b"abcdefgh" * 8, "421 4.4.2 "),
}


@pytest.mark.parametrize("name", LORIS)
def test_slow_loris(make_instance, name):
    """A byte now and then is no progress: the deadline is for the whole request."""
    server = make_instance(main_cf=MAIN_CF + "smtpd_timeout = 2s\nsmtpd_per_request_deadline = yes\nsmtpd_min_data_rate = 500\n"
                           "smtpd_forbid_unauth_pipelining = no\nsmtpd_client_connection_count_limit = 0\n")
    first, trickle, end = LORIS[name]
    many = [Client(server.port, BAD) for _ in range(50)]
    for client in many:
        client.reply()
        for line in first.splitlines():
            client.send(line + b"\r\n")
            if not line.startswith(b"BDAT"):
                client.reply()
    good = GoodClient(server.port)
    begun, left = time.monotonic(), list(many)
    for byte in trickle:
        for client in list(left):
            try:
                client.send(bytes([byte]))
            except ConnectionError:
                left.remove(client)
        time.sleep(0.25)
        if server.log().count("timeout after") >= len(many):
            break
    for client in many:
        with contextlib.suppress(ConnectionError):
            reply = client.reply()
            assert not reply or reply[0].startswith(end), reply
        client.close()
    # the trickle would have gone on for longer than this; the bound is not for speed
    assert server.log().count("timeout after") == len(many), time.monotonic() - begun
    assert good.stop() >= 1
    stage = {"command": "CONNECT", "content": "DATA", "chunk": "BDAT"}[name]
    server.wait_log(f"timeout after {stage}")
    assert f"from unknown[{BAD}]" in server.wait_log(f"timeout after {stage}")
