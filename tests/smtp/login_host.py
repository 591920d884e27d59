"""The other side of a client that logs in: an SMTP or LMTP server whose answers to AUTH are written down beforehand."""
import contextlib
import socket
import threading

from instance import free_port


class LoginHost:
    """`auth`: what it says to AUTH and to each line that follows, until a reply that does not begin with 3; the list
    begins anew with the next AUTH. `said` has (connection, line) for each line of the client outside messages; `content`
    the messages. A reply None closes the connection. `hello`: the keywords of its EHLO reply."""

    def __init__(self, auth=(), hello=("AUTH PLAIN LOGIN",), address="127.0.0.1", port=None, wrap=None, mail="250 2.1.0 ok"):
        self.auth, self.hello, self.wrap, self.mail = list(auth), list(hello), wrap, mail
        self.port = port or free_port()
        self.said, self.content = [], []
        self.connections = 0
        self.socket = socket.create_server((address, self.port), backlog=200)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(client, self.connections), daemon=True).start()

    def serve(self, client, number):
        with contextlib.suppress(OSError), client:
            client.settimeout(120)
            if self.wrap:
                client = self.wrap(client)
            with client, client.makefile("rwb") as peer:
                self.converse(peer, number)

    def line(self, peer, number):
        line = peer.readline()
        if line:
            self.said.append((number, line.rstrip(b"\r\n").decode("utf-8", "replace")))
        return line

    def converse(self, peer, number):
        def say(text):
            peer.write(text.encode() + b"\r\n")
            peer.flush()
        say("220 host.example ESMTP")
        rcpts = 0
        while line := self.line(peer, number):
            verb = line.split()[0].decode().upper() if line.split() else ""
            if verb in ("EHLO", "LHLO"):
                lines = ["host.example", *self.hello]
                for i, text in enumerate(lines):
                    say(f"250{'-' if i + 1 < len(lines) else ' '}{text}")
            elif verb == "AUTH":
                if not self.login(peer, number, say):
                    return
            elif verb == "MAIL":
                rcpts = 0
                say(self.mail)
            elif verb == "RCPT":
                rcpts += 1
                say("250 2.1.5 ok")
            elif verb == "DATA":
                say("354 go on")
                text = b""
                while (part := peer.readline()) != b".\r\n":
                    if not part:
                        return
                    text += part
                self.content.append(text.decode("utf-8", "replace"))
                for _ in range(rcpts if self.said[0][1].startswith("LHLO") else 1):
                    say("250 2.0.0 taken")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")

    def login(self, peer, number, say):
        """False: the connection is to be closed."""
        for reply in self.auth:
            if reply is None:
                return False
            say(reply)
            if not reply.startswith("3"):
                return True
            line = self.line(peer, number)
            if not line:
                return False
            if line.strip() == b"*":
                say("501 5.0.0 cancelled")
                return True
        return False

    def lines(self):
        """What was said after the hello, without the connection's number."""
        return [line for _, line in self.said if not line.startswith(("EHLO", "LHLO", "HELO"))]

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
