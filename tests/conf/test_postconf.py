"""postconf: what it prints, and that odd main.cf files mean to it what they mean to Debian's Postfix."""
import os
import pathlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from instance import build_directory

ORACLE = pathlib.Path(os.environ.get("ANGARIUM_ORACLE", "/nonexistent"))
MASTER_CF = """\
smtp inet n - n - - smtpd
relay unix - - n - - smtp
  -o syslog_name=postfix/$service_name
local unix - n n - - local
maildrop unix - n n - - pipe
  flags=R user=nobody argv=/bin/true
"""


class Postconf:
    def __init__(self, directory, program, environment):
        self.directory, self.program, self.environment = directory, program, environment

    def __call__(self, *arguments):
        done = subprocess.run([self.program, "-c", self.directory, *arguments], env=self.environment, timeout=60,
                              capture_output=True)
        errors = done.stderr.decode(errors="replace").replace(f"{self.program}: ", "postconf: ")
        return done.returncode, done.stdout.decode(errors="replace"), errors


@pytest.fixture
def etc(tmp_path):
    (tmp_path / "master.cf").write_text(MASTER_CF)
    (tmp_path / "main.cf").write_text("")
    return tmp_path


@pytest.fixture
def postconf(etc):
    return Postconf(etc, str(build_directory() / "sbin" / "postconf"), {**os.environ, "MAIL_CONFIG": ""})


@pytest.fixture
def oracle(etc):
    program = ORACLE / "usr/sbin/postconf"
    if not program.exists():
        pytest.skip("ANGARIUM_ORACLE does not name the root of an unpacked Debian postfix package")
    return Postconf(etc, str(program), {"LD_LIBRARY_PATH": str(ORACLE / "usr/lib/postfix")})


# Files of settings; `myorigin` is what both expand. None has a parameter that is spelled almost right.
ODD = {
    "empty": "",
    "blank lines": "\n\n \n\t\n#\n   # x\n",
    "no newline at the end": "myorigin = a",
    "no value": "myorigin =\n",
    "no value, then a continuation": "myorigin =\n   a\n",
    "no blanks": "myorigin=a\n",
    "many blanks": "myorigin \t =  \t a  b\t c \n",
    "CRLF": "myorigin = a\r\nmydestination = b\r\n",
    "continuation": "myorigin = a\n   b\n\tc\n",
    "comments and blank lines in a continuation": "myorigin = a\n# c\n  b\n\n   # d\n \n  c\nmydestination = d\n",
    "comment that looks like a continuation": "myorigin = a\n  #b\n  c\n",
    "comment behind a value": "myorigin = a#b\n",
    "backslash": "myorigin = a \\\n b\n",
    "equals signs": "myorigin = a = b\nmydestination==\n",
    "starts with a blank": "  myorigin = a\n  b\nmydestination = c\n",
    "starts with a blank after a comment": "# x\n\n  myorigin = a\nmydestination = c\n",
    "twice": "myorigin = a\nmydestination = c\nmyorigin = b\n",
    "three times": "myorigin = a\nmyorigin = b\nmyorigin = c\n",
    "missing equals": "myorigin\n",
    "missing equals with text": "mydestination = a\n\nmyorigin a b\n",
    "two words": "my origin = a\n",
    "missing name": "= a\n",
    "read-only": "process_name = x\nservice_name = y\nmyorigin = $process_name,$service_name\n",
    "user-defined": "foo = a\nbar = $foo\nmyorigin = $bar/${foo}/$(foo)\n",
    "unused": "foo = a\nmyorigin = b\n",
    "unused refers to unused": "foo = $bar\nbar = b\n",
    "undefined": "myorigin = $nobody ${nothing:x}\n",
    "restriction class": "smtpd_restriction_classes = one, two\none = permit\ntwo = reject\nthree = x\n",
    "class without definition": "smtpd_restriction_classes = one, two\none = permit\n",
    "service": "relay_destination_concurrency_limit = 3\nmaildrop_time_limit = 5\nnobody_destination_rate_delay = 1\n"
               "local_time_limit = 5\nsmtp_recipient_limit = 5\n",
    "master.cf refers": "foo = a\nmyorigin = $own_restrictions\n",
    "database": "relay_domains = mysql:dom, proxy:ldap:people\ndom_hosts = h\ndom_query = q\n"
                "people_search_base = b\npeople_hosts = h\nx_hosts = y\n",
    "old names": "virtual_maps = static:a\nfallback_relay = b\nmyorigin = $virtual_maps\n",
    "name with odd bytes": "my-foo.bar = a\n{x} = b\n",
    "dollars": "myorigin = a$$b$$$$c\n",
    "conditional": "foo = a\nempty =\nmyorigin = ${foo?b} ${foo:c} ${empty?d} ${empty:e} ${foo?{f}:{g}} ${empty?{h}:{i}}\n",
    "conditional with blanks": "foo = a\nmyorigin = ${ foo ? { b } : { c } } ${foo ?{d}} ${foo?  e  }\n",
    "conditional, nested braces": "foo = a\nmyorigin = ${foo?{a{b}c}} ${nix:{a{b}{}c}} ${foo?{${foo?{${nix:{deep}}}}}}\n",
    "conditional, colon without braces": "foo = a\nmyorigin = ${foo?b:c} ${foo:b?c} ${foo?{b}:c} ${nix?{b}:c d}\n",
    "conditional, empty": "foo = a\nmyorigin = x${foo?}${foo:}${foo?{}}x\n",
    "condition on what refers": "ref = $empty\nempty =\nmyorigin = ${ref?yes}\n",
    "comparison": "myorigin = ${{a} == {a}}${{a} != {a}} ${{10} < {9} ? {x} : {y}} ${{10} < {9a} ? {x} : {y}} "
                  "${{b} >= {a}?{x}}\n",
    "comparison by number": "myorigin = ${{01} == {1}?{x}:{y}} ${{ 1} == {1}?{x}:{y}} ${{-1} < {-2}?{x}:{y}} "
                            "${{+1} == {1}?{x}:{y}} ${{} == {}?{x}:{y}}\n",
    "comparison of levels": "compatibility_level = 3.6\nmyorigin = ${{$compatibility_level} <level {3.12}?{x}:{y}} "
                            "${{3.9} < {3.10}?{x}:{y}} ${{3} ==level {3.0.0}?{x}:{y}} ${{3.1} >=level {3}?{x}}\n",
    "comparison without braces": "foo = a\nmyorigin = ${{$foo} == {a} ? x : y} ${{$foo} == {b} :z}\n",
    "order": "myorigin = $foo\nfoo = $bar\nbar = $mydomain\nmydomain = example.com\n",
    "host without domain": "mydomain = example.com\nmyorigin = $myhostname $mydestination\n",
    "domain from host": "myhostname = a.example.org\nmyorigin = $mydomain\n",
    "raw": "default_rbl_reply = $rbl_code x\nforward_path = $home/.forward\nmyorigin = a\n",
    "utf-8": "myorigin = b\u00fccher.example\n",
    # and what cannot be expanded: the first line of errors is compared by its beginning
    "error: truncated": "foo = a\nmyorigin = ${foo\n",
    "error: truncated branch": "foo = a\nmyorigin = ${foo?{x}\n",
    "error: parenthesis": "foo = a\nmyorigin = $(foo\n",
    "error: lone dollar": "myorigin = a $ b\n",
    "error: no name": "myorigin = ${}\n",
    "error: loop": "foo = $bar\nbar = $foo\nmyorigin = $foo\n",
    "error: own loop": "myorigin = $myorigin\n",
    "error: bad name": "foo = a\nmyorigin = ${foo-b}\n",
    "error: text behind a branch": "foo = a\nmyorigin = ${foo?{x}y}\n",
    "error: text behind both": "foo = a\nmyorigin = ${foo?{x}:{y}z}\n",
    "error: operator": "myorigin = ${{a} =! {b}}\n",
    "error: operand": "foo = a\nmyorigin = ${{a} == $foo}\n",
    "error: level": "myorigin = ${{3.x} <level {3.6}?{x}}\n",
}


