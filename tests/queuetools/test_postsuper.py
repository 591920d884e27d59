"""postsuper: the same as Debian's on the same queue, and what it does to messages that are waiting or being delivered."""
import os
import shutil
import subprocess
import time

import pytest

from instance import free_port, wait_for
from oracle import Oracle
from sink import Sink
from tools import USER, System

NO_ORACLE = Oracle.why_not()


@pytest.fixture(scope="module", params=["ours", pytest.param("oracle", marks=pytest.mark.skipif(
    bool(NO_ORACLE), reason=str(NO_ORACLE)))])
def system(request):
    with System(request.param) as s:
        yield s


@pytest.fixture
def ours():
    with System("ours") as s:
        yield s


def super_(system, *args, text=None):
    done = system.command("postsuper", *args, input=text)
    assert done.stdout == ""
    return done.returncode, system.plain(done.stderr)


def where(system):
    return {system.plain(e["queue_id"]): e["queue_name"] for e in system.listing()}


# What each of the two must say, seen of Debian's: a row is the arguments, the status and the lines.
ROWS = [
    (["-h", "A"], 0, "A: placed on hold|Placed on hold: 1 message"),
    (["-h", "A"], 0, "Placed on hold: 0 messages"),
    (["-H", "A"], 0, "A: released from hold|Released from hold: 1 message"),
    (["-H", "A"], 0, "Released from hold: 0 messages"),
    (["-h", "ALL", "hold"], 0, "Placed on hold: 0 messages"),
    (["-h", "ALL", "incoming", "active"], 0, "Placed on hold: 0 messages"),
    (["-h", "ALL", "deferred"], 0, "Placed on hold: 4 messages"),
    (["-e", "A"], 0, "A: expired|Force-expired: 1 message"),
    (["-e", "A"], 0, "Force-expired: 0 messages"),
    (["-e", "ALL"], 0, "Force-expired: 3 messages"),
    (["-f", "A", "deferred"], 0, "Force-expired: 0 messages|Released from hold: 0 messages"),
    (["-H", "B", "-H", "C"], 0, "B: released from hold|C: released from hold|Released from hold: 2 messages"),
    (["-f", "A"], 0, "A: released from hold|Force-expired: 0 messages|Released from hold: 1 message"),
    (["-d", "NONE"], 0, "Deleted: 0 messages"),
    (["-d", "all"], 0, "Deleted: 0 messages"),
    (["-d", "../../x"], 0, "warning: invalid mail queue id: ../../x|Deleted: 0 messages"),
    (["-d", ""], 0, "warning: invalid mail queue id: |Deleted: 0 messages"),
    (["-d", "ALL", "corrupt"], 1, "fatal: invalid directory name: corrupt"),
    (["-d", "ALL", "nosuch"], 1, "fatal: invalid directory name: nosuch"),
    (["-d", "D", "-h", "D"], 0, "D: removed|Deleted: 1 message|Placed on hold: 0 messages"),
    (["-d", "X", "-e", "X", "-f", "X", "-h", "X", "-H", "X", "-r", "X"], 0,
     "Requeued: 0 messages|Deleted: 0 messages|Force-expired: 0 messages|Placed on hold: 0 messages|"
     "Released from hold: 0 messages"),
    (["-s"], 0, ""), (["-p"], 0, ""), (["-S"], 0, ""), ([], 0, ""),
    (["-d", "ALL"], 0, "Deleted: 3 messages"),
    (["-d", "ALL"], 0, "Deleted: 0 messages"),
]


def test_like_debians(system):
    system.send(["a@dead.example", "b@dead.example"], count=4)
    ids = dict(zip("ABCD", system.deferred(4)))
    said = []
    for args, status, lines in ROWS:
        want = "".join(f"postsuper: {line}\n" for line in lines.split("|") if line)
        assert super_(system, *[ids.get(a, a) for a in args]) == (status, want), args
        said += [line for line in lines.split("|") if line]
    wait_for(lambda: len(system.log_of("postsuper")) >= len(said))
    assert system.log_of("postsuper") == said


