"""What logins need beside the exchange itself: a password table that only root can read, accounts of senders, refused
logins that are remembered, LMTP, settings that cannot be."""
import base64
import os
import pwd
import re
import smtplib

import pytest

from instance import Instance, wait_for
from smtp.login_host import LoginHost

USER = "nobody" if os.geteuid() == 0 else None
REFUSED = "535 5.7.8 Username and Password not accepted"


def b64(text):
    return base64.b64encode(text.encode()).decode()


def plain(user, password):
    return "AUTH PLAIN " + b64(f"\0{user}\0{password}")


@pytest.fixture
def host():
    made = []

    def make(*args, **kwargs):
        made.append(LoginHost(*args, **kwargs))
        return made[-1]
    yield make
    for one in made:
        one.close()


def send(mail, sender="me@here.example", to="x@far.example", count=1):
    with smtplib.SMTP("127.0.0.1", mail.port, timeout=60) as smtp:
        for _ in range(count):
            smtp.sendmail(sender, [to], "Subject: x\r\n\r\nhello\r\n")


def results(mail):
    return re.findall(r"to=<[^>]+>, relay.* dsn=([\d.]+), status=(.*)", mail.log())


def deliver(mail, count=1, **kwargs):
    """The results of messages sent one after the other."""
    for _ in range(count):
        have = len(results(mail))
        send(mail, **kwargs)
        wait_for(lambda: len(results(mail)) > have, 60, "a result")
    return results(mail)[-count:]


def logins(server):
    return [line for line in server.lines() if line.startswith("AUTH")]


BASE = "relayhost = [127.0.0.1]:{port}\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"


@pytest.mark.parametrize("kind", ["native", "cyrus"])
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_table_of_root_alone(make_instance, host, kind):
    """Read before the process gives up root; a changed one is read by the next process."""
    server = host(["235 ok"])
    mail = make_instance(start=False, main_cf=BASE.format(port=server.port) +
                         f"smtp_sasl_type = {kind}\nmax_idle = 1000s\n")
    table = mail.etc / "sasl_passwd"
    mail.extra += f"smtp_sasl_password_maps = hash:{table}\n"
    mail.write_config()
    table.write_text(f"[127.0.0.1]:{server.port} anna:geheim\n")
    assert mail.command("postmap", f"hash:{table}").returncode == 0
    for path in mail.etc.glob("sasl_passwd*"):
        os.chown(path, 0, 0)
        path.chmod(0o600)
    mail.etc.chmod(0o755)
    mail.start()
    assert deliver(mail) == [("2.0.0", "sent (250 2.0.0 taken)")]
    assert logins(server) == [plain("anna", "geheim")]
    worker = next(pid for pid in mail.pids("smtp"))
    assert os.stat(f"/proc/{worker}").st_uid == pwd.getpwnam("postfix").pw_uid
    table.write_text(f"[127.0.0.1]:{server.port} anna:neu\n")
    assert mail.command("postmap", f"hash:{table}").returncode == 0
    (mail.etc / "sasl_passwd.lmdb").chmod(0o600)
    wait_for(lambda: deliver(mail) and logins(server)[-1] == plain("anna", "neu"), 60, "the new password")


