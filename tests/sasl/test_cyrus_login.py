"""Logins by the Cyrus SASL library, in the look-up process: sasldb, saslauthd, and the oracle beside it."""
import contextlib
import os
import pathlib
import subprocess

import pytest

from instance import wait_for
from oracle import Oracle
from sasl.login_world import MAIN_CF, log_in, mechanisms, swaks

SASLAUTHD = "/usr/sbin/saslauthd"
pytestmark = pytest.mark.skipif(not os.path.exists(SASLAUTHD), reason="no Cyrus SASL programs (sasl2-bin)")
AS_ROOT = os.geteuid() == 0
CYRUS = MAIN_CF + "smtpd_sasl_type = cyrus\nsmtpd_sasl_local_domain = here.example\nmyhostname = mail.here.example\n"


def sasldb(directory, users=(("anna", "geheim"),)):
    """smtpd.conf and a sasldb that the mail system's user may read."""
    conf = directory / "sasl"
    conf.mkdir()
    db = conf / "sasldb2"
    for user, password in users:
        subprocess.run(["saslpasswd2", "-p", "-c", "-f", str(db), "-u", "here.example", user], input=password.encode(),
                       check=True, timeout=60)
    (conf / "smtpd.conf").write_text(f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {db}\n"
                                     "mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 ANONYMOUS\n")
    conf.chmod(0o755)
    db.chmod(0o644)
    return conf


@pytest.fixture
def with_sasldb(make_instance):
    def make(main_cf="", master_extra="", users=(("anna", "geheim"),), **kwargs):
        mail = make_instance(start=False, main_cf=CYRUS + main_cf, master_extra=master_extra, **kwargs)
        conf = sasldb(mail.directory, users)
        mail.extra += f"cyrus_sasl_config_path = {conf}\n"
        mail.write_config()
        return mail.start()
    return make


def test_sasldb(with_sasldb):
    mail = with_sasldb()
    assert sorted(mechanisms(mail.port)) == ["CRAM-MD5", "LOGIN", "PLAIN", "SCRAM-SHA-256"]  # noanonymous
    for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
        assert log_in(mail.port, "anna", "geheim", mechanism)[0] == 235, mechanism
        code, text = log_in(mail.port, "anna", "falsch", mechanism)
        assert (code, text) == (535, b"5.7.8 Error: authentication failed: authentication failure"), mechanism
        mail.wait_log(f"warning: localhost[127.0.0.1]: SASL {mechanism} authentication failed: authentication failure")
    assert log_in(mail.port, "nobody", "geheim", "PLAIN")[0] == 535
    status, said = swaks(mail.port, "--auth", "CRAM-MD5", "--auth-user", "anna", "--auth-password", "geheim")
    assert status == 0, said
    mail.wait_log("sasl_method=CRAM-MD5, sasl_username=anna")
    assert swaks(mail.port)[0] != 0
    assert "geheim" not in mail.log() and "falsch" not in mail.log()


def test_default_place(make_instance):
    """Without cyrus_sasl_config_path: sasl/smtpd.conf beside main.cf."""
    mail = make_instance(start=False, main_cf=CYRUS + "smtpd_sasl_security_options = noplaintext, noanonymous\n")
    conf = sasldb(mail.directory)
    (mail.etc / "sasl").symlink_to(conf)
    mail.start()
    assert sorted(mechanisms(mail.port)) == ["CRAM-MD5", "SCRAM-SHA-256"]
    assert log_in(mail.port, "anna", "geheim", "CRAM-MD5")[0] == 235
    assert log_in(mail.port, "anna", "geheim", "PLAIN")[0] == 535


def test_many_at_a_time(with_sasldb):
    """More logins than threads, and one user's answer is never another's."""
    import concurrent.futures
    users = [(f"user{i}", f"secret{i}") for i in range(6)]
    mail = with_sasldb(users=users)

    def one(i):
        user, password = users[i % len(users)]
        right = i % 3 != 0
        return log_in(mail.port, user, password if right else users[(i + 1) % len(users)][1], "PLAIN")[0] == (
            235 if right else 535)
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        assert all(pool.map(one, range(72)))


