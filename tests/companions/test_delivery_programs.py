"""Programs that deliver, filter or keep mail, as their guides have them behind pipe(8) and lmtp(8): SpamAssassin as a
content filter, Dovecot's delivery agent, Dovecot's LMTP server with Sieve, maildrop, and a UUCP neighbour."""
import contextlib
import grp
import os
import pathlib
import pwd
import shutil
import smtplib
import socket
import subprocess
import tempfile
import threading

import pytest

from instance import free_port, wait_for
from sink import Sink

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
IDS = pwd.getpwnam(USER)
GROUP = grp.getgrgid(IDS.pw_gid).gr_name
AS_USER = {"user": USER, "group": GROUP, "extra_groups": []} if os.geteuid() == 0 else {}
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


@contextlib.contextmanager
def running(*command, ready, **kwargs):
    process = subprocess.Popen([str(c) for c in command], **AS_USER, **kwargs)
    try:
        wait_for(ready, 60, f"{command[0]}")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def open_directory(name):
    """Where an ordinary user gets to, unlike pytest's own when root runs it."""
    path = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-"))
    try:
        own(path)
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path)


def own(*paths):
    for path in paths:
        path.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.chown(path, IDS.pw_uid, IDS.pw_gid)


def box(mail, name=USER):
    path = mail.mail / name
    return path.read_text() if path.exists() else ""


# --- SpamAssassin ---
@pytest.fixture(scope="module")
def spamd():
    port = free_port()
    with open_directory("spamd") as home, running("/usr/sbin/spamd", "-L", "-x", "-m", "2", "-i", "127.0.0.1", "-p", port, "-s",
                                                  home / "log", ready=lambda: listens(port), cwd=home,
                                                  env={**os.environ, "HOME": str(home)}):
        yield port


def both_kinds(mail, sender="a@elsewhere.example"):
    with mail.smtp() as smtp:
        smtp.sendmail(sender, [f"{USER}@mail.example"], "From: a@elsewhere.example\r\nSubject: fine\r\n\r\nFrom here\r\n.\r\n")
        smtp.sendmail(sender, [f"{USER}@mail.example"], f"From: a@elsewhere.example\r\nSubject: bad\r\n\r\n{GTUBE}\r\n")
    wait_for(lambda: "Subject: fine" in box(mail) and GTUBE in box(mail), 60, "two filtered messages")
    fine, bad = sorted(box(mail).split("\nFrom "), key=lambda text: GTUBE in text)
    for text in (fine, bad):
        assert "\nX-Spam-Checker-Version: SpamAssassin" in text
    assert "\nX-Spam-Flag: YES" in bad and "\nX-Spam-Flag: YES" not in fine
    assert "\n>From here\n" in fine


def test_spamassassin_simple_filter(make_instance, spamd):
    """FILTER_README's simple form: a script between pipe(8) and sendmail(1)."""
    mail = make_instance(start=False, user=USER if AS_USER else None, smtpd_args=" -o content_filter=filter:dummy",
                         master_extra=f"filter unix - n n - 10 pipe flags=Rq user={USER} null_sender=\n"
                         "  argv=DIRECTORY/filter -oi -f ${sender} -- ${recipient}\n")
    script = mail.directory / "filter"
    script.write_text(f"#!/bin/sh\n/usr/bin/spamc -d 127.0.0.1 -p {spamd} -x | {mail.bin}/sendmail \"$@\"\nexit $?\n")
    script.chmod(0o755)
    master = mail.etc / "master.cf"
    master.write_text(master.read_text().replace("DIRECTORY", str(mail.directory)))
    mail.start()
    both_kinds(mail)
    wait_for(lambda: mail.log().count("status=sent (delivered via filter service)") == 2)
    with mail.smtp() as smtp:  # the null sender survives the filter
        smtp.sendmail("", [f"{USER}@mail.example"], "Subject: null\r\n\r\nx\r\n")
    wait_for(lambda: "Subject: null" in box(mail))
    assert box(mail).split("Subject: null")[0].rsplit("Return-Path: ", 1)[1].startswith("<>\n")


class SmtpFilter:
    """FILTER_README's advanced form: takes mail by SMTP, and gives it back by SMTP."""

    def __init__(self, spamd_port, back):
        self.spamd_port, self.back = spamd_port, back
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=self.socket.accept()[:1], daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rwb", buffering=0) as f:
            f.write(b"220 filter\r\n")
            sender, rcpts = "", []
            while line := f.readline():
                verb = line[:4].upper()
                if verb == b"MAIL":
                    sender, rcpts = line.split(b"<")[1].split(b">")[0].decode(), []
                elif verb == b"RCPT":
                    rcpts.append(line.split(b"<")[1].split(b">")[0].decode())
                elif verb == b"DATA":
                    f.write(b"354 go\r\n")
                    f.write(self.take(f, sender, rcpts))
                    continue
                f.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")

    def take(self, f, sender, rcpts):
        lines = []
        while (line := f.readline()) != b".\r\n":
            lines.append(line[1:] if line[:1] == b"." else line)
        marked = subprocess.run(["/usr/bin/spamc", "-d", "127.0.0.1", "-p", str(self.spamd_port), "-x"],
                                input=b"".join(lines), capture_output=True, timeout=60)
        if marked.returncode:
            return b"451 4.3.0 no spamd\r\n"
        with smtplib.SMTP("127.0.0.1", self.back, timeout=60) as smtp:
            smtp.sendmail(sender, rcpts, marked.stdout)
        return b"250 2.0.0 given back\r\n"


