"""mysql:, pgsql: and sqlite: tables against real servers, and the same questions beside Debian's postmap."""
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from instance import build_directory, changed, free_port, wait_for  # noqa: E402
from oracle import Oracle  # noqa: E402
from sql_servers import SECRET, MariaDB, PostgreSQL  # noqa: E402

ROWS = [  # key, value, more
    ("a@b.c", "r@x.y", "w"), ("a@b.c", "", "z@"), ("u", None, "@d"), ("i'j", "quote", ""), ("p%q", "%s", None),
    ("@b.c", "at", "x"), ("back\\slash", "bs", None), ('dq"', "dq", None), ("müller", "umläut", None), ("two,x", "a,b", None),
    ("end\\", "end", None), ("em😀", "four", None), ("b.c", "domain", None), ("only@b.c", "one@x.y", None), ("hidden", "no", "off"),
]


def literal(value, backslash=False):
    if value is None:
        return "NULL"
    return "'" + (value.replace("\\", "\\\\") if backslash else value).replace("'", "''") + "'"


def rows_sql(backslash):
    rows = ",".join("(" + ",".join(literal(c, backslash) for c in row) + ")" for row in ROWS)
    return f"INSERT INTO t VALUES {rows};"


@pytest.fixture(scope="session")
def mariadb():
    server = MariaDB()
    try:
        server.sql(f"""\
CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
USE mail;
CREATE USER mail IDENTIFIED BY {literal(SECRET, True)};
CREATE USER tls IDENTIFIED BY {literal(SECRET, True)} REQUIRE SSL;
CREATE USER known IDENTIFIED BY {literal(SECRET, True)} REQUIRE SUBJECT '/CN=client.example';
GRANT ALL ON mail.* TO mail, tls, known;
CREATE TABLE t (k VARCHAR(300), v VARCHAR(300), w VARCHAR(300));
{rows_sql(True)}
DELIMITER //
CREATE PROCEDURE one(IN p VARCHAR(300)) BEGIN SELECT v FROM t WHERE k = p; END//
CREATE PROCEDURE two(IN p VARCHAR(300)) BEGIN SELECT v FROM t WHERE k = p; SELECT w FROM t WHERE k = p; END//
CREATE PROCEDURE nothing(IN p VARCHAR(300)) BEGIN SET @x = p; END//
CREATE PROCEDURE bad(IN p VARCHAR(300)) BEGIN SELECT v FROM t WHERE k = p; SIGNAL SQLSTATE '45000'; END//
""")
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session")
def postgresql():
    server = PostgreSQL()
    try:
        server.sql(f"CREATE USER mail PASSWORD {literal(SECRET)}; CREATE DATABASE mail OWNER mail;")
        server.sql("CREATE TABLE t (k TEXT, v TEXT, w TEXT); GRANT ALL ON t TO mail;" + rows_sql(False) + """
CREATE FUNCTION value_of(TEXT) RETURNS SETOF TEXT AS 'SELECT v FROM t WHERE k = $1' LANGUAGE sql;
CREATE FUNCTION nothing(TEXT) RETURNS void AS 'BEGIN RETURN; END' LANGUAGE plpgsql;
""", "mail")
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session")
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="sql-tables-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def make_sqlite(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (k TEXT, v TEXT, w TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?, ?)", ROWS)
    db.close()


@pytest.fixture(scope="session")
def sqlite(folder):
    make_sqlite(folder / "data.db")
    return folder / "data.db"


class Postmap:
    """Ours: `ask(table, key)` gives (status, output, errors)."""

    def __init__(self, folder):
        self.etc = folder / "etc"
        self.etc.mkdir(exist_ok=True)
        self.build = build_directory()
        self.set("")

    def set(self, main_cf):
        (self.etc / "main.cf").write_text(f"""\
compatibility_level = 3.6
daemon_directory = {self.build}/libexec
command_directory = {self.build}/sbin
{main_cf}
""")

    def ask(self, table, key):
        return self.run(["-q", key, table])

    def ask_many(self, table, keys):
        return self.run(["-q", "-", table], "".join(key + "\n" for key in keys))

    def run(self, args, data=None):
        done = subprocess.run([str(self.build / "sbin/postmap"), *args], input=data and data.encode(errors="surrogateescape"),
                              capture_output=True, timeout=60, env={**os.environ, "MAIL_CONFIG": str(self.etc)})
        return done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="replace")


