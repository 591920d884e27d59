"""QMQP: the same packages to us and to Debian's qmqpd, the same answers, log lines and stored headers."""
import contextlib
import json
import re
import socket

import instance
import oracle
import pytest
from instance import Instance, wait_for
from oracle import Oracle

MAIN = """\
qmqpd_authorized_clients = 127.0.0.0/8
qmqpd_error_delay = 0
myhostname = mx.example
mail_name = Postfix
mydestination = localhost
local_recipient_maps =
defer_transports = local
"""
MESSAGE = b"Subject: hi\n\nhello\n"


class Ours(Instance):
    def __init__(self, main_cf=""):
        super().__init__(main_cf=MAIN + main_cf, name="qmqp")

    def write_config(self):
        self.master_cf = instance.MASTER_CF.replace("{smtpd}", f"127.0.0.1:{self.port} inet n - n - - qmqpd\n")
        super().write_config()

    def stored(self):
        return [self.command("postcat", "-bh", "-q", entry["queue_id"], capture_output=True).stdout
                for entry in self.listing()]


class Theirs(oracle.Oracle):
    def __init__(self, main_cf=""):
        super().__init__(main_cf=MAIN + main_cf)

    def write(self):
        super().write()
        path = self.directory / "etc/master.cf"
        path.write_text(path.read_text().replace("- - smtpd\n", "- - qmqpd\n", 1))

    def stored(self):
        listing = self.command("postqueue", "-j", capture_output=True, text=True).stdout.splitlines()
        return [self.command("postcat", "-bh", "-q", json.loads(line)["queue_id"], capture_output=True, text=True).stdout
                for line in listing]


def string(data):
    return b"%d:%s," % (len(data), data)


def package(message, sender, *recipients):
    return string(b"".join(string(part) for part in (message, sender, *recipients)))


def ask(server, data, end=False):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as s:
        s.sendall(data)
        if end:
            s.shutdown(socket.SHUT_WR)
        answer = b""
        while True:
            try:
                got = s.recv(4096)
            except ConnectionResetError:
                break
            if not got:
                break
            answer += got
    return answer.decode()


def same(text):
    """Without what differs from message to message."""
    text = re.sub(r"\b[0-9A-F]{8,}\b", "QID", text)
    text = re.sub(r"<\d{14}\.QID@", "<TIME.QID@", text)
    text = re.sub(r"\w{3}, +\d+ \w{3} \d{4} [\d:]{8} [+-]\d{4} \(\w+\)", "DATE", text)
    text = re.sub(r"\]:\d+", "]:PORT", text)
    return re.sub(r"\d+:KOk", "N:KOk", text)


def lines_of(log):
    return [same(line.split("]: ", 1)[1]) for line in log.splitlines()
            if "/qmqpd[" in line and "overriding earlier" not in line]


PACKAGES = {
    "one recipient": (package(MESSAGE, b"a@b.example", b"u@localhost"), False),
    "null sender, two recipients": (package(MESSAGE, b"", b"u@localhost", b"v@localhost"), False),
    "no recipients": (package(MESSAGE, b"a@b.example"), False),
    **{f"VERP, {sender}": (package(MESSAGE, sender, b"u@localhost"), False) for sender in (
        b"list-@b.example-@[]", b"list+@b.example-@[]", b"li=@b.example-@[]", b"list@b.example-@[]", b"-@b.example-@[]",
        b"list-@[]", b'l"x-@b.example-@[]')},
    "no content": (package(b"", b"a@b", b"u@localhost"), False),
    "no netstring": (b"xyz", True),
    "no inner netstring": (b"5:abc", True),
    "inner text": (string(b"zz"), False),
    "too long": (string(string(b"x" * 3000) + string(b"a@b") + string(b"u@localhost")), False),
    "dots": (package(MESSAGE + b"\n.\nx\n", b"a@b", b"u@localhost"), False),
    "network line ends": (package(MESSAGE.replace(b"\n", b"\r\n"), b"a@b", b"u@localhost"), False),
}


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
@pytest.mark.parametrize("main_cf", ["message_size_limit = 2000\n", "qmqpd_client_port_logging = yes\n"
                                     "message_size_limit = 2000\n"], ids=["plain", "ports"])
def test_as_debians(main_cf):
    with Ours(main_cf) as ours, Theirs(main_cf) as theirs:
        for name, (data, end) in PACKAGES.items():
            assert same(ask(ours, data, end)) == same(ask(theirs, data, end)), name
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: sorted(lines_of(ours.log())) == sorted(lines_of(theirs.log())))
        assert sorted(lines_of(ours.log())) == sorted(lines_of(theirs.log()))
        assert sorted(map(same, ours.stored())) == sorted(map(same, theirs.stored()))


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
def test_strangers_are_refused_as_by_debians():
    main_cf = "qmqpd_authorized_clients = 192.0.2.1\n"
    with Ours(main_cf) as ours, Theirs(main_cf) as theirs:
        for server in (ours, theirs):
            assert ask(server, package(MESSAGE, b"a@b", b"u@localhost")) == \
                "66:DError: localhost[127.0.0.1] is not authorized to use this service,"
        assert not ours.listing()


def test_a_client_that_says_nothing_is_let_go():
    with Ours("qmqpd_timeout = 1s\n") as ours:
        assert ask(ours, b"2") == ""
        ours.wait_log("timeout while receiving QMQP packet header")


def test_a_string_that_is_longer_than_what_it_is_in():
    with Ours() as ours:
        assert ask(ours, string(string(MESSAGE) + b"9:x,")) == \
            "54:Dnetstring format error while receiving sender address,"


def test_errors_come_late():
    with Ours("qmqpd_error_delay = 2s\n") as ours, socket.create_connection(("127.0.0.1", ours.port), timeout=30) as s:
        s.sendall(b"xyz")
        s.settimeout(1)
        with pytest.raises(TimeoutError):
            s.recv(100)
        s.settimeout(30)
        assert s.recv(100).startswith(b"58:Dnetstring format error")


def test_large_messages_wait_for_room():
    """Content is held in memory up to a limit over all clients: who finds no room waits, and is served then."""
    large, small = b"x" * (40 << 20), b"z" * (30 << 20)
    with Ours("message_size_limit = 0\n") as ours, socket.create_connection(("127.0.0.1", ours.port), timeout=60) as first:
        data = package(large, b"a@b", b"u@localhost")
        first.sendall(data[:1000])
        ours.wait_log("client=")
        with socket.create_connection(("127.0.0.1", ours.port), timeout=60) as second:
            second.settimeout(2)
            with pytest.raises(TimeoutError):
                second.sendall(package(small, b"a@b", b"u@localhost"))
        first.sendall(data[1000:])
        assert b":KOk: queued as " in first.recv(100)


def test_verp():
    """The mail of a list comes with a sender for each recipient, if its delimiters are allowed."""
    main_cf = "defer_transports =\ntransport_maps = inline:{ {localhost=error:5.1.1 gone} }\nnotify_classes =\n"
    for extra, answer in (("", ":KOk: queued as "), ("verp_delimiter_filter = +=\n", "Invalid VERP delimiters: \"-=\"")):
        with Ours(main_cf + extra) as ours:
            assert answer in ask(ours, package(MESSAGE, b"list-@localhost-@[]", b"u@localhost", b"v@localhost"))
            if not extra:
                for name in ("u", "v"):  # the notice of each goes to a sender of its own
                    ours.wait_log(f"to=<list-{name}=localhost@localhost>")
