"""The queue as its administrator meets it: mailq, flush, reload, damage, patience."""
import os
import pwd
import re
import signal
import subprocess
import time

import pytest

from instance import free_port, wait_for
from queue_support import ME, USER, listing, send
from sink import Sink


@pytest.fixture
def make(make_instance):
    def start(main_cf="", **kwargs):
        return make_instance(user=USER if os.geteuid() == 0 else None, main_cf=main_cf, **kwargs)
    return start


def dead(port):
    """main.cf lines: mail for dead.example goes to a port of this host."""
    return f"relay_domains = dead.example\ntransport_maps = inline:{{{{dead.example=smtp:[127.0.0.1]:{port}}}}}\n"


def test_mailq(make):
    instance = make(dead(free_port()))
    assert instance.command("mailq", capture_output=True).stdout == "Mail queue is empty\n"
    send(instance, ["a@dead.example", "b@dead.example"])
    instance.wait_log("status=deferred")
    wait_for(lambda: not any((instance.queue / "active").iterdir()))
    table = instance.command("postqueue", "-p", capture_output=True).stdout
    reason = r" +\(connect to 127\.0\.0\.1\[127\.0\.0\.1\]:\d+: Connection refused\)\n"
    assert re.fullmatch(r"-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n"
                        r"[0-9A-F]{6,}  *\d+ \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d  " + re.escape(ME) + r"\n" + reason +
                        r" {41}a@dead\.example\n {41}b@dead\.example\n\n-- 0 Kbytes in 1 Request\.\n", table), table
    [entry] = listing(instance)
    assert entry["queue_name"] == "deferred" and entry["sender"] == ME and entry["forced_expire"] is False
    assert [r["address"] for r in entry["recipients"]] == ["a@dead.example", "b@dead.example"]
    assert "Connection refused" in entry["recipients"][0]["delay_reason"]
    assert instance.command("sendmail", "-bp", capture_output=True).stdout == table
    # the same without the mail system, for its owner
    instance.postfix("stop")
    down = instance.command("postqueue", "-p", capture_output=True)
    assert down.stdout == table
    assert "warning: Mail system is down -- accessing queue directly (Connect to the Postfix showq service: " in down.stderr
    flush = instance.command("postqueue", "-f", capture_output=True)
    assert (flush.returncode, flush.stderr) == (69, "postqueue: fatal: Cannot flush mail queue - mail system is down\n")


USAGE = "postqueue: fatal: usage: postqueue -f | postqueue -i queueid | postqueue -j | postqueue -p | postqueue -s site\n"