@pytest.fixture(scope="session")
def postmap(folder):
    return Postmap(folder)


@pytest.fixture(scope="session")
def basic(mariadb, postgresql, sqlite):
    """Per kind, the settings to reach the server, and a query."""
    common = {"query": "SELECT v FROM t WHERE k = '%s'"}
    login = {**common, "user": "mail", "password": SECRET, "dbname": "mail"}
    return {"mysql": {"hosts": f"inet:127.0.0.1:{mariadb.port}", **login},
            "pgsql": {"hosts": f"inet:127.0.0.1:{postgresql.port}", **login}, "sqlite": {"dbpath": sqlite, **common}}


def write_table(path, settings):
    path.write_text("".join(f"{name} = {value}\n" for name, value in settings.items() if value is not None))


@pytest.fixture
def table(folder, basic):
    """table("mysql", query="...", ...): writes a file with these and, where they are not among them, the basic ones; None
    leaves one out. Gives "mysql:/path"."""
    made = []

    def make(kind, **settings):
        path = folder / f"{kind}-{len(made)}.cf"
        made.append(path)
        write_table(path, {**basic[kind], **settings})
        return f"{kind}:{path}"

    yield make
    for path in made:
        path.unlink()


KINDS = ["mysql", "pgsql", "sqlite"]
SERVERS = ["mysql", "pgsql"]


def found(answer, value):
    assert answer == (0, value + "\n", "")


def not_found(answer):
    assert answer == (1, "", "")


def failed(answer, *texts):
    status, out, err = answer
    assert status == 1 and out == "" and "fatal" in err, answer
    for text in texts:
        assert text in err
    assert SECRET not in err


# --- settings, each ---

@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_folded(table, postmap, kind):
    found(postmap.ask(table(kind), "ONLY@B.C"), "one@x.y")


@pytest.mark.parametrize("kind", KINDS)
def test_read_only(table, postmap, kind):
    status, _, err = postmap.run([table(kind)], "k v\n")
    assert status == 1 and "fatal" in err
    status, _, err = postmap.run(["-d", "only@b.c", table(kind)])
    assert status == 1 and err
    found(postmap.ask(table(kind), "only@b.c"), "one@x.y")


@pytest.mark.parametrize("kind", KINDS)
def test_older_query(table, postmap, kind):
    older = table(kind, query=None, table="t", select_field="v", where_field="k", additional_conditions="AND v <> 'no'")
    found(postmap.ask(older, "i'j"), "quote")
    not_found(postmap.ask(older, "hidden"))
    failed(postmap.ask(table(kind, query=None, select_field="v", where_field="k"), "a"), "table")


@pytest.mark.parametrize("kind", KINDS)
def test_domain(table, postmap, kind):
    only = table(kind, domain="x.y, b.c")
    found(postmap.ask(only, "only@b.c"), "one@x.y")
    for key in ("@b.c", "b.c", "hidden"):
        not_found(postmap.ask(only, key))
    not_found(postmap.ask(table(kind, domain="x.y"), "only@b.c"))


@pytest.mark.parametrize("kind", KINDS)
def test_result_format(table, postmap, kind):
    found(postmap.ask(table(kind, result_format="smtp:[%d]:%u for %U at %1, 100%%"), "only@b.c"),
          "smtp:[x.y]:one for only at c, 100%")


