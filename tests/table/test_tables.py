"""postmap, postalias and newaliases: what they print, how they end, and the same beside Debian's.

Every differential case is run by our command and by Debian's on the same files; outputs, warnings and exit statuses must
be equal but for the differences each case names.
"""
import os
import pathlib
import re
import stat
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from instance import build_directory  # noqa: E402
from oracle import Oracle  # noqa: E402

MAP = """\
# comment
key1 value1
Key2\tvalue 2   with spaces\x20\x20
 continued line
key3
# comment in
  continuation after comment
key1 dup

 leading white
"quoted key" value
"quo\\"ted" v
unq"x y" z
key4 = x
:foo bar
key5: val
key6,val
a@b c
  # indented comment
key7 v7
# c

  cont after empty
"k8"v8
"k9 v9
k10\\ x v
k11 "v"
k12\t# v
key:x\ty
@dom w
m\u00fcller x
"""

ALIASES = """\
# comment
root: me
Postmaster: root
multi: a,b , c
  d, "e f"
"quoted name": x
"quo\\"ted": x
cmd: |/bin/foo
cmd2: "|/bin/foo -a 'b c'"
file: /var/x
inc: :include:/etc/x
inc2: ":include:/etc/x y"
noval:
novalcolon
foo bar: baz
a@b: c
dup: 1
dup: 2
sp : x
full: Foo Bar <a@b>
grp: g: a, b;;
empty: ""
sep: a b c
semi: a;b
x: <a@b>, <>
two: a:b
"q".z: w
[x]: y
uni: ma\u00f1ana
root+x: r
.dot: d
"""

REGEXP = """\
# c
/^Foo(.*)$/ bar $1 ${1}x $(1)y $$
/UPPER/i casesens
!/x/ negated $$
/bad(/ z
/unterminated
/a+b/x basic
/flag/q z
noslash z
if /^q/
/^qq/ qq
endif
if !/^r/
/s$/ s
endif
endif
/$2(a)/ $2
/dol2(a)/ ${2}
|alt/delim| yes
/esc\\/aped/ es
!/x(a)/ neg $1
/multi
  line/ x
if /unclosed/ extra
/^xu/ u
"""
REGEXP_KEYS = ["foobar", "FOO", "upper", "UPPER", "qq", "x", "xs", "rxs", "xa+b", "xaab", "xdol2a", "xalt/delimx",
               "esc/aped x", "xmulti  line", "xu", "xu unclosed", "xflag"]

CIDR = """\
10.0.0.0/8 ten
192.168.1.1 one
!192.168.0.0/16 notone
::1 v6
2001:db8::/32 doc
10.1.1.1/8 bad
1.2.3/24 bad
foo bar
"""
CIDR_KEYS = ["10.1.2.3", "192.168.1.1", "::1", "2001:DB8::5", "8.8.8.8", "192.168.3.3", "foo", "11.255.255.255"]


class Side:
    """One of the two implementations, with its own copy of the files."""

    def __init__(self, name, directory, run):
        self.name = name
        self.directory = directory
        self.run_command = run
        self.env = self.program = None

    def put(self, name, text, mode=0o644):
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    def run(self, *args, stdin=b""):
        """(exit status, standard output, standard error), program name and folder taken away."""
        done = self.run_command(args[0], *[str(a) for a in args[1:]], input=stdin, capture_output=True,
                                cwd=self.directory)
        return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def ours(tmp_path):
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "main.cf").write_text(f"""\
compatibility_level = 3.6
myhostname = oracle.example
maillog_file = {tmp_path}/log
maillog_file_prefixes = {tmp_path}
alias_database = hash:{tmp_path}/work/aliases
alias_maps = $alias_database
""")
    work = tmp_path / "work"
    work.mkdir()
    env = {**os.environ, "MAIL_CONFIG": str(etc), "LC_ALL": "C"}

    def run(name, *args, **kwargs):
        return subprocess.run([name, *args], executable=str(build_directory() / "sbin" / name), env=env, timeout=60, **kwargs)

    side = Side("ours", work, run)
    side.env = env
    side.program = lambda name: build_directory() / "sbin" / name
    return side