def test_standard_input(system):
    system.send("a@dead.example", count=3)
    ids = system.deferred(3)
    text = f"{ids[0]}\nNONE\n\n../x\nALL\n{ids[2]}"
    assert super_(system, "-h", "-", text=text) == (0, "".join(f"postsuper: {line}\n" for line in [
        "warning: invalid mail queue id: ", "warning: invalid mail queue id: ../x", "A: placed on hold",
        "C: placed on hold", "Placed on hold: 2 messages"])) or system.kind == "oracle"
    assert where(system) == {"A": "hold", "B": "deferred", "C": "hold"}
    super_(system, "-d", "ALL")


def test_expired_mail_is_marked_and_returned(system):
    system.send("a@dead.example", sender="x@dead.example")
    [queue_id] = system.deferred(1)
    assert super_(system, "-e", queue_id)[0] == 0
    assert [e["forced_expire"] for e in system.listing()] == [True]
    table = system.command("postqueue", "-p").stdout
    assert f"{queue_id}# " in table
    assert system.command("postqueue", "-f").returncode == 0
    wait_for(lambda: f"{queue_id}: from=<x@dead.example>, status=force-expired, returned to sender" in system.mail.log())
    wait_for(lambda: f"{queue_id}: removed" in system.mail.log())
    wait_for(lambda: f"{queue_id}: sender non-delivery notification: " in system.mail.log())
    super_(system, "-d", "ALL")


def test_requeue(system):
    system.send(["a@dead.example", "b@dead.example"], mail=["BODY=8BITMIME"] if system.kind == "oracle" else [])
    [queue_id] = system.deferred(1)
    before = system.listing()[0]
    assert super_(system, "-r", queue_id) == (0, "postsuper: A: requeued\npostsuper: Requeued: 1 message\n")
    system.command("postkick", "public", "pickup", "W") if system.kind == "oracle" else None
    [after] = wait_for(lambda: [e for e in system.listing() if e["queue_id"] != queue_id and
                                e["queue_name"] == "deferred"], 60)
    wait_for(lambda: f"{after['queue_id']}: uid=" in system.mail.log() and f" orig_id={queue_id}" in system.mail.log())
    assert after["arrival_time"] == before["arrival_time"]
    assert [r["address"] for r in after["recipients"]] == ["a@dead.example", "b@dead.example"]
    assert after["message_size"] > before["message_size"]  # a Received: field more
    super_(system, "-d", "ALL")


def test_usage_and_rights(system):
    code, text = super_(system, "-x")
    assert code == 1 and text.startswith("postsuper: invalid option -- 'x'\npostsuper: fatal: usage: postsuper [-c config_dir] "
                                         "[-d queue_id (delete)] [-e queue_id (expire)]")
    if os.geteuid() == 0:
        for path in (system.mail.directory, system.queue):
            path.chmod(0o755)
        program = str(system.mail.bin / "postsuper" if system.kind == "ours" else system.mail.root / "usr/sbin/postsuper")
        done = subprocess.run([program, "-d", "X"], user="daemon", group="daemon", extra_groups=[], capture_output=True,
                              text=True, env=system.mail.environment(), timeout=60)
        assert (done.returncode, done.stderr) == (1, "postsuper: fatal: use of this command is reserved for the superuser\n")


# --- what only ours has, or where ours has a way of its own ---

