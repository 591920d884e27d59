"""The same deliveries by Debian's local(8) and by ours: one after the other into the same homes and the same spool, and what
each has left there and in its log, made comparable.

A case has two users (%u, %v) with homes (%h, %g), a directory that everybody may write to (%d), a name of its own for
aliases (%a) and a sender; none of them is shared with another case that runs at the same time.
"""
import collections
import ctypes
import dataclasses
import difflib
import fcntl
import os
import pathlib
import pwd
import re
import shutil
import smtplib
import socket
import stat
import subprocess
import time

from instance import Instance, wait_for
from oracle import Oracle

PREFIX = "angl"
BASE = """\
myhostname = mail.example
mydomain = example
mail_name = Postfix
mydestination = $myhostname, localhost
smtpd_reject_unlisted_recipient = no
recipient_delimiter = +
deliver_lock_attempts = 2
deliver_lock_delay = 1s
minimal_backoff_time = 3000s
maximal_backoff_time = 4000s
queue_run_delay = 3000s
transport_maps = inline:{ {sender.example=discard:returned}, {far.example=discard:far}, {mid.example=discard:mid} }
default_transport = error:no way there
biff = no
alias_database =
inet_protocols = ipv4
smtp_destination_concurrency_limit = 1
"""


@dataclasses.dataclass
class Case:
    name: str
    to: str | list = "%u"
    aliases: str = ""
    setup: str = ""  # a shell script, run as root before the delivery
    forward: str | None = None  # %u's ~/.forward
    body: str = "Subject: case\n\nhello\n"
    sender: str = "%a@sender.example"
    differs: tuple | None = None  # (what Debian's gives, what ours gives): both are looked for, nothing is compared
    keep: set = dataclasses.field(default_factory=set)


def user_names(count):
    return [f"{PREFIX}{n:03d}" for n in range(count)]


