"""How far a server is from what the machine allows: the load tool straight into the sink, and a file of 4 KiB records that are
written and synced in groups, as a log with group commit writes them."""
import os
import pathlib
import tempfile
import time

from measure import Load, Sink

from instance import free_port

RECORD = 4096


def loopback(build, sessions, messages):
    port = free_port()
    with Sink(build, port) as sink:
        sink.expect(messages)
        got = Load(build)(port, s=sessions, m=messages, l=RECORD)
        counts = sink.wait()
    return messages / (counts["last"] - got["start"]), got["cpu"] / messages, counts["cpu"] / messages


def group_commit(directory, group, seconds):
    """Records a second that are durable, `group` of them with one fdatasync, into space that has been written before."""
    size = 64 * 1024 * 1024
    with tempfile.TemporaryFile(dir=directory) as file:
        fd = file.fileno()
        for at in range(0, size, 1 << 20):
            os.pwrite(fd, b"\0" * (1 << 20), at)
        os.fsync(fd)
        piece, at, done = os.urandom(RECORD) * group, 0, 0
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            os.pwrite(fd, piece, at)
            os.fdatasync(fd)
            done += group
            at = at + len(piece) if at + 2 * len(piece) <= size else 0
        return done / (time.monotonic() - started)


def report_limits(report, build, quick):
    """Prints the table of limits."""
    say, seconds = report.say, 0.5 if quick else 3
    say("### What the machine allows")
    say()
    say("| limit | messages of 4 KiB a second |")
    say("|---|---|")
    for sessions in (1, 50, 100):
        rate, load_cpu, sink_cpu = loopback(build, sessions, 5000 if quick else 60000)
        say(f"| load tool straight into the sink, {sessions} sessions (CPU {load_cpu * 1e6:.0f} and {sink_cpu * 1e6:.0f} us a "
            f"message) | {rate:.0f} |")
    directory = pathlib.Path(tempfile.gettempdir())
    for group in (1, 10, 50, 100):
        say(f"| group commit on the disk of the queue, {group} a sync | {group_commit(directory, group, seconds):.0f} |")
    say()