@pytest.mark.parametrize("kind", KINDS)
def test_expansion_limit(table, postmap, kind):
    query = "SELECT v FROM t WHERE k IN ('%s', 'hidden')"
    found(postmap.ask(table(kind, query=query, expansion_limit=2), "only@b.c"), "one@x.y,no")
    failed(postmap.ask(table(kind, query=query, expansion_limit=1), "only@b.c"), "expansion_limit")


@pytest.mark.parametrize("kind", KINDS)
def test_main_cf_form(table, postmap, kind):
    path = pathlib.Path(table(kind).split(":", 1)[1])
    settings = "".join(f"users_{line}\n" for line in path.read_text().splitlines())
    postmap.set(settings.replace("= SELECT v", "= $verb v") + "verb = SELECT\n")
    try:
        found(postmap.ask(f"{kind}:users", "only@b.c"), "one@x.y")
    finally:
        postmap.set("")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", [{"query": "SELECT '%x'"}, {"result_format": "%"}, {"expansion_limit": "many"}])
def test_bad_settings(table, postmap, kind, setting):
    failed(postmap.ask(table(kind, **setting), "a"), f"{kind}-0.cf, line", *setting)


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("setting", [{"retry_interval": "0"}, {"idle_interval": "soon"}, {"hosts": "a:b c"},
                                     {"dbname": None}, {"query": None}])
def test_bad_server_settings(table, postmap, kind, setting):
    failed(postmap.ask(table(kind, **setting), "a"), f"{kind}-0.cf", *(["table"] if "query" in setting else setting))


def test_unknown_setting_is_named_without_its_value(table, postmap):
    status, out, err = postmap.ask(table("mysql", pasword="hush"), "only@b.c")
    assert (status, out) == (0, "one@x.y\n")
    assert "unused parameter: pasword" in err and "hush" not in err


@pytest.mark.parametrize("kind", SERVERS)
def test_login(table, postmap, kind):
    failed(postmap.ask(table(kind, password="wrong"), "a"))
    failed(postmap.ask(table(kind, user="nosuch"), "a"))
    failed(postmap.ask(table(kind, dbname="nosuch"), "a"))


@pytest.mark.parametrize("kind", SERVERS)
def test_several_columns_are_joined(table, postmap, kind):
    found(postmap.ask(table(kind, query="SELECT v, w FROM t WHERE k = '%s' ORDER BY v DESC"), "@b.c"), "at,x")


# --- mysql ---

def test_mysql_unix_socket(table, postmap, mariadb):
    found(postmap.ask(table("mysql", hosts=f"unix:{mariadb.socket}"), "only@b.c"), "one@x.y")


def test_mysql_result_set(table, postmap):
    call = "CALL nothing('%s')"
    failed(postmap.ask(table("mysql", query=call), "a"), "require_result_set")
    not_found(postmap.ask(table("mysql", query=call, require_result_set="no"), "a"))
    failed(postmap.ask(table("mysql", require_result_set="perhaps"), "a"), "require_result_set")


def test_mysql_procedures(table, postmap):
    found(postmap.ask(table("mysql", query="CALL one('%s')"), "i'j"), "quote")
    failed(postmap.ask(table("mysql", query="CALL two('%s')"), "only@b.c"), "more than one result set")
    failed(postmap.ask(table("mysql", query="CALL bad('%s')"), "only@b.c"))
    failed(postmap.ask(table("mysql", query="SELECT v FROM t; SELECT '%s'"), "a"))


def test_mysql_charset(table, postmap):
    query = "SELECT @@character_set_client, '%s'"
    found(postmap.ask(table("mysql", query=query), "ü"), "utf8mb4,ü")
    found(postmap.ask(table("mysql", query=query, charset="latin1"), "a"), "latin1,a")
    failed(postmap.ask(table("mysql", charset="klingon"), "a"), "charset")


