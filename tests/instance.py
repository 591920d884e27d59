"""A private Angarium: its own directories, high loopback ports, started and stopped by whoever made it.

Used by the black-box tests, the demonstration and the benchmarks. Runs as the user who calls, or, when root asks for
it (`user=`), as an ordinary user. Everything is below one directory, which goes away with stop().
"""
import contextlib
import itertools
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMANDS = ("postfix postconf postmap postalias newaliases postqueue mailq postdrop sendmail postlog postkick "
            "postlock postmulti postsuper postcat qshape").split()

MASTER_CF = """\
{smtpd}\
pickup     unix  n - n 60    1 pickup
cleanup    unix  n - n -     0 cleanup
qmgr       unix  n - n 300   1 qmgr
flush      unix  n - n 1000? 0 flush
verify     unix  - - n -     1 verify
rewrite    unix  - - n -     - trivial-rewrite
bounce     unix  - - n -     0 bounce
defer      unix  - - n -     0 bounce
trace      unix  - - n -     0 bounce
proxymap   unix  - - n -     - proxymap
tlsmgr     unix  - - n 1000? 1 tlsmgr
smtp       unix  - - n -     - smtp
relay      unix  - - n -     - smtp
lmtp       unix  - - n -     - lmtp
showq      unix  n - n -     - showq
error      unix  - - n -     - error
retry      unix  - - n -     - error
discard    unix  - - n -     - discard
local      unix  - n n -     - local
virtual    unix  - n n -     - virtual
anvil      unix  - - n -     1 anvil
postlog    unix-dgram n - n - 1 postlogd
"""


PORTS = range(11000, 31000)  # below those that the kernel gives to clients, which come and go at any moment
_given = itertools.count(os.getpid())


def free_port():
    """A port of 127.0.0.1 that nobody listens at. Each is given once in a process, and the workers of pytest-xdist have
    ranges of their own."""
    share = len(PORTS) // 4
    first = int(os.environ.get("PYTEST_XDIST_WORKER", "gw3")[2:]) % 4 * share
    for _ in range(share):
        port = PORTS[first + next(_given) % share]
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def wait_for(condition, seconds=20, what="the condition"):
    """Ask again and again; the bound is for hangs, not for speed."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} seconds for {what}")
        time.sleep(0.05)


def start_many(kind):
    """The body of a fixture: gives make(...), which starts a `kind`; each is stopped at the end, after its log was shown
    (pytest prints that when the test failed)."""
    made = []

    def make(start=True, **kwargs):
        one = kind(**kwargs)
        made.append(one)
        return one.start() if start else one

    yield make
    for one in made:
        print(f"--- log of {one.name}:\n{one.log()}")
        one.stop()


def build_directory():
    return pathlib.Path(os.environ.get("ANGARIUM_BUILD", ROOT / "build")).resolve()


def is_sanitized():
    """AddressSanitizer's memory and file accesses are its own: what a test says of these does not hold."""
    postconf = build_directory() / "sbin/postconf"
    return postconf.exists() and b"__asan_init" in postconf.read_bytes()


SANITIZED = is_sanitized()


def changed():
    """What smtpd was told of an address counts for up to half a second; what was changed is seen within one."""
    time.sleep(1)


