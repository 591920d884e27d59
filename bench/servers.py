"""The servers that are compared, each with its own directories, ports and control group: Angarium, Debian's Postfix
(tools/oracle), and Debian's Exim, all durable, with settings that mean the same. They relay everything to one sink.

    with Angarium(build, sink_port) as a: a.port, a.queue, a.pids(), a.usage()
"""
import contextlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from measure import ROOT, Group, Usage

from instance import Instance, free_port
from oracle import Oracle

# As Postfix's TUNING_README says for a relay with a fast, near destination: more processes and connections, no
# brakes between the door and the queue, no counting of clients, connections kept.
TUNED = """\
default_process_limit = 200
default_destination_concurrency_limit = 100
initial_destination_concurrency = 20
default_destination_recipient_limit = 100
in_flow_delay = 0
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtp_connection_cache_on_demand = yes
message_size_limit = 100000000
maximal_queue_lifetime = 5d
"""
# The same for Exim: at most 100 connections at a time with 100 recipients each, delivery at once, no look-ups of names.
EXIM_CONF = """\
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {directory}/spool
log_file_path = {directory}/log/%s
pid_file_path = {directory}/exim.pid
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
primary_hostname = exim.example
exim_path = {program}
deliver_drop_privilege
keep_environment = LD_LIBRARY_PATH
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
rfc1413_query_timeout = 0s
smtp_accept_max = 300
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
remote_max_parallel = 100
recipients_max = 0
message_size_limit = 100M
trusted_users = root
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin acl
accept:
  accept
begin routers
relay:
  driver = manualroute
  transport = remote
  route_list = * 127.0.0.1
  self = send
  no_verify
begin transports
remote:
  driver = smtp
  port = {sink}
  hosts_try_fastopen =
  hosts_try_dane =
  allow_localhost
  max_rcpt = 100
  connection_max_messages = 0
begin retry
* * F,2h,15m
"""


class _Server:
    """What the three have in common. A subclass sets port and queue, and has _start(), _stop(), its version()."""

    def pids(self):
        return self.group.pids(self._pids())

    def usage(self):
        return Usage(self.group, self.pids, self.queue)

    def __enter__(self):
        self.group = Group(self.name.lower())
        try:
            with self.group.inside():
                self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Exception):
            self._stop()
        for pid in self.group.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.group.close()

    def wait_until_idle(self, seconds=10):
        """Work that a server does after the last message has left (unlinking, logging) belongs to its messages."""
        end, used = time.monotonic() + seconds, None
        while time.monotonic() < end:
            before, used = used, self.usage()._cpu()
            if before is not None and used - before < 0.002:
                return
            time.sleep(0.1)

    def _without_qmgr(self):
        """Rewrites master.cf; returns what puts it back."""
        path = self.etc / "master.cf"
        text = path.read_text()
        path.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("qmgr")))

        def back():
            path.write_text(text)
            self._reload()
        return back


class Angarium(_Server):
    name = "Angarium"

    def __init__(self, build, sink_port, main_cf="", accept_only=False, directory=None, postscreen=False):
        """`directory`: for all its files, and left there. `postscreen`: it stands before smtpd."""
        self.server = Instance(main_cf=f"relayhost = [127.0.0.1]:{sink_port}\n{TUNED}{main_cf}", build=build,
                               directory=directory)
        self.port, self.queue, self.etc = self.server.port, self.server.queue, self.server.etc
        self.start_queue_manager = self._without_qmgr() if accept_only else None
        if postscreen:
            self._before_smtpd()

    def _start(self):
        self.server.start()

    def _stop(self):
        self.server.stop()

    def _reload(self):
        with self.group.inside():
            self.server.reload()

    def _before_smtpd(self):
        path = self.etc / "master.cf"
        door, rest = path.read_text().split("\n", 1)
        address = door.split()[0]
        path.write_text(f"{address} inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n{rest}")

    def stop_only(self):
        """As `postfix stop`; the queue stays."""
        self.server.postfix("stop")

    def start_again(self):
        self.server.start()

    def queue_manager_memory(self):
        """KiB that the queue manager has had at most since it was started."""
        status = pathlib.Path(f"/proc/{self.server.pids('qmgr')[0]}/status").read_text()
        return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)[1])

    def _pids(self):
        return self.server.pids()

    def version(self):
        return self.server.postconf("angarium_version")

    def list_queue(self):
        return self.server.command("postqueue", "-p", capture_output=True, timeout=600).stdout

    def log(self):
        return self.server.log()