def test_mysql_option_file(table, postmap, folder, mariadb):
    options = folder / "my.cnf"
    password = SECRET.replace("\\", "\\\\")
    options.write_text(f'[client]\nuser = mail\n[mail]\npassword = "{password}"\nport = {mariadb.port}\n')
    bare = {"user": None, "password": None, "hosts": "127.0.0.1"}
    found(postmap.ask(table("mysql", option_file=options, option_group="mail", **bare), "only@b.c"), "one@x.y")
    options.write_text(options.read_text().replace("[mail]\n", ""))
    found(postmap.ask(table("mysql", option_file=options, **bare), "only@b.c"), "one@x.y")
    options.write_text(f"[client]\nuser = mail\nport = {mariadb.port}\n")
    failed(postmap.ask(table("mysql", option_file=options, **bare), "a"), "Access denied")
    failed(postmap.ask(table("mysql", option_file=folder / "nosuch.cnf"), "a"), "option_file", "No such file")


CIPHER = "SELECT variable_value, '%s' FROM information_schema.session_status WHERE variable_name = 'ssl_cipher'"


def over_tls(answer):
    status, out, err = answer
    assert status == 0 and out.startswith("TLS_") and out.endswith(",a\n"), answer
    return out.split(",")[0]


def test_mysql_tls(table, postmap, mariadb, folder):
    over_tls(postmap.ask(table("mysql", query=CIPHER, user="tls", tls_CAfile=mariadb.directory / "cert.pem"), "a"))
    failed(postmap.ask(table("mysql", query=CIPHER, user="tls"), "a"), "Access denied")
    failed(postmap.ask(table("mysql", tls_CAfile=folder / "nosuch.pem"), "a"))
    failed(postmap.ask(table("mysql", tls_verify_cert="perhaps"), "a"), "tls_verify_cert")


def test_mysql_tls_verify(table, postmap, mariadb):
    own, other = mariadb.directory / "cert.pem", mariadb.directory / "client.pem"
    hosts = f"127.0.0.2:{mariadb.port}"  # the certificate is not for this address
    over_tls(postmap.ask(table("mysql", query=CIPHER, tls_CAfile=own, tls_verify_cert="yes"), "a"))
    failed(postmap.ask(table("mysql", tls_CAfile=own, tls_verify_cert="yes", hosts=hosts), "a"), "connect: ")
    failed(postmap.ask(table("mysql", tls_CAfile=other, tls_verify_cert="yes"), "a"), "connect: ")
    failed(postmap.ask(table("mysql", tls_verify_cert="yes"), "a"), "connect: ")
    found(postmap.ask(table("mysql", hosts=hosts), "only@b.c"), "one@x.y")


def test_mysql_tls_folder(table, postmap, mariadb, folder):
    certificates = folder / "certificates"
    certificates.mkdir()
    settings = {"query": CIPHER, "tls_CApath": certificates, "tls_verify_cert": "yes"}
    failed(postmap.ask(table("mysql", **settings), "a"), "connect: ")
    shutil.copy(mariadb.directory / "cert.pem", certificates)
    subprocess.run(["openssl", "rehash", str(certificates)], check=True)
    over_tls(postmap.ask(table("mysql", **settings), "a"))


def test_mysql_tls_client_certificate(table, postmap, mariadb):
    key, certificate = mariadb.directory / "client-key.pem", mariadb.directory / "client.pem"
    settings = {"query": CIPHER, "user": "known", "tls_CAfile": mariadb.directory / "cert.pem"}
    over_tls(postmap.ask(table("mysql", **settings, tls_key_file=key, tls_cert_file=certificate), "a"))
    failed(postmap.ask(table("mysql", **settings), "a"), "Access denied")
    failed(postmap.ask(table("mysql", **settings, tls_key_file=mariadb.directory / "key.pem", tls_cert_file=certificate), "a"),
           "connect: ")


def test_mysql_tls_ciphers(table, postmap):
    for cipher in ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"):
        assert over_tls(postmap.ask(table("mysql", query=CIPHER, tls_ciphers=cipher), "a")) == cipher
    failed(postmap.ask(table("mysql", tls_ciphers="KLINGON"), "a"), "connect: ")


