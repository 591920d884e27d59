"""Tables that are rules, text or other tables (regexp, pcre, cidr, static, inline, unionmap, pipemap, randmap, ...) beside
Debian's: every file of corpus_rules/ is one table and the keys it is asked.

    --- regexp              the rules, for a file of that type; or: --- spec type:name
    --- keys                one a line
    --- words REASON        the same lines are warned about, in other words
    --- differs REASON      ours differs from 3.7's on purpose; what follows is ours:
    --- answers STATUS      its output
"""
import os
import pathlib
import re
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from instance import build_directory  # noqa: E402
from oracle import Oracle  # noqa: E402

CORPUS = pathlib.Path(__file__).parent / "corpus_rules"
ALONE = 1  # keys asked one at a time too


def sections(path):
    found = {}
    for part in re.split(rb"^--- ", path.read_bytes(), flags=re.M)[1:]:
        head, _, body = part.partition(b"\n")
        name, _, argument = head.partition(b" ")
        found[name.decode()] = (argument, body)
    return found


@pytest.fixture(scope="module")
def oracle():
    reason = Oracle.why_not()
    if reason:
        pytest.skip(reason)
    oracle = Oracle()
    oracle.write()
    etc = oracle.directory / "etc"
    (etc / "dynamicmaps.cf").write_text(f"pcre\t{oracle.root}/usr/lib/postfix/postfix-pcre.so\tdict_pcre_open\n")
    main_cf = etc / "main.cf"
    text = re.sub(r"meta_directory = .*", f"meta_directory = {etc}", main_cf.read_text())
    main_cf.write_text(re.sub(r"maillog_file.*\n", "", text))  # it would wait for a postlogd
    yield oracle
    oracle.stop()


def environment(folder):
    return {**os.environ, "MAIL_CONFIG": str(folder), "LC_ALL": "C", "TZ": "UTC"}


