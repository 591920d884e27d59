"""Services: on demand, limits, restarts, reload, wakeups, who may talk to whom."""
import contextlib
import os
import resource
import signal
import socket
import threading
import time

import pytest
from instance import free_port, wait_for

ROOT = os.geteuid() == 0


def test_on_demand(probe):
    assert probe.pids("smtpd") == []
    pid = probe.ask("pid")
    assert probe.pids("smtpd") == [int(pid)]
    assert probe.ask("pid") == pid
    assert probe.ask("name") == f"127.0.0.1:{probe.port}"


def test_session_limit(make_probe):
    p = make_probe(smtpd="2 smtpd")
    assert p.ask("limit") == "2"
    with p.connect() as first, p.connect() as second, p.connect() as third:
        assert first.ask("pid") == second.ask("pid")
        p.wait_log(f'warning: service "127.0.0.1:{p.port}" (127.0.0.1:{p.port}) has reached its process limit "2": '
                   "new clients may experience noticeable delays")
        third.say("echo waited")
        third.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            third.socket.recv(1, socket.MSG_PEEK)
        third.socket.settimeout(30)
        first.close()
        assert third.read() == "waited"


def test_several_workers(make_probe):
    """service_worker_limit workers share the socket and maxproc; a full one leaves the rest to the others."""
    p = make_probe(smtpd="6 smtpd", main_cf="service_worker_limit = 3")
    lines = [p.connect() for _ in range(6)]
    pids = [line.ask("pid") for line in lines]
    assert len(set(pids)) == 3 and all(pids.count(pid) == 2 for pid in pids)
    with p.connect() as seventh:
        seventh.say("pid")
        seventh.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            seventh.socket.recv(1, socket.MSG_PEEK)
        seventh.socket.settimeout(30)
        lines[3].close()
        assert seventh.read() == pids[3]
    for line in lines:
        line.close()


def test_worker_killed(probe):
    pid = int(probe.ask("pid"))
    os.kill(pid, signal.SIGKILL)
    probe.wait_log(f"warning: process {probe.daemons}/smtpd pid {pid} killed by signal 9")
    assert probe.ask("pid") not in ("", str(pid))
    assert "throttling" not in probe.log()


def test_end_while_a_thread_works(probe):
    """What its thread uses is not taken away: the process ends without cleaning up."""
    with probe.connect() as line:
        pid = int(line.ask("pid"))
        assert line.ask("thread") == "working"
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    assert probe.ask("echo next") == "next"
    assert "libraries end" not in probe.log() and "killed by signal" not in probe.log()


def test_crashes_slow_down_and_nobody_else(make_probe):
    """RX-05: one that crashes in its work comes back at once, then later and later; not after a minute."""
    other = free_port()
    p = make_probe(extra=f"127.0.0.1:{other} inet n - n - 10 smtp\n")
    for _ in range(4):
        assert p.ask("crash") == ""
        assert p.ask("echo well", port=other) == "well"
    assert p.ask("echo back") == "back"
    assert p.count_log("killed by signal 6") == 4
    assert "throttling" not in p.log()


@pytest.mark.parametrize("service,cause", [("smtpd fail", "exit status 1"), ("nosuchprogram", "No such file")])
def test_bad_command_is_throttled(make_probe, service, cause):
    other = free_port()
    p = make_probe(smtpd=f"10 {service}", extra=f"127.0.0.1:{other} inet n - n - 10 smtp\n",
                   main_cf="service_throttle_time = 1000s")
    program = p.daemons / service.split()[0]
    with p.connect() as waiting:
        p.wait_log(f"warning: {program}: bad command startup -- throttling")
        assert cause in p.log()
        assert p.ask("echo well", port=other) == "well"
        time.sleep(1)
        assert p.count_log("throttling") == 1
        # again after the throttle time, for the client that waits
        p.edit_main("service_throttle_time = 1s")
        p.reload_and_wait()
        wait_for(lambda: p.count_log("throttling") >= 3)
        # the administrator mends it
        p.edit_master(service, "smtpd")
        p.reload_and_wait()
        assert waiting.ask("echo served") == "served"


