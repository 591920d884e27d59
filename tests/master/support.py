"""An instance whose daemons are all src/service/testd.c: it does what a line tells it to, under any program's name."""
import shutil
import socket

from instance import Instance, wait_for

SERVICES = """\
{smtpd}\
pickup  unix n - n 60  1 pickup trigger
cleanup unix n - n -   0 cleanup multi
qmgr    unix n - n 300 1 qmgr wake
rewrite unix - - n -   - trivial-rewrite multi
postlog unix-dgram n - n - 1 postlogd
"""
PROGRAMS = "smtpd pickup cleanup qmgr trivial-rewrite smtp bounce".split()


class Probe(Instance):
    """`smtpd`: the columns of the inet service from maxproc on; `extra`: more services."""

    def __init__(self, smtpd="10 smtpd", services=SERVICES, extra="", **kwargs):
        self.smtpd_columns = smtpd
        super().__init__(master_cf=services.replace("{smtpd}", f"127.0.0.1:{{port}} inet n - n - {smtpd}\n") + extra,
                         **kwargs)

    def _install(self):
        super()._install()
        for program in PROGRAMS:
            (self.daemons / program).unlink(missing_ok=True)
            shutil.copy2(self.build / "libexec" / "testd", self.daemons / program)

    def write_config(self):
        self.master_cf = self.master_cf.replace("{port}", str(self.port))
        super().write_config()

    def connect(self, port=None, timeout=30):
        return Line(("127.0.0.1", port or self.port), timeout)

    def local(self, path, timeout=30):
        return Line(str(self.queue / path), timeout)

    def ask(self, *lines, port=None):
        """The answer to the last line."""
        with self.connect(port) as line:
            for text in lines:
                answer = line.ask(text)
            return answer

    def edit_master(self, old, new):
        path = self.etc / "master.cf"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def edit_main(self, text):
        with (self.etc / "main.cf").open("a") as main:
            main.write(text + "\n")

    def reload_and_wait(self):
        before = self.log().count("reload -- version")
        assert self.reload().returncode == 0
        wait_for(lambda: self.log().count("reload -- version") > before, what="the reload")

    def count_log(self, text):
        return sum(text in line for line in self.log().splitlines())


class Line:
    """One connection; ask(): a line there, a line back ("" when the other side has ended)."""

    def __init__(self, address, timeout):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self.file = self.socket.makefile("rwb")

    def say(self, text):
        self.file.write(text.encode() + b"\n")
        self.file.flush()

    def ask(self, text):
        self.say(text)
        return self.read()

    def read(self):
        try:
            return self.file.readline().decode().rstrip("\n")
        except ConnectionResetError:
            return ""

    def close(self):
        self.socket.close()
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
