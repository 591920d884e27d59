"""Every row of the tables that make the SMTP server's outside has a test that names it: restrictions, EHLO keywords, lines of the
stock master.cf, and the parameters of smtpd, the daemons around it, and those that rewrite, deliver and return mail. A row
added to one of them fails here until there is one.

Where a name must stand: in a dialogue of tests/dialogues or tests/corpus, in a black-box test, or in a unit test. That the test
fails without the parameter is shown by `shows:` of the corpus for those that have it, and by the tests themselves for others."""
import pathlib
import re

import pytest

from corpus.corpus_file import conversations

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve()
ROWS = [line.split("\t") for line in (HERE.parent / "daemon_parameters.tsv").read_text().splitlines() if line[:1] != "#"]
# Generated for other tests from the same tables: a name in them shows nothing.
LISTS = {HERE.parent / "daemon_parameters.tsv", ROOT / "tests/conf/defaults.tsv", HERE}


def texts():
    """Texts of all tests."""
    for pattern in ("tests/**/*.py", "tests/**/*.dialogue", "tests/**/*.corpus", "src/**/*_test.c", "src/**/harness*.[ch]"):
        for path in ROOT.glob(pattern):
            if path not in LISTS and "tests/conf/corpus" not in str(path):
                yield path.read_text(errors="replace")


@pytest.fixture(scope="module")
def words():
    return set(re.findall(r"\w+", "\n".join(texts()).replace("\\n", " ")))  # behind a \n of a string, too


def status():
    source = (ROOT / "src/conf/params.def").read_text()
    return dict(re.findall(r"^PARAM\((\w+), .*, (LIVE|INERT|PENDING), ", source, re.M))


# Rows nobody can name yet, each with what stands in the way. Shorter, never longer.
UNNAMED = dict(line.split(": ", 1) for line in (HERE.parent / "unnamed.txt").read_text().splitlines() if line[:1] != "#")


# What rewrites, delivers and returns mail: nothing of theirs may wait any more without standing in the list, either.
DELIVERY = "cleanup trivial-rewrite local virtual pipe spawn bounce error discard pickup".split()


@pytest.mark.parametrize("daemon", sorted({d for _, ds in ROWS for d in ds.split()}))
def test_every_parameter(words, daemon):
    of = status()
    rows = [name for name, daemons in ROWS if daemon in daemons.split() and of.get(name) == "LIVE"]
    waiting = [name for name, daemons in ROWS if daemon in DELIVERY and daemon in daemons.split() and of.get(name) == "PENDING"]
    assert len(rows) > 5
    assert [name for name in rows if name not in words and name not in UNNAMED] == []
    assert [name for name in waiting if name not in UNNAMED] == []


def test_the_list_of_unnamed_is_true(words):
    of = status()
    assert [name for name in UNNAMED if of.get(name) == "INERT" or name in words and of.get(name) == "LIVE"] == []


def test_every_ehlo_keyword():
    """Each is seen on, and off, in the corpus or in a dialogue."""
    source = (ROOT / "src/smtpd/ehlo.c").read_text()
    keywords = set(re.findall(r'STR_INIT\("([0-9A-Z]+)"\)', source)) | {"XCLIENT", "XFORWARD"}
    off = " ".join(value for c in conversations() for name, value in c.smtpd.items() if name.startswith("smtpd_discard_ehlo"))
    text = "\n".join(texts())
    assert len(keywords) > 12
    assert [k for k in sorted(keywords) if k.lower() not in off.lower() and k != "REQUIRETLS"] == []
    assert [k for k in sorted(keywords) if k not in text] == []


def test_every_restriction(words):
    source = (ROOT / "src/smtpd/restriction_table.c").read_text()
    rows = re.findall(r'^    ROW\("(\w+)", ', source, re.M)
    assert len(rows) > 60
    assert [name for name in rows if name not in words] == []


def test_every_line_of_the_stock_master_cf(words):
    """Those that are commented out, too: submission and smtps, and what their options say."""
    lines = [line.lstrip("#") for line in (ROOT / "packaging/master.cf").read_text().splitlines()]
    services = {line.split()[7] for line in lines if len(line.split()) >= 8 and line.split()[1] in ("inet", "unix", "pass")}
    options = {name for line in lines for name in re.findall(r"-o (\w+)=", line)}
    assert len(services) > 15
    assert [name for name in sorted(services | options) if not words.issuperset(name.split("-"))] == []