@pytest.fixture
def ours(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/main.cf").write_text("compatibility_level = 3.6\nmyhostname = oracle.example\n")
    (tmp_path / "work").mkdir()

    def run(*args, data=b"", timeout=60):
        done = subprocess.run(["postmap", *args], executable=str(build_directory() / "sbin/postmap"), input=data,
                              cwd=tmp_path / "work", env=environment(tmp_path / "etc"), capture_output=True,
                              timeout=timeout)
        return done.returncode, done.stdout, done.stderr.decode(errors="surrogateescape")

    return tmp_path / "work", run


def oracle_run(oracle, folder, *args, data=b""):
    done = subprocess.run(["postmap", *args], executable=str(oracle.root / "usr/sbin/postmap"), input=data, cwd=folder,
                          env={**oracle.environment(), **environment(oracle.directory / "etc")} |
                          {"LD_LIBRARY_PATH": oracle.environment()["LD_LIBRARY_PATH"]},
                          capture_output=True, timeout=60)
    return done.returncode, done.stdout, done.stderr.decode(errors="surrogateescape")


def places(err):
    """What is complained about, without the words: severity, table and line; of fatal errors what stands before the reason."""
    found = []
    for line in err.splitlines():
        if re.search(r"(truncated macro reference|empty macro name): ", line):
            continue  # said again with the line's number
        place = re.sub(r"(, line \d+): .*|(query error): .*", r"\1\2", line)
        if not found or found[-1] != place:
            found.append(place)
    return found


@pytest.mark.parametrize("name", sorted(p.name for p in CORPUS.iterdir()))
def test_table_like_debians(ours, oracle, name):
    case = sections(CORPUS / name)
    folder, run = ours
    if "spec" in case:
        spec = case["spec"][0]
    else:
        kind = next(iter(case))
        (folder / "t").write_bytes(case[kind][1])
        spec = kind.encode() + b":t"
    keys = case["keys"][1]
    first = run("-q", "-", spec, data=keys)
    theirs = oracle_run(oracle, folder, "-q", "-", spec, data=keys)
    if "differs" in case:
        assert first[:2] == (int(case["answers"][0]), case["answers"][1])
        assert first != theirs, "no difference any more"
        return
    pairs = [(first, theirs)]
    alone = 0 if "fatal: " in theirs[2] else ALONE  # Debian's waits a second before it ends that way
    for key in keys.split(b"\n")[:-1][:alone]:
        pairs.append((run("-q", key, spec), oracle_run(oracle, folder, "-q", key, spec)))
    for mine, debian in pairs:
        assert mine[:2] == debian[:2]
        if "words" in case:
            assert places(mine[2]) == places(debian[2])
        else:
            assert mine[2] == debian[2]
    if "words" in case:
        assert any(mine[2] != debian[2] for mine, debian in pairs), "no difference any more"


# --- bad input, ours alone ---


@pytest.mark.parametrize("kind", ["regexp", "pcre", "cidr"])
def test_a_line_of_100_megabytes(ours, kind):
    folder, run = ours
    with open(folder / "t", "wb") as f:
        for start in (b"/", b"/a/ ", b"!/", b"if /", b"10.0.0.0/8 ", b"10.0.0.0/"):
            f.write(start + b"x" * (16 * 1024 * 1024) + b"\n")
        f.write(b"/b/ last\n" if kind != "cidr" else b"1.2.3.4 last\n")
    key = "1.2.3.4" if kind == "cidr" else "b"
    code, out, err = run("-q", key, f"{kind}:t", timeout=120)
    assert (code, out) == (0, b"last\n")
    assert f"warning: {kind} map t, line 1: " in err
    assert len(err) < 40000  # it is not printed back whole


@pytest.mark.parametrize("kind", ["regexp", "pcre", "cidr"])
def test_ifs_nested_too_deeply(ours, kind):
    folder, run = ours
    (folder / "t").write_text(("if /a/\n" if kind != "cidr" else "if 10.0.0.0/8\n") * 100000)
    code, out, err = run("-q", "a", f"{kind}:t")
    assert (code, out) == (1, b"")
    assert re.fullmatch(rf"postmap: fatal: {kind} map t, line 1001: IF nested too deeply\n", err)


@pytest.mark.parametrize("kind", ["regexp", "pcre", "cidr"])
def test_bytes_that_are_no_table(ours, kind):
    import random
    folder, run = ours
    for seed in range(20):
        r = random.Random(seed)
        (folder / "t").write_bytes(bytes(r.randrange(256) for _ in range(20000)))
        code, _, err = run("-q", "10.0.0.1", f"{kind}:t")
        assert code in (0, 1)
        for line in err.split("\n")[:-1]:
            assert re.match(rf"postmap: warning: (table )?({kind} map|{kind}:)", line) or "fatal" in line, line


def test_tables_that_cannot_be_read(ours):
    folder, run = ours
    (folder / "d").mkdir()
    for kind in ("regexp", "pcre", "cidr"):
        for name in ("d", "missing", "t/below"):
            (folder / "t").write_text("")
            code, out, err = run("-q", "a", f"{kind}:{name}")
            assert (code, out) == (1, b"")
            assert re.match(rf"postmap: fatal: open {name}: (Is a directory|No such file|Not a directory)", err)


def test_a_pipe_is_no_table(ours):
    folder, run = ours
    os.mkfifo(folder / "pipe")
    code, out, err = run("-q", "a", "regexp:pipe", timeout=20)
    assert (code, out) == (1, b"") and "open pipe: " in err


def test_a_table_that_changes_while_it_is_read(ours):
    """Whole tables are renamed into place: each look-up answers from one of them."""
    import threading
    folder, run = ours
    stop = threading.Event()
    tables = ["".join(f"/^k{i}$/ {v}\n" for i in range(2000)) for v in ("old", "new")]
    (folder / "t").write_text(tables[0])

    def change():
        n = 0
        while not stop.is_set():
            n += 1
            (folder / "next").write_text(tables[n % 2])
            (folder / "next").rename(folder / "t")

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            code, out, err = run("-q", "-", "regexp:t", data=b"k0\nk1999\n")
            assert (code, err) == (0, "")
            assert out in (b"k0\told\nk1999\told\n", b"k0\tnew\nk1999\tnew\n")
    finally:
        stop.set()
        thread.join()
