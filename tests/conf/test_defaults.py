"""postconf -d row by row (defaults.tsv), and every old name: its effect, and the warning that says what to write."""
import json
import os
import pathlib
import re
import socket
import subprocess

import pytest

from instance import build_directory

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
ORACLE = pathlib.Path(os.environ.get("ANGARIUM_ORACLE", "/nonexistent"))
MASTER_CF = (ROOT / "packaging/master.cf").read_text() + """\
mine unix - n n - - pipe
  flags=R user=nobody argv=/bin/true
other unix - n n - - spawn
  user=nobody argv=/bin/true
"""
OWN = {"angarium_version", "dns_resolvers", "queue_log", "queue_log_segment_size", "service_worker_limit", "table_freshness"}
# of services that only the master.cf of this test has
ROWS = [line.split("\t") for line in (HERE / "defaults.tsv").read_text().splitlines() if line[0] != "#"]
BUILTIN = {name: (default, rule) for name, kind, default, rule in ROWS if kind in ("builtin", "service")}
SUFFIXES = {name: default for name, kind, default, rule in ROWS if kind == "suffix"}
OLD = {kind: {name: default for name, k, default, rule in ROWS if k == kind} for kind in ("renamed", "warned", "gone")}


def single_blanks(text):
    return " ".join(text.split())


def legacy_rows():
    """legacy.def as it stands: name -> (kind, what to write)."""
    text = (ROOT / "src/conf/legacy.def").read_text()
    return {m[1]: (m[2], m[3]) for m in re.finditer(r'^LEGACY\((\w+), (\w+), "(.*)"\)$', text, re.M)}


LEGACY = legacy_rows()


@pytest.fixture
def etc(tmp_path):
    (tmp_path / "master.cf").write_text(MASTER_CF)
    (tmp_path / "main.cf").write_text("")
    return tmp_path


def run(etc, *arguments):
    done = subprocess.run([build_directory() / "sbin/postconf", "-c", etc, *arguments], capture_output=True, text=True,
                          env={**os.environ, "MAIL_CONFIG": ""}, timeout=60)
    return done.returncode, done.stdout, done.stderr


def settings(text):
    return {name: value.strip() for name, value in (line.split(" =", 1) for line in text.splitlines())}


def built_with():
    options = json.loads((build_directory() / "meson-info/intro-buildoptions.json").read_text())
    return {option["name"]: option["value"] for option in options}


def own_name():
    name = socket.gethostname()
    return name if "." in name else name + ".localdomain"


def build_default(name):
    option = built_with()
    prefix = pathlib.Path(option["prefix"])
    below = {
        "command_directory": (option["sbindir"], ""), "daemon_directory": (option["libexecdir"], "angarium"),
        "sendmail_path": (option["sbindir"], "sendmail"), "mailq_path": (option["sbindir"], "mailq"),
        "newaliases_path": (option["sbindir"], "newaliases"), "manpage_directory": (option["mandir"], ""),
        "config_directory": (option["sysconfdir"], "postfix"), "meta_directory": (option["sysconfdir"], "postfix"),
        "sample_directory": (option["sysconfdir"], "postfix"),
        "queue_directory": (option["localstatedir"], "spool/postfix"),
        "data_directory": (option["localstatedir"], "lib/postfix"),
        "alias_database": (option["sysconfdir"], "aliases"),
    }
    path = str(prefix.joinpath(*below[name]))
    return f"$default_database_type:{path}" if name == "alias_database" else path


RULES = {
    "build": lambda name, default: build_default(name),
    # no NIS here, and the table type that there is
    "linux": lambda name, default: build_default("alias_database"),
    "lmdb": lambda name, default: "lmdb",
    "product": lambda name, default: "Angarium",
    "version": lambda name, default: "3.12.0",
}


def test_every_default(etc):
    status, out, errors = run(etc, "-d")
    assert (status, errors) == (0, "")
    shown = settings(out)
    assert len(BUILTIN) > 1000
    wrong = {}
    for name, (default, rule) in BUILTIN.items():
        if rule in ("host", "process"):
            assert name in shown
            continue
        wanted = RULES[rule](name, default) if rule else default
        if shown.get(name) != single_blanks(wanted):
            wrong[name] = (shown.get(name), wanted)
    assert wrong == {}
    of_mine = {f"mine{suffix}" for suffix in SUFFIXES} | {"other_time_limit"}
    assert set(shown) - set(BUILTIN) == OWN | of_mine


def test_every_suffix(etc):
    """<service><suffix>, also for a service that nobody knew before."""
    shown = settings(run(etc, "-d")[1])
    for suffix, default in SUFFIXES.items():
        assert shown[f"mine{suffix}"] == default
    assert shown["other_time_limit"] == "$command_time_limit"
    assert "other_recipient_limit" not in shown


def test_values_of_the_host(etc):
    shown = settings(run(etc, "-d", "myhostname", "mydomain", "mynetworks", "process_name", "service_name")[1])
    assert shown["myhostname"] == own_name()
    assert shown["mydomain"] == own_name().split(".", 1)[1]
    assert (shown["process_name"], shown["service_name"]) == ("postconf", "")
    assert {"127.0.0.0/8"} <= set(shown["mynetworks"].split())
    assert run(etc, "-d", "-h", "process_id")[1].strip().isdigit()


