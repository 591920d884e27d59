"""postcat: what it says of our queue files has the shape of what Debian's says of its own."""
import os
import re
import shutil
import subprocess

import pytest

from oracle import Oracle
from tools import USER, System

NO_ORACLE = Oracle.why_not()
SYSTEMS = ["ours", pytest.param("oracle", marks=pytest.mark.skipif(bool(NO_ORACLE), reason=str(NO_ORACLE)))]
TEXT = "Subject: test\r\nX-Folded: a\r\n b\r\n\r\nhello\r\n: not a field\r\nlast\r\n"


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request):
    with System(request.param) as s:
        s.send(["a@dead.example", "b@dead.example"], text=TEXT)
        s.deferred(1)
        yield s


@pytest.fixture(scope="module")
def ours():
    with System("ours") as s:
        s.send(["a@dead.example", "b@dead.example"], text=TEXT)
        s.deferred(1)
        yield s


def cat(system, *args, **kwargs):
    done = system.command("postcat", *args, **kwargs)
    return done.returncode, system.plain(done.stdout), done.stderr.replace(str(system.mail.directory), "DIR").replace(
        str(getattr(system.mail, "root", "")) + "/usr/sbin/", "")


def queue_id(system):
    return next(iter(system.names))


HEADER = [r"Received: from .*", r"\tby .*", r"\t.*", r"Subject: test", r"X-Folded: a", r" b", r"Message-Id: <.*>", r"Date: .*", r"From: .*"]
BODY = ["", "hello", ": not a field", "last"]


def test_parts(system):
    """-h to the first line that is no header, -b from it, -bh both and nothing else, -e only the envelope."""
    code, header, errors = cat(system, "-qh", queue_id(system))
    assert (code, errors) == (0, "")
    assert re.fullmatch("".join(line + r"\n" for line in HEADER), header), header
    code, body, errors = cat(system, "-qb", queue_id(system))
    assert (code, body, errors) == (0, "\n".join(BODY) + "\n", "")
    assert cat(system, "-qbh", queue_id(system))[1] == header + body
    envelope = cat(system, "-qe", queue_id(system))[1].splitlines()
    path = re.search(r"RECORDS (.*) \*\*\*", envelope[0]).group(1)
    assert re.fullmatch(r"deferred/\w/A", path)
    assert envelope[0] == f"*** ENVELOPE RECORDS {path} ***"
    assert envelope[-3:] == [f"*** {what} {path} ***" for what in ("MESSAGE CONTENTS", "HEADER EXTRACTED", "MESSAGE FILE END")]
    whole = cat(system, "-q", queue_id(system))[1]
    assert whole == "\n".join(envelope[:-2]) + "\n" + header + body + "\n".join(envelope[-2:]) + "\n"


def test_envelope(system):
    """The same names, numbers, order and form for what both know."""
    lines = cat(system, "-qed", queue_id(system))[1].splitlines()
    known = [line for line in lines if not re.search("create_time|log_|server_|client_address_type|dsn_orig|log_ident", line)]
    size = r" {11,15}\d+" * 6
    want = [r"\*\*\* ENVELOPE RECORDS .*", r" 67 message_size:" + size, r" 84 message_arrival_time: \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}",
            r" 65 named_attribute: rewrite_context=local", r" 83 sender: sender@there.example",
            r" 65 named_attribute: client_name=localhost", r" 65 named_attribute: reverse_client_name=localhost",
            r" 65 named_attribute: client_address=127.0.0.1", r" 65 named_attribute: client_port=\d+",
            r" 65 named_attribute: helo_name=client.example", r" 65 named_attribute: protocol_name=ESMTP",
            r" 79 original_recipient: a@dead.example", r" 82 recipient: a@dead.example",
            r" 79 original_recipient: b@dead.example", r" 82 recipient: b@dead.example",
            r" 77 \*\*\* MESSAGE CONTENTS .*", r" 88 \*\*\* HEADER EXTRACTED .*", r" 69 \*\*\* MESSAGE FILE END .*"]
    assert len(known) == len(want), known
    for line, pattern in zip(known, want):
        assert re.fullmatch(pattern, line), (line, pattern)
    sizes = lines[1].split()[2:]
    [entry] = system.listing()
    assert int(sizes[0]) == entry["message_size"] and int(sizes[2]) == 2


def test_offsets_and_verbose(system):
    lines = cat(system, "-qbo", queue_id(system))[1].splitlines()
    assert all(re.fullmatch(r" {4,8}\d+ .*", line) for line in lines)
    assert [line[10:] for line in lines] == BODY
    offsets = [int(line[:9]) for line in lines]
    assert offsets == sorted(set(offsets))
    both = cat(system, "-qbod", queue_id(system))[1].splitlines()
    assert both[1] == f"{offsets[1]:9d}  78 hello"
    assert cat(system, "-qbv", queue_id(system))[1] == "".join(f"regular_text: {line}\n" for line in BODY)


ERRORS = [
    (["-q", "NOSUCH"], 1, "postcat: fatal: open queue file NOSUCH: No such file or directory\n"),
    (["-q", "../x"], 1, "postcat: fatal: bad mail queue ID: ../x\n"),
    (["-q", ""], 1, "postcat: fatal: bad mail queue ID: \n"),
    (["-q", "A" * 300], 1, "postcat: fatal: bad mail queue ID: " + "A" * 300 + "\n"),
    (["/etc/passwd"], 0, "postcat: warning: /etc/passwd: input is not a valid queue file\n"),
    (["/nonexistent"], 1, "postcat: fatal: open /nonexistent: No such file or directory\n"),
    (["-q"], 0, ""),
]


