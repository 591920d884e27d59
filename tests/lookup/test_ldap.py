"""ldap: (ldap_table(5)) with a real slapd, and beside Debian's postmap on the same server."""
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import servers  # noqa: E402
from instance import build_directory, free_port, wait_for  # noqa: E402
from oracle import Oracle  # noqa: E402
from servers import MAIL_DN, PASSWORD, Certificates, Scripted, Slapd, seconds  # noqa: E402

pytestmark = pytest.mark.skipif(not os.path.exists(servers.SLAPD), reason="slapd is not installed")
BASE = "dc=example,dc=com"


def entry(dn, **attributes):
    lines = [f"dn: {dn},{BASE}"]
    attributes.setdefault("objectClass", "mailthing")
    for name, values in attributes.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, bytes):
                import base64
                lines.append(f"{name}:: {base64.b64encode(value).decode()}")
            else:
                lines.append(f"{name}: {value}")
    return "\n".join(lines) + "\n\n"


def user(name, **attributes):
    return entry(f"uid={name}", uid=name, mail=f"{name}@example.com", **attributes)


TOP = f"dn: {BASE}\nobjectClass: domain\ndc: example\n\n"
LDIF = TOP + "".join([
    user("mailer", userPassword=PASSWORD),
    user("letter", maildrop="someone@localhost"),
    user("proxy", userPassword="other", authzTo=f"dn.exact:{MAIL_DN}"),
    # LDAP_README's groups
    entry("cn=agroup", cn="agroup", mail="agroup@example.com",
          memberdn=[f"uid=auser,{BASE}", f"uid=buser,{BASE}"], memberaddr=["auser@example.org", "buser@example.org"]),
    entry("cn=bgroup", cn="bgroup", mail="bgroup@example.com", maildrop="bgroup@mlm.example.com",
          memberdn=[f"uid=cuser,{BASE}", f"uid=duser,{BASE}"], memberaddr="cuser@example.org"),
    entry("cn=both", cn="both", mail="both@example.com", memberdn=[f"cn=agroup,{BASE}", f"uid=cuser,{BASE}"]),
    user("auser", maildrop="auser@mailhub.example.com", mailacceptinggeneralid=["auser", "a@virtual.example"]),
    user("buser", maildrop="buser@mailhub.example.com"),
    user("cuser", description=["plain"]),
    user("duser", maildrop=["one", "two,three"]),
    entry("cn=lost", cn="lost", mail="lost@example.com", memberdn=[f"uid=nosuch,{BASE}", f"uid=duser,{BASE}"]),
    entry("cn=nodn", cn="nodn", mail="nodn@example.com", memberdn="this is no DN"),
    entry("cn=loop", cn="loop", mail="loop@example.com", memberdn=f"cn=loop,{BASE}"),
    entry("cn=urls", cn="urls", mail="urls@example.com", memberdn=[
        f"ldap:///{BASE}?mail,maildrop?sub?(uid=auser)", f"ldap:///{BASE}?mail?sub?(uid=cuser)",
        f"ldap:///uid=duser,{BASE}", f"ldap:///uid=duser,{BASE}?cn?base", f"ldap:///uid=duser,{BASE}?MAILDROP?base",
        f"ldap:///{BASE}??one?(uid=buser)", f"ldap:///{BASE}?*?one?(uid=buser)",
        f"ldap://other.example/{BASE}?mail?one?(uid=buser)", f"ldap:///uid=nosuch,{BASE}?mail?base"]),
    entry("cn=badurl", cn="badurl", mail="badurl@example.com", memberdn=f"ldap:///{BASE}?mail?foo?(uid=q)"),
    entry("cn=options", cn="options", mail="options@example.com",
          **{"description": "plain", "description;lang-en": "english"}),
    entry("cn=binary", cn="binary", mail="binary@example.com", blob=b"a\0b", maildrop="text"),
    # names that must be quoted
    entry("cn=star", cn="star", mail="a*b@example.com", mailacceptinggeneralid="*", maildrop="star"),
    entry("cn=paren", cn="paren", mailacceptinggeneralid="a(b)c", maildrop="paren"),
    entry("cn=back", cn="back", mailacceptinggeneralid=r"a\2ab", maildrop="backslash"),
    entry("cn=utf", cn="utf", mailacceptinggeneralid="m\u00fcller@virtual.example".encode(), maildrop="umlaut"),
    entry(r"cn=x\2Cy\3Dz\2Bw\22\3B\3C\3E", cn='x,y=z+w";<>', maildrop="quoted name"),
    entry(r"cn=\23hash\20", cn="#hash ", maildrop="hash"),
    entry(r"cn=a\20\20b", cn="a  b", maildrop="blanks"),
    entry("ou=people", ou="people", objectClass="organizationalUnit"),
    entry("uid=deep,ou=people", uid="deep", mail="deep@example.com", maildrop="deep"),
    entry("ou=private", ou="private", objectClass="organizationalUnit"),
    entry("uid=secret,ou=private", uid="secret", mail="secret@example.com", maildrop="hidden"),
    entry("uid=alias", uid="alias", objectClass=["alias", "extensibleObject"],
          aliasedObjectName=f"uid=deep,ou=people,{BASE}"),
])
FAR = TOP + entry("ou=far", ou="far", objectClass="organizationalUnit") + entry(
    "uid=distant,ou=far", uid="distant", mail="distant@example.com", maildrop="from afar")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    directory.chmod(0o755)
    return Certificates(directory)


