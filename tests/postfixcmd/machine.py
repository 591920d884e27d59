"""A mail system at the built-in place: commands run where /etc is a copy with a /etc/postfix of the test's own, in a
mount namespace. So the default instance is tested, the one that postmulti and the set-gid commands go by, and nothing
of this machine is touched. The same for Debian's, beside it. Needs root.
"""
import os
import shutil
import subprocess

from instance import Instance
from oracle import Oracle


def in_namespace(etc, command):
    return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc && exec "$@"', str(etc), *map(str, command)]


# What useradd(8) and dpkg(1) have there for a moment: another test may just make its users.
FLEETING = [f"{name}{end}" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
            for end in (".*", "+", "-")] + ["n[a-z]*shadow", "nshadow", "npasswd", "ngroup", "*.dpkg-*"]


def copy_of_etc(place, postfix):
    """`postfix` becomes /etc/postfix."""
    shutil.copytree("/etc", place, symlinks=True,
                    ignore=shutil.ignore_patterns("postfix*", "ssl", "alternatives", *FLEETING))
    shutil.move(postfix, place / "postfix")


class Machine(Instance):
    """Instance, but for `etc`: /etc/postfix of its namespace; `whole_etc` is its /etc."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.whole_etc = self.directory / "whole-etc"
        copy_of_etc(self.whole_etc, self.etc)
        self.etc = self.whole_etc / "postfix"

    def environment(self):
        return {name: value for name, value in os.environ.items() if name != "MAIL_CONFIG"}

    def command(self, name, *rest, timeout=60, env=None, **kwargs):
        env = {**self.environment(), **(env or {})}
        return subprocess.run(in_namespace(self.whole_etc, [self.bin / name, *rest]), env=env, text=True,
                              timeout=timeout, cwd=self.directory, capture_output=True, **kwargs)

    def command_as(self, user, name, *rest):
        """By an ordinary user, who has the set-gid bits of an installation to help her."""
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return subprocess.run(in_namespace(self.whole_etc, [*as_user, self.bin / name, *rest]), env=self.environment(),
                              text=True, timeout=60, cwd=self.directory, capture_output=True)

    def postfix(self, *args, **kwargs):
        return self.command("postfix", *args, **kwargs)

    def postconf(self, name, directory="/etc/postfix"):
        return self.command("postconf", "-c", directory, "-h", name).stdout.rstrip("\n")


class DebianMachine(Oracle):
    """Debian's in the same form."""

    def write(self):
        super().write()
        main_cf = self.directory / "etc/main.cf"
        main_cf.write_text(main_cf.read_text() + "meta_directory = /etc/postfix\n")
        self.whole_etc = self.directory / "whole-etc"
        copy_of_etc(self.whole_etc, self.directory / "etc")
        self.etc = self.whole_etc / "postfix"
        shutil.copytree(self.root / "etc/postfix", self.etc, dirs_exist_ok=True)
        for name in ("main.cf", "master.cf"):
            shutil.copyfile(self.root / f"usr/share/postfix/{name}.dist", self.etc / f"{name}.proto")
        # its programs drop the environment: the loader finds the libraries by itself
        (self.whole_etc / "ld.so.conf.d/oracle.conf").write_text(f"{self.root}/usr/lib/postfix\n")
        subprocess.run(in_namespace(self.whole_etc, ["ldconfig"]), check=True, timeout=60)

    def command(self, name, *args, env=None, **kwargs):
        env = {name: value for name, value in {**os.environ, **(env or {})}.items() if name != "MAIL_CONFIG"}
        command = [self.root / "usr/sbin" / name, *args]
        return subprocess.run(in_namespace(self.whole_etc, command), env=env, timeout=120, text=True,
                              capture_output=True, cwd=self.directory, **kwargs)


def why_not():
    if os.geteuid() != 0:
        return "needs root: a mount namespace and files of several owners"
    return None
