"""What hurts a local delivery agent: lists and rings of a size nobody planned for, commands that talk without end,
disks that are full, transports that are not there."""
import os
import pathlib
import re
import subprocess
import tempfile

import pytest

from instance import SANITIZED, wait_for
from local_pair import Users, wait_quiet

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as other users")
BASE = ("smtpd_reject_unlisted_recipient = no\nminimal_backoff_time = 3000s\nbiff = no\n"
        "transport_maps = inline:{ {far.example=discard:far} }\ndefault_transport = error:no way there\n")
MIB = 1024 * 1024


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(prefix="angarium-bad-") as name:
        os.chmod(name, 0o755)
        yield pathlib.Path(name)


@pytest.fixture
def users(place):
    made = Users(place, 4)
    yield made
    made.close()


def send(instance, *to, body="Subject: x\r\n\r\nhello\r\n", sender="a@far.example"):
    with instance.smtp() as s:
        s.sendmail(sender, list(to), body)


def most_memory(instance, program):
    """The most that any process of that program has ever had in memory of its own, in bytes."""
    peaks = [0]
    for pid in instance.pids(program):
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        peaks.append(int(re.search(r"VmHWM:\s+(\d+)", text)[1]) * 1024)
    return max(peaks)


def test_list_of_100000_members(make_instance, place):
    """Everybody gets it, and the memory for it has a bound that the list does not set."""
    (place / "list").write_text("".join(f"member{n:06d}@far.example\n" for n in range(100000)))
    i = make_instance(main_cf=BASE + f"alias_maps = inline:{{ {{all=:include:{place}/list}}, "
                      "{owner-all=boss@far.example} }\n")
    send(i, "all@mail.example")
    new = i.wait_log("status=sent (forwarded as ", 300).split("forwarded as ")[1].rstrip(")")
    if not SANITIZED:
        assert most_memory(i, "local") < 100 * MIB
    assert "nrcpt=100000 " in i.wait_log(f"{new}: from=<owner-all@mail.example>, ", 300)
    i.wait_log(f"{new}: removed", 500)
    log = i.log()
    assert len(set(re.findall(new + r": to=<(member\d{6}@far\.example)>.*status=sent", log))) == 100000


def test_aliases_in_a_long_ring(make_instance, place):
    """A thousand aliases, each of the next, the last of the first: returned, and the next message is delivered."""
    (place / "aliases").write_text("".join(f"ring{n}: ring{(n + 1) % 1000}, fork{n}\n" for n in range(1000)))
    i = make_instance(main_cf=BASE + f"alias_maps = hash:{place}/aliases\n", start=False)
    assert i.command("postalias", f"hash:{place}/aliases").returncode == 0
    i.start()
    send(i, "ring0@mail.example")
    i.wait_log("dsn=5.4.6, status=bounced (alias database loop for ring", 60)
    send(i, "nobody@mail.example")
    i.wait_log("to=<nobody@mail.example>, relay=local")


def test_commands_that_talk(make_instance, place):
    """Ten megabytes of words, and words without end: a limited part is in the log, and a limited time is spent."""
    i = make_instance(main_cf=BASE + "command_time_limit = 3s\nalias_maps = inline:{ "
                      "{much=\"|head -c 10000000 /dev/zero | tr '\\\\0' x; exit 69\"}, {endless=\"|yes; echo\"} }\n")
    send(i, "much@mail.example", "endless@mail.example")
    line = i.wait_log("status=bounced (service unavailable. Command output: xxxx", 60)
    assert 1000 < len(line) < 20000
    assert "dsn=5.3.0" in i.wait_log("status=bounced (Command time limit exceeded: ", 60)
    wait_quiet(i.queue, i.log, i)
    if not SANITIZED:
        assert most_memory(i, "local") < 60 * MIB


def test_full_disk(make_instance, users, place):
    """An mbox keeps its old length, a Maildir its old files, and the mail waits."""
    disk = place / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=1777", "none", str(disk)]).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        i = make_instance(main_cf=BASE + f"mail_spool_directory = {disk}\nalias_maps = inline:{{ {{dir={disk}/dir/}}, "
                          "{device=/dev/full} }\n")
        name = users.names[0]
        send(i, f"{name}@mail.example")
        i.wait_log(f"to=<{name}@mail.example>, relay=local")
        before = (disk / name).read_bytes()
        assert before
        big = "Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * 1200
        send(i, f"{name}@mail.example", "dir@mail.example", "device@mail.example", body=big)
        assert "No space left on device" in i.wait_log("dsn=4.3.0, status=deferred (cannot update mailbox")
        for address, why in (("dir", "maildir delivery failed: error writing message: No space left on device"),
                             ("device", "cannot append message to file /dev/full: error writing message: No space left")):
            assert why in i.wait_log(f"to=<{address}@mail.example>, relay=local")
        assert (disk / name).read_bytes() == before
        assert not list((disk / "dir/new").iterdir()) and not list((disk / "dir/tmp").iterdir())
        assert not (disk / f"{name}.lock").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_passed_on_to_what_is_not_there(make_instance, users):
    """mailbox_transport and fallback_transport with a name that is no service, and with our own: the mail waits."""
    i = make_instance(main_cf=BASE + "mailbox_transport_maps = inline:{ {angl000=nowhere:x} {angl001=local} }\n"
                      "fallback_transport = nowhere\n")
    send(i, "angl000@mail.example", "angl001@mail.example", "angl-nobody@mail.example")
    for name, why in (("angl000", "dsn=4.3.0, status=deferred (mail transport unavailable)"),
                      ("angl001", "dsn=4.3.5, status=deferred (mail system configuration error)"),
                      ("angl-nobody", "dsn=4.3.0, status=deferred (mail transport unavailable)")):
        assert why in i.wait_log(f"to=<{name}@mail.example>, relay=local")
    i.wait_log('"local" is no transport to give mail for <angl001@mail.example> to')


def test_passed_on_again_and_again(make_instance, users):
    """Twenty messages through one transport, and after that transport's process has been killed."""
    i = make_instance(main_cf=BASE + "mailbox_transport = discard:taken\n")
    for n in range(20):
        send(i, f"angl00{n % 4}@mail.example")
    wait_quiet(i.queue, i.log, i)
    assert i.log().count("relay=none") == 20 and i.log().count("status=sent (taken)") == 20
    for pid in i.pids("discard"):
        os.kill(pid, 9)
    send(i, "angl000@mail.example")
    wait_for(lambda: i.log().count("status=sent (taken)") == 21, 30, "the delivery after the kill")


def test_bad_settings(make_instance):
    """mailbox_size_limit below message_size_limit ends the agent with a word of why, and the mail stays."""
    i = make_instance(main_cf=BASE + "mailbox_size_limit = 1000\nmessage_size_limit = 2000\n")
    send(i, "nobody@mail.example")
    i.wait_log("main.cf configuration error: mailbox_size_limit is smaller than message_size_limit")
    wait_for(lambda: i.listing(), 30, "the message in the queue")
