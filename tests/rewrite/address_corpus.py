"""addresses.corpus: questions about addresses with the answers of trivial-rewrite(8).

    == name            a group: its settings come first, NAME = VALUE
    L address => answer           made complete as local mail has it, external form
    R address => answer           the same for mail from elsewhere (remote_header_rewrite_domain)
    > address => answer           resolved: class transport:nexthop recipient [routed], or "bad"
    sender > address => answer    the same with a sender
An answer may be followed by " !! ours": where we differ on purpose. <> stands for an empty address, \\t for a tab.
"""
import pathlib
import socket
import subprocess

from rewrite.corpus_groups import read_groups

FILE = pathlib.Path(__file__).with_name("addresses.corpus")
WORLD = """\
myhostname = host.example.com
mydomain = example.com
myorigin = example.com
mydestination = $myhostname, localhost, localhost.example.com
append_dot_mydomain = yes
remote_header_rewrite_domain = domain.invalid
inet_interfaces = 127.0.0.1
proxy_interfaces = 192.0.2.7
"""
FLAG_ROUTED, FLAG_ERROR, FLAG_FAIL = 2, 4, 8
CLASSES = {256: "local", 512: "alias", 1024: "virtual", 2048: "relay", 4096: "default"}


class Row:
    def __init__(self, group, line, text):
        self.group, self.line = group, line
        question, _, answers = text.partition(" => ")
        self.question = question.strip()
        self.theirs, _, ours = answers.partition(" !! ")
        self.ours = ours or self.theirs
        if self.question[:2] in ("L ", "R "):
            self.verb, self.sender, self.address = self.question[0], "", self.question[2:]
        else:
            sender, arrow, self.address = self.question.rpartition("> ")
            assert arrow, f"{FILE.name}:{line}: {text}"
            self.verb, self.sender = ">", sender.strip()
        self.address = self.address.replace("\\t", "\t")
        if self.address == "<>":
            self.address = ""

    def __repr__(self):
        return f"{self.group.name}:{self.line}:{self.question}"


class Group:
    def __init__(self, name):
        self.name, self.settings, self.rows = name, [], []


def groups():
    return read_groups(FILE, Group, Row)


# --- Debian's ---
class OldRewrite:
    """A client of trivial-rewrite's socket: names and values, each with a NUL behind it, and one more at the end."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.stream = self.socket.makefile("rb")
        self.reply()  # the name of the protocol

    def close(self):
        self.stream.close()
        self.socket.close()

    def reply(self):
        values = []
        while True:
            word = b""
            while (byte := self.stream.read(1)) not in (b"\0", b""):
                word += byte
            if not word and len(values) % 2 == 0:
                return list(zip(values[::2], values[1::2]))
            values.append(word.decode("utf-8", "surrogateescape"))

    def ask(self, **attributes):
        self.socket.sendall(b"".join(name.encode() + b"\0" + value.encode() + b"\0"
                                     for name, value in attributes.items()) + b"\0")
        return self.reply()

    def answer(self, row):
        if row.verb in "LR":
            reply = self.ask(request="rewrite", rule="local" if row.verb == "L" else "remote", address=row.address)
            return dict(reply)["address"] or '""'
        reply = self.ask(request="resolve", sender=row.sender, address=row.address)
        flags, reply = int(reply[-1][1]), dict(reply)
        if flags & FLAG_FAIL:
            return "later"
        if flags & FLAG_ERROR:
            return "bad"
        routed = " routed" if flags & FLAG_ROUTED else ""
        name = next(name for bit, name in CLASSES.items() if flags & bit)
        return f"{name} {reply['transport']}:{reply['nexthop']} {reply['recipient']}{routed}"


# --- ours ---
def our_answers(program, directory, group):
    lines = []
    for row in group.rows:
        if row.verb in "LR":
            lines.append(f"rewrite\t{'local' if row.verb == 'L' else 'remote'}\t{row.address}\n")
        else:
            lines.append(f"resolve\t{row.sender}\t{row.address}\n")
    done = subprocess.run([str(program), str(directory), *(f"{n}={v}" for n, v in group.settings)],
                          input="".join(lines), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split("\n")[:-1]
    assert len(answers) == len(lines), done.stderr
    for row, answer in zip(group.rows, answers):
        if row.verb == ">" and "\t" in answer:
            kind, transport, nexthop, recipient, *routed = answer.split("\t")
            answer = " ".join([kind, f"{transport}:{nexthop}", recipient, *routed])
        yield row, answer
