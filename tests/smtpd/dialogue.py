"""Dialogues over TCP. A file in tests/dialogues is one session with an SMTP server, as its client sees it:

    # why it is there
    conf: NAME = VALUE       main.cf of the server; any number
    client: ADDRESS          where the client comes from (default 127.0.0.1)
    oracle: no               Debian's postfix (3.7) behaves otherwise
    only: peer               makes sense with the unit test's scripted peer only
    > TEXT                   the client sends TEXT and CRLF
    >| TEXT                  the client sends TEXT as it is
    > TEXT  < CODE TEXT      ... and gets a reply whose last line begins so; `*` is any run of characters
    < CODE TEXT              a reply comes
    eof                      the server closes
    log: PATTERN             a record of the server's log that matches (fnmatch), at the end of all
    content: TEXT            the last message, without the Received: header of this server

In what is sent and in content, \\r \\n \\t \\0 \\\\ \\xHH are bytes.
"""
import pathlib
import re
import socket

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "dialogues"
PATIENCE = 60  # seconds; for hangs, not for speed

ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.)", re.S)
NAMED = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}


def unescape(text):
    def byte(m):
        e = m.group(1)
        return bytes([int(e[1:], 16)]) if len(e) == 3 else NAMED.get(e, e)
    return ESCAPE.sub(byte, text.encode("utf-8", "surrogateescape"))


def matches(line, pattern):
    return re.match(".*".join(re.escape(p) for p in pattern.split("*")), line) is not None


class Dialogue:
    def __init__(self, path):
        self.name = path.stem
        self.conf, self.logs, self.steps = {}, [], []
        self.client, self.content = "127.0.0.1", None
        self.with_oracle = self.with_server = True
        for line in path.read_text(errors="surrogateescape").split("\n"):
            key, _, value = line.partition(": ")
            if not line or line.startswith("#"):
                continue
            if key == "conf":
                name, _, setting = value.partition(" = ")
                self.conf[name.strip()] = setting.strip()
            elif key == "client":
                self.client = value.strip()
            elif key == "log":
                self.logs.append(value.strip())
            elif key == "content":
                self.content = unescape(value)
            elif key == "oracle":
                self.with_oracle = value.strip() != "no"
            elif key == "only":
                self.with_server = value.strip() != "peer"
            else:
                self.step(line)

    def step(self, line):
        m = re.match(r"(.*) < (\d.*)$", line) if not line.startswith("< ") else None
        text, expect = (m.group(1).rstrip(), m.group(2).strip()) if m else (line, None)
        if text.startswith(">|"):
            self.steps.append(("send", unescape(text[3:])))
        elif text.startswith(">"):
            self.steps.append(("send", unescape(text[2:]) + b"\r\n"))
        elif text.startswith("< "):
            expect = text[2:].strip()
        elif text == "eof":
            self.steps.append(("eof", None))
        else:
            raise ValueError(f"{self.name}: {line}")
        if expect:
            self.steps.append(("expect", expect))


def dialogues():
    return [Dialogue(p) for p in sorted(FOLDER.glob("*.dialogue"))]


class Client:
    def __init__(self, port, source="127.0.0.1", server="127.0.0.1"):
        self.socket = socket.create_connection((server, port), timeout=PATIENCE, source_address=(source, 0))
        self.buffer = b""

    def reply(self):
        """The lines of one reply, without their ends; [] at the end of the stream."""
        lines = []
        while True:
            while b"\r\n" not in self.buffer:
                try:
                    got = self.socket.recv(65536)
                except ConnectionError:
                    got = b""
                if not got:
                    assert not lines and not self.buffer, f"half a reply: {lines} {self.buffer}"
                    return []
                self.buffer += got
            line, _, self.buffer = self.buffer.partition(b"\r\n")
            lines.append(line.decode("utf-8", "replace"))
            if line[3:4] != b"-":
                return lines

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, text):
        self.send(text.encode() + b"\r\n")
        return self.reply()

    def close(self):
        self.socket.close()


def play(dialogue, port):
    """Run it; returns the last line of each reply. Fails at the first reply that is not what the file says."""
    client = Client(port, dialogue.client)
    replies, sent = [], "(connect)"
    try:
        for kind, what in dialogue.steps:
            if kind == "send":
                sent = what
                client.send(what)
                continue
            lines = client.reply()
            if kind == "eof":
                assert not lines, f"{dialogue.name}: after {sent!r}: {lines} instead of the end"
                continue
            assert lines and matches(lines[-1], what), f"{dialogue.name}: after {sent!r}: {lines}, expected {what!r}"
            replies.append(lines[-1])
    finally:
        client.close()
    return replies


# The world the dialogues are about: see src/smtpd/harness.h.
WORLD = """\
myhostname = mx.here.example
mydomain = here.example
myorigin = here.example
mydestination = here.example, localhost
local_recipient_maps = inline:{ {user=x}, {user2=x} }
mynetworks = 127.0.0.2/32
relay_domains = relay.example
relay_recipient_maps = inline:{ {ok@relay.example=x} }
virtual_mailbox_domains = vmbox.example
virtual_mailbox_maps = inline:{ {ok@vmbox.example=x} }
virtual_alias_domains = valias.example
virtual_alias_maps = inline:{ {ok@valias.example=user@here.example} }
local_transport = discard:
virtual_transport = discard:
relay_transport = discard:
default_transport = discard:
inet_protocols = ipv4
smtpd_error_sleep_time = 0
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/login
smtpd_client_connection_count_limit = 0
"""


def services(all_dialogues, free_port, columns, common=()):
    """master.cf lines, one smtpd for each different configuration, and the port each dialogue goes to."""
    lines, ports, by_conf = [], {}, {}
    for d in all_dialogues:
        key = tuple(sorted({**dict(common), **d.conf}.items()))
        if key not in by_conf:
            by_conf[key] = free_port()
            options = "".join(f" -o {{ {name} = {value} }}" for name, value in key)
            lines.append(f"127.0.0.1:{by_conf[key]} inet {columns} smtpd{options}\n")
        ports[d.name] = by_conf[key]
    return "".join(lines), ports