class Instance:
    def __init__(self, main_cf="", master_cf=None, master_extra="", build=None, user=None, directory=None, name="mail",
                 dns=None, smtpd_args=""):
        """`main_cf` lines override the basic ones; `master_cf` replaces the basic services, `master_extra` adds to them.
        `user`: run as this user (root only). `dns`: address:port of a test's name server (default: one that is not there)."""
        self.build = pathlib.Path(build or build_directory())
        self.user = user
        self.name = name
        self.port = free_port()
        self.keep = directory is not None
        self.directory = pathlib.Path(directory or tempfile.mkdtemp(prefix=f"angarium-{name}-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        self.etc = self.directory / "etc"
        self.queue = self.directory / "queue"
        self.data = self.directory / "data"
        self.mail = self.directory / "mail"
        self.bin = self.directory / "bin"
        self.log_file = self.directory / "log"
        for path in (self.etc, self.queue, self.data, self.mail, self.bin):
            path.mkdir(exist_ok=True)
        self.extra = main_cf
        self.master_cf = master_cf
        self.master_extra = master_extra
        self.smtpd_args = smtpd_args
        self.dns = dns or f"127.0.0.1:{free_port()}"
        self._install()
        self.write_config()

    # --- files ---
    def _install(self):
        """The programs of the build, beside each other as an installation has them."""
        for command in COMMANDS:
            built = self.build / "sbin" / command
            if built.exists() and not (self.bin / command).exists():
                shutil.copy2(built, self.bin / command)
        for alias, target in (("mailq", "postqueue"), ("newaliases", "sendmail")):
            if not (self.bin / alias).exists() and (self.bin / target).exists():
                (self.bin / alias).symlink_to(target)
        self.daemons = self.directory / "libexec"
        self.daemons.mkdir(exist_ok=True)
        for built in (self.build / "libexec").iterdir():
            if built.is_file() and os.access(built, os.X_OK) and not (self.daemons / built.name).exists():
                shutil.copy2(built, self.daemons / built.name)

    def write_config(self):
        owner = self.user or pwd.getpwuid(os.geteuid()).pw_name
        root = os.geteuid() == 0 and not self.user
        main = {
            "compatibility_level": "3.6",
            "queue_directory": self.queue,
            "data_directory": self.data,
            "daemon_directory": self.daemons,
            "command_directory": self.bin,
            "mail_owner": "postfix" if root else owner,
            "setgid_group": "postdrop" if root else self._group_of(owner),
            "myhostname": f"{self.name}.example",
            "mydomain": "example",
            "mydestination": "$myhostname, localhost",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mail_spool_directory": self.mail,
            "alias_maps": "",
            "alias_database": "",
            "maillog_file": self.log_file,
            "maillog_file_prefixes": self.directory,
            "dns_resolvers": self.dns,
        }
        text = "".join(f"{name} = {value}\n" for name, value in main.items())
        (self.etc / "main.cf").write_text(text + self.extra + "\n")
        smtpd = f"127.0.0.1:{self.port} inet n - n - - smtpd{self.smtpd_args}\n"
        services = self.master_cf if self.master_cf is not None else MASTER_CF
        services = services.replace("{smtpd}", smtpd)
        if self.master_cf is None:
            services = self._only_built(services)
        (self.etc / "master.cf").write_text(services + self.master_extra)
        if root:
            from oracle import Oracle
            Oracle.make_users()
            shutil.chown(self.data, "postfix")
            self.mail.chmod(0o1777)
        if self.user:
            for path in [self.directory, *self.directory.rglob("*")]:
                if not path.is_symlink():
                    shutil.chown(path, self.user, self._group_of(self.user))

    def _only_built(self, services):
        """The basic services without those whose daemon this version does not have yet: `postfix start` warns of them."""
        return "".join(line for line in services.splitlines(keepends=True)
                       if (self.daemons / line.split()[7]).exists())

    @staticmethod
    def _group_of(user):
        import grp
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name

    # --- commands ---
    def environment(self):
        return {**os.environ, "MAIL_CONFIG": str(self.etc)}

    def command(self, *args, timeout=60, text=True, **kwargs):
        """Run one of the commands: command("postqueue", "-p", capture_output=True)."""
        name, *rest = args
        as_user = {"user": self.user, "group": self._group_of(self.user), "extra_groups": []} if self.user else {}
        return subprocess.run([str(self.bin / name), *map(str, rest)], env=self.environment(), timeout=timeout,
                              text=text, cwd=self.directory, **as_user, **kwargs)

    def postfix(self, *args, **kwargs):
        return self.command("postfix", "-c", self.etc, *args, capture_output=True, **kwargs)

    def sendmail(self, *args, message="Subject: test\n\nhello\n"):
        return self.command("sendmail", *args, input=message, capture_output=True)

    def postconf(self, name):
        return self.command("postconf", "-h", name, capture_output=True).stdout.rstrip("\n")

    # --- life ---
    def start(self):
        done = self.postfix("start")
        if done.returncode != 0:
            raise RuntimeError(f"postfix start: {done.stdout}{done.stderr}{self.log()}")
        return self

    def reload(self):
        return self.postfix("reload")

    def master_pid(self):
        try:
            return int((self.queue / "pid/master.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def pids(self, program=None):
        """Processes of this instance: they run programs from its libexec folder."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    path = os.readlink(entry / "exe").removesuffix(" (deleted)")
                    if path.startswith(str(self.daemons)) and (not program or path.endswith("/" + program)):
                        found.append(int(entry.name))
        return found

    def kill_all(self):
        """kill -9 of every process at once, as a power failure would."""
        for _ in range(10):
            pids = self.pids()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def running(self):
        return self.postfix("status").returncode == 0

    def stop(self):
        with contextlib.suppress(Exception):
            self.postfix("stop")
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    # --- looking ---
    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_log(self, text, seconds=20):
        """The first log line that holds `text`."""
        def look():
            return next((line for line in self.log().splitlines() if text in line), None)
        try:
            return wait_for(look, seconds)
        except TimeoutError:
            raise TimeoutError(f"no log line with {text!r} in:\n{self.log()}") from None

    def listing(self):
        import json
        return [json.loads(line) for line in self.command("postqueue", "-j", capture_output=True).stdout.splitlines()]

    def queue_ids(self):
        return [entry["queue_id"] for entry in self.listing()]

    def queue_is_empty(self):
        return not any(path.is_file() for name in ("incoming", "active", "deferred", "maildrop", "hold")
                       for path in (self.queue / name).rglob("*")) and not self.queue_ids()

    def smtp(self, **kwargs):
        import smtplib
        return smtplib.SMTP("127.0.0.1", self.port, timeout=60, **kwargs)