@pytest.mark.parametrize("dependent", ["yes", "no"])
def test_accounts_of_senders(make_instance, host, dependent):
    """sender_dependent_relayhost_maps and smtp_sender_dependent_authentication, with sessions that are kept: none is used
    for another sender's mail."""
    ours, theirs = host(["235 ok"]), host(["235 ok"])
    passwords = (f"{{me@here.example=anna:a}}, {{you@here.example=berta:b}}, {{[127.0.0.1]:{ours.port}=office:o}}, "
                 f"{{[127.0.0.1]:{theirs.port}=other:p}}")
    mail = make_instance(user=USER, main_cf=BASE.format(port=ours.port) + f"""\
smtp_sasl_type = native
smtp_sender_dependent_authentication = {dependent}
sender_dependent_relayhost_maps = inline:{{{{carl@here.example = [127.0.0.1]:{theirs.port}}}}}
smtp_sasl_password_maps = inline:{{{passwords}}}
smtp_connection_cache_destinations = static:all
smtp_connection_cache_time_limit = 60s
connection_cache_ttl_limit = 60s
""")
    for sender in ("me", "me", "you", "me", "dora", "carl"):
        assert deliver(mail, sender=f"{sender}@here.example")[0][1].startswith("sent")
    accounts = [("anna", "a"), ("berta", "b"), ("office", "o")] if dependent == "yes" else [("office", "o")]
    assert logins(ours) == [plain(*account) for account in accounts]
    assert logins(theirs) == [plain("other", "p")]
    assert ours.connections == len(accounts)
    mails = [line for line in ours.said if line[1].startswith("MAIL")]
    if dependent == "yes":
        assert [number for number, _ in mails] == [1, 1, 2, 1, 3]


def test_refused_logins_are_remembered(make_instance, host):
    """smtp_sasl_auth_cache_name: no second try with the same password, until smtp_sasl_auth_cache_time."""
    server = host([REFUSED])
    mail = make_instance(start=False, user=USER, main_cf=BASE.format(port=server.port) + """\
smtp_sasl_type = native
smtp_sasl_auth_cache_name = proxy:lmdb:$data_directory/refused
smtp_sasl_password_maps = inline:{127.0.0.1=anna:geheim}
""", master_extra="proxywrite unix - - n - 1 proxymap\n"
                      "short unix - - n - - smtp -o smtp_sasl_auth_cache_time=0\n"
                      "other unix - - n - - smtp -o smtp_sasl_password_maps=inline:{127.0.0.1=anna:neu}\n"
                      "hard unix - - n - - smtp -o smtp_sasl_auth_soft_bounce=no\n")
    mail.extra += "transport_maps = inline:{" + ", ".join(
        f"{{{name}.example = {name}:[127.0.0.1]:{server.port}}}" for name in ("short", "other", "hard")) + "}\n"
    mail.write_config()
    mail.start()
    said = f"server 127.0.0.1[127.0.0.1] said: {REFUSED})"
    assert deliver(mail) == [("4.7.8", "deferred (SASL authentication failed; " + said)]
    assert deliver(mail) == [("4.7.8", "deferred (SASL [CACHED] authentication failed; " + said)]
    assert deliver(mail, sender="", to="x@hard.example") == [("5.7.8", "bounced (SASL [CACHED] authentication failed; " + said)]
    assert len(logins(server)) == 1
    assert deliver(mail, to="x@other.example") == [("4.7.8", "deferred (SASL authentication failed; " + said)]
    assert len(logins(server)) == 2
    wait_for(lambda: "[CACHED]" not in deliver(mail, to="x@short.example")[0][1], 30, "the end of a second")
    for path in mail.data.glob("refused*"):
        assert b"geheim" not in path.read_bytes() and b64("geheim").encode() not in path.read_bytes()


def test_damaged_cache(make_instance, host):
    """Anything may stand in the cache; what makes no sense counts as nothing."""
    server = host(["235 ok"])
    mail = make_instance(start=False, user=USER, main_cf=BASE.format(port=server.port) + """\
smtp_sasl_type = native
smtp_sasl_auth_cache_name = proxy:lmdb:$data_directory/refused
smtp_sasl_password_maps = inline:{127.0.0.1=anna:geheim}
""", master_extra="proxywrite unix - - n - 1 proxymap\n")
    values = ["x", "1;2", ";;;;", "99999999999999999999;a;535;5.7.8;no", "9999999999;a;535;5.7.8;no",
              "9999999999;a;99999;;x", "9999999999;a;-1;;x"]
    for value in values:
        with open(mail.data / "refused", "w") as f:
            f.write(f"127.0.0.1;anna {value}\n")
        assert mail.command("postmap", f"lmdb:{mail.data / 'refused'}").returncode == 0
        mail.start()
        assert deliver(mail) == [("2.0.0", "sent (250 2.0.0 taken)")], value
        mail.postfix("stop")
    assert len(logins(server)) == len(values)


