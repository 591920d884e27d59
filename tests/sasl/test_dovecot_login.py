"""Logins with a real Dovecot as the login server: unix and inet sockets, all mechanisms, restarts; and with login servers
that misbehave."""
import contextlib
import grp
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import time

import pytest

from instance import free_port, wait_for
from login_server import LoginServer, word
from sasl.login_world import MAIN_CF, log_in, mechanisms, swaks
from smtpd.dialogue import Client

pytestmark = pytest.mark.skipif(not shutil.which("dovecot"), reason="no dovecot (dovecot-core)")
USER = "mail" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
AS_USER = {"user": USER, "group": grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name, "extra_groups": []} \
    if os.geteuid() == 0 else {}

DOVECOT = """\
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/dovecot.log
protocols =
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5 scram-sha-256
auth_failure_delay = 0
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {base}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={base}/home
}}
service auth {{
  unix_listener {socket} {{
    mode = 0666
  }}
  inet_listener {{
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


class Dovecot:
    """As the mail system's user, who may then make its socket in the queue directory."""

    def __init__(self, directory, at):
        self.base, self.socket, self.port, self.process = directory / "dovecot", at, free_port(), None
        ids = pwd.getpwnam(USER)
        for path in (self.base, self.base / "home", self.base / "run", self.base / "state"):
            path.mkdir()
            if os.geteuid() == 0:
                os.chown(path, ids.pw_uid, ids.pw_gid)
        (self.base / "users").write_text("anna:geheim\n")
        (self.base / "dovecot.conf").write_text(DOVECOT.format(
            base=self.base, user=USER, group=grp.getgrgid(ids.pw_gid).gr_name, uid=ids.pw_uid, gid=ids.pw_gid,
            socket=at, port=self.port))

    def start(self):
        self.process = subprocess.Popen(["dovecot", "-F", "-c", str(self.base / "dovecot.conf")], start_new_session=True,
                                        **AS_USER)

        def listening():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0 and pathlib.Path(self.socket).exists()
        wait_for(listening, what="dovecot")
        return self

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=20)
            with contextlib.suppress(ProcessLookupError):  # what it has started and not waited for
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process = None


@pytest.fixture
def dovecot(make_instance):
    """An instance with the stock place of the socket, and Dovecot at it."""
    made = []

    def make(main_cf="", path="private/auth", **kwargs):
        mail = make_instance(main_cf=MAIN_CF + f"smtpd_sasl_type = dovecot\nsmtpd_sasl_path = {path}\n" + main_cf,
                             **kwargs)
        directory = mail.queue / "private"
        if os.geteuid() == 0:
            directory.chmod(0o777)  # Dovecot runs as another user here; on a real system it is root that makes it
        server = Dovecot(mail.directory, directory / "auth").start()
        made.append(server)
        return mail, server
    yield make
    for server in made:
        print((server.base / "dovecot.log").read_text())
        server.stop()


def test_mechanisms_and_clients(dovecot):
    mail, server = dovecot()
    assert sorted(mechanisms(mail.port)) == ["CRAM-MD5", "LOGIN", "PLAIN", "SCRAM-SHA-256"]
    for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
        assert log_in(mail.port, "anna", "geheim", mechanism)[0] == 235, mechanism
        code, text = log_in(mail.port, "anna", "falsch", mechanism)
        assert code == 535 and text.startswith(b"5.7.8 Error: authentication failed: "), mechanism
        assert mail.wait_log(f"SASL {mechanism} authentication failed: ").endswith("sasl_username=anna")
    assert "geheim" not in mail.log() and word("geheim") not in mail.log() and "falsch" not in mail.log()

    status, said = swaks(mail.port, "--auth", "PLAIN", "--auth-user", "anna", "--auth-password", "geheim")
    assert status == 0, said
    assert "sasl_method=PLAIN, sasl_username=anna" in mail.wait_log(": client=localhost[127.0.0.1], sasl_method")
    status, said = swaks(mail.port)
    assert status != 0 and "554 5.7.1 <b@elsewhere.example>: Recipient address rejected: Access denied" in said


def test_login_as_outlook_does(dovecot):
    """AUTH LOGIN without initial response; user and password answer two challenges."""
    mail, _ = dovecot()
    client = Client(mail.port)
    assert client.reply()[0].startswith("220")
    client.ask("EHLO outlook")
    assert client.ask("AUTH LOGIN") == ["334 VXNlcm5hbWU6"]
    assert client.ask(word("anna")) == ["334 UGFzc3dvcmQ6"]
    assert client.ask(word("geheim")) == ["235 2.7.0 Authentication successful"]
    client.close()


