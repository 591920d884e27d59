"""messages.corpus: what cleanup(8) makes of a message, with Debian's answers.

    == name            a group: its settings come first, NAME = VALUE, for smtpd, cleanup and trivial-rewrite
    from ADDRESS => sender              the envelope sender as it is stored
    rcpt ADDRESS [...] => original>recipient ...   the recipients as they are stored, sorted; several words: several RCPT
    S > R [...] => ...                  the same with a sender
    Name: value => Name: value          a header field; \\n \\t \\xHH are escapes; "gone" when it is not there
    all [<>] Name: value | Name: ... => ...  a whole header (of mail from nobody); the answer has every field but Received, Message-Id and Date values
An answer "NNN x.y.z" is the first refusal. " !! ours" behind an answer: where we differ on purpose.
"""
import pathlib
import re
import smtplib
import subprocess

from rewrite.corpus_groups import read_groups

FILE = pathlib.Path(__file__).with_name("messages.corpus")
WORLD = """\
myhostname = host.example.com
mydomain = example.com
myorigin = example.com
mydestination = $myhostname, localhost, $mydomain
append_dot_mydomain = yes
local_header_rewrite_clients = permit_mynetworks
smtpd_recipient_restrictions =
smtpd_data_restrictions = check_client_access static:HOLD
smtpd_reject_unlisted_recipient = no
smtpd_sender_restrictions =
smtpd_client_restrictions =
smtpd_relay_restrictions = permit_mynetworks, reject
smtputf8_enable = yes
recipient_delimiter = +
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
"""


def unescape(text):
    return re.sub(r"\\(n|t|r|\\|x[0-9a-fA-F]{2})",
                  lambda m: {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}.get(m[1]) or chr(int(m[1][1:], 16)), text)


