"""Two mail systems with the same mail in their queues, ours and Debian's, and what the tools say about it."""
import json
import os
import pwd
import re
import smtplib
import time

from instance import Instance, free_port, wait_for
from oracle import Oracle

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def dead(port):
    """main.cf lines: mail for dead.example goes to a port of this host where nobody is."""
    return f"relay_domains = dead.example\ntransport_maps = inline:{{{{dead.example=smtp:[127.0.0.1]:{port}}}}}\n"


class System:
    """Either of the two, with the same calls."""

    def __init__(self, kind, main_cf=""):
        self.kind = kind
        self.dead_port = free_port()
        text = dead(self.dead_port) + main_cf
        if kind == "oracle":
            self.mail = Oracle(main_cf=text + "compatibility_level = 3.6\nmynetworks = 127.0.0.0/8\n")
        else:
            self.mail = Instance(main_cf=text, user=USER if os.geteuid() == 0 else None)
        self.names = {}

    def __enter__(self):
        self.mail.__enter__()
        return self

    def __exit__(self, *error):
        if error[0]:
            print(f"--- log of {self.kind}:\n{self.mail.log()}")
        self.mail.__exit__(*error)

    @property
    def queue(self):
        return self.mail.directory / "queue"

    def command(self, *args, **kwargs):
        return self.mail.command(*args, capture_output=True, text=True, **kwargs)

    def send(self, to, sender="sender@there.example", count=1, text="Subject: test\r\n\r\nhello\r\n", mail=(), rcpt=()):
        with smtplib.SMTP("127.0.0.1", self.mail.port, timeout=60) as smtp:
            smtp.ehlo("client.example")
            for _ in range(count):
                assert smtp.mail(sender, list(mail))[0] == 250
                for address in [to] if isinstance(to, str) else to:
                    assert smtp.rcpt(address, list(rcpt))[0] == 250
                assert smtp.data(text)[0] == 250

    def listing(self):
        done = self.command("postqueue", "-j")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def deferred(self, count):
        """Wait until so many are deferred; their ids, oldest first. Each has a name: A, B, ..."""
        found = wait_for(lambda: (lambda l: len(l) >= count and l)(
            [e for e in self.listing() if e["queue_name"] == "deferred"]))
        wait_for(lambda: not any((self.queue / "active").iterdir()))
        log = self.mail.log()
        ids = sorted((e["queue_id"] for e in found), key=lambda i: log.find(f"{i}: client="))
        self.names = {i: chr(ord("A") + n) for n, i in enumerate(ids)}
        return ids

    def plain(self, text):
        """Ids by their names, so that two systems can be compared."""
        for queue_id, name in self.names.items():
            text = text.replace(queue_id, name)
        return text

    def log_of(self, program):
        """What a program has logged, without time and process id."""
        return [self.plain(re.sub(r"^.*?/" + program + r"\[\d+\]: ", "", line)) for line in self.mail.log().splitlines()
                if f"/{program}[" in line]


def until(condition, seconds=30):
    return wait_for(condition, seconds)


def sleep(seconds):
    time.sleep(seconds)
