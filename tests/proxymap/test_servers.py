"""Tables on servers, in a running instance: a server that hangs, lies, dies and comes back costs 4xx answers and nothing
else; so does the end of the look-up process itself. A dead database keeps nobody else waiting."""
import contextlib
import os
import pwd
import signal
import smtplib
import socket
import socketserver
import sqlite3
import threading
import time

import pytest

from instance import changed, free_port, wait_for

ME = pwd.getpwuid(os.geteuid()).pw_name
HOST_SECONDS = 10  # LOOKUP_HOST_SECONDS
ANSWER_SECONDS = 45  # LOOKUP_SECONDS and what is around it


class TableServer:
    """A tcp: or socketmap: server that can misbehave: `mode` answer, hang, garbage, hangup."""

    def __init__(self, kind, table=None, port=None):
        self.kind, self.table, self.port = kind, table or {}, port or free_port()
        self.mode, self.asked, self.released = "answer", [], threading.Event()
        self.server = None
        self.start()

    @property
    def spec(self):
        return f"tcp:127.0.0.1:{self.port}" if self.kind == "tcp" else f"socketmap:inet:127.0.0.1:{self.port}:users"

    def reply(self, key):
        value = self.table.get(key)
        if self.kind == "tcp":
            return f"200 {value}\n" if value else "500 not%20found\n"
        text = f"OK {value}" if value else "NOTFOUND "
        return f"{len(text)}:{text},"

    def read(self, stream):
        if self.kind == "tcp":
            return stream.readline().decode().removeprefix("get ").rstrip("\n").replace("%40", "@").replace("%2B", "+")
        digits = b""
        while (byte := stream.read(1)) not in (b":", b""):
            digits += byte
        text = stream.read(int(digits) + 1).decode() if digits else ""
        return text[:-1].removeprefix("users ")

    def start(self):
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while key := outer.read(self.rfile):
                    outer.asked.append(key)
                    if outer.mode == "hang":
                        outer.released.wait(100)
                        return
                    if outer.mode == "hangup":
                        return
                    text = "\x00 }not a reply\n,,," if outer.mode == "garbage" else outer.reply(key)
                    self.wfile.write(text.encode())

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # who asked is gone

            def process_request(self, request, client_address):
                outer.connections.append(request)
                super().process_request(request, client_address)

        self.connections = []
        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def die(self):
        self.server.shutdown()
        self.server.server_close()
        for one in self.connections:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.server = None

    def stop(self):
        self.released.set()
        if self.server:
            self.die()