class Users:
    """Accounts that are there while the tests run; one test run on a machine at a time has them."""
    FIRST_ID = 61500  # outside of what useradd(8) and systemd give

    def __init__(self, directory, count):
        self.directory = pathlib.Path(directory)
        self.lock = open("/tmp/angarium-local-users.lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.names = user_names(count)
        self.write({"passwd": lambda n, i: f"{n}:x:{i}:{i}:Test user:{self.directory}/{n}:/bin/sh",
                    "group": lambda n, i: f"{n}:x:{i}:", "shadow": lambda n, i: f"{n}:*:19000::::::"})
        self.entries = [pwd.getpwnam(name) for name in self.names]

    def write(self, lines):
        """Our lines, and no others of ours, in each file; useradd(8) takes seconds for as many."""
        libc = ctypes.CDLL(None)
        if libc.lckpwdf() != 0:
            raise RuntimeError("cannot lock /etc/passwd")
        try:
            for name in ("passwd", "group", "shadow"):
                path = pathlib.Path("/etc", name)
                kept = [line for line in path.read_text().splitlines() if not re.match(PREFIX + r"\d{3}:", line)]
                made = [lines[name](n, self.FIRST_ID + i) for i, n in enumerate(self.names)] if lines else []
                new = pathlib.Path(f"/etc/{name}.angarium")
                new.touch(0o600)
                new.write_text("\n".join(kept + made) + "\n")
                st = path.stat()
                os.chown(new, st.st_uid, st.st_gid)
                new.chmod(st.st_mode & 0o7777)
                new.rename(path)
        finally:
            libc.ulckpwdf()

    def close(self):
        self.write(None)
        self.lock.close()


@dataclasses.dataclass
class Place:
    """What the % letters of a case stand for."""
    number: int
    users: list
    directory: pathlib.Path
    spool: pathlib.Path

    def fill(self, text):
        values = {"u": self.users[0].pw_name, "v": self.users[1].pw_name, "h": self.users[0].pw_dir,
                  "g": self.users[1].pw_dir, "a": f"case{self.number:03d}", "d": str(self.directory),
                  "s": str(self.spool)}
        return re.sub(r"%([uvahgds])(?![A-Za-z0-9_])", lambda m: values[m[1]], text)


class Group:
    """Cases that run in one instance: one main.cf."""

    def __init__(self, users, cases, main_cf="", root=None):
        self.users, self.cases, self.main_cf = users, cases, main_cf
        self.root = pathlib.Path(root)
        self.spool = self.root / "spool"
        self.places = [Place(n, users.entries[2 * n:2 * n + 2], self.root / f"case{n:03d}", self.spool)
                       for n in range(len(cases))]

    # --- before each side ---
    def prepare(self):
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self.root.chmod(0o755)
        self.spool.mkdir()
        self.spool.chmod(0o1777)
        for place, case in zip(self.places, self.cases):
            place.directory.mkdir()
            place.directory.chmod(0o777)
            for user in place.users:
                shutil.rmtree(user.pw_dir, ignore_errors=True)
                pathlib.Path(user.pw_dir).unlink(missing_ok=True)
                os.mkdir(user.pw_dir)
                os.chmod(user.pw_dir, 0o755)
                os.chown(user.pw_dir, user.pw_uid, user.pw_gid)
            if case.forward is not None:
                path = os.path.join(place.users[0].pw_dir, ".forward")
                pathlib.Path(path).write_text(place.fill(case.forward))
                os.chown(path, place.users[0].pw_uid, place.users[0].pw_gid)
                os.chmod(path, 0o644)
            if case.setup:
                subprocess.run(["sh", "-ec", "umask 022\n" + place.fill(case.setup)], check=True, cwd=place.directory)
        text = "".join(place.fill(case.aliases) + "\n" for place, case in zip(self.places, self.cases))
        (self.root / "aliases").write_text(text)

    def main(self):
        return (BASE + f"mail_spool_directory = {self.spool}\nalias_maps = hash:{self.root}/aliases\n"
                + self.main_cf.replace("%root", str(self.root)))

    def send(self, port):
        connection = smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=100)
        with connection as s:
            for place, case in zip(self.places, self.cases):
                to = case.to if isinstance(case.to, list) else [case.to]
                to = [place.fill(name) for name in to]
                to = [name if "@" in name else f"{name}@mail.example" for name in to]
                body = re.sub("\r?\n", "\r\n", place.fill(case.body))
                s.sendmail(place.fill(case.sender), to, body.encode("latin-1"))

    # --- the sides ---
    def with_oracle(self):
        for attempt in (1, 2, 3, 4):
            self.prepare()
            o = Oracle(main_cf=self.main())
            o.write()
            with o_running(o, self.root / "aliases"):
                # now and then it starts and does not answer: that is no matter of local(8)
                if not greets(o.port) and attempt < 4:
                    continue
                self.send(o.port)
                wait_quiet(o.directory / "queue", o.log)
                return self.collect(o.log(), o.directory)

    def with_ours(self):
        self.prepare()
        i = Instance(main_cf=self.main())
        try:
            done = i.command("postalias", f"hash:{self.root}/aliases", capture_output=True)
            assert done.returncode == 0, done.stderr
            i.start()
            self.send(i.port)
            wait_for(lambda: not [e for e in i.listing() if e["queue_name"] in ("active", "incoming", "maildrop")],
                     120, "the end of all deliveries")
            wait_quiet(i.queue, i.log, i)
            return self.collect(i.log(), i.directory)
        finally:
            i.stop()

    # --- what is left ---
    def collect(self, log, directory):
        names = {str(directory): "INSTANCE", str(self.root): "ROOT"}
        lines = result_lines(log)
        out = []
        for place in self.places:
            files = {}
            for top in (*(pathlib.Path(u.pw_dir) for u in place.users), place.directory):
                tree(top, files, names)
            for user in place.users:
                for path in sorted(self.spool.glob(user.pw_name + "*")):
                    tree(path, files, names)
            mine = sorted(normal(line, names) for sender, line in lines
                          if sender == place.fill(self.cases[place.number].sender)
                          or f"case{place.number:03d}" in sender)
            out.append((mine, files))
        return out


class o_running:
    """Debian's postfix between write() and stop(), with its alias database made."""

    def __init__(self, oracle, aliases):
        self.oracle, self.aliases = oracle, aliases

    def __enter__(self):
        o = self.oracle
        o.command("postalias", f"hash:{self.aliases}", check=True, capture_output=True)
        subprocess.run([str(o.root / "usr/lib/postfix/sbin/master"), "-c", str(o.directory / "etc"), "-w"],
                       env=o.environment(), check=True, timeout=60)

    def __exit__(self, *_):
        print(f"--- Debian's log:\n{self.oracle.log()}")  # pytest shows it when the test failed
        self.oracle.stop()


