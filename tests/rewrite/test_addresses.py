"""addresses.corpus against our router and against Debian's trivial-rewrite. With ANGARIUM_CORPUS_WRITE=1 the answers in the
file are written anew from Debian's."""
import os
import pathlib
import tempfile

import pytest

from instance import build_directory
from oracle import Oracle
from rewrite.address_corpus import FILE, WORLD, OldRewrite, groups, our_answers

GROUPS = groups()


@pytest.fixture(scope="module")
def directory():
    with tempfile.TemporaryDirectory(prefix="rewrite-") as name:
        pathlib.Path(name, "main.cf").write_text("compatibility_level = 3.6\n" + WORLD)
        yield name


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_ours(directory, group):
    wrong = [f"{row}: {answer}, not {row.ours}"
             for row, answer in our_answers(build_directory() / "libexec/route_ask", directory, group) if answer != row.ours]
    assert not wrong, "\n".join(wrong)


def test_there_are_many():
    assert sum(len(g.rows) for g in GROUPS) >= 300
    assert len({g.name for g in GROUPS}) == len(GROUPS)


@pytest.fixture(scope="module")
def oracle():
    if Oracle.why_not():
        pytest.skip(Oracle.why_not())
    server = Oracle(main_cf=WORLD)
    server.write()
    with open(server.directory / "etc/master.cf", "a") as master_cf:
        for number, group in enumerate(GROUPS):
            master_cf.write(f"rewrite{number} unix - - n - - trivial-rewrite\n")
            for name, value in group.settings:
                master_cf.write(f"  -o {{ {name} = {value} }}\n")
    write, server.write = server.write, lambda: None
    try:
        yield server.start()
    finally:
        server.write = write
        server.stop()


def test_debian(oracle):
    wrong, told = [], {}
    for number, group in enumerate(GROUPS):
        client = OldRewrite(oracle.directory / f"queue/private/rewrite{number}")
        for row in group.rows:
            told[row.line] = row, client.answer(row)
        client.close()
    if os.environ.get("ANGARIUM_CORPUS_WRITE"):
        write_answers(told)
        return
    for row, answer in told.values():
        if answer != row.theirs:
            wrong.append(f"{row}: {answer}, not {row.theirs}")
    assert not wrong, "\n".join(wrong)


def write_answers(told):
    lines = FILE.read_text().splitlines()
    for line, (row, answer) in told.items():
        ours = f" !! {row.ours}" if row.ours != row.theirs else ""
        lines[line - 1] = f"{row.question} => {answer}{ours}"
    FILE.write_text("\n".join(lines) + "\n")
