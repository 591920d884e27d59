"""postfix(1): start, stop, status, check, and what master logs about it."""
import contextlib
import os
import signal
import socket
import stat
import subprocess
import time

import pytest
from instance import free_port, wait_for

ROOT = os.geteuid() == 0


def test_start_status_stop(make_probe):
    p = make_probe(start=False)
    assert p.postfix("status").returncode == 1
    assert p.postfix("stop").returncode == 1
    assert p.postfix("reload").returncode == 1
    assert p.postfix("start").returncode == 0
    pid = p.master_pid()
    assert p.postfix("status").returncode == 0
    assert p.ask("echo here") == "here"
    assert p.postfix("stop").returncode == 0
    assert p.pids() == []
    assert p.postfix("status").returncode == 1
    for line in ("postfix/postfix-script[", "]: starting the Postfix mail system",
                 f"postfix/master[{pid}]: daemon started -- version 3.12.0, configuration {p.etc}",
                 f"]: the Postfix mail system is running: PID: {pid}",
                 "]: stopping the Postfix mail system", f"postfix/master[{pid}]: terminating on signal 15",
                 "]: the Postfix mail system is not running",
                 "]: fatal: the Postfix mail system is not running"):
        p.wait_log(line)
    assert p.postfix("start").returncode == 0
    assert p.ask("echo again") == "again"


def test_second_start(probe):
    pid = probe.master_pid()
    again = probe.postfix("start")
    assert again.returncode == 1
    probe.wait_log("fatal: the Postfix mail system is already running")
    direct = subprocess.run([probe.daemons / "master", "-d"], env=probe.environment(), capture_output=True, timeout=60)
    assert direct.returncode == 1
    probe.wait_log("fatal: open lock file pid/master.pid: unable to set exclusive lock: Resource temporarily unavailable")
    assert probe.master_pid() == pid
    assert probe.ask("echo alive") == "alive"


def test_same_data_directory(make_probe):
    first = make_probe()
    second = make_probe(start=False, name="second", main_cf=f"data_directory = {first.data}")
    assert second.postfix("start").returncode == 1
    second.wait_log(f"fatal: open lock file {first.data}/master.lock: unable to set exclusive lock")
    second.wait_log("fatal: mail system startup failed")


def test_port_in_use(make_probe):
    p = make_probe(start=False)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", p.port))
        taken.listen()
        assert p.postfix("start").returncode == 1
        p.wait_log(f"bind 127.0.0.1 port {p.port}: Address already in use")
    assert p.postfix("start").returncode == 0


@pytest.mark.parametrize("args", [["frob"], [], ["start", "now"], ["-x"]])
def test_bad_usage(make_probe, args):
    p = make_probe(start=False)
    assert p.command("postfix", "-c", p.etc, *args, capture_output=True).returncode == 1


def test_bad_main_cf(make_probe):
    p = make_probe(start=False)
    p.edit_main("service_throttle_time = soon")
    assert p.postfix("start").returncode == 1
    assert p.postfix("status").returncode == 1
    assert p.pids() == []


def test_bad_master_cf(make_probe):
    p = make_probe(start=False)
    p.edit_master("cleanup unix", "cleanup nosuchtype")
    assert p.postfix("start").returncode == 1
    assert "master.cf" in p.wait_log("fatal: ")
    p.wait_log("fatal: Postfix integrity check failed!")


def test_no_postlog_service(make_probe):
    p = make_probe(start=False)
    p.edit_master("postlog unix-dgram", "#postlog unix-dgram")
    assert p.postfix("start").returncode == 1
    p.wait_log("missing 'postlog' service in master.cf")


def test_check_makes_directories(make_probe):
    p = make_probe(start=False)
    assert p.postfix("check").returncode == 0
    modes = {name: stat.S_IMODE((p.queue / name).stat().st_mode) for name in os.listdir(p.queue)}
    want = dict.fromkeys("active bounce corrupt defer deferred flush hold incoming log private saved trace".split(), 0o700)
    assert modes == {**want, "maildrop": 0o730, "public": 0o710, "pid": 0o755}
    if ROOT:
        import grp
        import pwd
        postfix, group = pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postdrop").gr_gid
        for name in os.listdir(p.queue):
            assert (p.queue / name).stat().st_uid == (0 if name == "pid" else postfix)
        assert (p.queue / "maildrop").stat().st_gid == (p.queue / "public").stat().st_gid == group