def test_spamassassin_advanced_filter(make_instance, spamd):
    back = free_port()
    filtering = SmtpFilter(spamd, back)
    mail = make_instance(main_cf=f"content_filter = scan:[127.0.0.1]:{filtering.port}\n", user=USER if AS_USER else None,
                         master_extra=f"scan unix - - n - 10 smtp -o disable_mime_output_conversion=yes\n"
                         f"127.0.0.1:{back} inet n - n - 10 smtpd -o content_filter= -o smtpd_helo_restrictions=\n"
                         "  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks\n"
                         "  -o mynetworks=127.0.0.0/8\n")
    both_kinds(mail)
    wait_for(lambda: mail.log().count("given back") == 2)
    filtering.socket.close()


# --- Dovecot ---
DOVECOT = """\
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/dovecot.log
protocols = lmtp
listen = 127.0.0.1
ssl = no
postmaster_address = postmaster@mail.example
hostname = mail.example
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
mail_location = maildir:{base}/mail/%n
lda_mailbox_autocreate = yes
recipient_delimiter = +
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={base}/home/%n allow_all_users=yes
}}
service lmtp {{
  unix_listener {base}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
protocol lmtp {{
  mail_plugins = sieve
}}
protocol lda {{
  mail_plugins = sieve
}}
plugin {{
  sieve = file:{base}/sieve/%n.sieve
}}
"""
SIEVE = """\
require ["fileinto", "mailbox", "reject"];
if header :contains "subject" "list" { fileinto :create "Lists"; }
elsif header :contains "subject" "no thanks" { reject "not this"; }
"""


@pytest.fixture(scope="module")
def dovecot():
    port = free_port()
    with open_directory("dovecot") as base:
        own(*(base / name for name in ("run", "state", "mail", "home", "sieve")), base / "home/anna")
        (base / "dovecot.conf").write_text(DOVECOT.format(base=base, user=USER, group=GROUP, uid=IDS.pw_uid, gid=IDS.pw_gid,
                                                          port=port))
        (base / "sieve/anna.sieve").write_text(SIEVE)
        if AS_USER:
            os.chown(base / "sieve/anna.sieve", IDS.pw_uid, IDS.pw_gid)
        with running("/usr/sbin/dovecot", "-F", "-c", base / "dovecot.conf", ready=lambda: listens(port)):
            yield base, port


def kept(base, folder=""):
    return [path.read_text() for path in (base / "mail/anna" / folder).glob("new/*")]


def three_letters(mail, base):
    before = len(kept(base)), len(kept(base, ".Lists"))
    with mail.smtp() as smtp:
        for subject in ("hello", "about the list", "no thanks"):
            smtp.sendmail(f"{USER}@mail.example", ["Anna+tag@office.example"], f"Subject: {subject}\r\n\r\nFrom me\r\n..\r\n")
    wait_for(lambda: (len(kept(base)), len(kept(base, ".Lists"))) == (before[0] + 1, before[1] + 1), 30)
    text = kept(base)[-1]
    assert "Subject: hello" in text and text.endswith("\n\nFrom me\n..\n")
    assert f"Return-Path: <{USER}@mail.example>" in text
    return text


@pytest.mark.parametrize("how", ["unix", "tcp"])
def test_dovecot_lmtp_with_sieve(make_instance, dovecot, how):
    base, port = dovecot
    to = f"unix:{base}/lmtp" if how == "unix" else f"inet:127.0.0.1:{port}"
    mail = make_instance(main_cf="virtual_mailbox_domains = office.example\nvirtual_mailbox_maps = inline:{anna@office.example=x}\n"
                         f"virtual_transport = lmtp:{to}\nrecipient_delimiter = +\n", user=USER if AS_USER else None)
    three_letters(mail, base)
    wait_for(lambda: mail.log().count("postfix/lmtp") >= 3)
    lines = [line for line in mail.log().splitlines() if "/lmtp[" in line]
    assert all("dsn=2.0.0, status=sent (250 2.0.0 <Anna+tag@office.example> " in line for line in lines), lines
    relay = f"relay=mail.example[{base}/lmtp]," if how == "unix" else f"relay=127.0.0.1[127.0.0.1]:{port},"
    assert all(relay in line for line in lines), lines


