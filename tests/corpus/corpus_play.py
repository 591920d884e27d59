"""Plays the dialogues of corpus_file and writes down what is seen: replies, log records, and what is in the queue."""
import concurrent.futures
import contextlib
import re
import socket
import ssl
import time

from instance import free_port

PATIENCE = 60  # seconds; for hangs, not for speed
AT_A_TIME = 8


class Line:
    """The client's end."""

    def __init__(self, port, source):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE, source_address=(source, 0))
        self.buffer = b""

    def take(self):
        """The lines of a reply; None at the end."""
        lines = []
        while True:
            while b"\n" not in self.buffer:
                try:
                    got = self.socket.recv(65536)
                except TimeoutError:
                    return [*lines, "(nothing)"]
                except OSError:
                    got = b""
                if not got:
                    return [*lines, "(half a reply)"] if lines or self.buffer else None
                self.buffer += got
            line, _, self.buffer = self.buffer.partition(b"\n")
            lines.append(line.decode("utf-8", "replace").replace("\r", "", 1) if line.endswith(b"\r") else repr(line))
            if line[3:4] != b"-":
                return lines

    def send(self, data):
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def tls(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            self.socket = context.wrap_socket(self.socket)
        except OSError:
            return False
        return True

    def end(self):
        """What is left until the server closes."""
        rest = []
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        while True:
            lines = self.take()
            if lines is None or lines[-1].startswith("("):
                break
            rest.append(lines)
        self.socket.close()
        return rest


def play(conversation, port):
    """All replies of the session, each a list of lines."""
    line = Line(port, conversation.client)
    replies = []
    open_ = True

    def take():
        lines = line.take()
        replies.append(lines or ["(end)"])
        return lines is not None and lines[-1] != "(nothing)"

    if not conversation.quiet:
        open_ = take()
    for kind, what in conversation.steps:
        if kind == "again":
            line.send(b"QUIT\r\n")
            replies += line.end()
            line = Line(port, conversation.client)
            open_ = take()
        elif kind == "wait":
            time.sleep(what)
        elif not open_:
            continue
        elif kind == "send":
            line.send(what)
        elif kind == "take":
            open_ = take()
        elif kind == "slow":
            before = time.monotonic()
            open_ = take()
            if time.monotonic() - before > what:
                replies.append(["(after a pause)"])
        elif kind == "starttls":
            line.send(b"STARTTLS\r\n")
            open_ = take()
            if open_ and replies[-1][-1].startswith("220"):
                open_ = line.tls()
    if open_:
        line.send(b"QUIT\r\n")
    replies += line.end()
    return replies


class Stage:
    """master.cf lines for the conversations: each has a smtpd, and a cleanup where it wants one, whose log records have its
    own name."""

    def __init__(self, conversations, columns, common=(), substitute=lambda value: value):
        self.conversations = conversations
        self.ports, self.tags, self.lines = {}, {}, []
        for number, c in enumerate(conversations):
            tag = f"c{number:04}"
            self.ports[c.name], self.tags[c.name] = free_port(), tag
            smtpd = {**dict(common), **c.smtpd, "syslog_name": tag}
            if c.cleanup:
                smtpd["cleanup_service_name"] = f"cleanup-{tag}"
                self.lines.append(f"cleanup-{tag} unix n - n - 0 cleanup" +
                                  self.options({**c.cleanup, "syslog_name": tag}, substitute))
            self.lines.append(f"127.0.0.1:{self.ports[c.name]} inet {columns} smtpd" + self.options(smtpd, substitute))

    @staticmethod
    def options(settings, substitute):
        return "".join(f" -o {{ {name} = {substitute(value)} }}" for name, value in settings.items())

    def master_cf(self):
        return "".join(line + "\n" for line in self.lines)

    def play(self):
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            done = pool.map(lambda c: (c.name, play(c, self.ports[c.name])), self.conversations)
            return dict(done)


RECORD = re.compile(r"^\S+ +\S+ \S+ \S+ (\S+)/(\S+)\[\d+\]: (.*)$")
QUEUE_ID = re.compile(r"^([0-9A-Za-z]{6,}): ")


def split_log(text, tags):
    """{name: (records of smtpd and of its own cleanup, records of cleanup about its messages, queue ids in their order)}"""
    names = {tag: name for name, tag in tags.items()}
    found = {name: ([], [], []) for name in tags}
    owner, others = {}, []
    for line in text.splitlines():
        m = RECORD.match(line)
        if not m:
            continue
        tag, program, record = m.groups()
        name = names.get(tag)
        if program.rpartition("/")[2] == "cleanup":
            others.append((name, record))
        elif name:
            found[name][0].append(record)
            m = re.match(r"(\w+): client=", record)
            if m:
                owner[m.group(1)] = name
                found[name][2].append(m.group(1))
    for name, record in others:
        m = QUEUE_ID.match(record)
        name = owner.get(m.group(1), name) if m else name
        if name:
            found[name][1].append(record)
    return found


def quiet_log(log, seconds=20):
    """The log when nothing has been added to it for a while."""
    text, end = log(), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.7)
        more = log()
        if more == text:
            break
        text = more
    return text


def split_postcat(text):
    """{queue id: lines} of what postcat -q said of several messages."""
    found, current = {}, []
    for line in text.splitlines():
        m = re.match(r"\*\*\* ENVELOPE RECORDS (?:.*/)?(\S+) \*\*\*$", line)
        if m:
            current = found.setdefault(m.group(1), [])
        current.append(line)
    return found
