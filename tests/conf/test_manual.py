"""postconf(5) says what the programs do: each parameter is there, with the default that `postconf -d` prints; and texts and
rows that do not fit together are found."""
import html
import os
import re
import shutil
import subprocess

import pytest

from instance import ROOT, build_directory

TOOL = [shutil.which("python3"), str(ROOT / "tools/manual.py")]
HOST = {"myhostname", "mydomain", "mynetworks", "process_id", "process_name", "service_name"}


def defaults_of_the_program(tmp_path):
    (tmp_path / "main.cf").write_text("")
    (tmp_path / "master.cf").write_text("slow unix - - n - - pipe\n  user=nobody argv=/bin/true\n")
    shown = subprocess.run([build_directory() / "sbin/postconf", "-c", tmp_path, "-d"], capture_output=True, text=True,
                           check=True, env={**os.environ, "MAIL_CONFIG": ""}).stdout
    values = {name: value.strip() for name, value in (line.split(" =", 1) for line in shown.splitlines())}
    return {name.removeprefix("slow") if name.startswith("slow_") else name: value for name, value in values.items()}


def unescape(text):
    text = re.sub(r"\\\[u([0-9A-F]+)\]", lambda m: chr(int(m[1], 16)), text)
    return text.replace("\\(dq", '"').replace("\\e", "\\")


def defaults_of_the_page():
    page = (build_directory() / "docs/postconf.5").read_text()
    entries = re.findall(r"^\.It (?:Ar service Ns )?Va (\w+)\nDefault:\n(.*)$", page, re.M)
    values = {}
    for name, line in entries:
        assert name not in values
        quoted = re.fullmatch(r'\.Ql "\\&(.*)" \.', line)
        values[name] = unescape(quoted[1]) if quoted else "" if line == "empty." else line
    return values


def test_every_default(tmp_path):
    program, page = defaults_of_the_program(tmp_path), defaults_of_the_page()
    assert len(page) > 920
    assert set(program) == set(page)
    wrong = {name: (page[name], program[name]) for name in page
             if name not in HOST and " ".join(page[name].split()) != program[name]}
    assert wrong == {}


@pytest.fixture
def tree(tmp_path):
    shutil.copytree(ROOT / "src/conf", tmp_path / "src/conf")
    shutil.copytree(ROOT / "docs/manual", tmp_path / "docs/manual")
    return tmp_path


def check(tree, what="check"):
    done = subprocess.run([*TOOL, what, tree, build_directory() / "build_config.h", *([tree / "page"] * (what != "check"))],
                          capture_output=True, text=True)
    return done.returncode, done.stderr.splitlines()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_what_fits_is_no_problem(tree):
    assert check(tree) == (0, [])


