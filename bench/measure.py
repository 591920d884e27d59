"""What the benchmarks share: the load tool, the sink, and what a server's processes use while they run.

The processes of a server are counted in a control group of their own (cgroup v2): its CPU time holds that of processes
which ended in between, and perf counts context switches and sync calls in it. Where there is no such group, or no
perf, live processes are added up from /proc and ended ones are seen through their parent's times.
"""
import contextlib
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

TRACED = {"sched:sched_switch": "switches", "syscalls:sys_enter_fsync": "syncs", "syscalls:sys_enter_fdatasync": "syncs",
          "raw_syscalls:sys_enter": "calls"}


def parse(line):
    """The name=value words of a line of the load tool or the sink."""
    words = dict(word.split("=", 1) for word in line.split() if "=" in word)
    return {name: value if name == "event" else float(value) if "." in value else int(value)
            for name, value in words.items()}


class Load:
    """The load tool. Options are its own letters: load(port, s=50, m=1000)."""

    def __init__(self, build):
        self.program = build / "bench/smtp_load"

    def start(self, port, pipelining=True, **options):
        words = [word for name, value in options.items() for word in (f"-{name}", str(value))]
        return subprocess.Popen([self.program, *([] if pipelining else ["-P"]), *words, f"127.0.0.1:{port}"],
                                stdout=subprocess.PIPE, text=True)

    def __call__(self, port, may_fail=False, **options):
        return self.result(self.start(port, **options), may_fail)

    @staticmethod
    def result(process, may_fail=False):
        output = process.communicate()[0]
        if process.returncode not in ((0, 3) if may_fail else (0,)):
            raise RuntimeError(f"the load tool ended with {process.returncode}:\n{output}")
        return parse(output.splitlines()[-1])


class Sink:
    def __init__(self, build, port):
        self.port = port
        self.process = subprocess.Popen([build / "bench/smtp_sink", "-i", f"127.0.0.1:{port}"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, bufsize=0)
        self.unread = b""
        self._next("listening", 10)

    def _next(self, event, seconds):
        """The next line of this event."""
        end = time.monotonic() + seconds
        while True:
            line, newline, rest = self.unread.partition(b"\n")
            if newline:
                self.unread = rest
                counts = parse(line.decode())
                if counts["event"] == event:
                    return counts
            elif not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                return None
            else:
                piece = os.read(self.process.stdout.fileno(), 65536)
                if not piece:
                    raise RuntimeError("the sink has ended")
                self.unread += piece

    def _order(self, text, event):
        self.process.stdin.write(text.encode() + b"\n")
        return self._next(event, 10)

    def expect(self, messages):
        """Counts from zero; wait() waits for so many."""
        self._order(f"expect {messages}", "ready")

    def expect_recipients(self, recipients):
        self._order(f"recipients {recipients}", "ready")

    def reject(self, what):
        """"rcpt=450", or "none"."""
        self._order(f"reject {what}", "ready")

    def counts(self):
        return self._order("report", "asked")

    def wait(self, seconds=600):
        counts = self._next("expected", seconds)
        if counts is None:
            raise TimeoutError(f"the sink did not get its messages in {seconds} seconds: {self.counts()}")
        return counts

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Group:
    """A control group for the processes of one server. `with group.inside(): server.start()` starts them in it."""

    def __init__(self, name):
        self.name = f"bench-{os.getpid()}-{name}"
        self.path = None
        for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
            _, mount, kind, *_ = line.split()
            if kind == "cgroup2" and os.access(mount, os.W_OK):
                with contextlib.suppress(OSError):
                    self.path = pathlib.Path(mount) / self.name
                    self.path.mkdir()
                    self.root = pathlib.Path(mount)
                    break
                self.path = None
        self.perf = self.path is not None and shutil.which("perf") is not None

    @contextlib.contextmanager
    def inside(self):
        if not self.path:
            yield
            return
        own = next(line.split(":", 2)[2].strip() for line in open("/proc/self/cgroup") if line.startswith("0:"))
        (self.path / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (self.root / own.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))

    def how(self):
        """How usage() measures, for the report."""
        cpu = "CPU time from the server's control group" if self.path else "CPU time from /proc of the server's processes"
        if self.perf:
            return f"{cpu}; context switches, system calls and sync calls of its processes from perf, in a run of their own"
        return f"{cpu}; context switches from /proc/PID/status, in a run of their own; sync calls are not seen"

    def pids(self, fallback=()):
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()] if self.path else list(fallback)

    def close(self):
        if self.path:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    self.path.rmdir()
                    return
                time.sleep(0.05)


def cpu_seconds(pids):
    """User and system time of processes and of their ended, waited-for children."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15]))
    return total / ticks


def context_switches(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
                total += sum(int(line.split()[1]) for line in status.read_text().splitlines() if "ctxt_switches" in line)
    return total


def pss_kib(pids):
    """Memory of processes, shared pages in shares."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration):
            rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def disk_flushes(path):
    """Flush requests that the disk below `path` has completed since boot, whoever asked; None when it does not say."""
    number = os.stat(path).st_dev
    device = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat")
    with contextlib.suppress(OSError, IndexError):
        return int(device.read_text().split()[15])
    return None


class Usage:
    """What a server uses between start() and stop(): cpu (seconds), flushes; and when counted switches, calls, syncs."""

    def __init__(self, group, pids, disk):
        """`pids`: a function that lists the server's processes; `disk`: a path of its queue."""
        self.group, self.pids, self.disk = group, pids, disk

    def _cpu(self):
        if not self.group.path:
            return cpu_seconds(self.pids())
        lines = (self.group.path / "cpu.stat").read_text().split()
        return int(lines[lines.index("usage_usec") + 1]) / 1e6

    def start(self, count=False):
        """`count`: switches, calls and syncs, too. Counting them costs the server some time."""
        self.count, self.watcher = count, None
        if not count:
            pass
        elif self.group.perf:
            self.watcher = subprocess.Popen(
                ["perf", "stat", "-x,", "-a", "-e", ",".join(TRACED), "--for-each-cgroup", self.group.name],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(0.3)  # until it counts
        else:
            self.switches = context_switches(self.pids())
        self.flushes = disk_flushes(self.disk)
        self.cpu = self._cpu()
        return self

    def stop(self):
        used = {"cpu": self._cpu() - self.cpu, "switches": None, "syncs": None, "calls": None, "flushes": None}
        if self.flushes is not None:
            used["flushes"] = disk_flushes(self.disk) - self.flushes
        if self.watcher:
            self.watcher.send_signal(signal.SIGINT)
            for line in self.watcher.communicate()[1].splitlines():
                fields = line.split(",")
                if len(fields) > 3 and fields[2] in TRACED and fields[0].isdigit():
                    name = TRACED[fields[2]]
                    used[name] = (used[name] or 0) + int(fields[0])
        elif self.count:
            used["switches"] = context_switches(self.pids()) - self.switches
        return used