def test_dovecot_lda(make_instance, dovecot):
    base, _ = dovecot
    mail = make_instance(main_cf="virtual_mailbox_domains = office.example\nvirtual_mailbox_maps = inline:{anna@office.example=x}\n"
                         "virtual_transport = dovecot\ndovecot_destination_recipient_limit = 1\nrecipient_delimiter = +\n",
                         user=USER if AS_USER else None,
                         master_extra=f"dovecot unix - n n - - pipe flags=DRhu user={USER}:{GROUP}\n  argv=/usr/lib/dovecot/dovecot-lda "
                         f"-c {base}/dovecot.conf -f ${{sender}} -a ${{original_recipient}} -d ${{user}}\n")
    text = three_letters(mail, base)
    assert "\nDelivered-To: Anna+tag@office.example\n" in text
    wait_for(lambda: mail.log().count("status=sent (delivered via dovecot service)") == 3)


# --- maildrop (MAILDROP_README) and a UUCP neighbour (UUCP_README) ---
@pytest.fixture
def folder():
    with open_directory("maildrop") as path:
        yield path


def test_maildrop(make_instance, folder):
    own(folder / "home")
    subprocess.run(["/usr/bin/maildirmake", folder / "home/Maildir"],
                   check=True, **AS_USER)
    (folder / "filter").write_text(f'DEFAULT="{folder}/home/Maildir"\nif (/^Subject:.*refuse/)\n{{\n  EXITCODE=77\n  exit\n}}\n'
                                     'if (/^Subject:.*later/)\n{\n  EXITCODE=75\n  exit\n}\n')
    (folder / "filter").chmod(0o600)
    if AS_USER:
        os.chown(folder / "filter", IDS.pw_uid, IDS.pw_gid)
    mail = make_instance(main_cf="maildrop_destination_recipient_limit = 1\nvirtual_mailbox_domains = some.example\n"
                         "virtual_mailbox_maps = inline:{anna@some.example=x}\nvirtual_transport = maildrop\n",
                         user=USER if AS_USER else None,
                         master_extra=f"maildrop unix - n n - - pipe\n  flags=ODRhu user={USER} argv=/usr/bin/maildrop {folder}/filter\n")
    with mail.smtp() as smtp:
        for subject in ("take it", "refuse it", "later please"):
            smtp.sendmail("", ["anna@some.example"], f"Subject: {subject}\r\n\r\nx\r\n")
    wait_for(lambda: mail.log().count("relay=maildrop, ") == 3)
    [path] = (folder / "home/Maildir/new").glob("*")
    assert "Delivered-To: anna@some.example\n" in path.read_text() and "Subject: take it" in path.read_text()
    assert "dsn=5.7.0, status=bounced (permission denied)" in mail.log()
    assert "dsn=4.3.0, status=deferred (temporary failure)" in mail.log()


def test_uucp_neighbour(make_instance):
    """UUCP_README: mail for a domain goes to uux, and comes in again through rmail's job at the other end. `uux` is a
    script here that does what the neighbour would: the command behind the site name, with the message."""
    sink = Sink()
    mail = make_instance(start=False, user=USER if AS_USER else None,
                         main_cf="relay_domains = uu.example\ntransport_maps = inline:{uu.example=uucp:neighbour}\n"
                         f"default_transport = smtp:[127.0.0.1]:{sink.port}\nuucp_destination_recipient_limit = 100\n",
                         master_extra=f"uucp unix - n n - - pipe\n  flags=Fqhu user={USER} argv=DIRECTORY/uux -r -n -z -a$sender - "
                         "$nexthop!rmail ($recipient)\n")
    out = mail.directory / "jobs"
    own(out)
    script = mail.directory / "uux"
    script.write_text(f'#!/bin/sh\nprintf "%s\\\\n" "$@" > {out}/arguments\ncat > {out}/message\n')
    script.chmod(0o755)
    master = mail.etc / "master.cf"
    master.write_text(master.read_text().replace("DIRECTORY", str(mail.directory)))
    mail.start()
    with mail.smtp() as smtp:
        smtp.sendmail("joe@mail.example", ["Ann@UU.example", '"b c"@uu.example'], "Subject: x\r\n\r\nhello\r\nFrom me\r\n")
    wait_for(lambda: mail.log().count("status=sent (delivered via uucp service)") == 2)
    arguments = (out / "arguments").read_text().splitlines()
    assert arguments[:6] == ["-r", "-n", "-z", "-ajoe@mail.example", "-", "neighbour!rmail"]
    assert sorted(arguments[6:]) == ['("b c"@uu.example)', "(ann@uu.example)"]
    message = (out / "message").read_text()
    assert message.startswith("From joe@mail.example  ") and message.endswith("\n\nhello\nFrom me\n")