@pytest.mark.parametrize("args, code, errors", ERRORS)
def test_errors(system, args, code, errors):
    assert cat(system, *args) == (code, "", errors)


def test_input(system):
    assert cat(system, input="garbage\n") == (0, "", "postcat: warning: stdin: input is not a valid queue file\n")
    assert cat(system, input="") == (0, "", "")
    code, _, errors = cat(system, "-n")
    assert code == 1 and errors.startswith("postcat: invalid option -- 'n'\npostcat: fatal: usage: ")


# --- ours ---

def path_of(system):
    [path] = [p for p in (system.queue / "deferred").rglob("*") if p.is_file()]
    return path


def test_by_path_and_from_a_pipe(ours):
    path = path_of(ours)
    by_id = cat(ours, "-qo", queue_id(ours))[1]
    by_path = ours.plain(ours.command("postcat", "-o", str(path)).stdout)
    assert by_path == by_id.replace("deferred/", str(ours.queue) + "/deferred/")
    piped = subprocess.run([str(ours.mail.bin / "postcat")], stdin=open(path, "rb"), capture_output=True, text=True,
                           timeout=60)
    assert piped.stdout.startswith("*** ENVELOPE RECORDS stdin ***\n") and "recipient: a@dead.example" in piped.stdout
    # each offset is where the text is
    raw = path.read_bytes()
    for line in by_id.splitlines():
        if m := re.fullmatch(r" *(\d+) (?:recipient|sender): (.*)", line):
            at = int(m.group(1)) + 4
            assert raw[at:at + len(m.group(2))] == m.group(2).encode()
        if m := re.fullmatch(r" *(\d+) (hello|last)", line):
            assert raw[int(m.group(1)):].startswith(m.group(2).encode() + b"\n")


def test_prefix_skip_and_order(ours):
    body = cat(ours, "-qbf", queue_id(ours))[1].splitlines()
    assert all(line.startswith("deferred/") and re.match(r"deferred/\w/A: ", line) for line in body)
    offsets = cat(ours, "-qbo", queue_id(ours))[1].splitlines()
    assert cat(ours, "-qb", "-s", offsets[2].split()[0], queue_id(ours))[1] == ": not a field\nlast\n"
    lines = cat(ours, "-qr", queue_id(ours))[1].splitlines()
    assert lines[1].startswith("*** MESSAGE CONTENTS") and lines[-2].startswith("recipient: ")


def test_damage(ours, tmp_path):
    """QU-09: whatever is wrong is said, and it ends."""
    raw = path_of(ours).read_bytes()

    def said(content):
        path = tmp_path / "file"
        path.write_bytes(content)
        done = subprocess.run([str(ours.mail.bin / "postcat"), str(path)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        return done.stderr.replace(str(path), "F"), done.stdout
    assert said(b"\0" * 5000)[0] == "postcat: warning: F: unfinished: its writer has not come to the end, or has died\n"
    assert said(b"\0" * 64 + raw[64:])[0].startswith("postcat: warning: F: unfinished")
    assert said(raw[:len(raw) // 2])[0] == "postcat: warning: F: damaged head, or cut\n"
    assert said(raw[:-1])[0] == ""  # of why its recipients wait, which is not shown
    assert said(raw[:20])[0] == "postcat: warning: F: cut: shorter than its head\n"
    assert said(raw[:8] + b"\x09" + raw[9:])[0].startswith("postcat: warning: F: queue file version 9, this program knows ")
    assert said(raw[:10] + b"\x09" + raw[11:])[0].startswith("postcat: warning: F: queue file version")
    at = raw.index(b"hello")
    error, text = said(raw[:at] + b"H" + raw[at + 1:])
    assert error == "postcat: warning: F: damaged content: wrong check sum\n" and "Hello" in text
    at = raw.index(b"a@dead.example")
    assert said(raw[:at] + b"X" + raw[at + 1:])[0] == "postcat: warning: F: damaged envelope\n"


def test_a_submission(ours):
    ours.mail.postfix("stop")
    try:
        assert ours.mail.sendmail("-f", f"{USER}@mail.example", "-F", "Full Name", "x@dead.example").returncode == 0
        [path] = (ours.queue / "maildrop").iterdir()
        text = cat(ours, "-q", path.name)[1]
        assert text.startswith(f"*** ENVELOPE RECORDS maildrop/{path.name} ***\n")
        for line in (f"sender: {USER}@mail.example", "sender_fullname: Full Name", "recipient: x@dead.example", "Subject: test", "hello"):
            assert f"\n{line}\n" in text
        raw = path.read_bytes()
        for line in cat(ours, "-qo", path.name)[1].splitlines():
            if m := re.fullmatch(r" *(\d+) (hello|Subject: test)", line):
                assert raw[int(m.group(1)):].startswith(m.group(2).encode() + b"\n")
        shutil.copy2(path, ours.queue / "corrupt" / path.name)
        path.unlink()
        assert f"RECORDS corrupt/{path.name} " in cat(ours, "-q", path.name)[1]
        (ours.queue / "corrupt" / path.name).unlink()
    finally:
        ours.mail.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_not_for_others(ours):
    done = subprocess.run([str(ours.mail.bin / "postcat"), "-q", queue_id(ours)], user="daemon", group="daemon",
                          extra_groups=[], env=ours.mail.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Permission denied" in done.stderr


def test_wherever_it_is():
    """Just come, being delivered, or deferred: it is found by its id."""
    with System("ours", "defer_transports = smtp\n") as s:
        s.send("a@dead.example", text=TEXT)
        [entry] = s.listing()
        text = s.command("postcat", "-qbh", entry["queue_id"]).stdout
        assert text.endswith("\n" + "\n".join(BODY) + "\n")
