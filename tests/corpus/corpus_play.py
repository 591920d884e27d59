"""Plays the dialogues of corpus_file and writes down what is seen: replies, log records, and what is in the queue."""
import concurrent.futures
import contextlib
import os
import re
import socket
import ssl
import time

from instance import free_port, wait_for

PATIENCE = 60  # seconds; for hangs, not for speed
AT_A_TIME = 8
IN_A_ROW = 8  # sessions that follow each other with one smtpd


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
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.socket.fileno())) as plain:
            plain.shutdown(socket.SHUT_WR)  # of TLS, too: its own shutdown() forgets the keys, and the rest cannot be read
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
    """master.cf lines for the conversations. Those that want the same smtpd share one, in which they follow each other; those
    that want a cleanup of their own, or whose log has no clear end, have one each. The log records of each smtpd (and of its
    cleanup) have a name of their own."""

    def __init__(self, conversations, columns, common=(), substitute=lambda value: value):
        self.groups, self.lines = {}, []  # tag: (port, conversations)
        same = {}
        for number, c in enumerate(conversations):
            key = tuple(sorted(c.smtpd.items())) if self.may_share(c) else number
            if key not in same or len(same[key]) >= IN_A_ROW:
                tag, port = f"c{number:04}", free_port()
                same[key] = []
                self.groups[tag] = port, same[key]
                self.lines += self.services(c, tag, port, columns, common, substitute)
            same[key].append(c)

    @staticmethod
    def may_share(c):
        return not c.cleanup and not any(name.startswith(("smtpd_upstream_proxy", "debug_peer")) for name in c.smtpd)

    @staticmethod
    def services(c, tag, port, columns, common, substitute):
        def options(settings):
            return "".join(f" -o {{ {name} = {substitute(value)} }}" for name, value in settings.items())

        smtpd, lines = {**dict(common), **c.smtpd, "syslog_name": tag}, []
        if c.cleanup:
            smtpd["cleanup_service_name"] = f"cleanup-{tag}"
            lines.append(f"cleanup-{tag} unix n - n - 0 cleanup" + options({**c.cleanup, "syslog_name": tag}))
        return [*lines, f"127.0.0.1:{port} inet {columns} smtpd" + options(smtpd)]

    def master_cf(self):
        return "".join(line + "\n" for line in self.lines)

    def play(self, log):
        """{name: replies}; `log()` is what the server has logged so far."""
        def in_a_row(tag):
            port, members = self.groups[tag]
            done, ended = [], 0
            for c in members:
                done.append((c.name, play(c, port)))
                ended += c.connections()
                if c is not members[-1]:
                    wait_for(lambda: len(ends(log(), tag)) >= ended, PATIENCE, f"the end of {c.name} in the log")
            return done

        longest = sorted(self.groups, key=lambda tag: -sum(c.weight() for c in self.groups[tag][1]))
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            return dict(one for group in pool.map(in_a_row, longest) for one in group)


def ends(text, tag):
    return re.findall(rf" {tag}/smtpd\[\d+\]: disconnect from ", text)


RECORD = re.compile(r"^\S+ +\S+ \S+ \S+ (\S+)/(\S+)\[\d+\]: (.*)$")
QUEUE_ID = re.compile(r"^([0-9A-Za-z]{6,}): ")


class Turns:
    """Whose a record of a shared smtpd is: sessions end with a record that says so, and follow each other."""

    def __init__(self, members):
        self.left = [[c.name, c.connections()] for c in members]

    def name(self, record):
        name = self.left[0][0]
        if record.startswith("disconnect from "):
            self.left[0][1] -= 1
            if self.left[0][1] == 0 and len(self.left) > 1:
                self.left.pop(0)
        return name


def split_log(text, stage):
    """{name: (records of smtpd and of its own cleanup, records of cleanup about its messages, queue ids in their order)}"""
    turns = {tag: Turns(members) for tag, (_, members) in stage.groups.items()}
    found = {c.name: ([], [], []) for _, members in stage.groups.values() for c in members}
    owner, others = {}, []
    for line in text.splitlines():
        m = RECORD.match(line)
        if not m:
            continue
        tag, program, record = m.groups()
        turn = turns.get(tag)
        if program.rpartition("/")[2] == "cleanup":
            others.append((turn and turn.left[0][0], record))
        elif turn:
            name = turn.name(record)
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


def split_postcat(text):
    """{queue id: lines} of what postcat -q said of several messages."""
    found, current = {}, []
    for line in text.splitlines():
        m = re.match(r"\*\*\* ENVELOPE RECORDS (?:.*/)?(\S+) \*\*\*$", line)
        if m:
            current = found.setdefault(m.group(1), [])
        current.append(line)
    return found
