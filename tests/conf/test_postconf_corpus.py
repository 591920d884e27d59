"""postconf against Debian's Postfix 3.7: small configurations (corpus/) times command lines, shown and edited; standard
output, standard error, exit status and the files afterwards are the same, but for what KNOWN lists.
"""
import os
import pathlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from instance import build_directory

ORACLE = pathlib.Path(os.environ.get("ANGARIUM_ORACLE", "/nonexistent"))
CORPUS = pathlib.Path(__file__).parent / "corpus"
NAMES = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())

SHOW = [
    ["-n"], ["-nf"], ["-nx"], ["-nh"], ["-nH"], ["-C", "user"], ["-n", "-C", "builtin"], ["-n", "-C", "service,user"],
    ["myhostname", "mydestination", "relayhost"], ["-x", "mydestination"], ["-o", "myhostname=o.example", "-x", "-n"],
    ["-M"], ["-Mf"], ["-Mx"], ["-M", "smtp"], ["-M", "*/unix", "nosuch"], ["-M", "smtp/inet", "smtp/inet"],
    ["-F"], ["-Ff"], ["-Fx"], ["-FH"], ["-Fh", "smtp/inet"], ["-F", "*/*/chroot"], ["-F", "smtp/unix"],
    ["-P"], ["-Pf"], ["-Px"], ["-PH"], ["-Ph"], ["-P", "smtp/inet/relayhost"], ["-P", "*/inet/myorigin", "relay"],
    ["-Px", "-o", "myhostname=o.example"],
]
EDIT = [
    ["-e", "myhostname=new.example"], ["relayhost="], ["-e", "brand_new = x  y"], ["myorigin = $a # b"],
    ["-X", "mydestination"], ["-X", "myhostname", "mynetworks"], ["-X", "nosuch"], ["-#", "mydestination"],
    ["-#", "myhostname", "relayhost"],
    ["-M", "smtp/inet=smtp inet n - n - 5 smtpd -o a=b -o { c = d e }"], ["-M", "new/unix=new unix - n n - - pipe a=b"],
    ["-M", "-e", "*/unix=all unix - - n - - smtp"], ["-M", "relay/unix=smtp inet n - - - - smtpd"],
    ["-MX", "smtp/inet"], ["-MX", "*/unix"], ["-MX", "nosuch/inet"], ["-M#", "smtp/inet"], ["-M#", "*/*"],
    ["-F", "smtp/inet/chroot=n"], ["-F", "*/*/process_limit=7"], ["-F", "relay/unix/command=smtp -v -o {a = b c} x"],
    ["-F", "nosuch/unix/chroot=y"], ["-F", "smtp/inet/service=2525", "smtp/inet/wakeup=-"],
    ["-P", "smtp/inet/brand_new=1"], ["-P", "*/*/relayhost=r", "relay/unix/a="], ["-P", "nosuch/inet/a=b"],
    ["-PX", "*/*/relayhost"], ["-PX", "smtp/inet/a", "smtp/inet/b"],
]
WRONG = [
    ["-e", "a"], ["-e"], ["-X"], ["-X", "a=b"], ["-X", "a", "b=c"], ["-X", " "], ["-e", "a=1\nb=2"], ["-e", "#a=b"],
    ["-e", "=b"], ["-e", "a b=c"], ["-#", "#x"],
    ["-M", "a/b/c"], ["-M", "sm*"], ["-M", ""], ["-M", "/inet"], ["-F", "a/b/nosuch"], ["-F", "a/b/c/d"], ["-P", "a/b/c/d"],
    ["-P", "a/b/c*"], ["-C", "nosuch"], ["-C", "all,x"], ["-o", "a", "-n"], ["-T", "nosuch"],
    ["-M", "-e", "smtp/inet=smtp inet"], ["-M", "-e", "smtp=smtp inet - - - - - smtpd"], ["-M", "-e", "smtp/inet"],
    ["-M", "-e", "a/unix=a unix q - - - - b"], ["-M", "-e", "a/tcp=a tcp - - - - - b"], ["-M", "-e", "a/unix=b\nc"],
    ["-M", "-e", "#a/unix=b"], ["-M", "-e", "a/unix=a unix - - - - -3 b"], ["-M", "-e", "a/unix=a unix - - - 1x - b"],
    ["-MX", "smtp"], ["-MX", "smtp/inet/chroot"], ["-MX", "a/unix", "b/unix=c"], ["-M#", "smtp"],
    ["-F", "-e", "smtp/inet=a"], ["-F", "-e", "smtp/inet/zork=a"], ["-F", "-e", "smtp/inet/*=y"],
    ["-F", "-e", "smtp/inet/chroot=q"], ["-F", "-e", "smtp/inet/service=a b"], ["-F", "-e", "smtp/inet/type="],
    ["-P", "-e", "smtp/inet=a"], ["-P", "-e", "smtp/inet/a=b c"], ["-P", "-e", "smtp/inet/*=b"], ["-PX", "smtp/inet"],
    ["-PX", "smtp/inet/*"], ["-PX", "smtp/inet/a=b"],
]
OPTIONS = "aAbdefhHlmMnpPFtxX#"

