"""qshape: the same table as Debian's for the same mail."""
import os
import re
import shutil
import subprocess

import pytest

from instance import wait_for
from oracle import Oracle
from tools import USER, System

NO_ORACLE = Oracle.why_not() or (None if shutil.which("perl") else "no perl")
MAIL = [
    (["e@dead.example", "f@sub.dead.example", "G@Sub.Dead.Example", "x@a.sub.dead.example"], "sender@There.example"),
    (["e@dead.example", "f@" + "averyveryveryveryverylongname." * 3 + "dead.example"], ""),
    (["e@dead.example", "f@b.dead.example", "f@cc.dead.example", "z@zz.longer.test", "a@aa.test"], "x@there.example"),
]
OPTIONS = ["", "-s", "-p", "-p -m 1", "-p -m 2", "-p -m 4", "-p -m 5", "-p -m 6", "-b 1", "-b 3 -t 1 -l", "-b 20", "-t 2.5",
           "-t 100", "-w 40", "-w 100 -p -m 1", "-b 2 -p -m 1", "-p -s", "-l -b 5 -t 10", "-n 1", "-N 1"]


def fill(system):
    """The same mail, of several ages."""
    for to, sender in MAIL:
        system.send(to, sender=sender)
    system.deferred(3)
    if system.kind == "oracle":
        qdir = system.queue / "deferred"
        for number, queue_id in enumerate(sorted(system.names, key=system.names.get)):
            [path] = [p for p in qdir.rglob(queue_id)]
            for copy in range(400):
                age = (copy % 40) * 300 + number
                raw = path.read_bytes()
                found = re.search(rb"T.(\d{10}) ", raw)
                raw = raw.replace(found.group(1), str(int(found.group(1)) - age).encode())
                other = path.with_name(f"{path.name[0]}{number}{copy:06X}")
                other.write_bytes(raw)
                other.chmod(0o700)
                shutil.chown(other, "postfix")


@pytest.fixture(scope="module")
def tables():
    """What both say: option -> (ours, Debian's). Ours is filled by queue files made from the three, with other times of
    arrival, as Debian's is."""
    if NO_ORACLE:
        pytest.skip(NO_ORACLE)
    bounces = "default_transport = smtp:[127.0.0.1]:1\nrelay_domains =\ntransport_maps =\n"
    said = {option: [] for option in OPTIONS}
    with System("oracle", bounces) as o, System("ours", bounces) as s:
        fill(o)
        for to, sender in MAIL:
            s.send(to, sender=sender)
        s.deferred(3)
        s.mail.postfix("stop")
        multiply(s)
        env = {**o.mail.environment(), "PATH": str(o.mail.root / "usr/sbin") + ":" + os.environ["PATH"]}
        for option in OPTIONS:
            ours = s.command("qshape", *option.split(), "deferred")
            theirs = subprocess.run(["perl", str(o.mail.root / "usr/sbin/qshape"), "-c", str(o.mail.directory / "etc"),
                                     *option.split(), "deferred"], env=env, capture_output=True, text=True, timeout=60)
            assert ours.returncode == theirs.returncode == 0 and ours.stderr == ""
            said[option] = [ours.stdout, theirs.stdout]
    return said


def multiply(system):
    """400 copies of each, 0 to 39 times five minutes old."""
    import struct
    import zlib  # noqa: F401  (crc32c is made below: no library has it everywhere)
    table = []
    for n in range(256):
        c = n
        for _ in range(8):
            c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
        table.append(c)

    def crc32c(data):
        c = 0xFFFFFFFF
        for byte in data:
            c = c >> 8 ^ table[(c ^ byte) & 0xFF]
        return c ^ 0xFFFFFFFF
    for number, queue_id in enumerate(sorted(system.names, key=system.names.get)):
        [path] = [p for p in (system.queue / "deferred").rglob(queue_id)]
        raw = bytearray(path.read_bytes())
        _, _, _, at, size = struct.unpack_from("<IIQQI", raw, 8)
        [arrival] = struct.unpack_from("<q", raw, at)
        for age in range(40):
            struct.pack_into("<q", raw, at, arrival - (age * 300 + number) * 1000000)
            struct.pack_into("<I", raw, 40, crc32c(raw[at:at + size]))
            struct.pack_into("<I", raw, 60, crc32c(raw[:60]))
            for copy in range(10):
                other = path.with_name(f"{path.name[0]}{number}{age + copy * 40:06X}")
                other.write_bytes(raw)
                other.chmod(0o700)
                shutil.chown(other, USER)
                target = system.queue / "deferred" / place(other.name)
                target.parent.mkdir(exist_ok=True)
                shutil.chown(target.parent, USER)
                if other != target:
                    os.rename(other, target)


def place(name):
    return f"{name[0]}/{name}"


def rows(text):
    """Lines; those with the same number, whose order Debian's leaves to chance, sorted."""
    head, *rest = [line.rstrip() for line in text.splitlines() if line.strip()]
    return [head, *sorted(rest)]


@pytest.mark.parametrize("option", OPTIONS)
def test_like_debians(tables, option):
    ours, theirs = tables[option]
    assert rows(ours) == rows(theirs)
    numbers = [int(line.split()[1]) for line in ours.splitlines()[2:]]
    assert numbers == sorted(numbers, reverse=True)


def test_queues_and_errors():
    with System("ours") as s:
        s.send(["a@dead.example", "b@dead.example"], sender="x@y.example")
        [queue_id] = s.deferred(1)
        empty = s.command("qshape")
        assert (empty.returncode, empty.stderr) == (0, "") and empty.stdout.splitlines()[1].split() == ["TOTAL"] + 11 * ["0"]
        one = s.command("qshape", "deferred").stdout
        assert one.splitlines()[1].split()[:2] == ["TOTAL", "2"]
        assert s.command("qshape", str(s.queue / "deferred")).stdout == one  # a folder by its path
        twice = s.command("qshape", "deferred", "deferred", "hold").stdout
        assert twice.splitlines()[1].split()[:2] == ["TOTAL", "4"]
        missing = s.command("qshape", "nosuch")
        assert missing.returncode == 0 and "Can't stat nosuch: No such file or directory" in missing.stderr
        for args in (["-x"], ["-b", "0"], ["-b", "x"], ["-t", "0"], ["-t", "1x"], ["-w", "0"], ["-m", "-1"]):
            done = s.command("qshape", *args, "deferred")
            assert done.returncode == 1 and done.stdout == "" and "qshape: fatal: " in done.stderr, args
        s.command("postsuper", "-h", queue_id)
        assert s.command("qshape", "-s", "hold").stdout.splitlines()[2].split()[:2] == ["y.example", "1"]
        wait_for(lambda: s.listing()[0]["queue_name"] == "hold")
