"""Where log lines go: the file through postlogd, the file directly, standard error."""
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import time

import pytest
from instance import wait_for

SHAPE = re.compile(r"^[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d mail [\w./-]+\[\d+\]: .+$")


def test_lines(probe):
    with probe.connect() as line:
        line.say("log hello\tthere\x01")
        probe.wait_log("hello?there?")
    for text in probe.log().splitlines():
        assert SHAPE.match(text), text
    assert stat.S_IMODE(probe.log_file.stat().st_mode) == 0o600


def test_permissions_parameter(make_probe):
    p = make_probe(main_cf="maillog_file_permissions = 0644")
    assert stat.S_IMODE(p.log_file.stat().st_mode) == 0o644


def test_bad_settings(make_probe):
    p = make_probe(start=False, main_cf="maillog_file_prefixes = /var")
    assert p.postfix("start").returncode == 1
    assert not p.log_file.exists()
    q = make_probe(start=False, name="two", main_cf="syslog_facility = nosuch")
    assert q.postfix("start").returncode == 1


def test_postlogd_killed(probe):
    """Lines sent while there is no log daemon wait in the socket, which is master's."""
    with probe.connect() as line:
        line.say("log one")
        probe.wait_log("]: one")
        for n in range(3):
            pid = wait_for(lambda: probe.pids("postlogd"))[0]
            os.kill(pid, signal.SIGKILL)
            line.say(f"log after {n}")
            probe.wait_log(f"]: after {n}")
            probe.wait_log(f"pid {pid} killed by signal 9")


def test_many_lines(probe):
    """None is lost, and they stay in order."""
    with probe.connect() as line:
        for n in range(2000):
            line.say(f"log number {n}")
        assert line.ask("echo done") == "done"
    probe.wait_log("number 1999")
    assert re.findall(r"number (\d+)$", probe.log(), re.M) == [str(n) for n in range(2000)]


def test_last_lines(probe):
    """What was sent before the end is in the file, whether the log daemon was there or not."""
    with probe.connect() as line:
        for n in range(300):
            line.say(f"log number {n}")
        assert line.ask("echo done") == "done"
    probe.wait_log("]: number 0")  # one that dies before it is ready would be throttled
    if pids := probe.pids("postlogd"):
        os.kill(pids[0], signal.SIGKILL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(str(probe.queue / "public/postlog"))
        s.send(b"the last words")
    assert probe.postfix("stop").returncode == 0
    log = probe.log()
    assert "the last words" in log
    assert "]: stopping the Postfix mail system" in log


def test_lines_behind_the_order_to_end(probe):
    """The log daemon has been told to drain; what is sent before it is gone is written all the same."""
    with probe.connect() as line:
        line.say("log before")
        probe.wait_log("]: before")
    pid = probe.pids("postlogd")[0]
    os.kill(pid, signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(str(probe.queue / "public/postlog"))
        os.kill(probe.master_pid(), signal.SIGTERM)
        wait_for(lambda: len(probe.pids()) == 2)
        time.sleep(0.3)  # master is alone with it: the order is out
        s.send(b"behind the order")
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not probe.pids())
    assert "behind the order" in probe.log()


def test_hostile_datagrams(probe):
    """CM-01: a datagram is bytes; one makes one line at most."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(str(probe.queue / "public/postlog"))
        for data in (b"", b"\0", b"\n\n", b"x" * 60000, b"two\nlines\0", b"\xff" * 3000, b"mark"):
            s.send(data)
    probe.wait_log("mark")
    log = probe.log()
    assert "two?lines" in log
    assert max(map(len, log.splitlines())) <= 4200
    with probe.connect() as line:
        line.say("log well")
        probe.wait_log("]: well")


def gathered(*lines, urgent=0):
    """A datagram of ours: lines with the time they were made, in seconds from now."""
    now = time.time()
    return bytes([1, urgent]) + b"".join(struct.pack("<qI", int((now + at) * 1e6), len(text)) + text for at, text in lines)


def test_order_of_processes(probe):
    """Each process sends some lines at a time; in the file they stand in the order they were made."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(str(probe.queue / "public/postlog"))
        s.send(gathered((-0.003, b"order 2"), (-0.001, b"order 4")))
        s.send(gathered((-0.004, b"order 1"), (-0.002, b"order 3"), (0, b"order 5")))
        s.send(b"order 6")
        s.send(gathered((3600, b"order 7")))  # from the future: it is not waited for
        s.send(gathered((0, b"order 8"), urgent=1))
    probe.wait_log("order 8")
    found = re.findall(r"order (\d)", probe.log())
    assert found[:5] == list("12345") and sorted(found[5:]) == list("678")


def test_hostile_gathered_datagrams(probe):
    """CM-01: what makes no sense is left out; no line is longer than others, and none becomes two."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(str(probe.queue / "public/postlog"))
        good = gathered((0, b"first\nhalf"))
        for data in (b"\1", b"\1\0", b"\1\0x", good + b"\xff" * 12, good + gathered((0, b"torso"))[2:-1],
                     gathered((0, b"y" * 60000)), gathered(*[(0, b"")] * 1000), gathered((-1e9, b"long ago"), (1e9, b"never"))):
            s.send(data)
        s.send(b"mark")
    probe.wait_log("mark")
    wait_for(lambda: "never" in probe.log())
    log = probe.log()
    assert log.count("first?half\n") == 2 and "long ago\n" in log and "torso" not in log
    assert max(map(len, log.splitlines())) <= 4200


def test_full_disk(make_probe):
    """Lines are lost while there is no room, and none is cut but the last before it; then all goes on by itself."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    p = make_probe(start=False)
    disk = p.directory / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk]).returncode != 0:
        pytest.skip("no permission to mount a tmpfs")
    try:
        p.log_file = disk / "log"
        p.edit_main(f"maillog_file = {p.log_file}")
        (disk / "filler").write_bytes(b"x" * 60000)
        p.start()
        with p.connect() as line:
            for n in range(500):  # more than there is room for, less than there will be
                line.say(f"log number {n} {'x' * 100}")
            assert line.ask("echo done") == "done"
            wait_for(lambda: os.statvfs(disk).f_bavail == 0)
            (disk / "filler").unlink()
            for n in range(100):
                line.say(f"log again {n} {'x' * 100}")
            p.wait_log("]: again 99 ")
        assert p.postfix("stop").returncode == 0
        lines = p.log().splitlines()
        assert sum(not re.search(r"\]: number \d+ x{100}$", text) for text in lines if "]: number" in text) <= 1
        assert sum("]: again" in text and text.endswith("x" * 100) and bool(SHAPE.match(text)) for text in lines) >= 1
    finally:
        p.kill_all()
        subprocess.run(["umount", disk], check=True)