# What differs from 3.7, and why. (configuration, command) -> reason; None: any. Each is looked at by a test of its own.
KNOWN = {
    ("CF-05", None): "3.7 glues a new setting to a last line without newline; fixed in 3.11",
    ("place", "-F -P edits"): "3.7 writes a changed entry behind the comments that follow it; here it stays in its place",
    ("untouched", "-PX"): "3.7 writes an entry anew also when nothing was removed from it",
    ("blank", "-Fh"): "3.7 leaves out the blank behind a program's name of four letters",
    ("braces", None): "3.7 loses the braces around an argument with blanks",
    ("wording", "stderr"): "3.7 cuts the lines of files it shows, and has odd quotes; deprecated parameters and comments "
                           "behind values are warned of since 3.9; the nearest name is ours",
    ("order", "-e"): "3.7 adds several new names in the order of a hash, seeded at random; here in that of the command line",
    ("twice in the file", "-P"): "3.7 prints the settings of one of two equal services for both",
    ("raw", "-x"): "3.7 expands $names also in -o settings of parameters whose $names belong to their reader; fixed in 3.11",
    ("glued", "-oname=value"): "3.7 loses the first letters of a name without a blank in front",
    ("mail_name", None): "another product",
    ("empty field", "-F"): "3.7 takes an empty field and writes a broken entry, or crashes (command)",
    ("twice", "-M -F -P -X"): "3.7 crashes or says nothing when a name is there twice; since 3.9 the earlier one is ignored "
                              "with a warning",
}


def run(program, directory, arguments, environment):
    done = subprocess.run([program, "-c", directory, *arguments], env=environment, timeout=60, capture_output=True)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