def test_hashed_directories(ours):
    """After a change of hash_queue_names or hash_queue_depth, and of a restored queue."""
    ours.send("a@dead.example")
    [queue_id] = ours.deferred(1)
    assert super_(ours, "-h", queue_id)[0] == 0
    assert super_(ours, "-H", queue_id)[0] == 0
    ours.mail.postfix("stop")
    with open(ours.mail.etc / "main.cf", "a") as f:
        f.write("hash_queue_depth = 3\nhash_queue_names = deferred, defer, hold\n")
    assert ours.listing() == []  # nobody finds it
    assert super_(ours, "-s")[0] == 0
    assert [e["queue_id"] for e in ours.listing()] == [queue_id]
    [path] = [p for p in (ours.queue / "deferred").rglob("*") if p.is_file()]
    assert len(path.relative_to(ours.queue).parts) == 5
    with open(ours.mail.etc / "main.cf", "a") as f:
        f.write("hash_queue_depth = 1\nhash_queue_names = hold\n")
    assert super_(ours, "-v", "-s")[1].count("remove directory deferred/") == 3
    assert [p.name for p in (ours.queue / "deferred").rglob("*")] == [queue_id]
    # two of one name: nothing is run over
    other = ours.queue / "deferred" / "0"
    other.mkdir()
    shutil.copy2(ours.queue / "deferred" / queue_id, other / queue_id)
    for p in (other, other / queue_id):
        shutil.chown(p, USER)
    code, text = super_(ours, "-s")
    assert code == 1 and "deferred/0/A belongs to deferred/A, where another file is" in text
    assert (other / queue_id).exists() and (ours.queue / "deferred" / queue_id).exists()


def test_strangers_and_unfinished_files(ours):
    ours.send("a@dead.example")
    [queue_id] = ours.deferred(1)
    ours.mail.postfix("stop")
    [path] = [p for p in (ours.queue / "deferred").rglob("*") if p.is_file()]
    whole = path.read_bytes()
    old = time.time() - 3600
    files = {"incoming/tmp.1.2": (b"", 0o600), "hold/ABCDEF1234": (whole[:200], 0o600), "hold/ABCDEF1235": (whole, 0o644),
             "deferred/foo.bar": (b"x", 0o644), "maildrop/ABCDEF99": (b"", 0o600)}
    (ours.queue / "maildrop").mkdir(exist_ok=True)
    for name, (content, mode) in files.items():
        p = ours.queue / name
        p.write_bytes(content)
        p.chmod(mode)
        shutil.chown(p, USER)
        os.utime(p, (old, old))
    code, text = super_(ours, "-p", "-v", "hold")
    assert (code, "removed file hold/ABCDEF1234" in text) == (0, True)
    assert (ours.queue / "hold/ABCDEF1235").exists()  # whole: not purged
    code, text = super_(ours)
    assert code == 0
    assert "warning: bogus file name: deferred/foo.bar" in text
    assert "hold/ABCDEF1235: a whole message without its mode: taken back into the queue" in text
    assert not (ours.queue / "incoming/tmp.1.2").exists()
    assert (ours.queue / "maildrop/ABCDEF99").exists()  # not a day old
    assert sorted(e["queue_id"] for e in ours.listing()) == sorted([queue_id, "ABCDEF1235"])


def test_while_the_mail_system_is_down(ours):
    ours.send("a@dead.example", count=3)
    first, second, third = ours.deferred(3)
    ours.mail.postfix("stop")
    assert super_(ours, "-h", first) == (0, "postsuper: A: placed on hold\npostsuper: Placed on hold: 1 message\n")
    assert super_(ours, "-d", second)[0] == 0
    assert super_(ours, "-r", third) == (0, "postsuper: C: requeued\npostsuper: Requeued: 1 message\n")
    assert where(ours) == {"A": "hold", "C": "maildrop"} or where(ours) == {"A": "hold"}
    ours.mail.start()
    wait_for(lambda: f" orig_id={third}" in ours.mail.log(), 90)
    wait_for(lambda: sorted(e["queue_name"] for e in ours.listing()) == ["deferred", "hold"])


