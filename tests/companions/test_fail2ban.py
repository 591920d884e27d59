"""fail2ban's filters for postfix, as Debian ships them, read what our daemons log: each client's address is found in the
modes that are for it and in no other, and, where Debian's postfix is at hand, the same in its log."""
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instance import ROOT, wait_for
from login_server import LoginServer, word
from oracle import Oracle
from smtpd.dialogue import Client

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "postscreen"))
import screens  # noqa: E402
from name_server import Names  # noqa: E402

pytestmark = pytest.mark.skipif(not shutil.which("fail2ban-regex"), reason="no fail2ban")

MAIN_CF = """\
mynetworks =
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 3
mydestination = localhost
local_recipient_maps = inline:{ good=x }
local_transport = discard
smtpd_sasl_auth_enable = yes
smtpd_sasl_path = private/login
smtpd_sasl_type = dovecot
smtpd_forbid_unauth_pipelining = yes
smtpd_helo_restrictions = reject_invalid_helo_hostname reject_non_fqdn_helo_hostname
smtpd_sender_restrictions = reject_non_fqdn_sender, check_sender_access inline:{ { bad@there.example = REJECT } }
smtpd_client_restrictions = check_client_access inline:{ { CLIENT = REJECT go away } }
smtpd_recipient_restrictions = check_recipient_access inline:{ { soon@localhost = DEFER later } }
"""
MAIL, RCPT = "MAIL FROM:<a@there.example>", "RCPT TO:<good@localhost>"
NORMAL = {"normal", "more", "extra", "aggressive"}
LOGIN = {"auth", "extra", "aggressive"}
ERRORS = NORMAL | {"errors"}
DDOS = {"ddos", "aggressive"}
MODES = sorted(NORMAL | LOGIN | ERRORS | DDOS | {"rbl"})

# name: what the client says; the modes that must find it
SESSIONS = {
    "good": (["EHLO c.example", MAIL, RCPT, "RSET", "QUIT"], set()),
    "relay": (["EHLO c.example", MAIL, "RCPT TO:<x@elsewhere.example>", "QUIT"], NORMAL),
    "user": (["EHLO c.example", MAIL, "RCPT TO:<nobody@localhost>", "QUIT"], NORMAL),
    "helo": (["EHLO bad_name!", MAIL, RCPT, "QUIT"], set()),  # "invalid name" is not among its words
    "short helo": (["EHLO short", MAIL, RCPT, "QUIT"], NORMAL),
    "sender": (["EHLO c.example", "MAIL FROM:<a@short>", RCPT, "QUIT"], set()),  # "need fully-qualified address"
    "sender table": (["EHLO c.example", "MAIL FROM:<bad@there.example>", RCPT, "QUIT"], set()),  # "Access denied"
    "deferred": (["EHLO c.example", MAIL, "RCPT TO:<soon@localhost>", "QUIT"], set()),
    "pipelining": (["EHLO c.example\r\nMAIL FROM:<a@b.example>"], NORMAL),
    "errors": (["EHLO c.example", "FOO", "FOO", "FOO", "FOO"], ERRORS),
    "password": (["EHLO c.example", "AUTH PLAIN " + word("fail"), "QUIT"], LOGIN | DDOS),
    "password by LOGIN": (["EHLO c.example", "AUTH LOGIN", word("x"), word("fail"), "QUIT"], LOGIN | DDOS),
    "reason": (["EHLO c.example", "AUTH PLAIN " + word("reason"), "QUIT"], LOGIN | DDOS),
    "login": (["EHLO c.example", "AUTH PLAIN " + word("good"), "QUIT"], set()),
    "mechanism": (["EHLO c.example", "AUTH NONE", "QUIT"], DDOS),
    "gone at once": ([], DDOS),
    "gone after EHLO": (["EHLO c.example"], DDOS),
    "gone after RCPT": (["EHLO c.example", MAIL, RCPT], DDOS),
    "gone in content": (["EHLO c.example", MAIL, RCPT, "DATA", None], set()),
    "client": (["EHLO c.example", MAIL, RCPT, "QUIT"], NORMAL),
    "list": (["EHLO c.example", MAIL, RCPT, "QUIT"], NORMAL | {"rbl"}),
}
# of which postfix.conf of fail2ban 1.0 does not know that a queue id, or NOQUEUE, is in front of them since Postfix 3.10
NEW_FORM = {"errors", "gone at once", "gone after EHLO", "gone after RCPT"}
ADDRESS = {name: f"127.0.0.{20 + i}" for i, name in enumerate(SESSIONS)}
MAIN_CF = MAIN_CF.replace("CLIENT", ADDRESS["client"])
ALL = {ADDRESS[name]: modes for name, (_, modes) in SESSIONS.items()}


