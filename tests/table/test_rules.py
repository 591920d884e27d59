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