@pytest.mark.parametrize("option, count", [("-d", "Deleted"), ("-h", "Placed on hold"), ("-r", "Requeued")])
def test_a_message_that_is_being_delivered(option, count):
    """What an agent has it finishes; the recipients that wait for their turn are not tried any more."""
    port = free_port()
    with System("ours", "smtp_destination_recipient_limit = 2\nsmtp_destination_concurrency_limit = 1\n"
                        f"transport_maps = inline:{{{{a.example=smtp:[127.0.0.1]:{port}}}}}\nrelay_domains = a.example\n") as s:
        sink = Sink(port, held=True)
        s.send(["one@a.example", "two@a.example", "three@a.example"])  # two of them at a time, one delivery at a time
        wait_for(lambda: sink.waiting == 1)
        [entry] = s.listing()
        queue_id = entry["queue_id"]
        assert super_(s, option, queue_id)[1].endswith(f"postsuper: {count}: 1 message\n")
        if option == "-d":  # gone at once, also for the list
            assert s.listing() == []
        sink.go.set()
        if option == "-h":
            [held] = wait_for(lambda: [e for e in s.listing() if e["queue_name"] == "hold"])
            assert len(held["recipients"]) == 1
        elif option == "-r":
            wait_for(lambda: (s.queue / "maildrop" / queue_id).exists())  # at its next round pickup finds it
            assert s.command("postkick", "public", "pickup", "W").returncode == 0
            wait_for(lambda: sink.messages == 2)
            wait_for(lambda: f"orig_id={queue_id}" in s.mail.log())
        wait_for(lambda: s.mail.log().count("status=sent") == (3 if option == "-r" else 2))
        if option != "-r":
            time.sleep(1)
            assert sink.messages == 1
        wait_for(lambda: not any((s.queue / "active").iterdir()))


def test_a_reload_in_between(ours):
    ours.send("a@dead.example", count=5)
    ours.deferred(5)
    ours.mail.reload()
    assert super_(ours, "-h", "ALL")[1] == "postsuper: Placed on hold: 5 messages\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_who_may_ask_the_queue_manager(ours):
    """The socket is for whoever may flush; changes are for root and the owner, whatever program asks."""
    ours.send("a@dead.example")
    [queue_id] = ours.deferred(1)
    for path in (ours.mail.directory, ours.queue, ours.queue / "public"):
        path.chmod(0o755)
    script = f"""
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect({str(ours.queue / 'public/qmgr')!r})
s.sendall(struct.pack("<IBB", 0, 32, 0))
answer = s.recv(100)
payload = struct.pack("<BIII", 1, 15, 1, {len(queue_id)}) + {queue_id.encode()!r}
try:
    s.sendall(struct.pack("<IBB", len(payload), 34, 0) + payload)
    rest = s.recv(100)
except OSError:
    rest = b""
print(answer[6], len(rest))
"""
    def ask(user):
        return subprocess.run(["/usr/bin/python3", "-c", script], user=user, capture_output=True, text=True,
                              timeout=60).stdout.strip()
    assert ask("daemon") == "3 0"
    assert len(ours.listing()) == 1
    assert ask(USER) == "1 7"
    assert ours.listing() == []


# --- selection ---

def test_selection(ours):
    ours.send("a@dead.example", sender="News@There.example")
    ours.send(["b@dead.example", "c@dead.example"], sender="")
    ours.send("d@dead.example", sender="me@there.example")
    ours.deferred(3)

    def held(*options):
        assert super_(ours, "-h", "ALL", *options)[0] == 0
        names = sorted(name for name, queue in where(ours).items() if queue == "hold")
        assert super_(ours, "-H", "ALL")[0] == 0
        return "".join(names)
    assert held("--sender", "news@there.example") == "A"
    assert held("--sender", "*@there.example") == "AC"
    assert held("--sender", "<>") == "B" == held("--sender=")
    assert held("--recipient", "c@dead.example") == "B"
    assert held("--recipient", "*@dead.example", "--sender", "m*") == "BC"
    assert held("--domain", "dead.example") == "ABC"
    assert held("--domain", ".example") == "ABC"
    assert held("--domain", "example") == ""
    assert held("--reason", "connection REFUSED") == "ABC"
    assert held("--reason", "no such text") == ""
    assert held("--older", "1h") == ""
    assert held("--older", "0s", "--recipient", "a@*", "deferred") == "A"
    assert super_(ours, "-h", "ALL", "--older", "soon")[0] == 1
    assert super_(ours, "--sender", "x")[0] == 1
    ids = {name: queue_id for queue_id, name in ours.names.items()}
    assert super_(ours, "-d", ids["A"], "-d", ids["C"], "--sender", "me@*")[1] == "postsuper: C: removed\npostsuper: Deleted: 1 message\n"
    assert sorted(where(ours)) == ["A", "B"]