class Pair:
    """Both programs, each with a copy of the same files, in directories whose names have one length."""

    def __init__(self, tmp_path):
        self.root = tmp_path
        self.directories = [tmp_path / "ours", tmp_path / "them"]
        for directory in self.directories:
            directory.mkdir(parents=True)
        self.programs = [str(build_directory() / "sbin/postconf"), str(ORACLE / "usr/sbin/postconf")]
        self.environments = [{**os.environ, "MAIL_CONFIG": ""}, {"LD_LIBRARY_PATH": str(ORACLE / "usr/lib/postfix")}]

    def write(self, main_cf, master_cf, newline=False):
        for number, directory in enumerate(self.directories):
            for name, content in (("main.cf", main_cf), ("master.cf", master_cf)):
                if newline and number == 1 and content and not content.endswith(b"\n"):
                    content += b"\n"  # KNOWN: CF-05
                (directory / name).write_bytes(content)

    def __call__(self, arguments):
        results = []
        for directory, program, environment in zip(self.directories, self.programs, self.environments):
            status, out, errors = run(program, directory, arguments, environment)
            out = re.sub(r"\bESMTP (Postfix|Angarium)", "ESMTP MAIL_NAME", out)
            name = str(directory)
            results.append((status, out.replace(name, "DIR"), lines_of(errors.replace(name, "DIR"), program)))
        return results

    def each(self, commands, main_cf, master_cf, newline=False):
        """(command, pair, what both did) of each command on files of its own. Several at a time: each of 3.7's failures
        waits a second before it ends."""
        def one(number):
            pair = Pair(self.root / str(number))
            pair.write(main_cf, master_cf, newline)
            return commands[number], pair, pair(commands[number])
        with ThreadPoolExecutor(16) as several:
            return list(several.map(one, range(len(commands))))

    def files(self, name):
        return [(directory / name).read_bytes() for directory in self.directories]

    def shown(self, name):
        """master.cf as our program reads it, from both directories, and the lines that are no entries."""
        services = [run(self.programs[0], directory, ["-M"], self.environments[0])[1] for directory in self.directories]
        other = [[line for line in (directory / name).read_text(errors="replace").splitlines()
                  if not line.strip() or line.lstrip().startswith("#")] for directory in self.directories]
        return services, other


def lines_of(errors, program):
    """Standard error in no particular order, without the program's name and what KNOWN says of wording."""
    lines = set()
    for line in errors.splitlines():
        line = line.replace(f"{program}: ", "")
        if " removed; instead, " in line or ": #comment after other text is not allowed: " in line:
            continue
        line = re.sub(r"(must not start with whitespace: ).*", r"\1", line)
        line = re.sub(r" \(did you mean .*\?\)$|(?<=[^;]); instead, .*", "", line)
        line = re.sub(r" \([^()]*(?:main|master)\.cf, line \d+\)$", "", line)  # ours says where
        line = re.sub(r"( at: | macro call nesting: ).*", r"\1", line)
        line = re.sub(r", line \d+: overriding earlier entry: .*", ": overriding", line)
        lines.add(re.sub(r"\s+\"$", '"', line))
    return lines


@pytest.fixture
def pair(tmp_path):
    if not (ORACLE / "usr/sbin/postconf").exists():
        pytest.skip("ANGARIUM_ORACLE does not name the root of an unpacked Debian postfix package")
    return Pair(tmp_path)


def corpus(name):
    return [(CORPUS / name / file).read_bytes() for file in ("main.cf", "master.cf")]


@pytest.mark.parametrize("name", NAMES)
def test_shown(pair, name):
    for arguments, _, (ours, theirs) in pair.each(SHOW, *corpus(name)):
        if name == "duplicates" and arguments[0].startswith("-P"):  # KNOWN: twice in the file
            continue
        assert ours == theirs, arguments


@pytest.mark.parametrize("name", NAMES)
def test_edited(pair, name):
    for arguments, one, (ours, theirs) in pair.each(EDIT, *corpus(name), newline=True):
        assert ours == theirs, arguments
        files = one.files("main.cf")
        assert files[0].rstrip(b"\n") == files[1].rstrip(b"\n"), arguments
        files = one.files("master.cf")
        if arguments[0] in ("-F", "-P", "-PX"):  # KNOWN: place, untouched
            services, other = one.shown("master.cf")
            assert services[0] == services[1] and other[0] == other[1], arguments
        else:
            assert files[0].rstrip(b"\n") == files[1].rstrip(b"\n"), arguments
        assert sorted(os.listdir(one.directories[0])) == ["main.cf", "master.cf"]


