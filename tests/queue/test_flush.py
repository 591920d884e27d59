"""Fast flush: mail that waits for a site is tried when the site asks for it (ETRN), or its administrator (postqueue -s)."""
import os
import pwd
import re
import stat
import time

import pytest

from instance import MASTER_CF, free_port, wait_for
from oracle import Oracle
from queue_support import USER, listing, send
from sink import Sink

def dead(port):
    """main.cf lines: mail for these domains goes to a port of this host, and waits for hours when it is refused there."""
    return (f"relay_domains = relay.example, other.example\nrelay_transport = relay:[127.0.0.1]:{port}\n"
            "minimal_backoff_time = 10h\nmaximal_backoff_time = 10h\n")


@pytest.fixture
def make(make_instance):
    def start(main_cf="", **kwargs):
        return make_instance(user=USER if os.geteuid() == 0 else None, main_cf=main_cf, **kwargs)
    return start


def log_of(instance, site):
    path = instance.queue / "flush" / site
    return path.read_text().split() if path.exists() else None


def wait_for_log(instance, site, count):
    wait_for(lambda: len(log_of(instance, site) or []) == count, what=f"{count} ids in the log of {site}")


def test_site(make):
    port = free_port()
    instance = make(dead(port))
    send(instance, ["a@relay.example", "b@Other.example"])
    send(instance, "c@sub.relay.example")
    send(instance, "d@relay.example")
    wait_for_log(instance, "relay.example", 2)
    wait_for_log(instance, "other.example", 1)
    wait_for_log(instance, "sub.relay.example", 1)
    ids = {r["address"]: e["queue_id"] for e in listing(instance) for r in e["recipients"]}
    assert log_of(instance, "other.example") == [ids["b@Other.example"]] == [ids["a@relay.example"]]
    assert log_of(instance, "sub.relay.example") == [ids["c@sub.relay.example"]]
    assert stat.S_IMODE((instance.queue / "flush/relay.example").stat().st_mode) == 0o600
    sink = Sink(port)
    try:
        done = instance.command("postqueue", "-s", "Relay.example", capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        wait_for(lambda: sink.messages == 2)
        assert [e["queue_id"] for e in listing(instance)] == [ids["c@sub.relay.example"]]
        assert log_of(instance, "relay.example") == []
        instance.command("sendmail", "-qRsub.relay.example")
        wait_for(instance.queue_is_empty)
        assert sink.messages == 3
    finally:
        sink.close()


def test_etrn(make):
    port = free_port()
    instance = make(dead(port))
    send(instance, "a@relay.example")
    send(instance, "b@other.example")
    wait_for_log(instance, "relay.example", 1)
    wait_for_log(instance, "other.example", 1)
    sink = Sink(port)
    try:
        with instance.smtp() as smtp:
            smtp.ehlo()
            assert "etrn" in smtp.esmtp_features
            assert smtp.docmd("ETRN", "nobody.example") == (459, b"<nobody.example>: service unavailable")
            assert smtp.docmd("ETRN", "relay.example") == (250, b"Queuing started")
        instance.wait_log("to=<a@relay.example>, relay=127.0.0.1[127.0.0.1]")
        wait_for(lambda: [r["address"] for e in listing(instance) for r in e["recipients"]] == ["b@other.example"])
    finally:
        sink.close()
    instance.wait_log("warning: reject: ETRN nobody.example... from localhost[127.0.0.1]")


def test_one_message(make):
    port = free_port()
    instance = make(dead(port))
    send(instance, "a@relay.example")
    send(instance, "b@relay.example")
    wait_for_log(instance, "relay.example", 2)
    ids = {r["address"]: e["queue_id"] for e in listing(instance) for r in e["recipients"]}
    sink = Sink(port)
    try:
        assert instance.command("sendmail", f"-qI{ids['b@relay.example']}").returncode == 0
        wait_for(lambda: [e["queue_id"] for e in listing(instance)] == [ids["a@relay.example"]])
        assert instance.command("sendmail", "-q").returncode == 0
        wait_for(instance.queue_is_empty)
    finally:
        sink.close()


def test_many(make):
    """More than qmgr takes at a time, none of them before its hour; nothing is left over and nothing comes twice."""
    port = free_port()
    instance = make(dead(port) + "qmgr_message_active_limit = 20\n")
    with instance.smtp() as smtp:
        for i in range(150):
            assert not smtp.sendmail("a@b.example", [f"u{i}@relay.example"], "Subject: x\r\n\r\nhello\r\n")
    wait_for_log(instance, "relay.example", 150)
    sink = Sink(port)
    try:
        assert instance.command("postqueue", "-s", "relay.example").returncode == 0
        wait_for(instance.queue_is_empty, 60)
        assert sink.messages == 150
    finally:
        sink.close()


def tries(instance, address):
    return re.findall(rf"to=<{address}>.*\((.*)\)", instance.log())


def test_what_waits_for_other_reasons(make):
    """A flush tries what defer_transports keeps back; a refresh does not. What is held stays held."""
    port = free_port()
    instance = make(dead(port) + "defer_transports = relay\n")
    send(instance, "a@relay.example")
    wait_for_log(instance, "relay.example", 1)
    assert tries(instance, "a@relay.example") == ["deferred transport"]
    log = instance.queue / "flush/relay.example"
    os.utime(log, (time.time() - 2 * 86400, time.time()))
    assert instance.command("postkick", "public", "flush", "W").returncode == 0
    wait_for(lambda: tries(instance, "a@relay.example") == ["deferred transport"] * 2)
    wait_for_log(instance, "relay.example", 1)
    assert instance.command("postqueue", "-s", "relay.example").returncode == 0
    wait_for(lambda: len(tries(instance, "a@relay.example")) == 3)
    assert "Connection refused" in tries(instance, "a@relay.example")[2]
    wait_for_log(instance, "relay.example", 1)
    # once more: what qmgr has learned of the dead destination is forgotten first
    assert instance.command("postqueue", "-s", "relay.example").returncode == 0
    wait_for(lambda: len(tries(instance, "a@relay.example")) == 4)
    assert "suspended" not in tries(instance, "a@relay.example")[3]
    wait_for_log(instance, "relay.example", 1)
    [path] = [p for p in (instance.queue / "deferred").rglob("*") if p.is_file()]
    path.rename(instance.queue / "hold" / path.name)
    assert instance.command("postqueue", "-s", "relay.example").returncode == 0
    wait_for(lambda: log_of(instance, "relay.example") == [])
    send(instance, "b@relay.example")  # qmgr has worked through what came before
    wait_for(lambda: tries(instance, "b@relay.example"))
    assert len(tries(instance, "a@relay.example")) == 4 and (instance.queue / "hold" / path.name).exists()


def test_purge_and_refresh(make):
    instance = make(dead(free_port()) + "fast_flush_purge_time = 2d\nfast_flush_refresh_time = 1h\n")
    flush = instance.queue / "flush"
    now = time.time()
    for name, age in (("old.relay.example", 3 * 86400), ("new.relay.example", 86400)):
        (flush / name).touch()
        os.utime(flush / name, (now - age, now - age))
    send(instance, "a@relay.example")
    wait_for_log(instance, "relay.example", 1)
    assert instance.command("postkick", "public", "flush", "W").returncode == 0
    wait_for(lambda: not (flush / "old.relay.example").exists())
    assert (flush / "new.relay.example").exists()
    assert len(tries(instance, "a@relay.example")) == 1  # too young
    os.utime(flush / "relay.example", (now - 3600, now))
    assert instance.command("postkick", "public", "flush", "W").returncode == 0
    wait_for(lambda: len(tries(instance, "a@relay.example")) == 2)
    wait_for_log(instance, "relay.example", 1)
    assert instance.command("postkick", "public", "flush", "P").returncode == 0  # all of them
    wait_for(lambda: len(tries(instance, "a@relay.example")) == 3)


def test_foreign_files(make):
    """What lies in flush/ and is no log is reported once and left alone."""
    port = free_port()
    instance = make(dead(port))
    flush = instance.queue / "flush"
    (flush / "other.example").mkdir()
    (flush / "Readme.TXT").write_text("hello\n")
    os.mkfifo(flush / "pipe.relay.example")
    (flush / "link.relay.example").symlink_to("/etc/passwd")
    send(instance, "a@other.example")
    send(instance, "b@relay.example")
    wait_for_log(instance, "relay.example", 1)
    for _ in range(3):
        assert instance.command("postkick", "public", "flush", "P").returncode == 0
    for name in ("other.example", "Readme.TXT", "pipe.relay.example", "link.relay.example"):
        instance.wait_log(f"warning: flush/{name} is no logfile of this service: left alone")
        assert instance.log().count(f"flush/{name} is no") == 1
    done = instance.command("postqueue", "-s", "other.example", capture_output=True)
    assert done.returncode == 69 and "Cannot flush mail queue" in done.stderr
    assert (flush / "Readme.TXT").read_text() == "hello\n"
    assert len(instance.pids("flush")) == 1
    wait_for_log(instance, "relay.example", 1)
    sink = Sink(port)
    try:
        assert instance.command("postqueue", "-s", "relay.example").returncode == 0
        wait_for(lambda: sink.messages == 1)
    finally:
        sink.close()


def test_without_the_service(make):
    """Mail is deferred as ever; who asks for a site is told, and the log says why."""
    instance = make(dead(free_port()), master_cf="".join(line for line in MASTER_CF.splitlines(keepends=True)
                                                         if not line.startswith("flush") and " lmtp" not in line))
    send(instance, "a@relay.example")
    instance.wait_log("warning: fast flush: connect to the flush service: ")
    assert len(listing(instance)) == 1
    with instance.smtp() as smtp:
        assert smtp.docmd("ETRN", "relay.example") == (458, b"Unable to queue messages")
        assert smtp.docmd("ETRN", "nobody.example") == (459, b"<nobody.example>: service unavailable")
    done = instance.command("postqueue", "-s", "relay.example", capture_output=True)
    assert done.returncode == 69
    assert re.fullmatch(r"postqueue: warning: connect to public/flush: .*\n"
                        r"postqueue: fatal: Cannot flush mail queue - mail system is down\n", done.stderr), done.stderr


def test_killed(make):
    """kill -9 of flush while it hands over many ids: what it had taken is there for the next one."""
    port = free_port()
    instance = make(dead(port))
    flush = instance.queue / "flush"
    send(instance, "a@relay.example")
    wait_for_log(instance, "relay.example", 1)
    [pid] = instance.pids("flush")
    os.kill(pid, 9)
    (flush / "relay.example").rename(flush / "+relay.example")  # as it leaves it between two of its calls
    send(instance, "b@relay.example")
    wait_for_log(instance, "relay.example", 1)
    sink = Sink(port)
    try:
        assert instance.command("postqueue", "-s", "relay.example").returncode == 0
        wait_for(instance.queue_is_empty)
        assert sink.messages == 2
        wait_for(lambda: not (flush / "+relay.example").exists())
    finally:
        sink.close()


def test_reload(make):
    port = free_port()
    instance = make(dead(port))
    send(instance, "a@relay.example")
    wait_for_log(instance, "relay.example", 1)
    old = instance.pids("smtpd")
    assert instance.reload().returncode == 0
    wait_for(lambda: not set(old) & set(instance.pids("smtpd")))  # it says 421 to new clients
    send(instance, "b@relay.example")
    wait_for_log(instance, "relay.example", 2)
    sink = Sink(port)
    try:
        assert instance.command("postqueue", "-s", "relay.example").returncode == 0
        wait_for(instance.queue_is_empty)
    finally:
        sink.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: as an ordinary user nothing is given up")
def test_rights(make_instance):
    """As root's mail system: flush runs as mail_owner, confined, and is no set-gid program's to write to."""
    instance = make_instance(main_cf=dead(free_port()))
    with instance.smtp() as smtp:
        smtp.sendmail("a@b.example", ["a@relay.example"], "Subject: x\r\n\r\nhello\r\n")
    wait_for_log(instance, "relay.example", 1)
    [pid] = instance.pids("flush")
    with open(f"/proc/{pid}/status") as f:
        status = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {str(pwd.getpwnam("postfix").pw_uid)}
    assert int(status["CapEff"], 16) == 0
    if "ASAN_OPTIONS" not in os.environ:  # a sanitizer's runtime must open files
        assert status["NoNewPrivs"].strip() == "1"
    owner = (instance.queue / "flush/relay.example").stat()
    assert owner.st_uid == pwd.getpwnam("postfix").pw_uid and stat.S_IMODE(owner.st_mode) == 0o600
    assert stat.S_IMODE((instance.queue / "flush").stat().st_mode) == 0o700


def test_stock_services(make):
    """The stock master.cf has the service, and `postfix start` finds nothing wrong with it."""
    instance = make(dead(free_port()), start=False)
    source = (instance.etc / "master.cf").read_text()
    stock = (os.path.dirname(__file__) + "/../../packaging/master.cf")
    with open(stock) as f:
        [line] = [text for text in f if re.match(r"flush\s", text)]
    assert line.split() == ["flush", "unix", "n", "-", "n", "1000?", "0", "flush"]
    (instance.etc / "master.cf").write_text(source + "other unix - n n - - nosuch\n")
    done = instance.postfix("start")
    assert "service other: cannot execute" in done.stderr
    assert "flush" not in done.stderr


# --- beside Debian's postfix ---
BAD_SITES = ["", "nope.example", "a..b", "@relay.example", "1.2.3.4", "relay.example.", "-x.relay.example", ".", "..",
             "../relay.example", "relay.example/..", "a b", "user@relay.example", "*", "#", "[127.0.0.1]", "[127.0.0.1",
             "[IPv6:::1]", "[::1]", "x" * 64 + ".relay.example"]


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
def test_same_messages(make):
    """postqueue -s and sendmail -qR say the same, and end with the same status."""
    port = free_port()
    ours = make(dead(port))
    with Oracle(main_cf=dead(port)) as theirs:
        for site in BAD_SITES + ["relay.example", "Sub.Relay.example"]:
            for args in (["postqueue", "-s", site], ["sendmail", f"-qR{site}"]):
                his = theirs.command(*args, capture_output=True, text=True)
                mine = ours.command(*args, capture_output=True)
                assert (mine.returncode, mine.stdout, mine.stderr) == (his.returncode, his.stdout, his.stderr), args
        for args in (["-qI"], ["-qS"], ["-qSx"], ["-qG"], ["-q!Rx"], ["-q 1"], ["-q", "a@b.example"],
                     ["-qRrelay.example", "x"], ["-qIABC", "x"], ["-qIABCDEF"], ["-qI../x"], ["-q", "-t"]):
            his = theirs.command("sendmail", *args, capture_output=True, text=True)
            mine = ours.command("sendmail", *args, capture_output=True)
            assert (mine.returncode, mine.stdout, mine.stderr) == (his.returncode, his.stdout, his.stderr), args
        # the same mail: the same sites, the same ids in each, the same after a flush
        def mail(port):
            import smtplib
            with smtplib.SMTP("127.0.0.1", port, timeout=60) as smtp:
                smtp.sendmail("a@b.example", ["u@relay.example", "v@Sub.relay.example", "w@nowhere.example",
                                              "x@other.example", "y@relay.example"], "Subject: x\r\n\r\nhello\r\n")
        mail(ours.port)
        mail(theirs.port)

        def logs(queue):
            return {p.name.replace("_", "."): len(set(p.read_text().split())) for p in (queue / "flush").iterdir()}
        wanted = {"relay.example": 1, "sub.relay.example": 1, "other.example": 1}
        for queue in (ours.queue, theirs.directory / "queue"):
            wait_for(lambda: logs(queue) == wanted, what=f"logs in {queue}")