def test_values_of_the_host_as_in_postfix(etc):
    if not (ORACLE / "usr/sbin/postconf").exists():
        pytest.skip("ANGARIUM_ORACLE does not name the root of an unpacked Debian postfix package")
    for main_cf in ("", "mynetworks_style = host\n", "mynetworks_style = class\n", "inet_interfaces = loopback-only\n",
                    "inet_protocols = ipv4\n", "inet_protocols = ipv6\n", "mydomain = example.org\n",
                    "myhostname = a.b.example\n", "compatibility_level = 3.6\n"):
        (etc / "main.cf").write_text(main_cf)
        theirs = subprocess.run([ORACLE / "usr/sbin/postconf", "-c", etc, "-x", "myhostname", "mydomain", "mynetworks"],
                                env={"LD_LIBRARY_PATH": str(ORACLE / "usr/lib/postfix")}, capture_output=True, text=True)
        theirs = settings(theirs.stdout)
        ours = settings(run(etc, "-x", "myhostname", "mydomain", "mynetworks")[1])
        assert ours == theirs, main_cf


# --- old names ---

def warnings_of(etc, main_cf):
    (etc / "main.cf").write_text(main_cf)
    status, _, errors = run(etc, "-n")
    assert status == 0
    return errors.splitlines()


def test_legacy_rows_are_those_of_postfix():
    kinds = {"RENAMED": "renamed", "DEPRECATED": "warned", "ABSENT": "gone"}
    for kind, here in kinds.items():
        rows = {name: instead for name, (k, instead) in LEGACY.items() if k == kind}
        if kind == "ABSENT":  # with names that are older than Postfix 3.12's own list
            assert set(OLD["gone"]) <= set(rows)
            assert all(rows.values()), "every one says what to write instead"
        else:
            assert rows == OLD[here]


@pytest.mark.parametrize("name", OLD["renamed"])
def test_renamed(etc, name):
    """The old name has its effect, the new one wins, the warning names the new one."""
    new = OLD["renamed"][name]
    path, probe = etc / "main.cf", f"relayhost = ${new}\n"
    unit = "h" if name == "postscreen_dnsbl_ttl" else ""  # the default of the new one appends it
    said = [f"{build_directory()}/sbin/postconf: warning: {path}: support for parameter \"{name}\" will be removed; "
            f"instead, specify \"{new}\""]
    assert warnings_of(etc, f"{name} = 17\n{probe}") == said
    assert run(etc, "-h", "-x", "relayhost")[1].strip() == f"17{unit}"
    assert warnings_of(etc, f"{name} = 17\n{new} = 18\n{probe}") == said
    assert run(etc, "-h", "-x", "relayhost")[1].strip() == "18"
    assert warnings_of(etc, f"{new} = 18\n{probe}") == []


@pytest.mark.parametrize("name", OLD["warned"])
def test_warned(etc, name):
    instead = OLD["warned"][name] or "do not specify"
    if not instead.startswith("do not"):
        assert instead in BUILTIN or instead == "smtp_dns_support_level"
        instead = f'specify "{instead}"'
    assert warnings_of(etc, f"{name} = 1\n") == [
        f"{build_directory()}/sbin/postconf: warning: {etc}/main.cf: support for parameter \"{name}\" will be removed; "
        f"instead, {instead}"]
    # still a parameter, but for the one that no code reads
    assert name in settings(run(etc, name)[1]) or name == "tlsproxy_client_loglevel_parameter"


GONE = sorted(name for name, (kind, _) in LEGACY.items() if kind == "ABSENT")


@pytest.mark.parametrize("name", GONE)
def test_gone(etc, name):
    instead = LEGACY[name][1]
    if not instead.startswith("do not"):
        assert instead in BUILTIN
        instead = f'specify "{instead}"'
    assert warnings_of(etc, f"{name} = 1\n") == [
        f"{build_directory()}/sbin/postconf: warning: {etc}/main.cf: unused parameter: {name}=1; instead, {instead}"]
    assert name not in settings(run(etc, "-n")[1])


@pytest.mark.parametrize("word", [name for name, (kind, _) in LEGACY.items() if kind in ("REMOVED", "LEAVING")])
def test_words_of_restriction_lists(etc, word):
    kind, instead = LEGACY[word]
    what = "has been" if kind == "REMOVED" else "will be"
    (etc / "master.cf").write_text(MASTER_CF + f"""\
2525 inet n - n - - smtpd
  -o smtpd_helo_restrictions={word}
""")
    said = f'support for restriction "{word}" {what} removed; instead, specify "{instead}"'
    before = f"{build_directory()}/sbin/postconf: warning: {etc}"
    assert warnings_of(etc, f"smtpd_recipient_restrictions = permit_mynetworks, {word}\n"
                            f"smtpd_restriction_classes = strict\nstrict = {word}\nmyorigin = {word}\n") == [
        f"{before}/master.cf: smtpd_helo_restrictions: {said}",
        f"{before}/main.cf: smtpd_recipient_restrictions: {said}",
        f"{before}/main.cf: strict: {said}"]
