"""postfix(1): what is not in tests/master: drain, logrotate, upgrade-configuration, post-install, non-bdb, output."""
import gzip
import os
import re
import socket
import stat
import time

import pytest

from instance import Instance, wait_for


@pytest.fixture
def system():
    one = Instance()
    yield one
    one.stop()


def test_speaks_to_a_pipe(system):
    """As Postfix since 3.8; each line as in the log."""
    done = system.postfix("status")
    assert (done.returncode, done.stderr) == (1, "postfix/postfix-script: the Postfix mail system is not running\n")
    assert "postfix/postfix-script[" in system.log()
    done = system.command("postlog", "-t", "mine", "-p", "warn", "a", "b", capture_output=True)
    assert done.stderr == "postfix/postlog: warning: a b\n"


@pytest.mark.parametrize("priority,text", [("info", ""), ("warn", "warning: "), ("warning", "warning: "),
                                           ("err", "error: "), ("error", "error: "), ("fatal", "fatal: "),
                                           ("crit", "fatal: "), ("panic", "panic: ")])
def test_postlog_priorities(system, priority, text):
    assert system.command("postlog", "-p", priority, "words").returncode == 0
    assert re.search(rf"postfix/postlog\[\d+\]: {text}words$", system.log(), re.M)


def test_debugging(system):
    """-D: each daemon runs debugger_command before it begins, and without -D none does."""
    seen = system.directory / "debugged"
    seen.touch()
    system.extra = f"debugger_command = echo $process_name >> {seen}\n"
    system.write_config()
    system.postfix("start", check=True)
    system.postfix("stop", check=True)
    assert seen.read_text() == ""
    system.postfix("-D", "start", check=True)
    wait_for(lambda: {"qmgr", "pickup"} <= set(seen.read_text().split()), what="qmgr and pickup under the debugger")


def test_unknown_command(system):
    done = system.postfix("frob")
    assert done.returncode == 1 and "unknown command: 'frob'" in done.stderr
    done = system.postfix("check", "now")
    assert done.returncode == 1 and "no arguments" in done.stderr


# --- drain, quick-stop ---
def begin_message(s):
    f = s.makefile("rwb")
    assert f.readline().startswith(b"220 ")
    for line, code in (("HELO x", "250"), ("MAIL FROM:<a@mail.example>", "250"), ("RCPT TO:<root@mail.example>", "250"),
                       ("DATA", "354")):
        f.write(f"{line}\r\n".encode())
        f.flush()
        assert f.readline().decode().startswith(code)
    return f


def test_drain_waits_for_mail(system):
    """Nobody new comes in; who is sending may take longer than `stop` would give."""
    system.start()
    with socket.create_connection(("127.0.0.1", system.port), timeout=60) as s:
        f = begin_message(s)
        assert system.postfix("drain").returncode == 0

        def refused():
            try:
                socket.create_connection(("127.0.0.1", system.port), timeout=5).close()
            except OSError:
                return True
            return False
        wait_for(refused, what="the port to be closed")
        time.sleep(7)  # past the five seconds of `stop`
        f.write(b"Subject: x\r\n\r\nx\r\n.\r\n")
        f.flush()
        assert f.readline().startswith(b"250 2.0.0 Ok: queued as")
        f.close()
    wait_for(lambda: not system.running(), seconds=30, what="the end")


def test_stop_ends_a_drain(system):
    system.start()
    with socket.create_connection(("127.0.0.1", system.port), timeout=60) as s:
        begin_message(s)
        assert system.postfix("drain").returncode == 0
        assert system.running()
        assert system.postfix("stop").returncode == 0
    assert not system.running()


def test_quick_stop(system):
    system.start()
    with socket.create_connection(("127.0.0.1", system.port), timeout=60) as s:
        begin_message(s)
        assert system.postfix("quick-stop").returncode == 0
    assert system.pids() == []
    for name in ("quick-stop", "drain"):
        assert system.postfix(name).returncode == 1


# --- logrotate ---
def test_logrotate_names_and_compressor(system):
    with (system.etc / "main.cf").open("a") as main:
        main.write("maillog_file_rotate_suffix = old-%Y\nmaillog_file_compressor = true\n")
    system.postfix("status")
    text = system.log()
    assert system.postfix("logrotate").returncode == 0
    rotated, = (path for path in system.directory.iterdir() if path.name.startswith("log."))
    assert re.fullmatch(r"log\.old-\d{4}", rotated.name)
    assert rotated.read_text().startswith(text)
    system.log_file.write_text("more")
    done = system.postfix("logrotate")  # the name is taken: nothing is lost
    assert done.returncode == 1 and "rotation failed: the name is taken" in done.stderr
    assert rotated.read_text().startswith(text) and "more" in system.log()


def test_logrotate_default(system):
    system.postfix("status")
    assert system.postfix("logrotate").returncode == 0
    rotated, = (path for path in system.directory.iterdir() if path.name.startswith("log."))
    assert re.fullmatch(r"log\.\d{8}-\d{6}\.gz", rotated.name)
    assert "is not running" in gzip.open(rotated, "rt").read()