@pytest.fixture(scope="session")
def oracle():
    reason = Oracle.why_not()
    if reason:
        pytest.skip(reason)
    oracle = Oracle()
    oracle.write()
    # lmdb and cdb are plug-ins there, named by a file of their own
    (oracle.directory / "etc/dynamicmaps.cf").write_text(
        "".join(f"{name}\t{oracle.root}/usr/lib/postfix/postfix-{name}.so\tdict_{name}_open\tmkmap_{name}_open\n"
                for name in ("lmdb", "cdb")))
    main_cf = oracle.directory / "etc/main.cf"
    main_cf.write_text(re.sub(r"meta_directory = .*", f"meta_directory = {oracle.directory}/etc", main_cf.read_text()) +
                       "default_database_type = lmdb\n")
    yield oracle
    oracle.stop()


@pytest.fixture
def debian(tmp_path, oracle):
    work = tmp_path / "debian"
    work.mkdir()
    env = {**oracle.environment(), "LC_ALL": "C"}

    def run(name, *args, **kwargs):
        return subprocess.run([name, *args], executable=str(oracle.root / "usr/sbin" / name), env=env, timeout=60, **kwargs)

    return Side("debian", work, run)


# What differs from Debian's 3.7 in what is printed, on which side, and why.
KNOWN = [
    # a line of the text is what one looks for
    ("ours", r"warning: \S+?, line \d+: duplicate entry", "warning: duplicate entry", "with file and line"),
    ("debian", r"warning: \S+: duplicate entry", "warning: duplicate entry", "with the table's name"),
    # 3.12 writes alias names as addresses have them
    ("ours", r'(?m)^"((?:[^"\\]|\\.)*)":\t', r"\1:\t", "names with quotes where they need them"),
    ("ours", r'(?m)^(quo)\\(")', r"\1\2", "the same"),
]


def alike(side, result):
    """(exit status, standard output, standard error) without the known differences; duplicates are found at the end here,
    where the entries are sorted, and at once there: the order of warnings does not count."""
    code, out, err = result
    for name, pattern, replacement, _ in KNOWN:
        if side.name == name:
            out, err = re.sub(pattern, replacement, out), re.sub(pattern, replacement, err)
    return code, sorted(out.splitlines()), sorted(err.splitlines())


def without(text, *patterns):
    return "".join(line for line in text.splitlines(keepends=True) if not any(re.search(p, line) for p in patterns))


# --- differential ---


def test_map_file_like_debians(ours, debian):
    results = []
    for side in (ours, debian):
        side.put("m", MAP, 0o640)
        results.append([alike(side, side.run("postmap", *args, stdin=stdin)) for args, stdin in (
            (["lmdb:m"], b""), (["-s", "lmdb:m"], b""), *[(["-q", k, "lmdb:m"], b"") for k in
                                                          ("key1", "KEY2", "nosuch", '"quoted key"')],
            (["-q", "-", "lmdb:m"], b"key1\nnosuch\nKey2\n"), (["-q", "-", "lmdb:m"], b"nosuch\n"))])
        results[-1].append(stat.S_IMODE((side.directory / "m.lmdb").stat().st_mode))
    assert results[0] == results[1]


def test_alias_file_like_debians(ours, debian):
    results = []
    for side in (ours, debian):
        side.put("a", ALIASES)
        made = alike(side, side.run("postalias", "lmdb:a"))
        code, out, err = side.run("postalias", "-s", "lmdb:a")
        assert "YP_LAST_MODIFIED:\t" in out
        results.append([made, alike(side, (code, without(out, "^YP_LAST_MODIFIED"), err)),
                        side.run("postalias", "-q", "ROOT", "lmdb:a"), side.run("postalias", "-q", "nosuch", "lmdb:a")])
    assert results[0] == results[1]


@pytest.mark.parametrize("spec, text, keys", [("regexp:f", REGEXP, REGEXP_KEYS), ("cidr:f", CIDR, CIDR_KEYS),
                                              ("texthash:f", "a 1\nb 2\n\"x y\" z\n", ["a", "A", "x", '"x y"'])],
                         ids=["regexp", "cidr", "texthash"])
