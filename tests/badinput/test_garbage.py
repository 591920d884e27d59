"""Bytes that are no SMTP, against a running smtpd: a reply or the end of the connection, and the next client is served."""
import contextlib
import os
import pwd
import random
import socket

import pytest

from instance import wait_for

SEED = 20240607  # the same garbage each time
KILOBYTES = 64
USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def resident(pids):
    """KiB that the processes hold."""
    pages = 0
    for pid in pids:
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            pages += int(statm.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def reply(s):
    """Until a line that is a reply's last; less at the end of the connection."""
    said = b""
    while not (said.endswith(b"\n") and said.split(b"\n")[-2][3:4] == b" "):
        more = s.recv(4096)
        if not more:
            break
        said += more
    return said


def talk(port, data, *before):
    """`before`: commands that wait for their replies. Then all of the data, the end of sending, and what comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        assert reply(s).startswith(b"220 ")
        for line in before:
            s.sendall(line + b"\r\n")
            assert reply(s)[:1] in (b"2", b"3")
        with contextlib.suppress(OSError):
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        said = b""
        with contextlib.suppress(ConnectionError):
            while more := s.recv(65536):
                said += more
    return said


@pytest.fixture
def garbage(make_instance):
    instance = make_instance(main_cf="smtpd_error_sleep_time = 0\n")
    with instance.smtp() as client:
        client.ehlo()
        before = instance.pids("smtpd")
    yield instance
    with instance.smtp() as client:
        assert client.noop()[0] == 250
        assert instance.pids("smtpd") == before
    for word in ("panic", "killed by signal", "exit status", "warning: process"):
        assert word not in instance.log()


def replies(said):
    lines = said.split(b"\r\n")
    assert lines.pop() == b""
    assert all(line[:3].isdigit() and line[3:4] in (b" ", b"-") for line in lines), said[:1000]
    return [line[:3].decode() for line in lines]


def test_random_bytes(garbage):
    numbers = random.Random(SEED)
    start = resident(garbage.pids("smtpd"))
    for _ in range(50):
        codes = replies(talk(garbage.port, numbers.randbytes(KILOBYTES * 1024)))
        assert set(codes) <= {"500", "501", "502", "503", "421", "521", "554"}, codes
    if "ASAN_OPTIONS" not in os.environ:
        assert resident(garbage.pids("smtpd")) - start < 4096


def test_random_bytes_within_commands(garbage):
    """Arguments, paths and parameters of bytes."""
    numbers = random.Random(SEED)
    words = [b"EHLO ", b"HELO ", b"MAIL FROM:<", b"RCPT TO:<", b"VRFY ", b"MAIL FROM:<a@b.example> SIZE=", b"NOOP ", b"RSET ",
             b"AUTH ", b"STARTTLS ", b"BDAT ", b"ETRN ", b"XCLIENT ", b"EXPN ", b"QUIT "]
    for _ in range(50):
        lines = [numbers.choice(words) + numbers.randbytes(numbers.randrange(200)).replace(b"\n", b"") + b">\r\n"
                 for _ in range(15)]
        codes = replies(talk(garbage.port, b"".join(lines), b"EHLO x"))
        assert set(codes) <= set("250 252 221 500 501 502 503 504 521 550 552 553 554 555 421 450 452".split()), codes


def test_nul_bytes(garbage):
    """In commands: refused. In content: the message is taken."""
    for line in (b"\0" * 100, b"HELO\0 x", b"NOOP\0"):
        code, = replies(talk(garbage.port, line + b"\r\n"))
        assert code in ("500", "502")
    code, = replies(talk(garbage.port, b"MAIL FROM:<a\0@b.example>\r\n", b"HELO x"))
    assert code == "500"
    content = b"Subject: a\0b\r\n\r\none\0two\r\n\0\r\n.\r\n"
    envelope = b"HELO x", b"MAIL FROM:<>", b"RCPT TO:<" + USER.encode() + b"@mail.example>", b"DATA"
    assert replies(talk(garbage.port, content, *envelope)) == ["250"]
    mailbox = garbage.mail / USER
    wait_for(lambda: mailbox.exists() and b"one\0two\n\0\n" in mailbox.read_bytes(), what="the message")


def test_ends_anywhere(garbage):
    """The client goes in the middle of its content: a message without the last dot does not exist."""
    content = b"Subject: x\r\n\r\nhello\r\n.\r\n"
    envelope = b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<" + USER.encode() + b"@mail.example>", b"DATA"
    for cut in range(len(content)):
        assert talk(garbage.port, content[:cut], *envelope) == b""
    assert "queued as" not in garbage.log() and "status=" not in garbage.log()
    wait_for(garbage.queue_is_empty, what="an empty queue")
    assert not (garbage.mail / USER).exists()