def test_check_warns(make_probe):
    p = make_probe(start=False)
    p.postfix("check")
    (p.etc / "main.cf").chmod(0o666)
    (p.queue / "active").chmod(0o770)
    (p.queue / "corrupt" / "ABC").write_text("x")
    p.edit_master("pickup  unix", "other unix - - n - - nosuchprogram\npickup unix")
    p.edit_main("my_destination = x")
    assert p.postfix("check").returncode == 0
    log = p.log()
    assert f"warning: group or other writable: {p.etc}/main.cf" in log
    assert f"warning: group or other writable: {p.queue}/active" in log
    assert "warning: damaged message: corrupt/ABC" in log
    assert "nosuchprogram" in log
    assert "my_destination" in log


def test_service_without_a_daemon(make_probe):
    """A mistyped program name is a warning with its line."""
    p = make_probe(start=False)
    p.edit_master("pickup  unix", "typo unix - - n - - piep\npickup unix")
    assert p.postfix("check").returncode == 0
    [warning] = [line for line in p.log().splitlines() if "piep" in line]
    assert "service typo: cannot execute" in warning


def test_abort_is_quick_although_sessions_run(probe):
    with probe.connect() as line:
        assert line.ask("pid")
        assert probe.postfix("abort").returncode == 0
        assert probe.pids() == []
        assert line.ask("pid") == ""
    probe.wait_log("aborting the Postfix mail system")


