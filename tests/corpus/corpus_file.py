"""The dialogues of this folder. A *.corpus file has many, on one topic; each is a session with an SMTP server:

    == NAME
    # why it is there
    conf: NAME = VALUE       of its smtpd
    cleanup: NAME = VALUE    of its cleanup
    shows: NAME = VALUE      of its smtpd; and without this line something else is to be seen
    shows cleanup: ...       the same of its cleanup
    client: ADDRESS          where it comes from (default 127.0.0.1)
    oracle: no WHY           Debian's postfix (3.7) is not asked
    see: PATTERN             a line of what is seen here (fnmatch), where nobody can be asked
    quiet                    the server says nothing until it was spoken to
    > TEXT                   the client sends TEXT and CRLF, and takes a reply
    slow> TEXT               the same, noted when it takes more than SLOW seconds
    + TEXT                   it sends TEXT and CRLF
    >| TEXT                  it sends TEXT
    <                        it takes a reply
    mail                     EHLO, MAIL and RCPT of a message that is welcome
    message: TEXT            DATA, and behind the 354 TEXT, CRLF and a dot
    starttls                 STARTTLS, and all that follows inside TLS
    again                    another connection (after QUIT)
    wait: SECONDS            nothing happens

In what is sent, \\r \\n \\t \\0 \\\\ \\xHH are bytes, and \\{TEXT*N} is TEXT N times. @TLS@/NAME in a value is a file of the
certificate authority. QUIT is sent at the end, and the server's end is awaited.

The files of tests/dialogues are members, too: what they expect is checked elsewhere, what is seen is compared here.
"""
import pathlib
import re

from smtpd.dialogue import Dialogue, dialogues, unescape

FOLDER = pathlib.Path(__file__).resolve().parent
SLOW = 1.8  # seconds: less than what a pause takes, more than a busy machine needs
SETTINGS = ("conf", "cleanup", "shows", "shows cleanup")
MAIL = ["EHLO client.example", "MAIL FROM:<a@there.example>", "RCPT TO:<user@here.example>"]


def data(text):
    text = re.sub(r"\\\{(.*?)\*(\d+)\}", lambda m: m.group(1) * int(m.group(2)), text)
    return unescape(text)


class Conversation:
    def __init__(self, name):
        self.name = name
        self.smtpd, self.cleanup, self.shown, self.seen = {}, {}, [], []
        self.client, self.with_oracle, self.quiet = "127.0.0.1", True, False
        self.steps = []

    def ask(self, text):
        self.steps += [("send", text + b"\r\n"), ("take", None)]

    def line(self, line):
        key, _, value = line.partition(": ")
        if line.startswith("> "):
            self.ask(data(line[2:]))
        elif line.startswith("slow> "):
            self.steps += [("send", data(line[6:]) + b"\r\n"), ("slow", SLOW)]
        elif line.startswith(">| "):
            self.steps.append(("send", data(line[3:])))
        elif line == "+" or line.startswith("+ "):
            self.steps.append(("send", data(line[2:]) + b"\r\n"))
        elif line == "<":
            self.steps.append(("take", None))
        elif line == "mail":
            for command in MAIL:
                self.ask(command.encode())
        elif key == "message":
            self.ask(b"DATA")
            self.ask(data(value) + b"\r\n.")
        elif line in ("starttls", "again"):
            self.steps.append((line, None))
        elif key == "wait":
            self.steps.append(("wait", float(value)))
        elif key in SETTINGS:
            name, _, setting = value.partition("=")
            of = self.cleanup if key.endswith("cleanup") else self.smtpd
            of[name.strip()] = setting.strip()
            if key.startswith("shows"):
                self.shown.append((of is self.cleanup, name.strip()))
        elif key == "client":
            self.client = value.strip()
        elif key == "oracle" and value.startswith("no "):
            self.with_oracle = False
        elif key == "see":
            self.seen.append(value)
        elif line == "quiet":
            self.quiet = True
        else:
            raise ValueError(f"{self.name}: {line}")

    def connections(self):
        return 1 + sum(kind == "again" for kind, _ in self.steps)

    def weight(self):
        """Seconds, about."""
        return 0.1 + sum({"wait": what, "slow": 4 * SLOW}.get(kind, 0) for kind, what in self.steps if kind in ("wait", "slow"))

    def without(self, cleanup, name):
        """The same session where that parameter has its default."""
        other = Conversation(f"{self.name} without {name}")
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k != "name"})
        other.smtpd = {k: v for k, v in self.smtpd.items() if cleanup or k != name}
        other.cleanup = {k: v for k, v in self.cleanup.items() if not cleanup or k != name}
        return other


def of_dialogue(dialogue: Dialogue):
    c = Conversation(dialogue.name)
    c.smtpd, c.client, c.with_oracle = dialogue.conf, dialogue.client, dialogue.with_oracle
    c.quiet = True
    c.steps = [("send", what) if kind == "send" else ("take", None) for kind, what in dialogue.steps]
    return c


def parse(path):
    found = []
    for number, line in enumerate(path.read_text().split("\n"), 1):
        line = line.rstrip(" ")
        if line.startswith("== "):
            found.append(Conversation(f"{path.stem}.{line[3:]}"))
        elif line and not line.startswith("#"):
            try:
                found[-1].line(line)
            except (IndexError, ValueError) as e:
                raise ValueError(f"{path.name}, line {number}: {e}") from e
    return found


def conversations():
    found = [of_dialogue(d) for d in dialogues() if d.with_server]
    for path in sorted(FOLDER.glob("*.corpus")):
        found += parse(path)
    names = [c.name for c in found]
    assert len(set(names)) == len(names), [n for n in names if names.count(n) > 1]
    return found