class _PrivatePostfix(Oracle):
    """Debian's Postfix whose configuration may be changed between writing and starting."""

    def start(self):
        master = self.root / "usr/lib/postfix/sbin/master"
        subprocess.run([master, "-c", self.directory / "etc", "-w"], env=self.environment(), check=True, timeout=60)
        return self


class Postfix(_Server):
    name = "Postfix"

    def __init__(self, root, sink_port, main_cf="", accept_only=False):
        self.server = _PrivatePostfix(root, f"relayhost = [127.0.0.1]:{sink_port}\n{TUNED}{main_cf}")
        self.server.write()
        self.port, self.queue, self.etc = self.server.port, self.server.directory / "queue", self.server.directory / "etc"
        self.start_queue_manager = self._without_qmgr() if accept_only else None

    def _start(self):
        self.server.start()

    def _stop(self):
        self.server.stop()

    def _master(self):
        return int((self.queue / "pid/master.pid").read_text())

    def _reload(self):
        os.kill(self._master(), signal.SIGHUP)

    def _pids(self):
        parents = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        master = self._master()
        return [master, *(pid for pid, parent in parents.items() if parent == master)]

    def version(self):
        return self.server.command("postconf", "-h", "mail_version", capture_output=True, text=True).stdout.strip()

    def list_queue(self):
        return subprocess.run([self.server.root / "usr/sbin/postqueue", "-p"], env=self.server.environment(), timeout=600,
                              capture_output=True, text=True, check=True).stdout

    def log(self):
        return self.server.log()


class Exim(_Server):
    """exim4-daemon-heavy, unpacked, with a binary that thinks its configuration may be anywhere: it is started by root
    with -C, which Debian allows for files that root owns."""
    name = "Exim"

    def __init__(self, root, sink_port):
        self.root, self.program = root, root / "usr/sbin/exim4"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="exim-"))
        self.directory.chmod(0o755)
        self.port, self.queue = free_port(), self.directory / "spool"
        try:
            pwd.getpwnam("Debian-exim")
        except KeyError:  # it does not start without
            subprocess.run(["useradd", "-r", "-d", "/nonexistent", "-s", "/usr/sbin/nologin", "Debian-exim"], check=True)
        for name in ("spool", "log"):
            (self.directory / name).mkdir()
            shutil.chown(self.directory / name, "Debian-exim")
        self.configuration = self.directory / "exim.conf"
        self.configuration.write_text(EXIM_CONF.format(directory=self.directory, port=self.port, sink=sink_port,
                                                       program=self.program))

    @staticmethod
    def unpack(directory):
        """The folder with Debian's Exim, downloaded if need be; None when it cannot be had."""
        if not (directory / "usr/sbin/exim4").exists():
            download = directory / "download"
            download.mkdir(parents=True, exist_ok=True)
            got = subprocess.run(["apt-get", "download", "-q", "exim4-daemon-heavy", "libspf2-2"], cwd=download,
                                 capture_output=True)
            if got.returncode != 0:
                return None
            for package in download.glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, directory], check=True)
            shutil.rmtree(download)
            (directory / "usr/sbin/exim4").chmod(0o755)  # the loader would not take libraries from here for a set-uid one
        needs = subprocess.run(["ldd", directory / "usr/sbin/exim4"], capture_output=True, text=True,
                               env=Exim.environment(directory)).stdout
        missing = re.findall(r"(\S+) => not found", needs)
        if missing:
            print(f"Exim lacks {', '.join(missing)}: apt-get install exim4-daemon-heavy's libraries", file=sys.stderr)
            return None
        return directory

    @staticmethod
    def environment(root):
        return {**os.environ, "LD_LIBRARY_PATH": f"{root}/usr/lib"}

    def _run(self, *arguments):
        return subprocess.run([self.program, "-C", self.configuration, *arguments], check=True, timeout=60,
                              capture_output=True, text=True, env=self.environment(self.root)).stdout

    def _start(self):
        self._run("-bd")

    def _stop(self):
        os.kill(int((self.directory / "exim.pid").read_text()), signal.SIGTERM)
        time.sleep(0.5)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _pids(self):
        return [pid for pid in (int(path.name) for path in pathlib.Path("/proc").glob("[0-9]*"))
                if self._is_ours(pid)]

    def _is_ours(self, pid):
        with contextlib.suppress(OSError):
            return str(self.configuration).encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return False

    def version(self):
        return self._run("-bV").split()[2]


