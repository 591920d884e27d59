"""postmap and postalias, each option: beside Debian's where it has the option, and alone."""
import base64
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from test_tables import ALIASES, MAP, Side, alike, debian, oracle, ours  # noqa: E402, F401

CORPUS = {
    "map": MAP,
    "no newline at the end": "a 1\nb 2",
    "crlf": "a 1\r\nb 2\r\n c\r\n\r\n# d\r\n",
    "not utf-8": b"a 1\nk\xe4y v\nb v\xe4l\nc 3\n",
    "empty": "",
    "only comments": "# a\n\n  # b\n",
    "starts with a blank": " a 1\nb 2\n",
    "long value": "a " + "x" * 100000 + "\nb 2\n",
    "keys of the same beginning": "".join(f"abcdefgh{i % 97}abcdefgh{i % 89}x {i}\n" for i in range(4000)),
    "prefixes of each other": "".join("a" * n + " 1\n" for n in range(1, 300)),
    "reversed": "".join(f"k{i:06} {i}\n" for i in range(3000, 0, -1)),
    "tabs": "a\t1\nb\t\t 2\t\nc \t3\n\td\n",
    "odd quotes": '"a b" 1\n"a" 2\n"c d 3\ne"f g"h 4\n',
}
OPTIONS = [[], ["-f"], ["-w"], ["-r"], ["-n"], ["-N"], ["-u"], ["-p"], ["-o"], ["-fr"]]
# what Debian's 3.7 does otherwise, and why ours does not
REASONS = [
    ("ours", r"non-UTF-8 input \"[^\"]*\"", "non-UTF-8 input", "bytes that are not printable, cut"),
    ("debian", r"non-UTF-8 input \"[^\"]*\"", "non-UTF-8 input", "the same"),
    ("ours", r", line \d+: logical line must not start", ": logical line must not start", "with the line"),
]


def compare(side, result):
    code, out, err = alike(side, result)
    for name, pattern, replacement, _ in REASONS:
        if name == side.name:
            err = [re.sub(pattern, replacement, line) for line in err]
    return code, out, err


def run_bytes(side, *args, stdin=b""):
    done = side.run_command(args[0], *args[1:], input=stdin, capture_output=True, cwd=side.directory)
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.mark.parametrize("kind", ["lmdb", "cdb"])
@pytest.mark.parametrize("name", CORPUS)
def test_corpus_like_debians(ours, debian, name, kind):  # noqa: F811
    """Each text with each option through both: what is said, and what is in the index afterwards."""
    for options in OPTIONS:
        results = []
        for side in (ours, debian):
            side.put("t", CORPUS[name], 0o640)
            (side.directory / f"t.{kind}").unlink(missing_ok=True)  # Debian's lmdb keeps the mode of an old one
            made = compare(side, run_bytes(side, "postmap", *options, f"{kind}:t"))
            mode = (side.directory / f"t.{kind}").stat().st_mode & 0o777
            # Debian's cannot list cdb: ours lists both
            index = (side.directory / f"t.{kind}").read_bytes()
            (ours.directory / f"x.{kind}").write_bytes(index)
            listed = run_bytes(ours, "postmap", "-s", f"{kind}:x")
            if kind == "cdb" and side.name == "debian":  # a duplicate that -w leaves out is in its file, behind the first
                lines = {}
                for line in listed[1].split("\n"):
                    lines.setdefault(line.split("\t")[0], line)
                listed = (listed[0], "\n".join(lines.values()), listed[2])
            listed = (listed[0], sorted(listed[1].split("\n")), listed[2])
            results.append((made, mode, listed))
        assert results[0] == results[1], options


@pytest.mark.parametrize("text", [ALIASES, "a: b", ": x\n", "a b: c\n", 'x: "|/bin/a b"\n', "a: b\r\n"])
def test_aliases_like_debians(ours, debian, text):  # noqa: F811
    for options in ([], ["-f"], ["-w"], ["-r"], ["-n"]):
        results = []
        for side in (ours, debian):
            side.put("t", text)
            made = compare(side, side.run("postalias", *options, "lmdb:t"))
            code, out, err = compare(side, side.run("postalias", "-s", "lmdb:t"))
            results.append((made, code, [line for line in out if "YP_LAST" not in line], err))
        assert results[0] == results[1], options