def test_mysql_without_tls(table, postmap, mariadb):
    """Whatever asks for TLS does not put up with less."""
    file = mariadb.directory / "cert.pem"
    mariadb.stop()
    mariadb.with_tls = False
    mariadb.start()
    try:
        for settings in ({"tls_CAfile": file}, {"tls_CApath": mariadb.directory}, {"tls_ciphers": "TLS_AES_128_GCM_SHA256"},
                         {"tls_cert_file": file, "tls_key_file": mariadb.directory / "key.pem"}):
            failed(postmap.ask(table("mysql", **settings), "only@b.c"), "connect: the server has no TLS")
        failed(postmap.ask(table("mysql", tls_verify_cert="yes"), "only@b.c"), "connect: ")
        found(postmap.ask(table("mysql", tls_verify_cert="no"), "only@b.c"), "one@x.y")
    finally:
        mariadb.stop()
        mariadb.with_tls = True
        mariadb.start()


# --- pgsql ---

def test_pgsql_unix_socket(table, postmap, postgresql):
    for prefix in ("unix:", ""):
        hosts = f"{prefix}{postgresql.directory}:{postgresql.port}"
        found(postmap.ask(table("pgsql", hosts=hosts), "only@b.c"), "one@x.y")


def uri(server, password=SECRET, scheme="postgresql"):
    from urllib.parse import quote
    return f"{scheme}://mail:{quote(password)}@127.0.0.1:{server.port}/mail"


def test_pgsql_uri(table, postmap, postgresql):
    nothing = {"user": None, "password": None, "dbname": None}
    for scheme in ("postgresql", "postgres"):
        found(postmap.ask(table("pgsql", hosts=uri(postgresql, scheme=scheme), **nothing), "only@b.c"), "one@x.y")
    found(postmap.ask(table("pgsql", hosts=uri(postgresql) + "?application_name=angarium",
                            query="SELECT current_setting('application_name'), '%s'", **nothing), "a"), "angarium,a")
    answer = postmap.ask(table("pgsql", hosts=uri(postgresql, "hush"), **nothing), "a")
    failed(answer, f"postgresql://127.0.0.1:{postgresql.port}")
    assert "hush" not in answer[2]
    answer = postmap.ask(table("pgsql", hosts="postgresql://mail:hush@[x", **nothing), "a")
    failed(answer, "malformed")
    assert "hush" not in answer[2]


def test_pgsql_encoding(table, postmap):
    query = "SELECT current_setting('client_encoding'), '%s'"
    found(postmap.ask(table("pgsql", query=query), "ü"), "UTF8,ü")
    found(postmap.ask(table("pgsql", query=query, encoding="LATIN1"), "a"), "LATIN1,a")
    failed(postmap.ask(table("pgsql", encoding="klingon"), "a"), "encoding")


def test_pgsql_select_function(table, postmap):
    found(postmap.ask(table("pgsql", query=None, select_function="value_of"), "i'j"), "quote")
    found(postmap.ask(table("pgsql", select_function="nosuch"), "only@b.c"), "one@x.y")  # query counts more


def test_pgsql_statements(table, postmap):
    found(postmap.ask(table("pgsql", query="SELECT 1; SELECT '%s'"), "a"), "a")
    not_found(postmap.ask(table("pgsql", query="SELECT '%s'; SELECT 1 WHERE false"), "a"))
    not_found(postmap.ask(table("pgsql", query="SELECT nothing('%s')"), "a"))
    failed(postmap.ask(table("pgsql", query="COPY t TO STDOUT"), "a"))
    failed(postmap.ask(table("pgsql", query="SELECT '%s'; SELECT nosuch"), "a"), "nosuch")
    failed(postmap.ask(table("pgsql", query=";"), "a"))


# --- sqlite ---

