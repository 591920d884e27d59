"""The load tool and the sink of bench/: their counts are the base of every number that is published."""
import contextlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from instance import ROOT, build_directory, free_port

sys.path.insert(0, str(ROOT / "bench"))

from measure import Load, Sink  # noqa: E402


@pytest.fixture
def sink():
    with Sink(build_directory(), free_port()) as started:
        yield started


@pytest.fixture
def load():
    return Load(build_directory())


def dialogue(port, pieces):
    """What the sink answers to bytes that come in these pieces, until it closes."""
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        for piece in pieces:
            s.sendall(piece)
            time.sleep(0.003)  # time for the sink to read it alone
        answer = b""
        while more := s.recv(65536):
            answer += more
    return [line.split()[0].decode() for line in answer.splitlines() if line[3:4] == b" "]


BURST = (b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n"
         b"Subject: dots\r\n\r\nno end: .\r\na\rb.\r\n.. \r\n.x\r\n\r.\r\n.\r\n"
         b"MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\nQUIT\r\n")
REPLIES = "220 250 250 250 250 354 250 250 250 354 250 221".split()


def test_a_terminator_is_found_wherever_the_reads_cut(sink):
    for at in range(len(BURST)):
        assert dialogue(sink.port, [BURST[:at], BURST[at:]]) == REPLIES, at
    counts = sink.counts()
    assert (counts["messages"], counts["recipients"]) == (2 * len(BURST), 3 * len(BURST))


def test_bytes_one_by_one(sink):
    assert dialogue(sink.port, [bytes([byte]) for byte in BURST]) == REPLIES


def test_more_replies_than_fit_at_once(sink):
    burst = b"EHLO x\r\nMAIL FROM:<a@b>\r\n" + b"RCPT TO:<c@d>\r\n" * 20000 + b"DATA\r\nx\r\n.\r\nQUIT\r\n"
    assert len(dialogue(sink.port, [burst])) == 20006
    assert sink.counts()["recipients"] == 20000


def test_the_counts_of_both_agree(sink, load):
    sink.expect(300)
    sent = load(sink.port, s=7, m=300, l=5000, r=3)
    got = sink.wait(30)
    assert (sent["messages"], sent["recipients"], sent["failed"]) == (300, 900, 0)
    assert (got["messages"], got["recipients"], got["connections"]) == (300, 900, 7)
    assert 300 * 4900 < got["bytes"] <= 300 * 5003
    assert sent["start"] <= got["first"] <= got["last"] <= sent["end"]
    assert 0 < sent["ack50"] <= sent["ack99"]


@pytest.mark.parametrize("options", [{"pipelining": False}, {"c": 1}, {"l": 3000000}, {"r": 5000, "m": 4}, {"l": 0}])
def test_ways_to_send(sink, load, options):
    options = {"s": 3, "m": 20, **options}
    sink.expect_recipients(options["m"] * options.get("r", 1))
    sent = load(sink.port, **options)
    got = sink.wait(30)
    assert got["messages"] == sent["messages"] == options["m"]
    # with one message each, up to two connections come too late to get one
    assert got["connections"] in (range(20, 23) if "c" in options else [3])


@pytest.mark.parametrize("stage, rejected", [("mail", 5), ("rcpt", 10), ("data", 5), ("dot", 5)])
def test_refusals(sink, load, stage, rejected):
    sink.reject(f"{stage}=451")
    sent = load(sink.port, may_fail=True, s=2, m=5, r=2)
    assert (sent["messages"], sent["failed"]) == (0, 5)
    assert sink.counts()["rejected"] == rejected
    sink.reject("none")
    assert load(sink.port, s=2, m=5)["messages"] == 5


def test_a_lost_connection_is_made_again(sink, load):
    """A server that hangs up after the first DATA of each of two connections; the third is the sink's."""
    front = socket.create_server(("127.0.0.1", 0))

    def hang_up():
        for _ in range(2):
            with front.accept()[0] as s:
                s.sendall(b"220 x\r\n")
                s.recv(1000)
                s.sendall(b"250 x\r\n")
                while b"DATA" not in s.recv(1000):
                    s.sendall(b"250 x\r\n")
        inside, outside = front.accept()[0], socket.create_connection(("127.0.0.1", sink.port))

        def copy(a, b):
            with contextlib.suppress(OSError):  # each end may go first
                while data := a.recv(65536):
                    b.sendall(data)
                b.shutdown(socket.SHUT_WR)
        other = threading.Thread(target=copy, args=(inside, outside), daemon=True)
        other.start()
        copy(outside, inside)

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    sent = load(front.getsockname()[1], s=1, m=10, T=30)
    assert (sent["messages"], sent["lost"]) == (10, 2)
    assert sink.counts()["messages"] == 10


@pytest.mark.parametrize("announced, options, most", [(True, {}, 4), (False, {}, 1), (True, {"pipelining": False}, 1)])
def test_commands_go_out_together_only_when_the_server_allows_it(load, announced, options, most):
    front, seen = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        with front.accept()[0] as s, s.makefile("rb") as lines:
            s.sendall(b"220 x\r\n")
            lines.readline()
            s.sendall(b"250-x\r\n250 PIPELINING\r\n" if announced else b"250 x\r\n")
            while True:
                burst = lines.peek().splitlines(keepends=True)
                seen.append(len(burst))
                for line in burst:
                    lines.read(len(line))
                    s.sendall(b"354 x\r\n" if line == b"DATA\r\n" else b"250 x\r\n")
                    if line == b"DATA\r\n":
                        while lines.readline() != b".\r\n":
                            pass
                        s.sendall(b"250 x\r\n")
                        return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert load(front.getsockname()[1], s=1, m=1, r=2, T=30, **options)["messages"] == 1
    assert max(seen) == most


def test_options_that_are_none(load):
    for words in (["-s", "0", "127.0.0.1:1"], ["-s", "x", "127.0.0.1:1"], ["localhost:1"], ["127.0.0.1:70000"],
                  ["-r", "10", "-a", "5", "127.0.0.1:1"], []):
        done = subprocess.run([load.program, *words], capture_output=True, text=True, timeout=10)
        assert done.returncode == 2 and done.stderr, words

