"""Make the include folder of one room: a link to each room it may use, and to nothing else.

usage: room_links.py SOURCE_DIR INCLUDE_DIR ROOM [USED_ROOM ...]
"""
import os
import pathlib
import sys

source, include, *rooms = sys.argv[1:]
include = pathlib.Path(include)
include.mkdir(parents=True, exist_ok=True)
wanted = set(rooms) | {"test"}
for old in include.iterdir():
    if old.name not in wanted:
        old.unlink()
for room in wanted:
    link = include / room
    target = os.path.join(source, room)
    if link.is_symlink() and os.readlink(link) == target:
        continue
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target)
