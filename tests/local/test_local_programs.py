"""What people run behind local(8): procmail and maildrop as mailbox_command, and Dovecot serving by IMAP and POP3 the
mbox and the Maildir that local(8) wrote, to curl and fetchmail."""
import grp
import mailbox
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile

import pytest

from instance import free_port, wait_for
from local_pair import Users, wait_quiet

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as other users")
BASE = "smtpd_reject_unlisted_recipient = no\nrecipient_delimiter = +\nminimal_backoff_time = 3000s\nbiff = no\n"
BODY = "From: a@far.example\r\nTo: you@mail.example\r\nSubject: letter {n}\r\n\r\nFrom here on\r\nit goes {n}\r\n.\r\n"


@pytest.fixture
def user():
    with tempfile.TemporaryDirectory(prefix="angarium-homes-") as name:
        os.chmod(name, 0o755)
        users = Users(name, 2)
        for entry in users.entries:
            os.mkdir(entry.pw_dir)
            os.chown(entry.pw_dir, entry.pw_uid, entry.pw_gid)
        yield users.entries[0]
        users.close()


def write(user, name, text, mode=0o600):
    path = pathlib.Path(user.pw_dir, name)
    path.write_text(text)
    os.chown(path, user.pw_uid, user.pw_gid)
    path.chmod(mode)


def send(instance, *to, count=1, sender="a@far.example"):
    with instance.smtp() as s:
        for n in range(count):
            s.sendmail(sender, list(to), BODY.format(n=n))


