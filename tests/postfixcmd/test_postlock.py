"""postlock(1): a command under a mailbox lock."""
import contextlib
import fcntl
import os
import signal
import subprocess
import time

import pytest

from instance import Instance, wait_for
from oracle import Oracle


@pytest.fixture(scope="module")
def system():
    instance = Instance(main_cf="deliver_lock_attempts = 2\ndeliver_lock_delay = 1s")
    yield instance
    instance.stop()


@pytest.fixture
def mbox(system):
    path = system.directory / "box"
    for old in (path, system.directory / "box.lock"):
        old.unlink(missing_ok=True)
    return path


def postlock(system, *args, **kwargs):
    return system.command("postlock", *args, capture_output=True, **kwargs)


def test_status(system, mbox):
    assert postlock(system, mbox, "sh", "-c", "exit 7").returncode == 7
    assert postlock(system, mbox, "sh", "-c", "kill -9 $$").returncode == 1
    assert postlock(system, "-v", mbox, "true").returncode == 0
    done = postlock(system, mbox, "/nonexistent")
    assert done.returncode == 1
    assert "execvp /nonexistent: No such file" in done.stderr
    assert not os.path.exists(f"{mbox}.lock")


@pytest.mark.parametrize("args,text", [
    ([], "usage: postlock"), (["{}"], "usage: postlock"), (["-x", "{}", "true"], "usage: postlock"),
    (["-l", "bogus", "{}", "true"], 'unknown mailbox_delivery_lock value "bogus"'),
    (["/nonexistent/box", "true"], "open file /nonexistent/box"),
    (["/tmp", "true"], "open file /tmp"),
    (["-c", "/nonexistent", "{}", "true"], "/nonexistent/main.cf"),
])
def test_tempfail(system, mbox, args, text):
    done = postlock(system, *(arg.format(mbox) for arg in args))
    assert done.returncode == 75
    assert "fatal: " in done.stderr and text in done.stderr


def test_what_is_held(system, mbox):
    """The lock file while the command runs, the other locks for other programs; all gone afterwards."""
    look = f"test -e {mbox}.lock && echo dot; flock -n {mbox} true || echo flock"
    assert postlock(system, mbox, "sh", "-c", look).stdout == "dot\n"  # the default: fcntl, dotlock
    assert postlock(system, "-l", "flock", mbox, "sh", "-c", look).stdout == "flock\n"
    assert postlock(system, "-l", "dotlock, flock", mbox, "sh", "-c", look).stdout == "dot\nflock\n"
    assert not os.path.exists(f"{mbox}.lock")
    assert mbox.stat().st_mode & 0o777 == 0o600


def test_lock_style_of_main_cf(system, mbox):
    own = Instance(main_cf="mailbox_delivery_lock = flock")
    try:
        look = f"test -e {mbox}.lock && echo dot; flock -n {mbox} true || echo flock"
        assert own.command("postlock", mbox, "sh", "-c", look, capture_output=True).stdout == "flock\n"
        by_option = system.command("postlock", "-c", own.etc, mbox, "sh", "-c", look, capture_output=True)
        assert by_option.stdout == "flock\n"
    finally:
        own.stop()


@pytest.mark.parametrize("style", ["dotlock", "flock", "fcntl"])
def test_held_by_another(system, mbox, style):
    ran = system.directory / "ran"
    ran.unlink(missing_ok=True)
    mbox.write_text("")
    with mbox.open("r+") as f:
        if style == "dotlock":
            (system.directory / "box.lock").write_text("")
        elif style == "flock":
            fcntl.flock(f, fcntl.LOCK_EX)
        else:
            fcntl.lockf(f, fcntl.LOCK_EX)
        done = postlock(system, "-l", style, mbox, "touch", ran)
        assert done.returncode == 75
        assert ("File exists" if style == "dotlock" else "unable to lock for exclusive access") in done.stderr
        assert not ran.exists()


def test_fcntl_lock_is_ours(system, mbox):
    look = ("import fcntl, sys\n"
            "try: fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "except OSError: print('held')\n")
    assert postlock(system, "-l", "fcntl", mbox, "/usr/bin/python3", "-c", look, mbox).stdout == "held\n"


def test_stale_lock_file(system, mbox):
    lock, main_cf = system.directory / "box.lock", system.etc / "main.cf"
    lock.write_text("")
    os.utime(lock, (1, 1))  # anybody can say so: what counts is when the file was changed
    before = main_cf.read_text()
    try:
        main_cf.write_text(before + "stale_lock_time = 1s\n")
        time.sleep(2.1)
        assert postlock(system, "-l", "dotlock", mbox, "true").returncode == 0
        main_cf.write_text(before + "stale_lock_time = 500s\n")
        lock.write_text("")
        os.utime(lock, (1, 1))
        assert postlock(system, "-l", "dotlock", mbox, "true").returncode == 75
    finally:
        main_cf.write_text(before)
        lock.unlink(missing_ok=True)


def test_terminated(system, mbox):
    """The command is told, and the lock goes when it has ended."""
    script = f"trap 'echo told; exit 3' TERM; echo ready > {mbox}.ready; while :; do sleep 0.1; done"
    with subprocess.Popen([system.bin / "postlock", mbox, "sh", "-c", script], env=system.environment(),
                          stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        try:
            wait_for(lambda: os.path.exists(f"{mbox}.ready"), what="the command")
            run.send_signal(signal.SIGTERM)
            assert run.wait(30) == 3
            assert run.stdout.read() == "told\n"
        finally:
            with contextlib.suppress(ProcessLookupError):  # the command too, where postlock left it behind
                os.killpg(run.pid, signal.SIGKILL)
    assert not os.path.exists(f"{mbox}.lock")


def test_links(system, mbox, tmp_path):
    """Under a name of somebody else's choice no other file is locked or made."""
    os.symlink(tmp_path / "target", mbox)
    os.chown(mbox, 12345, 12345, follow_symlinks=False) if os.geteuid() == 0 else None
    if os.geteuid() == 0:
        assert postlock(system, mbox, "true").returncode == 75
        assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("args", [
    [], ["{}"], ["{}", "sh", "-c", "exit 7"], ["{}", "sh", "-c", "kill -9 $$"], ["-l", "bogus", "{}", "true"],
    ["/nonexistent/box", "true"], ["{}", "/nonexistent"], ["-l", "fcntl", "{}", "ls"],
])
def test_same_as_debians(system, mbox, args):
    if Oracle.why_not():
        pytest.skip(Oracle.why_not())
    oracle = Oracle()
    oracle.write()
    try:
        args = [arg.format(mbox) for arg in args]
        theirs = oracle.command("postlock", *args, capture_output=True, text=True, cwd=system.queue)
        ours = postlock(system, *args)
        assert ours.returncode == theirs.returncode
        assert bool(ours.stderr) == bool(theirs.stderr)
        if "bogus" not in args:  # there ours also says which are right
            assert ours.stderr == theirs.stderr.replace(f"{oracle.root}/usr/sbin/", "")
    finally:
        oracle.stop()