def test_sqlite_missing_file_is_not_made(table, postmap, folder):
    failed(postmap.ask(table("sqlite", dbpath=folder / "nosuch.db"), "a"), "nosuch.db")
    assert not (folder / "nosuch.db").exists()
    failed(postmap.ask(table("sqlite", dbpath=None), "a"), "dbpath")
    (folder / "text").write_text("this is no database, however long it may be\n" * 100)
    failed(postmap.ask(table("sqlite", dbpath=folder / "text"), "a"))


def test_sqlite_is_read_only(table, postmap, sqlite):
    failed(postmap.ask(table("sqlite", query="DELETE FROM t WHERE k = '%s'"), "only@b.c"), "readonly")
    found(postmap.ask(table("sqlite"), "only@b.c"), "one@x.y")


def test_sqlite_waits_for_a_writer(table, postmap, sqlite):
    other = sqlite3.connect(sqlite, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    asking = subprocess.Popen([str(postmap.build / "sbin/postmap"), "-q", "only@b.c", table("sqlite")], text=True,
                              stdout=subprocess.PIPE, env={**os.environ, "MAIL_CONFIG": str(postmap.etc)})
    time.sleep(0.3)
    other.execute("COMMIT")
    assert asking.communicate(timeout=60)[0] == "one@x.y\n"
    other.close()


def test_sqlite_double_quotes(table, postmap):
    spec = table("sqlite", query='SELECT v FROM t WHERE k = "%s"')
    status, out, err = postmap.ask(spec, "only@b.c")
    assert (status, out) == (0, "one@x.y\n") and "double quotes" in err
    failed(postmap.ask(spec, 'x" OR "1'), "cannot be put into the query")
    found(postmap.ask(table("sqlite", query='SELECT "v" FROM t WHERE k = \'%s\''), "only@b.c"), "one@x.y")


# --- several hosts ---

@pytest.mark.parametrize("kind", SERVERS)
def test_failover(table, basic, postmap, kind):
    """The first of them by rule (a socket) is not there: it is asked once, then rests."""
    hosts = f"unix:/nonexistent/dead, {basic[kind]['hosts']}"
    status, out, err = postmap.ask_many(table(kind, hosts=hosts), ["only@b.c", "hidden"])
    assert (status, out) == (0, "only@b.c\tone@x.y\nhidden\tno\n")
    assert err.count("server unix:/nonexistent/dead") == 1


@pytest.mark.parametrize("kind", SERVERS)
def test_no_host(table, postmap, kind):
    failed(postmap.ask(table(kind, hosts=f"127.0.0.1:{free_port()} 127.0.0.1:{free_port()}"), "a"), "127.0.0.1")


# --- hostile keys, beside Debian's ---

KEYS = [row[0] for row in ROWS] + [
    "", "A@B.C", "none", "' OR '1'='1", "'; DROP TABLE t; --", "\\' OR 1=1 -- ", '" OR ""="', "%s", "%", "%%", "%u@%d",
    "a@", "@", "a@b@c", "a@b..c", "a@.b.c.", "x" * 300 + "@b.c", "y" * 5000, "\\", "\\\\", "'", "''", "`", "$1", "a\tb", "a b ",
    "ü@ö.example", "\u200b", "MÜLLER", "a\x01b", "a;b", "/* */", "#", "-- ", "\udcff", "a\udcc3", "{}", "a@[127.0.0.1]",
]
TABLES = [
    ("plain", {}),
    ("columns", {"query": "SELECT v, w FROM t WHERE k = '%s' ORDER BY v, w"}),
    ("parts", {"query": "SELECT '%u', '%d' FROM t WHERE k = 'hidden'"}),
    ("user", {"query": "SELECT '%u' FROM t WHERE k = 'hidden'"}),
    ("echo", {"query": "SELECT '%s' FROM t WHERE k = 'hidden'"}),
    ("labels", {"query": "SELECT '%2.%1' FROM t WHERE k = 'hidden'"}),
    ("upper", {"query": "SELECT '%S%U%D' FROM t WHERE k = 'hidden'"}),
    ("percent", {"query": "SELECT v FROM t WHERE k LIKE '%%%u'", "result_format": "100%% %s"}),
    ("format", {"result_format": "<%s|%u>"}),
    ("of key", {"result_format": "%s/%S/%U"}),
    ("domain of key", {"result_format": "%s/%D/%1"}),
    ("domain of value", {"result_format": "%d"}),
    ("domain", {"domain": "b.c"}),
    ("domain list", {"domain": "!b.c, static:all"}),
    ("limit", {"query": "SELECT v FROM t WHERE k LIKE '%%%u%%'", "expansion_limit": "1"}),
    ("older", {"query": None, "table": "t", "select_field": "v", "where_field": "k", "additional_conditions": "AND v <> 'no'"}),
    ("no rows", {"query": "SELECT v FROM t WHERE k = '%s' AND v = 'nosuch'"}),
    ("syntax", {"query": "SELEC '%s'"}),
    ("template", {"query": "SELECT '%x'"}),
    ("empty format", {"result_format": ""}),
]


@pytest.fixture(scope="session")
def debian():
    why = Oracle.why_not()
    if why:
        pytest.skip(why)
    oracle = Oracle()
    oracle.write()
    etc = oracle.directory / "etc"
    modules = oracle.root / "usr/lib/postfix"
    (etc / "postfix-files").touch()
    (etc / "dynamicmaps.cf").write_text(
        "".join(f"{kind} {modules}/postfix-{kind}.so dict_{kind}_open\n" for kind in KINDS))
    with open(etc / "main.cf", "a") as f:
        f.write(f"meta_directory = {etc}\n")

    def run(args, data=None):
        done = subprocess.run(["postmap", *args], executable=str(oracle.root / "usr/sbin/postmap"), env=oracle.environment(),
                              capture_output=True, timeout=60, input=data and data.encode(errors="surrogateescape"))
        return done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="replace")

    yield run
    oracle.stop()


