#!/usr/bin/env python3
"""Make the directories that the mail system keeps its state in, and give the commands of group postdrop that group:
install_state.py POSTFIX_FILES QUEUE_DIRECTORY DATA_DIRECTORY COMMAND_DIRECTORY. The table POSTFIX_FILES says which and how;
the rest of it is done by `postfix check` and `postfix set-permissions`.

Meson calls it from `ninja install`. What is there stays as it is. Owners are for root to set, and only on the machine
itself: below DESTDIR they are the business of who makes the package."""
import grp
import os
import pathlib
import pwd
import shutil
import sys

MAIL_OWNER, SETGID_GROUP = "postfix", "postdrop"


def rows(table):
    """path: (owner, group, mode) of the table's rows, as they are written there."""
    lines = (line.strip() for line in pathlib.Path(table).read_text().splitlines())
    columns = (line.split(":") for line in lines if line and not line.startswith("#"))
    return {path: (owner, group, int(mode, 8)) for path, _, owner, group, mode, _ in columns}


def known(look, name):
    try:
        return look(name)
    except KeyError:
        return None


def make(path, mode):
    if path.is_dir():
        print(f"Keeping {path}")
        return False
    path.mkdir(parents=True)
    path.chmod(mode)
    print(f"Making {path}")
    return True


def main():
    destdir = os.environ.get("DESTDIR", "")
    table = rows(sys.argv[1])
    queue, data, commands = (pathlib.Path(destdir + word) for word in sys.argv[2:])
    make(queue, table["$queue_directory"][2])
    new_data = make(data, table["$data_directory"][2])
    prefix = "$command_directory/"
    setgid = {path.removeprefix(prefix): mode for path, (_, group, mode) in table.items()
              if path.startswith(prefix) and group == "$setgid_group"}
    if destdir or os.geteuid() != 0:
        return
    if known(pwd.getpwnam, MAIL_OWNER) is None:
        print(f"There is no user {MAIL_OWNER} yet, who owns the queue (mail_owner):\n"
              f"    useradd --system --user-group --home-dir {queue} --shell /usr/sbin/nologin {MAIL_OWNER}\n"
              f"    chown {MAIL_OWNER} {data}")
    elif new_data or not any(data.iterdir()):  # made by an earlier run, when the user was not there
        shutil.chown(data, MAIL_OWNER)
    if known(grp.getgrnam, SETGID_GROUP) is None:
        names = " ".join(str(commands / name) for name in setgid)
        print(f"There is no group {SETGID_GROUP} yet, which lets everybody hand in mail (setgid_group):\n"
              f"    groupadd --system {SETGID_GROUP}\n    chgrp {SETGID_GROUP} {names}\n    chmod 2755 {names}")
        return
    for name, mode in setgid.items():
        shutil.chown(commands / name, group=SETGID_GROUP)
        (commands / name).chmod(mode)


main()
