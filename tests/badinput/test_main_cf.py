"""main.cf as nobody should write it: each command ends soon, in bounded memory, with a sentence that names the file, the
line where there is one, and what to do; never by a signal."""
import os
import pathlib
import random
import re
import resource
import subprocess
import threading

import pytest

from instance import ROOT, SANITIZED, build_directory

MEMORY = 1 << 30  # bytes of address space, for all of it; a sanitizer's build needs more than there is
SECONDS = 120     # a bound for hangs


@pytest.fixture
def etc(tmp_path):
    (tmp_path / "master.cf").write_text((ROOT / "packaging/master.cf").read_text())
    return tmp_path


def limits():
    if not SANITIZED:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def run(etc, *arguments, user=None):
    done = subprocess.run([build_directory() / "sbin/postconf", "-c", etc, *arguments], capture_output=True, timeout=SECONDS,
                          preexec_fn=limits, env={**os.environ, "MAIL_CONFIG": ""}, user=user)
    assert done.returncode in (0, 1), (done.returncode, done.stderr[-2000:])
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def said(errors):
    return errors.replace(f"{build_directory()}/sbin/postconf: ", "").splitlines()


def doubling(end):
    """40 settings, each twice the next: a million million pieces if nobody counted."""
    return b"".join(b"a%d = $a%d$a%d\n" % (i, i + 1, i + 1) for i in range(40)) + b"a40 = " + end


# main.cf: exit status of postconf -n, the end of what it says ({file}: its name; None: nothing in particular)
FILES = {
    "a line of 100 MB": (b"myorigin = " + b"a" * 100_000_000, 1, "fatal: {file}: larger than 16777216 bytes"),
    "a million settings": (b"".join(b"foo%d = bar\n" % i for i in range(1_000_000)), 1,
                           "fatal: {file}, line 20001: more than 20000 settings"),
    "one setting a million times": (b"myorigin = a\n" * 1_000_000, 1,
                                    "fatal: {file}, line 20001: more than 20000 settings"),
    "a million comments": (b"# a\n" * 1_000_000, 0, ""),
    "a million continuation lines": (
        b"# x\nmyorigin = a\n" + b" b\n" * 1_000_000, 1,
        "fatal: {file}, line 2: longer than 1048576 bytes with its continuation lines"),
    "20000 unknown names": (b"".join(b"smtpd_%d_restrictions = bar\n" % i for i in range(19_000)), 0,
                            "warning: {file}: unused parameter: smtpd_9_restrictions=bar"),
    "a NUL byte": (b"myorigin = a\n\nmydomain = \0b\n", 1, "fatal: {file}, line 3: NUL byte: this is not a text file"),
    "no setting": (b"myorigin = a\n" + b"x\x1b[31m" * 100_000 + b"\n", 1,
                   "fatal: {file}, line 2: missing '=' after attribute name: \"" + "x?[31m" * 33 + "x?...\""),
    "two that refer to each other": (b"a = $b\nb = $a\nmyorigin = $a\n", 1, "fatal: macro processing error"),
    "three that refer to each other": (b"mydomain = $b\nb = ${c?{$c}}\nc = $mydomain\n", 1,
                                       "fatal: macro processing error"),
    "doubling": (doubling(b"x\nmyorigin = $a0\n"), 1, "fatal: macro processing error"),
    "doubling of nothing": (doubling(b"\nmyorigin = $a0\n"), 1, "fatal: macro processing error"),
    "a long value": (b"a = " + b"x" * 1000 + b"\nb = " + b"$a" * 1000 + b"\nmyorigin = " + b"$b" * 1000 + b"\n", 1,
                     "fatal: macro processing error"),
    "conditionals in each other": (b"a = x\nmyorigin = " + b"${a?{" * 100_000 + b"}}" * 100_000 + b"\n", 1,
                                   "fatal: macro processing error"),
    "90 conditionals in each other": (b"a = x\nmyorigin = " + b"${a?{" * 90 + b"}}" * 90 + b"\n", 0, ""),
    "comparisons in each other": (b"myorigin = " + b"${{" * 100_000 + b"} == {a}}" * 50_000 + b"\n", 1,
                                  "fatal: macro processing error"),
    "braces that never close": (b"myorigin = " + b"${" * 500_000 + b"\n", 1, "fatal: macro processing error"),
    "dollars": (b"myorigin = " + b"$" * 1_000_000 + b"\n", 0, ""),
    "many tables": (b"relay_domains = " + b" ".join(b"mysql:a%d" % i for i in range(20_000)) + b"\n"
                    + b"".join(b"a%d_foo = bar\n" % i for i in range(1000)), 0, None),
}


@pytest.mark.parametrize("name", FILES)
def test_main_cf(etc, name):
    content, wanted, last = FILES[name]
    path = etc / "main.cf"
    path.write_bytes(content)
    status, _, errors = run(etc, "-n")
    lines = said(errors)
    assert status == wanted, lines[-1:]
    if last:
        assert lines[-1] == last.format(file=path)
    elif last == "":
        assert lines == []
    assert max(map(len, lines), default=0) < 1000, "a message is for reading"
    if last == "fatal: macro processing error":
        assert re.search(rf"^warning: .* \({path}, line \d+\)$", lines[-2])


