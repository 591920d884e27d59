"""The before-queue content filter in a running server: a filter that sends the mail back in by a second smtpd, unix sockets,
waiting messages (speed_adjust), lines that want to be two messages, and the processes around it."""
import re
import smtplib
import socket
import threading
import time

import pytest

from instance import Instance, free_port, wait_for
from proxyfilter.filter_server import FilterServer

MAIN = """\
mydestination = localhost
mynetworks = 127.0.0.0/8
local_recipient_maps =
smtpd_forbid_bare_newline_exclusions =
smtpd_forbid_unauth_pipelining = no
smtpd_client_connection_count_limit = 0
smtpd_proxy_timeout = 20s
"""
FRONT = "127.0.0.1:{front} inet n - n - - smtpd\n  -o smtpd_proxy_filter={filter}\n  -o smtpd_authorized_xclient_hosts=127.0.0.1\n"
# SMTPD_PROXY_README's server behind the filter
BACK = """127.0.0.1:{back} inet n - n - - smtpd
  -o smtpd_authorized_xforward_hosts=127.0.0.0/8
  -o smtpd_client_restrictions=
  -o smtpd_helo_restrictions=
  -o smtpd_sender_restrictions=
  -o smtpd_relay_restrictions=
  -o smtpd_recipient_restrictions=permit_mynetworks,reject
  -o smtpd_data_restrictions=
  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks
"""


