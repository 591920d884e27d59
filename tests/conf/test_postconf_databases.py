"""postconf looks into the files of database tables (mysql:/path ...), as Debian's Postfix 3.7 does; the settings it
knows for each type are those that the look-ups ask for."""
import os
import pathlib
import re
import subprocess

import pytest

from instance import build_directory

ORACLE = pathlib.Path(os.environ.get("ANGARIUM_ORACLE", "/nonexistent"))
SOURCE = pathlib.Path(__file__).resolve().parents[2] / "src"
NEEDED = {  # values that the clients insist on
    "bind": "no", "chase_referrals": "no", "dereference": "0", "start_tls": "no", "tls_require_cert": "no",
    "require_result_set": "no", "tls_verify_cert": "no", "scope": "sub", "version": "3", "memcache": "inet:127.0.0.1:9",
    "key_format": "%s", "key_digest": "", "backup": "static:a", "server_host": "127.0.0.1", "hosts": "127.0.0.1",
    "result_format": "%s", "result_filter": "%s", "query": "SELECT '%s'", "query_filter": "(a=%s)", "search_base": "dc=a",
    "domain": "", "idle_interval": "60", "retry_interval": "60", "line_size_limit": "1024", "data_size_limit": "10240",
    "timeout": "2", "ttl": "60", "flags": "0", "max_try": "1", "retry_pause": "1", "server_port": "9", "debuglevel": "0",
    "size_limit": "0", "recursion_limit": "10", "expansion_limit": "0", "sasl_minssf": "0", "encoding": "UTF8",
    "charset": "utf8mb4", "dbname": "d",
    "option_file": "/dev/null",
}


def rows():
    text = (SOURCE / "conf/database_types.c").read_text()
    common = dict(re.findall(r'#define (\w+_SETTINGS)[\s\\]*("[^"]*")', text))
    table = text[text.index("rows[] = {"):]
    result = {}
    for name, settings in re.findall(r'STR_INIT\("(\w+):"\),\s*STR_INIT\((.*?)\) \}', table, re.S):
        words = re.sub(r"\w+_SETTINGS", lambda match: common[match.group()], settings)
        result[name] = set("".join(re.findall(r'"([^"]*)"', words)).split())
    return result


def postconf(directory, *arguments, oracle=False):
    program = ORACLE / "usr/sbin/postconf" if oracle else build_directory() / "sbin/postconf"
    environment = {"LD_LIBRARY_PATH": str(ORACLE / "usr/lib/postfix")} if oracle else {**os.environ, "MAIL_CONFIG": ""}
    done = subprocess.run([program, "-c", directory, *arguments], env=environment, timeout=60, capture_output=True, text=True)
    errors = {re.sub(r"(overriding earlier entry: \w+).*", r"\1", line.replace(f"{program}: ", ""))
              for line in done.stderr.splitlines()}
    return done.returncode, {re.sub(r"(whitespace: ).*", r"\1", line) for line in errors}