def escape(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


class Row:
    def __init__(self, group, line, text):
        self.group, self.line = group, line
        self.question, _, answers = text.partition(" => ")
        self.theirs, _, ours = answers.partition(" !! ")
        self.ours = ours or self.theirs
        self.sender, self.rcpts, self.header = "s@elsewhere.example.org", ["r@there.example.net"], []
        question = unescape(self.question)
        if question.startswith("from "):
            self.kind, self.sender = "from", question[5:]
        elif question.startswith("all "):
            if question.startswith("all <> "):
                self.sender, question = "<>", "all " + question[7:]
            self.kind, self.header = "all", [field.strip() for field in question[4:].split(" | ")]
        elif question.startswith("rcpt "):
            self.kind, self.rcpts = "rcpt", question[5:].split(" ; ")
        elif " > " in question and ": " not in question:
            self.kind = "rcpt"
            self.sender, rcpts = question.split(" > ")
            self.rcpts = rcpts.split(" ; ")
        else:
            self.kind, self.header = "header", [question]

    def __repr__(self):
        return f"{self.group.name}:{self.line}:{self.question}"

    def text(self):
        return ("\n".join(self.header) + "\n" if self.header else "") + "\nbody\n"


class Group:
    def __init__(self, name):
        self.name, self.settings, self.rows = name, [], []

    def services(self, number, port):
        """The lines of master.cf for this group: an smtpd, a cleanup and a trivial-rewrite of its own."""
        names = [("cleanup_service_name", f"cleanup{number}"), ("rewrite_service_name", f"rewrite{number}")]
        settings = "".join(f"  -o {{ {name} = {value} }}\n" for name, value in names + self.settings)
        return (f"127.0.0.1:{port} inet n - n - - smtpd\n{settings}"
                f"cleanup{number} unix n - n - 0 cleanup\n{settings}"
                f"rewrite{number} unix - - n - - trivial-rewrite\n{settings}")


def groups():
    return read_groups(FILE, Group, Row)


class Talk:
    """One SMTP session for all messages of a group."""

    def __init__(self, port):
        self.port = port
        self.smtp = None

    def close(self):
        if self.smtp:
            self.smtp.close()

    def command(self, line):
        self.smtp.send(line.encode("utf-8", "surrogateescape") + b"\r\n")
        code, text = self.smtp.getreply()
        return code, text.decode(errors="replace")

    def send(self, row):
        """The queue id, or the refusal as "NNN x.y.z"."""
        if not self.smtp:
            self.smtp = smtplib.SMTP("127.0.0.1", self.port, timeout=20)
            self.smtp.ehlo("client.example")
        everything = row.sender + "".join(row.rcpts) + row.text()
        utf8 = "" if everything.isascii() else " SMTPUTF8"
        lines = [f"MAIL FROM:<{row.sender if row.sender != '<>' else ''}>{utf8}"]
        for rcpt in row.rcpts:
            address, _, options = rcpt.partition(" NOTIFY=")
            lines.append(f"RCPT TO:<{address}>" + (f" NOTIFY={options}" if options else ""))
        for line in lines + ["DATA"]:
            code, text = self.command(line)
            if code not in (250, 354):
                self.command("RSET")
                return f"{code} {text.split()[0]}"
        body = row.text().encode("latin1" if not utf8 else "utf-8").replace(b"\n", b"\r\n")
        self.smtp.send(body + b".\r\n")
        code, text = self.smtp.getreply()
        text = text.decode()
        return text.rpartition(" ")[2] if code == 250 else f"{code} {text.split()[0]}"


def stored(postcat, ids):
    """What postcat says of each message: sender, recipients, header."""
    found = {}
    for start in range(0, len(ids), 50):
        part = ids[start:start + 50]
        done = postcat("-e", "-h", "-q", *part, capture_output=True)
        out = done.stdout.decode("utf-8", "surrogateescape") if isinstance(done.stdout, bytes) else done.stdout
        pieces = re.split(r"^\*\*\* ENVELOPE RECORDS \S*?(\w+) \*\*\*\n", out, flags=re.M)
        for queue_id, text in zip(pieces[1::2], pieces[2::2]):
            found[queue_id] = parse(text)
    return found


def parse(text):
    envelope, _, rest = text.partition("*** MESSAGE CONTENTS")
    header, _, tail = rest.partition("\n")[2].partition("*** HEADER EXTRACTED")
    sender = re.search(r"^sender: (.*)$", envelope + tail, re.M)
    rcpts, original, notify = [], "", ""
    for line in (envelope + tail).split("\n"):
        name, _, value = line.partition(": ")
        if name == "original_recipient":
            original = value
        elif name == "named_attribute" and value.startswith("notify_flags="):
            notify = value.partition("=")[2]
        elif name == "recipient":
            rcpts.append(f"{original}>{value}" + (f"/{notify}" if notify else ""))
            original = notify = ""
    return sender[1] if sender else "", sorted(rcpts), [f for f in re.split(r"\n(?![ \t])", header) if f]


def answer(row, sent, found):
    if sent not in found:
        return sent
    sender, rcpts, header = found[sent]
    if row.kind == "from":
        return sender or "<>"
    if row.kind == "rcpt":
        return " ".join(rcpts)
    if row.kind == "all":
        return escape(" | ".join(re.sub(r"(?i)^((resent-)?(message-id|date)):.*", r"\1:", field)
                                 for field in header if not field.startswith("Received:")))
    name = row.header[0].partition(":")[0].strip().lower()
    same = [field for field in header if field.partition(":")[0].strip().lower() == name]
    return escape(" | ".join(same)) if same else "gone"


def answers(ports, postcat, all_groups):
    sent = {}
    for group, port in zip(all_groups, ports):
        talk = Talk(port)
        for row in group.rows:
            try:
                sent[row.line] = row, talk.send(row)
            except (OSError, smtplib.SMTPException) as problem:
                talk.close()
                talk.smtp = None
                sent[row.line] = row, f"lost: {problem}"
        talk.close()
    found = stored(postcat, [got for _, got in sent.values() if " " not in got])
    return {line: (row, answer(row, got, found)) for line, (row, got) in sent.items()}
