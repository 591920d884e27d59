"""The same deliveries through Angarium and through Debian's Postfix: services of pipe(8), with a command that writes down
what it got; and what the log says of each recipient."""
import json
import pathlib
import re
import smtplib
import tempfile

from instance import Instance, wait_for
from oracle import Oracle

WITNESS = """\
#!/usr/bin/python3 -SE
import sys, os, json
data = sys.stdin.buffer.read()
name = f"{sys.argv[1]}.{os.getpid()}"
with open(name + ".new", "w") as f:
    json.dump({"argv": sys.argv[2:], "env": dict(os.environ), "cwd": os.getcwd(), "groups": os.getgroups(),
               "ids": [os.getresuid(), os.getresgid()], "stdin": data.decode("latin-1"), "umask": os.umask(0),
               "leader": os.getpgrp() == os.getpid(),
               "fds": [n for n in (0, 1, 2) if os.path.exists(f"/proc/self/fd/{n}")]}, f)
os.rename(name + ".new", name + ".json")
"""
LINE = re.compile(r"/(\S+?)\[\d+\]: (\w+): to=<(.*?)>(?:, orig_to=<(.*?)>)?, relay=(\S+), .*?, dsn=([0-9.]+), "
                  r"status=(\w+) \((.*)\)$")


def witness_directory():
    """Where commands of any user find WITNESS and may write; and a name for their results."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="witness-"))
    directory.chmod(0o1777)
    (directory / "witness").write_text(WITNESS)
    (directory / "witness").chmod(0o755)
    return directory


def results(log, address_case=True):
    """{recipient: {(program, orig_to, relay, dsn, status, reason)}} of the lines with status=."""
    found = {}
    for line in log.splitlines():
        match = LINE.search(line)
        if match:
            program, _, to, orig, relay, dsn, status, reason = match.groups()
            found.setdefault(to if address_case else to.lower(), set()).add((program, orig, relay, dsn, status, reason))
    return found


def in_common(text, server):
    """Without what must differ: names, times, queue ids."""
    for what, with_what in ((str(server.directory), "DIRECTORY"), (r"\b(oracle|mail)\.example\b", "here.example"),
                            (r"\b[0-9A-F]{10,16}\b", "ID"), (r"\w{3}, {1,2}\d+ \w{3} \d{4} [0-9:]{8} [+-]\d{4} \(\w+\)", "DATE"),
                            (r"\w{3} \w{3} +\d+ [0-9:]{8} \d{4}", "DATE"), (r"<\d{14}\.ID@", "<ID@"),
                            (r"\(Angarium\)", "(Postfix)")):
        text = re.sub(what, with_what, text)
    return text


class Pair:
    """One of each, with the same additions to main.cf and master.cf."""

    def __init__(self, main_cf, master_cf):
        self.main_cf, self.master_cf = main_cf, master_cf
        self.servers = []

    def __enter__(self):
        try:
            self.servers.append(Instance(main_cf=self.main_cf, master_extra=self.master_cf))
            self.servers[0].start()
            self.servers.append(PreparedOracle(self.main_cf, self.master_cf).start())
        except BaseException:
            self.__exit__()
            raise
        return self.servers

    def __exit__(self, *_):
        for server in self.servers:
            print(f"--- log of {server.directory}:\n{server.log()}")
            server.stop()


class PreparedOracle(Oracle):
    def __init__(self, main_cf="", master_extra=""):
        super().__init__(main_cf="inet_protocols = ipv4\nmyhostname = mail.example\nmydestination = mail.example, localhost\n"
                         + main_cf)
        self.services = master_extra

    def write(self):
        super().write()
        with open(self.directory / "etc/master.cf", "a") as f:
            f.write(self.services)


def connect(server):
    c = smtplib.SMTP("127.0.0.1", server.port, timeout=60)
    c.ehlo("me.example")
    return c


def wait_answered(server, recipients, seconds=60):
    def missing():
        return set(recipients) - set(results(server.log()))
    try:
        wait_for(lambda: not missing(), seconds)
    except TimeoutError:
        raise TimeoutError(f"no result for {missing()}") from None


def witnessed(directory, name, count=1):
    """What the commands of `name` saw, by their arguments."""
    wait_for(lambda: len(list(directory.glob(f"{name}.*.json"))) >= count, 30, f"the witness of {name}")
    return sorted((json.loads(p.read_text()) for p in directory.glob(f"{name}.*.json")), key=lambda d: d["argv"])
