"""master.cf: the stock lines of Debian and of upstream in a running system, and what is said of lines that are wrong."""
import os
import pathlib
import pwd

import pytest

from instance import Instance, free_port, wait_for

AS_ROOT = os.geteuid() == 0

DEBIAN = """\
smtpd      pass  -       -       {c}       -       -       smtpd
dnsblog    unix  -       -       {c}       -       0       dnsblog
tlsproxy   unix  -       -       {c}       -       0       tlsproxy
127.0.0.1:{b} inet n -   {c}       -       -       smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_tls_auth_only=yes
  -o local_header_rewrite_clients=static:all
  -o smtpd_reject_unlisted_recipient=no
  -o smtpd_client_restrictions=
  -o smtpd_relay_restrictions=
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
  -o milter_macro_daemon_name=ORIGINATING
127.0.0.1:{d} inet n -       {c}       -       -       qmqpd
pickup    unix  n       -       {c}       60      1       pickup
cleanup   unix  n       -       {c}       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       {c}       1000?   1       tlsmgr
rewrite   unix  -       -       {c}       -       -       trivial-rewrite
bounce    unix  -       -       {c}       -       0       bounce
defer     unix  -       -       {c}       -       0       bounce
trace     unix  -       -       {c}       -       0       bounce
verify    unix  -       -       {c}       -       1       verify
flush     unix  n       -       {c}       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       {c}       -       -       smtp
relay     unix  -       -       {c}       -       -       smtp
        -o syslog_name={name}/$service_name
#       -o smtp_helo_timeout=5 -o smtp_connect_timeout=5
showq     unix  n       -       {c}       -       -       showq
error     unix  -       -       {c}       -       -       error
retry     unix  -       -       {c}       -       -       error
discard   unix  -       -       {c}       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       {c}       -       -       lmtp
anvil     unix  -       -       {c}       -       1       anvil
scache    unix  -       -       {c}       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
maildrop  unix  -       n       n       -       -       pipe
  flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${{recipient}}
cyrus     unix  -       n       n       -       -       pipe
  flags=DRX user=cyrus argv=/cyrus/bin/deliver -e -r ${{sender}} -m ${{extension}} ${{user}}
uucp      unix  -       n       n       -       -       pipe
  flags=Fqhu user=uucp argv=uux -r -n -z -a$sender - $nexthop!rmail ($recipient)
ifmail    unix  -       n       n       -       -       pipe
  flags=F user=ftn argv=/usr/lib/ifmail/ifmail -r $nexthop ($recipient)
scalemail-backend unix -       n       n       -       2       pipe
  flags=R user=scalemail argv=/usr/lib/scalemail/bin/scalemail-store ${{nexthop}} ${{user}} ${{extension}}
mailman   unix  -       n       n       -       -       pipe
  flags=FRX user=list argv=/usr/lib/mailman/bin/postfix-to-mailman.py ${{nexthop}} ${{user}}
"""


@pytest.mark.parametrize("chroot, name", [("y", "postfix"),
                                          ("n", "${multi_instance_name?{$multi_instance_name}:{postfix}}")],
                         ids=["debian", "upstream"])
def test_stock_services(make_instance, chroot, name):
    """All of them, the ones in comments, too; a message goes through."""
    text = "{smtpd}" + DEBIAN.format(c=chroot, name=name, b=free_port(), d=free_port())
    instance = make_instance(master_cf=text.replace("n - n - - smtpd", f"n - {chroot} - - smtpd"))
    user = "nobody" if AS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
    with instance.smtp() as client:
        client.sendmail("", [f"{user}@mail.example"], "Subject: x\r\n\r\nhello\r\n")
    wait_for(lambda: (instance.mail / user).exists() and instance.queue_is_empty(), what="the message")
    assert instance.sendmail(f"{user}@mail.example").returncode == 0
    wait_for(lambda: (instance.mail / user).read_text().count("hello") == 2, what="the second message")
    assert "fatal: " not in instance.log() and "master.cf: line" not in "".join(
        line for line in instance.log().splitlines() if "cannot execute" not in line)
    assert instance.reload().returncode == 0
    instance.wait_log("reload -- version")
    assert instance.running()


FAULTS = {
    "smtp inet n - n - -": "missing",
    "x nosuchtype n - n - - smtp": "nosuchtype",
    "x unix maybe - n - - smtp": "maybe",
    "x unix n - n soon - smtp": "soon",
    "x unix n - n - many smtp": "many",
    "x unix n - n - -1 smtp": "-1",
    "x unix n - n - - ../smtp": "../smtp",
    "127.0.0.1:no-such-port inet n - n - - smtpd": "no-such-port",
    "no-such-host.invalid:25 inet n - n - - smtpd": "no-such-host.invalid",
    "x unix n - n - - smtp -o": "-o",
    "x unix n - n - - smtp -o { a = b": "{",
}


@pytest.fixture(scope="module")
def idle():
    instance = Instance()
    yield instance
    instance.stop()


@pytest.mark.parametrize("line", FAULTS)
def test_wrong_line(idle, line):
    """No start; the file, the number of the line and the word that is wrong are in the log."""
    idle.write_config()
    idle.log_file.unlink(missing_ok=True)
    path = idle.etc / "master.cf"
    count = path.read_text().count("\n")
    path.write_text(path.read_text() + line + "\n")
    assert idle.postfix("start").returncode == 1
    assert not idle.pids()
    said = next(text for text in idle.log().splitlines() if "fatal: " in text or "error: " in text)
    print(said)
    assert f"{path}: line {count + 1}: " in said
    assert FAULTS[line] in said


def test_confinement(make_instance):
    """Who each process of a running system is, as the kernel sees it."""
    instance = make_instance()
    user = "nobody" if AS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
    with instance.smtp() as client:
        client.sendmail("", [f"{user}@mail.example"], "Subject: x\r\n\r\nhello\r\n")
        wait_for(lambda: (instance.mail / user).exists() and instance.queue_is_empty(), what="the message")
        assert (instance.mail / user).stat().st_uid == pwd.getpwnam(user).pw_uid
        owner = pwd.getpwnam("postfix").pw_uid if AS_ROOT else os.geteuid()
        seen = {}
        for pid in instance.pids():
            process = pathlib.Path(f"/proc/{pid}")
            program = os.path.basename(os.readlink(process / "exe"))
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            seen[program] = {"uids": {int(word) for word in status["Uid"].split()}, "root": os.readlink(process / "root"),
                             "confined": (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2"),
                             "powers": int(status["CapPrm"], 16), "groups": status["Groups"].split()}
    assert {"master", "smtpd", "cleanup", "qmgr", "trivial-rewrite", "local", "pickup", "postlogd"} <= set(seen)
    for program, is_ in seen.items():
        if program in ("master", "local"):
            assert is_["uids"] == {os.geteuid()}
            continue
        assert is_["uids"] == {owner}, program
        if AS_ROOT:
            assert is_["powers"] == 0 and "0" not in is_["groups"], program
        if program != "postlogd" and "ASAN_OPTIONS" not in os.environ:  # a sanitizer's build has no filters
            assert is_["confined"], program
    if AS_ROOT:
        assert seen["smtpd"]["root"].startswith(str(instance.queue))
