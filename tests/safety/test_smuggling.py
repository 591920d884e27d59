"""What looks like the end of a message and is none, by DATA and by BDAT, through the whole way: our replies, and what a
lenient server behind us makes of what we send. And everything that is too long."""
import itertools
import re

import pytest

from instance import free_port, wait_for
from sink import Sink
from smtpd.dialogue import Client

ENDS = {"crlf": b"\r\n", "lf": b"\n", "cr": b"\r", "crcrlf": b"\r\r\n", "lfcr": b"\n\r", "nullf": b"\0\n", "spcrlf": b" \r\n",
        "crnullf": b"\r\0\n", "none": b"", "vt": b"\v", "nel": b"\xc2\x85", "ls": b"\xe2\x80\xa8"}
FAKES = [(a, b) for a, b in itertools.product(ENDS, ENDS) if b"\r\n.\r\n" not in ENDS[a] + b"." + ENDS[b]]
HIDDEN = (b"MAIL FROM:<hidden@smuggled.example>\r\nRCPT TO:<victim@behind.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n")
MODES = {"normalize": "smtpd_forbid_bare_newline = normalize", "note": "smtpd_forbid_bare_newline = note",
         "reject": "smtpd_forbid_bare_newline = reject"}


@pytest.fixture(scope="module")
def world():
    """A server for each mode, behind all of them a sink that reads lines as a careless server does: up to any LF."""
    from instance import Instance
    sink = Sink()
    ports = {mode: free_port() for mode in [*MODES, "proxied"]}
    extra = "".join(f"127.0.0.1:{port} inet n - n - - smtpd\n  -o {MODES[mode].replace(' = ', '=')}\n"
                    for mode, port in ports.items() if mode in MODES)
    extra += (f"127.0.0.1:{ports['proxied']} inet n - n - - smtpd\n  -o smtpd_proxy_filter=127.0.0.1:{sink.port}\n"
              "  -o smtpd_forbid_bare_newline=normalize\n")
    server = Instance(main_cf=f"mynetworks =\nrelay_domains = behind.example\nrelay_transport = smtp:[127.0.0.1]:{sink.port}\n"
                      "smtpd_error_sleep_time = 0\nsmtpd_client_connection_count_limit = 0\n"
                      "relay_destination_concurrency_limit = 20\n", master_extra=extra)
    with server:
        yield server, ports, sink
    sink.close()


def envelope(client):
    client.reply()
    client.ask("EHLO client.example")
    assert client.ask("MAIL FROM:<real@there.example>")[-1].startswith("250")
    assert client.ask("RCPT TO:<user@behind.example>")[-1].startswith("250")


def replies_to_data(port, content):
    client = Client(port)
    envelope(client)
    assert client.ask("DATA")[-1].startswith("354")
    client.send(content + b"\r\n.\r\n")
    heard = [client.reply()]
    assert heard[0], content
    assert heard[0][-1][0] in "25", (content, heard)
    heard += [client.ask("NOOP"), client.ask("QUIT")]
    assert client.reply() == []
    client.close()
    return [lines[-1] for lines in heard]


