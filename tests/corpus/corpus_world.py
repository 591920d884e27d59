"""The two servers that play the corpus, and what is seen of each conversation, in a form that can be compared."""
import re
import subprocess
import time

from corpus.corpus_play import Stage, split_log, split_postcat
from instance import Instance
from login_server import LoginServer
from oracle import Oracle
from restrictions.zone_server import ZoneServer, with_resolver
from smtpd.dialogue import WORLD
from smtpd.test_differential import OLD_DEFAULTS
from tls.tls_ca import TestCA

A_BATCH = 310  # services of one server at a time
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")

# Messages stay in the queue, where postcat finds them: there is nobody to deliver them to. (With defer_transports a message or two
# are delivered all the same now and then, there and here; and smtpd refuses what would go to the agent "retry".)
CORPUS_WORLD = WORLD + """\
local_transport = lmtp:unix:private/nobody
virtual_transport = lmtp:unix:private/nobody
relay_transport = lmtp:unix:private/nobody
default_transport = lmtp:unix:private/nobody
minimal_backoff_time = 4000s
maximal_backoff_time = 4000s
queue_run_delay = 3000s
"""

ZONE = """\
9.0.0.127.in-addr.arpa PTR client.example
client.example A 127.0.0.9
10.0.0.127.in-addr.arpa PTR liar.example
liar.example A 198.51.100.7
9.0.0.127.rbl.example A 127.0.0.2
9.0.0.127.rbl.example TXT "no such luck"
9.0.0.127.two.example A 127.0.0.4
9.0.0.127.dead.example A !
there.example.rhsbl.example A 127.0.0.5
there.example A 198.51.100.7
there.example MX 10 mx.there.example
mx.there.example A 198.51.100.7
broken.example MX !
broken.example A !
null.example MX 0 .
backup.example MX 10 primary.example
backup.example MX 20 mx.here.example
primary.example A 198.51.100.9
mx.here.example A 127.0.0.1
client.example MX 10 client.example
here.example A 127.0.0.1
relay.example A 198.51.100.7
"""


def in_queue(queue):
    """{queue id: queue} of the files there. Our held messages have none."""
    return {path.name: name for name in QUEUES for path in (queue / name).rglob("*") if path.is_file()}


def taken(replies, log):
    """The ids of the messages that must be in the queue: the client was told so, and nothing was thrown away."""
    return {i for name, said in replies.items() for lines in said for line in lines for i in re.findall(r"queued as (\w+)", line)
            if not any("discard: " in record for record in log[name][0] + log[name][1])}


def settle(server, stage, replies, seconds=60):
    """The log, and the ids of the messages, when nothing is on its way: what clients were told is there, all of it is deferred
    or on hold, listing and files are of one mind, and the log did not grow meanwhile. A single look may miss a message that
    is just moved. When the bound is over: as things are then."""
    end = time.monotonic() + seconds
    before = None
    while True:
        listed = {i: name for name, i in re.findall(r'"queue_name": ?"(\w+)", ?"queue_id": ?"(\w+)"', server.listing_text())}
        files, text = in_queue(server.queue), server.log()
        now, log = (text, listed, files), split_log(text, stage)
        if now == before and files.items() <= listed.items() and taken(replies, log) <= set(listed) and \
                set(listed.values()) <= {"deferred", "hold"} or time.monotonic() > end:
            return log, sorted(files | listed)
        before = now
        time.sleep(0.3)


