"""The set-gid commands: whoever runs them gets the group's rights for their purpose only, not for a main.cf or an
environment of one's own."""
import os
import pwd
import shutil
import socket
import subprocess

import pytest

from instance import Instance
from oracle import Oracle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a set-gid program")
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def place(tmp_path_factory):
    """Programs as an installation has them, a directory that only their group may write to, and a hostile main.cf."""
    Oracle.make_users()
    instance = Instance(name="setgid")
    top = instance.directory
    for name in ("postdrop", "postqueue", "postlog"):
        shutil.chown(instance.bin / name, "root", "postdrop")
        (instance.bin / name).chmod(0o2755)
    closed = top / "closed"
    closed.mkdir()
    shutil.chown(closed, "root", "postdrop")
    closed.chmod(0o730)
    evil = top / "evil"
    (evil / "maildrop").mkdir(parents=True)
    (evil / "main.cf").write_text(f"compatibility_level = 3.6\nqueue_directory = {evil}\nmyhostname = a.example\n"
                                  f"maillog_file = {closed}/made\nmaillog_file_prefixes = {top}\n")
    for path in (evil, evil / "maildrop", evil / "main.cf"):
        shutil.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    yield instance
    instance.stop()


def run(place, *args, **env):
    name, *rest = args
    return subprocess.run([place.bin / name, *rest], user=NOBODY.pw_uid, group=NOBODY.pw_gid, extra_groups=[], input="x\n",
                          env={"PATH": "/usr/bin:/bin", **env}, cwd="/", text=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("args", [["postlog", "text"], ["postlog", "-t", "tag"], ["postdrop"], ["postqueue", "-p"],
                                  ["postqueue", "-f"]], ids=" ".join)
@pytest.mark.parametrize("how", ["option", "environment"])
def test_configuration_of_the_caller(place, args, how):
    evil = str(place.directory / "evil")
    if how == "option":
        done = run(place, args[0], "-c", evil, *args[1:])
    else:
        done = run(place, *args, MAIL_CONFIG=evil)
    assert done.returncode != 0
    assert not (place.directory / "closed/made").exists()
    assert list((place.directory / "evil/maildrop").iterdir()) == []


@pytest.mark.parametrize("args", [["postlog", "-X"], ["postdrop", "-X"], ["postqueue", "-X"]], ids=" ".join)
def test_log_of_the_caller(place, args):
    """A socket that the group may write to is not for everybody to name."""
    path = place.directory / "closed/socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(path))
        shutil.chown(path, "root", "postdrop")
        path.chmod(0o660)
        s.settimeout(0)
        assert run(place, *args, POSTLOG_SERVICE=str(path), MAIL_LOGTAG="forged").returncode != 0
        with pytest.raises(BlockingIOError):
            s.recv(1000)