def test_crash(probe):
    """What a process has logged before it crashes is in the log, once."""
    with probe.connect() as line:
        for n in range(100):
            line.say(f"log number {n}")
        line.say("crash")
        probe.wait_log("killed by signal 6")
    probe.wait_log("number 99")
    assert re.findall(r"number (\d+)$", probe.log(), re.M) == [str(n) for n in range(100)]


def test_no_file_any_more(probe):
    """CM-01: maillog_file is emptied; a program of before still writes to the log daemon."""
    with probe.connect() as line:
        line.say("log before")
        probe.wait_log("]: before")
        probe.edit_main("maillog_file =")
        old = probe.pids("postlogd")
        assert old and probe.reload().returncode == 0
        wait_for(lambda: not set(old) & set(probe.pids("postlogd")), what="the old log daemon to end")
        line.say("log into the void")
        wait_for(lambda: probe.pids("postlogd"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.connect(str(probe.queue / "public/postlog"))
            for data in (b"", b"x" * 60000, b"Nov  2 09:20:47 ", b"Nov  2 09:20:47 h", b"Nov  2 09:20:47 h t: x"):
                s.send(data)
        assert line.ask("echo alive") == "alive"
    assert probe.ask("echo alive") == "alive"
    assert "void" not in probe.log()


def test_logrotate(probe):
    with probe.connect() as line:
        line.say("log first")
        probe.wait_log("]: first")
        assert probe.postfix("logrotate").returncode == 0
        rotated = [path for path in probe.directory.iterdir() if path.name.startswith("log.")]
        assert len(rotated) == 1 and rotated[0].name.endswith(".gz")
        line.say("log second")
        probe.wait_log("]: second")
        assert "]: first" not in probe.log()
    text = subprocess.run(["gzip", "-dc", rotated[0]], capture_output=True, text=True, timeout=60).stdout
    assert "]: first" in text


def test_logrotate_refused(make_probe):
    p = make_probe(start=False, main_cf="maillog_file =")
    assert p.postfix("logrotate").returncode == 1


def test_postlog_command(probe):
    run = probe.command
    assert run("postlog", "-p", "warn", "two", "words").returncode == 0
    probe.wait_log("]: warning: two words")
    assert run("postlog", "-t", "cron/job", "-i", input="one\nmore\n").returncode == 0
    probe.wait_log("cron/job[")
    probe.wait_log("]: more")
    done = run("postlog", "-p", "loud", "x", capture_output=True)
    assert done.returncode == 1 and 'fatal: bad severity: "loud"' in done.stderr


def test_postlog_without_a_mail_system(make_probe):
    p = make_probe(start=False)
    assert p.command("postlog", "hello").returncode == 0
    p.wait_log("]: hello")


@pytest.mark.parametrize("name,tag", [("x/$service_name", "x/127.0.0.1:"), ("other", "other/testd[")])
def test_syslog_name(make_probe, name, tag):
    p = make_probe(smtpd=f"10 smtpd -o syslog_name={name}")
    with p.connect() as line:
        line.say("log tagged")
        assert tag in p.wait_log("]: tagged")


def test_syslog_comes_back(make_probe):
    """/dev/log: RFC 3164 lines; a syslogd that is started anew is found again by confined workers, through master."""
    if os.geteuid() != 0:
        pytest.skip("needs a /dev of its own")
    p = make_probe(start=False, main_cf="maillog_file =", smtpd="10 smtpd empty")
    dev = p.directory / "dev"
    dev.mkdir()
    for name in ("null", "zero", "random", "urandom"):
        subprocess.run(["cp", "-a", f"/dev/{name}", dev], check=True)
    path = dev / "log"

    def syslogd():
        path.unlink(missing_ok=True)
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        s.bind(str(path))
        path.chmod(0o666)
        s.settimeout(20)
        return s

    def read(s, text):
        while True:
            line = s.recv(4096).decode()
            assert re.match(r"^<(22|20|19|18)>[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d postfix/[\w-]+\[\d+\]: ", line)
            if text in line:
                return line

    first = syslogd()
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", 'mount --bind "$1" /dev && shift && exec "$@"', "sh", dev,
                           p.bin / "postfix", "-c", p.etc, "start-fg"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as fg:
        try:
            read(first, "daemon started")
            with p.connect() as line:
                line.say("log one")
                assert "<22>" in read(first, "]: one")
                first.close()
                line.say("log unheard")
                with syslogd() as second:
                    for n in range(100):
                        line.say(f"log again {n}")
                        second.settimeout(1)
                        try:
                            read(second, "]: again")
                            break
                        except TimeoutError:
                            pass
                    else:
                        raise AssertionError("the worker did not find the new syslogd")
        finally:
            fg.send_signal(signal.SIGTERM)
            assert fg.wait(60) == 0