def test_random_bytes(etc):
    """Any bytes at all; also such that begin like settings, so that values are looked at."""
    random.seed(1)
    path = etc / "main.cf"
    names = [line.split("\t")[0].encode() for line in (ROOT / "tests/conf/defaults.tsv").read_text().splitlines()
             if "\tbuiltin\t" in line]
    for i in range(60):
        data = random.randbytes(3000)
        if i % 3:
            data = b"".join(b"%s = %s\n" % (random.choice(names),
                                            bytes(random.choices(b"${}?:=<>!  \t\nab,1{}$$#\xff\x1b", k=20)))
                            for _ in range(30))
        path.write_bytes(data)
        for arguments in (["-n"], ["-x", "-n"]):
            status, _, errors = run(etc, *arguments)
            assert status == 0 or said(errors)[-1].startswith("fatal: ")
            if i % 3 == 0:  # a name without a value, or a NUL
                assert said(errors)[-1].startswith(f"fatal: {path}, line ")


def make_nothing(path):
    pass


def make_loop(path):
    path.symlink_to(path)


KINDS = {
    "missing": (make_nothing, "No such file or directory"),
    "a directory": (pathlib.Path.mkdir, "Is a directory"),
    "a FIFO that nobody writes to": (os.mkfifo, "not a regular file"),
    "a link to itself": (make_loop, "Too many levels of symbolic links"),
}


@pytest.mark.parametrize("file", ["main.cf", "master.cf"])
@pytest.mark.parametrize("kind", KINDS)
def test_not_a_file(etc, file, kind):
    make, why = KINDS[kind]
    (etc / "main.cf").write_text("myorigin = a\n")
    (etc / file).unlink()
    make(etc / file)
    status, _, errors = run(etc, "-n")
    if file == "main.cf":
        assert status == 1
        assert said(errors)[-1] == f"fatal: open {etc}/main.cf: {why}"
    else:
        assert f"open {etc}/master.cf: {why}" in said(errors)[-1]


def test_not_readable(etc, tmp_path):
    (etc / "main.cf").write_text("myorigin = a\n")
    (etc / "main.cf").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and os.geteuid() == 0 and folder != pathlib.Path("/tmp") and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    status, _, errors = run(etc, "-n", user="nobody" if os.geteuid() == 0 else None)
    assert status == 1
    assert said(errors) == [f"fatal: open {etc}/main.cf: Permission denied"]


def test_empty_device(etc):
    (etc / "main.cf").symlink_to("/dev/null")
    assert run(etc, "-h", "myorigin")[:2] == (0, b"$myhostname\n")


def test_endless_device(etc):
    (etc / "main.cf").symlink_to("/dev/zero")
    status, _, errors = run(etc, "-n")
    assert (status, said(errors)) == (1, [f"fatal: {etc}/main.cf: larger than 16777216 bytes"])


def test_written_while_read(etc):
    """What is read is the file as it was at one moment, or an error says that it was not to be had."""
    path = etc / "main.cf"
    line = b"foo = a\n"
    stop = threading.Event()

    def write():
        while not stop.is_set():
            with open(path, "wb", buffering=0) as f:
                for _ in range(50):
                    f.write(b"# " + b"x" * 20_000 + b"\n")
                f.write(line)

    path.write_bytes(line)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            status, _, errors = run(etc, "-h", "myorigin")
            if status:
                assert said(errors) == [f"fatal: {path}: somebody keeps writing to it while it is read; try again"]
    finally:
        stop.set()
        writer.join()


MASTER = {
    "a line of 20 MB": (b"smtp inet n - n - - " + b"a" * 20_000_000, "{file}: larger than 16777216 bytes"),
    "random bytes": (bytes(range(1, 256)) * 10, "({file}, line 1)"),
    "too many options": (b"smtp inet n - n - - smtpd\n" + b" -o a=b\n" * 200_000,
                         "longer than 1048576 bytes with its continuation lines"),
    "braces that never close": (b"smtp inet n - n - - smtpd -o " + b"{" * 100_000 + b"\n", "missing '}}' in "),
    "a long word": (b"smtp inet n - n - " + b"9" * 100_000 + b" smtpd\n", 'invalid process_limit field "999'),
    "NUL": (b"smtp inet n - n - - smtpd\n\0\n", "{file}, line 2: NUL byte: this is not a text file"),
}


@pytest.mark.parametrize("name", MASTER)
def test_master_cf(etc, name):
    content, wanted = MASTER[name]
    (etc / "main.cf").write_text("")
    (etc / "master.cf").write_bytes(content)
    _, _, errors = run(etc, "-n")
    lines = said(errors)
    assert any(wanted.format(file=etc / "master.cf") in line for line in lines), lines
    assert max(map(len, lines)) < 1000
