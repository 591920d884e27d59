"""A mail filter that does what a test tells it to: the other end of the Milter protocol, version 6 (mfdef.h of
Sendmail's libmilter names the letters). It keeps what it was told, each event one line, so that two mail servers can be
compared by what their filters see.
"""
import os
import socket
import struct
import threading
import time

# what may be asked for in the negotiation
ADDHDRS, CHGBODY, ADDRCPT, DELRCPT, CHGHDRS, QUARANTINE, CHGFROM, ADDRCPT_PAR, SETSYMLIST = (1 << n for n in range(9))
ALL_ACTIONS = 0x1FF
(NOCONNECT, NOHELO, NOMAIL, NORCPT, NOBODY, NOHDRS, NOEOH, NR_HDR, NOUNKNOWN, NODATA, SKIP, RCPT_REJ, NR_CONN, NR_HELO,
 NR_MAIL, NR_RCPT, NR_DATA, NR_UNKN, NR_EOH, NR_BODY, HDR_LEADSPC) = (1 << n for n in range(21))
ALL_NR = NR_HDR | NR_CONN | NR_HELO | NR_MAIL | NR_RCPT | NR_DATA | NR_UNKN | NR_EOH | NR_BODY

NAMES = {"C": "connect", "H": "helo", "M": "mail", "R": "rcpt", "T": "data", "L": "header", "N": "eoh", "B": "body",
         "E": "eom", "A": "abort", "Q": "quit", "U": "unknown", "K": "quit_nc"}
NR = {"C": NR_CONN, "H": NR_HELO, "M": NR_MAIL, "R": NR_RCPT, "T": NR_DATA, "L": NR_HDR, "N": NR_EOH, "B": NR_BODY,
      "U": NR_UNKN}

CONTINUE, ACCEPT, REJECT, TEMPFAIL, DISCARD = (b"c", b"a", b"r", b"t", b"d")
SKIP_REST, SHUTDOWN, CONN_FAIL, PROGRESS = (b"s", b"4", b"f", b"p")


def replycode(text):
    return b"y" + text.encode() + b"\0"


def addheader(name, value):
    return b"h" + name.encode() + b"\0" + value.encode() + b"\0"


def insheader(index, name, value):
    return b"i" + struct.pack("!I", index) + name.encode() + b"\0" + value.encode() + b"\0"


def chgheader(index, name, value):
    return b"m" + struct.pack("!I", index) + name.encode() + b"\0" + value.encode() + b"\0"


def chgfrom(address, args=None):
    return b"e" + address.encode() + b"\0" + (args.encode() + b"\0" if args is not None else b"")


def addrcpt(address):
    return b"+" + address.encode() + b"\0"


def addrcpt_par(address, args=None):
    return b"2" + address.encode() + b"\0" + (args.encode() + b"\0" if args is not None else b"")


def delrcpt(address):
    return b"-" + address.encode() + b"\0"


def replbody(data):
    return b"b" + data


def quarantine(reason):
    return b"q" + reason.encode() + b"\0"


class ScriptedMilter:
    """`replies`: event name (or "event:TEXT", TEXT a part of its arguments) to what is said: one reply, or a list of
    packets; None says nothing; a number is seconds of silence, "close" hangs up, bytes in a bytearray go out raw."""

    def __init__(self, replies=None, actions=ALL_ACTIONS, protocol=0, version=6, symlists=None, path=None, port=0,
                 option_reply=None):
        self.replies = {"eom": ACCEPT, **(replies or {})}
        self.actions, self.protocol, self.version, self.symlists = actions, protocol, version, symlists or {}
        self.option_reply = option_reply
        self.events, self.bodies, self.offers = [], [], []
        self.connections = 0
        self.closing = False
        if path:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(str(path))
            os.chmod(path, 0o777)
            self.name = f"unix:{path}"
        else:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(("127.0.0.1", port))
            self.port = self.socket.getsockname()[1]
            self.name = f"inet:127.0.0.1:{self.port}"
        self.socket.listen(100)
        self.lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self.closing = True
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def clear(self):
        with self.lock:
            self.events, self.bodies = [], []

    def names(self):
        """The events by name alone, without the macros."""
        with self.lock:
            return [line.split(" ", 1)[0] for line in self.events if not line.startswith("macro")]

    def _accept(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _note(self, line):
        with self.lock:
            self.events.append(line)

    def _serve(self, peer):
        try:
            with peer:
                self._session(peer)
        except OSError:
            pass

    def _session(self, peer):
        body = b""
        protocol = self.protocol
        while True:
            command, data = self._read(peer)
            if command is None:
                return
            if command == "O":
                offer = struct.unpack("!III", data)
                self.offers.append(offer)
                self._send(peer, self.option_reply if self.option_reply is not None else self._options(offer))
                continue
            if command == "D":
                stage, values = chr(data[0]), data[1:].split(b"\0")
                pairs = [f"{n.decode()}={v.decode(errors='replace')}" for n, v in zip(values[0::2], values[1::2])]
                self._note(f"macro-{NAMES.get(stage, stage)} {' '.join(pairs)}")
                continue
            name = NAMES.get(command, command)
            text = self._text(command, data)
            if command == "B":
                body += data
                text = str(len(data))
            if command == "E":
                body += data
                with self.lock:
                    self.bodies.append(body)
                body = b""
            if command in ("A", "C"):
                body = b""
            self._note(f"{name} {text}".strip())
            if command == "Q":
                return
            if command in ("A", "K") or protocol & NR.get(command, 0):
                continue
            if not self._answer(peer, name, text):
                return

    def _options(self, offer):
        packet = b"O" + struct.pack("!III", self.version, self.actions, self.protocol & offer[2])
        for stage, names in self.symlists.items():
            packet += struct.pack("!I", stage) + names.encode() + b"\0"
        return packet

    def _answer(self, peer, name, text):
        reply = self.replies.get(name, CONTINUE)
        for key, value in self.replies.items():
            if ":" in key and key.split(":", 1)[0] == name and key.split(":", 1)[1] in text:
                reply = value
        if callable(reply):
            reply = reply(self, text)
        for one in reply if isinstance(reply, list) else [reply]:
            if one is None:
                continue
            if one == "close":
                return False
            if isinstance(one, (int, float)):
                time.sleep(one)
            elif isinstance(one, bytearray):
                peer.sendall(one)
            else:
                self._send(peer, one)
        return True

    @staticmethod
    def _send(peer, packet):
        if packet is not None:
            peer.sendall(struct.pack("!I", len(packet)) + packet)

    def _read(self, peer):
        head = self._full(peer, 4)
        if head is None:
            return None, None
        data = self._full(peer, struct.unpack("!I", head)[0])
        if data is None:
            return None, None
        return chr(data[0]), data[1:]

    @staticmethod
    def _full(peer, size):
        data = b""
        while len(data) < size:
            more = peer.recv(size - len(data))
            if not more:
                return None
            data += more
        return data

    @staticmethod
    def _text(command, data):
        if command == "C":
            name, rest = data.split(b"\0", 1)
            if rest[:1] == b"U":
                return f"{name.decode()} U"
            return f"{name.decode()} {rest[:1].decode()} {struct.unpack('!H', rest[1:3])[0]} {rest[3:].decode()!r}"
        if command == "L":
            name, value = data.split(b"\0", 1)
            return f"{name.decode()}: {value.decode(errors='replace')!r}"
        if command == "E":
            return str(len(data))
        return " ".join(repr(part.decode(errors="replace")) for part in data.split(b"\0") if part) or ""
