"""Mail that stays: Angarium beside Debian's Postfix with tens of thousands deferred, and a restart with a million queued.

usage: backlog.py [--build DIR] [--only NAME,...] [--quick] [--pairs N] [--deferred N] [--queued N] [--write FILE]

  deferring    accepting while every recipient is deferred by the next server; 4 KiB, 50 sessions
  listing      mailq with 50,000 deferred messages
  restart      start with 1,000,000 queued messages until a new one is served, beside the same with an empty queue

The messages that wait are copies of one that each server deferred itself, under names made of a time and the file's
own inode, as both servers name them. --quick: small numbers, to see that it works. Needs root (Debian's Postfix does).
"""
import contextlib
import multiprocessing
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

from measure import Load, Sink
from report import run_scenarios
from servers import TUNED, Angarium, Postfix, unpacked

from instance import free_port

SESSIONS = 50
NEW_DOMAIN = "new.example"
STARTS = 5


def deferred_files(server):
    return [path for path in (server.queue / "deferred").rglob("*") if path.is_file()]


def wait_for(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} seconds for {what}")
        time.sleep(0.1)


def copy_share(job):
    """Makes `count` copies of a deferred message, and of its log when there is one."""
    queue, message, log, first, count, when = job
    stat = message.stat()
    content, reasons = message.read_bytes(), log.read_bytes() if log else None
    for n in range(first, first + count):
        microseconds = f"{n * 7919 % 1000000:05X}"
        folder = f"{queue}/deferred/{microseconds[0]}/"
        fd = os.open(f"{folder}made.{n}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.st_mode & 0o777)
        os.write(fd, content)
        os.fchown(fd, stat.st_uid, stat.st_gid)
        os.utime(fd, (when, when))
        name = f"{microseconds}{os.fstat(fd).st_ino:X}"
        os.close(fd)
        os.rename(f"{folder}made.{n}", folder + name)
        if log:
            fd = os.open(f"{queue}/defer/{name[0]}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, reasons)
            os.fchown(fd, stat.st_uid, stat.st_gid)
            os.close(fd)


def fill(server, template, count, when, logs=True):
    """`count` more deferred messages like `template`, to be tried again at `when` (seconds since 1970)."""
    log = server.queue / "defer" / template.parent.name / template.name  # Postfix's; ours are in the message's file
    owner = template.parent.stat()
    for folder in ("deferred", "defer"):
        for digit in "0123456789ABCDEF":
            path = server.queue / folder / digit
            if not path.exists():
                path.mkdir(0o700)
                shutil.chown(path, owner.st_uid, owner.st_gid)
    workers = os.cpu_count()
    share = -(-count // workers)
    with multiprocessing.Pool(workers) as pool:
        pool.map(copy_share, [(server.queue, template, log if logs and log.exists() else None, first, min(share, count - first), when)
                              for first in range(0, count, share)])


@contextlib.contextmanager
def own_disk(gigabytes):
    """A folder on a file system of its own (ext4 in a sparse file), so that a million files are made, and gone again, without
    regard to what else the disk holds; an ordinary folder where nothing can be mounted."""
    with tempfile.TemporaryDirectory(prefix="bench-disk-") as folder:
        image, mount = pathlib.Path(folder) / "image", pathlib.Path(folder) / "mount"
        mount.mkdir()
        pathlib.Path(folder).chmod(0o755)
        with open(image, "wb") as file:
            file.truncate(gigabytes << 30)
        made = subprocess.run(["mkfs.ext4", "-q", "-i", "4096", image], capture_output=True).returncode == 0
        if made and subprocess.run(["mount", "-o", "loop", image, mount], capture_output=True).returncode == 0:
            try:
                yield mount
            finally:
                subprocess.run(["umount", mount], check=True)
        else:
            yield mount


class Bench:
    def __init__(self, args, report):
        self.args, self.say = args, report.say
        self.load, self.sink_port = Load(args.build), free_port()
        self.postfix_root, _ = unpacked(args.build)
        self.say("Both sides: " + ", ".join(TUNED.split("\n")[:-1]) + ".")
        self.say()

    def servers(self):
        return Angarium(self.args.build, self.sink_port), Postfix(self.postfix_root, self.sink_port)

    def defer_one(self, server, sink, size):
        """The file of a message that the server has deferred."""
        sink.reject("rcpt=450")
        self.load(server.port, s=1, m=1, l=size)
        wait_for(lambda: deferred_files(server), 30, "a deferred message")
        sink.reject("none")
        server.wait_until_idle()
        return deferred_files(server)[0]

    def scenario_deferring(self):
        say, results = self.say, ([], [])
        with Sink(self.args.build, self.sink_port) as sink:
            both = self.servers()
            with both[0], both[1]:
                sink.reject("rcpt=450")
                counts = []
                for server in both:
                    got = self.load(server.port, s=SESSIONS, m=200, l=4096)
                    counts.append(max(100, int(got["rate"] * self.args.seconds)))
                for _ in range(self.args.pairs):
                    for server, result, messages in zip(both, results, counts):
                        server.wait_until_idle(60)
                        sink.expect(0)
                        usage = server.usage().start()
                        got = self.load(server.port, s=SESSIONS, m=messages, l=4096)
                        wait_for(lambda: sink.counts()["rejected"] >= messages, 300, "all to be deferred")
                        server.wait_until_idle(60)
                        result.append((got["rate"], usage.stop()["cpu"] / messages * 1000, got["ack50"]))
            say(f"### Accepting while deferring, 4 KiB, {SESSIONS} sessions")
            say()
            say("The next server answers every recipient with 450.")
            say()
            say("| server | messages/s accepted | CPU s per 1,000, deferring included | ack. median ms |")
            say("|---|---|---|---|")
            for server, result in zip(both, results):
                rate, cpu, ack = (statistics.median(column) for column in zip(*result))
                say(f"| {server.name} | {rate:.0f} | {cpu:.3f} | {ack:.2f} |")
            ratios = [a[0] / b[0] for a, b in zip(*results)]
            say()
            say(f"Ratio, median of {self.args.pairs} pairs: {statistics.median(ratios):.1f} ({min(ratios):.1f}, "
                f"{max(ratios):.1f}); wanted 8.")
            say()

    def scenario_listing(self):
        say, times, cpus = self.say, ([], []), ([], [])
        with Sink(self.args.build, self.sink_port) as sink:
            both = self.servers()
            with both[0], both[1]:
                for server in both:
                    template = self.defer_one(server, sink, 4096)
                    fill(server, template, self.args.deferred - 1, time.time() + 86400)
                for pair in range(self.args.pairs + 1):
                    for server, taken, used in zip(both, times, cpus):
                        usage, own, started = server.usage().start(), os.times(), time.monotonic()
                        listing = server.list_queue()
                        if pair > 0:  # the first one brings the files into memory
                            taken.append(time.monotonic() - started)
                            now = os.times()
                            used.append(usage.stop()["cpu"] + now.children_user - own.children_user +
                                        now.children_system - own.children_system)
                        last = listing.splitlines()[-1]
                        found = int(re.search(r"in (\d+) Request", last)[1])
                        if found != self.args.deferred:
                            raise RuntimeError(f"{server.name} lists {found} messages of {self.args.deferred}: {last}")
            say(f"### mailq with {self.args.deferred} deferred messages")
            say()
            say("| server | seconds | CPU seconds |")
            say("|---|---|---|")
            for server, taken, used in zip(both, times, cpus):
                say(f"| {server.name} | {statistics.median(taken):.2f} | {statistics.median(used):.2f} |")
            ratios = [b / a for a, b in zip(*times)]
            say()
            say(f"Ratio, median of {self.args.pairs} pairs: {statistics.median(ratios):.1f} ({min(ratios):.1f}, "
                f"{max(ratios):.1f}); wanted 5.")
            say()

    def served(self, server, sink):
        """Starts the server; seconds until it listens, and until a new message has reached its own sink."""
        sink.expect(1)
        started = time.monotonic()
        with server.group.inside():
            server.start_again()
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1):
                break
            time.sleep(0.002)
        listens = time.monotonic() - started
        self.load(server.port, s=1, m=1, l=4096, t=NEW_DOMAIN)
        return listens, sink.wait(120)["last"] - started

    def scenario_restart(self):
        say, new_port = self.say, free_port()
        main_cf = f"transport_maps = inline:{{{{{NEW_DOMAIN}=smtp:[127.0.0.1]:{new_port}}}}}\n"
        rows, memory = [], {}
        with Sink(self.args.build, self.sink_port) as sink, Sink(self.args.build, new_port) as new_sink, \
                own_disk(12) as disk, \
                Angarium(self.args.build, self.sink_port, main_cf, directory=disk / "mail") as server:
            def runs(name):
                taken = []
                for _ in range(STARTS):
                    server.stop_only()
                    taken.append(self.served(server, new_sink))
                rows.append((name, *(statistics.median(column) for column in zip(*taken))))
            template = self.defer_one(server, sink, 1024)
            runs("empty")
            server.stop_only()
            tomorrow = time.time() + 86400
            fill(server, template, self.args.queued - 1, tomorrow, logs=False)
            os.utime(template, (tomorrow, tomorrow))
            runs(f"{self.args.queued}, none of them due")
            server.wait_until_idle(120)
            memory["none of them due"] = server.queue_manager_memory()
            server.stop_only()
            for path in (server.queue / "deferred").iterdir():
                for entry in os.scandir(path):
                    os.utime(entry.path, (1, 1))
            sink.reject("rcpt=450")
            runs(f"{self.args.queued}, all of them due, and deferred again")
            memory["all of them due"] = server.queue_manager_memory()
        say(f"### Start of Angarium with {self.args.queued} messages in the queue")
        say()
        say("From `postfix start` until it takes connections, and until a new message to another destination has been "
            f"delivered; medians of {STARTS}.")
        say()
        say("| queue | listens after s | new message served after s | times the empty queue's |")
        say("|---|---|---|---|")
        for name, listens, delivered in rows:
            say(f"| {name} | {listens:.2f} | {delivered:.2f} | {delivered / rows[0][2]:.2f} |")
        say()
        say("Wanted: twice. Most memory of the queue manager, MiB (wanted: under 256): " +
            "; ".join(f"{name} {kib / 1024:.1f}" for name, kib in memory.items()) + ".")
        say()


SCENARIOS = ["deferring", "listing", "restart"]


def add_options(parser):
    parser.add_argument("--deferred", type=int, default=50000)
    parser.add_argument("--queued", type=int, default=1000000)


def make_small(args):
    args.deferred, args.queued = min(args.deferred, 1000), min(args.queued, 5000)


if __name__ == "__main__":
    run_scenarios("Mail that stays (bench/backlog.py)", __doc__, SCENARIOS, Bench, add_options, make_small)