@pytest.fixture
def table_server():
    made = []

    def make(*args, **kwargs):
        made.append(TableServer(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def rcpt(instance, address):
    """The reply to RCPT, and how long it took."""
    with instance.smtp() as s:
        s.ehlo("client.example")
        s.mail("sender@there.example")
        before = time.monotonic()
        code, text = s.rcpt(address)
        return code, text.decode(), time.monotonic() - before


def wait_rcpt(instance, address, code, seconds=30):
    return wait_for(lambda: rcpt(instance, address)[0] == code, seconds, f"{code} for {address}")


USERS = "relay_domains = relay.example, files.example\nsmtpd_delay_reject = no\n"


@pytest.mark.parametrize("proxied", ["", "proxy:"])
@pytest.mark.parametrize("kind", ["tcp", "socketmap"])
def test_ill_server(make_instance, table_server, kind, proxied):
    server = table_server(kind, {"user@relay.example": "x"})
    i = make_instance(main_cf=USERS + f"relay_recipient_maps = {proxied}{server.spec}\n")
    assert rcpt(i, "user@relay.example")[0] == 250
    assert rcpt(i, "nobody@relay.example")[0] == 550
    for mode in ("garbage", "hangup"):
        server.mode = mode
        wait_rcpt(i, "user@relay.example", 451)  # smtpd remembers for half a second what it was told
        code, text, _ = rcpt(i, "user@relay.example")
        assert code == 451 and "4.3.0" in text, mode
        server.mode = "answer"
        wait_rcpt(i, "user@relay.example", 250)
    server.die()
    wait_rcpt(i, "user@relay.example", 451)
    assert f"{server.spec} lookup error" in i.log()
    server.start()
    wait_rcpt(i, "user@relay.example", 250)
    assert rcpt(i, "nobody@relay.example")[0] == 550
    assert server.asked and all(key.endswith("@relay.example") for key in server.asked)  # no parts of addresses


def test_hanging_server(make_instance, table_server):
    """Many sessions wait for the dead table; those that ask another do not."""
    dead, alive = table_server("socketmap"), table_server("tcp", {"user@files.example": "x"})
    dead.mode = "hang"
    i = make_instance(main_cf=USERS + f"relay_recipient_maps = inline:{{ {{ok@relay.example=x}} }}, {alive.spec}\n"
                      f"virtual_mailbox_domains = dead.example\nvirtual_mailbox_maps = {dead.spec}\n")
    results, threads = [], []
    for n in range(60):
        threads.append(threading.Thread(target=lambda n=n: results.append(rcpt(i, f"user{n}@dead.example"))))
        threads[-1].start()
    wait_for(lambda: dead.asked, 20, "the first question")
    for _ in range(20):
        for address, code in (("user@files.example", 250), ("ok@relay.example", 250), ("no@files.example", 550)):
            got, text, took = rcpt(i, address)
            assert got == code and took < HOST_SECONDS / 2, (text, took)
    for thread in threads:
        thread.join(2 * ANSWER_SECONDS)
    assert len(results) == 60 and all(code == 451 and took < ANSWER_SECONDS for code, _, took in results)
    dead.mode = "answer"
    dead.table = {"user@dead.example": "x"}
    dead.released.set()
    wait_rcpt(i, "user@dead.example", 250)


def test_mail_waits_for_the_server(make_instance, table_server):
    """In the queue: transport_maps fails after the message was accepted; it is delivered when the server is back."""
    server = table_server("tcp", {f"{ME}@mail.example": "local:"})
    i = make_instance(main_cf=f"transport_maps = {server.spec}\nminimal_backoff_time = 1s\nmaximal_backoff_time = 2s\n"
                      "queue_run_delay = 1s\nsmtpd_reject_unlisted_recipient = no\n"
                      f"virtual_alias_maps = inline:{{ {{other@mail.example={ME}@mail.example}} }}\n", start=False)
    # the one that receives asks no server: only the queue manager does
    master = i.etc / "master.cf"
    master.write_text(master.read_text().replace("trivial-rewrite\n", "trivial-rewrite -o transport_maps=\n"))
    i.start()
    server.die()
    with i.smtp() as s:
        s.sendmail("sender@mail.example", [f"{ME}@mail.example"], "Subject: late\n\nhello\n")
    i.wait_log("status=deferred")
    assert "status=bounced" not in i.log()
    server.start()
    i.wait_log("status=sent", 40)
    assert "Subject: late" in (i.mail / ME).read_text()


def test_look_up_process_killed(make_instance, table_server):
    """While a question is under way, again and again: who asks does not notice, or waits; nothing is refused."""
    server = table_server("socketmap", {"user@relay.example": "x"})
    i = make_instance(main_cf=USERS + f"relay_recipient_maps = {server.spec}\n")
    assert rcpt(i, "user@relay.example")[0] == 250
    for _ in range(3):
        old = i.pids("proxymap")
        assert len(old) == 1
        os.kill(old[0], signal.SIGKILL)
        changed()
        code, text, _ = rcpt(i, "user@relay.example")
        assert code == 250, text
        assert rcpt(i, "nobody@relay.example")[0] == 550
    # in the middle of a question
    server.mode = "hang"
    changed()
    result = []
    asked = len(server.asked)
    thread = threading.Thread(target=lambda: result.append(rcpt(i, "user@relay.example")))
    thread.start()
    wait_for(lambda: len(server.asked) > asked, 20, "the question")
    server.mode = "answer"
    os.kill(i.pids("proxymap")[0], signal.SIGKILL)
    thread.join(ANSWER_SECONDS)
    assert result[0][0] == 250, result


def test_unauthorized(make_instance, table_server):
    server = table_server("tcp", {"user@relay.example": "x"})
    i = make_instance(main_cf=USERS + f"relay_recipient_maps = proxy:{server.spec}\nproxy_read_maps = proxy:hash:/nowhere\n")
    code, text, _ = rcpt(i, "user@relay.example")
    assert code == 451 and "Temporary lookup failure" in text
    i.wait_log(f'request for unauthorized table: "proxy:{server.spec}"', 5)
    assert not server.asked


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can keep a file from mail_owner")
def test_configuration_for_root_alone(make_instance):
    """mode 0600: read before proxymap gives root up; when it changes, proxymap ends and its successor reads the new one."""
    i = make_instance(start=False)
    for name, user in (("first", "old"), ("second", "new")):
        with contextlib.closing(sqlite3.connect(i.directory / name)) as db, db:
            db.execute("CREATE TABLE t (k)")
            db.execute("INSERT INTO t VALUES (?)", (f"{user}@relay.example",))
        (i.directory / name).chmod(0o644)
    settings = i.directory / "users.cf"

    def write(name):
        new = i.directory / "users.cf.new"
        new.touch(0o600)
        new.write_text(f"dbpath = {i.directory}/{name}\nquery = SELECT k FROM t WHERE k = '%s'\n")
        os.rename(new, settings)

    write("first")
    i.extra = USERS + f"relay_recipient_maps = sqlite:{settings}\n"
    i.write_config()
    i.start()
    assert rcpt(i, "old@relay.example")[0] == 250
    assert rcpt(i, "new@relay.example")[0] == 550
    before = i.pids("proxymap")
    write("second")
    wait_for(lambda: rcpt(i, "new@relay.example")[0] == 250, 30, "the new configuration")
    assert rcpt(i, "old@relay.example")[0] == 550
    i.wait_log("a table's configuration has changed -- restarting", 20)
    assert set(i.pids("proxymap")).isdisjoint(before)


def test_local_users(make_instance):
    """The default of local_recipient_maps asks the users of the system through the look-up process."""
    i = make_instance(main_cf="alias_maps = inline:{ {aliased=root} }\n")
    assert i.postconf("local_recipient_maps") == "proxy:unix:passwd.byname $alias_maps"
    assert rcpt(i, f"{ME}@mail.example")[0] == 250
    assert rcpt(i, f"{ME.upper()}@mail.example")[0] == 250
    assert rcpt(i, "aliased@mail.example")[0] == 250
    assert rcpt(i, "no-such-user@mail.example")[0] == 550
    assert len(i.pids("proxymap")) == 1


def test_commands(make_instance, table_server):
    server = table_server("socketmap", {"key": "some value"})
    i = make_instance(main_cf=f"virtual_alias_maps = proxy:{server.spec}\n")
    for spec in (server.spec, f"proxy:{server.spec}"):
        done = i.command("postmap", "-q", "key", spec, capture_output=True)
        assert (done.returncode, done.stdout) == (0, "some value\n"), (spec, done.stderr)
        assert i.command("postmap", "-q", "other", spec, capture_output=True).returncode == 1
    server.die()
    done = i.command("postmap", "-q", "key", server.spec, capture_output=True)
    assert done.returncode == 1 and server.spec in done.stderr
