"""kill -9 of every process, twenty times, under load: each message that was answered 250 is delivered, returned or still in
the queue. Duplicates are allowed, counted and shown. ANGARIUM_KILLS: how many times, with other moments for each number."""
import collections
import contextlib
import os
import pwd
import random
import re
import smtplib
import threading
import time

import pytest
from instance import free_port, wait_for

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
KILLS = int(os.environ.get("ANGARIUM_KILLS", "20"))
MESSAGES = 100 * KILLS
ROUNDS = 3 * KILLS // 20  # of the single daemons
CLIENTS = 8
SEED = 20261121 + KILLS

CONFIG = """\
queue_log = {log}
mail_spool_directory = {mail}/
local_recipient_maps =
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
transport_retry_time = 1s
notify_classes =
transport_maps = inline:{{{{dead.example=smtp:[127.0.0.1]:{dead_port}}}}}
relay_domains = dead.example
"""


class Load:
    """Clients that send until they are told to stop; what they were promised is in `acked`."""

    def __init__(self, instance):
        self.instance = instance
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.acked = {}
        self.sent = 0
        self.threads = [threading.Thread(target=self.client, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def next_token(self):
        with self.lock:
            self.sent += 1
            return f"token-{self.sent:06d}-"

    def client(self, number):
        chance = random.Random(SEED + number)
        while not self.stop.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self.instance.port, timeout=20) as smtp:
                    for _ in range(chance.randrange(1, 20)):
                        self.send(smtp, chance)
                        if self.stop.is_set():
                            return
            except (OSError, smtplib.SMTPException):
                time.sleep(0.05)  # killed, or not started yet

    def send(self, smtp, chance):
        token = self.next_token()
        kind = chance.choices(("here", "unknown", "dead", "two"), (80, 8, 4, 8))[0]
        to = {"here": [f"{USER}@mail.example"], "unknown": ["nobody-of-that-name@mail.example"],
              "dead": ["somebody@dead.example"], "two": [f"{USER}@mail.example", f"{USER}@localhost"]}[kind]
        size = chance.choice((100, 1000, 5000, 70000))
        smtp.sendmail(f"{USER}@mail.example", to, f"Subject: {token}\r\n\r\n" + ("x" * 70 + "\r\n") * (size // 72))
        with self.lock:
            self.acked[token] = kind

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"


def tokens_below(*directories):
    """How often each token stands in files below; a file counts once, whatever it quotes."""
    found = collections.Counter()
    for directory in directories:
        for path in directory.rglob("*"):
            try:
                if path.is_file():
                    found.update(set(re.findall(rb"token-\d{6}-", path.read_bytes())))
            except FileNotFoundError:
                pass  # moved on meanwhile
    return collections.Counter({token.decode(): n for token, n in found.items()})


def settled(instance, load, queue):
    """Only what cannot be delivered is left: nothing in the log, and in files only mail for the dead."""
    waiting = tokens_below(*queue)
    return (all(load.acked.get(token, "dead") == "dead" for token in waiting) and
            all(entry["queue_name"] == "deferred" for entry in instance.listing()))


@pytest.mark.parametrize("log", ("yes", "no"))
def test_kill_everything(make_instance, capsys, log):
    instance = make_instance(start=False, user=USER if os.geteuid() == 0 else None)
    instance.extra = CONFIG.format(mail=instance.mail, dead_port=free_port(), log=log)
    instance.write_config()
    instance.start()
    chance = random.Random(SEED)
    load = Load(instance)
    kills = 0
    try:
        end = time.monotonic() + 30 * KILLS
        while kills < KILLS or len(load.acked) < MESSAGES:
            assert time.monotonic() < end, f"{kills} kills and {len(load.acked)} messages, and the time is over"
            if kills < KILLS:
                before, wanted = len(load.acked), chance.randrange(5, 2 * MESSAGES // KILLS)
                wait_for(lambda: len(load.acked) >= before + wanted, 60, "messages to be accepted")
                instance.kill_all()
                kills += 1
                instance.start()
            else:
                time.sleep(0.1)
    finally:
        load.end()
    queue = [instance.queue / name for name in ("incoming", "active", "deferred", "hold")]

    wait_for(lambda: settled(instance, load, queue), 300, "the queue to empty")
    delivered, waiting = tokens_below(instance.mail), tokens_below(*queue)
    lost = [token for token in load.acked if not delivered[token] and not waiting[token]]
    duplicates = sum(delivered[token] - (2 if kind == "two" else 1) for token, kind in load.acked.items()
                     if delivered[token] > (2 if kind == "two" else 1))
    with capsys.disabled():
        print(f"\n{len(load.acked)} messages accepted, {KILLS} kills of everything, {len(lost)} lost, "
              f"{duplicates} duplicates, {len(waiting)} waiting")
    assert not lost, lost[:10]
    assert not list((instance.queue / "corrupt").iterdir())
    # each message for two was delivered twice; a bounced one was returned
    missing = [token for token, kind in load.acked.items() if kind == "two" and delivered[token] < 2]
    assert not missing, missing[:10]
    # what the dead left unfinished goes, once it is too old to be just being created
    unfinished = list((instance.queue / "incoming").iterdir())
    for path in unfinished:
        os.utime(path, (time.time() - 3600,) * 2)
    instance.command("postkick", "public", "qmgr", "I")
    wait_for(lambda: not any(path.exists() for path in unfinished), 30, "unfinished files to be removed")


@pytest.mark.parametrize("log", ("yes", "no"))
def test_kill_one_after_the_other(make_instance, log):
    """The same for single daemons: master starts them again, the rest goes on."""
    instance = make_instance(start=False, user=USER if os.geteuid() == 0 else None)
    instance.extra = CONFIG.format(mail=instance.mail, dead_port=free_port(), log=log)
    instance.write_config()
    instance.start()
    load = Load(instance)
    try:
        for program in ("qmgr", "cleanup", "local", "smtpd", "bounce", "trivial-rewrite") * ROUNDS:
            before = len(load.acked)
            for pid in instance.pids(program):
                with contextlib.suppress(ProcessLookupError):  # it may end by itself just now
                    os.kill(pid, 9)
            wait_for(lambda: len(load.acked) >= before + 10, 90, f"mail to be accepted after the end of {program}")
    finally:
        load.end()
    queue = [instance.queue / name for name in ("incoming", "active", "deferred", "hold")]
    wait_for(lambda: settled(instance, load, queue), 300, "the queue to empty")
    delivered, waiting = tokens_below(instance.mail), tokens_below(*queue)
    assert not [token for token in load.acked if not delivered[token] and not waiting[token]]