@pytest.mark.parametrize("line,text", [
    ("maillog_file =", "empty 'maillog_file'"), ("maillog_file = /dev/stdout\nmaillog_file_prefixes = /dev", "not rotating '/dev/stdout'"),
    ("maillog_file_rotate_suffix = a/b", "bad maillog_file_rotate_suffix"),
])
def test_logrotate_refuses(system, line, text):
    with (system.etc / "main.cf").open("a") as main:
        main.write(f"{line}\n")
    done = system.postfix("logrotate")
    assert done.returncode == 1 and text in done.stderr


def test_logrotate_compressor_fails(system):
    with (system.etc / "main.cf").open("a") as main:
        main.write("maillog_file_compressor = false\n")
    system.postfix("status")
    done = system.postfix("logrotate")
    assert done.returncode == 0 and "warning: logfile" in done.stderr


# --- upgrade-configuration, post-install ---
def services(system):
    return {tuple(line.split()[:2]) for line in (system.etc / "master.cf").read_text().splitlines()
            if line and line[0] not in "# \t"}


def test_upgrade_configuration(system):
    """Missing services come from the stock master.cf; what is there and ports stay as they are."""
    path = system.etc / "master.cf"
    before = path.read_text()
    path.write_text(before.replace("bounce     unix", "#bounce    unix", 1).rstrip("\n"))  # no newline at its end
    path.chmod(0o640)
    done = system.postfix("upgrade-configuration")
    assert done.returncode == 0, done.stderr
    assert f"Editing {path}, adding missing entry for bounce service\n" in done.stdout
    assert f"Editing {path}, adding missing entry for scache service\n" in done.stdout
    assert "entry for pickup" not in done.stdout and "entry for smtp " not in done.stdout
    assert {("bounce", "unix"), ("scache", "unix"), ("flush", "unix")} <= services(system)
    assert ("smtp", "inet") not in services(system)
    assert path.read_text().startswith(before.replace("bounce     unix", "#bounce    unix", 1).rstrip("\n"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    text = path.read_text()
    assert system.postfix("upgrade-configuration").stdout == ""
    assert path.read_text() == text
    assert sorted(os.listdir(system.etc)) == ["main.cf", "master.cf"]


def test_upgrade_keeps_continuations(system):
    path = system.etc / "master.cf"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("relay")))
    assert system.postfix("upgrade-configuration").returncode == 0
    assert re.search(r"^relay +unix.*\n  -o syslog_name=", path.read_text(), re.M)


def test_upgrade_sets_parameters(system):
    assert system.postfix("upgrade-configuration", f"sendmail_path={system.bin}/sendmail").returncode == 0
    assert system.postconf("sendmail_path") == f"{system.bin}/sendmail"
    assert system.postfix("upgrade-configuration", "myhostname=x.example").returncode == 1


def test_upgrade_of_a_broken_file(system):
    path = system.etc / "master.cf"
    path.write_text("frob\n")
    assert system.postfix("upgrade-configuration").returncode == 1
    assert path.read_text() == "frob\n"


@pytest.mark.parametrize("words,upgraded,made", [
    (["create-missing"], False, True), (["set-permissions"], False, True), (["upgrade-configuration"], True, False),
    (["upgrade-package"], True, True), (["upgrade-configuration", "create-missing"], True, True),
])
def test_post_install(system, words, upgraded, made):
    assert system.postfix("post-install", *words).returncode == 0
    assert (("scache", "unix") in services(system)) == upgraded
    assert (system.queue / "incoming").exists() == made


def test_post_install_usage(system):
    for words in ([], ["frob"], ["a=b"]):
        done = system.postfix("post-install", *words)
        assert done.returncode == 1 and "post-install" in done.stderr
    assert not (system.queue / "incoming").exists()


# --- non-bdb ---
def test_non_bdb(system):
    before = (system.etc / "main.cf").read_text()
    done = system.postfix("non-bdb", "status")
    assert (done.returncode, done.stdout) == (0, "enable-reindex\n")
    assert "hash: and btree: are LMDB tables here" in done.stderr
    for name in ("enable-redirect", "enable-reindex"):
        done = system.postfix("non-bdb", name)
        assert done.returncode == 0 and "LMDB" in done.stderr
    done = system.postfix("non-bdb", "disable")
    assert done.returncode == 1 and "no Berkeley DB to go back to" in done.stderr
    for words in ([], ["frob"], ["status", "now"]):
        assert system.postfix("non-bdb", *words).returncode == 1
    assert (system.etc / "main.cf").read_text() == before
    assert max(map(len, system.postfix("non-bdb", "status").stderr.splitlines())) <= 80 + len("postfix/postfix-script: ")


@pytest.mark.parametrize("command", [
    ["postfix", "set-permissions", "sample_directory=/x\nalways_bcc = thief"],
    ["postfix", "upgrade-configuration", "sample_directory=/x\nalways_bcc = thief"],
    ["postfix", "tls", "enable-client", "-r", "x\nalways_bcc = thief"],
    ["postmulti", "-e", "assign", "-i", "-", "-G", "x\nalways_bcc=thief"],
    ["postmulti", "-e", "assign", "-i", "-", "-I", "postfix-x\nalways_bcc=thief"],
])
def test_no_second_line(machine, command):
    """A value with a line break would be two settings."""
    if command[0] == "postmulti":
        assert machine.command("postmulti", "-e", "init").returncode == 0
    done = machine.command(*command)
    assert done.returncode == 1 and "line break" in done.stderr, done.stderr
    assert "always_bcc" not in (machine.etc / "main.cf").read_text()
