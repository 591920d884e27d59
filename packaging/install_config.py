#!/usr/bin/env python3
"""Install the stock configuration files, each only where there is none yet: install_config.py SOURCE SYSCONFDIR.

Meson calls it from `ninja install`, with DESTDIR in the environment."""
import os
import pathlib
import shutil
import sys

FILES = {  # place: source; the prototypes are what new instances begin with (postmulti)
    "postfix/main.cf": "main.cf", "postfix/master.cf": "master.cf", "aliases": "aliases",
    "postfix/main.cf.proto": "main.cf", "postfix/master.cf.proto": "master.cf",
    "postfix/postfix-files": "postfix-files",
}


def main():
    source, sysconf = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    root = pathlib.Path(os.environ.get("DESTDIR", "") + str(sysconf))
    for place, name in FILES.items():
        target = root / place
        if target.exists() or target.is_symlink():
            print(f"Keeping {target}")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
        target.chmod(0o644)
        print(f"Installing {target}")


main()