def test_queries_like_debians(ours, debian, spec, text, keys):
    results = []
    for side in (ours, debian):
        side.put("f", text)
        results.append(side.run("postmap", "-q", "-", spec, stdin="".join(k + "\n" for k in keys).encode()))
    assert results[0] == results[1]


@pytest.mark.parametrize("spec", [
    "static:abc", "static:{abc  def}", "static:{abc", "static:{ abc } d", "inline:{a=b}", "inline:{ a = b }",
    "inline:{ {a = b c}, b=d }", "inline:{a}", "inline:{}", "inline:{a=b", "inline:a=b", "inline:{A=b, b=x=y}",
    "inline:{a=b},", "inline:{ {a = {b}} }", "inline:{ {a = b }x }", "inline:{!a=b}", "unix:passwd.byname", "unix:foo",
    "environ:x", "unionmap:{static:x,static:y,inline:{a=q}}", "pipemap:{inline:{a=b},inline:{b=c}}",
    "regexp:{{/a/ b}, {/c/ d}}", "nosuchtype:x", "static:", "lmdb:nosuchfile"])
def test_types_like_debians(ours, debian, spec):
    keys = b"a\nb\nA\nroot\n"
    results = [side.run("postmap", "-q", "-", spec, stdin=keys) for side in (ours, debian)]
    assert results[0] == results[1]


@pytest.mark.parametrize("args", [
    [], ["-q", "x"], ["nosuchfile"], ["regexp:m"], ["nosuchtype:m"], ["-s", "static:a"], ["-d", "x", "static:a"],
    ["-q", "a", "-s", "m"], ["-c", "/nonexistent", "m"], ["-q", "key1", "n", "m"]])
def test_faults_like_debians(ours, debian, args):
    results = []
    for side in (ours, debian):
        side.put("m", "key1 v\n")
        side.put("n", "x y\n")
        side.run("postmap", "m", "n")
        code, out, err = side.run("postmap", *args)
        # the option letters in the usage are those of the version; whichever of -s -q -d the text names
        err = re.sub(r"\[-[a-zA-Z]*\]", "[-]", err).replace("one of -s or -q or -d", "one of -s -q or -d")
        err = re.sub(r"\. Is the postfix-\S+ package installed\?", "", err)  # Debian's addition
        results.append((code, out, err))
    assert results[0] == results[1]


def test_changes_like_debians(ours, debian):
    results = []
    for side in (ours, debian):
        side.put("m", "a 1\n", 0o600)
        r = [side.run("postmap", "m")]
        r.append(side.run("postmap", "-i", "m", stdin=b"x 1\nY 2\nx 3\nbad\n"))
        r.append(side.run("postmap", "-s", "m"))
        r.append(side.run("postmap", "-ir", "m", stdin=b"x 9\n"))
        r.append(side.run("postmap", "-iw", "m", stdin=b"x 10\n"))
        r.append(side.run("postmap", "-if", "m", stdin=b"ZZ 10\n"))
        r.append(side.run("postmap", "-s", "m"))
        r.append(side.run("postmap", "-q", "ZZ", "m"))
        r.append(side.run("postmap", "-fq", "ZZ", "m"))
        r.append(side.run("postmap", "-d", "a", "m"))
        r.append(side.run("postmap", "-d", "a", "m"))
        r.append(side.run("postmap", "-d", "-", "m", stdin=b"x\nq\n"))
        r.append(side.run("postmap", "-s", "m"))
        r.append(stat.S_IMODE((side.directory / "m.lmdb").stat().st_mode))
        results.append([alike(side, x) if isinstance(x, tuple) else x for x in r])
    assert results[0] == results[1]


def test_each_reads_the_others_index(ours, debian):
    text = "".join(f"key{i} value{i}\n" for i in range(3000)) + "last word\n"
    for kind in ("lmdb", "cdb"):
        for options in ([], ["-n"], ["-N"]):
            for maker, reader in ((ours, debian), (debian, ours)):
                maker.put("t", text)
                assert maker.run("postmap", *options, f"{kind}:t")[0] == 0
                copy = reader.directory / f"u.{kind}"
                copy.write_bytes((maker.directory / f"t.{kind}").read_bytes())
                assert reader.run("postmap", "-q", "Key2999", f"{kind}:u") == (0, "value2999\n", "")
                assert reader.run("postmap", "-q", "key3000", f"{kind}:u")[:2] == (1, "")
                if kind == "lmdb" or reader.name == "ours":  # Debian's 3.7 cannot list cdb
                    assert len(reader.run("postmap", "-s", f"{kind}:u")[1].splitlines()) == 3001