def test_tables_go_on(with_sasldb):
    """The look-up process serves tables and logins; a login half done holds up neither."""
    from smtpd.dialogue import Client
    mail = with_sasldb("smtpd_sender_restrictions = check_sender_access proxy:inline:{bad@here.example=REJECT}\n"
                       "proxy_read_maps = $smtpd_sender_restrictions\n")
    client = Client(mail.port)
    client.reply()
    client.ask("EHLO client.example")
    assert client.ask("AUTH LOGIN")[0].startswith("334")
    assert log_in(mail.port, "anna", "geheim", "PLAIN")[0] == 235
    client.close()


@contextlib.contextmanager
def saslauthd(directory, mechanism="sasldb"):
    """It checks /etc/sasldb2, or asks getpwent; its socket is in `directory`."""
    directory.mkdir()
    directory.chmod(0o755)
    process = subprocess.Popen([SASLAUTHD, "-d", "-a", mechanism, "-m", str(directory), "-n", "2"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for((directory / "mux").exists, what="saslauthd")
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=20)


@pytest.mark.skipif(not AS_ROOT, reason="saslauthd wants root")
def test_saslauthd(make_instance):
    mail = make_instance(start=False, main_cf=CYRUS)
    conf = mail.directory / "sasl"
    conf.mkdir()
    (conf / "smtpd.conf").write_text(f"pwcheck_method: saslauthd\nmech_list: PLAIN LOGIN\n"
                                     f"saslauthd_path: {mail.directory}/saslauthd/mux\n")
    mail.extra += f"cyrus_sasl_config_path = {conf}\n"
    mail.write_config()
    mail.start()
    # nobody there: the reason is in the log, and all else goes on
    code, text = log_in(mail.port, "anna", "geheim", "PLAIN")
    assert (code, text) == (454, b"4.7.0 Temporary authentication failure: generic failure")
    mail.wait_log("SASL authentication failure: cannot connect to saslauthd server: ")
    with kept_sasldb2(), saslauthd(mail.directory / "saslauthd"):
        subprocess.run(["saslpasswd2", "-p", "-c", "-u", "here.example", "anna"], input=b"geheim", check=True, timeout=60)
        assert log_in(mail.port, "anna", "geheim", "PLAIN")[0] == 235
        assert log_in(mail.port, "anna", "geheim", "LOGIN")[0] == 235
        code, text = log_in(mail.port, "anna", "falsch", "PLAIN")
        assert (code, text) == (535, b"5.7.8 Error: authentication failed: authentication failure")


@contextlib.contextmanager
def kept_sasldb2():
    """/etc/sasldb2, which saslauthd reads, is put back."""
    path, aside = pathlib.Path("/etc/sasldb2"), pathlib.Path("/etc/sasldb2.kept")
    if path.exists():
        path.rename(aside)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if aside.exists():
            aside.rename(path)


@contextlib.contextmanager
def logged(oracle):
    try:
        yield
    finally:
        print(oracle.log())


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
def test_same_words_as_the_oracle(with_sasldb):
    mail = with_sasldb()
    oracle = Oracle(main_cf=CYRUS)
    write = oracle.write

    def write_and_link():  # where Debian's looks
        write()
        (oracle.directory / "etc/sasl").symlink_to(mail.directory / "sasl")
    oracle.write = write_and_link
    with oracle, logged(oracle):
        for attempt in (("anna", "geheim"), ("anna", "falsch"), ("nobody", "x")):
            for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
                ours = log_in(mail.port, *attempt, mechanism)
                theirs = log_in(oracle.port, *attempt, mechanism)
                assert ours == theirs, (attempt, mechanism)
        swaks(mail.port, "--auth", "PLAIN", "--auth-user", "anna", "--auth-password", "geheim")
        swaks(oracle.port, "--auth", "PLAIN", "--auth-user", "anna", "--auth-password", "geheim")

        def logins(text):
            return [line.partition("client=")[2] for line in text.splitlines() if "sasl_username=anna" in line
                    and "client=" in line]
        wait_for(lambda: logins(oracle.log()))
        assert logins(mail.log()) == logins(oracle.log())
        mine = [line.partition("]: ")[2] for line in mail.log().splitlines() if "SASL " in line]
        theirs = [line.partition("]: ")[2] for line in oracle.log().splitlines() if "SASL " in line]
        assert sorted(mine) == sorted(theirs)