def test_selection_in_lists(ours):
    ours.send("a@dead.example", sender="one@there.example")
    ours.send(["b@dead.example", "c@dead.example"], sender="two@there.example")
    ours.deferred(2)

    def listed(*options):
        table = ours.command("postqueue", "-p", *options)
        lines = ours.command("postqueue", "-j", *options)
        assert (table.returncode, table.stderr) == (lines.returncode, lines.stderr) == (0, "")
        found = "".join(sorted(name for queue_id, name in ours.names.items() if queue_id in lines.stdout))
        assert table.stdout.endswith(f"in {len(found)} Request{'s' * (len(found) != 1)}.\n" if found else "Mail queue is empty\n")
        assert found == "".join(sorted(name for queue_id, name in ours.names.items() if queue_id in table.stdout))
        return found
    assert listed() == "AB" == listed("--older", "0")
    assert listed("--sender", "two@*") == "B"
    assert listed("--recipient=c@dead.example") == "B"
    assert listed("--domain", "dead.example", "--sender", "ONE@there.example") == "A"
    assert listed("--reason", "refused", "--older", "1d") == ""
    assert ours.command("postqueue", "-f", "--sender", "x").returncode == 69
    assert ours.command("postqueue", "-p", "--older", "x").returncode == 69
    ours.mail.postfix("stop")
    done = ours.command("postqueue", "-j", "--sender", "two@*")
    assert done.stdout.count("\n") == 1


def test_many_recipients_are_one_message_to_a_selection(ours):
    """More than fit into one frame: the last of them can be asked for."""
    names = [f"{'x' * 60}{n}@{'y' * 60}.dead.example" for n in range(4000)]
    with System("ours", "relay_domains = .dead.example dead.example\nparent_domain_matches_subdomains =\n"
                        "default_transport = smtp:[127.0.0.1]:1\ntransport_maps =\nsmtpd_recipient_limit = 100000\n"
                        "defer_transports = smtp relay\n") as s:
        s.send(names)
        wait_for(lambda: s.listing()[0]["queue_name"] == "deferred")
        lines = s.command("postqueue", "-j", "--recipient", names[-1]).stdout
        assert lines.count("\n") == 1 and names[0] in lines and names[-1] in lines
        assert s.command("postqueue", "-j", "--recipient", "nobody@*").stdout == ""


def test_more_than_one_batch_is_listed_once(ours):
    """showq reads many messages at a time (batch.c): each is there once, also after one that has gone."""
    ours.send("a@dead.example")
    [queue_id] = ours.deferred(1)
    [path] = [p for p in (ours.queue / "deferred").rglob("*") if p.is_file()]
    names = {queue_id}
    for n in range(300):
        name = f"{path.name[0]}{n:08X}"
        shutil.copy2(path, path.with_name(name))
        shutil.chown(path.with_name(name), USER)
        names.add(name)
    for n in range(5):
        (path.with_name(f"{path.name[0]}F{n:07X}")).write_bytes(b"no message")
    assert sorted(e["queue_id"] for e in ours.listing()) == sorted(names)
    assert ours.command("postqueue", "-p").stdout.endswith(" in 301 Requests.\n")
    with subprocess.Popen([str(ours.mail.bin / "postqueue"), "-j"], env=ours.mail.environment(), stdout=subprocess.PIPE) as one:
        one.stdout.readline()
        one.stdout.close()  # whoever reads goes away: nothing hangs, the next list is whole
    assert len(ours.listing()) == 301
    ours.mail.postfix("stop")
    assert len(ours.listing()) == 301