QUERIES = [
    (["-q", "A", "lmdb:t"], b""), (["-fq", "A", "lmdb:t"], b""), (["-q", "", "lmdb:t"], b""),
    (["-q", "-", "lmdb:t", "lmdb:s"], b"a\nB\nnone\nx\n\nlast"), (["-q", "a", "lmdb:s", "lmdb:t"], b""),
    (["-q", "-", "lmdb:t"], b""), (["-q", "-", "lmdb:t"], b"k\xe4y\na\n"), (["-uq", "-", "lmdb:t"], b"k\xe4y\na\n"),
    (["-q", "a", "cdb:t"], b""), (["-q", "none", "cdb:t"], b""), (["-s", "lmdb:t", "lmdb:s"], b""),
    (["-d", "A", "lmdb:t"], b""), (["-fd", "A", "lmdb:t"], b""), (["-d", "a", "lmdb:t", "lmdb:s"], b""),
    (["-d", "-", "lmdb:t", "lmdb:s"], b"a\nx\n"), (["-d", "none", "lmdb:t"], b""),
    (["-i", "lmdb:t"], b"a 9\nz 9\nz 10\n"), (["-ir", "lmdb:t"], b"a 9\nz 9\nz 10\n"),
    (["-iw", "lmdb:t"], b"a 9\nz 9\nz 10\n"), (["-i", "lmdb:new"], b"a 9\n"), (["-in", "lmdb:t"], b"n 9\n"),
    (["-q", "a", "-d", "a", "t"], b""), (["-s", "-q", "a", "t"], b""), (["-bq", "a", "lmdb:t"], b""),
    (["-m", "lmdb:t"], b""), (["-mq", "-", "lmdb:t"], b"a\n"), (["-q", "a", "fail:t"], b""), (["fail:t"], b""),
    (["-d", "a", "fail:t"], b""), (["-s", "fail:t"], b""), (["internal:t"], b""), (["-q", "a", "internal:t"], b""),
    (["-s", "internal:t"], b""), (["-s", "static:t"], b""), (["-s", "unionmap:{static:t}"], b""),
    (["texthash:t"], b""), (["-s", "texthash:t"], b""), (["-d", "a", "internal:t"], b""), (["-d", "-", "internal:t"], b"a\nb\n"),
    (["-d", "a", "static:t"], b""), (["-d", "a", "texthash:t"], b""), (["-d", "a", "nosuch:t"], b""),
]
ERRORS = [
    (r"error reading lmdb:t: MDB_BAD_VALSIZE.*|table lmdb:t: empty lookup key.*", "empty key",
     "Debian's asks LMDB for it, which refuses"),
    (r"fatal: empty key", "warning: empty key", "the same"),
    (r"query error: .*", "query error: Application error", "ours says which"),
    (r"\. Is the postfix-\S+ package installed\?", "", "Debian's addition"),
    (r"texthash:t map requires O_RDONLY access mode", "table texthash:t: delete operation is not supported", "ours says what"),
    (r"one of -s or -q or -d", "one of -s -q or -d", "whichever of them the text names"),
]


@pytest.mark.parametrize("args, stdin", QUERIES, ids=[" ".join(args) for args, _ in QUERIES])
def test_queries_and_changes_like_debians(ours, debian, args, stdin):  # noqa: F811
    results = []
    for side in (ours, debian):
        side.put("t", "a 1\nB 2\nq r s\n")
        side.put("s", "x 24\na other\n")
        assert side.run("postmap", "lmdb:t", "lmdb:s", "cdb:t") == (0, "", "")
        code, out, err = compare(side, run_bytes(side, "postmap", *args, stdin=stdin))
        for pattern, replacement, _ in ERRORS:
            err = [re.sub(pattern, replacement, line) for line in err]
        after = [side.run("postmap", "-s", f"lmdb:{name}")[:2] for name in ("t", "s")]
        results.append((code, out, err, after))
    assert results[0] == results[1]


# --- -h, -b, -m, -U: a message on standard input ---