def play(port):
    for name, (said, _) in SESSIONS.items():
        client = Client(port, ADDRESS[name])
        with contextlib.suppress(ConnectionError):
            client.reply()
            for line in said:
                if line is None:
                    client.send(b"half a message")
                else:
                    client.ask(line)
        client.close()


def found(log, mode, config="/etc/fail2ban"):
    """The addresses of the lines that match, as fail2ban prints them."""
    done = subprocess.run(["fail2ban-regex", "-c", str(config), "-o", "<ip>", str(log), f"postfix[mode={mode}]"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1) and "ERROR" not in done.stderr, done.stderr  # 1: no line has matched
    return set(re.findall(r"^127\.0\.0\.\d+$", done.stdout, re.M))


def check_all(log, clients, config="/etc/fail2ban"):
    for mode in MODES:
        assert found(log, mode, config) == {address for address, modes in clients.items() if mode in modes}, mode


@pytest.fixture(scope="module")
def with_ours(tmp_path_factory):
    """fail2ban's configuration and the file that we give to it."""
    config = tmp_path_factory.mktemp("fail2ban") / "etc"
    shutil.copytree("/etc/fail2ban", config)
    shutil.copy(ROOT / "packaging/fail2ban/postfix.local", config / "filter.d")
    return config


def whole_log(log):
    """The sessions have ended in it."""
    wait_for(lambda: log().count("disconnect from") >= len(SESSIONS), what="the end of every session")


@pytest.fixture
def lists():
    """A DNS list that has one of the addresses."""
    last = ADDRESS["list"].rsplit(".", 1)[1]
    server = Names({(f"{last}.0.0.127.list.example", "A"): (300, ["127.0.0.2"])})
    yield server
    server.close()


def test_smtpd(make_instance, lists, with_ours):
    mail = make_instance(main_cf=MAIN_CF.replace("smtpd_recipient_restrictions =", "smtpd_recipient_restrictions = "
                                                 "reject_rbl_client list.example"), dns=lists.address)
    with LoginServer(mail.queue / "private/login"):
        play(mail.port)
        whole_log(mail.log)
    check_all(mail.log_file, {ADDRESS[name]: set() if name in NEW_FORM else modes for name, (_, modes) in SESSIONS.items()})
    check_all(mail.log_file, ALL, with_ours)


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
def test_smtpd_of_debian(with_ours):
    """The table above is not our own idea of these lines. (The DNS list is left out: its resolver asks port 53 only.)"""
    with Oracle(main_cf=MAIN_CF) as debian, LoginServer(debian.directory / "queue/private/login"):
        play(debian.port)
        whole_log(debian.log)
        clients = {a: modes for a, modes in ALL.items() if a != ADDRESS["list"]}
        check_all(debian.directory / "log", clients)
        check_all(debian.directory / "log", clients, with_ours)


def test_postscreen():
    """Who talks before his turn, hangs up in the tests, or is on a list."""
    names = Names({("33.0.0.127.list.example", "A"): (300, ["127.0.0.2"])})
    screen = screens.Screen(main_cf="postscreen_greet_wait = 2s\npostscreen_greet_action = enforce\n"
                            "postscreen_dnsbl_sites = list.example\npostscreen_dnsbl_action = enforce\n", dns=names.address)
    try:
        screen.start()
        clients = {n: socket.create_connection(("127.0.0.1", screen.port), 30, source_address=(f"127.0.0.{n}", 0))
                   for n in (31, 32, 33, 34)}
        clients[31].sendall(b"EHLO early.example\r\n")
        time.sleep(0.1)
        clients[32].close()
        for n in (33, 34):
            reader = clients[n].makefile("rb")
            for line in (None, b"EHLO c.example", MAIL.encode(), RCPT.encode(), b"QUIT"):
                if line:
                    clients[n].sendall(line + b"\r\n")
                while reader.readline()[3:4] == b"-":
                    pass
        for pattern in ("PREGREET 20 after .* from .127.0.0.31.", "HANGUP after .* from .127.0.0.32.",
                        "reject: RCPT from .127.0.0.33.", "PASS NEW .127.0.0.34."):
            wait_for(lambda p=pattern: re.search(p, screen.log()), what=pattern)
        assert found(screen.log_file, "ddos") == {"127.0.0.31", "127.0.0.32"}
        # of 31 the log has two lines: it was early, and its RCPT would be refused
        assert {"127.0.0.33"} <= found(screen.log_file, "normal") and "127.0.0.34" not in found(screen.log_file, "aggressive")
        for client in clients.values():
            client.close()
    finally:
        print(screen.log())
        screen.stop()
        names.close()
