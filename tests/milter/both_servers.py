"""One scripted filter, asked by Debian's postfix and by ours in the same situation: what it hears, what the client
hears, what is stored and what is logged, without what must differ.
"""
import re
import socket
import time

from instance import wait_for

MESSAGE = ("Subject: a\r\nX-A: 1\r\nReceived: from other\r\nX-Long:  two\r\n\tfolded\r\nX-A: 2\r\nX-Empty:\r\n"
           "Subject: b\r\nFrom: x@y.example\r\n\r\nbody line\r\n\r\nlast\r\n")
SESSION = ["EHLO client.example", "FOO", "MAIL FROM:<s@client.example> BODY=8BITMIME", "RCPT TO:<a@localhost>",
           "RCPT TO:<b@localhost>", "DATA", MESSAGE, "MAIL FROM:<s2@client.example>", "RCPT TO:<a@localhost>", "QUIT"]


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.file = self.socket.makefile("rb")

    def reply(self):
        """All lines of a reply; of EHLO's only the last, for the two servers offer different things. None: the end."""
        lines = []
        while True:
            try:
                line = self.file.readline()
            except ConnectionResetError:
                line = b""
            if not line:
                return None
            lines.append(line.decode(errors="replace").rstrip("\r\n"))
            if lines[-1][3:4] != "-":
                return "\n".join(lines)

    def say(self, text):
        try:
            self.socket.sendall(text.encode("latin1") + b"\r\n")
        except OSError:
            return None
        return self.reply()

    def close(self):
        self.file.close()
        self.socket.close()


def play(port, session, message=MESSAGE):
    """What the client hears: (what it said, reply) pairs, up to the end of the connection. The content is sent only when
    it is wanted."""
    client = Client(port)
    heard = [("connect", client.reply())]
    try:
        for text in session:
            if text is MESSAGE:
                if not heard[-1][1].startswith("354"):
                    continue
                heard.append(("message", client.say(message + ".")))
            else:
                heard.append((text, client.say(text)))
            if heard[-1][1] is None:
                break
    finally:
        client.close()
    return [(said, normal_reply(said, reply)) for said, reply in heard]


def normal_reply(said, reply):
    if reply is None:
        return None
    if said.startswith("EHLO") and reply.startswith("250"):
        return "nothing offered" if "SIZE" not in reply else "250"
    reply = re.sub(r"queued as \w+", "queued as ID", reply)
    return re.sub(r"^220 .*", "220", reply)


def normal_events(events):
    kept = []
    for line in events:
        line = re.sub(r"\bi=\w+", "i=ID", line)
        line = re.sub(r"(connect \S+ \S) \d+", r"\1 PORT", line)
        line = re.sub(r"\{(client_port|daemon_port)\}=\d+", r"{\1}=PORT", line)
        line = re.sub(r"<\d+\.\w+@", "<ID@", line)
        line = re.sub(r"^header Date: .*", "header Date", line)
        kept.append(line)
    # where a message or the connection ends anyway, these tell nobody anything, and Postfix is not strict about them
    return [line for line in kept if line not in ("abort", "quit")]


def normal_log(log):
    """milter-... lines."""
    found = []
    for line in log.splitlines():
        match = re.search(r"postfix/\w+\[\d+\]: (\w+): (milter-\w+: .*)", line)
        if match:
            name = "NOQUEUE" if match.group(1) == "NOQUEUE" else "ID"
            found.append(f"{name}: {match.group(2)}")
    return sorted(found)  # of two processes, which do not wait for each other


def normal_message(text):
    text = re.sub(r"id \w+(;?)$", r"id ID\1", text, flags=re.M)
    text = re.sub(r"\(Postfix\) with", "(NAME) with", text)
    text = re.sub(r"^(Date: |\tfor <.*>; |.*;\n\t).*$", r"\1DATE", text, flags=re.M)
    text = re.sub(r"; \w+, +\d+ \w+ \d+ .*$", "; DATE", text, flags=re.M)
    text = re.sub(r"\t\w{3}, +\d+ \w+ \d{4} .*$", "\tDATE", text, flags=re.M)
    return re.sub(r"<\d+\.\w+@", "<ID@", text)


class Server:
    """`server`: an Oracle or an Instance whose local mail goes to maildirs in `mail`."""

    def __init__(self, server, mail):
        self.server, self.port, self.mail = server, server.port, mail

    def log_from(self, start):
        return self.server.log()[start:]

    def stored(self):
        """Messages in the maildirs, which are emptied."""
        found = []
        for path in sorted(self.mail.glob("*/new/*")):
            found.append((path.parent.parent.name, normal_message(path.read_text(errors="replace"))))
            path.unlink()
        return sorted(found)

    def situation(self, milter, replies, session=None, message=MESSAGE, deliveries=0):
        milter.replies = {"eom": b"a", **replies}
        milter.clear()
        start = len(self.server.log())
        heard = play(self.port, session or SESSION, message)
        if deliveries:
            wait_for(lambda: len(list(self.mail.glob("*/new/*"))) >= deliveries, what="delivery")
        else:
            wait_for(lambda: "disconnect from" in self.log_from(start), what="the end of the session")
        wait_for(lambda: quiet(milter), what="the filter to have heard all")
        log = self.log_from(start)
        return {"heard": heard, "events": normal_events(milter.events), "log": normal_log(log),
                "stored": self.stored(), "bodies": list(milter.bodies), "whole log": log}


def quiet(milter):
    before = len(milter.events)
    time.sleep(0.1)
    return len(milter.events) == before
