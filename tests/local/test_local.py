"""local(8) and virtual(8) in a running instance: what is delivered, forwarded, run and refused."""
import mailbox
import os
import pathlib
import pwd
import signal
import subprocess
import tempfile
import time

import pytest

from instance import wait_for

ME = pwd.getpwuid(os.geteuid()).pw_name
SENDER = "sender@mail.example"
BASE = f"""\
smtpd_reject_unlisted_recipient = no
recipient_delimiter = +
deliver_lock_attempts = 3
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
alias_maps = inline:{{ {{sender={ME}}}, {{postmaster={ME}}} }}
"""


def send(instance, *rcpts, body="hello\n", sender=SENDER, **options):
    with instance.smtp() as s:
        s.sendmail(sender, list(rcpts), f"Subject: test\n\n{body}", **options)


def box(path):
    return [m.as_string() for m in mailbox.mbox(path)]


def wait_quiet(instance):
    """Until nothing is left in the queue: every message delivered, forwarded or returned."""
    wait_for(instance.queue_is_empty, 30, "the empty queue")


def test_mbox(make_instance):
    i = make_instance(main_cf=BASE)
    send(i, f"{ME}@mail.example", body="From me\n>From you\nFrom: not\n\nFrom \nlast")
    line = i.wait_log("status=sent (delivered to mailbox)")
    assert f"to=<{ME}@mail.example>, relay=local, delay=" in line and "dsn=2.0.0" in line
    text = (i.mail / ME).read_text()
    assert text.startswith(f"From {SENDER}  ")
    assert f"\nReturn-Path: <{SENDER}>\nX-Original-To: {ME}@mail.example\nDelivered-To: {ME}@mail.example\n" in text
    assert text.endswith("\n\n>From me\n>From you\nFrom: not\n\n>From \nlast\n\n")
    assert (i.mail / ME).stat().st_mode & 0o777 == 0o600


def test_many_at_once(make_instance):
    """Forty messages to one mbox by ten connections: each there once, whole, and none had to wait for a lock."""
    i = make_instance(main_cf=BASE + "local_destination_concurrency_limit = 20\ndeliver_lock_attempts = 1\n")
    for n in range(10):
        with i.smtp() as s:
            for k in range(4):
                s.sendmail(SENDER, [f"{ME}@mail.example"], f"Subject: {n}-{k}\n\n" + f"line {n}-{k}\n" * 500)
    wait_quiet(i)
    mails = list(mailbox.mbox(i.mail / ME))
    assert sorted(m["subject"] for m in mails) == sorted(f"{n}-{k}" for n in range(10) for k in range(4))
    for m in mails:
        assert m.get_payload() == f"line {m['subject']}\n" * 500
    assert "deferred" not in i.log()


def test_alias_to_here_and_elsewhere(make_instance):
    i = make_instance(main_cf=BASE.replace("alias_maps = inline:{ ", f"alias_maps = inline:{{ {{team={ME}, far@v.example}}, ")
                      + f"virtual_mailbox_domains = v.example\nvirtual_mailbox_maps = static:far/\n"
                      f"virtual_mailbox_base = {'$mail_spool_directory'}\n"
                      f"virtual_uid_maps = static:{max(os.geteuid(), 100)}\nvirtual_gid_maps = static:{os.getegid()}\n"
                      "virtual_minimum_uid = 1\n")
    send(i, "team@mail.example")
    forwarded = i.wait_log("status=sent (forwarded as ")
    new = forwarded.split("forwarded as ")[1].rstrip(")")
    assert "to=<team@mail.example>, relay=local" in forwarded
    assert "orig_to=<team@mail.example>" in i.wait_log("status=sent (delivered to mailbox)")
    i.wait_log(f"{new}: to=<far@v.example>, orig_to=<team@mail.example>, relay=virtual")
    wait_quiet(i)
    files = list((i.mail / "far/new").iterdir())
    assert len(files) == 1
    text = files[0].read_text()
    assert text.startswith(f"Return-Path: <{SENDER}>\nX-Original-To: team@mail.example\nDelivered-To: far@v.example\n"
                           f"Received: by mail.example (Angarium)\n\tid {new}; ")
    assert "\nDelivered-To: team@mail.example\nReceived: from" in text


def test_unknown_user_comes_back(make_instance):
    i = make_instance(main_cf=BASE)
    send(i, "nosuchuser@mail.example")
    assert "dsn=5.1.1, status=bounced" in i.wait_log('(unknown user: "nosuchuser")')
    wait_quiet(i)
    assert "Undelivered Mail Returned to Sender" in (i.mail / ME).read_text()


