"""The other side of the SMTP client: a mail server."""
import socket
import threading
import time

from instance import free_port
from name_server import Names


class Server:
    """Takes mail and writes down what was said to it: `said` has (connection, line)."""

    def __init__(self, idle=None):
        """`idle`: seconds without a command after which it says 421 and closes."""
        self.port = free_port()
        self.idle = idle
        self.said = []
        self.connections = 0
        self.go = threading.Event()  # while it is not set, messages wait for their last reply
        self.go.set()
        self.in_data = 0
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

    def serve(self, client, number):
        with client, client.makefile("rwb") as peer:
            def say(line):
                peer.write(line + b"\r\n")
                peer.flush()
            say(b"220 server ESMTP")
            client.settimeout(self.idle)
            accepted = 0
            try:
                for line in peer:
                    verb = line.split()[0].decode().upper()
                    self.said.append((number, line.strip().decode()))
                    if verb == "DATA" and not accepted:
                        say(b"503 5.5.1 no recipients")
                        continue
                    if verb == "DATA":
                        say(b"354 go on")
                        while peer.readline() not in (b".\r\n", b""):
                            pass
                        self.in_data += 1
                        self.go.wait(60)
                        self.in_data -= 1
                    if verb in ("EHLO", "LHLO"):
                        say(b"250-server\r\n250 PIPELINING")
                    elif verb == "RCPT" and b"refused" in line:
                        say(b"550 5.1.1 unknown")
                    else:
                        accepted = {"MAIL": 0, "RCPT": accepted + 1}.get(verb, accepted)
                        say(b"221 bye" if verb == "QUIT" else b"250 ok")
                    if verb == "QUIT":
                        return
            except TimeoutError:
                client.sendall(b"421 4.4.2 idle\r\n")
                self.said.append((number, "<closed>"))
                return
            except OSError:
                return
            self.said.append((number, "<lost>"))

    def verbs(self, number):
        return [line.split()[0] for n, line in self.said if n == number]

    def close(self):
        self.go.set()
        self.socket.close()


__all__ = ["Names", "Server"]