MESSAGES = {
    "parts": """\
From: a@b
Subject: hello
 folded
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="xx"

preamble
--xx
Content-Type: text/plain
X-Part: one

body one
--xx
Content-Type: message/rfc822

From: inner
Subject: inner sub

inner body
--xx
Content-Type: multipart/alternative; boundary=y.y

--y.y
Content-Type: text/html

<p>html</p>
--y.y--
epilogue y.y
--xx--
epilogue
""",
    "no header": "not header\nbody\n",
    "no body": "A: b\nC: d\n",
    "blank first": "\nbody\n",
    "digest": "Content-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: in digest\n\ntext\n--d--\n",
    "encoded message": "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nSubject: x\n\ny\n",
    "8 bit": b"From x Mon\nA: b\n\nbo\xe4dy\n\n.\nlast",
    "8 bit header": b"A: b\xe4\nB : c\n d\n\nbody\n",
}


@pytest.mark.parametrize("options", ["-h", "-b", "-hm", "-bm", "-hb", "-hbm", "-Uh", "-Ub"])
@pytest.mark.parametrize("name", MESSAGES)
def test_messages_like_debians(ours, debian, name, options):  # noqa: F811
    results = []
    for side in (ours, debian):
        side.put("re", "/^(.*)$/ got<$1>\n/./ any\n")
        text = MESSAGES[name]
        result = run_bytes(side, "postmap", options, "-q", "-", "regexp:re",
                           stdin=text if isinstance(text, bytes) else text.encode())
        results.append(compare(side, result))
    assert results[0] == results[1]


# --- -F ---

FILE_QUERIES = [["-s", "lmdb:F"], ["-Fs", "lmdb:F"], ["-Fq", "l", "lmdb:F"], ["-q", "l", "lmdb:F"], ["-Fq", "k", "cdb:F"],
                ["-Fq", "z", "lmdb:G"], ["-Fq", "n", "lmdb:F"]]


def test_file_values_like_debians(ours, debian):  # noqa: F811
    results = []
    for side in (ours, debian):
        side.put("f1", "file one\nx\n")
        side.put("f2", "two no newline")
        side.put("F", "k f1\nl f1, f2\nm f2 f1\nn nofile\no f1,nofile\n")
        side.put("G", "z !!notbase64\n")
        r = [side.run("postmap", "-F", "lmdb:F"), side.run("postmap", "-F", "cdb:F"), side.run("postmap", "lmdb:G")]
        r += [side.run("postmap", *args) for args in FILE_QUERIES]
        code, out, err = side.run("postmap", "-Fq", "l", "texthash:F")
        r.append((code, out, sorted(set(err.splitlines()))))  # Debian's warns eight times
        r.append(side.run("postmap", "-Fi", "lmdb:G", stdin=b"k f1\n"))
        r.append(side.run("postmap", "-s", "lmdb:G"))
        results.append([(code, out, re.sub("query error.*", "query error", err) if isinstance(err, str) else err)
                        for code, out, err in r])
    # the warning about texthash: is ours and Debian's in other words
    texthash = [r.pop(len(FILE_QUERIES) + 3) for r in results]
    assert results[0] == results[1]
    assert texthash[0][:2] == texthash[1][:2]
    assert [re.sub(" -- ignoring this line", "", line) for line in texthash[0][2]] == texthash[1][2]


def test_file_values_without_an_index(ours):  # noqa: F811
    """Where the text is used, its values are files too: the same answer as from an index made with -F."""
    ours.put("f", "secret\n")
    ours.put("t", "k f\nbad none\n")
    code, out, err = ours.run("postmap", "-Fq", "k", "hash:t")
    assert (code, out) == (0, "secret\n\n")
    assert "t, line 2: open none: No such file or directory: skipping this entry" in err
    assert ours.run("postmap", "-F", "hash:t")[0] == 0
    assert ours.run("postmap", "-Fq", "k", "hash:t") == (0, "secret\n\n", "")
    assert ours.run("postmap", "-q", "k", "hash:t") == (0, base64.b64encode(b"secret\n").decode() + "\n", "")


# --- -j: 3.11's, so not Debian's ---


