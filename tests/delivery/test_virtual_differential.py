"""virtual(8) beside Debian's: what is stored, byte for byte, with its owner and mode; and what the log says."""
import os
import pathlib
import re
import shutil
import tempfile

import pytest

from delivery_pair import PreparedOracle, connect, in_common, results
from instance import Instance, wait_for
from oracle import Oracle

pytestmark = pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))

UID, GID, OTHER = 10077, 10078, 10079
BODY = "Subject: x\r\n\r\nhello\r\nFrom me\r\n>From you\r\nFrom: no\r\n.dot\r\n\r\nFrom "
S = "S.x@There.example"


def file(path, text="From a  b\n\nx\n\n", uid=UID, mode=0o600):
    def prepare(top):
        at = top / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)
        at.chmod(mode)
        os.chown(at, uid, GID)
    return prepare


def folder(path, uid=UID, mode=0o700):
    def prepare(top):
        (top / path).mkdir(parents=True, exist_ok=True)
        os.chown(top / path, uid, GID)
        (top / path).chmod(mode)
    return prepare


def both(*steps):
    return lambda top: [step(top) for step in steps]


def link(path, to):
    return lambda top: os.symlink(to, top / path)


# name: address (None: NAME@v.example), entries of virtual_mailbox_maps, preparation, sender, body
CASES = {
    "mbox": (None, "mbox@v.example=mbox", None, S, BODY),
    "mboxold": (None, "mboxold@v.example=mboxold", file("mboxold"), S, BODY),
    "mboxwide": (None, "mboxwide@v.example=mboxwide", file("mboxwide", mode=0o666), S, BODY),
    "null": (None, "null@v.example=null", None, "", BODY),
    "quoted": (None, "quoted@v.example=quoted", None, '"a b"@There.example', BODY),
    "maildir": (None, "maildir@v.example=maildir/", None, S, BODY),
    "deep": (None, "deep@v.example=deep/er/box/", None, S, BODY),
    "deepmbox": (None, "deepmbox@v.example=deepmbox/none/box", None, S, BODY),
    "twoslash": (None, "twoslash@v.example=twoslash//", None, S, BODY),
    "upper": ("UPPER@V.Example", "upper@v.example=Upper", None, S, BODY),
    "ext": ("ext+Tag@v.example", "ext@v.example=ext", None, S, BODY),
    "extfull": ("extfull+tag@v.example", "extfull+tag@v.example=extfull.tag, extfull@v.example=wrong", None, S, BODY),
    "all": ("whoever@all.example", "@all.example=all/", None, S, BODY),
    "unknown": (None, "", None, S, BODY),
    "unknowncase": ("UnKnown@V.example", "", None, S, BODY),
    "unknownext": ("a+b@v.example", "", None, S, BODY),
    "loop": (None, "loop@v.example=loop", None, S, "Delivered-To: loop@v.example\r\n" + BODY),
    "loopcase": (None, "loopcase@v.example=loopcase/", None, S, "Delivered-To: LoopCase@V.example\r\n" + BODY),
    "noloop": (None, "noloop@v.example=noloop", None, S, "Delivered-To: other@v.example\r\n" + BODY),
    "isdir": (None, "isdir@v.example=isdir", folder("isdir"), S, BODY),
    "isfile": (None, "isfile@v.example=isfile/", file("isfile"), S, BODY),
    "notmine": (None, "notmine@v.example=notmine", file("notmine", uid=OTHER, mode=0o666), S, BODY),
    "full": (None, "full@v.example=full", file("full", text="From a\n" + "x" * 9000 + "\n\n"), S, BODY),
    "locked": (None, "locked@v.example=locked", file("locked.lock", text=""), S, BODY),
    "closed": (None, "closed@v.example=closed/box/", folder("closed", uid=0), S, BODY),
    "closedmbox": (None, "closedmbox@v.example=closedmbox/box", folder("closedmbox", uid=0), S, BODY),
    "hardlink": (None, "hardlink@v.example=hardlink",
                 both(file("hardlink"), lambda top: os.link(top / "hardlink", top / "hardlink2")), S, BODY),
    "lowuid": (None, "lowuid@v.example=lowuid", None, S, BODY),
    "noneuid": (None, "noneuid@v.example=noneuid", None, S, BODY),
    "worduid": (None, "worduid@v.example=worduid", None, S, BODY),
    "nonegid": (None, "nonegid@v.example=nonegid", None, S, BODY),
    "wordgid": (None, "wordgid@v.example=wordgid", None, S, BODY),
    "empty": (None, "empty@v.example=empty/", None, S, "Subject: x\r\n\r\n"),
    "dot": (None, "dot@v.example=./dot/", None, S, BODY),
}
WITHOUT_UID = ("noneuid",)


