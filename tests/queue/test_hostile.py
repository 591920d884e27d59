"""A queue in a bad state: files that are none of ours, files of another version, disks that are full, that cannot be written
or have no inodes left, processes without descriptors. Other mail goes on, what is wrong is said once, and nothing that was
accepted is lost."""
import contextlib
import os
import pathlib
import pwd
import re
import shutil
import smtplib
import socket
import struct
import subprocess
import time

import pytest

from instance import free_port, wait_for
from queue_support import ME, USER, listing, send
from sink import Sink

QUEUES = ["incoming", "active", "deferred", "hold", "corrupt"]
OTHERS = ["defer", "bounce", "maildrop", "trace", "flush", "log"]
ROOT = os.geteuid() == 0


@pytest.fixture
def make(make_instance):
    def start(main_cf="", **kwargs):
        return make_instance(user=USER if ROOT else None, main_cf=main_cf, **kwargs)
    return start


def dead(port):
    """main.cf lines: mail for relay.example goes to a port of this host, and waits for hours when it is refused there."""
    return (f"relay_domains = relay.example\nrelay_transport = relay:[127.0.0.1]:{port}\n"
            "minimal_backoff_time = 10h\nmaximal_backoff_time = 10h\n")


# A file that has just been moved out of the log is not the message's only copy: one that is bad gives way to the record.
FILES_ONLY = "queue_log = no\n"


def files_below(path):
    return [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]


def deferred_file(instance):
    """The one deferred message's file."""
    def look():
        found = files_below(instance.queue / "deferred")
        return found if len(found) == 1 else None
    [path] = wait_for(look)
    return path


def no_crash(instance):
    """No process was ended by a signal or has complained of itself."""
    bad = [line for line in instance.log().splitlines()
           if re.search(r"killed by signal|exit status|panic|assert|bad command startup|process id \d+ unknown", line)]
    assert not bad, bad


# --- what does not belong there ---
def without_reasons(message):
    """A queue file up to where why its recipients wait would stand (spool_file.h): all of this has to be there."""
    rcpts, = struct.unpack_from("<I", message, 12)
    envelope_at, envelope_size = struct.unpack_from("<QI", message, 24)
    end = envelope_at + envelope_size + rcpts + 2
    assert len(message) >= end + 4
    return message[:end] + bytes(4)


