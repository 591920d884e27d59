"""What only a running server shows: reload under a session, lines of 10 MB, half-open sessions."""
import smtplib
import time

import pytest

from instance import SANITIZED, wait_for
from smtpd.dialogue import WORLD, Client
from smtpd.test_idle_memory import pss, smtpd_processes

MEGABYTE = 1024 * 1024


def test_reload_lets_transactions_end(make_instance):
    """The old generation finishes what it has begun and begins nothing new; the new one serves meanwhile."""
    instance = make_instance(main_cf=WORLD)
    busy, idle = Client(instance.port), Client(instance.port)
    for client in (busy, idle):
        assert client.reply()[0].startswith("220 ")
        client.ask("EHLO client.example")
    assert busy.ask("MAIL FROM:<a@there.example>")[0].startswith("250")
    assert busy.ask("RCPT TO:<user@here.example>")[0].startswith("250")
    old = set(smtpd_processes(instance))
    instance.reload()

    def new_generation():
        client = Client(instance.port)
        try:
            assert client.reply()[0].startswith("220 ")
            return set(smtpd_processes(instance)) - old
        finally:
            client.close()
    wait_for(new_generation, what="a process of the new generation")
    assert busy.ask("DATA")[0].startswith("354")
    assert busy.ask("Subject: x\r\n\r\nbody\r\n.")[0].startswith("250 2.0.0 Ok: queued as")
    for client in (busy, idle):
        assert client.ask("MAIL FROM:<>")[0].startswith("421 4.3.2 mx.here.example ")
        assert client.reply() == []
    wait_for(lambda: not old & set(smtpd_processes(instance)), what="the end of the old generation")


def test_ten_megabyte_line(make_instance):
    instance = make_instance(main_cf=WORLD + "message_size_limit = 50000000\n")
    with smtplib.SMTP("127.0.0.1", instance.port, timeout=60) as client:
        client.sendmail("a@there.example", ["user@here.example"], b"Subject: x\r\n\r\n" + b"x" * (10 * MEGABYTE))
        used = pss(smtpd_processes(instance))
    print(f"after a line of 10 MB: {used // 1024} KiB")
    if not SANITIZED:
        assert used < 10 * MEGABYTE


def test_ten_megabyte_command(make_instance):
    instance = make_instance(main_cf=WORLD)
    client = Client(instance.port)
    client.reply()
    with pytest.raises(ConnectionError):
        for _ in range(10 * 16):
            client.send(b"x" * (MEGABYTE // 16))
            time.sleep(0.01)
    client.close()
    wait_for(lambda: "request longer than 2048" in instance.log() and "disconnect from" in instance.log())
    again = Client(instance.port)
    assert again.reply()[0].startswith("220 ")
    again.close()


def test_half_open_sessions(make_instance):
    """Clients that go away without a word, and some in the middle of content."""
    instance = make_instance(main_cf=WORLD + "smtpd_timeout = 3s\n")
    silent = [Client(instance.port) for _ in range(50)]
    for i, client in enumerate(silent):
        client.reply()
        if i % 2:
            for line in ("EHLO x", "MAIL FROM:<a@there.example>", "RCPT TO:<user@here.example>", "DATA"):
                client.ask(line)
            client.send(b"half a li")
    for client in silent:
        assert client.reply()[0].startswith("421 4.4.2 ")
        assert client.reply() == []
    wait_for(lambda: instance.log().count("timeout after DATA (0 bytes)") == 25)
    wait_for(lambda: instance.log().count("NOQUEUE: timeout after CONNECT") == 25)
    assert "from=<a@there.example>" not in instance.log()