def test_reload_new_generation(probe):
    with probe.connect() as held:
        assert held.ask("hold") == "holding"
        old = probe.pids("smtpd")
        probe.reload_and_wait()
        assert held.read() == "drained"
        new = probe.ask("pid")
        assert int(new) not in old
        assert held.ask("pid") == str(old[0])  # a session ends in its own time
        held.close()
        wait_for(lambda: probe.pids("smtpd") == [int(new)])
    probe.wait_log(f"reload -- version 3.12.0, configuration {probe.etc}")


def test_reload_single_process_waits(make_probe):
    """maxproc 1: never two at a time."""
    probe = make_probe(extra="single unix n - n - 1 bounce\n")
    with probe.local("public/single") as old:
        pid = old.ask("pid")
        assert old.ask("hold") == "holding"
        probe.reload_and_wait()
        assert old.read() == "drained"
        with probe.local("public/single") as new:
            new.say("pid")
            time.sleep(0.5)
            assert probe.pids("bounce") == [int(pid)]
            assert old.ask("pid") == pid
            old.close()
            assert new.read() not in ("", pid)


def test_reload_changes_services(probe):
    added, moved = free_port(), free_port()
    probe.edit_master(f"127.0.0.1:{probe.port} inet", f"127.0.0.1:{moved} inet")
    probe.edit_master("postlog unix-dgram", f"127.0.0.1:{added} inet n - n - 10 smtp\npostlog unix-dgram")
    probe.edit_master("rewrite unix", "#rewrite unix")
    assert (probe.queue / "private/rewrite").exists()
    with probe.connect() as old:
        assert old.ask("echo before") == "before"
        probe.reload_and_wait()
        assert probe.ask("echo moved", port=moved) == "moved"
        assert probe.ask("echo added", port=added) == "added"
        with pytest.raises(ConnectionRefusedError):
            probe.connect()
        assert old.ask("echo still") == "still"
    assert not (probe.queue / "private/rewrite").exists()
    wait_for(lambda: len(probe.pids("smtpd")) == 1)


def test_reload_broken_files(probe):
    good = (probe.etc / "master.cf").read_text()
    (probe.etc / "master.cf").write_text(good + "what is this\n")
    assert probe.reload().returncode == 0
    probe.wait_log("going on with the old configuration")
    assert probe.ask("echo served") == "served"
    (probe.etc / "master.cf").write_text(good)
    main = (probe.etc / "main.cf").read_text()
    (probe.etc / "main.cf").write_text(main + "default_process_limit = many\n")
    assert probe.reload().returncode == 1
    os.kill(probe.master_pid(), signal.SIGHUP)
    wait_for(lambda: probe.count_log("going on with the old configuration") == 2)
    assert probe.ask("echo served") == "served"
    (probe.etc / "main.cf").write_text(main)
    probe.reload_and_wait()


def test_reload_refuses_nobody(make_probe):
    """Connections while the configuration is read again and again."""
    p = make_probe(smtpd="0 smtpd")
    stop = threading.Event()
    answers = []

    def client():
        while not stop.is_set():
            try:
                answers.append(p.ask("echo x"))
            except OSError as e:
                answers.append(repr(e))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for t in threads:
        t.start()
    for _ in range(8):
        before = len(answers)
        p.reload_and_wait()
        wait_for(lambda: len(answers) > before + 8, what="answers")
    stop.set()
    for t in threads:
        t.join()
    assert set(answers) == {"x"}


def test_disabled_services(make_probe):
    p = make_probe(main_cf="master_service_disable = inet", start=False)
    p.start()
    with pytest.raises(ConnectionRefusedError):
        p.connect()
    p.edit_main(f"master_service_disable = !127.0.0.1:{p.port}/inet, inet")
    p.reload_and_wait()
    assert p.ask("echo on") == "on"


