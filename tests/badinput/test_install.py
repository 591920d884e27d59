"""`ninja install` with a prefix: a mail system that starts and delivers with its stock files, given only a port."""
import os
import pathlib
import pwd
import re
import shutil
import smtplib
import stat
import subprocess
import tempfile

import pytest

from instance import ROOT, free_port, wait_for
from oracle import Oracle

AS_ROOT = os.geteuid() == 0
USER = "angarium-test"  # made here, with a mailbox where the stock configuration has it
COMMANDS = ("mailq newaliases postalias postcat postconf postdrop postfix postkick postlock postlog postmap postmulti "
            "postqueue postsuper qshape sendmail").split()
ENV = {name: value for name, value in os.environ.items() if name != "MAIL_CONFIG"}

if "ASAN_OPTIONS" in os.environ:
    pytest.skip("another build of the same", allow_module_level=True)


def run(*args, timeout=60, **kwargs):
    return subprocess.run([str(a) for a in args], env=ENV, timeout=timeout, text=True, capture_output=True, **kwargs)


@pytest.fixture(scope="module")
def prefix():
    if AS_ROOT:
        Oracle.make_users()
    place = pathlib.Path(tempfile.mkdtemp(prefix="angarium-install-"))
    place.chmod(0o755)  # other users run its commands
    p = place / "p"
    build = place / "build"
    setup = run("meson", "setup", build, ROOT, f"--prefix={p}", f"--sysconfdir={p}/etc", f"--localstatedir={p}/var",
                "-Dtests=false")
    assert setup.returncode == 0, setup.stdout
    install = run("ninja", "-C", build, "install", timeout=1800)
    assert install.returncode == 0, install.stdout[-4000:]
    shutil.rmtree(build)
    yield p
    shutil.rmtree(place)


@pytest.fixture
def running(prefix):
    """Started; the one setting is a port, in master.cf."""
    port = free_port()
    master_cf = prefix / "etc/postfix/master.cf"
    stock = master_cf.read_text()
    text, n = re.subn(r"^smtp +inet", f"127.0.0.1:{port} inet", stock, flags=re.M)
    assert n == 1
    master_cf.write_text(text)
    try:
        assert run(prefix / "sbin/postfix", "start").returncode == 0
        yield port
    finally:
        run(prefix / "sbin/postfix", "stop")
        master_cf.write_text(stock)


@pytest.fixture
def user():
    if not AS_ROOT:
        pytest.skip("needs a user of its own")
    if run("id", USER).returncode != 0:
        assert run("useradd", "--no-create-home", "--shell", "/bin/sh", USER).returncode == 0
    mailbox = pathlib.Path("/var/mail") / USER
    mailbox.unlink(missing_ok=True)
    yield mailbox
    mailbox.unlink(missing_ok=True)
    run("userdel", USER)


def test_places(prefix):
    assert sorted(os.listdir(prefix / "sbin")) == COMMANDS
    daemons = os.listdir(prefix / "libexec/angarium")
    assert {"master", "smtpd", "cleanup", "qmgr", "local", "smtp", "bounce", "pickup", "postlogd"} <= set(daemons)
    assert "testd" not in daemons
    assert sorted(os.listdir(prefix / "etc/postfix")) == [
        "main.cf", "main.cf.proto", "master.cf", "master.cf.proto", "postfix-files"]
    want = {"config_directory": "etc/postfix", "meta_directory": "etc/postfix", "command_directory": "sbin",
            "daemon_directory": "libexec/angarium", "queue_directory": "var/spool/postfix",
            "data_directory": "var/lib/postfix", "sendmail_path": "sbin/sendmail", "mailq_path": "sbin/mailq",
            "newaliases_path": "sbin/newaliases"}
    shown = run(prefix / "sbin/postconf", "-d", *want).stdout
    assert shown.splitlines() == [f"{name} = {prefix}/{place}" for name, place in want.items()]
    for name in ("queue_directory", "data_directory"):
        assert (prefix / want[name]).is_dir()
    for page in ("man5/postconf.5", "man8/smtpd.8", "man1/sendmail.1"):
        assert (prefix / "share/man" / page).is_file()


def test_rights(prefix):
    if not AS_ROOT:
        pytest.skip("root alone gives rights")
    import grp
    for name in ("postdrop", "postqueue", "postlog"):
        st = (prefix / "sbin" / name).stat()
        assert grp.getgrgid(st.st_gid).gr_name == "postdrop" and stat.S_IMODE(st.st_mode) == 0o2755
    assert (prefix / "var/lib/postfix").stat().st_uid == pwd.getpwnam("postfix").pw_uid
    done = run(prefix / "sbin/postfix", "check")  # whose table is the installer's
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if "owned by" in line or "writable" in line or "set-gid" in line]


def test_delivers(prefix, running, user):
    """From SMTP and from an ordinary user's sendmail, to a mailbox that belongs to its reader."""
    with smtplib.SMTP("127.0.0.1", running, timeout=60) as client:
        client.sendmail(f"{USER}@localhost", [f"{USER}@localhost"], "Subject: by SMTP\r\n\r\nhello\r\n")
    done = run(prefix / "sbin/sendmail", USER, input="Subject: by sendmail\n\nhello\n", user=USER, group=USER,
               extra_groups=[])
    assert done.returncode == 0, done.stderr
    wait_for(lambda: user.exists() and user.read_text().count("\nhello\n") == 2, what="two messages")
    st = user.stat()
    assert st.st_uid == pwd.getpwnam(USER).pw_uid and stat.S_IMODE(st.st_mode) == 0o600
    listing = run(prefix / "sbin/mailq", user=USER, group=USER, extra_groups=[])
    assert (listing.returncode, listing.stdout) == (0, "Mail queue is empty\n")
    again = run(prefix / "sbin/postfix", "start")
    assert again.returncode == 1


def test_starts_as_an_ordinary_user(prefix, running):
    """What an ordinary user installed belongs to him; the stock files need no more."""
    if AS_ROOT:
        pytest.skip("the installation is root's")
    assert run(prefix / "sbin/postfix", "status").returncode == 0
    with smtplib.SMTP("127.0.0.1", running, timeout=60) as client:
        assert client.noop()[0] == 250


def test_destdir_and_second_installation(tmp_path):
    """Below DESTDIR nobody's rights change; what is there stays."""
    script = ROOT / "packaging/install_state.py"
    args = [script, ROOT / "packaging/postfix-files", "/v/spool", "/v/data", "/sbin"]
    env = {**ENV, "DESTDIR": str(tmp_path)}
    subprocess.run(args, env=env, check=True, capture_output=True)
    assert (tmp_path / "v/spool").is_dir() and (tmp_path / "v/data").is_dir()
    (tmp_path / "v/data").chmod(0o750)
    (tmp_path / "v/data/file").write_text("x")
    subprocess.run(args, env=env, check=True, capture_output=True)
    assert stat.S_IMODE((tmp_path / "v/data").stat().st_mode) == 0o750
    assert (tmp_path / "v/data").stat().st_uid == os.geteuid()
    assert (tmp_path / "v/data/file").exists()
