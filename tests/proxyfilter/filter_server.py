"""A before-queue content filter that a test writes: it records what it is told and answers as it is told to."""
import contextlib
import os
import pathlib
import socket
import threading
import time

from instance import free_port

OFFER = "XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT"


class FilterServer:
    """`replies`: by verb ("CONNECT", "EHLO", "XFORWARD", "MAIL", "RCPT", "DATA", "." and so on) the reply's text, or a
    list of them for one after the other (the last stays), or None to close without one, or "HANG" to say nothing;
    a tuple (reply, None) closes behind the reply. RCPT may also be by "RCPT <address>". `sessions` has a list of lines
    for each connection; the content is one element, bytes."""

    def __init__(self, path=None, offer=OFFER, slow=0, **replies):
        self.replies = {k.replace("dot", "."): v for k, v in replies.items()}
        self.offer, self.slow, self.path = offer, slow, path
        self.sessions = []
        self.connected_at = []
        self.open = 0
        self.most_open = 0
        self.done = threading.Event()
        self.lock = threading.Lock()
        if path:
            pathlib.Path(path).unlink(missing_ok=True)
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(str(path))
            self.socket.listen(200)
            os.chmod(path, 0o777)
        else:
            self.port = free_port()
            self.socket = socket.create_server(("127.0.0.1", self.port), backlog=200)
        threading.Thread(target=self.accept, daemon=True).start()

    def reset(self, **replies):
        """Other replies for what connects from now on; what was seen is forgotten."""
        self.replies = {k.replace("dot", "."): v for k, v in replies.items()}
        self.sessions = []
        self.connected_at = []

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            session = []
            self.sessions.append(session)
            self.connected_at.append(time.monotonic())
            threading.Thread(target=self.serve, args=(client, session), daemon=True).start()

    def serve(self, client, session):
        with self.lock:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        with contextlib.suppress(OSError), client, client.makefile("rwb") as peer:
            self.converse(peer, session)
        session.append("<closed>")
        with self.lock:
            self.open -= 1

    def answer(self, peer, state, key, default):
        """False: the connection is to be closed."""
        reply = self.replies.get(key, default)
        if isinstance(reply, list):
            n = state.setdefault(key, 0)
            state[key] = n + 1
            reply = reply[min(n, len(reply) - 1)]
        close = isinstance(reply, tuple)
        if close:
            reply = reply[0]
        if reply is None:
            return False
        if reply == "HANG":
            self.done.wait(60)
            return False
        peer.write(reply.encode("utf-8", "surrogateescape") + b"\r\n")
        peer.flush()
        return not close

    def converse(self, peer, session):
        state = {}
        if not self.answer(peer, state, "CONNECT", "220 filter ESMTP"):
            return
        for line in peer:
            text = line.decode("utf-8", "surrogateescape")
            session.append(text.rstrip("\r\n") if text.endswith("\r\n") else text)
            verb = text.split()[0].upper() if text.split() else ""
            default = {"EHLO": f"250-filter\r\n250-{self.offer}\r\n250 8BITMIME" if self.offer else "250 filter",
                       "DATA": "354 go on", "QUIT": "221 bye"}.get(verb, "250 2.0.0 Ok")
            key = verb
            if verb == "RCPT" and f"RCPT {text.split()[1][3:]}" in self.replies:
                key = f"RCPT {text.split()[1][3:]}"
            if not self.answer(peer, state, key, default) or verb == "QUIT":
                return
            if verb == "DATA" and str(self.replies.get("DATA", "354")).startswith("354"):
                content = self.content(peer, session)
                if content is None or not self.answer(peer, state, ".", "250 2.0.0 Ok: filtered"):
                    return

    def content(self, peer, session):
        lines = []
        while (line := peer.readline()) != b".\r\n":
            if not line:
                session.append(b"".join(lines))
                session.append("<cut>")
                return None
            lines.append(line)
            if self.slow:
                time.sleep(self.slow)
        session.append(b"".join(lines))
        return lines

    def close(self):
        self.done.set()
        self.socket.close()
        if self.path:
            pathlib.Path(self.path).unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