FAULTS = {
    "a row without text": ("src/conf/params.def", "PARAM(biff,", "PARAM(a_new_one,",
                           ["a_new_one: no text in docs/manual/parameters",
                            "docs/manual/local.8:[0-9]+: biff is no parameter",
                            "docs/manual/parameters/2-b.txt:[0-9]+: biff is no parameter"]),
    "a service row without text": ("src/conf/service_params.def", '"_time_limit"', '"_time_limits"',
                                   ["_time_limits: no text in docs/manual/parameters",
                                    "docs/manual/parameters/c-d.txt:[0-9]+: _time_limit is no parameter; put words .*",
                                    "docs/manual/parameters/service.txt:[0-9]+: _time_limit is no parameter"]),
    "a text without row": ("docs/manual/parameters/2-b.txt", "[biff]", "[boff]\nx\n\n[biff]",
                           ["docs/manual/parameters/2-b.txt:[0-9]+: boff is no parameter"]),
    "an empty text": ("docs/manual/parameters/2-b.txt", "[biff]", "[bounce_size_limit]\n\n[biff]",
                      ["docs/manual/parameters/2-b.txt:[0-9]+: bounce_size_limit is there twice"]),
    "a head that is none": ("docs/manual/parameters/2-b.txt", "[biff]", "[biff] since when",
                            ["docs/manual/parameters/2-b.txt:[0-9]+: malformed head",
                             "biff: no text in docs/manual/parameters"]),
    "a wrong name in a text": ("docs/manual/parameters/2-b.txt", "[biff]\n", "[biff]\nSee relay_hosts.\n",
                               ["docs/manual/parameters/2-b.txt:[0-9]+: relay_hosts is no parameter; put words .*"]),
    "like a row that is not": ("docs/manual/parameters/like.txt", "like smtp_bind_address\n", "like smtp_bind\n",
                               ["docs/manual/parameters/like.txt:[0-9]+: like smtp_bind, which has no text"]),
    "a wrong name in a page": ("docs/manual/qmgr.8", ".Sh DESCRIPTION\n", ".Sh DESCRIPTION\n.Va qmgr_speed\n",
                               ["docs/manual/qmgr.8:[0-9]+: qmgr_speed is no parameter"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_fit(tree, name):
    file, old, new, wanted = FAULTS[name]
    edit(tree / file, old, new)
    status, problems = check(tree)
    assert status == 1
    assert len(problems) == len(wanted), problems
    for pattern, problem in zip(sorted(wanted), sorted(problems)):
        assert re.fullmatch(pattern, problem)
    if "page" not in name:  # and then it does not build
        assert check(tree, "postconf")[0] == 1


def test_status_and_advice():
    """What a reader must know stands with the entry."""
    page = (build_directory() / "docs/postconf.5").read_text()
    entries = dict(re.findall(r"^\.It Va (\w+)\n(.*?)(?=^\.It|^\.El)", page, re.M | re.S))
    rows = dict(re.findall(r"^PARAM\((\w+), .*, (\w+), \".*\"\)$", (ROOT / "src/conf/params.def").read_text(), re.M))
    for name, status in rows.items():
        assert (".Em Not supported yet ." in entries[name]) == (status == "PENDING"), name
        assert ('.Em "\\&No effect here" :' in entries[name]) == (status == "INERT"), name
    assert ".Em Should not be set any more :\nspecify\n.Va smtp_tls_security_level ." in entries["smtp_use_tls"]
    assert "Still has its effect.\nInstead: specify\n.Va virtual_alias_maps ." in entries["virtual_maps"]
    assert "Has no effect.\nInstead: specify\n.Va daemon_directory ." in entries["program_directory"]


def test_html():
    folder = build_directory() / "docs"
    if not (folder / "index.html").exists():
        pytest.skip("built without mandoc")
    pages = {path.name: path.read_text() for path in folder.glob("*.html")}
    wanted = {path.name for path in (ROOT / "docs/manual").glob("*.[158]")} | {"postconf.5"}
    assert set(pages) == {f"{name}.html" for name in wanted} | {"index.html"}
    for name in wanted:
        assert f'href="{name}.html"' in pages["index.html"]
    anchors = re.findall(r' id="(\w+)"', pages["postconf.5.html"])
    assert set(defaults_of_the_page()) <= set(anchors)
    assert len(anchors) == len(set(anchors))
    for name, text in pages.items():
        assert '<meta name="viewport"' in text
        assert not re.search(r"<(script|link|img|iframe)\b|\bsrc=|@import|url\(|href=\"[a-z]+:", text), name
        for file, anchor in re.findall(r'href="([^"#]*)#?([^"]*)"', text):
            assert not file or file in pages, (name, file)
            if anchor:
                assert f'id="{html.escape(html.unescape(anchor))}"' in pages[file or name], (name, file, anchor)


def test_man_page_is_readable():
    """man(1)'s formatter takes all pages without a word, but for lines that cannot be broken."""
    groff = shutil.which("groff")
    if not groff:
        pytest.skip("no groff")
    for page in (*sorted((ROOT / "docs/manual").glob("*.[158]")), build_directory() / "docs/postconf.5"):
        done = subprocess.run([groff, "-mdoc", "-Tutf8", "-ww", "-k", page], capture_output=True, text=True)
        said = [line for line in done.stderr.splitlines() if "adjust line" not in line and "break line" not in line]
        assert (done.returncode, said) == (0, []), page
    assert "How many connections a client may have at a time" in " ".join(done.stdout.split())
