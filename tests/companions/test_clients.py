"""Mail programs that people use, against a running instance: sending by SMTP and by sendmail, and reading what was
delivered."""
import mailbox
import os
import pathlib
import pwd
import subprocess

import pytest

from instance import free_port, wait_for

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
AS_USER = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}


@pytest.fixture
def office(make_instance):
    """Local mail into mboxes, and a virtual domain with a Maildir."""
    ids = pwd.getpwnam(USER)
    return make_instance(user=USER if os.geteuid() == 0 else None, main_cf=f"""\
virtual_mailbox_domains = office.example
virtual_mailbox_base = $mail_spool_directory/office
virtual_mailbox_maps = inline:{{ {{ anna@office.example = anna/ }} }}
virtual_uid_maps = static:{ids.pw_uid}
virtual_gid_maps = static:{ids.pw_gid}
virtual_minimum_uid = 1
""")


def mbox(instance):
    return instance.mail / USER


def maildir(instance):
    return instance.mail / "office/anna"


def mbox_has(instance, subject):
    path = mbox(instance)
    return path.exists() and any(m["Subject"] == subject for m in mailbox.mbox(path, create=False))


def maildir_has(instance, subject):
    path = maildir(instance)
    return (path / "new").is_dir() and any(
        f"Subject: {subject}\n" in p.read_text() for name in ("new", "cur") for p in (path / name).glob("*"))


def run(*args, **kwargs):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=60, **kwargs)
    assert done.returncode == 0, f"{args}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_swaks(office):
    run("swaks", "--server", "127.0.0.1", "--port", office.port, "--from", "a@elsewhere.example", "--to",
        f"{USER}@mail.example", "--header", "Subject: by swaks", "--pipeline")
    wait_for(lambda: mbox_has(office, "by swaks"))


def test_smtplib_with_several_recipients(office):
    with office.smtp() as smtp:
        smtp.sendmail("a@elsewhere.example", [f"{USER}@mail.example", "anna@office.example"],
                      "Subject: by smtplib\r\n\r\n..a line with dots\r\n.\r\n")
    wait_for(lambda: mbox_has(office, "by smtplib"))
    wait_for(lambda: maildir_has(office, "by smtplib"))
    body = mailbox.mbox(mbox(office), create=False)[0].get_payload()
    assert body.splitlines()[:2] == ["..a line with dots", "."]


def test_mail_command(office):
    """s-nail sends through our sendmail."""
    run("s-nail", "-n", "-S", "v15-compat", "-S", f"mta={office.bin}/sendmail", "-S", "sendwait", "-s", "by mail -s",
        f"{USER}@mail.example", input="hello\n", env=office.environment(), cwd="/", **AS_USER)
    wait_for(lambda: mbox_has(office, "by mail -s"))


def test_smtp_source(office):
    oracle = os.environ.get("ANGARIUM_ORACLE")
    if not oracle:
        pytest.skip("no unpacked Debian postfix (ANGARIUM_ORACLE)")
    env = {**os.environ, "LD_LIBRARY_PATH": f"{oracle}/usr/lib/postfix"}
    run(f"{oracle}/usr/sbin/smtp-source", "-s", 20, "-m", 200, "-l", 4096, "-f", "a@elsewhere.example", "-t",
        "anna@office.example", f"127.0.0.1:{office.port}", env=env)
    wait_for(lambda: len(list((maildir(office) / "new").glob("*"))) == 200 if maildir(office).exists() else False, 60)


def test_relay_to_smtp_sink(make_instance):
    oracle = os.environ.get("ANGARIUM_ORACLE")
    if not oracle:
        pytest.skip("no unpacked Debian postfix (ANGARIUM_ORACLE)")
    env = {**os.environ, "LD_LIBRARY_PATH": f"{oracle}/usr/lib/postfix"}
    port = free_port()
    sink = subprocess.Popen([f"{oracle}/usr/sbin/smtp-sink", *(["-u", "nobody"] if os.geteuid() == 0 else []),
                             f"127.0.0.1:{port}", "100"], env=env)
    try:
        instance = make_instance(main_cf=f"relayhost = [127.0.0.1]:{port}\n")
        with instance.smtp() as smtp:
            for n in range(50):
                smtp.sendmail("a@elsewhere.example", ["b@far.example"], f"Subject: {n}\r\n\r\nx\r\n")
        wait_for(lambda: instance.log().count("status=sent") == 50, 60)
        wait_for(instance.queue_is_empty)
    finally:
        sink.kill()
        sink.wait()