FILE = "bogus = 1\nhosts = $x\nuser = u\nbogus = 2\nempty =\nquery = a\n b\n"
BOGUS = {f"warning: mysql:DIR/a.cf: unused parameter: {text}" for text in ("bogus=2", "empty=")}
BOGUS |= {"warning: DIR/a.cf, line 4: overriding earlier entry: bogus"}
CASES = [  # main.cf, master.cf, warnings of 3.7 and ours
    ("relay_domains = mysql:DIR/a.cf", "", BOGUS),
    ("relay_domains = proxy:mysql:DIR/a.cf, mysql:DIR/a.cf", "", BOGUS),
    ("relay_domains = unionmap:{mysql:DIR/a.cf,static:a}", "", BOGUS),
    ("smtpd_client_restrictions = check_client_access { proxy:mysql:DIR/a.cf, search_order = a }", "", BOGUS),
    ("own = mysql:DIR/a.cf\nrelay_domains = $own", "", BOGUS),
    ("own = mysql:DIR/a.cf", "", {"warning: DIR/main.cf: unused parameter: own=mysql:DIR/a.cf"}),
    ("", "smtp inet n - n - - smtpd -o relay_domains=$y -o y=mysql:DIR/a.cf", BOGUS),
    ("", "smtp inet n - n - - smtpd\n -o { smtpd_client_restrictions = check_client_access mysql:DIR/a.cf }", BOGUS),
    ("relay_domains = mysql:./a.cf mysql:a.cf", "", set()),
    ("relay_domains = sqlite:DIR/none memcache:DIR/none ldap:DIR", "", {
        'warning: open "sqlite" configuration "DIR/none": No such file or directory',
        'warning: open "memcache" configuration "DIR/none": No such file or directory',
        'warning: open "ldap" configuration "DIR": not a regular file'}),
    ("relay_domains = sqlite:DIR/server.cf", "",
     {f"warning: sqlite:DIR/server.cf: unused parameter: {text}" for text in ("hosts=a", "password=b")}),
    ("relay_domains = pgsql:DIR/indented.cf", "",
     {"warning: DIR/indented.cf: logical line must not start with whitespace: ",
      "warning: pgsql:DIR/indented.cf: unused parameter: bogus=1"}),
    ("relay_domains = pgsql:DIR/malformed.cf", "",
     {"fatal: DIR/malformed.cf, line 2: missing '=' after attribute name: \"no setting\""}),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_files(tmp_path, number):
    main_cf, master_cf, want = CASES[number]
    for name, text in (("a.cf", FILE), ("server.cf", "hosts = a\npassword = b\n"),
                       ("indented.cf", "  hosts = a\nbogus=1\n"), ("malformed.cf", "hosts = a\nno setting\n"),
                       ("main.cf", main_cf + "\n"), ("master.cf", master_cf + "\n")):
        (tmp_path / name).write_text(text.replace("DIR", str(tmp_path)))
    want = {line.replace("DIR", str(tmp_path)) for line in want}
    status, errors = postconf(tmp_path, "-n")
    errors = {re.sub(r" \(did you mean .*", "", line) for line in errors}
    if "ldap:DIR" in main_cf:  # ours says what it is
        errors = {line.replace("Is a directory", "not a regular file") for line in errors}
    assert errors == want
    assert status == any(line.startswith("fatal") for line in want)
    assert not any("unused" in line for line in postconf(tmp_path, "-nq")[1])
    assert postconf(tmp_path, "-d")[1] == set()
    if (ORACLE / "usr/sbin/postconf").exists():
        assert postconf(tmp_path, "-n", oracle=True) == (status, want)


def test_secret_is_not_shown(tmp_path):
    """Nobody needs to see the value of a setting that is there twice."""
    (tmp_path / "main.cf").write_text(f"relay_domains = mysql:{tmp_path}/a.cf\n")
    (tmp_path / "master.cf").write_text("")
    (tmp_path / "a.cf").write_text("password = geheim1\npassword = geheim2\n")
    done = subprocess.run([build_directory() / "sbin/postconf", "-nc", tmp_path], capture_output=True, text=True, timeout=60)
    assert "overriding earlier entry: password" in done.stderr and "geheim" not in done.stderr


@pytest.mark.parametrize("kind", ["ldap", "mysql", "pgsql", "sqlite", "memcache"])
def test_names_are_asked_for(tmp_path, kind):
    """No name is in the row that the type itself calls unused."""
    known = subprocess.run([build_directory() / "sbin/postconf", "-m"], capture_output=True, text=True, timeout=60).stdout
    if kind not in known.split():
        pytest.skip(f"built without {kind}")
    (tmp_path / "main.cf").write_text(f"daemon_directory = {build_directory()}/libexec\n")
    (tmp_path / "master.cf").write_text("")
    path = tmp_path / "t.cf"
    path.write_text("".join(f"{name} = {NEEDED.get(name, 'x')}\n" for name in sorted(rows()[kind])) + "bogus = 1\n")
    done = subprocess.run([build_directory() / "sbin/postmap", "-c", tmp_path, "-q", "a", f"{kind}:{path}"],
                          capture_output=True, text=True, timeout=60)
    assert re.findall(r"unused parameter: (\w+)", done.stderr) == ["bogus"], done.stderr


@pytest.mark.parametrize("kind, files", [
    ("ldap", "ldap query"), ("mysql", "mysql sql query"), ("pgsql", "pgsql sql query"), ("sqlite", "sqlite sql query"),
    ("memcache", "memcache")])
def test_asked_for_names_are_known(kind, files):
    every = set()
    for file in files.split():
        text = (SOURCE / f"lookup/{file}.c").read_text()
        names = set(re.findall(r'\bsource_\w+\([^,()]*, "(\w+)"', text))
        assert names
        every |= names
    shared = set().union(*(rows()[other] for other in ("mysql", "pgsql", "sqlite", "ldap")))
    assert every - rows()[kind] <= shared - rows()[kind]  # query.c and sql.c ask for what one of their types knows
    own = set(re.findall(r'\bsource_\w+\([^,()]*, "(\w+)"', (SOURCE / f"lookup/{files.split()[0]}.c").read_text()))
    assert own <= rows()[kind]