def test_json(ours):  # noqa: F811
    ours.put("t", b'a "quo\\ted"\nb \x01\x7f\ttab\nc m\xc3\xbcller\n\xe4 x\xff\n')
    assert run_bytes(ours, "postmap", "-u", "lmdb:t")[0] == 0
    code, out, err = ours.run("postmap", "-js", "lmdb:t")
    assert (code, err) == (0, "")
    got = [json.loads(line) for line in out.splitlines()]
    assert got == [{"a": '"quo\\ted"'}, {"b": "\x01\x7f\ttab"}, {"c": "müller"}, {"?": "x?"}]
    assert ours.run("postmap", "-jq", "a", "lmdb:t") == (0, '{"a": "\\"quo\\\\ted\\""}\n', "")
    assert ours.run("postmap", "-jq", "-", "lmdb:t", stdin=b"c\nnone\n") == (0, '{"c": "müller"}\n', "")
    assert ours.run("postmap", "-jq", "none", "lmdb:t") == (1, "", "")
    assert ours.run("postmap", "-j", "lmdb:t")[0] == 1
    ours.put("al", "root: me\n")
    assert ours.run("postalias", "lmdb:al")[0] == 0
    assert {"root": "me"} in [json.loads(line) for line in ours.run("postalias", "-js", "lmdb:al")[1].splitlines()]


# --- alone: limits, faults, files ---


@pytest.mark.parametrize("kind", ["lmdb", "cdb"])
def test_nul_bytes(ours, kind):  # noqa: F811
    """Debian's cuts a line at its NUL byte and takes what is left; ours leaves the line out and says so."""
    ours.put("t", b"a 1\nb\0x 2\nc 3\0y\nd 4\n")
    code, out, err = run_bytes(ours, "postmap", f"{kind}:t")
    assert code == 0 and "t, line 2: non-UTF-8 input" in err and "t, line 3: non-UTF-8 input" in err
    assert ours.run("postmap", "-s", f"{kind}:t") == (0, "a\t1\nd\t4\n", "")


def test_long_keys_are_in_the_index(ours):  # noqa: F811
    """LMDB takes 511 bytes; longer ones are found all the same, listed, replaced and deleted."""
    keys = ["k" * 510, "k" * 511, "k" * 512, "x" * 60000, "y" * 5000]
    ours.put("t", "".join(f"{key} v{i}\n" for i, key in enumerate(keys)) + "a 1\n" + "k" * 512 + " dup\n")
    for kind in ("lmdb", "cdb"):
        code, out, err = ours.run("postmap", f"{kind}:t")
        assert (code, out) == (0, "") and "t, line 7: duplicate entry" in err
        os.rename(ours.directory / "t", ours.directory / "hidden")
        for i, key in enumerate(keys):
            assert ours.run("postmap", "-q", "-", f"{kind}:t", stdin=key.encode()) == (0, f"{key}\tv{i}\n", "")
        assert ours.run("postmap", "-q", "-", f"{kind}:t", stdin=b"k" * 513) == (1, "", "")
        listed = ours.run("postmap", "-s", f"{kind}:t")[1]
        assert sorted(listed.splitlines()) == sorted(["a\t1"] + [f"{key}\tv{i}" for i, key in enumerate(keys)])
        os.rename(ours.directory / "hidden", ours.directory / "t")
    text = f"{keys[2]} new\n{'z' * 700} z\n".encode()
    assert "duplicate" in ours.run("postmap", "-i", "lmdb:t", stdin=text)[2]
    assert ours.run("postmap", "-ir", "lmdb:t", stdin=text) == (0, "", "")
    assert ours.run("postmap", "-q", "-", "lmdb:t", stdin=keys[2].encode())[1].endswith("\tnew\n")
    assert ours.run("postmap", "-d", "-", "lmdb:t", stdin=f"{keys[2]}\n{keys[3]}\n".encode()) == (0, "", "")
    left = ours.run("postmap", "-s", "lmdb:t")[1].splitlines()
    assert sorted(line.split("\t")[0] for line in left) == sorted(["a", keys[0], keys[1], keys[4], "z" * 700])


def test_a_line_of_a_hundred_megabytes(ours):  # noqa: F811
    with open(ours.directory / "t", "wb") as f:
        f.write(b"a 1\nbig ")
        for _ in range(100):
            f.write(b"x" * 1000000)
        f.write(b"\nb 2\n")
        f.write(b"y" * 1000000 + b"\n")
    code, out, err = ours.run("postmap", "lmdb:t")
    assert (code, out) == (0, "")
    assert "t, line 4: expected format" in err and len(err) < 4000
    assert len(ours.run("postmap", "-q", "big", "lmdb:t")[1]) == 100000001
    assert ours.run("postmap", "-q", "b", "lmdb:t") == (0, "2\n", "")