# What goes through the server differs between them; the rest is the same code for all.
OF_SERVER = {"plain", "columns", "echo", "percent", "format", "older"}
BESIDE = [(kind, *row) for kind in KINDS for row in TABLES if kind == "mysql" or row[0] in OF_SERVER]


@pytest.fixture(scope="session")
def answers(folder, basic, postmap, debian):
    """Both programs' to all keys in one run (where an error ends it, it does so at the same key for both), of all tables at
    the same time: Debian's sleeps for a second before it ends in an error. Its client speaks LATIN1 to PostgreSQL, which
    was the rule before Postfix 3.8."""
    keys = "".join(key + "\n" for key in KEYS)

    def ask(kind, name, settings):
        path = folder / f"beside-{kind}-{name}.cf"
        write_table(path, {**basic[kind], **settings, **({"encoding": "LATIN1"} if kind == "pgsql" else {})})
        return [run(["-q", "-", f"{kind}:{path}"], keys) for run in (postmap.run, debian)]

    with ThreadPoolExecutor(16) as pool:
        yield {row[:2]: pool.submit(ask, *row) for row in BESIDE}


@pytest.mark.parametrize("kind, name", [row[:2] for row in BESIDE])
def test_beside_debian(answers, kind, name):
    ours, theirs = answers[kind, name].result()
    assert ours[0] == theirs[0] and ("fatal" in ours[2]) == ("fatal" in theirs[2]), (ours, theirs)
    if "fatal" not in theirs[2]:  # or Debian's keeps back what it had found
        assert ours[1] == theirs[1], (ours[2], theirs[2])


# --- under a running mail system ---

def recipient_code(mail, recipient):
    with mail.smtp() as smtp:
        smtp.helo("client.example")
        smtp.mail("a@elsewhere.example")
        return smtp.rcpt(recipient)[0]