def errors_of(text):
    """Warnings in no particular order, each once; of "WHAT at: ..." only WHAT, for the excerpts differ."""
    lines = {re.sub(r"( at: | macro call nesting: ).*", r"\1", line) for line in text.splitlines()
             if " removed; instead, " not in line}  # Postfix has said this since 3.9
    lines = {re.sub(r" \([^()]*(?:main|master)\.cf, line \d+\)$", "", line) for line in lines}
    lines = {line.replace('=""', '="').replace('<""', '<"') for line in lines}  # Postfix has odd quotes there
    lines = {re.sub(r" \(did you mean .*\?\)$|; instead, .*", "", line) for line in lines}
    # which end of a pair of settings is named when one overrides the other depends on how often the file is read
    return {re.sub(r", line \d+: overriding earlier entry: .*", ": overriding", line) for line in lines}


@pytest.mark.parametrize("name", ODD)
def test_same_as_postfix(postconf, oracle, etc, name):
    (etc / "main.cf").write_bytes(ODD[name].encode())
    if "own_" in ODD[name]:
        with open(etc / "master.cf", "a") as master_cf:
            master_cf.write("other unix - - n - - smtp -o own_restrictions=$foo -o own_other=$nobody\n")
    commands = (["-n"], ["-x", "-f", "-n"],
                ["-h", "-x", "myorigin", "mydestination", "foo", "one", "dom_hosts", "maildrop_time_limit"])
    with ThreadPoolExecutor() as several:  # each of Debian's failures waits a second before it ends
        answers = several.map(lambda arguments: oracle(*arguments), commands)
    for arguments, theirs in zip(commands, answers):
        ours = postconf(*arguments)
        assert ours[0] == theirs[0], (arguments, ours, theirs)
        if theirs[0] == 0:
            assert ours[1] == theirs[1], arguments
        assert errors_of(ours[2]) == errors_of(theirs[2]), arguments