def main_cf(top):
    boxes = ", ".join(f"{{{entry}}}" for _, entries, _, _, _ in CASES.values() for entry in entries.split(", ") if entry)
    names = [f"{(address or name + '@v.example').lower()}" for name, (address, *_) in CASES.items()]
    strange = {"lowuid@v.example": 50, "worduid@v.example": "vmail"}
    uids = ", ".join(f"{{{a}={strange.get(a, UID)}}}" for a in names if a.split("@")[0] not in WITHOUT_UID)
    gids = ", ".join(f"{{{a}={'mail' if a.startswith('wordgid') else GID}}}" for a in names if not a.startswith("nonegid"))
    return f"""\
recipient_delimiter = +
smtpd_reject_unlisted_recipient = no
virtual_mailbox_domains = v.example, all.example
virtual_mailbox_base = {top}
virtual_mailbox_maps = inline:{{ {boxes} }}
virtual_uid_maps = inline:{{ {uids} }}
virtual_gid_maps = inline:{{ {gids} }}
virtual_mailbox_limit = 9000
message_size_limit = 8000
mailbox_size_limit = 0
deliver_lock_attempts = 1
deliver_lock_delay = 1s
"""


def stored(top, server):
    """{path: (uid, gid, mode, content)}; a Maildir file is called NAME."""
    found = {}
    for path in sorted(top.rglob("*")):
        name = re.sub(r"\d+\.V\w+I\w+M\d+\.\S+$", "NAME", str(path.relative_to(top)))
        st = path.lstat()
        text = in_common(path.read_text(errors="replace"), server) if path.is_file() else None
        found[name] = (st.st_uid, st.st_gid, oct(st.st_mode), text)
    return found


def test_same_deliveries():
    seen = []
    for kind in (Instance, PreparedOracle):
        top = pathlib.Path(tempfile.mkdtemp(prefix="virtual-"))
        top.chmod(0o1777)
        for _, _, prepare, _, _ in CASES.values():
            if prepare:
                prepare(top)
        try:
            with kind(main_cf=main_cf(top)) as server:
                try:
                    for name, (address, _, _, sender, body) in CASES.items():
                        with connect(server) as c:
                            c.sendmail(sender, [address or f"{name}@v.example"], body)
                    wait_for(lambda: len(re.findall("virtual.*status=", server.log())) >= len(CASES), 20)
                    lines = {to: {(*line[:5], re.sub(r"tmp/[^:]*", "tmp/NAME", line[5].replace(str(top), "TOP"))) for line in what}
                             for to, what in results(server.log()).items() if "ere.example" not in to}
                    seen.append((lines, stored(top, server)))
                finally:
                    print(server.log())
        finally:
            shutil.rmtree(top)
    (my_lines, my_files), (other_lines, other_files) = seen
    differ = [(key, my_lines.get(key), other_lines.get(key)) for key in sorted({*my_lines, *other_lines})
              if my_lines.get(key) != other_lines.get(key)]
    differ += [(key, my_files.get(key), other_files.get(key)) for key in sorted({*my_files, *other_files})
               if my_files.get(key) != other_files.get(key)]
    assert not differ, "\n".join(map(repr, differ))