def test_scram(dovecot):
    """SCRAM-SHA-256 (RFC 7677), whose server proves itself, too."""
    import base64
    import hashlib
    import hmac
    mail, _ = dovecot()
    client = Client(mail.port)
    client.reply()
    client.ask("EHLO client.example")
    first = "n=anna,r=clientnonce"
    reply = client.ask("AUTH SCRAM-SHA-256 " + word("n,," + first))[0]
    assert reply.startswith("334 ")
    server_first = base64.b64decode(reply[4:]).decode()
    given = dict(part.split("=", 1) for part in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", b"geheim", base64.b64decode(given["s"]), int(given["i"]))
    final = f"c=biws,r={given['r']}"
    message = f"{first},{server_first},{final}".encode()
    key = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    signature = hmac.new(hashlib.sha256(key).digest(), message, hashlib.sha256).digest()
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
    reply = client.ask(word(f"{final},p={proof}"))[0]
    assert reply.startswith("334 ")  # the server's signature
    server_key = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    expected = base64.b64encode(hmac.new(server_key, message, hashlib.sha256).digest()).decode()
    assert base64.b64decode(reply[4:]).decode() == "v=" + expected
    assert client.ask("") == ["235 2.7.0 Authentication successful"]
    client.close()


def test_inet(dovecot, make_instance):
    mail, server = dovecot()
    over_tcp = make_instance(main_cf=MAIN_CF + f"smtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:127.0.0.1:{server.port}\n",
                             name="inet")
    assert log_in(over_tcp.port, "anna", "geheim", "PLAIN")[0] == 235
    assert log_in(over_tcp.port, "anna", "falsch", "PLAIN")[0] == 535


def test_restart(dovecot):
    """A login server that comes and goes costs no session."""
    mail, server = dovecot("smtpd_hard_error_limit = 1000\n")
    kept = Client(mail.port)
    kept.reply()
    assert any("AUTH" in line for line in kept.ask("EHLO client.example"))
    assert log_in(mail.port, "anna", "geheim", "PLAIN")[0] == 235
    server.stop()
    reply = kept.ask("AUTH PLAIN " + word("\0anna\0geheim"))[0]
    assert reply == "454 4.7.0 Temporary authentication failure: Connection lost to authentication server"
    assert not any("AUTH" in line for line in kept.ask("EHLO client.example"))
    mail.wait_log("warning: SASL: login server private/auth (smtpd_sasl_path): ")
    server.start()
    wait_for(lambda: kept.ask("AUTH PLAIN " + word("\0anna\0geheim"))[0].startswith("235"), what="a login")
    kept.close()


def test_submission_line(dovecot):
    """The login options of the stock submission line."""
    port = free_port()
    mail, _ = dovecot(master_extra=f"""\
127.0.0.1:{port} inet n - n - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_reject_unlisted_recipient=no
  -o smtpd_client_restrictions=
  -o smtpd_helo_restrictions=
  -o smtpd_sender_restrictions=
  -o smtpd_relay_restrictions=
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
  -o milter_macro_daemon_name=ORIGINATING
""")
    status, said = swaks(port, "--auth", "LOGIN", "--auth-user", "anna", "--auth-password", "geheim")
    assert status == 0, said
    assert "postfix/submission/smtpd[" in mail.wait_log("sasl_method=LOGIN, sasl_username=anna")
    assert swaks(port)[0] != 0


# --- login servers that misbehave ---
@pytest.fixture
def server(make_instance):
    made = []

    def make(main_cf="", **kwargs):
        mail = make_instance(main_cf=MAIN_CF + "smtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/login\n"
                             "smtpd_hard_error_limit = 100000\nsmtpd_soft_error_limit = 100000\n" + main_cf)
        made.append(LoginServer(mail.queue / "private/login", **kwargs))
        return mail, made[-1]
    yield make
    for one in made:
        one.stop()


def ready(mail):
    client = Client(mail.port)
    client.reply()
    client.ask("EHLO client.example")
    return client


def auth(client, what):
    return client.ask("AUTH PLAIN " + word(what))[0]


def test_broken_answers(server):
    """A protocol error: 454, the connection is closed, the next login has a new one."""
    mail, logins = server()
    client = ready(mail)
    for broken in ("oknouser", "badchallenge", "nonumber", "endless"):
        before = logins.connections
        assert auth(client, broken).startswith("454 4.7.0 Temporary authentication failure: "), broken
        assert auth(client, "good").startswith("235")
        assert logins.connections == before + (2 if broken == "endless" else 1), broken
        client.close()
        client = ready(mail)
    client.close()


def test_what_is_said_is_cut(server):
    mail, _ = server()
    client = ready(mail)
    assert len(auth(client, "long")) < 500
    line = mail.wait_log("SASL PLAIN authentication failed: rrr")
    assert len(line) < 500 and "\x01" not in line and "u?u?" in line
    client.ask("AUTH " + "X" * 500 + " " + word("good"))
    line = mail.wait_log("SASL XXX")
    assert len(line) < 400
    assert auth(client, "reason").endswith("failed: Because")
    assert auth(client, "fail").endswith("failed: (reason unavailable)")  # not the reason of the login before
    assert mail.wait_log("failed: (reason unavailable)").endswith("sasl_username=joe")
    client.close()


def test_fields(server):
    """What the login server is told."""
    mail, logins = server("smtpd_sasl_service = submission\n")
    client = ready(mail)
    assert auth(client, "good").startswith("235")
    port = client.socket.getsockname()[1]
    assert logins.lines[0] == "VERSION\t1\t1"
    assert logins.lines[2] == ("AUTH\t1\tPLAIN\tservice=submission\tnologin\tlip=127.0.0.1\trip=127.0.0.1\t"
                               f"lport={mail.port}\trport={port}\tresp={word('good')}")
    client.close()


def test_one_connection_for_all(server):
    mail, logins = server()
    clients = [ready(mail) for _ in range(40)]
    for client in clients:
        client.send(b"AUTH LOGIN\r\n")
    for client in clients:
        assert client.reply()[0].startswith("334")
    for client in clients:
        client.send(word("good").encode() + b"\r\n")
    for client in clients:
        assert client.reply()[0].startswith("235")
        client.close()
    assert logins.connections == 1


def descriptors(mail):
    return sum(len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir())) for pid in mail.pids("smtpd"))