def can_connect(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def program(name):
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def test_procmail(make_instance, user):
    """The command of Postfix's own comment in main.cf, with a user's recipes: a folder, a copy, a refusal, a delay."""
    i = make_instance(main_cf=BASE + f'mailbox_command = {program("procmail")} -a "$EXTENSION" DEFAULT=$HOME/Maildir/\n')
    write(user, ".procmailrc", f"""\
SHELL=/bin/sh
ARG=$1
:0
* ARG ?? ^^lists^^
lists/

:0
* ARG ?? ^^box^^
{user.pw_dir}/box

:0
* ARG ?? ^^no^^
{{
  EXITCODE=67
  HOST
}}

:0
* ARG ?? ^^later^^
{{
  EXITCODE=75
  HOST
}}
""")
    os.mkdir(f"{user.pw_dir}/lists")
    os.chown(f"{user.pw_dir}/lists", user.pw_uid, user.pw_gid)
    write(user, ".procmailrc", pathlib.Path(user.pw_dir, ".procmailrc").read_text().replace(
        "SHELL=", f"MAILDIR={user.pw_dir}\nSHELL="))
    for name in ("", "+lists", "+box", "+no", "+later"):
        send(i, f"{user.pw_name}{name}@mail.example")
    wait_quiet(i.queue, i.log, i)
    sent = f"status=sent (delivered to command: {program('procmail')} -a \"$EXTENSION\" DEFAULT=$HOME/Maildir/)"
    for name in ("", "+lists", "+box"):
        assert sent in i.wait_log(f"to=<{user.pw_name}{name}@mail.example>")
    assert "dsn=5.1.1, status=bounced (user unknown" in i.wait_log(f"to=<{user.pw_name}+no@mail.example>")
    assert "dsn=4.3.0, status=deferred (temporary failure" in i.wait_log(f"to=<{user.pw_name}+later@mail.example>")
    (plain,), (lists,) = (list(pathlib.Path(user.pw_dir, name, "new").iterdir()) for name in ("Maildir", "lists"))
    for path in (plain, lists):
        assert "\nSubject: letter 0\n" in path.read_text() and path.stat().st_uid == user.pw_uid
    assert f"\nDelivered-To: {user.pw_name}+lists@mail.example\n" in lists.read_text()
    (boxed,) = mailbox.mbox(f"{user.pw_dir}/box")
    assert boxed["Subject"] == "letter 0" and boxed.get_from().startswith("a@far.example ")


def test_maildrop(make_instance, user):
    i = make_instance(main_cf=BASE + f"mailbox_command = {program('maildrop')}\n")
    for name in ("Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"):
        os.mkdir(f"{user.pw_dir}/{name}")
        os.chown(f"{user.pw_dir}/{name}", user.pw_uid, user.pw_gid)
    write(user, ".mailfilter", 'if (/^Delivered-To:.*\\+no@/)\n{\n  EXITCODE=77\n  exit\n}\nto "$HOME/Maildir"\n')
    send(i, f"{user.pw_name}@mail.example")
    send(i, f"{user.pw_name}+no@mail.example")
    assert "status=sent (delivered to command: " in i.wait_log(f"to=<{user.pw_name}@mail.example>")
    assert "dsn=5.7.0, status=bounced (permission denied" in i.wait_log(f"to=<{user.pw_name}+no@mail.example>")
    (message,) = pathlib.Path(user.pw_dir, "Maildir/new").iterdir()
    assert "\nSubject: letter 0\n" in message.read_text() and message.stat().st_uid == user.pw_uid


DOVECOT = """\
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/dovecot.log
protocols = imap pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
mail_location = {location}
mbox_read_locks = fcntl
mbox_write_locks = dotlock fcntl
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={base}/home
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


@pytest.mark.parametrize("kind", ["mbox", "maildir"])
def test_dovecot_serves_what_we_wrote(make_instance, user, kind):
    if not os.path.exists("/usr/lib/dovecot/imap"):
        pytest.skip("dovecot-imapd is not installed")
    i = make_instance(main_cf=BASE + ("home_mailbox = Maildir/\n" if kind == "maildir" else ""))
    send(i, f"{user.pw_name}@mail.example", count=3)
    wait_quiet(i.queue, i.log, i)
    base = pathlib.Path(user.pw_dir, "dovecot")
    for path in (base, base / "home", base / "run", base / "state", base / "folders"):
        path.mkdir()
        os.chown(path, user.pw_uid, user.pw_gid)
    location = (f"maildir:{user.pw_dir}/Maildir" if kind == "maildir"
                else f"mbox:{base}/folders:INBOX={i.mail}/{user.pw_name}")
    imap, pop3 = free_port(), free_port()
    (base / "dovecot.conf").write_text(DOVECOT.format(
        base=base, user=user.pw_name, group=grp.getgrgid(user.pw_gid).gr_name, location=location, uid=user.pw_uid,
        gid=user.pw_gid, imap=imap, pop3=pop3))
    as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    dovecot = subprocess.Popen(["/usr/sbin/dovecot", "-F", "-c", str(base / "dovecot.conf")], **as_user)
    try:
        wait_for(lambda: can_connect(imap) and can_connect(pop3), 20, "dovecot")

        def fetch(path):
            return subprocess.run(["curl", "-sS", "-u", f"{user.pw_name}:secret", f"imap://127.0.0.1:{imap}/{path}"],
                                  capture_output=True, check=True, timeout=60).stdout.decode()
        texts = [fetch(f"INBOX;MAILINDEX={n}") for n in (1, 2, 3)]
        assert sorted(text.split("Subject: letter ")[1][0] for text in texts) == ["0", "1", "2"]
        for text in texts:
            n = text.split("Subject: letter ")[1][0]
            assert f"\r\nDelivered-To: {user.pw_name}@mail.example\r\n" in text
            # what mbox needs a '>' for stays in its file
            assert text.endswith(f"\r\n\r\n{'>' if kind == 'mbox' else ''}From here on\r\nit goes {n}\r\n.\r\n")
        # while Dovecot has it open, more comes in
        send(i, f"{user.pw_name}@mail.example")
        wait_quiet(i.queue, i.log, i)
        assert "Subject: letter 0" in fetch("INBOX;MAILINDEX=4")
        rc = base / "fetchmailrc"
        rc.write_text(f"poll 127.0.0.1 protocol pop3 port {pop3} auth password user {user.pw_name} password secret "
                      f"is {user.pw_name} here mda '/bin/cat >> {base}/fetched' sslproto '' fetchall\n")
        rc.chmod(0o600)
        os.chown(rc, user.pw_uid, user.pw_gid)
        done = subprocess.run(["fetchmail", "-f", str(rc), "--nosyslog", "--pidfile", str(base / "fetchmail.pid"),
                               "--idfile", str(base / "ids")], capture_output=True, text=True, timeout=60, cwd=base,
                              env={**os.environ, "HOME": str(base), "FETCHMAILHOME": str(base)}, **as_user)
        assert done.returncode == 0, done.stdout + done.stderr
        fetched = (base / "fetched").read_text()
        assert sorted(line for line in fetched.splitlines() if line.startswith("Subject: ")) == [
            "Subject: letter 0", "Subject: letter 0", "Subject: letter 1", "Subject: letter 2"]
    finally:
        dovecot.terminate()
        dovecot.wait(timeout=20)
        print((base / "dovecot.log").read_text())