def test_refused(pair):
    files = b"a = b\n", b"smtp inet n - n - - smtpd\n"
    for arguments, one, (ours, theirs) in pair.each(WRONG, *files):
        assert ours == theirs, arguments
        assert ours[0] == 1 and len(ours[2]) == 1, arguments
        assert (one.files("main.cf")[0], one.files("master.cf")[0]) == files
        assert sorted(os.listdir(one.directories[0])) == ["main.cf", "master.cf"]


def test_conflicts(pair):
    """Each pair of options is refused, or not, as in Postfix."""
    pairs = [[f"-{first}{second}"] for i, first in enumerate(OPTIONS) for second in OPTIONS[i + 1:]]
    refused = 0
    for arguments, _, results in pair.each(pairs, b"", b""):
        ours, theirs = ({line for line in result[2] if "specify" in line} for result in results)
        assert ours == theirs, arguments
        refused += len(ours)
    assert refused > 100


def test_several_conflicts(pair):
    commands = [["-dnX"], ["-efh"], ["-ehH"], ["-exh"], ["-exf"], ["-adf"], ["-aefh"], ["-abt"], ["-lmt"], ["-Mhn"], ["-Mdn"],
                ["-MXh"], ["-FX#"], ["-X#ef"], ["-fnxX"], ["-hxe"], ["-n", "-e", "-o", "a=b"], ["-f", "-n", "a=b"],
                ["-d", "a=b"], ["-X", "a=b"]]
    for arguments, _, (ours, theirs) in pair.each(commands, b"", b""):
        assert ours == theirs, arguments
        assert ours[0] == 1


def test_lists(pair):
    pair.write(b"", b"")
    for arguments in (["-l"], ["-T", "public-key-algorithms"]):
        ours, theirs = pair(arguments)
        assert ours == theirs, arguments


def test_known_differences(pair):
    """That 3.7 does otherwise still, so that KNOWN does not outlive its reasons."""
    pair.write(b"a = b", b"smtp inet n - n - - pipe {a b} x\n# behind\n")
    theirs = pair(["-e", "c=d"])[1]
    assert theirs[0] == 0
    assert pair.files("main.cf") == [b"a = b\nc = d\n", b"a = bc = d\n"]  # CF-05
    ours, theirs = pair(["-Fh", "smtp/inet/command"])
    assert (ours[1], theirs[1]) == ("pipe {a b} x\n", "pipea b x\n")  # blank, braces
    pair(["-F", "smtp/inet/chroot=y"])
    ours, theirs = pair.files("master.cf")
    assert ours.endswith(b"\n# behind\n") and theirs.startswith(b"# behind\n")  # place
    pair.write(b"", b"smtp inet n - n - - smtpd\n")
    pair(["-PX", "smtp/inet/a"])
    assert [b"smtp inet n -" in text for text in pair.files("master.cf")] == [True, False]  # untouched
    ours, theirs = pair(["-F", "smtp/inet/chroot="])
    assert (ours[0], theirs[0]) == (1, 0)  # empty field
    ours, theirs = pair(["-X", "a", "a"])
    assert ours[0] == 0 and theirs[0] < 0  # twice
    pair.write(b"", b"smtp inet n - n - - smtpd -o default_rbl_reply=$rbl_what -o relayhost=a\n"
                    b"smtp inet n - n - - smtpd\n")
    ours, theirs = pair(["-Px", "smtp/inet/relayhost"])
    assert (ours[1], theirs[1]) == ("smtp/inet/relayhost = a\n", "smtp/inet/relayhost = a\n" * 2)  # twice in the file
    ours, theirs = pair(["-Mx"])
    assert "=$rbl_what" in ours[1] and "=$rbl_what" not in theirs[1]  # raw
    pair.write(b"", b"smtp inet n - n - - smtpd -omyorigin=a\n")
    ours, theirs = pair(["-P"])
    assert ours[1] == "smtp/inet/myorigin = a\n" != theirs[1]  # glued
    assert len(KNOWN) == 13  # wording and mail_name are what lines_of() and Pair take away; order is chance