def test_server_is_down(server):
    """Ten thousand tries leave no descriptor behind, and no try waits for long."""
    mail, logins = server()
    client = ready(mail)
    logins.stop()
    auth(client, "good")
    before = descriptors(mail)
    for _ in range(100):
        client.send(("AUTH PLAIN " + word("good") + "\r\n").encode())
        assert client.reply()[0].startswith("454 4.7.0 ")
    started = time.monotonic()
    client.socket.settimeout(300)
    replies = 0

    # one after the other: AUTH may not be pipelined
    for _ in range(9900):
        client.send(("AUTH PLAIN " + word("good") + "\r\n").encode())
        replies += client.reply()[0].startswith("454 4.7.0 ")
    assert replies == 9900
    assert descriptors(mail) <= before + 1
    assert time.monotonic() - started < 250
    client.close()


def memory_has(pid, text):
    """Is it in the writable memory of the process?"""
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        if not rights.startswith("rw"):
            continue
        first, last = (int(n, 16) for n in span.split("-"))
        with open(f"/proc/{pid}/mem", "rb", 0) as mem, contextlib.suppress(OSError, ValueError):
            mem.seek(first)
            if text in mem.read(last - first):
                return True
    return False


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="a sanitizer keeps what was freed, and terabytes of shadow")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read another process's memory")
def test_passwords_are_not_kept(server):
    mail, _ = server()
    client = ready(mail)
    noise = word("not a password, " * 60)
    client.ask("NOOP " + noise)  # the search finds what is left lying about
    pid = mail.pids("smtpd")[0]
    assert memory_has(pid, noise[-90:-20].encode())
    secret = word("\0joe\0" + "correct horse battery staple, " * 30)
    assert client.ask("AUTH PLAIN " + secret)[0].startswith("535")
    assert not memory_has(pid, secret[-90:-20].encode())
    secret = word("another horse, another staple, " * 30)
    assert client.ask("AUTH LOGIN")[0].startswith("334")
    assert client.ask(secret)[0].startswith("535")
    assert not memory_has(pid, secret[-90:-20].encode())
    client.close()
