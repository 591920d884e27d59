"""kill -9 between taking a message, writing it and saying so: no mail is lost, and none is there in part. Twice is allowed."""
import contextlib
import fcntl
import os
import pathlib
import pwd
import shutil
import signal
import tempfile

import pytest

from instance import wait_for

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
IDS = pwd.getpwnam(USER)
USERS = 10
ROUNDS = 6
MESSAGES = 60  # a round
END = "the last line\n"


@pytest.fixture
def mail(make_instance):
    top = pathlib.Path(tempfile.mkdtemp(prefix="killed-"))
    os.chown(top, IDS.pw_uid, IDS.pw_gid)
    boxes = " ".join(f"{{box{n}@v.example=box{n}}} {{dir{n}@v.example=dir{n}/}}" for n in range(USERS))
    mail = make_instance(user=USER if os.geteuid() == 0 else None, main_cf=(
        f"virtual_mailbox_domains = v.example\nvirtual_mailbox_base = {top}\nvirtual_mailbox_maps = inline:{{{boxes}}}\n"
        f"virtual_uid_maps = static:{IDS.pw_uid}\nvirtual_gid_maps = static:{IDS.pw_gid}\nvirtual_minimum_uid = 1\n"
        "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\ntransport_retry_time = 1s\n"
        "smtpd_reject_unlisted_recipient = no\nstale_lock_time = 1s\n"))
    mail.top = top
    yield mail
    shutil.rmtree(top)


def send(smtp, to, token):
    smtp.sendmail("a@elsewhere.example", [f"{to}@v.example"],
                  f"Subject: {token}\r\n\r\n" + ("x" * 70 + "\r\n") * 100 + END.replace("\n", "\r\n"))


def whole(top):
    """The subjects of all that readers would see; each message must end as it was sent."""
    found = []
    for path in top.rglob("*"):
        if path.parent.name == "new":
            messages = [path.read_text()]
        elif path.parent == top and path.is_file() and path.suffix != ".lock":
            messages = ["From " + text for text in path.read_text().split("\nFrom ")]
        else:
            continue
        for text in messages:
            ends = text.rstrip("\n").endswith(END.rstrip("\n"))
            assert ends or path.parent == top, f"{path} is there in part"  # an mbox may have a torn one: mbox has no rename
            if ends:
                found.append(text.split("Subject: ", 1)[1].split("\n", 1)[0])
    return found


def test_virtual_is_killed(mail):
    """At any moment, while it has several deliveries under way."""
    sent = []
    for number in range(ROUNDS):
        with mail.smtp() as smtp:
            for n in range(MESSAGES):
                token = f"token-{number}-{n}-"
                send(smtp, f"{'box' if n % 2 else 'dir'}{n % USERS}", token)
                sent.append(token)
                if n % 20 == 10:
                    for pid in mail.pids("virtual"):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
    wait_for(mail.queue_is_empty, 120, "the queue to empty")
    assert not set(sent) - set(whole(mail.top))


def test_between_write_and_answer(mail):
    """The queue manager dies before it has read what became of the message: it is delivered again. And before: once."""
    box = mail.top / "box0"
    for killed, copies in (("qmgr", 2), ("virtual", 1)):
        box.write_text("")
        os.chown(box, IDS.pw_uid, IDS.pw_gid)
        lock = open(box, "r+")
        fcntl.lockf(lock, fcntl.LOCK_EX)
        with mail.smtp() as smtp:
            send(smtp, "box0", killed)
        wait_for((mail.top / "box0.lock").exists, what="the delivery to wait for the lock")
        [pid] = mail.pids(killed)
        done = mail.log().count("status=sent")
        if killed == "qmgr":
            os.kill(pid, signal.SIGSTOP)
            lock.close()
            wait_for(lambda: mail.log().count("status=sent") > done, what="the message to be delivered")
        os.kill(pid, signal.SIGKILL)
        lock.close()
        if killed == "virtual":  # its lock file is nobody's
            (mail.top / "box0.lock").unlink(missing_ok=True)
        wait_for(lambda: pid not in mail.pids(killed), what=f"{killed} to end")
        mail.command("postqueue", "-f")  # master starts what is asked for something
        wait_for(lambda: mail.log().count("status=sent") >= done + copies, 60, "the message to be delivered")
        wait_for(mail.queue_is_empty, 60, "the queue to empty")
        assert whole(mail.top).count(killed) == copies