class OpenSMTPD(_Server):
    """opensmtpd, unpacked; its paths are its own in a mount namespace. Names are looked up in /etc/hosts alone."""
    name = "OpenSMTPD"
    START = """\
mount --make-rprivate / && mount -t tmpfs tmpfs /var/spool && mount -t tmpfs tmpfs /var/lib && mount -t tmpfs tmpfs /run || exit 1
mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd && chmod 711 /var/spool/smtpd
mount --bind "$1/usr/libexec" /usr/libexec && mount --bind "$2/resolv.conf" /etc/resolv.conf || exit 1
exec "$1/usr/sbin/smtpd" -d -f "$2/smtpd.conf"
"""

    def __init__(self, root):
        self.root, self.port = root, free_port()
        self.directory = self.queue = pathlib.Path(tempfile.mkdtemp(prefix="opensmtpd-"))
        for user in ("opensmtpd", "opensmtpq"):
            try:
                pwd.getpwnam(user)
            except KeyError:
                subprocess.run(["useradd", "-r", "-d", "/nonexistent", "-s", "/usr/sbin/nologin", user], check=True)
        (self.directory / "resolv.conf").write_text("lookup file\n")
        (self.directory / "smtpd.conf").write_text(
            f'listen on lo port {self.port}\naction "relay" relay host smtp://127.0.0.1:9\nmatch from any for any action "relay"\n')

    @staticmethod
    def unpack(directory):
        """The folder with Debian's OpenSMTPD, downloaded if need be; None when it cannot be had."""
        program = directory / "usr/sbin/smtpd"
        if not program.exists():
            directory.mkdir(parents=True, exist_ok=True)
            subprocess.run(["apt-get", "download", "-q", "opensmtpd"], cwd=directory, capture_output=True)
            for package in directory.glob("opensmtpd_*.deb"):
                subprocess.run(["dpkg", "-x", package, directory], check=True)
        works = program.exists() and subprocess.run([program, "-h"], capture_output=True).returncode != 127
        return directory if works and pathlib.Path("/usr/libexec").is_dir() else None

    def _start(self):
        self.process = subprocess.Popen(["unshare", "-m", "sh", "-c", self.START, "sh", self.root, self.directory],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.1)
        raise RuntimeError("OpenSMTPD does not listen")

    def _stop(self):
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _pids(self):
        return [self.process.pid]


def unpacked(build):
    """The folders of Debian's Postfix and Exim; the first or the program ends, the second or None."""
    root = os.environ.get("ANGARIUM_ORACLE") or subprocess.run(
        [ROOT / "tools/oracle", build / "oracle"], capture_output=True, text=True).stdout.strip()
    reason = Oracle.why_not(root)
    if reason:
        sys.exit(f"bench: {reason}")
    return pathlib.Path(root), Exim.unpack(build / "exim")
