"""The other side of a client: an SMTP server that takes every message, when it is told to."""
import contextlib
import socket
import threading
import time

from instance import free_port


class Sink:
    """`said` has (connection, line) for each command; `messages` counts whole messages that were answered."""

    def __init__(self, port=None, held=False, held_at="dot", idle=None):
        """`held`: messages wait for the reply to their last dot, or for the one to DATA (`held_at` "data"), until `go`
        is set; `idle`: seconds without a command after which it says 421 and closes."""
        self.port = port or free_port()
        self.idle, self.held_at = idle, held_at
        self.go = threading.Event()
        if not held:
            self.go.set()
        self.said = []
        self.connections = self.waiting = self.messages = self.broken_off = 0
        self.connected = None
        self.socket = socket.create_server(("127.0.0.1", self.port), backlog=200)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            self.connected = time.monotonic()
            threading.Thread(target=self.serve, args=(client, self.connections), daemon=True).start()

    def pause(self, where):
        if where == self.held_at and not self.go.is_set():
            self.waiting += 1
            self.go.wait(60)
            self.waiting -= 1

    def serve(self, client, number):
        with contextlib.suppress(OSError), client, client.makefile("rwb") as peer:
            client.settimeout(self.idle)
            try:
                if self.converse(peer, number):
                    return
            except TimeoutError:
                self.said.append((number, "<closed>"))
                client.sendall(b"421 4.4.2 idle\r\n")
                return
            except OSError:
                return
            self.said.append((number, "<lost>"))

    def converse(self, peer, number):
        """True: until QUIT, or the message was broken off."""
        def say(line):
            peer.write(line + b"\r\n")
            peer.flush()
        say(b"220 sink ESMTP")
        accepted = 0
        for line in peer:
            verb = line.split()[0].decode("latin-1").upper()
            self.said.append((number, line.strip().decode("latin-1")))
            if verb == "DATA" and not accepted:
                say(b"503 5.5.1 no recipients")
            elif verb == "DATA":
                self.pause("data")
                say(b"354 go on")
                while (text := peer.readline()) != b".\r\n":
                    if not text:
                        self.broken_off += 1
                        return True
                self.pause("dot")
                self.messages += 1
                say(b"250 ok")
            elif verb in ("EHLO", "LHLO"):
                say(b"250-sink\r\n250 PIPELINING")
            elif verb == "RCPT" and b"refused" in line:
                say(b"550 5.1.1 unknown")
            elif verb == "QUIT":
                say(b"221 bye")
                return True
            else:
                accepted = {"MAIL": 0, "RCPT": accepted + 1}.get(verb, accepted)
                say(b"250 ok")
        return False

    def verbs(self, number):
        return [line.split()[0] for n, line in self.said if n == number]

    def close(self):
        self.go.set()
        self.socket.close()