@pytest.mark.parametrize("kind", SERVERS)
def test_server_restarts_under_mail(make_instance, table, request, kind):
    """While the database is down mail is put off with 451; when it is back, the next mail is taken, without a restart."""
    server = request.getfixturevalue({"mysql": "mariadb", "pgsql": "postgresql"}[kind])
    spec = table(kind, query="SELECT 'taken' FROM t WHERE k = '%s' AND v LIKE 'one%%'", retry_interval=1)
    mail = make_instance(main_cf=f"relay_domains = b.c\nrelay_recipient_maps = {spec}\ndefault_transport = discard\n"
                                 "relay_transport = discard\n")

    def code(recipient):
        return recipient_code(mail, recipient)

    assert code("only@b.c") == 250
    assert code("nosuch@b.c") == 550
    pids = mail.pids("proxymap")
    server.stop()
    changed()
    try:
        assert code("only@b.c") in (450, 451)
    finally:
        server.start()
    wait_for(lambda: code("only@b.c") == 250)
    assert mail.pids("proxymap") == pids
    assert SECRET not in mail.log()


def test_sqlite_file_is_replaced_under_mail(make_instance, table, folder):
    """And taken away, and put back: what is asked is always the file that is there, without a restart."""
    path, new = folder / "users.db", folder / "users.new"
    make_sqlite(path)
    spec = table("sqlite", dbpath=path, query="SELECT v FROM t WHERE k = '%s' AND v <> 'at'")
    mail = make_instance(main_cf=f"relay_domains = b.c\nrelay_recipient_maps = {spec}\nrelay_transport = discard\n")
    assert [recipient_code(mail, r) for r in ("only@b.c", "late@b.c")] == [250, 550]
    pids = mail.pids("proxymap")
    make_sqlite(new)
    with sqlite3.connect(new) as db:
        db.execute("INSERT INTO t VALUES ('late@b.c', 'yes', '')")
        db.execute("DELETE FROM t WHERE k = 'only@b.c'")
    db.close()
    new.rename(path)
    changed()
    assert [recipient_code(mail, r) for r in ("only@b.c", "late@b.c")] == [550, 250]
    path.rename(new)
    changed()
    assert recipient_code(mail, "late@b.c") in (450, 451)
    new.rename(path)
    wait_for(lambda: recipient_code(mail, "late@b.c") == 250)
    assert mail.pids("proxymap") == pids
    path.unlink()


SLOW = {
    "mysql": ("SELECT IF('%s' = 'slow@x.y', SLEEP(60), 'taken') FROM t WHERE k = 'hidden' AND '%d' = 'x.y'",
              "max_statement_time exceeded"),
    "pgsql": ("SELECT pg_sleep(60) WHERE '%s' <> ''", "statement timeout"),
    "sqlite": ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n WHERE '%s' <> ''",
               "takes more than"),
}


def test_slow_statements(make_instance, postmap, table):
    """They are ended, whatever the server. Meanwhile a running mail system gets answers to other questions, from the same
    table and from others."""
    tables = {kind: table(kind, query=query) for kind, (query, _) in SLOW.items()}
    mail = make_instance(main_cf=f"relay_domains = b.c, x.y\nrelay_recipient_maps = {tables['mysql']}, {table('pgsql')}\n"
                                 "relay_transport = discard\n")
    began = time.monotonic()
    with ThreadPoolExecutor(len(SLOW)) as pool, mail.smtp() as held:
        asked = {kind: pool.submit(postmap.ask, spec, "slow@x.y") for kind, spec in tables.items()}
        held.helo("client.example")
        held.mail("a@elsewhere.example")
        held.putcmd("rcpt", "TO:<slow@x.y>")
        with mail.smtp() as smtp:
            smtp.helo("client.example")
            smtp.mail("a@elsewhere.example")
            assert [smtp.rcpt(r)[0] for r in ("only@b.c", "quick@x.y")] == [250, 250]
        assert "max_statement_time" not in mail.log()
        assert held.getreply()[0] in (450, 451)
        for kind, answer in asked.items():
            failed(answer.result(), SLOW[kind][1])
    assert time.monotonic() - began > 9
    mail.wait_log("max_statement_time exceeded")
