"""The corpus beside Debian's postfix: replies, log records and what is in the queue afterwards are the same, but for what
differences.txt says; and what a dialogue is to show is not to be seen without its parameter (on our side: the other server
then shows that the sight is the right one). See corpus_file.py for the form of the dialogues."""
import concurrent.futures
import difflib
import fnmatch
import pathlib
import re

import pytest

from corpus.corpus_file import FOLDER, conversations
from corpus.corpus_world import World, play_ours, play_theirs
from oracle import Oracle

ALL = {c.name: c for c in conversations()}
COMPARED = [name for name, c in ALL.items() if c.with_oracle]
SHOWN = [(name, *shown) for name, c in ALL.items() for shown in c.shown]
FIELDS = ("reply", "smtpd", "cleanup", "stored")


class Rule:
    FORM = re.compile(r"(\S+) (reply|smtpd|cleanup|stored) (ours|theirs|both) (?:(drop|any-order) /(.*)/|change /(.*)/ (.*)/)$")

    def __init__(self, line):
        m = self.FORM.match(line)
        if not m:
            raise ValueError(f"differences.txt: {line}")
        self.line, self.used = line, False
        self.by_chance = line.startswith("?")
        self.names, self.where, self.side, self.kind, regex, changed, self.text = m.groups()
        self.names = self.names.lstrip("?")
        self.kind, self.regex = self.kind or "change", re.compile(regex if self.kind else changed)

    def apply(self, name, where, side, lines):
        if where != self.where or self.side not in (side, "both") or not fnmatch.fnmatch(name, self.names):
            return lines
        found = [line for line in lines if self.regex.search(line)]
        if not found:
            return lines
        self.used = True
        if self.kind == "change":
            return [self.regex.sub(self.text, line) for line in lines]
        rest = [line for line in lines if line not in found]
        return rest if self.kind == "drop" else rest + sorted(found)


RULES = [Rule(line) for line in (FOLDER / "differences.txt").read_text().splitlines() if line and line[0] != "#"]


def after_rules(name, side, seen):
    text = []
    for where, lines in zip(FIELDS, (seen.replies, seen.smtpd, seen.cleanup, [m for one in seen.stored for m in ["", *one]]),
                            strict=True):
        for rule in RULES:
            lines = rule.apply(name, where, side, lines)
        text += [f"{where}: {line}" for line in lines]
    return text


@pytest.fixture(scope="module")
def seen(request, tmp_path_factory):
    """{"ours": {name: Seen}, "theirs": ...} of the dialogues that the chosen tests need; both servers play at a time."""
    chosen = {item.callspec.params["name"] for item in request.session.items
              if item.path == pathlib.Path(__file__) and hasattr(item, "callspec")}
    mine = [c for name, c in ALL.items() if name in chosen]
    mine += [c.without(*shown) for c in mine for shown in c.shown]
    other = [] if Oracle.why_not() else [c for name, c in ALL.items() if name in chosen and c.with_oracle]
    world = World(tmp_path_factory.mktemp("world"))
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            ours, theirs = pool.submit(play_ours, mine, world), pool.submit(play_theirs, other, world)
            yield {"ours": ours.result(), "theirs": theirs.result()}
    finally:
        world.close()


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
@pytest.mark.parametrize("name", COMPARED)
def test_same(seen, name):
    theirs, ours = (after_rules(name, side, seen[side][name]) for side in ("theirs", "ours"))
    assert ours == theirs, "\n" + "\n".join(difflib.unified_diff(theirs, ours, "3.7", "ours", lineterm=""))


@pytest.mark.parametrize("name, of_cleanup, parameter", SHOWN, ids=[f"{n}-{p}" for n, _, p in SHOWN])
def test_shows(seen, name, of_cleanup, parameter):
    without = ALL[name].without(of_cleanup, parameter).name
    assert seen["ours"][name].text() != seen["ours"][without].text(), f"{parameter} changes nothing"


@pytest.mark.parametrize("name", [name for name, c in ALL.items() if c.seen])
def test_sees(seen, name):
    text = seen["ours"][name].text()
    for pattern in ALL[name].seen:
        assert fnmatch.filter(text, pattern), "\n".join([f"no {pattern}", *text])


@pytest.mark.parametrize("name", [""])
def test_the_corpus_is_whole(seen, name, request):
    """At least 400 dialogues are compared, and every row of differences.txt is needed by one."""
    played = [n for n in COMPARED if n in seen["theirs"]]
    if len(played) < len(COMPARED):
        pytest.skip("not all dialogues were played")
    assert len(COMPARED) >= 400
    for n in played:
        for side in ("ours", "theirs"):
            after_rules(n, side, seen[side][n])
    assert [rule.line for rule in RULES if not rule.used and not rule.by_chance] == []