def litter(folder, message, owner):
    """Things of every kind under names that messages have, and under others. Returns the names of those that look like
    messages."""
    def put(name, content, mode):
        path = folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return name
    good = without_reasons(message.read_bytes())
    looks = [
        put("1A2B3C4D01", os.urandom(5000), 0o700),
        put("1A2B3C4D02", b"", 0o700),
        put("1A2B3C4D03", good[:40], 0o700),
        put("1A2B3C4D04", good[:-1], 0o700),
        put("1A2B3C4D05", good[:len(good) // 2], 0o700),
        put("1A2B3C4D06", b"x" + good, 0o700),
        put("1A2B3C4D07", bytes([good[0] ^ 1]) + good[1:], 0o700),
        put("1A2B3C4D08", good[:-30] + bytes(30), 0o700),
        put("1A2B3C4D09", b"\0" * 64, 0o700),
    ]
    put("1A2B3C4D11", os.urandom(100), 0o600)   # not finished, it says
    put("1A2B3C4D12", good, 0o000)
    with open(folder / put("1A2B3C4D13", good[:64], 0o700), "r+b") as f:
        f.truncate(1 << 40)
    looks.append("1A2B3C4D13")
    (folder / "1A2B3C4D14").mkdir()
    (folder / "1A2B3C4D15").symlink_to("/etc/passwd")
    (folder / "1A2B3C4D16").symlink_to(message)
    (folder / "1A2B3C4D17").symlink_to("nowhere")
    os.mkfifo(folder / "1A2B3C4D18", 0o700)
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as s:  # a name for it must be short
        os.chdir(folder)
        s.bind("1A2B3C4D19")
        os.chdir(here)
    os.chmod(folder / "1A2B3C4D19", 0o700)
    for name in ("README", ".hidden", "tmp.1.2", "tmp." + "x" * 250, "x" * 255, "a b", "a\nb", b"\xff\xfe".decode("latin-1"),
                 "..x", "-rf", "$(x)", "1A2B3C4D20.old", "A" * 31, "A" * 32):
        put(name, os.urandom(50), 0o700)
    (folder / "A").mkdir(exist_ok=True)  # a hash folder, or not
    (folder / "sub").mkdir()
    put("sub/1A2B3C4D21", os.urandom(50), 0o700)
    if ROOT:
        for path in [folder, *folder.rglob("*")]:
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, pwd.getpwnam(owner).pw_uid, pwd.getpwnam(owner).pw_gid, follow_symlinks=False)
    return looks


def hashed(instance, name, message_id):
    """Where a message of that id lies in a queue directory."""
    return instance.queue / name / (message_id[0] if name in ("deferred", "defer") else "")


@pytest.mark.parametrize("where", QUEUES + OTHERS)
def test_litter(make, where):
    port = free_port()
    instance = make(dead(port))
    send(instance, "a@relay.example")
    message = deferred_file(instance)
    instance.postfix("stop")
    folder = hashed(instance, where, "1A2B3C4D01")
    folder.mkdir(parents=True, exist_ok=True)
    if ROOT:
        shutil.chown(folder, USER)
    looks = litter(folder, message, USER)
    before = {path: path.read_bytes() for path in files_below(instance.queue / "corrupt") if path.stat().st_size < 100_000}
    assert instance.postfix("start").returncode == 0
    send(instance, ME, text="one")
    instance.wait_log("status=sent (delivered to mailbox)")
    sink = Sink(port)
    try:
        instance.command("postqueue", "-f")
        wait_for(lambda: sink.messages == 1)
    finally:
        sink.close()
    if where in ("incoming", "active", "deferred"):
        for name in looks:
            wait_for(lambda: (instance.queue / "corrupt" / name).exists(), what=f"{name} in corrupt/")
            assert instance.log().count(f'saving corrupt file "{name}" from queue "{where}" to queue "corrupt"') == 1
    for path, content in before.items():
        assert path.read_bytes() == content
    # again, and everybody who only looks: each ends, and says so
    log_size = len(instance.log())
    for _ in range(3):
        instance.command("postqueue", "-f")
    for command in (["postqueue", "-p"], ["postqueue", "-j"], ["mailq"]):
        done = instance.command(*command, capture_output=True, text=False)
        assert done.returncode == 0, done.stderr
    assert instance.postfix("check").returncode == 0
    send(instance, ME, text="two")
    wait_for(lambda: instance.log().count("status=sent (delivered to mailbox)") == 2)
    no_crash(instance)
    # what was wrong is not said again and again
    again = [line for line in instance.log()[log_size:].splitlines() if "saving corrupt" in line]
    assert not again, again
    assert len(instance.log()) < 300_000
    assert os.path.islink(folder / "1A2B3C4D15") or where == "maildrop"
    assert pathlib.Path("/etc/passwd").read_text()


def test_litter_while_running(make):
    """The same in the middle of work: between two scans."""
    port = free_port()
    instance = make(dead(port))
    send(instance, "a@relay.example")
    message = deferred_file(instance)
    for where in QUEUES + ["defer", "bounce"]:
        folder = hashed(instance, where, "1A2B3C4D01")
        folder.mkdir(parents=True, exist_ok=True)
        if ROOT:
            shutil.chown(folder, USER)
        if where == "deferred":
            looks = litter(folder, message, USER)
        elif where != "corrupt":
            litter(folder, message, USER)
    instance.command("postqueue", "-f")
    for i in range(20):
        send(instance, ME, text=str(i))
    wait_for(lambda: instance.log().count("status=sent (delivered to mailbox)") == 20)
    wait_for(lambda: all((instance.queue / "corrupt" / name).exists() for name in looks))
    instance.command("postqueue", "-p", capture_output=True, text=False)
    no_crash(instance)


def test_hard_link(make):
    """Two names of one message: it is delivered under each, at worst twice; neither is lost."""
    port = free_port()
    instance = make(dead(port) + FILES_ONLY)
    send(instance, "a@relay.example")
    message = deferred_file(instance)
    os.link(message, message.parent / (message.name + "F"))
    sink = Sink(port)
    try:
        instance.command("postqueue", "-f")
        wait_for(lambda: sink.messages == 1)  # the other name is locked with it
        wait_for(lambda: len(files_below(instance.queue / "deferred")) == 1)
        instance.command("postqueue", "-f")
        wait_for(instance.queue_is_empty)
        assert sink.messages in (1, 2)
    finally:
        sink.close()
    no_crash(instance)


def listed_reason(instance):
    return [rcpt.get("delay_reason", "") for entry in listing(instance) for rcpt in entry["recipients"]]


def test_damaged_reasons(make):
    """Why a recipient waits is at the end of the file: when that is cut or garbage, the reason is missing in mailq, the mail
    is not."""
    port = free_port()
    instance = make(dead(port))
    send(instance, "a@relay.example")
    message = deferred_file(instance)
    wait_for(lambda: "Connection refused" in "".join(listed_reason(instance)))
    whole = message.read_bytes()
    start = len(without_reasons(whole))
    for bad in (whole[:-1], whole[:start], whole[:start] + os.urandom(len(whole) - start),
                whole[:start - 4] + b"\xff" * 4 + whole[start:start + 5], whole[:start - 4] + b"\xff" * 4 + bytes(100000)):
        message.write_bytes(bad)
        assert listed_reason(instance) == [""]
    message.write_bytes(whole[:start - 4] + b"\xff" * 4 + whole[start:] + b"garbage")
    assert "Connection refused" in "".join(listed_reason(instance))
    message.write_bytes(whole[:-1])
    instance.command("postqueue", "-f")
    wait_for(lambda: instance.log().count("status=deferred") == 2)
    wait_for(lambda: "Connection refused" in "".join(listed_reason(instance)))
    sink = Sink(port)
    try:
        instance.command("postqueue", "-f")
        wait_for(lambda: sink.messages == 1)
        wait_for(instance.queue_is_empty)
        assert sink.messages == 1
    finally:
        sink.close()
    no_crash(instance)


def test_directory_in_place_of_a_log(make):
    """bounce/ID is a directory: the reason is missing in mailq, the mail is not."""
    port = free_port()
    instance = make(dead(port))
    send(instance, "a@relay.example")
    message = deferred_file(instance)
    log = instance.queue / "bounce" / message.name
    log.mkdir()
    (log / "x").write_text("x")
    if ROOT:
        shutil.chown(log, USER)
    instance.command("postqueue", "-f")
    wait_for(lambda: instance.log().count("status=deferred") == 2)
    wait_for(lambda: [e["queue_name"] for e in listing(instance)] == ["deferred"])
    sink = Sink(port)
    try:
        instance.command("postqueue", "-f")
        wait_for(lambda: sink.messages == 1)
        time.sleep(1)
        assert sink.messages == 1  # a log that cannot go away does not bring the mail back for ever
    finally:
        sink.close()
    no_crash(instance)


# --- another version of the queue ---
def crc32c(data):
    table = []
    for i in range(256):
        c = i
        for _ in range(8):
            c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
        table.append(c)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def of_version(message, version):
    """A queue file as another version of this product would have it: the head is whole (spool_file.h)."""
    head = bytearray(message[:64])
    assert head[:8] == b"ANGMAIL\n" and struct.unpack("<I", head[60:])[0] == crc32c(bytes(head[:60]))
    head[8:12] = struct.pack("<I", version)
    head[60:] = struct.pack("<I", crc32c(bytes(head[:60])))
    return bytes(head) + message[64:]


@pytest.mark.parametrize("version", [0, 1, 3, 0xFFFFFFFF])
def test_another_version(make, version):
    """Mail of another version is kept whole in corrupt/, and the log says so."""
    instance = make(dead(free_port()) + FILES_ONLY)
    send(instance, "a@relay.example")
    message = deferred_file(instance)
    instance.postfix("stop")
    for where in ("incoming", "active"):
        path = instance.queue / where / f"1A2B3C4D0{len(where)}"
        path.write_bytes(of_version(message.read_bytes(), version))
        path.chmod(0o700)
        if ROOT:
            shutil.chown(path, USER)
    message.write_bytes(of_version(message.read_bytes(), version))
    wanted = message.read_bytes()
    assert instance.postfix("start").returncode == 0
    instance.command("postqueue", "-f")
    for where, name in (("deferred", message.name), ("incoming", "1A2B3C4D08"), ("active", "1A2B3C4D06")):
        instance.wait_log(f'warning: saving corrupt file "{name}" from queue "{where}" to queue "corrupt"')
        kept = instance.queue / "corrupt" / name
        wait_for(kept.exists)
        assert kept.read_bytes() == wanted
    send(instance, ME)
    instance.wait_log("status=sent (delivered to mailbox)")
    no_crash(instance)


def test_files_of_postfix(make):
    """Queue files of Postfix itself, after a change of the mail system in place: kept, reported."""
    instance = make()
    text = b"C             290             145               1               0             290               0\nT\x11" \
           b"1763740000 123456A\x17rewrite_context=remoteS\x0ba@b.exampleR\x0ec@relay.exampleM\x00N\x0aSubject: xX\x00E\x00"
    path = instance.queue / "deferred/7/7E285A87421"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    path.chmod(0o700)
    if ROOT:
        for p in (path.parent, path):
            shutil.chown(p, USER)
    instance.command("postqueue", "-f")
    instance.wait_log('saving corrupt file "7E285A87421" from queue "deferred" to queue "corrupt"')
    assert (instance.queue / "corrupt/7E285A87421").read_bytes() == text


# --- disks ---
@pytest.fixture
def disk(tmp_path):
    """disk(options): a file system of its own; .mount(options) changes it."""
    if not ROOT:
        pytest.skip("mounting a file system needs root")
    directory = tmp_path / "disk"
    directory.mkdir()
    for parent in [directory, *directory.parents]:
        if os.stat(parent).st_mode & 0o5 != 0o5:
            parent.chmod(0o755)
    mounted = []

    def mount(options):
        how = ["-o", f"remount,{options}"] if mounted else ["-t", "tmpfs", "-o", options, "tmpfs"]
        if subprocess.run(["mount", *how, str(directory)], capture_output=True).returncode != 0:
            pytest.skip("no permission to mount a tmpfs")
        if not mounted:
            mounted.append(directory)
            (directory / "queue").mkdir(mode=0o755)
            shutil.chown(directory / "queue", USER)
        return directory / "queue"
    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def try_to_send(instance, to, size=2000, subject="x"):
    """The last reply: "250", or that of the step that refused."""
    with instance.smtp() as smtp:
        try:
            smtp.sendmail("a@b.example", [to], f"Subject: {subject}\r\n\r\n" + ("y" * 70 + "\r\n") * (size // 72))
        except smtplib.SMTPRecipientsRefused as refused:
            code, text = next(iter(refused.recipients.values()))
            return f"{code} {text.decode()}"
        except smtplib.SMTPResponseException as refused:
            return f"{refused.smtp_code} {refused.smtp_error.decode()}"
    return "250"


def mailbox(instance):
    path = instance.mail / USER
    return path.read_text() if path.exists() else ""


def all_there(instance, accepted, size):
    """Every accepted message has arrived once, whole; none that was refused has."""
    found = re.findall(r"^Subject: (\S+)$", mailbox(instance), re.M)
    if sorted(found) != sorted(accepted):
        return False
    assert mailbox(instance).count("y" * 70 + "\n") == len(accepted) * (size // 72)
    return True


STUCK = "message_size_limit = 1000000\nmailbox_size_limit = 0\ndefer_transports = local\nqueue_run_delay = 5s\nminimal_backoff_time = 5s\n"


def test_minfree(make_instance, disk):
    """queue_minfree: refused before the disk is full, with the reply that says so; over again when there is room, without
    anybody's help."""
    queue = disk("size=64m")
    instance = make_instance(user=USER, main_cf=f"queue_directory = {queue}\nqueue_minfree = 12000000\n"
                             "message_size_limit = 1000000\n")
    ballast = queue.parent / "ballast"
    free = os.statvfs(queue)
    ballast.write_bytes(bytes(free.f_bavail * free.f_bsize - 8_000_000))
    assert try_to_send(instance, ME) == "452 4.3.1 Insufficient system storage"
    instance.wait_log("NOQUEUE: reject: RCPT from localhost[127.0.0.1]: 452 4.3.1 Insufficient system storage; "
                      f"from=<a@b.example> to=<{ME}>")
    done = instance.sendmail("-f", "a@b.example", ME)  # of local mail the file is kept, or the caller is told
    assert done.returncode in (0, 75)
    ballast.unlink()
    wait_for(lambda: try_to_send(instance, ME, subject="later") == "250")  # the disk is looked at now and then
    wait_for(lambda: "Subject: later" in mailbox(instance))
    if done.returncode == 0:
        wait_for(lambda: "Subject: test" in mailbox(instance), 90)
    no_crash(instance)


@pytest.mark.parametrize("size, settings", [
    (3000, FILES_ONLY), (300_000, ""), (3000, "queue_log_segment_size = 1048576\n"),
], ids=["files", "large", "log"])
def test_full(make_instance, disk, size, settings):
    """No check in front: writing fails somewhere in the middle. Refused, and nothing of it is left; what was accepted
    arrives when there is room again."""
    queue = disk("size=40m")
    instance = make_instance(user=USER, main_cf=f"queue_directory = {queue}\n{settings}{STUCK}".replace("1000000", "0"))
    assert try_to_send(instance, ME, size, "first") == "250"
    accepted = ["first"]
    free = os.statvfs(queue)
    room = free.f_bavail * free.f_bsize - 4 * size - 400_000
    (queue.parent / "ballast").write_bytes(bytes(max(room, 0)))
    replies = []
    for i in range(3000):
        replies.append(try_to_send(instance, ME, size, f"m{i}"))
        if replies[-1] == "250":
            accepted.append(f"m{i}")
        elif len(replies) > 5 and replies[-5:].count("250") == 0:
            break
    assert "250" not in replies[-5:] and all(re.match("250|45[12] 4.3.[01]", r) for r in replies), replies[-5:]
    assert instance.running()
    (queue.parent / "ballast").unlink()
    assert try_to_send(instance, ME, size, "after") == "250"
    accepted.append("after")
    with open(instance.etc / "main.cf", "a") as main_cf:
        main_cf.write("defer_transports =\n")
    assert instance.reload().returncode == 0
    instance.postfix("flush")
    try:
        wait_for(lambda: all_there(instance, accepted, size), 150)
    except TimeoutError:
        found = re.findall(r"^Subject: (\S+)$", mailbox(instance), re.M)
        print("missing", set(accepted) - set(found), "not accepted", set(found) - set(accepted),
              "twice", {f for f in found if found.count(f) > 1})
        print(instance.command("mailq", capture_output=True).stdout[-2000:])
        raise
    wait_for(lambda: instance.command("mailq", capture_output=True).stdout == "Mail queue is empty\n")
    no_crash(instance)


def test_no_inodes(make_instance, disk):
    queue = disk("size=64m,nr_inodes=400")
    instance = make_instance(user=USER, main_cf=f"queue_directory = {queue}\nqueue_log = no\n{STUCK}")
    assert try_to_send(instance, ME, subject="first") == "250"
    accepted, replies = ["first"], []
    for i in range(600):
        replies.append(try_to_send(instance, ME, subject=f"m{i}"))
        if replies[-1] == "250":
            accepted.append(f"m{i}")
        else:
            break
    assert re.match("45[12] 4.3.[01]", replies[-1]), replies[-1]
    assert len(accepted) > 50 and re.match("45[12] 4.3.[01]", try_to_send(instance, ME))
    disk("size=64m,nr_inodes=4000")
    assert try_to_send(instance, ME, subject="after") == "250"
    accepted.append("after")
    with open(instance.etc / "main.cf", "a") as main_cf:
        main_cf.write("defer_transports =\n")
    assert instance.reload().returncode == 0
    instance.postfix("flush")
    wait_for(lambda: all_there(instance, accepted, 2000), 90)
    no_crash(instance)


@pytest.fixture
def aborted_disk(tmp_path):
    """(directory, abort(), mend()): an ext4 file system that turns itself read-only, as one with errors does."""
    if not ROOT:
        pytest.skip("mounting a file system needs root")
    image, directory = tmp_path / "image", tmp_path / "disk"
    with open(image, "wb") as f:
        f.truncate(64 << 20)
    directory.mkdir()
    for parent in [directory, *directory.parents]:
        if os.stat(parent).st_mode & 0o5 != 0o5:
            parent.chmod(0o755)

    def run(*args):
        return subprocess.run(args, capture_output=True).returncode
    try:
        if run("mkfs.ext4", "-q", "-F", image) or run("mount", "-o", "loop", image, directory):
            pytest.skip("no permission to mount an ext4 image")
    except FileNotFoundError:
        pytest.skip("no mkfs.ext4")
    (directory / "queue").mkdir()
    shutil.chown(directory / "queue", USER)

    def mend():
        wait_for(lambda: run("umount", directory) == 0, what="umount")
        assert run("e2fsck", "-fy", image) in (0, 1)
        assert run("mount", "-o", "loop", image, directory) == 0
    yield directory / "queue", lambda: run("mount", "-o", "remount,abort", directory), mend
    run("umount", "-l", directory)


def test_read_only(make_instance, aborted_disk):
    """The file system becomes read-only under a running mail system: 451, nothing dies, lists work; when it has been mended,
    what was accepted is there and is delivered, and what was refused is not."""
    queue, abort, mend = aborted_disk
    port = free_port()
    instance = make_instance(user=USER, main_cf=dead(port) + f"queue_directory = {queue}\n")
    for i in range(3):
        send(instance, f"u{i}@relay.example")
    wait_for(lambda: len([e for e in listing(instance) if e["queue_name"] == "deferred"]) == 3)
    os.sync()
    abort()
    for _ in range(3):
        assert try_to_send(instance, ME, subject="refused").startswith("451 4.3.0")
    assert try_to_send(instance, ME, size=300_000, subject="refused").startswith("451 4.3.0")
    instance.command("postqueue", "-f")
    listed = instance.command("postqueue", "-p", capture_output=True)
    assert listed.returncode == 0 and "u0@relay.example" in listed.stdout
    assert try_to_send(instance, ME, subject="refused").startswith("451 4.3.0")
    assert instance.running()
    no_crash(instance)
    instance.postfix("stop")
    for pid in instance.pids():
        os.kill(pid, 9)
    mend()
    sink = Sink(port)
    try:
        assert instance.postfix("start").returncode == 0
        instance.command("postqueue", "-f")
        wait_for(lambda: sink.messages == 3)
        wait_for(lambda: instance.command("mailq", capture_output=True).stdout == "Mail queue is empty\n")
    finally:
        sink.close()
    assert try_to_send(instance, ME, subject="after") == "250"
    wait_for(lambda: "Subject: after" in mailbox(instance))
    assert "Subject: refused" not in mailbox(instance)


def test_start_on_read_only(make_instance, disk):
    """`postfix start` says why it cannot."""
    queue = disk("size=16m")
    disk("ro")
    instance = make_instance(user=USER, main_cf=f"queue_directory = {queue}\n", start=False)
    done = instance.postfix("start")
    assert done.returncode != 0 and "Read-only file system" in done.stderr + instance.log(), done.stderr
    assert "Traceback" not in done.stderr and not instance.pids()


# --- descriptors ---
def limit_descriptors(pid, most):
    """Its own user may."""
    as_user = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if ROOT else {}
    done = subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={most}:"], capture_output=True, text=True, **as_user)
    if done.returncode != 0:
        pytest.skip(f"no permission to change limits: {done.stderr}")


@pytest.mark.parametrize("program", ["cleanup", "qmgr", "trivial-rewrite", "local", "smtpd"])
def test_no_descriptors(make, program):
    """A daemon may open nothing more for a while: mail waits or is refused with 4xx, and then goes on."""
    instance = make("minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\ntransport_retry_time = 1s\n")
    assert try_to_send(instance, ME, subject="first") == "250"
    instance.wait_log("status=sent (delivered to mailbox)")
    accepted = ["first"]
    for pid in instance.pids(program):
        limit_descriptors(pid, max(len(os.listdir(f"/proc/{pid}/fd")) - 2, 3))
    replies = []
    for i in range(3):
        try:
            with smtplib.SMTP("127.0.0.1", instance.port, timeout=5) as smtp:
                smtp.sendmail("a@b.example", [ME], f"Subject: m{i}\r\n\r\n" + ("y" * 70 + "\r\n") * (2000 // 72))
            accepted.append(f"m{i}")
        except smtplib.SMTPRecipientsRefused as refused:
            replies.append(next(iter(refused.recipients.values()))[0])
        except smtplib.SMTPResponseException as refused:
            replies.append(refused.smtp_code)
        except (smtplib.SMTPServerDisconnected, TimeoutError):
            pass
    assert all(400 <= r < 500 for r in replies), replies
    for pid in instance.pids(program):
        limit_descriptors(pid, 1024)
    assert try_to_send(instance, ME, subject="after") == "250"
    accepted.append("after")
    wait_for(lambda: all_there(instance, accepted, 2000), 90)
    wait_for(lambda: instance.command("mailq", capture_output=True).stdout == "Mail queue is empty\n", 60)
    no_crash(instance)
