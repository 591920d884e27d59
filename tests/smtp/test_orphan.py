"""The queue manager is killed while the SMTP client is at work."""
import contextlib
import os
import pathlib
import pwd
import signal
import socket
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from instance import free_port, wait_for  # noqa: E402

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


class Slow:
    """A server that waits before it lets the first message come, or with the reply to its last dot."""

    def __init__(self, wait_at):
        self.port = free_port()
        self.wait_at = wait_at
        self.waiting = threading.Event()
        self.go = threading.Event()
        self.messages = []  # whole ones
        self.broken_off = 0
        self.socket = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def pause(self, where):
        if where == self.wait_at and not self.go.is_set():
            self.waiting.set()
            self.go.wait(60)

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with contextlib.suppress(OSError), client, client.makefile("rb") as peer:
            client.sendall(b"220 slow ESMTP\r\n")
            for line in peer:
                reply = b"250 ok"
                if line.upper().startswith(b"DATA"):
                    self.pause("data")
                    client.sendall(b"354 go on\r\n")
                    text = b""
                    while not text.endswith(b"\r\n.\r\n"):
                        more = peer.readline()
                        if not more:
                            self.broken_off += 1
                            return
                        text += more
                    self.messages.append(text)
                    self.pause("dot")
                client.sendall(reply + b"\r\n")

    def close(self):
        self.go.set()
        self.socket.close()


def kill_qmgr(instance):
    [pid] = instance.pids("qmgr")
    os.kill(pid, signal.SIGKILL)
    instance.wait_log(f"pid {pid} killed by signal 9")  # its connections are closed by then


@pytest.fixture
def slow(request):
    server = Slow(request.param)
    yield server
    server.close()


def start(make_instance, server, main_cf=""):
    instance = make_instance(user=USER if os.geteuid() == 0 else None,
                             main_cf=f"relayhost = [127.0.0.1]:{server.port}\n{main_cf}")
    with instance.smtp() as smtp:
        smtp.sendmail("me@here.example", ["a@far.example"], "Subject: x\r\n\r\n" + "hello\r\n" * 30)
    assert server.waiting.wait(20)
    kill_qmgr(instance)
    return instance


@pytest.mark.parametrize("slow", ["data"], indirect=True)
def test_before_the_dot(make_instance, slow):
    """The message does not come twice: the client gives up, the next queue manager begins again."""
    instance = start(make_instance, slow)
    slow.go.set()
    instance.wait_log("the queue manager has gone: delivery given up")
    wait_for(lambda: slow.broken_off == 1)
    instance.postfix("flush")
    instance.wait_log("status=sent", 60)
    wait_for(instance.queue_is_empty)
    assert len(slow.messages) == 1


@pytest.mark.parametrize("slow", ["dot"], indirect=True)
def test_after_the_dot(make_instance, slow):
    """The server may have it: its answer is waited for and logged, though nobody is there to be told."""
    instance = start(make_instance, slow)
    slow.go.set()
    instance.wait_log("status=sent")
    assert "given up" not in instance.log()
