"""What went wrong in mail servers elsewhere, and must not here. regressions.tsv says for each line which test holds it;
here is what had no test of its own in the place where it belongs."""
import re
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest

from instance import ROOT, SANITIZED, wait_for
from milter.scripted_milter import CONTINUE, ScriptedMilter, chgheader, insheader, quarantine
from smtpd.dialogue import Client
from smtpd.test_idle_memory import pss, smtpd_processes

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "postscreen"), str(HERE.parent / "tls")]
from screens import Screen  # noqa: E402
from tls_ca import TestCA, TlsClient, client_context  # noqa: E402

MEBIBYTE = 1024 * 1024
MAIL = "local_recipient_maps =\nlocal_transport = discard\nsmtpd_error_sleep_time = 0\n"
ROWS = [line.split("\t") for line in (HERE / "regressions.tsv").read_text().splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize("key, what, tests", ROWS, ids=[row[0] for row in ROWS])
def test_list(key, what, tests):
    """Each named test exists: PATH::NAME, or a dialogue."""
    assert re.fullmatch("[A-Z]{2}-[0-9]{2}", key) and what
    for name in tests.split():
        path, _, function = name.partition("::")
        text = (ROOT / path).read_text()
        if function:
            assert re.search(rf"^(?:static void|def|void) {function}\(|\({function}\)", text, re.M), name


def test_list_is_whole():
    """No line twice; the numbers of each group have no gap that is not said to be elsewhere."""
    keys = [row[0] for row in ROWS]
    assert len(set(keys)) == len(keys)
    assert all(row[2] for row in ROWS)


def transaction(client):
    assert client.ask("MAIL FROM:<a@there.example>")[-1].startswith("250")
    assert client.ask("RCPT TO:<user@localhost>")[-1].startswith("250")


def greeted(port, source="127.0.0.1"):
    client = Client(port, source)
    client.reply()
    client.ask("EHLO client.example")
    return client


# --- BDAT ---
def test_many_chunks(make_instance):
    """BD-02: the session does not remember them. (A chunk of nothing that is not the last is refused.)"""
    size = 1
    count = 5_000 if SANITIZED else 100_000
    server = make_instance(main_cf=MAIL)
    client = greeted(server.port)
    transaction(client)
    client.ask("NOOP")
    before = pss(smtpd_processes(server))
    sender = threading.Thread(target=client.send, args=((b"BDAT %d\r\n" % size + b"x" * size) * count,), daemon=True)
    sender.start()
    for _ in range(count):
        assert client.reply()[-1].startswith("250")
    sender.join()
    grown = pss(smtpd_processes(server)) - before
    client.send(b"BDAT 0 LAST\r\n")
    assert client.reply()[-1].startswith(f"250 2.0.0 Ok: {count * size + 2} bytes queued as")
    assert client.ask("QUIT")[-1].startswith("221")
    client.close()
    print(f"{count} chunks of {size}: {grown // 1024} KiB more")
    assert SANITIZED or grown < 2 * MEBIBYTE


def test_chunk_without_line_ends(make_instance):
    """BD-03: up to the size limit, and nobody holds the whole of it."""
    size = 50 * MEBIBYTE
    server = make_instance(main_cf=MAIL + f"message_size_limit = {size + 1000}\n")
    client = greeted(server.port)
    transaction(client)
    most = 0
    client.send(b"BDAT %d LAST\r\n" % size)
    for _ in range(50):
        client.send(b"x" * MEBIBYTE)
        most = max(most, pss(smtpd_processes(server) + server.pids("cleanup")))
    assert client.reply()[-1].startswith(f"250 2.0.0 Ok: {size + 2} bytes queued as")
    client.close()
    print(f"at most {most // 1024} KiB")
    assert SANITIZED or most < 20 * MEBIBYTE


def test_messages_that_are_begun_and_dropped(make_instance):
    """BD-06: they count as messages, and nothing of them stays."""
    server = make_instance(main_cf=MAIL + "smtpd_client_message_rate_limit = 10\nsmtpd_client_event_limit_exceptions =\n"
                           "anvil_rate_time_unit = 600s\nmessage_size_limit = 200000\n")
    taken = 0
    for how in ("RSET", "gone", "RSET", "gone"):
        client = greeted(server.port)
        for _ in range(4 if how == "RSET" else 1):
            reply = client.ask("MAIL FROM:<a@there.example>")[-1]
            if not reply.startswith("250"):
                assert reply.startswith("450 4.7.1 Error: too much mail from ")
                break
            taken += 1
            client.ask("RCPT TO:<user@localhost>")
            if how == "RSET":
                client.send(b"BDAT 190000\r\n" + b"x" * 190000)
                assert client.reply()[-1].startswith("250")
                client.ask("RSET")
            else:
                client.ask("DATA")
                client.send(b"y" * 190000)
        client.close()
    client = greeted(server.port)
    while client.ask("MAIL FROM:<a@there.example>")[-1].startswith("250"):
        taken += 1
        client.ask("RSET")
    assert taken == 10
    wait_for(server.queue_is_empty, what="an empty queue")


# --- TLS ---
@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return TestCA(tmp_path_factory.mktemp("ca")).make("mx.example")[2]


def tls_server(make_instance, chain, more=""):
    return make_instance(main_cf=MAIL + f"smtpd_tls_chain_files = {chain}\nsmtpd_tls_security_level = may\n{more}")


@pytest.mark.parametrize("piece", [1, 3, 200])
def test_client_hello_in_pieces(make_instance, chain, piece):
    """TL-14: wherever it is split."""
    server = tls_server(make_instance, chain)
    with socket.create_connection(("127.0.0.1", server.port), 30) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.recv(1000)
        s.sendall(b"EHLO x\r\n")
        s.recv(4000)
        s.sendall(b"STARTTLS\r\n")
        assert s.recv(1000).startswith(b"220")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(incoming, outgoing, server_hostname=".".join(["x" * 60] * 3))
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                said = outgoing.read()
                for at in range(0, len(said), piece):
                    s.sendall(said[at:at + piece])
                incoming.write(s.recv(65536))
        s.sendall(outgoing.read())
        tls.write(b"NOOP\r\n")
        s.sendall(outgoing.read())
        heard = b""
        while b"\n" not in heard:
            try:
                heard += tls.read()
            except ssl.SSLWantReadError:
                incoming.write(s.recv(65536))
        assert heard == b"250 2.0.0 Ok\r\n"


def test_no_goodbye_of_tls(make_instance, chain):
    """TL-08: TCP is closed without close_notify. No warning, and the session can be resumed."""
    server = tls_server(make_instance, chain, "smtpd_tls_loglevel = 1\n")
    context = client_context(highest=ssl.TLSVersion.TLSv1_2)
    session = None
    for resumed in (False, True):
        with TlsClient(server.port, context=context, session=session) as client:
            client.hello()
            assert client.socket.session_reused == resumed
            session = client.socket.session
            assert client.command("QUIT")[-1].startswith("221")
            client.socket.close()
    wait_for(lambda: server.log().count("disconnect from") == 2, what="both ends")
    assert not re.search(r"smtpd\[\d+\]: (?:warning|error|.*lost connection)", server.log())


@pytest.mark.parametrize("name", [None, "unknown.example", "mx.example", "x" * 250, "a\\", "\u00fc.example"])
def test_names_in_the_hello(make_instance, chain, name):
    """TL-07, OT-07: no name, a strange one, the right one."""
    server = tls_server(make_instance, chain, f"tls_server_sni_maps = inline:{{ {{ mx.example = {chain} }} }}\n")
    pid = smtpd_processes(server)
    with TlsClient(server.port, name=name) if name != "a\\" else TlsClient(server.port) as client:
        if name and len(name) > 200:
            with pytest.raises((ssl.SSLError, UnicodeError, OSError)):
                client.hello()
        else:
            client.hello()
            assert client.mail().startswith("250")
    with TlsClient(server.port) as client:
        client.hello()
    assert set(pid) <= set(smtpd_processes(server))


# --- milters ---
def test_prepended_header_and_numbers(make_instance):
    """MI-07: what an access table has put on top does not move the numbers by which a filter names fields; only our own
    Received: is not counted."""
    with ScriptedMilter() as milter:
        server = make_instance(main_cf=MAIL + f"smtpd_milters = {milter.name}\nsmtpd_recipient_restrictions = "
                               "check_recipient_access inline:{ { user@localhost = PREPEND X-Pre: one } }\n")
        milter.replies = {"eom": [chgheader(1, "X-Pre", "changed"), chgheader(1, "Received", "from changed"),
                                  chgheader(2, "X-A", ""), insheader(1, "X-Ins", "in"), quarantine("look"), CONTINUE]}
        client = greeted(server.port)
        transaction(client)
        client.ask("DATA")
        client.send(b"Received: from other\r\nX-A: 1\r\nX-A: 2\r\nSubject: s\r\n\r\nbody\r\n.\r\n")
        assert client.reply()[-1].startswith("250")
        client.close()
        [name] = wait_for(server.queue_ids, what="the held message")
        text = server.command("postcat", "-qh", name, capture_output=True).stdout
    fields = re.sub(r"\n[ \t]+", " ", text).splitlines()
    assert "X-Pre: changed" in fields and "Received: from changed" in fields and "X-A: 1" in fields, text
    assert "X-A: 2" not in fields and "Received: from other" not in fields
    assert sum(line.startswith("Received: from client.example") for line in fields) == 1


# --- postscreen ---
def test_endless_line_to_postscreen():
    """PS-02: to its own engine, after the greeting tests."""
    screen = Screen(main_cf="postscreen_bare_newline_enable = yes\n")
    try:
        screen.start()
        with socket.create_connection(("127.0.0.1", screen.port), 30) as s:
            s.makefile("rb").readline()
            before = pss(screen.pids("postscreen"))
            with pytest.raises(OSError):
                for _ in range(320):
                    s.sendall(b"x" * (MEBIBYTE // 16))
        assert SANITIZED or pss(screen.pids("postscreen")) - before < MEBIBYTE
        screen.wait_log("COMMAND LENGTH LIMIT from [127.0.0.1]")
        assert len(screen.pids("postscreen")) == 1
    finally:
        screen.stop()