@pytest.fixture(scope="module")
def far(certificates):
    """A second server: where a referral leads; its certificate is that of another host."""
    with Slapd(FAR, certificates, "wrong") as server:
        yield server


@pytest.fixture(scope="module")
def slapd(certificates, far):
    referral = entry("ou=far", ou="far", objectClass=["referral", "extensibleObject"],
                     ref=f"{far.uri}/ou=far,{BASE}")
    with Slapd(LDIF + referral, certificates) as server:
        yield server


class Client:
    """postmap with a private main.cf: ours, or Debian's."""

    def __init__(self, directory, program, env):
        self.directory, self.program, self.env = directory, program, {**env, "LC_ALL": "C"}

    def start(self, text, *args, **kwargs):
        path = self.directory / "table.cf"
        path.write_text(text)
        return subprocess.Popen([self.program, *args, f"ldap:{path}"], env=self.env, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)

    def ask(self, text, *keys):
        """(exit status, output, warnings) for the keys; one is asked as an argument."""
        if len(keys) == 1:
            process = self.start(text, "-q", keys[0])
            out, err = process.communicate(timeout=60)
        else:
            process = self.start(text, "-q", "-")
            out, err = process.communicate(
                b"".join((k if isinstance(k, bytes) else k.encode()) + b"\n" for k in keys), timeout=60)
        return process.returncode, out.decode(errors="surrogateescape"), err.decode(errors="replace")