@pytest.mark.parametrize("args, error", [
    ([], USAGE),
    (["-p", "-f"], USAGE),
    (["-p", "more"], USAGE),
    (["-i", ".."], 'postqueue: fatal: Cannot flush queue ID - invalid name: ".."\n'),
    (["-i", ""], 'postqueue: fatal: Cannot flush queue ID - invalid name: ""\n'),
    (["-i", "A" * 300], f'postqueue: fatal: Cannot flush queue ID - invalid name: "{"A" * 100}..."\n'),
    (["-s", "x.example"], 'postqueue: fatal: Flush service is not configured for destination "x.example"\n'),
    (["-s", ""], 'postqueue: fatal: Cannot flush mail queue - invalid destination: ""\n'),
])
def test_postqueue_errors(make_instance, args, error):
    instance = make_instance(start=False, user=USER if os.geteuid() == 0 else None)
    done = instance.command("postqueue", *args, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (69, "", error)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_who_may(make):
    instance = make("authorized_mailq_users = !daemon, static:anyone\nauthorized_flush_users = root\n")
    for path in (instance.directory, instance.queue, instance.queue / "public"):
        path.chmod(0o755)
    def as_daemon(*args):
        return subprocess.run([str(instance.bin / "postqueue"), *args], env=instance.environment(), user="daemon",
                              group="daemon", extra_groups=[], capture_output=True, text=True, timeout=60)
    uid = pwd.getpwnam("daemon").pw_uid
    done = as_daemon("-p")
    assert done.returncode == 69
    assert f"fatal: User daemon({uid}) is not allowed to view the mail queue\n" in done.stderr
    done = as_daemon("-f")
    assert done.returncode == 69
    assert f"fatal: User daemon({uid}) is not allowed to flush the mail queue\n" in done.stderr
    assert instance.command("postqueue", "-p", capture_output=True).returncode == 0  # the owner


def test_flush(make):
    port = free_port()
    instance = make(dead(port))
    send(instance, "a@dead.example")
    send(instance, "b@dead.example")
    wait_for(lambda: instance.log().count("status=deferred") == 2)
    wait_for(lambda: not any((instance.queue / "active").iterdir()))
    sink = Sink(port)
    try:
        ids = {entry["recipients"][0]["address"]: entry["queue_id"] for entry in listing(instance)}
        assert instance.command("postqueue", "-i", ids["b@dead.example"]).returncode == 0
        instance.wait_log("to=<b@dead.example>, relay=127.0.0.1[127.0.0.1]")
        assert [entry["queue_id"] for entry in listing(instance)] == [ids["a@dead.example"]]
        assert instance.command("postqueue", "-f").returncode == 0
        wait_for(instance.queue_is_empty)
        assert sink.messages == 2
    finally:
        sink.close()


def test_reload_while_delivering(make):
    """The old queue manager finishes what it delivers; the new one serves new mail at once, and delivers nothing twice."""
    port = free_port()
    instance = make(dead(port))
    sink = Sink(port, held=True)
    try:
        send(instance, "slow@dead.example")
        wait_for(lambda: sink.waiting == 1)
        old = instance.pids("qmgr")
        assert instance.reload().returncode == 0
        wait_for(lambda: set(instance.pids("qmgr")) - set(old))
        send(instance, ME)
        instance.wait_log(f"to=<{ME}>, relay=local")
        instance.wait_log("skipped, still being delivered")
        assert sink.waiting == 1
        sink.go.set()
        wait_for(instance.queue_is_empty)
        wait_for(lambda: not set(old) & set(instance.pids("qmgr")))
        assert sink.messages == 1
        wait_for(lambda: "to=<slow@dead.example>" in instance.log())
        assert instance.log().count("to=<slow@dead.example>") == 1
    finally:
        sink.close()


@pytest.mark.parametrize("log", ["yes", "no"])
def test_qmgr_dies_while_an_agent_delivers(make, log):
    """What the agent then says nobody hears: one duplicate, no loss. Of a message with a file of its own the successor waits
    for the agent to be done with it; one in the log is tried again at once."""
    port = free_port()
    instance = make(dead(port) + f"queue_log = {log}\n")
    sink = Sink(port, held=True)
    try:
        send(instance, "slow@dead.example")
        wait_for(lambda: sink.waiting == 1)
        [old] = instance.pids("qmgr")
        os.kill(old, 9)
        send(instance, ME)  # wakes the next one
        instance.wait_log(f"to=<{ME}>, relay=local", 60)
        if log == "no":
            instance.wait_log("skipped, still being delivered", 60)
            assert sink.waiting == 1
        else:
            wait_for(lambda: sink.waiting == 2)
        sink.go.set()
        wait_for(instance.queue_is_empty, 90)
        assert 1 <= sink.messages <= 2
    finally:
        sink.close()


def test_damaged_file(make):
    instance = make(dead(free_port()))
    send(instance, "a@dead.example")
    instance.wait_log("status=deferred")
    [path] = wait_for(lambda: [p for p in (instance.queue / "deferred").rglob("*") if p.is_file()])
    bytes_before = bytearray(path.read_bytes())
    bytes_before[80] ^= 1
    with open(path, "r+b") as f:
        f.write(bytes_before)
    instance.command("postqueue", "-f")
    instance.wait_log(f'warning: saving corrupt file "{path.name}" from queue "deferred" to queue "corrupt"')
    assert (instance.queue / "corrupt" / path.name).exists()
    send(instance, ME)
    instance.wait_log(f"to=<{ME}>, relay=local")


def test_patience_ends(make):
    instance = make(dead(free_port()) + "maximal_queue_lifetime = 0\n")
    send(instance, "a@dead.example")
    instance.wait_log(f"from=<{ME}>, status=expired, returned to sender")
    instance.wait_log("sender non-delivery notification: ")
    wait_for(instance.queue_is_empty)
    text = "".join(path.read_text() for path in instance.mail.rglob("*") if path.is_file())
    assert "Action: failed" in text and "a@dead.example" in text and "Connection refused" in text


def test_delay_warning(make):
    instance = make(dead(free_port()) + "delay_warning_time = 2s\nminimal_backoff_time = 1s\nqueue_run_delay = 1s\n")
    send(instance, "a@dead.example")
    instance.wait_log("sender delay notification: ", 60)
    instance.wait_log("status=sent (delivered to mailbox)")
    time.sleep(4)  # more tries; no second warning
    assert instance.log().count("sender delay notification: ") == 1
    assert len(listing(instance)) == 1


def test_long_queue_ids(make):
    instance = make(dead(free_port()) + "enable_long_queue_ids = yes\n")
    send(instance, "a@dead.example")
    wait_for(lambda: [e for e in listing(instance) if e["queue_name"] == "deferred"])
    [entry] = listing(instance)
    assert re.fullmatch(r"[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10}z[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-y]+", entry["queue_id"])
    table = instance.command("postqueue", "-p", capture_output=True).stdout.splitlines()
    assert table[0] == "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------"
    assert table[3] == " " * 47 + "a@dead.example"


def test_content_filter(make):
    """All mail goes to the filter, whatever it is for, but what a service with the option -o content_filter= takes."""
    port = free_port()
    instance = make(f"content_filter = smtp:[127.0.0.1]:{port}\n")
    sink = Sink(port)
    try:
        send(instance, [ME, "nobody@elsewhere.example"])
        line = instance.wait_log("to=<nobody@elsewhere.example>")
        assert f"relay=127.0.0.1[127.0.0.1]:{port}" in line and "status=sent" in line
        wait_for(instance.queue_is_empty)
        instance.command("sendmail", ME, input="Subject: local\n\nx\n")
        wait_for(lambda: sink.messages >= 2)
        assert "postfix/local" not in instance.log()
    finally:
        sink.close()


def test_content_filter_without_a_next_hop(make):
    instance = make("content_filter = discard\ndefault_filter_nexthop = the filter\n")
    send(instance, ME)
    instance.wait_log("status=sent (the filter)")


def test_watchdog(make):
    """A queue manager whose loop stands still is ended; the next one goes on where it was."""
    instance = make(dead(free_port()) + "qmgr_daemon_timeout = 2\n")
    send(instance, "first@dead.example")
    instance.wait_log("status=deferred")  # its loop runs
    [pid] = instance.pids("qmgr")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    os.kill(pid, signal.SIGCONT)
    instance.wait_log(f"pid {pid} killed by signal 14")
    send(instance, "a@dead.example")
    instance.wait_log("to=<a@dead.example>", 60)
    [other] = instance.pids("qmgr")
    assert other != pid


def test_deferred_transport(make):
    instance = make(dead(free_port()) + "defer_transports = smtp\n")
    send(instance, "a@dead.example")
    instance.wait_log("dsn=4.3.2, status=deferred (deferred transport)")
    instance.command("postqueue", "-f")
    instance.wait_log("Connection refused")


def test_unavailable_transport(make):
    instance = make("relay_domains = x.example\ntransport_maps = inline:{{x.example=nothere:somewhere}}\n")
    send(instance, "a@x.example")
    instance.wait_log("warning: connect to transport private/nothere: ")
    instance.wait_log("relay=none")
    instance.wait_log("dsn=4.3.0, status=deferred (mail transport unavailable)")


def test_killed_agent_costs_one_try(make):
    instance = make(dead(free_port()) + "minimal_backoff_time = 1s\nqueue_run_delay = 1s\ntransport_retry_time = 1s\n"
                    "mailbox_command = sleep 3; cat > /dev/null\n")
    send(instance, ME)
    pid = wait_for(lambda: instance.pids("local"))
    time.sleep(1)  # one that is gone at once has not begun: that costs nothing
    for p in pid:
        os.kill(p, 9)
    instance.wait_log("status=deferred (unknown mail transport error)", 30)
    wait_for(instance.queue_is_empty, 60)
