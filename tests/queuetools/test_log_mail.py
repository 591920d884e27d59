"""postsuper, postcat, postqueue and qshape on new mail that is in the log and nowhere else: nobody has delivered it yet.

The agent has no process for it (maxproc 1, its one session waits at the last dot), or nobody takes mail up at all."""
import re
import time

import pytest

from instance import free_port, wait_for
from sink import Sink
from tools import System

FOLDERS = ("incoming", "active", "deferred", "hold")


def files(system):
    return [p.name for folder in FOLDERS for p in (system.queue / folder).rglob("*") if p.is_file()]


def super_(system, *args, text=None):
    done = system.command("postsuper", *args, input=text)
    return done.returncode, system.plain(done.stderr)


def where(system):
    return {system.plain(e["queue_id"]): e["queue_name"] for e in system.listing()}


class Stalled(System):
    """Messages A, B, ... are in the log, and wait behind the one that the next server does not answer."""

    def __init__(self):
        self.port = free_port()
        super().__init__("ours", f"transport_maps = inline:{{{{there.example=smtp:[127.0.0.1]:{self.port}}}}}\n"
                                 "relay_domains = there.example\nsmtp_destination_concurrency_limit = 1\n"
                                 "initial_destination_concurrency = 1\n")

    def __enter__(self):
        super().__enter__()
        self.sink = Sink(self.port, held=True)
        self.send("first@there.example")
        wait_for(lambda: self.sink.waiting == 1)
        return self

    def __exit__(self, *error):
        self.sink.close()
        super().__exit__(*error)

    def waiting(self, count, **kwargs):
        """`count` more; their ids."""
        have = {e["queue_id"] for e in self.listing()}
        for n in range(count):
            self.send(f"{chr(ord('a') + n)}@there.example", text=f"Subject: number {n}\r\n\r\nbody {n}\r\n", **kwargs)
        ids = [e["queue_id"] for e in self.listing() if e["queue_id"] not in have]
        wait_for(lambda: all(f"{i}: client=" in self.mail.log() for i in ids))
        ids.sort(key=lambda i: self.mail.log().find(f"{i}: client="))
        self.names = {i: chr(ord("A") + n) for n, i in enumerate(ids)}
        assert len(ids) == count and files(self) == [] and any((self.queue / "log").iterdir())
        return ids


@pytest.fixture(params=["running", "down"])
def stalled(request):
    """`down`: the mail system is stopped, what it has not delivered stays in the log."""
    with Stalled() as s:
        s.is_down = request.param == "down"
        yield s


def stop_if_asked(s):
    """The first message may be deferred by that: its agent has gone."""
    if s.is_down:
        s.mail.postfix("abort")


def test_lists_and_content(stalled):
    ids = stalled.waiting(3)
    stop_if_asked(stalled)
    names = where(stalled)
    assert {names.pop(n) for n in "ABC"} <= {"active", "incoming"} and len(names) == 1  # the first one
    table = stalled.command("postqueue", "-p").stdout
    for n, queue_id in enumerate(ids):
        assert re.search(rf"^{queue_id}[* ] +\d+ .*sender@there\.example$", table, re.M), table
    assert table.endswith(" in 4 Requests.\n")
    [entry] = [e for e in stalled.listing() if e["queue_id"] == ids[1]]
    assert entry["sender"] == "sender@there.example"
    assert [r["address"] for r in entry["recipients"]] == ["b@there.example"]
    content = stalled.command("postcat", "-q", ids[1])
    assert content.returncode == 0, content.stderr
    assert "recipient: b@there.example" in content.stdout and "\nbody 1\n" in content.stdout
    text = stalled.command("postcat", "-bhq", ids[2]).stdout
    assert "\nSubject: number 2\n" in text and text.endswith("\n\nbody 2\n") and "recipient:" not in text
    shape = stalled.command("qshape", "incoming", "active", "deferred")
    assert re.search(r"^ *there\.example +4 ", shape.stdout, re.M), shape.stdout
    assert not set(files(stalled)) & set(ids)