def test_wakeups(probe):
    """pickup and qmgr are woken at the start; later by a trigger."""
    wait_for(lambda: probe.count_log("wakeup W") >= 2)
    assert len(probe.pids("qmgr")) == len(probe.pids("pickup")) == 1
    assert probe.command("postkick", "public", "pickup", "QX").returncode == 0
    probe.wait_log("wakeup QX")
    assert probe.command("postkick", "public", "qmgr", "I").returncode == 0
    probe.wait_log("wakeup I")
    assert probe.postfix("flush").returncode == 0
    probe.wait_log("wakeup FA")
    missing = probe.command("postkick", "public", "nosuch", "I", capture_output=True)
    assert missing.returncode == 1
    assert "Cannot contact class public service nosuch - perhaps the mail system is down" in missing.stderr
    assert probe.command("postkick", "public", capture_output=True).returncode == 1


def test_wakeup_if_used(make_probe):
    p = make_probe(extra="flush unix n - n 1? 0 bounce wake\n")
    time.sleep(1.5)
    assert p.pids("bounce") == []
    with p.local("public/flush") as line:
        assert line.ask("echo x") == "x"
    before = p.count_log("wakeup W")
    wait_for(lambda: p.count_log("wakeup W") > before)


def test_roles(make_probe):
    p = make_probe(extra="verify unix - - n - 1 bounce\nspecial unix n - n - 0 cleanup\n"
                         "127.0.0.1:{port2} inet n - n - 10 smtpd -o cleanup_service_name=special\n"
                         .replace("{port2}", str(port2 := free_port())))
    assert p.ask("connect public/cleanup echo made") == "made"
    assert p.ask("connect private/rewrite echo made") == "made"
    assert p.ask("connect public/cleanup connect private/rewrite echo deep") == "deep"
    # has no business there; is not there; is not a service at all
    for endpoint in ("public/pickup", "private/smtp", "public/special", "private/../public/cleanup", "/etc/passwd", "x"):
        assert p.ask(f"connect {endpoint} echo x") == "denied: not allowed"
    assert p.ask("connect private/anvil echo x") == "failed: No such file or directory"
    # the name is a parameter, and -o counts for the entry it stands in
    assert p.ask("connect public/special name", port=port2) == "special"
    assert p.ask("connect public/cleanup echo x", port=port2) == "denied: not allowed"
    assert p.ask("trigger public/qmgr K") == "sent"
    p.wait_log("wakeup K")
    assert p.ask("trigger public/pickup P") == "sent"
    p.wait_log("trigger to public/pickup refused")
    for _ in range(200):  # one that asks again and again does not fill the log
        assert p.ask("connect public/pickup echo x") == "denied: not allowed"
    assert "wakeup P" not in p.log() and p.count_log("refused: smtpd has no business there") < 60


def test_many_triggers(make_probe):
    """A service that does not read is sent no more than so much; what it is to be told in the end, it is told."""
    p, many = make_probe(), 40000
    wait_for(lambda: p.count_log("wakeup W") >= 2)
    qmgr = p.pids("qmgr")[0]
    os.kill(qmgr, signal.SIGSTOP)
    with p.connect() as line:
        line.file.write(b"trigger public/qmgr K\n" * many)
        line.say("trigger public/qmgr Z")
        for _ in range(many + 1):
            assert line.read() == "sent"
        assert line.ask("connect public/cleanup echo done") == "done"  # master has read all before this
    time.sleep(0.5)
    os.kill(qmgr, signal.SIGCONT)
    p.wait_log("wakeup KZ", 60)
    assert p.count_log("wakeup K") < many


def test_confinement(make_probe):
    """Empty root directory, no files; and the user is not root."""
    p = make_probe(smtpd="10 smtpd empty")
    if ROOT:
        import pwd
        assert p.ask("uid") == str(pwd.getpwnam("postfix").pw_uid)
        pid = p.ask("pid")
        assert os.listdir(f"/proc/{pid}/root/") == []
    if ROOT or "ASAN_OPTIONS" not in os.environ:  # a sanitizer's runtime must open files
        assert p.ask("open /etc/passwd") in ("Permission denied", "No such file or directory")
    assert p.ask("connect public/cleanup echo through") == "through"