class Ours(Instance):
    def listing_text(self):
        return self.command("postqueue", "-j", capture_output=True).stdout

    def stored(self, ids):
        done = self.command("postcat", "-q", *ids, capture_output=True, text=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout


class Theirs(Oracle):
    def __init__(self, dns, services):
        super().__init__(main_cf=CORPUS_WORLD)
        self.dns, self.services = dns, services

    def start(self):
        self.write()
        with open(self.directory / "etc/master.cf", "a") as master_cf:
            master_cf.write(self.services)
        command = [str(self.root / "usr/lib/postfix/sbin/master"), "-c", str(self.directory / "etc"), "-w"]
        done = subprocess.run(with_resolver(command, self.dns.host, str(self.directory)), env=self.environment(), timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"no master: {self.log()}")
        return self

    def listing_text(self):
        return self.command("postqueue", "-j", capture_output=True, text=True).stdout

    def stored(self, ids):
        done = self.command("postcat", "-q", *ids, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def queue(self):
        return self.directory / "queue"


class World:
    """Certificates and names, for both servers."""

    def __init__(self, directory):
        self.zone = ZoneServer(ZONE)
        self.ca = TestCA(directory / "tls")
        key, cert, _ = self.ca.make("mx.here.example")
        (directory / "tls/key.pem").write_text(key.read_text())
        (directory / "tls/cert.pem").write_text(cert.read_text())
        directory.chmod(0o755)
        self.directory = directory

    def substitute(self, value):
        return value.replace("@TLS@", str(self.directory / "tls"))

    def close(self):
        self.zone.close()


class Seen:
    """`replies`: of the session. `smtpd`, `cleanup`: log records. `stored`: of each message, the lines of postcat."""

    def __init__(self, replies, smtpd, cleanup, stored):
        self.replies, self.smtpd, self.cleanup, self.stored = replies, smtpd, cleanup, stored

    def text(self):
        lines = [*self.replies, *(f"smtpd: {r}" for r in self.smtpd), *(f"cleanup: {r}" for r in self.cleanup)]
        for message in self.stored:
            lines += ["(message)", *message]
        return lines


def plain(text, ids):
    for queue_id in ids:
        text = text.replace(queue_id, "ID")
    return text.replace("ESMTP Angarium", "ESMTP NAME").replace("ESMTP Postfix", "ESMTP NAME") \
        .replace("(Angarium)", "(NAME)").replace("(Postfix)", "(NAME)")


def plain_reply(lines):
    text = [re.sub(r"queued as \w+", "queued as ID", line) for line in lines]
    if len(text) > 1 and any("PIPELINING" in line or "SIZE" in line or "8BITMIME" in line for line in text):
        return ["250 " + line[4:] for line in text]  # which is the last has no meaning
    return text


def plain_record(record):
    record = re.sub(r"\[(\d+\.\d+\.\d+\.\d+)\]:\d+", r"[\1]:PORT", record)
    record = re.sub(r"^\w{9,}: client=", "ID: client=", record)
    return re.sub(r"message-id=<\d{14}\.", "message-id=<TIME.", record)


# What postcat says of the envelope, in the order in which it is compared. The rest are facts of one queue format only.
ATTRIBUTES = ("client_name", "reverse_client_name", "client_address", "helo_name", "protocol_name", "sasl_method",
              "sasl_username", "sasl_sender", "encoding", "dsn_envelope_id", "dsn_ret_flags", "ret_flags", "envelope_id",
              "smtputf8", "sendopts", "requiretls")


def plain_envelope(lines):
    """The facts of an envelope. REDIRECT of a message is done by cleanup here, and by the queue manager there; what XFORWARD
    said has names of its own there; an original recipient that the client has not named is written there all the same."""
    facts, recipients, redirect = {}, [], None
    pending = []
    for line in lines:
        kind, _, value = line.partition(": ")
        name, _, setting = value.partition("=")
        implied = [f"dsn_orig_rcpt=rfc822;{p}" for p in pending]
        if kind == "redirect_to":
            redirect = value
        elif kind in ("recipient", "done_recipient"):
            pending = [p for p in pending if p != f"dsn_orig_rcpt=rfc822;{value}" and p not in implied]
            recipients.append(" ".join([f"{kind}: {value}", *sorted(pending)]))
            pending = []
        elif kind == "original_recipient" or kind == "named_attribute" and name in ("dsn_orig_rcpt", "notify_flags"):
            pending.append(value)
        elif kind in ("sender", "content_filter"):
            facts[kind] = value
        elif kind == "named_attribute" and name.removeprefix("log_") in ATTRIBUTES:
            facts[name] = setting
    if redirect:
        recipients = [f"recipient: {redirect}"]
    for name in list(facts):
        if name.startswith("log_"):
            facts[name.removeprefix("log_")] = facts.pop(name)
    return sorted(f"{name}: {value}" for name, value in facts.items() if value) + sorted(recipients)


def plain_message(lines, ids):
    envelope, content = [], []
    target = envelope
    for line in lines:
        if line.startswith("***"):
            target = content if "CONTENTS" in line else envelope
            continue
        target.append(line)
    text = "\n".join(content)
    for queue_id in ids:
        text = text.replace(queue_id, "ID")
    text = re.sub(r"\w{3}, +\d+ \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4} \(\w+\)", "DATE", text)
    text = re.sub(r"<\d{14}\.", "<TIME.", text)
    text = text.replace("(Angarium)", "(NAME)").replace("(Postfix)", "(NAME)")
    return [*plain_envelope(envelope), *text.split("\n")]


def observe(server, stage, replies):
    log, there = settle(server, stage, replies)
    stored = split_postcat(server.stored(there).decode("utf-8", "surrogateescape")) if there else {}
    seen = {}
    for name, said in replies.items():
        smtpd, cleanup, ids = log[name]
        seen[name] = Seen([plain(line, ids) for lines in said for line in plain_reply(lines)],
                          [plain(plain_record(r), ids) for r in smtpd],
                          [plain(plain_record(r), ids) for r in cleanup],
                          [plain_message(stored[i], ids) for i in ids if i in stored])
    return seen


def batches(conversations):
    for first in range(0, len(conversations), A_BATCH):
        yield conversations[first:first + A_BATCH]


def begin(some, world, make):
    """A server that has started, and its stage. The ports were free when they were chosen; somebody may have come since."""
    for last in (False, False, True):
        server, stage = make(some, world)
        try:
            return server.start(), stage
        except RuntimeError:
            server.stop()
            if last:
                raise


def ours(some, world):
    stage = Stage(some, "n - n - -", substitute=world.substitute)
    return Ours(main_cf=CORPUS_WORLD, master_extra=stage.master_cf(), name="corpus", dns=world.zone.address), stage


def theirs(some, world):
    stage = Stage(some, "n - n - -", OLD_DEFAULTS.items(), world.substitute)
    return Theirs(world.zone, stage.master_cf()), stage


def play_all(conversations, world, make):
    seen = {}
    for some in batches(conversations):
        server, stage = begin(some, world, make)
        try:
            with LoginServer(server.queue / "private/login"):
                seen |= observe(server, stage, stage.play(server.log))
        finally:
            server.stop()
    return seen


def play_ours(conversations, world):
    return play_all(conversations, world, ours)


def play_theirs(conversations, world):
    return play_all(conversations, world, theirs)