def test_names_of_all(postconf, oracle):
    """What Postfix 3.7 lists, 3.12 lists, but for the few that are gone."""
    gone = {"tls_legacy_public_key_fingerprints", "tls_export_cipherlist", "tls_low_cipherlist",
            "tlsproxy_client_loglevel_parameter"}
    ours, theirs = postconf("-d", "-H")[1].split(), oracle("-d", "-H")[1].split()
    assert ours == sorted(ours)
    assert set(theirs) - set(ours) <= gone


def test_fold_width(postconf, oracle, etc):
    for first in range(66, 72):
        (etc / "main.cf").write_text("relayhost = " + "a" * first + " bb " + "c" * 90 + " d\n")
        for arguments in (["-f", "relayhost"], ["-f", "-h", "relayhost"]):
            assert postconf(*arguments) == oracle(*arguments)


def test_default_listing(postconf):
    status, out, errors = postconf("-d")
    assert (status, errors) == (0, "")
    lines = out.splitlines()
    assert len(lines) > 900
    assert lines[0] == "2bounce_notice_recipient = postmaster"
    assert "relay_destination_concurrency_limit = $default_destination_concurrency_limit" in lines
    assert "local_destination_recipient_limit = 1" in lines
    assert "maildrop_time_limit = $command_time_limit" in lines
    assert "mail_name = Angarium" in lines
    assert "mail_version = 3.12.0" in lines
    assert "smtpd_reject_footer =" in lines


def test_unknown_name(postconf):
    assert postconf("nosuch", "mail_name") == (0, "mail_name = Angarium\n",
                                               "postconf: warning: nosuch: unknown parameter\n")


def test_nearest_name(postconf, etc):
    (etc / "main.cf").write_text("mydestnation = a\nsmtpd_use_tls = yes\n")
    status, _, errors = postconf("-n")
    assert status == 0
    assert errors == (
        f"postconf: warning: {etc}/main.cf: support for parameter \"smtpd_use_tls\" will be removed; instead, specify "
        f"\"smtpd_tls_security_level\"\n"
        f"postconf: warning: {etc}/main.cf: unused parameter: mydestnation=a (did you mean mydestination?)\n")
    assert postconf("-q", "-n")[2] == ""


def test_comment_behind_a_value(postconf, etc):
    (etc / "main.cf").write_text("myorigin = a # raised for the campaign of May\n")
    status, out, errors = postconf("myorigin")
    assert (status, out) == (0, "myorigin = a # raised for the campaign of May\n")
    assert errors == (f"postconf: warning: {etc}/main.cf: #comment after other text is not allowed: # raised for the "
                      "campa...\n")


def test_override(postconf, etc):
    (etc / "main.cf").write_text("myorigin = a\nrelayhost = $myorigin\n")
    assert postconf("-o", "myorigin=b", "-o", "process_name = x", "-x", "relayhost", "process_name")[:2] == (
        0, "relayhost = b\nprocess_name = postconf\n")
    assert postconf("-o", "myorigin") == (
        1, "", "postconf: fatal: invalid parameter override: myorigin: missing '=' after attribute name\n")


@pytest.mark.parametrize("arguments, text", [
    (["-d", "-n"], "specify one of -d -n"),
    (["-d", "-o", "a=b"], "specify one of -d -o"),
    (["-h", "-H"], "specify one of -h -H"),
])
def test_conflicting_options(postconf, arguments, text):
    assert postconf(*arguments) == (1, "", f"postconf: fatal: {text}\n")


def test_usage(postconf):
    for option in ("-Z", "-E", "-D"):
        status, out, errors = postconf(option)
        assert (status, out) == (1, "")
        assert "postconf: fatal: usage: " in errors


def test_missing_files(postconf, etc):
    (etc / "main.cf").unlink()
    assert postconf("-n") == (1, "", f"postconf: fatal: open {etc}/main.cf: No such file or directory\n")
    (etc / "master.cf").unlink()
    assert postconf("-d", "mail_name") == (
        0, "mail_name = Angarium\n", f"postconf: warning: open {etc}/master.cf: No such file or directory\n")


def test_full_disk(postconf, etc):
    with open("/dev/full", "w") as full:
        done = subprocess.run([postconf.program, "-c", etc, "-d"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    assert b"fatal: write: No space left on device" in done.stderr


def test_installation_keeps_what_is_there(tmp_path):
    packaging = pathlib.Path(__file__).resolve().parents[2] / "packaging"
    install = [packaging / "install_config.py", packaging, tmp_path / "etc"]
    subprocess.run(install, check=True, capture_output=True, env={**os.environ, "DESTDIR": ""})
    main_cf, master_cf = tmp_path / "etc/postfix/main.cf", tmp_path / "etc/postfix/master.cf"
    assert master_cf.read_text() == (packaging / "master.cf").read_text()
    assert (tmp_path / "etc/aliases").exists()
    main_cf.write_text("mine = 1\n")
    master_cf.unlink()
    subprocess.run(install, check=True, capture_output=True, env={**os.environ, "DESTDIR": ""})
    assert main_cf.read_text() == "mine = 1\n"
    assert master_cf.exists()
