"""Each type of `postconf -m`, asked by postmap -q and by a running daemon; and no type beside those the build has."""
import os
import pathlib
import pwd
import re
import shutil
import smtplib
import sqlite3
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from instance import Instance, build_directory, free_port  # noqa: E402

ALWAYS = set("btree cidr debug environ fail hash inline internal lmdb pcre pipemap proxy randmap regexp socketmap static "
             "tcp texthash unionmap unix".split())
OPTIONAL = {"cdb": "HAVE_CDB", "ldap": "HAVE_LDAP", "memcache": "HAVE_MEMCACHE", "mysql": "HAVE_MYSQL",
            "pgsql": "HAVE_PGSQL", "sqlite": "HAVE_SQLITE"}
SERVERS = {"ldap", "memcache", "mysql", "pgsql", "socketmap", "tcp"}  # none answers here: an error, which names the table
KEY = "foo"  # a command, as smtpd asks for it


def types():
    done = subprocess.run([str(build_directory() / "sbin/postconf"), "-m"], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def built_in():
    text = (build_directory() / "build_config.h").read_text()
    return {name for name, macro in OPTIONAL.items() if re.search(rf"(?m)^#define {macro}\b", text)}


def test_postconf_lists_the_types_of_the_build():
    assert types() == sorted(ALWAYS | built_in())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("types")
    for each in (path, *path.parents):
        if each.owner() == pwd.getpwuid(os.geteuid()).pw_name and str(each).startswith("/tmp/"):
            each.chmod(0o755)
    return path


def spec_of(kind, folder):
    """A table in which KEY has a value; None: the type has no such."""
    (folder / "text").write_text(f"{KEY} value\n")
    (folder / "rules").write_text("/^foo$/ value\n")
    (folder / "cidr").write_text("127.0.0.0/8 value\n")
    dead = free_port()
    (folder / f"{kind}.cf").write_text({
        "sqlite": f"dbpath = {folder}/data.db\nquery = SELECT value FROM t WHERE key = '%s'\n",
        "ldap": f"server_host = ldap://127.0.0.1:{dead}\nsearch_base = dc=x\ntimeout = 2\n",
        "memcache": f"memcache = inet:127.0.0.1:{dead}\nmax_try = 1\n",
        "mysql": f"hosts = 127.0.0.1:{dead}\ndbname = x\nquery = SELECT 1\n",
        "pgsql": f"hosts = 127.0.0.1:{dead}\ndbname = x\nquery = SELECT 1\n"}.get(kind, ""))
    if kind == "sqlite":
        (folder / "data.db").unlink(missing_ok=True)
        with sqlite3.connect(folder / "data.db") as db:
            db.execute("CREATE TABLE t (key, value)")
            db.execute("INSERT INTO t VALUES (?, 'value')", (KEY,))
    if kind in ("ldap", "memcache", "mysql", "pgsql", "sqlite"):
        return f"{kind}:{folder}/{kind}.cf"
    return {"btree": f"btree:{folder}/btree", "cdb": f"cdb:{folder}/cdb", "hash": f"hash:{folder}/hash",
            "lmdb": f"lmdb:{folder}/lmdb", "texthash": f"texthash:{folder}/text", "cidr": f"cidr:{folder}/cidr",
            "regexp": f"regexp:{folder}/rules", "pcre": f"pcre:{folder}/rules", "debug": f"debug:texthash:{folder}/text",
            "environ": "environ:x", "fail": "fail:why", "inline": f"inline:{{{KEY}=value}}", "internal": "internal:here",
            "pipemap": f"pipemap:{{texthash:{folder}/text}}", "proxy": f"proxy:texthash:{folder}/text",
            "randmap": "randmap:{value}", "static": "static:value", "unionmap": f"unionmap:{{texthash:{folder}/text}}",
            "unix": "unix:passwd.byname",
            "tcp": f"tcp:127.0.0.1:{dead}", "socketmap": f"socketmap:inet:127.0.0.1:{dead}:x"}[kind]


@pytest.fixture(scope="module")
def system(folder):
    """One instance in which a service of its own asks each type: which commands do nothing, or which clients are ours."""
    tables = {kind: spec_of(kind, folder) for kind in types()}
    ports = {kind: free_port() for kind in tables}
    services = []
    for kind, port in ports.items():
        list_name = "mynetworks" if kind == "cidr" else "smtpd_noop_commands"
        services.append(f"127.0.0.1:{port} inet n - n - - smtpd -o {list_name}=${kind}_spec\n")
    main_cf = "".join(f"{kind}_spec = {spec}\n" for kind, spec in tables.items())
    with_values = "proxy_read_maps = $proxy_spec\nimport_environment = MAIL_CONFIG foo=value\n"
    instance = Instance(main_cf=main_cf + with_values, master_extra="".join(services), name="types")
    for kind in ("btree", "cdb", "hash", "lmdb"):
        if kind in tables:
            shutil.copy(folder / "text", folder / kind)
            done = instance.command("postmap", f"{kind}:{folder}/{kind}", capture_output=True)
            assert done.returncode == 0, done.stderr
    try:
        yield instance.start(), tables, ports
    finally:
        print(instance.log())
        instance.stop()


@pytest.mark.parametrize("kind", types())
def test_postmap_opens_it(system, kind, monkeypatch):
    instance, tables, _ = system
    monkeypatch.setenv(KEY, "value")
    key = {"cidr": "127.0.0.1", "unix": "root"}.get(kind, KEY)
    done = instance.command("postmap", "-q", key, tables[kind], capture_output=True)
    if kind in SERVERS | {"fail"}:
        assert (done.returncode, done.stdout) == (1, "") and tables[kind] in done.stderr and "unsupported" not in done.stderr
    elif kind == "internal":
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    elif kind == "unix":
        assert done.returncode == 0 and done.stdout.startswith("root:")
    else:
        assert (done.returncode, done.stdout) == (0, "value\n"), done.stderr


@pytest.mark.parametrize("kind", types())
def test_a_daemon_opens_it(system, kind):
    instance, tables, ports = system
    before = len(instance.log())
    s = smtplib.SMTP("127.0.0.1", ports[kind], timeout=90)
    try:
        if kind == "cidr":
            s.helo("client.example")
            s.mail("a@there.example")
            assert s.rcpt("x@elsewhere.example")[0] == 250
            return
        known, other = s.docmd("root" if kind == "unix" else KEY)[0], s.docmd("XYZZY")[0]
    finally:
        s.close()
    if kind in SERVERS | {"fail"}:
        assert (known, other) == (500, 500)
        instance.wait_log(f"smtpd_noop_commands: {tables[kind]}: table lookup problem", 20)
    else:
        assert known == (500 if kind == "internal" else 250)
        assert other == (250 if kind in ("static", "randmap") else 500)
        assert f"{tables[kind]}: table lookup problem" not in instance.log()[before:]