@pytest.mark.parametrize("kind", ["lmdb", "hash", "btree", "cdb", "texthash"])
def test_what_is_no_table(ours, kind):  # noqa: F811
    """A directory, a FIFO, nothing: each is said, and no question gets "not found"."""
    (ours.directory / "dir").mkdir()
    os.mkfifo(ours.directory / "fifo")
    for name, why in (("dir", "Is a directory"), ("fifo", "not a regular file"), ("none", "No such file or directory")):
        code, out, err = ours.run("postmap", "-q", "a", f"{kind}:{name}")
        assert (code, out) == (1, "") and "fatal" in err and why in err, err
        if kind != "texthash":
            code, out, err = ours.run("postmap", f"{kind}:{name}")
            assert (code, out) == (1, "") and f"fatal: open {name}: {why}" in err, err
    assert not [p for p in ours.directory.iterdir() if ".tmp" in p.name]
    suffix = "cdb" if kind == "cdb" else "lmdb"
    ours.put("t", "a 1\n")
    (ours.directory / f"t.{suffix}").mkdir()
    if kind != "texthash":  # the index is a directory
        code, out, err = ours.run("postmap", f"{kind}:t")
        assert code == 1 and "Is a directory" in err
        os.utime(ours.directory / f"t.{suffix}", (time.time() + 5, time.time() + 5))
        code, out, err = ours.run("postmap", "-q", "a", f"{kind}:t")
        assert (code, out) == (0, "1\n") and "not a regular file" in err and "warning" in err


@pytest.mark.parametrize("kind", ["lmdb", "cdb"])
def test_broken_indexes(ours, kind):  # noqa: F811
    """Cut short anywhere, garbage anywhere: the text is used where the index cannot be, else an error; no crash, and
    never a wrong value."""
    text = "".join(f"key{i} value{i}\n" for i in range(2000)) + "long " + "x" * 20000 + "\n"
    source = ours.put("t", text)
    assert ours.run("postmap", f"{kind}:t") == (0, "", "")
    index = ours.directory / f"t.{kind}"
    whole = index.read_bytes()
    source.unlink()
    keys = "".join(f"key{i}\n" for i in range(0, 2000, 7)) + "long\n"
    import random
    chance = random.Random(7)
    kinds = set()
    for n in range(60):
        data = bytearray(whole)
        if n % 2:
            data = data[:chance.randrange(len(data))]
        else:
            for _ in range(chance.choice([1, 30, 3000])):
                data[chance.randrange(len(data))] = chance.randrange(256)
        index.write_bytes(data)
        for args, stdin in ((["-q", "-"], keys.encode()), (["-s"], b"")):
            code, out, err = run_bytes(ours, "postmap", *args, f"{kind}:t", stdin=stdin)
            assert code in (0, 1), (n, args, code, err)
            kinds.add(code)
            if n % 2:  # cut: what is found is right
                for line in out.splitlines():
                    key, value = line.split("\t")
                    assert value == key.replace("key", "value") if key != "long" else value == "x" * 20000
                if code == 1:
                    assert "fatal" in err
    assert kinds == {0, 1}
    # with its text beside it, a broken index is passed over, and said
    index.write_bytes(whole[:100])
    ours.put("t", text)
    os.utime(index, (time.time() + 5, time.time() + 5))
    code, out, err = ours.run("postmap", "-q", "key7", f"{kind}:t")
    assert (code, out) == (0, "value7\n") and "warning: table" in err and "using the text file" in err
    # -i does not build upon what is broken
    if kind == "lmdb":
        code, out, err = ours.run("postmap", "-i", f"{kind}:t", stdin=b"a 1\n")
        assert code == 1 and f"open database t.{kind}" in err
        assert index.read_bytes() == whole[:100]