@pytest.fixture
def open_path():
    """A directory that other users can look into; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="angarium-local-") as name:
        os.chmod(name, 0o755)
        yield pathlib.Path(name)


@pytest.fixture
def forward(open_path):
    """Forward files outside of the homes: forward(text) writes the user's, forward.main_cf names them."""

    def write(text):
        path = open_path / f"forward-{ME}"
        path.write_text(text)
        path.chmod(0o644)
    write.main_cf = BASE + f"forward_path = {open_path}/forward-$user\n"
    write.run = open_path / "run"
    write.run.mkdir()
    write.run.chmod(0o777)
    return write


def test_loop_over_forwarding(make_instance, forward):
    """a.forward -> alias -> a: the owner's mail is a new message, and the second time Delivered-To tells."""
    i = make_instance(main_cf=forward.main_cf.replace("inline:{ ", f"inline:{{ {{round={ME}}}, {{owner-round=nobody}}, ")
                      .replace(f"{{sender={ME}}}", "{sender=nobody}"))
    forward("round@mail.example\n")
    send(i, f"{ME}@mail.example")
    assert "dsn=5.4.6, status=bounced" in i.wait_log(f"(mail forwarding loop for {ME}@mail.example)")


def written(path):
    """A number that a command writes into a file."""
    def look():
        text = path.read_text() if path.exists() else ""
        return text.endswith("\n") and int(text)
    return wait_for(look, 20, "the command")


def test_hanging_command_holds_up_nobody(make_instance, forward):
    i = make_instance(main_cf=forward.main_cf + "command_time_limit = 600s\n")
    forward(f'"|echo $$ > {forward.run}/pid; exec sleep 600"\n')
    send(i, f"{ME}+slow@mail.example")
    pid = written(forward.run / "pid")
    send(i, "daemon@mail.example", "games@mail.example")
    i.wait_log("to=<daemon@mail.example>, relay=local")
    i.wait_log("to=<games@mail.example>, relay=local")
    os.kill(pid, signal.SIGKILL)
    assert "dsn=4.3.0, status=deferred (Command died with signal 9" in i.wait_log(f"to=<{ME}+slow@mail.example>")


def test_command_over_its_time(make_instance, forward):
    i = make_instance(main_cf=forward.main_cf + "command_time_limit = 1s\n")
    forward(f'"|sleep 600 & echo $! > {forward.run}/pid; wait"\n')
    send(i, f"{ME}+slow@mail.example")
    i.wait_log("status=bounced (Command time limit exceeded: ")
    pid = written(forward.run / "pid")

    def gone():
        try:
            return open(f"/proc/{pid}/stat").read().split()[2] == "Z"
        except FileNotFoundError:
            return True
    wait_for(gone, 20, "the end of the command's child")


def test_agent_killed_in_the_middle(make_instance, forward):
    """kill -9 of local while a command runs: the message stays and is delivered later (at once, when the agent had hardly
    begun)."""
    i = make_instance(main_cf=forward.main_cf)
    forward(f'"|echo $$ > {forward.run}/pid; sleep 600"\n')
    send(i, f"{ME}+x@mail.example")
    command = written(forward.run / "pid")
    forward("")
    for pid in i.pids("local"):
        os.kill(pid, signal.SIGKILL)
    i.wait_log("status=sent (delivered to mailbox)", 60)
    assert len(box(i.mail / ME)) == 1
    os.kill(command, signal.SIGKILL)