def test_s_nail_reads_mbox_and_maildir(office):
    with office.smtp() as smtp:
        for n in range(3):
            smtp.sendmail("a@elsewhere.example", [f"{USER}@mail.example", "anna@office.example"],
                          f"From: a@elsewhere.example\r\nSubject: letter {n}\r\n\r\nFrom here on\r\nit goes\r\n")
    wait_for(lambda: mbox_has(office, "letter 2") and mbox_has(office, "letter 1") and mbox_has(office, "letter 0"))
    wait_for(lambda: all(maildir_has(office, f"letter {n}") for n in range(3)))
    for folder in (mbox(office), maildir(office)):
        shown = run("s-nail", "-n", "-R", "-S", "v15-compat", "-f", folder, input="headers\nquit\n", cwd="/")
        for n in range(3):
            assert f"letter {n}" in shown, shown


def test_mutt_reads_mbox(office):
    with office.smtp() as smtp:
        smtp.sendmail("a@elsewhere.example", [f"{USER}@mail.example"],
                      "From: a@elsewhere.example\r\nSubject: for mutt\r\n\r\nbody\r\n")
    wait_for(lambda: mbox_has(office, "for mutt"))
    copy = office.directory / "copied"
    # mutt wants a terminal: script(1) gives it one
    run("script", "-qec", f"mutt -n -F /dev/null -R -f {mbox(office)} -e 'set confirmappend=no confirmcreate=no delete=no' "
        f"-e 'push <tag-pattern>~A<enter><tag-prefix><copy-message><kill-line>{copy}<enter><exit>'", "/dev/null",
        env={**os.environ, "TERM": "xterm", "HOME": str(office.directory)}, input="")
    assert [m["Subject"] for m in mailbox.mbox(copy, create=False)] == ["for mutt"]


DOVECOT = """\
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/dovecot.log
protocols = pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
mail_location = maildir:{maildir}
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={base}/home
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {port}
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


def test_fetchmail_from_dovecot_pop3(office):
    """Mail we delivered, served by Dovecot, collected by fetchmail, handed to our port again."""
    ids = pwd.getpwnam(USER)
    import grp
    with office.smtp() as smtp:
        smtp.sendmail("a@elsewhere.example", ["anna@office.example"],
                      "From: a@elsewhere.example\r\nTo: anna@office.example\r\nSubject: round trip\r\n\r\nbody\r\n")
    wait_for(lambda: maildir_has(office, "round trip"))
    base = office.directory / "dovecot"
    for path in (base, base / "home", base / "run", base / "state"):
        path.mkdir()
        if os.geteuid() == 0:
            os.chown(path, ids.pw_uid, ids.pw_gid)
    port = free_port()
    (base / "dovecot.conf").write_text(DOVECOT.format(base=base, user=USER, group=grp.getgrgid(ids.pw_gid).gr_name,
                                                      maildir=maildir(office), uid=ids.pw_uid, gid=ids.pw_gid, port=port))
    dovecot = subprocess.Popen(["/usr/sbin/dovecot", "-F", "-c", str(base / "dovecot.conf")], **AS_USER)
    try:
        def listening():
            import socket
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0
        wait_for(listening, what="dovecot")
        rc = base / "fetchmailrc"
        rc.write_text(f"poll 127.0.0.1 protocol pop3 port {port} auth password user anna password secret is {USER} here "
                      f"smtphost 127.0.0.1/{office.port} smtpaddress mail.example sslproto '' fetchall\n")
        rc.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(rc, ids.pw_uid, ids.pw_gid)
        run("fetchmail", "-f", rc, "--nosyslog", "--pidfile", base / "fetchmail.pid", "--idfile", base / "ids",
            env={**os.environ, "HOME": str(base), "FETCHMAILHOME": str(base)}, cwd=base, **AS_USER)
        wait_for(lambda: mbox_has(office, "round trip"))
    finally:
        dovecot.terminate()
        dovecot.wait(timeout=20)