def replies_to_chunks(port, *chunks):
    client = Client(port)
    envelope(client)
    heard = []
    for i, chunk in enumerate(chunks):
        client.send(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" * (i == len(chunks) - 1)) + chunk)
        heard.append(client.reply()[-1])
    heard += [client.ask("NOOP")[-1], client.ask("QUIT")[-1]]
    client.close()
    return heard


def check_behind(sink, accepted):
    """As many messages as we took, and nothing that was hidden in one."""
    wait_for(lambda: sink.messages >= accepted, 60, "what we have taken")
    assert sink.messages == accepted
    assert not [line for _, line in sink.said if "smuggled" in line or "victim" in line]


@pytest.mark.parametrize("mode", MODES)
def test_data(world, mode):
    server, ports, sink = world
    before, taken = sink.messages, 0
    for a, b in FAKES:
        body = b"Subject: x\r\n\r\nfirst" + ENDS[a] + b"." + ENDS[b] + HIDDEN
        bare = b"\n" in body.replace(b"\r\n", b"")
        first, noop, bye = replies_to_data(ports[mode], body)
        if mode == "reject" and bare:
            assert first == "550 5.5.2 mail.example Error: bare <LF> received", (a, b)
        else:
            assert first.startswith("250 2.0.0 Ok: queued as"), (a, b, first)
            taken += 1
        assert (noop, bye) == ("250 2.0.0 Ok", "221 2.0.0 Bye"), (a, b)
    check_behind(sink, before + taken)
    assert "victim" not in server.log()


@pytest.mark.parametrize("mode", MODES)
def test_chunks(world, mode):
    """In a chunk, its length alone says where it ends: the real end of DATA is content, too."""
    server, ports, sink = world
    before, taken = sink.messages, 0
    for a, b in [*FAKES, ("crlf", "crlf")]:
        fake = b"Subject: x\r\n\r\nfirst" + ENDS[a] + b"." + ENDS[b]
        bare = b"\n" in (fake + HIDDEN).replace(b"\r\n", b"")
        # in one, and with the end of a chunk within the fake
        for chunks in ([fake + HIDDEN], [fake[:-1], fake[-1:] + HIDDEN]):
            *heard, noop, bye = replies_to_chunks(ports[mode], *chunks)
            assert (noop, bye) == ("250 2.0.0 Ok", "221 2.0.0 Bye"), (a, b)
            if mode == "reject" and bare:
                assert heard[-1].startswith(("550 5.5.2", "551 5.0.0 Discarded")), (a, b, heard)
            else:
                assert re.match(r"250 2\.0\.0 Ok: \d+ bytes queued as", heard[-1]), (a, b, heard)
                taken += 1
    check_behind(sink, before + taken)
    assert "victim" not in server.log()


def test_before_queue_filter(world):
    """PF-01: the careless server is the filter in front of the queue."""
    _, ports, sink = world
    before = sink.messages
    for a, b in FAKES:
        body = b"Subject: x\r\n\r\nfirst" + ENDS[a] + b"." + ENDS[b] + HIDDEN
        assert replies_to_data(ports["proxied"], body) == ["250 ok", "250 2.0.0 Ok", "221 2.0.0 Bye"], (a, b)
    check_behind(sink, before + len(FAKES))


# --- too long ---
LONG = {
    "EHLO": (b"EHLO " + b"x" * 100_000 + b"\r\n", "5"),
    "HELO with dots": (b"HELO " + b"x." * 50_000 + b"\r\n", "5"),
    "sender": (b"MAIL FROM:<" + b"x" * 100_000 + b"@there.example>\r\n", "5"),
    "sender of 1000": (b"MAIL FROM:<" + b"x" * 1000 + b"@there.example>\r\n", "25"),
    "domain": (b"MAIL FROM:<x@" + b"y" * 1900 + b">\r\n", "25"),
    "route": (b"MAIL FROM:<" + b"@a," * 600 + b"@a:x@there.example>\r\n", "25"),
    "comments": (b"MAIL FROM:<x@there.example> " + b"(" * 1900 + b"\r\n", "5"),
    "parameters": (b"MAIL FROM:<x@there.example>" + b" X=1" * 480 + b"\r\n", "5"),
    "size": (b"MAIL FROM:<x@there.example> SIZE=" + b"9" * 1000 + b"\r\n", "5"),
    "ENVID": (b"MAIL FROM:<x@there.example> ENVID=" + b"e" * 1900 + b"\r\n", "25"),
    "bytes over 127": (b"MAIL FROM:<" + b"\xff" * 1900 + b"@there.example>\r\n", "25"),
    "quotes": (b'MAIL FROM:<"' + b'\\"' * 900 + b'"@there.example>\r\n', "25"),
    "AUTH": (b"AUTH PLAIN " + b"A" * 200_000 + b"\r\n", "5"),
    "BDAT": (b"BDAT " + b"9" * 1000 + b"\r\n", "5"),
    "BDAT below zero": (b"BDAT -1\r\n", "5"),
    "BDAT 2^63": (b"BDAT 9223372036854775808 LAST\r\n", "5"),
    "ETRN": (b"ETRN " + b"x" * 1900 + b"\r\n", "45"),
    "VRFY": (b"VRFY " + b"x" * 1900 + b"\r\n", "245"),
    "unknown": (b"X" * 100_000 + b"\r\n", "5"),
    "blanks": (b" " * 100_000 + b"\r\n", "5"),
    "NOOP": (b"NOOP " + b"x" * 1000 + b"\r\n", "2"),
}


HANG_UP = {"BDAT", "BDAT below zero", "BDAT 2^63"}  # nobody knows where the chunk ends


@pytest.mark.parametrize("name", LONG)
def test_too_long(world, name):
    """An answer, and the session goes on or ends with a reason in the log."""
    server, ports, _ = world
    said, kinds = LONG[name]
    before = server.pids("smtpd")
    client = Client(ports["normalize"])
    client.reply()
    client.ask("EHLO client.example")
    try:
        client.send(said)
        reply = client.reply()
        assert reply and reply[-1][0] in kinds, reply
        assert name in HANG_UP or client.ask("QUIT") == ["221 2.0.0 Bye"] or len(said) > 50_000
    except ConnectionError:
        assert len(said) > 50_000
    if len(said) > 50_000:
        server.wait_log("request longer than 2048")
    client.close()
    assert set(before) <= set(server.pids("smtpd"))


def test_too_many(world):
    """Recipients, header lines, a header without an end."""
    server, ports, sink = world
    client = Client(ports["normalize"])
    client.reply()
    client.ask("EHLO client.example")
    client.ask("MAIL FROM:<real@there.example>")
    answers = [client.ask(f"RCPT TO:<u{i}@behind.example>")[-1][:9] for i in range(1005)]
    assert answers == ["250 2.1.5"] * 1000 + ["452 4.5.3"] * 5
    client.ask("RSET")
    before = sink.messages
    for content in (b"".join(b"X-%d: y\r\n" % i for i in range(30_000)) + b"\r\nx", b"X: " + b"y" * 3_000_000 + b"\r\n\r\nx",
                    b"X: y\r\n" + b"\ty\r\n" * 100_000 + b"\r\nx",
                    b"To: " + b"a@b.example, " * 20_000 + b"c@d.example\r\n\r\nx",
                    b"Content-Type: " + b"multipart/mixed; boundary=x; " * 5000 + b"\r\n\r\n--x\r\n" * 1000):
        client.ask("MAIL FROM:<real@there.example>")
        client.ask("RCPT TO:<user@behind.example>")
        assert client.ask("DATA")[-1].startswith("354")
        client.send(content + b"\r\n.\r\n")
        assert client.reply()[-1].startswith("250 2.0.0 Ok: queued")
    client.close()
    wait_for(lambda: sink.messages >= before + 5, 60, "the five")
    assert not re.search("panic|fatal", server.log())