def test_deleted(stalled):
    ids = stalled.waiting(4)
    stop_if_asked(stalled)
    assert super_(stalled, "-d", ids[1]) == (0, "postsuper: B: removed\npostsuper: Deleted: 1 message\n")
    assert super_(stalled, "-d", "-", text=f"{ids[2]}\nNONE\n") == (0, "postsuper: C: removed\npostsuper: Deleted: 1 message\n")
    assert "B" not in where(stalled) and "C" not in where(stalled)
    assert super_(stalled, "-d", "ALL")[1].endswith("postsuper: Deleted: 3 messages\n")
    assert where(stalled) == {}
    stalled.sink.go.set()
    if stalled.is_down:
        stalled.mail.start()
    time.sleep(1)
    assert where(stalled) == {} and files(stalled) == []
    assert "to=<b@there.example>" not in stalled.mail.log() and "to=<d@there.example>" not in stalled.mail.log()


def test_held_and_released(stalled):
    ids = stalled.waiting(3)
    stop_if_asked(stalled)
    assert super_(stalled, "-h", ids[0])[1] == "postsuper: A: placed on hold\npostsuper: Placed on hold: 1 message\n"
    assert where(stalled)["A"] == "hold"
    assert "body 0" in stalled.command("postcat", "-q", ids[0]).stdout
    assert re.search(rf"^{ids[0]}! ", stalled.command("postqueue", "-p").stdout, re.M)
    assert super_(stalled, "-h", "ALL")[1].endswith("postsuper: Placed on hold: 3 messages\n")
    if stalled.is_down:
        assert set(where(stalled).values()) == {"hold"}
    else:
        stalled.sink.go.set()  # what an agent has it finishes
        wait_for(lambda: set(where(stalled).values()) == {"hold"})
    assert super_(stalled, "-H", ids[0])[1] == "postsuper: A: released from hold\npostsuper: Released from hold: 1 message\n"
    if stalled.is_down:
        stalled.sink.go.set()
        stalled.mail.start()
    else:
        assert stalled.command("postqueue", "-i", ids[0]).returncode == 0
    wait_for(lambda: re.search(rf"{ids[0]}: to=<a@there\.example>.*status=sent", stalled.mail.log()), 60)
    assert "to=<b@there.example>" not in stalled.mail.log() and where(stalled)["B"] == "hold"


def test_requeued_and_expired(stalled):
    ids = stalled.waiting(3)
    stop_if_asked(stalled)
    assert super_(stalled, "-r", ids[0])[1] == "postsuper: A: requeued\npostsuper: Requeued: 1 message\n"
    assert super_(stalled, "-e", ids[1])[1] == "postsuper: B: expired\npostsuper: Force-expired: 1 message\n"
    if stalled.is_down:
        stalled.mail.start()
    stalled.sink.go.set()
    wait_for(lambda: re.search(rf"orig_id={ids[0]}\b", stalled.mail.log()), 90)
    wait_for(lambda: len(re.findall(r"to=<a@there\.example>.*status=sent", stalled.mail.log())) == 1, 60)
    wait_for(lambda: f"{ids[1]}: removed" in stalled.mail.log(), 60)
    wait_for(lambda: re.search(r"to=<c@there\.example>.*status=sent", stalled.mail.log()), 60)


def test_structure_and_purge_leave_it_alone(stalled):
    ids = stalled.waiting(2)
    stop_if_asked(stalled)
    before = where(stalled)
    for option in ("-s", "-p", "-S"):
        assert super_(stalled, option) == (0, "")
    assert super_(stalled) == (0, "")
    assert where(stalled) == before and "body 1" in stalled.command("postcat", "-q", ids[1]).stdout


def test_a_long_backlog_is_deleted_at_once(stalled):
    """Thousands in several segments: each is found without a walk of its own through all of them."""
    count = 3000
    for _ in range(count // 100):
        stalled.send("x@there.example", count=100, text="Subject: x\r\n\r\n" + ("x" * 70 + "\r\n") * 60)
    assert files(stalled) == []
    assert len([p for p in (stalled.queue / "log").iterdir() if len(p.name) == 16]) >= 1
    stop_if_asked(stalled)
    started = time.monotonic()
    assert super_(stalled, "-d", "ALL")[1].endswith(f"postsuper: Deleted: {count + 1} messages\n")
    print(f"{count} deleted in {time.monotonic() - started:.2f} s")
    assert time.monotonic() - started < 60
    assert where(stalled) == {}
