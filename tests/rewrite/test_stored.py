"""messages.corpus: what our cleanup stores beside what Debian's stores. With ANGARIUM_CORPUS_WRITE=1 the answers in the
file are written anew from Debian's."""
import os
import re

import pytest

from instance import Instance, free_port
from oracle import Oracle
from rewrite.message_corpus import FILE, WORLD, answers, groups

GROUPS = groups()


@pytest.fixture(scope="module")
def ours():
    ports = [free_port() for _ in GROUPS]
    services = "".join(g.services(n, port) for n, (g, port) in enumerate(zip(GROUPS, ports)))
    instance = Instance(main_cf=WORLD, master_extra=services, name="stored")
    try:
        instance.start()
        yield answers(ports, lambda *args, **kw: instance.command("postcat", *args, text=False, **kw), GROUPS)
    finally:
        print(instance.log()[-20000:])
        instance.stop()


@pytest.fixture(scope="module")
def theirs():
    if Oracle.why_not():
        pytest.skip(Oracle.why_not())
    ports = [free_port() for _ in GROUPS]
    server = Oracle(main_cf=WORLD)
    server.write()
    with open(server.directory / "etc/master.cf", "a") as master_cf:
        for number, (group, port) in enumerate(zip(GROUPS, ports)):
            master_cf.write(group.services(number, port))
    write, server.write = server.write, lambda: None
    try:
        try:
            server.start()
        except Exception:
            print(server.log()[-3000:])
            raise
        yield answers(ports, lambda *args, **kw: server.command("postcat", *args, **kw), GROUPS)
    finally:
        print(server.log()[-20000:])
        server.write = write
        server.stop()


def normal(answer):
    """Postfix writes a field whose address it completes anew, we replace the address alone: blanks and folding do not
    count, nor the blank that stands around '<', '>' and the separators."""
    answer = re.sub(r"(\\n)?(\\t|[ \t])+", " ", answer)
    return re.sub(r" ?([,:;<>]) ?", r"\1", answer).strip()


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_ours(ours, group):
    wrong = [f"{row}: {ours[row.line][1]}, not {row.ours}" for row in group.rows
             if normal(ours[row.line][1]) != normal(row.ours)]
    assert not wrong, "\n".join(wrong)


def test_debian_stores(theirs):
    if os.environ.get("ANGARIUM_CORPUS_WRITE"):
        write_answers(theirs)
        return
    wrong = [f"{row}: {got}, not {row.theirs}" for row, got in theirs.values() if got != row.theirs]
    assert not wrong, "\n".join(wrong)


def write_answers(told):
    lines = FILE.read_text().splitlines()
    for line, (row, got) in told.items():
        ours = f" !! {row.ours}" if row.ours != row.theirs else ""
        lines[line - 1] = f"{row.question} => {got}{ours}"
    FILE.write_text("\n".join(lines) + "\n")


def test_there_are_many_messages():
    assert sum(len(g.rows) for g in GROUPS) >= 200
    assert len({g.name for g in GROUPS}) == len(GROUPS)
