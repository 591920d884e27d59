"""sendmail(1) as programs call it: what Debian's stores of a submission, ours stores, too."""
import os
import re
import shutil

import pytest

from instance import Instance, wait_for
from oracle import Oracle
from rewrite.message_corpus import parse
from rewrite.test_stored import normal

SETTINGS = """\
myhostname = host.example.com
mydomain = example.com
myorigin = example.com
mydestination = $myhostname, localhost, $mydomain
append_dot_mydomain = yes
recipient_delimiter = +
header_checks = static:HOLD
"""
TO = "To: b@x.example.org\n"
# name, arguments, message. The environment has no NAME; every message gets a field of its own by which it is found.
FORMS = [
    ("plain", ["a@x.example.org"], ""),
    ("several", ["a@x.example.org", "b", "c@host"], ""),
    ("list", ["a@x.example.org, b@x.example.org"], ""),
    ("display name", ["Some One <a@x.example.org>"], ""),
    ("comment", ["a@x.example.org (Some One)"], ""),
    ("same", ["a@x.example.org", "A@X.example.org", "a@x.example.org"], ""),
    ("extract to", ["-t"], "To: a, B <b@x.example.org>, c@host (C)\n"),
    ("extract cc bcc", ["-t"], "To: a@x.example.org\nCc: c@x.example.org\nBcc: b@x.example.org\n"),
    ("extract bcc alone", ["-t"], "Bcc: b@x.example.org\n"),
    ("extract group", ["-t"], "To: friends: a@x.example.org, b@x.example.org;, c@x.example.org\n"),
    ("extract and arguments", ["-t", "a@x.example.org"], TO),
    ("extract same as argument", ["-t", "b@x.example.org"], TO),
    ("extract resent", ["-t"], TO + "Resent-To: r@x.example.org\nResent-Cc: s@x.example.org\nResent-Bcc: t@x.example.org\n"),
    ("extract two fields", ["-t"], "To: a@x.example.org\nTo: b@x.example.org\n"),
    ("extract folded", ["-t"], "To: a@x.example.org,\n\tb@x.example.org,\n  c@x.example.org\n"),
    ("extract comments", ["-t"], "To: (first) a@x.example.org (second, third@x.example.org)\n"),
    ("extract quoted", ["-t"], "To: \"a b\"@x.example.org, \"B, C\" <c@x.example.org>\n"),
    ("extract not apparently-to", ["-t"], TO + "Apparently-To: a@x.example.org\n"),
    ("extract case", ["-t"], "TO: a@x.example.org\nbCC: b@x.example.org\n"),
    ("extract after the header", ["-t"], TO + "\nCc: c@x.example.org\n"),
    ("sender", ["-f", "me@y.example.org", "a@x.example.org"], ""),
    ("sender attached", ["-fme@y.example.org", "a@x.example.org"], ""),
    ("sender r", ["-r", "me@y.example.org", "a@x.example.org"], ""),
    ("sender name alone", ["-f", "me", "a@x.example.org"], ""),
    ("sender display", ["-f", "Me Too <me@y.example.org>", "a@x.example.org"], ""),
    ("sender empty", ["-f", "", "a@x.example.org"], ""),
    ("sender brackets", ["-f", "<>", "a@x.example.org"], ""),
    ("sender angle", ["-f", "<me@y.example.org>", "a@x.example.org"], ""),
    ("sender comment", ["-f", "me@y.example.org (Me)", "a@x.example.org"], ""),
    ("sender twice", ["-f", "one@y.example.org", "-f", "two@y.example.org", "a@x.example.org"], ""),
    ("sender and from", ["-f", "me@y.example.org", "a@x.example.org"], "From: Other <other@z.example.org>\n"),
    ("name", ["-F", "Full Name", "-f", "me@y.example.org", "a@x.example.org"], ""),
    ("name attached", ["-FFull Name", "-fme@y.example.org", "a@x.example.org"], ""),
    ("name with specials", ["-F", "F. \"N\" (x)", "-f", "me@y.example.org", "a@x.example.org"], ""),
    ("name and from", ["-F", "Full Name", "-f", "me@y.example.org", "a@x.example.org"], "From: me@y.example.org\n"),
    ("old options", ["-oi", "-oem", "-odb", "-om", "-i", "a@x.example.org"], ""),
    ("end of options", ["-f", "me@y.example.org", "--", "a@x.example.org"], ""),
    ("body types", ["-B", "8BITMIME", "a@x.example.org"], ""),
]


def collect(command, ids):
    """Each form handed in, then everything that is held, by name."""
    environment_name = os.environ.pop("NAME", None)
    codes = {}
    for name, args, message in FORMS:
        head = f"X-Form: {name}\n" + message
        done = command("sendmail", *args, input=head if "\n\n" in head else head + "\nbody\n", capture_output=True,
                       text=True)
        codes[name] = done.returncode
    if environment_name is not None:
        os.environ["NAME"] = environment_name
    wanted = sum(code == 0 for code in codes.values())
    held = wait_for(lambda: len(found := ids()) >= wanted and found, 60, f"{wanted} held messages")
    done = command("postcat", "-e", "-h", "-q", *held, capture_output=True, text=True)
    pieces = re.split(r"^\*\*\* ENVELOPE RECORDS \S*?(\w+) \*\*\*\n", done.stdout, flags=re.M)
    found = {name: ("refused", code) for name, code in codes.items() if code}
    for text in pieces[2::2]:
        sender, rcpts, header = parse(text)
        name = next(field.partition(": ")[2] for field in header if field.startswith("X-Form: "))
        fields = [normal(re.sub(r"(?i)^((resent-)?(message-id|date)):.*", r"\1:", field.replace("\n", "\\n")))
                  for field in header if not field.startswith("Received:")]
        found[name] = sender, rcpts, fields
    return found


@pytest.fixture(scope="module")
def ours():
    with Instance(main_cf=SETTINGS, name="forms") as i:
        yield collect(i.command, lambda: [e["queue_id"] for e in i.listing() if e["queue_name"] == "hold"])


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    if Oracle.why_not():
        pytest.skip(Oracle.why_not())
    commands = tmp_path_factory.mktemp("commands")
    commands.chmod(0o755)
    server = Oracle(main_cf=SETTINGS + f"command_directory = {commands}\n")
    # sendmail runs it with an environment of its own; a copy without the setgid bit looks at LD_LIBRARY_PATH
    shutil.copyfile(server.root / "usr/sbin/postdrop", commands / "copy")
    (commands / "postdrop").write_text(f"#!/bin/sh\nLD_LIBRARY_PATH={server.root}/usr/lib/postfix "
                                       f"exec {commands}/copy \"$@\"\n")
    for name in ("copy", "postdrop"):
        (commands / name).chmod(0o755)
    with server:
        yield collect(server.command, lambda: [path.name for path in (server.directory / "queue/hold").rglob("*")
                                               if path.is_file()])




@pytest.mark.parametrize("name", [name for name, _, _ in FORMS])
def test_same(ours, theirs, name):
    assert ours.get(name) == theirs.get(name)
    assert ours.get(name) is not None
