"""A disk that is full, or that cannot be written: the client keeps its message (452, 451), and nothing accepted is lost."""
import os
import pwd
import smtplib
import subprocess

import pytest

from instance import wait_for

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def send(instance, size=2000):
    """The reply code of the step that refused, or 250."""
    with instance.smtp() as smtp:
        try:
            smtp.sendmail("a@elsewhere.example", [f"{USER}@mail.example"],
                          "Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * (size // 72))
        except smtplib.SMTPRecipientsRefused as refused:
            return next(iter(refused.recipients.values()))[0]
        except smtplib.SMTPResponseException as refused:
            return refused.smtp_code
    return 250


def test_queue_minfree(make_instance):
    instance = make_instance(user=USER if os.geteuid() == 0 else None, main_cf="queue_minfree = 1000000000000000\n")
    assert send(instance) == 452
    assert instance.queue_is_empty()
    done = instance.sendmail("-f", "a@elsewhere.example", f"{USER}@mail.example")
    # sendmail leaves it in maildrop/ or says "try again": it must not be dropped with success
    assert done.returncode == 75 or any((instance.queue / "maildrop").iterdir())


def test_unwritable_queue(make_instance):
    instance = make_instance(user=USER if os.geteuid() == 0 else None)
    assert send(instance) == 250
    instance.wait_log("status=sent")  # nothing is on its way when the queue becomes unwritable
    # small mail goes on through the segment of the log that is open; larger mail needs a file
    for name in ("incoming", "log"):
        (instance.queue / name).chmod(0o500)
    assert send(instance, 200_000) == 451
    for name in ("incoming", "log"):
        (instance.queue / name).chmod(0o700)
    assert send(instance, 200_000) == 250
    wait_for(lambda: instance.log().count("status=sent (delivered to mailbox)") == 2)


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    # in the way of pytest's own private folders an ordinary user cannot pass
    directory = tmp_path / "disk"
    directory.mkdir()
    for parent in [directory, *directory.parents]:
        if os.stat(parent).st_mode & 0o5 != 0o5:
            parent.chmod(0o755)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)]).returncode != 0:
        pytest.skip("no permission to mount a tmpfs")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_full_disk(make_instance, small_disk):
    """Accepted mail waits in the queue (its destination is down) until the disk is full; then there is room again."""
    (small_disk / "queue").mkdir(mode=0o755)
    os.chown(small_disk / "queue", pwd.getpwnam(USER).pw_uid, pwd.getpwnam(USER).pw_gid)
    instance = make_instance(user=USER, main_cf=f"queue_directory = {small_disk}/queue\nmessage_size_limit = 0\nmailbox_size_limit = 0\n"
                             "defer_transports = local\n")
    codes = []
    for _ in range(60):
        codes.append(send(instance, 200_000))
        if codes[-1] != 250:
            break
    assert codes[-1] in (451, 452), codes
    accepted = codes.count(250)
    assert accepted >= 5
    # the server lives on, and refuses politely
    assert send(instance, 400_000) in (451, 452)
    # room again, and the destination is back: every accepted message arrives, none that was refused
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    with open(instance.etc / "main.cf", "a") as main_cf:
        main_cf.write("defer_transports =\n")
    assert instance.reload().returncode == 0
    instance.postfix("flush")

    def arrived():
        path = instance.mail / USER
        return path.exists() and path.read_text().count("\nSubject: x\n") == accepted
    wait_for(arrived, 60)