# --- ours alone ---


def test_text_is_the_truth(ours):
    """Without an index, or with an older one, look-ups use the text; a .db is not read."""
    text = ours.put("t", "a text\n")
    ours.put("t.db", "not read")
    code, out, err = ours.run("postmap", "-q", "a", "hash:t")
    assert (code, out) == (0, "text\n")
    assert "using the text file: index t.lmdb is missing" in err
    assert ours.run("postmap", "hash:t") == (0, "", "")
    assert ours.run("postmap", "-q", "a", "hash:t") == (0, "text\n", "")
    text.write_text("a edited\n")
    os.utime(text, (time.time() + 10, time.time() + 10))
    code, out, err = ours.run("postmap", "-q", "a", "btree:t")
    assert (code, out) == (0, "edited\n")
    assert "older than its source" in err
    assert ours.run("postmap", "-s", "hash:t")[1] == "a\tedited\n"
    # built from a text of the future: still the index of that text
    assert ours.run("postmap", "hash:t")[0] == 0
    assert ours.run("postmap", "-q", "a", "hash:t") == (0, "edited\n", "")


def test_newaliases(ours):
    ours.put("aliases", "root: me\njoe: a, b\n")
    assert ours.run("newaliases") == (0, "", "")
    assert ours.run("postalias", "-q", "joe", f"hash:{ours.directory}/aliases") == (0, "a, b\n", "")
    # a file alias_maps names is in alias form for postmap's queries too
    (ours.directory / "aliases.lmdb").unlink()
    assert ours.run("postmap", "-q", "joe", f"hash:{ours.directory}/aliases")[:2] == (0, "a, b\n")


def test_a_failed_build_leaves_the_old_index(ours):
    ours.put("t", "a 1\n")
    assert ours.run("postmap", "t")[0] == 0
    before = (ours.directory / "t.lmdb").read_bytes()
    (ours.directory / "t").unlink()
    code, _, err = ours.run("postmap", "t")
    assert code == 1 and "fatal: open t: No such file or directory" in err
    assert (ours.directory / "t.lmdb").read_bytes() == before
    assert sorted(p.name for p in ours.directory.iterdir()) == ["t.lmdb"]


def test_permissions(ours):
    ours.put("t", "a 1\n", 0o600)
    assert ours.run("postmap", "t")[0] == 0
    assert stat.S_IMODE((ours.directory / "t.lmdb").stat().st_mode) == 0o600
    assert ours.run("postmap", "-p", "t")[0] == 0
    assert stat.S_IMODE((ours.directory / "t.lmdb").stat().st_mode) == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_works_as_the_owner_of_the_source(ours):
    folder = ours.directory / "theirs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    for parent in folder.parents:  # pytest's own folders are for root alone
        if "pytest" in str(parent):
            parent.chmod(parent.stat().st_mode | 0o055)
    ours.put("theirs/t", "a 1\n")
    os.chown(folder / "t", 65534, 65534)
    assert ours.run("postmap", "theirs/t") == (0, "", "")
    assert (folder / "t.lmdb").stat().st_uid == 65534
    assert ours.run("postmap", "-o", "theirs/t") == (0, "", "")
    assert (folder / "t.lmdb").stat().st_uid == 0


def test_builders_at_the_same_time(ours):
    """Additions by ten processes at once: each is there afterwards, and readers always find a whole table."""
    ours.put("t", "base 1\n")
    assert ours.run("postmap", "t")[0] == 0
    failures = []

    def add(n):
        if ours.run("postmap", "-i", "t", stdin=f"k{n} {n}\n".encode()) != (0, "", ""):
            failures.append(n)
        if ours.run("postmap", "-q", "base", "t")[:2] != (0, "1\n"):
            failures.append(-n)

    threads = [threading.Thread(target=add, args=(n,)) for n in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert len(ours.run("postmap", "-s", "t")[1].splitlines()) == 11