class Reinjecting(threading.Thread):
    """A filter as they are in the world: each command and each line goes to the server behind it as it came."""

    def __init__(self, back):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", free_port()))
        self.port, self.back, self.content = self.socket.getsockname()[1], back, []
        self.start()

    def run(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client, socket.create_connection(("127.0.0.1", self.back)) as server:
            up, down = client.makefile("rwb"), server.makefile("rwb")

            def answer():
                code = b""
                while line := down.readline():
                    up.write(line)
                    code = line[:3]
                    if line[3:4] == b" ":
                        break
                up.flush()
                return code
            answer()
            for line in up:
                down.write(line)
                down.flush()
                if answer() == b"354":
                    lines = []
                    while (text := up.readline()) != b".\r\n" and text:
                        lines.append(text)
                        down.write(text)
                    self.content.append(b"".join(lines))
                    down.write(b".\r\n")
                    down.flush()
                    answer()
                elif line.startswith(b"QUIT"):
                    return


def talk(port, *lines):
    """The replies; what begins with ">" is sent as it is."""
    said = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s, s.makefile("rwb") as f:
        def reply():
            while line := f.readline():
                if line[3:4] != b"-":
                    break
            return line.decode().rstrip()
        said.append(reply())
        for line in lines:
            f.write(line if isinstance(line, bytes) else line.encode() + b"\r\n")
            f.flush()
            said.append(reply())
    return said


def envelope(to="x@localhost"):
    return ["EHLO client.example", "MAIL FROM:<a@there.example>", f"RCPT TO:<{to}>", "DATA"]


def test_loop():
    """Client, smtpd, filter, smtpd, queue, mailbox: the client's address is in the log behind the filter, the filter's reply
    is the client's."""
    front, back = free_port(), free_port()
    loop = Reinjecting(back)
    master = FRONT.format(front=front, filter=f"127.0.0.1:{loop.port}") + BACK.format(back=back)
    with Instance(main_cf=MAIN + "header_checks = pcre:{{/^Subject: bad/ REJECT}}\nrelay_domains = out.example\n"
                                 "relay_transport = discard:\n", master_extra=master, name="loop") as mail:
        said = talk(front, "EHLO x", "XCLIENT NAME=far.example ADDR=192.0.2.9", "EHLO far.example",
                    "MAIL FROM:<a@there.example> RET=HDRS ENVID=q", "RCPT TO:<u@out.example> NOTIFY=NEVER", "DATA",
                    "Subject: good\r\n\r\n..\r\nx\r\n.", "QUIT")
        assert re.match(r"250 2.0.0 Ok: queued as (\w+)$", said[-2])
        queue_id = said[-2].split()[-1]
        assert f"{queue_id}: client=localhost[127.0.0.1], orig_client=far.example[192.0.2.9]" in \
            mail.wait_log(f"{queue_id}: client=")
        mail.wait_log(f"{queue_id}: to=<u@out.example>")
        mail.wait_log(f"proxy-accept: END-OF-MESSAGE: 250 2.0.0 Ok: queued as {queue_id}; from=<a@there.example> "
                      "to=<u@out.example> proto=ESMTP helo=<far.example>")
        assert loop.content[0].startswith(b"Received: from far.example (far.example [192.0.2.9])\r\n\tby ")
        assert loop.content[0].endswith(b"Subject: good\r\n\r\n..\r\nx\r\n")


def test_unix_filter():
    front, denied = free_port(), free_port()
    with Instance(main_cf=MAIN, name="unixfilter", master_extra=
                  f"127.0.0.1:{front} inet n - y - - smtpd\n  -o smtpd_proxy_filter=unix:private/filter\n"
                  f"127.0.0.1:{denied} inet n - y - - smtpd\n  -o smtpd_proxy_filter=unix:private/nothing\n") as mail, \
            FilterServer(path=mail.queue / "private/filter") as filter_:
        said = talk(front, *envelope(), "a: b\r\n\r\nx\r\n.")
        assert said[-1] == "250 2.0.0 Ok: filtered"
        assert content_of(filter_).endswith(b"a: b\r\n\r\nx\r\n")
        assert talk(denied, *envelope()[:3])[-1] == "451 4.3.0 Error: queue file write error"
        assert "connect to proxy filter unix:private/nothing: No such file" in mail.wait_log("private/nothing")


@pytest.fixture(scope="module")
def world():
    """One front server that streams and one that waits."""
    with FilterServer() as filter_:
        ports = {"": free_port(), "speed_adjust": free_port()}
        master = "".join(f"127.0.0.1:{port} inet n - n - - smtpd\n  -o smtpd_proxy_filter=localhost:{filter_.port}\n"
                         f"  -o smtpd_proxy_options={option}\n" for option, port in ports.items())
        with Instance(main_cf=MAIN, master_extra=master, name="filterworld") as mail:
            yield mail, filter_, ports


def content_of(filter_):
    wait_for(lambda: filter_.sessions and filter_.sessions[-1][-1] == "<closed>", what="the end of the filter's session")
    return next(line for line in filter_.sessions[-1] if isinstance(line, bytes))


# smtpd_proxy_timeout, smtpd_proxy_options: PF-01, PF-02, PF-03, PF-05 of the list of what went wrong elsewhere
HOSTILE = [
    ("lone_lf_dot", b"a: b\r\n\r\nx\n.\r\nMAIL FROM:<evil@x>\r\n.\r\n", b"x\r\nMAIL FROM:<evil@x>\r\n"),
    ("lf_dot_lf", b"a: b\r\n\r\nx\n.\nMAIL FROM:<evil@x>\r\n.\r\n", b"x\r\nMAIL FROM:<evil@x>\r\n"),
    ("cr_dot_cr", b"a: b\r\n\r\nx\r.\rMAIL FROM:<evil@x>\r\n.\r\n", b"x . MAIL FROM:<evil@x>\r\n"),
    ("crlf_dot_cr", b"a: b\r\n\r\nx\r\n.\rMAIL FROM:<evil@x>\r\n.\r\n", b"x\r\n MAIL FROM:<evil@x>\r\n"),
    ("cr_cr_lf", b"a: b\r\n\r\nx\r\r\n..\r\r\ny\r\n.\r\n", b"x \r\n.. \r\ny\r\n"),
    ("dots", b"a: b\r\n\r\n..\r\n...\r\n..a\r\n.b\r\n.\r\n", b"..\r\n...\r\n..a\r\nb\r\n"),
    ("nul", b"a: b\r\n\r\nx\0y\r\n.\r\n", b"x\0y\r\n"),
]


@pytest.mark.parametrize("option", ["", "speed_adjust"])
@pytest.mark.parametrize("case", HOSTILE, ids=lambda c: c[0])
def test_one_message_stays_one(world, case, option):
    """Whatever line ends a client has sent: the filter gets lines with CRLF, each leading dot doubled, no CR elsewhere."""
    _, filter_, ports = world
    filter_.reset()
    assert talk(ports[option], *envelope(), case[1])[-1] == "250 2.0.0 Ok: filtered"
    content = content_of(filter_)
    header, body = content.split(b"\r\n\r\n", 1)
    assert header.endswith(b"\r\na: b") and body == case[2]
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
    assert not re.search(rb"(^|\n)\.(?!\.)", content)


def test_many_mailbox_lines(world):
    """PF-04, PF-05: megabytes of mailbox lines, and one that is long: each byte counts, nothing breaks."""
    mail, filter_, ports = world
    filter_.reset()
    said = talk(ports[""], *envelope(), b"From x\r\n" * 500 + b">From " + b"y" * 100000 + b"\r\na: b\r\n\r\nx\r\n.\r\n")
    assert said[-1] == "250 2.0.0 Ok: filtered"
    content = content_of(filter_)
    assert content.count(b"\r\nX-Mailbox-Line: From x\r\n") + content.count(b"X-Mailbox-Line: From x\r\nX") >= 500
    assert b"\r\nX-Mailbox-Line: >From " + b"y" * 100000 + b"\r\na: b\r\n\r\nx\r\n" in content
    # 10 MB are the limit: of what was sent, and of what it has become
    said = talk(ports[""], *envelope(), b"From x\r\n" * 600000 + b".\r\n")
    assert said[-1] == "552 5.3.4 Error: message file too big"


def test_waits_for_the_end(world):
    """speed_adjust: the filter is not disturbed before all of the message is there."""
    _, filter_, ports = world
    filter_.reset()
    for option in ports:
        before = len(filter_.sessions)
        with socket.create_connection(("127.0.0.1", ports[option]), timeout=60) as s, s.makefile("rwb") as f:
            for line in [b"", *[w.encode() + b"\r\n" for w in envelope()]]:
                f.write(line)
                f.flush()
                while f.readline()[3:4] == b"-":
                    pass
            f.write(b"a: b\r\n\r\nx\r\n")
            f.flush()
            time.sleep(0.2)
            assert len(filter_.sessions) - before == (option == "")
            f.write(b".\r\n")
            f.flush()
            assert f.readline() == b"250 2.0.0 Ok: filtered\r\n"


@pytest.mark.parametrize("size", [1000, 64 * 1024, 3_000_000])
def test_waiting_message(world, size):
    """Also what is more than memory may hold comes whole, by way of a file that has no name and leaves nothing."""
    mail, filter_, ports = world
    filter_.reset()
    body = b"".join(b"%08d.\r\n" % n for n in range(size // 11)) + b".x\r\n"
    said = talk(ports["speed_adjust"], *envelope(), b"a: b\r\n\r\n" + body.replace(b"\r\n.", b"\r\n..") + b".\r\n")
    assert said[-1] == "250 2.0.0 Ok: filtered"
    assert content_of(filter_).split(b"\r\n\r\n", 1)[1] == body.replace(b"\r\n.", b"\r\n..")
    assert not [p for p in (mail.queue / "pid").iterdir() if "scratch" in p.name]


def test_filter_that_falls_silent(world):
    """One session that waits for the filter keeps no other waiting."""
    _, filter_, ports = world
    filter_.reset(dot="HANG")
    slow = threading.Thread(target=talk, args=(ports[""], *envelope(), "a: b\r\n\r\nx\r\n."), daemon=True)
    slow.start()
    wait_for(lambda: any(isinstance(w, bytes) for s in filter_.sessions for w in s))
    filter_.replies = {}
    assert talk(ports[""], *envelope(), "a: b\r\n\r\nx\r\n.")[-1] == "250 2.0.0 Ok: filtered"
    assert slow.is_alive()
    filter_.done.set()
    slow.join(30)
    filter_.done.clear()


def test_standard_input_is_not_filtered(world):
    mail, filter_, _ = world
    filter_.reset()
    mail.sendmail("-f", "a@there.example", "x@localhost")
    mail.wait_log("to=<x@localhost>")
    assert filter_.sessions == []


def test_bad_values():
    """smtpd_proxy_filter and smtpd_proxy_options that cannot be: the service does not come up, and says why."""
    ports = [free_port(), free_port()]
    with Instance(main_cf=MAIN, name="badfilter", master_extra=
                  f"127.0.0.1:{ports[0]} inet n - n - - smtpd\n  -o smtpd_proxy_filter=127.0.0.1:nowhere\n"
                  f"127.0.0.1:{ports[1]} inet n - n - - smtpd\n  -o smtpd_proxy_options=faster\n") as mail:
        for port in ports:
            socket.create_connection(("127.0.0.1", port)).close()
        assert "bad parameter value: 'smtpd_proxy_filter = 127.0.0.1:nowhere'" in mail.wait_log("nowhere'")
        assert "there is only speed_adjust" in mail.wait_log("smtpd_proxy_options = faster")
        with smtplib.SMTP("127.0.0.1", mail.port, timeout=60) as smtp:
            assert smtp.noop()[0] == 250
