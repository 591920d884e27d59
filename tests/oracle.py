"""Debian's postfix, unpacked (tools/oracle) and run from its folder with a private configuration: the peer that
differential tests and benchmarks compare with. Needs root and the users postfix and postdrop; `Oracle.why_not()` says what is
missing. Nothing is installed, nothing outside its folder and the ports given to it is touched.
"""
import contextlib
import grp
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time

from instance import free_port

SERVICES = """\
{smtpd}pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
tlsmgr unix - - n 1000? 1 tlsmgr
"""
OWNED = "active bounce corrupt defer deferred flush hold incoming private public saved trace maildrop".split()


def ended(pid):
    """It may stay as a zombie for a second, until the machine's init looks."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def last_of_each(main_cf):
    """Without lines that later ones override: each process would warn of them, postlogd, too, through the very socket that it
    reads and has not read yet. When others have filled that by then (a busy machine), it waits for itself, and all for it."""
    of = {}
    for line in re.findall(r"^\S.*(?:\n[ \t].*)*", main_cf, re.M):
        of[line.partition("=")[0].strip()] = line + "\n"
    return "".join(of.values())


class Oracle:
    def __init__(self, root=None, main_cf="", port=None, master_extra=""):
        """`main_cf`: lines added to (and overriding) the private main.cf; `master_extra`: services added to its own."""
        self.root = pathlib.Path(root or os.environ.get("ANGARIUM_ORACLE", "/nonexistent"))
        self.port = port or free_port()
        self.extra, self.master_extra = main_cf, master_extra
        self.directory = None

    @staticmethod
    def why_not(root=None):
        root = pathlib.Path(root or os.environ.get("ANGARIUM_ORACLE", "/nonexistent"))
        if not (root / "usr/sbin/postconf").exists():
            return "no unpacked Debian postfix (tools/oracle; ANGARIUM_ORACLE)"
        if os.geteuid() != 0:
            return "Debian's postfix runs as root only"
        return None

    @staticmethod
    def make_users():
        """postfix and postdrop, which its master insists on."""
        for group in ("postdrop", "postfix"):
            try:
                grp.getgrnam(group)
            except KeyError:
                subprocess.run(["groupadd", "-r", group], check=True)
        try:
            pwd.getpwnam("postfix")
        except KeyError:
            subprocess.run(["useradd", "-r", "-g", "postfix", "-d", "/nonexistent", "-s", "/usr/sbin/nologin",
                            "postfix"], check=True)

    def environment(self):
        return {**os.environ, "LD_LIBRARY_PATH": str(self.root / "usr/lib/postfix"),
                "MAIL_CONFIG": str(self.directory / "etc")}

    def command(self, name, *args, **kwargs):
        """Run one of its commands with the private configuration."""
        return subprocess.run([str(self.root / "usr/sbin" / name), *args], env=self.environment(), timeout=60, **kwargs)

    def write(self):
        self.make_users()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="oracle-"))
        self.directory.chmod(0o755)
        for name in ("etc", "data", "queue"):
            (self.directory / name).mkdir()
        (self.directory / "etc/main.cf").write_text(last_of_each(f"""\
compatibility_level = 3.6
queue_directory = {self.directory}/queue
data_directory = {self.directory}/data
daemon_directory = {self.root}/usr/lib/postfix/sbin
command_directory = {self.root}/usr/sbin
shlib_directory = {self.root}/usr/lib/postfix
meta_directory = {self.root}/etc/postfix
mail_owner = postfix
setgid_group = postdrop
myhostname = oracle.example
mydestination = localhost
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
maillog_file = {self.directory}/log
maillog_file_prefixes = {self.directory}
import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C LD_LIBRARY_PATH
alias_maps =
{self.extra}
"""))
        (self.directory / "etc/master.cf").write_text(
            SERVICES.format(smtpd=f"127.0.0.1:{self.port} inet n - n - - smtpd\n") + self.master_extra)
        queue = self.directory / "queue"
        for name in OWNED + ["pid"]:
            (queue / name).mkdir()
            if name != "pid":
                shutil.chown(queue / name, "postfix")
                (queue / name).chmod(0o700)
        shutil.chown(self.directory / "data", "postfix")
        for name, mode in (("public", 0o710), ("maildrop", 0o730)):
            shutil.chown(queue / name, group="postdrop")
            (queue / name).chmod(mode)

    def start(self):
        self.write()
        master = self.root / "usr/lib/postfix/sbin/master"
        subprocess.run([str(master), "-c", str(self.directory / "etc"), "-w"], env=self.environment(), check=True,
                       timeout=60)
        return self

    def log(self):
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self):
        pid_file = self.directory / "queue/pid/master.pid"
        if pid_file.exists():
            pid = int(pid_file.read_text().strip())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                if ended(pid):
                    break
                time.sleep(0.05)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