def test_stop_lets_sessions_end(probe):
    """The front drains while what it needs is there; nobody waits for ever."""
    with probe.connect() as line:
        assert line.ask("hold") == "holding"
        with subprocess.Popen([probe.bin / "postfix", "-c", probe.etc, "stop"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as stop:
            assert line.read() == "drained"
            assert line.ask("connect public/cleanup echo still") == "still"
            line.close()
            assert stop.wait(60) == 0
    assert probe.pids() == []


def test_stop_ends_sessions_that_do_not(probe):
    with probe.connect() as line:
        assert line.ask("pid")
        assert probe.postfix("stop").returncode == 0
        assert probe.pids() == []
    probe.wait_log("waiting for the Postfix mail system to terminate")


def test_kill_master(probe):
    """Workers end when master does; the next start does not meet them."""
    assert probe.ask("echo x") == "x"
    workers = set(probe.pids()) - {probe.master_pid()}
    assert workers
    os.kill(probe.master_pid(), signal.SIGKILL)
    wait_for(lambda: not probe.pids(), what="the workers to end")
    assert probe.postfix("status").returncode == 1
    assert probe.postfix("start").returncode == 0
    assert probe.ask("echo back") == "back"


def test_kill_master_with_a_session(make_probe):
    """A session may finish, but the service's single process is not doubled meanwhile."""
    probe = make_probe(extra="single unix n - n - 1 bounce\n")
    with probe.local("public/single") as old:
        first = old.ask("pid")
        os.kill(probe.master_pid(), signal.SIGKILL)
        wait_for(lambda: not probe.running())
        assert probe.postfix("start").returncode == 0
        assert old.ask("pid") == first
        with probe.local("public/single") as new:
            new.socket.settimeout(1)
            new.say("pid")
            with pytest.raises(TimeoutError):
                new.socket.recv(1, socket.MSG_PEEK)
            old.close()
            new.socket.settimeout(30)
            assert new.read() not in ("", first)


def test_start_fg_to_standard_output(make_probe):
    p = make_probe(start=False)
    p.edit_main("maillog_file = /dev/stdout\nmaillog_file_prefixes = /dev/stdout")
    assert p.postfix("start").returncode == 1
    out = p.directory / "out"
    with out.open("wb") as f:
        fg = subprocess.Popen([p.bin / "postfix", "-c", p.etc, "start-fg"], stdout=f, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: "daemon started" in out.read_text())
        assert p.master_pid() == fg.pid
        with p.connect() as line:
            line.say("log from a worker")
            wait_for(lambda: "postfix/testd[" in out.read_text() and "]: from a worker" in out.read_text())
        fg.send_signal(signal.SIGINT)
        assert fg.wait(60) == 0
        assert "terminating on signal 2" in out.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            fg.kill()
        fg.wait()


def test_processes_below_process_one(make_probe):
    """As a container's process 1: it comes up, reaps what it inherits, and ends by a signal."""
    if not ROOT:
        pytest.skip("needs a process id namespace of its own")
    p = make_probe(start=False)
    init = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", p.bin / "postfix", "-c", p.etc,
                             "start-fg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        p.wait_log("daemon started")
        assert p.ask("echo inside") == "inside"
        inner = next(pid for pid in p.pids("master"))
        os.kill(inner, signal.SIGTERM)
        assert init.wait(60) == 0
        p.wait_log("terminating on signal 15")
    finally:
        with contextlib.suppress(ProcessLookupError):
            init.kill()
        init.wait()


def test_ordinary_user(make_probe):
    """Everything that needs no root works without it."""
    if not ROOT:
        pytest.skip("all the others run as an ordinary user already")
    p = make_probe(user="nobody", smtpd="10 smtpd empty")
    assert p.ask("uid") == str(__import__("pwd").getpwnam("nobody").pw_uid)
    assert p.ask("connect public/cleanup echo through") == "through"
    if "ASAN_OPTIONS" not in os.environ:  # a sanitizer's runtime must open files
        assert "Permission denied" in p.ask("open /etc/passwd")
    assert p.postfix("status").returncode == 0
    assert p.postfix("check").returncode == 0
    p.reload_and_wait()
    assert p.ask("echo more") == "more"
    assert p.postfix("stop").returncode == 0
    assert p.pids() == []


def test_dial_reaches_what_the_configuration_names_and_nothing_else(make_probe):
    """A confined daemon has no paths: master connects sockets that were named while it started."""
    p = make_probe(smtpd="10 smtpd dial=unix:public/cleanup empty")
    assert p.ask("dial unix:public/cleanup echo through") == "through"
    assert p.ask("dial unix:public/qmgr echo no") == \
        "denied: not allowed: its configuration did not name it when it started"
    p.wait_log("connection to public/qmgr refused: smtpd has no business there")
    assert p.ask(f"dial inet:127.0.0.1:{p.port} echo by network") == "by network"
    assert p.ask("dial inet:[127.0.0.1]:1 echo nobody") == "failed: Connection refused"


def test_dial_waits_for_nobody_who_is_not_there(make_probe):
    p = make_probe(smtpd="10 smtpd dial=unix:private/gone empty")
    assert p.ask("dial unix:private/gone echo x") == "failed: No such file or directory"


def test_somebody_elses_queue(probe):
    if not ROOT:
        pytest.skip("needs another user")
    done = subprocess.run([probe.bin / "postfix", "-c", probe.etc, "stop"], user="nobody", group="nogroup", extra_groups=[],
                          capture_output=True, timeout=60)
    assert done.returncode == 1
    assert probe.running()


def test_daemon_by_hand(make_probe):
    p = make_probe(start=False)
    done = subprocess.run([p.daemons / "smtpd"], env=p.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "do not run this command by hand" in done.stderr


def test_standalone(make_probe):
    """A daemon's session on standard input and output, as below `sendmail -bs`."""
    p = make_probe(start=False)
    p.postfix("check")
    done = subprocess.run([p.daemons / "smtpd", "-S"], env=p.environment(), input="name\necho hello\n", capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "hello"


def test_wait_for_time(make_probe):
    """master -e: ends by itself."""
    p = make_probe(start=False)
    p.postfix("check")
    begin = time.monotonic()
    done = subprocess.run([p.daemons / "master", "-d", "-e", "1"], env=p.environment(), timeout=60,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert done.returncode == 0 and time.monotonic() - begin >= 1
    assert free_port()