def test_chroot_column(make_probe):
    if not ROOT:
        pytest.skip("chroot is root's")
    p = make_probe(extra="jail unix n - y - 0 smtp\n")
    with p.local("public/jail") as line:
        assert line.ask("open /etc/passwd") == "No such file or directory"
        assert line.ask("open maildrop") == line.ask("open /maildrop") == "opened"


def test_other_types(make_probe):
    """fifo and pass."""
    p = make_probe(extra="pipe fifo n - n - 1 bounce trigger\nsmtpd pass - - n - 10 smtpd\n")
    assert p.command("postkick", "public", "pipe", "F").returncode == 0
    p.wait_log("wakeup F")
    # a frame with a descriptor: length, type, 1, no payload
    ours, theirs = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(p.queue / "private/smtpd"))
        socket.send_fds(s, [b"\0\0\0\0\x01\x01"], [theirs.fileno()])
        theirs.close()
        ours.settimeout(30)
        ours.sendall(b"echo handed over\n")
        assert ours.recv(100) == b"handed over\n"
    ours.close()


def test_interfaces(make_probe):
    """A port alone: one socket for each of inet_interfaces; names of ports."""
    port, named = free_port(), free_port()
    p = make_probe(main_cf=f"inet_interfaces = loopback-only\ninet_protocols = all\nknown_tcp_ports = smtp=25, own=other={named}",
                   extra=f"{port} inet n - n - 10 smtp\n127.0.0.1:other inet n - n - 10 smtp\n")
    addresses = ["127.0.0.1"]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe6:
        probe6.bind(("::1", 0))
        addresses.append("::1")
    for address in addresses:
        with socket.create_connection((address, port), 30) as s:
            s.sendall(b"echo x\n")
            assert s.recv(10) == b"x\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.3", port), 30)
    assert p.ask("echo named", port=named) == "named"
    assert len(p.pids("smtp")) == 2


def test_many_connections(make_probe):
    """As many at once as descriptors allow here, up to 5,000; all are served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    n = min(5000, hard - 500)
    p = make_probe(smtpd="0 smtpd")
    sockets = []
    try:
        for _ in range(n):
            s = socket.socket()
            s.settimeout(60)
            s.connect(("127.0.0.1", p.port))
            sockets.append(s)
        for i, s in enumerate(sockets):
            s.sendall(b"echo %d\n" % i)
        for i, s in enumerate(sockets):
            assert s.recv(100) == b"%d\n" % i
    finally:
        for s in sockets:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(p.pids("smtpd")) == 1
    assert p.ask("echo after") == "after"


def test_out_of_descriptors(make_probe):
    """The worker stops taking connections until sessions end, says so once, and serves all in the end."""
    p = make_probe(start=False, smtpd="0 smtpd")
    limits = "ulimit -n 60; exec \"$@\""
    done = __import__("subprocess").run(["sh", "-c", limits, "sh", p.bin / "postfix", "-c", p.etc, "start"], timeout=60)
    assert done.returncode == 0
    lines = [p.connect() for _ in range(80)]
    p.wait_log("Too many open files -- taking no connections until a session has ended")
    for line in lines:
        line.say("echo x")
    for line in lines:
        assert line.read() == "x"
        line.close()
    assert p.count_log("Too many open files") == 1


def test_idle_worker_leaves(make_probe):
    """max_idle; and it is back when somebody comes."""
    p = make_probe(main_cf="max_idle = 1s")
    pid = p.ask("pid")
    wait_for(lambda: not p.pids("smtpd"))
    assert p.ask("pid") not in ("", pid)
    assert len(p.pids("qmgr")) == 1  # has work of its own
    assert "exit status" not in p.log()