def make_ours(directory, main_cf=""):
    (directory / "main.cf").write_text(f"""\
compatibility_level = 3.6
myhostname = oracle.example
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
daemon_directory = {build_directory()}/libexec
{main_cf}""")
    return Client(directory, str(build_directory() / "sbin/postmap"), {**os.environ, "MAIL_CONFIG": str(directory)})


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return make_ours(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def debian():
    reason = Oracle.why_not()
    if reason:
        pytest.skip(reason)
    oracle = Oracle()
    oracle.write()
    (oracle.directory / "etc/dynamicmaps.cf").write_text(
        f"ldap\t{oracle.root}/usr/lib/postfix/postfix-ldap.so\tdict_ldap_open\n")
    main_cf = oracle.directory / "etc/main.cf"
    main_cf.write_text(re.sub(r"meta_directory = .*", f"meta_directory = {oracle.directory}/etc", main_cf.read_text()))
    yield Client(oracle.directory, str(oracle.root / "usr/sbin/postmap"), oracle.environment())
    oracle.stop()


def settings(server, **changes):
    rows = {"server_host": getattr(server, "uri", server), "search_base": BASE, "query_filter": "(mail=%s)", **changes}
    return "".join(f"{name} = {value}\n" for name, value in rows.items() if value is not None)


# --- the same as Debian's ---

SPECIAL = {"special_result_attribute": "memberdn"}
FANCY = {"result_attribute": "memberaddr", "terminal_result_attribute": "maildrop", "leaf_result_attribute": "mail",
         **SPECIAL}
HOSTILE = ["*", "a(b)c", r"a\2ab", r"a\2a", ")(uid=*", "*)(uid=*))(|(uid=*", "a*b@example.com", "m\u00fcller@virtual.example",
           b"m\xfcller@virtual.example", b"\xff", "x" * 5000, "a@virtual.example", "A@VIRTUAL.EXAMPLE", "@", "a@", "@x",
           "\x01", " ", "%s", "%", "\\", "(", ")", "&", "|", "!"]
NAMES = ['x,y=z+w";<>', "#hash ", "#hash", "a  b", "a b", "star", "star,dc=example", "*", "\\", "x\\", "nosuch", "+", "=", ",",
         "cn=star", " star", "star ", "\u00fc", "#", " "]

SAME = {
    "plain": (dict(), ["auser@example.com", "AUSER@example.com", "nosuch", "cuser@example.com", "duser@example.com"]),
    "default filter": (dict(query_filter=None), ["auser", "a@virtual.example", "auser@example.com"]),
    "hostile filter": (dict(query_filter="(mailacceptinggeneralid=%s)"), HOSTILE),
    "hostile parts": (dict(query_filter="(|(mailacceptinggeneralid=%u)(mail=%u@%d)(uid=%2))"), HOSTILE),
    "README simple": (dict(result_attribute="memberaddr"), ["agroup@example.com"] * 2),
    "README special": (dict(result_attribute="maildrop", **SPECIAL), ["agroup@example.com", "both@example.com"]),
    "README fancy": (FANCY, ["auser@example.com", "cuser@example.com", "agroup@example.com", "bgroup@example.com",
                             "both@example.com"]),
    "leaf wins": (dict(result_attribute="memberaddr mail", leaf_result_attribute="mail", **SPECIAL),
                  ["agroup@example.com", "auser@example.com"]),
    "terminal wins": (dict(result_attribute="memberaddr mail", terminal_result_attribute="mail"),
                      ["agroup@example.com"] * 2),
    "terminal and leaf": (dict(result_attribute="memberaddr", terminal_result_attribute="mail",
                               leaf_result_attribute="mail", **SPECIAL), ["agroup@example.com"] * 2),
    "result and special": (dict(result_attribute="memberaddr memberdn", **SPECIAL), ["agroup@example.com"] * 2),
    "lost member": (dict(**SPECIAL), ["lost@example.com"] * 2),
    "urls": (dict(result_attribute="mail", **SPECIAL), ["urls@example.com"] * 2),
    "urls, other attributes": (dict(result_attribute="maildrop", **SPECIAL), ["urls@example.com"] * 2),
    "options": (dict(result_attribute="description"), ["options@example.com", "cuser@example.com"]),
    "one option": (dict(result_attribute="DESCRIPTION;lang-en"), ["options@example.com", "cuser@example.com"]),
    "binary": (dict(result_attribute="maildrop"), ["binary@example.com"] * 2),
    "quoted names": (dict(search_base=f"cn=%s,{BASE}", scope="base", query_filter="(cn=%s)"), ["star"] * 2),
    "result_format": (dict(result_format="<%s> for %U at %D, top %1, %%"), ["duser@example.com", "auser@example.com"]),
    "parts of the value": (dict(result_format="%u at %d"), ["duser@example.com", "auser@example.com"]),
    "result_filter": (dict(result_filter="smtp:[%s]"), ["duser@example.com"] * 2),
    "result_filter and result_format": (dict(result_filter="no", result_format="yes:%s"), ["duser@example.com"] * 2),
    "domain": (dict(domain="example.com"), ["duser@example.com", "duser", "@example.com", "a@virtual.example"]),
    "other domain": (dict(domain="example.org"), ["duser@example.com"] * 2),
    "scope one": (dict(scope="one"), ["deep@example.com", "auser@example.com"]),
    "scope base": (dict(scope="BASE"), ["auser@example.com"] * 2),
    "unknown scope": (dict(scope="foo"), ["deep@example.com", "auser@example.com"]),
    "expansion_limit met": (dict(expansion_limit=2), ["duser@example.com"] * 2),
    "size_limit met": (dict(size_limit=1), ["duser@example.com"] * 2),
    "caches": (dict(cache="yes", cache_expiry=3, cache_size=3), ["duser@example.com"] * 2),
}
FAILING = {
    "expansion_limit": (dict(expansion_limit=1), "duser@example.com"),
    "size_limit": (dict(size_limit=1, query_filter="(uid=*)"), "x"),
    "size_limit by default": (dict(expansion_limit=1, query_filter="(uid=*)"), "x"),
    "recursion": (dict(recursion_limit=3, **SPECIAL), "loop@example.com"),
    "no DN": (dict(**SPECIAL), "nodn@example.com"),
    "bad URL": (dict(**SPECIAL), "badurl@example.com"),
    "no search_base": (dict(search_base=None), "x"),
    "missing search_base": (dict(search_base=f"ou=nosuch,{BASE}"), "x"),
    "bad filter": (dict(query_filter="(mail=%s"), "x"),
    "unknown expansion": (dict(query_filter="(mail=%x)"), "x"),
    "unknown expansion in the base": (dict(search_base="%x"), "x"),
    "unknown expansion of the result": (dict(result_format="%%%"), "x"),
    "bind": (dict(bind="maybe"), "x"),
    "recursion_limit 0": (dict(recursion_limit=0), "x"),
    "timeout x": (dict(timeout="x"), "x"),
    "start_tls maybe": (dict(start_tls="maybe"), "x"),
    "tls_require_cert maybe": (dict(tls_require_cert="maybe"), "x"),
    "chase_referrals maybe": (dict(chase_referrals="maybe"), "x"),
    "no server": (dict(server_host=""), "x"),
    "http": (dict(server_host="http://127.0.0.1"), "x"),
    "wrong password": (dict(bind_dn=MAIL_DN, bind_pw="wrong"), "x"),
    "sasl_minssf 5000": (dict(sasl_minssf=5000), "x"),
    "server_port 0": (dict(server_host="127.0.0.1", server_port=0), "x"),
}


@pytest.mark.parametrize("name", SAME)
def test_same_as_debians(ours, debian, slapd, name):
    changes, keys = SAME[name]
    mine, theirs = (side.ask(settings(slapd, version=3, **changes), *keys) for side in (ours, debian))
    assert mine[:2] == theirs[:2], (mine, theirs)


@pytest.mark.parametrize("name", FAILING)
def test_fails_as_debians(ours, debian, slapd, name):
    changes, key = FAILING[name]
    mine, theirs = (side.ask(settings(slapd, **{"version": 3, **changes}), key) for side in (ours, debian))
    assert mine[:2] == theirs[:2] == (1, ""), (mine, theirs)
    assert mine[2] != "", "silent"


def test_quoted_names(ours, slapd):
    """Debian's needs an existing search base, so one key at a time; here the answers are known."""
    found = {'x,y=z+w";<>': "quoted name", "#hash ": "hash", "a  b": "blanks", "star": "star"}
    text = settings(slapd, search_base=f"cn=%s,{BASE}", scope="base", query_filter="(objectClass=%D)")
    text = text.replace("%D", "*")
    for key, value in found.items():
        assert ours.ask(text, key)[:2] == (0, value + "\n"), key
    for key in ["star,dc=example", "*", "star+cn=star", "\\"]:
        assert ours.ask(text, key)[:2] == (1, ""), key


def test_quoted_names_as_debians(ours, debian, slapd):
    text = settings(slapd, search_base=f"cn=%s,{BASE}", scope="base", query_filter="(objectClass=*)")
    for key in ["a  b", 'x,y=z+w";<>', "#hash "]:
        mine, theirs = ours.ask(text, key), debian.ask(text, key)
        assert mine[:2] == theirs[:2], (mine, theirs)


# --- rows that show on the server ---


def test_order_of_hosts(ours, slapd, far):
    """The first that answers; words may be host:port or URIs, and server_port is for those without one."""
    dead = free_port()
    for hosts in (f"127.0.0.1:{dead}, 127.0.0.1:{slapd.port}", f"ldap://127.0.0.1:{dead} 127.0.0.1:{slapd.port}",
                  f"{slapd.uri} {far.uri}", f"127.0.0.1:{dead} {slapd.ldapi}"):
        assert ours.ask(settings(hosts), "auser@example.com")[:2] == (0, "auser@mailhub.example.com\n"), hosts
    assert ours.ask(settings(f"{far.uri} {slapd.uri}"), "auser@example.com")[:2] == (1, "")
    assert ours.ask(settings("127.0.0.1", server_port=slapd.port), "duser@example.com")[:2] == (0, "one,two,three\n")
    status, _, err = ours.ask(settings("127.0.0.1", server_port=dead), "duser@example.com")
    assert status == 1 and f"127.0.0.1:{dead}" in err


def test_ldap_url_form_of_the_port(ours, slapd):
    """A URI has its own port: server_port does not count."""
    assert ours.ask(settings(slapd, server_port=1), "duser@example.com")[:2] == (0, "one,two,three\n")


@pytest.mark.parametrize("changes, version", [({}, 3), ({"version": 2}, 2), ({"version": 4}, 3),
                                              ({"version": 2, "start_tls": "yes"}, None)])
def test_version(ours, changes, version):
    def refuse(connection, _):
        server.received.append(connection.recv(1000))

    with Scripted(refuse) as server:
        status, _, err = ours.ask(settings(f"ldap://127.0.0.1:{server.port}", bind_dn="cn=x", **changes), "x")
    assert status == 1
    if version:  # the bind request: an INTEGER with the version
        assert b"\x60\x0b\x02\x01" + bytes([version]) in server.received[0]
    else:
        assert b"1.3.6.1.4.1.1466.20037" in server.received[0] and "version = 3" in err
    assert ("version = 4" in err) == (changes.get("version") == 4)


@pytest.mark.parametrize("bind, seen", [("yes", "BIND dn"), ("simple", "BIND dn"), ("no", None), ("none", None)])
def test_bind(ours, slapd, bind, seen):
    before = len(slapd.log())
    text = settings(slapd, bind=bind, bind_dn=MAIL_DN, bind_pw=PASSWORD)
    answer = ours.ask(text, "secret@example.com")
    assert answer[:2] == ((0, "hidden\n") if seen else (1, "")), answer
    assert ("BIND dn" in slapd.log()[before:]) == bool(seen)


def test_password_is_never_shown(ours, slapd):
    text = settings(slapd, bind_dn=MAIL_DN, bind_pw="not" + PASSWORD, debuglevel=65535)
    status, out, err = ours.ask(text, "secret@example.com")
    assert status == 1 and "Invalid credentials" in err
    assert "not" + PASSWORD not in out + err + slapd.log()
    assert "ldap_" in err, "debuglevel shows nothing"


def test_debuglevel_is_quiet_by_default(ours, slapd):
    assert ours.ask(settings(slapd), "duser@example.com") == (0, "one,two,three\n", "")


@pytest.mark.parametrize("dereference, found", [(0, False), (1, False), (2, True), (3, True), (7, False)])
def test_dereference(ours, slapd, dereference, found):
    text = settings(slapd, dereference=dereference, search_base=f"uid=alias,{BASE}", scope="base")
    status, out, err = ours.ask(text, "deep@example.com")
    assert (status, out) == ((0, "deep\n") if found else (1, ""))
    assert ("dereference = 7" in err) == (dereference == 7)


@pytest.mark.parametrize("chase", ["yes", "no"])
def test_chase_referrals(ours, slapd, chase):
    answer = ours.ask(settings(slapd, chase_referrals=chase), "distant@example.com")
    assert answer[:2] == ((0, "from afar\n") if chase == "yes" else (1, "")), answer


def test_warnings(ours, slapd):
    _, _, err = ours.ask(settings(slapd, cache="yes", cache_expiry=1, cache_size=2, scope="wide", quary="x",
                                  query_filter="(uid=buser)"), "x")
    for name in ("cache is", "cache_expiry is", "cache_size is", "scope = wide", "quary", "query_filter"):
        assert name in err, (name, err)


def test_main_cf_prefix(tmp_path, slapd):
    client = make_ours(tmp_path, f"people_server_host = {slapd.uri}\npeople_search_base = {BASE}\n"
                       "people_query_filter = (mail=%s)\n")
    done = subprocess.run([client.program, "-q", "duser@example.com", "ldap:people"], env=client.env, timeout=60,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "one,two,three\n"), done.stderr


# --- SASL ---


def sasl(server, **changes):
    return settings(server, bind="sasl", **{"sasl_mechs": "DIGEST-MD5", "bind_dn": "mailer", "bind_pw": PASSWORD,
                                            **changes})


def test_sasl_external(ours, slapd):
    """Over ldapi the server knows who we are: here root, who is the mailer."""
    text = settings(slapd.ldapi, bind="sasl", sasl_mechs="EXTERNAL", version=2)
    status, out, err = ours.ask(text, "secret@example.com")
    assert (status, out) == ((0, "hidden\n") if os.geteuid() == 0 else (1, "")), err
    assert "version = 3" in err


def test_sasl_mechanisms(ours, slapd):
    before = len(slapd.log())
    for mechanism in ("DIGEST-MD5", "SCRAM-SHA-1"):
        assert ours.ask(sasl(slapd, sasl_mechs=mechanism), "secret@example.com")[:2] == (0, "hidden\n")
        assert f"mech={mechanism}" in slapd.log()[before:]
    status, _, err = ours.ask(sasl(slapd, sasl_mechs="NOSUCH"), "secret@example.com")
    assert status == 1 and "cannot bind" in err
    assert ours.ask(sasl(slapd, bind_pw="wrong"), "secret@example.com")[:2] == (1, "")


def test_sasl_realm(ours):
    """A server that has two realms asks which; slapd has but one."""
    def offer(connection, _):
        request = connection.recv(1000)
        challenge = b'realm="one",realm="two",nonce="bm9uY2U=",qop="auth",algorithm=md5-sess,charset=utf-8'
        answer = b"\x0a\x01\x0e\x04\x00\x04\x00\x87" + bytes([len(challenge)]) + challenge
        answer = request[2:5] + b"\x61" + bytes([len(answer)]) + answer
        connection.sendall(b"\x30" + bytes([len(answer)]) + answer)
        server.received.append(connection.recv(1000))

    for realm in ("one", "two"):
        with Scripted(offer) as server:
            assert ours.ask(sasl(f"ldap://127.0.0.1:{server.port}", sasl_realm=realm), "x")[0] == 1
        assert f'realm="{realm}"'.encode() in server.received[0]


def test_sasl_authz_id(ours, slapd):
    text = {"bind_dn": "proxy", "bind_pw": "other"}
    assert ours.ask(sasl(slapd, **text), "secret@example.com")[:2] == (1, "")
    assert ours.ask(sasl(slapd, sasl_authz_id="u:mailer", **text), "secret@example.com")[:2] == (0, "hidden\n")


def test_sasl_minssf(ours, slapd):
    """SCRAM protects nothing behind the login: a factor of 56 rules it out."""
    assert ours.ask(sasl(slapd, sasl_mechs="SCRAM-SHA-1", sasl_minssf=0), "secret@example.com")[:2] == (0, "hidden\n")
    assert ours.ask(sasl(slapd, sasl_mechs="SCRAM-SHA-1", sasl_minssf=56), "secret@example.com")[:2] == (1, "")
    assert ours.ask(sasl(slapd, sasl_minssf=56), "secret@example.com")[:2] == (0, "hidden\n")


# --- TLS ---


def tls(server, certificates, **changes):
    return settings(server, **{"tls_require_cert": "yes", "tls_ca_cert_file": certificates / "ca.pem", **changes})


def both_ways(server):
    return [{"start_tls": "yes"}, {"server_host": f"ldaps://127.0.0.1:{server.tls_port}"}]


def test_tls(ours, slapd, certificates):
    before = len(slapd.log())
    for way in both_ways(slapd):
        answer = ours.ask(tls(slapd, certificates, **way), "duser@example.com")
        assert answer[:2] == (0, "one,two,three\n"), answer
    assert slapd.log()[before:].count("TLS established") == 2
    assert ours.ask(tls(slapd, certificates, start_tls="no"), "duser@example.com")[0] == 0
    assert slapd.log()[before:].count("TLS established") == 2


def test_tls_authority(ours, slapd, certificates):
    for way in both_ways(slapd):
        other = {"tls_ca_cert_file": certificates / "otherca.pem", **way}
        assert ours.ask(tls(slapd, certificates, **other), "duser@example.com")[:2] == (1, "")
        assert ours.ask(tls(slapd, certificates, tls_require_cert="no", **other), "duser@example.com")[0] == 0
    directory = {"tls_ca_cert_file": None, "start_tls": "yes"}
    assert ours.ask(tls(slapd, certificates, tls_ca_cert_dir=certificates / "cadir", **directory), "duser@example.com")[0] == 0
    assert ours.ask(tls(slapd, certificates, **directory), "duser@example.com")[0] == 1
    status, _, err = ours.ask(tls(slapd, certificates, tls_ca_cert_file="/nonexistent", start_tls="yes"), "x")
    assert status == 1 and "tls_" in err


def test_tls_name(ours, far, certificates):
    """The certificate must be the server's own."""
    for way in both_ways(far):
        assert ours.ask(tls(far, certificates, **way), "distant@example.com")[:2] == (1, "")
        assert ours.ask(tls(far, certificates, tls_require_cert="no", **way), "distant@example.com")[0] == 0


def test_tls_client_certificate(ours, slapd, certificates):
    before = len(slapd.log())
    text = tls(slapd, certificates, start_tls="yes", tls_cert=certificates / "client.pem", bind="sasl",
               tls_key=certificates / "client.key", sasl_mechs="EXTERNAL")
    assert ours.ask(text, "duser@example.com")[0] == 0
    assert 'cn=mailer' in slapd.log()[before:].lower()
    text = tls(slapd, certificates, start_tls="yes", bind="sasl", sasl_mechs="EXTERNAL")
    assert ours.ask(text, "duser@example.com")[0] == 1


def test_tls_cipher_suite(ours, slapd, certificates):
    """The library here is GnuTLS, whose name for a list of ciphers is a priority string."""
    before = len(slapd.log())
    for version in ("1.2", "1.3"):
        text = tls(slapd, certificates, start_tls="yes", tls_cipher_suite=f"NORMAL:-VERS-ALL:+VERS-TLS{version}")
        assert ours.ask(text, "duser@example.com")[0] == 0
        assert f"tls_proto=TLS{version}" in slapd.log()[before:]
    assert ours.ask(tls(slapd, certificates, start_tls="yes", tls_cipher_suite="nonsense"), "x")[0] == 1


def test_tls_random_file(ours, slapd, certificates):
    """Libraries of today have a source of their own: it is accepted and does no harm."""
    text = tls(slapd, certificates, start_tls="yes", tls_random_file="/dev/urandom")
    assert ours.ask(text, "duser@example.com") == (0, "one,two,three\n", "")


# --- servers in trouble ---


def test_a_running_mail_system(make_instance):
    """Recipients are known, then a matter for later while slapd is down, then known again on the table that is open; a
    letter that came meanwhile is delivered."""
    with Slapd(LDIF) as server:
        mail = make_instance(start=False, main_cf="local_transport = discard:\nvirtual_alias_domains = example.com\n")
        (mail.etc / "aliases.cf").write_text(settings(server, timeout=2))
        with (mail.etc / "main.cf").open("a") as main_cf:
            main_cf.write(f"virtual_alias_maps = ldap:{mail.etc}/aliases.cf\n")
        mail.start()

        def rcpt(address):
            with mail.smtp() as client:
                client.ehlo()
                client.mail("sender@example.org")
                return client.rcpt(address)[0]

        assert (rcpt("letter@example.com"), rcpt("nobody@example.com")) == (250, 550)
        server.kill()
        # smtpd remembers for half a second what it was told
        wait_for(lambda: rcpt("letter@example.com") // 100 == 4, what="the table to be missed")
        mail.sendmail("letter@example.com")
        mail.wait_log("aliases.cf")
        assert "status=sent" not in mail.log()
        server.start()
        wait_for(lambda: rcpt("letter@example.com") == 250, what="the table to work again")

        mail.sendmail("letter@example.com")  # wakes pickup, which has kept the first
        wait_for(lambda: len(re.findall("orig_to=<letter@example.com>.*status=sent", mail.log())) == 2, 40, "the letters")
        server.kill()
        server.start()
        wait_for(lambda: (rcpt("letter@example.com"), rcpt("nobody@example.com")) == (250, 550), what="another restart")
        assert PASSWORD not in mail.log()


# bytes of an answer to a bind (success), and of one that promises more than it sends
BOUND = bytes.fromhex("300c02010161070a010004000400")
HALF = bytes.fromhex("308400010000020102")


def hanging(after):
    """A server that stops: at once, within the answer to the bind, within that to the search; or that dribbles."""
    def serve(connection, _):
        connection.recv(1000)
        if after == "silence":
            connection.recv(1000)
        elif after == "half a bind":
            connection.sendall(BOUND[:5])
        else:
            connection.sendall(BOUND)
            connection.recv(1000)
            connection.sendall(HALF)
            while after == "dribble":
                connection.sendall(b"\0")
                time.sleep(0.2)
        while connection.recv(1000):
            pass
    return serve


@pytest.mark.parametrize("after", ["silence", "half a bind", "half a search", "dribble"])
def test_a_hanging_server_is_bounded(ours, slapd, after):
    with Scripted(hanging(after)) as server:
        uri = f"ldap://127.0.0.1:{server.port}"
        took, (status, out, err) = seconds(lambda: ours.ask(settings(uri, timeout=1), "x"))
        assert (status, out) == (1, "") and took < 30, took
        assert uri in err or "Timed out" in err
        # and the next server is asked
        assert ours.ask(settings(f"{uri} {slapd.uri}", timeout=1), "duser@example.com")[:2] == (0, "one,two,three\n")


@pytest.mark.parametrize("start_tls", ["yes", "no"])
def test_a_server_that_hangs_in_the_handshake(ours, start_tls):
    def serve(connection, _):
        if start_tls == "yes":
            connection.recv(1000)
            connection.sendall(bytes.fromhex("300c02010178070a010004000400"))
        while connection.recv(1000):
            pass

    with Scripted(serve) as server:
        scheme = "ldap" if start_tls == "yes" else "ldaps"
        text = settings(f"{scheme}://127.0.0.1:{server.port}", timeout=1, start_tls=start_tls)
        took, (status, _, err) = seconds(lambda: ours.ask(text, "x"))
        assert status == 1 and took < 30 and scheme in err


def test_a_message_without_end(ours):
    """A server that announces a gigabyte is not given the memory for it."""
    def serve(connection, _):
        connection.recv(1000)
        connection.sendall(BOUND)
        connection.recv(1000)
        connection.sendall(bytes.fromhex("308440000000020102"))
        connection.sendall(b"\x64" + b"\0" * 100000)
        while connection.recv(1000):
            pass

    with Scripted(serve) as server:
        took, (status, _, _) = seconds(lambda: ours.ask(settings(f"ldap://127.0.0.1:{server.port}", timeout=5), "x"))
    assert status == 1 and took < 30
    assert server.connections == 1


def test_an_answer_without_end(ours, slapd):
    """A group of groups that doubles with each level ends at a limit, as an error."""
    levels = "".join(entry(f"cn=g{i}", cn=f"g{i}", mail=f"g{i}@example.com", memberaddr="x" * 200,
                           memberdn=[f"cn=g{i + 1},{BASE}", f"ldap:///cn=g{i + 1},{BASE}"]) for i in range(24))
    with Slapd(TOP + levels) as server:
        text = settings(server, result_attribute="memberaddr", timeout=1, **SPECIAL)
        took, (status, out, err) = seconds(lambda: ours.ask(text, "g0@example.com"))
    assert (status, out) == (1, "") and took < 60
    assert "larger than" in err or "as a whole" in err