def greets(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            return s.recv(100).startswith(b"220")
    except OSError:
        return False


def wait_quiet(queue, log, instance=None):
    """Until nothing moves: no message on its way, and the log the same for a while."""
    state = [None, 0]

    def look():
        moving = any(p.is_file() for name in ("incoming", "active", "maildrop") for p in (queue / name).rglob("*"))
        if instance:
            moving = moving or any(e["queue_name"] in ("active", "incoming", "maildrop") for e in instance.listing())
        now = len(log())
        state[1] = state[1] + 1 if now == state[0] and not moving else 0
        state[0] = now
        time.sleep(0.1)
        return state[1] >= 6
    wait_for(look, 180, "a quiet queue")


def result_lines(log):
    """(sender, what became of a recipient) of each result line, in order."""
    senders, lines = {}, []
    for line in log.splitlines():
        m = re.search(r"/qmgr\[\d+\]: (\w+): from=<([^>]*)>", line)
        if m:
            senders.setdefault(m[1], m[2])
    for line in log.splitlines():
        m = re.search(r"/(\S+)\[\d+\]: (\w+): (to=<.*)", line)
        if m and senders.get(m[2]):
            text = re.sub(r"delay=.*?, dsn=", "dsn=", m[3])
            lines.append((senders[m[2]], text))
    return lines


def normal(text, names):
    for old, new in names.items():
        text = text.replace(old, new)
    text = re.sub(r"/tmp/\d+\.P\d+\.[^/:\s]+", "/tmp/NAME", text)
    text = re.sub(r"forwarded as \w+", "forwarded as ID", text)
    text = re.sub(r"(\sid )\w+(;|\n)", r"\1ID\2", text)
    text = re.sub(r"(?m)^Message-I[dD]: <\w{14}\.\w+@", "Message-Id: <DATE.ID@", text)
    text = re.sub(r"(?m)(; |; \n\t|^\t|^Date: )\w{3}, +\d+ \w{3} \d{4} [\d:]{8} \+0000 \(\w+\)", r"\1DATE", text)
    text = re.sub(r"(?m)^(From \S+  )\w{3} \w{3} [ \d]\d [\d:]{8} \d{4}$", r"\1DATE", text)
    return text


def tree(top, files, names):
    """`files`: path -> (kind, mode, owner, group, content)."""
    todo = [top]
    while todo:
        path = todo.pop()
        try:
            st = path.lstat()
        except FileNotFoundError:
            continue
        name = normal(str(path), names)
        name = re.sub(r"/new/\d+\.V\w+I\w+M\d+\.[^/]*$", "/new/MESSAGE", name)
        content = ""
        if stat.S_ISREG(st.st_mode):
            content = normal(path.read_bytes().decode("utf-8", "surrogateescape"), names)
        elif stat.S_ISLNK(st.st_mode):
            content = os.readlink(path)
        elif stat.S_ISDIR(st.st_mode):
            todo += sorted(path.iterdir())
        row = (stat.S_IFMT(st.st_mode), oct(st.st_mode & 0o7777), st.st_uid, st.st_gid, content)
        files.setdefault(name, []).append(row)
        files[name].sort()


def shown(rows):
    if rows is None:
        return ["not there"]
    return [line for kind, *what, content in rows for line in (f"type {kind:o} mode, owner, group {what}",
                                                               *repr(content).replace("\\n", "\\n\n").split("\n"))]


def differences(theirs, ours):
    """Lines of text, empty when the two are alike."""
    out = []
    a, b = collections.Counter(theirs[0]), collections.Counter(ours[0])
    out += [f"log of Debian's only: {line}" for line in (a - b).elements()]
    out += [f"log of ours only:     {line}" for line in (b - a).elements()]
    for name in sorted(set(theirs[1]) | set(ours[1])):
        x, y = theirs[1].get(name), ours[1].get(name)
        if x != y:
            out += [f"file {name}:", *difflib.unified_diff(shown(x), shown(y), "Debian's", "ours", lineterm="", n=1)]
    return out