# --- what needs root: other users' rights ---
@pytest.fixture
def users(open_path):
    """Two users with homes of their own, as long as the test runs."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as other users")
    names = ["angtest1", "angtest2"]
    for name in names:
        subprocess.run(["userdel", name], capture_output=True)
        subprocess.run(["useradd", "-M", "-U", "-s", "/bin/sh", "-d", str(open_path / name), name], check=True)
        (open_path / name).mkdir(mode=0o755)
        os.chown(open_path / name, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
    yield [pwd.getpwnam(name) for name in names]
    for name in names:
        subprocess.run(["userdel", name], capture_output=True)


def write_as(user, name, text):
    path = os.path.join(user.pw_dir, name)
    with open(path, "w") as f:
        f.write(text)
    os.chown(path, user.pw_uid, user.pw_gid)
    os.chmod(path, 0o644)


def test_home_mailboxes(make_instance, users):
    a, b = users
    i = make_instance(main_cf=BASE + "home_mailbox = Maildir/\n")
    send(i, f"{a.pw_name}@mail.example")
    i.wait_log("status=sent (delivered to maildir)")
    files = os.listdir(f"{a.pw_dir}/Maildir/new")
    assert len(files) == 1
    st = os.stat(f"{a.pw_dir}/Maildir/new/{files[0]}")
    assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (a.pw_uid, a.pw_gid, 0o600)
    # a home that the user cannot write to
    os.chown(b.pw_dir, 0, 0)
    send(i, f"{b.pw_name}@mail.example")
    assert "dsn=5.2.0, status=bounced (maildir delivery failed: create maildir file" in i.wait_log(
        f"to=<{b.pw_name}@mail.example>")


def test_home_mbox(make_instance, users):
    a, _ = users
    i = make_instance(main_cf=BASE + "home_mailbox = mail\n")
    send(i, f"{a.pw_name}@mail.example")
    i.wait_log("status=sent (delivered to mailbox)")
    assert os.stat(f"{a.pw_dir}/mail").st_uid == a.pw_uid
    assert not os.path.exists(f"{a.pw_dir}/mail.lock")


def test_forward_runs_as_the_user(make_instance, users):
    a, b = users
    i = make_instance(main_cf=BASE)
    write_as(a, ".forward", f'"|id > {a.pw_dir}/id; env > {a.pw_dir}/env", {a.pw_dir}/file, {b.pw_name}\n')
    send(i, f"{a.pw_name}+ext@mail.example")
    i.wait_log(f"to=<{b.pw_name}@mail.example>, orig_to=<{a.pw_name}+ext@mail.example>, relay=local")
    wait_quiet(i)
    ids = open(f"{a.pw_dir}/id").read()
    assert f"uid={a.pw_uid}({a.pw_name})" in ids and f"groups={a.pw_gid}({a.pw_name})\n" in ids
    env = open(f"{a.pw_dir}/env").read().splitlines()
    for line in (f"USER={a.pw_name}", f"HOME={a.pw_dir}", "SHELL=/bin/sh", "EXTENSION=ext", f"SENDER={SENDER}",
                 f"RECIPIENT={a.pw_name}+ext@mail.example", "DOMAIN=mail.example", "CLIENT_ADDRESS=127.0.0.1"):
        assert line in env
    assert os.stat(f"{a.pw_dir}/file").st_uid == a.pw_uid
    text = (i.mail / b.pw_name).read_text()
    assert f"\nX-Original-To: {a.pw_name}+ext@mail.example\nDelivered-To: {b.pw_name}@mail.example\n" in text
    assert f"\nDelivered-To: {a.pw_name}+ext@mail.example\n" in text


def test_forward_of_somebody_else(make_instance, users):
    """A file that another user owns, a link into another's home: not the user's word."""
    a, b = users
    i = make_instance(main_cf=BASE)
    write_as(b, "orders", f"{b.pw_name}@mail.example\n")
    os.symlink(f"{b.pw_dir}/orders", f"{a.pw_dir}/.forward")
    send(i, f"{a.pw_name}@mail.example")
    i.wait_log("status=sent (delivered to mailbox)")
    assert (i.mail / a.pw_name).exists() and not (i.mail / b.pw_name).exists()


def test_spool_of_debian(make_instance, users):
    """/var/mail as Debian has it: root's, writable by the group mail."""
    a, _ = users
    i = make_instance(main_cf=BASE, start=False)
    os.chown(i.mail, 0, 8)
    i.mail.chmod(0o2775)
    i.start()
    for _ in range(2):
        send(i, f"{a.pw_name}@mail.example")
    wait_quiet(i)
    assert len(box(i.mail / a.pw_name)) == 2
    st = (i.mail / a.pw_name).stat()
    assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (a.pw_uid, 8, 0o600)


def test_virtual_as_another_user(make_instance, users):
    a, _ = users
    i = make_instance(main_cf=BASE + "virtual_mailbox_domains = v.example\n"
                      f"virtual_mailbox_base = {a.pw_dir}\n"
                      "virtual_mailbox_maps = inline:{ {m@v.example=md/}, {b@v.example=box}, {e@v.example=../x/} }\n"
                      f"virtual_uid_maps = static:{a.pw_uid}\nvirtual_gid_maps = static:{a.pw_gid}\n")
    send(i, "m@v.example", "b@v.example", "e@v.example", "no@v.example")
    assert "relay=virtual" in i.wait_log("to=<m@v.example>")
    assert "status=sent (delivered to mailbox)" in i.wait_log("to=<b@v.example>")
    assert "dsn=4.3.5, status=deferred (mail system configuration error)" in i.wait_log("to=<e@v.example>")
    assert 'dsn=5.1.1, status=bounced (unknown user: "no@v.example")' in i.wait_log("to=<no@v.example>")
    files = os.listdir(f"{a.pw_dir}/md/new")
    assert len(files) == 1 and os.stat(f"{a.pw_dir}/md/new/{files[0]}").st_uid == a.pw_uid
    assert os.stat(f"{a.pw_dir}/box").st_uid == a.pw_uid
    assert not os.path.exists(os.path.dirname(a.pw_dir) + "/x")


def test_no_root_after_all(make_instance, users):
    """Twenty deliveries later local still serves, and no child of it is left."""
    a, b = users
    i = make_instance(main_cf=BASE)
    for _ in range(10):
        send(i, f"{a.pw_name}@mail.example", f"{b.pw_name}@mail.example")
    wait_quiet(i)
    assert len(box(i.mail / a.pw_name)) == 10
    time.sleep(0.1)
    assert len(i.pids("local")) <= 2