def test_lmtp(make_instance, host):
    """lmtp_sasl_... and the other lmtp_... parameters of logins."""
    server = host(["235 ok"], hello=["AUTH PLAIN CRAM-MD5"])
    mail = make_instance(user=USER, main_cf=f"""\
default_transport = lmtp:[127.0.0.1]:{server.port}
smtp_sasl_auth_enable = no
lmtp_sasl_auth_enable = yes
lmtp_sasl_type = native
lmtp_sasl_security_options =
lmtp_sasl_mechanism_filter = plain
lmtp_sasl_password_result_delimiter = /
lmtp_sender_dependent_authentication = yes
lmtp_send_dummy_mail_auth = yes
lmtp_sasl_password_maps = inline:{{{{127.0.0.1=never/x}}, {{me@here.example=anna/ge:heim}},
    {{[127.0.0.1]:{server.port}=office/o}}}}
""")
    assert deliver(mail)[0][1] == "sent (250 2.0.0 taken)"
    assert deliver(mail, sender="you@here.example")[0][1] == "sent (250 2.0.0 taken)"
    assert logins(server) == [plain("anna", "ge:heim"), plain("office", "o")]
    assert "MAIL FROM:<me@here.example> AUTH=<>" in server.lines()


def test_lmtp_refused(make_instance, host):
    server = host([REFUSED])
    mail = make_instance(user=USER, main_cf=f"""\
default_transport = lmtp:[127.0.0.1]:{server.port}
lmtp_sasl_auth_enable = yes
lmtp_sasl_security_options = noanonymous
lmtp_sasl_auth_cache_name = proxy:lmdb:$data_directory/refused
lmtp_sasl_auth_cache_time = 1d
lmtp_sasl_auth_soft_bounce = no
lmtp_sasl_password_maps = static:anna:geheim
""", master_extra="proxywrite unix - - n - 1 proxymap\n")
    said = f"server 127.0.0.1[127.0.0.1] said: {REFUSED})"
    assert deliver(mail, sender="") == [("5.7.8", "bounced (SASL authentication failed; " + said)]
    assert deliver(mail, sender="") == [("5.7.8", "bounced (SASL [CACHED] authentication failed; " + said)]


def test_host_and_port(make_instance, host):
    """The last key of all is ours: the host and the port, however the nexthop was written."""
    server = host(["235 ok"])
    mail = make_instance(user=USER, main_cf=BASE.format(port=server.port) +
                         f"smtp_sasl_type = native\nsmtp_sasl_password_maps = inline:{{127.0.0.1:{server.port}=anna:a}}\n"
                         "smtp_sasl_password_result_delimiter = :\n")
    deliver(mail)
    assert logins(server) == [plain("anna", "a")]


@pytest.mark.parametrize("settings, text", [
    ("smtp_sasl_type = dovecot\nsmtp_sasl_password_maps = static:a:b\n",
     'parameter smtp_sasl_type: unsupported SASL client implementation "dovecot" ("postconf -A" lists them)'),
    ("", "specify a password table via the `smtp_sasl_password_maps' configuration parameter"),
    ("smtp_sasl_security_options = noanonymous, nonsense\nsmtp_sasl_password_maps = static:a:b\n",
     'parameter smtp_sasl_security_options: unknown security option "nonsense"'),
])
def test_settings_that_cannot_be(make_instance, settings, text):
    mail = make_instance(user=USER, main_cf=BASE.format(port=9) + settings)
    send(mail)
    mail.wait_log(text)


def test_types(make_instance):
    mail = make_instance(start=False, user=USER)
    said = mail.command("postconf", "-A", capture_output=True).stdout.split()
    assert "native" in said and "cyrus" in said