def test_an_index_cut_short_while_it_is_read(ours):  # noqa: F811
    """postmap -q - has the index mapped when it is cut short: an error, no SIGBUS; also when it becomes a new one."""
    for kind in ("lmdb", "cdb"):
        ours.put("t", "".join(f"key{i} value{i}\n" for i in range(20000)))
        assert ours.run("postmap", f"{kind}:t") == (0, "", "")
        os.utime(ours.directory / f"t.{kind}", (time.time() - 10, time.time() - 10))
        os.rename(ours.directory / "t", ours.directory / "source")
        reader = subprocess.Popen([str(ours.program("postmap")), "-q", "-", f"{kind}:t"], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ours.env, cwd=ours.directory)
        reader.stdin.write(b"key1\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == b"key1\tvalue1\n"
        with open(ours.directory / f"t.{kind}", "r+b") as f:
            f.truncate(3000)
        out, err = reader.communicate(b"".join(b"key%d\n" % i for i in range(0, 20000, 5)), timeout=60)
        assert reader.returncode == 1 and b"fatal" in err, (reader.returncode, err)
        for line in out.splitlines():
            key, value = line.split(b"\t")
            assert value == key.replace(b"key", b"value")


def test_queries_are_answered_as_they_come(ours):  # noqa: F811
    """A program may keep postmap -q - as its companion."""
    ours.put("t", "a 1\nb 2\n")
    asked = subprocess.Popen([str(ours.program("postmap")), "-q", "-", "texthash:t"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, env=ours.env, cwd=ours.directory)
    for key, value in ((b"a", b"1"), (b"b", b"2"), (b"a", b"1")):
        asked.stdin.write(key + b"\n")
        asked.stdin.flush()
        assert asked.stdout.readline() == key + b"\t" + value + b"\n"
    asked.communicate(timeout=60)
    assert asked.returncode == 0


def test_modes_and_owners(ours):  # noqa: F811
    """-p, and what a rebuilt index has of its text; -i and -d keep what the index has."""
    for mode in (0o600, 0o644, 0o640):
        ours.put("t", "a 1\n", mode)
        for kind in ("lmdb", "cdb"):
            index = ours.directory / f"t.{kind}"
            assert ours.run("postmap", f"{kind}:t")[0] == 0
            assert index.stat().st_mode & 0o7777 == mode
            assert ours.run("postmap", "-p", f"{kind}:t")[0] == 0
            assert index.stat().st_mode & 0o7777 == 0o644
    (ours.directory / "t.lmdb").chmod(0o604)
    assert ours.run("postmap", "-i", "t", stdin=b"b 2\n")[0] == 0
    assert ours.run("postmap", "-d", "b", "t")[0] == 0
    assert (ours.directory / "t.lmdb").stat().st_mode & 0o7777 == 0o604


def test_cdb_is_never_changed(ours):  # noqa: F811
    ours.put("t", "a 1\n")
    assert ours.run("postmap", "cdb:t")[0] == 0
    before = (ours.directory / "t.cdb").read_bytes()
    for args, stdin in ((["-i"], b"b 2\n"), (["-d", "a"], b"")):
        code, out, err = ours.run("postmap", *args, "cdb:t", stdin=stdin)
        assert (code, out) == (1, "") and "a cdb file cannot be changed" in err
    assert (ours.directory / "t.cdb").read_bytes() == before


def test_readers_find_a_whole_table_while_it_changes(ours):  # noqa: F811
    """One process changes the same two entries in one transaction, again and again; what a reader sees belongs together."""
    ours.put("t", "a 0\n" + "".join(f"key{i} value{i}\n" for i in range(3000)) + "z 0\n")
    assert ours.run("postmap", "t")[0] == 0
    env = ours.env
    writer = subprocess.Popen(
        ["sh", "-c", 'i=1; while [ $i -le 60 ]; do printf "a $i\\nz $i\\n" | "$0" -ir t || exit 1; i=$((i+1)); done',
         str(ours.program("postmap"))], env=env, cwd=ours.directory)
    seen = set()
    while writer.poll() is None:
        code, out, err = ours.run("postmap", "-s", "lmdb:t")
        lines = out.splitlines()
        assert (code, err) == (0, "") and len(lines) == 3002, err
        seen.add(lines[0].split("\t")[1])
    assert writer.returncode == 0
    assert len(seen) > 1
    assert ours.run("postmap", "-q", "-", "t", stdin=b"a\nz\n")[1] == "a\t60\nz\t60\n"
