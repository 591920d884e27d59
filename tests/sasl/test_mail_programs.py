"""Programs with which people send and try: openssl s_client at ports 587 and 465, and the way Thunderbird and
Outlook begin: a probe that leaves with QUIT in the same segment, AUTH LOGIN with and without initial response."""
import base64
import socket
import subprocess
import threading

import pytest

from login_server import word
from sasl.test_submission import site, unverified  # noqa: F401 (site is a fixture)


def s_client(port, *lines, starttls=False):
    """What the server says to these lines; each is sent when the one before was answered, as a person does."""
    process = subprocess.Popen(["openssl", "s_client", "-quiet", "-crlf", "-connect", f"127.0.0.1:{port}",
                                *(["-starttls", "smtp"] if starttls else [])], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    heard, watch = [], threading.Timer(60, process.kill)
    watch.start()

    def reply():
        line = process.stdout.readline().decode()
        while line[3:4] == "-":
            line = process.stdout.readline().decode()
        heard.append(line.strip())
    try:
        if not starttls:
            reply()  # the greeting
        for line in lines:
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
            reply()
        process.stdin.close()
        process.wait(30)
    finally:
        watch.cancel()
        process.kill()
        process.wait()
    return heard


LETTER = ["MAIL FROM:<a@here.example>", "RCPT TO:<b@elsewhere.example>", "DATA", "Subject: x\n\nhello\n."]


@pytest.mark.parametrize("door", ["submission", "submissions"])
def test_openssl(site, door):  # noqa: F811
    mail, submission, submissions, logins = site
    port, starttls = (submission, True) if door == "submission" else (submissions, False)
    heard = s_client(port, "EHLO client.example", "AUTH PLAIN " + word("good"), *LETTER, "QUIT", starttls=starttls)
    assert [line[:3] for line in heard] == ["220"] * (not starttls) + ["250", "235", "250", "250", "354", "250", "221"]
    assert logins.lines[-1].split("\t")[-2] == "secured"
    mail.wait_log("sasl_method=PLAIN, sasl_username=joe")
    heard = s_client(port, "EHLO client.example", *LETTER[:2], "QUIT", starttls=starttls)
    assert heard[-3].startswith("250") and heard[-2].startswith("554 5.7.1")  # who has not logged in is a stranger


def begin(port, wrapped):
    client = socket.create_connection(("127.0.0.1", port), 30)
    if wrapped:
        client = unverified().wrap_socket(client)
    return client, client.makefile("rb")


def hear(reader):
    lines = [reader.readline()]
    while lines[-1][3:4] == b"-":
        lines.append(reader.readline())
    return b"".join(lines)


def test_probe_that_leaves_at_once(site):  # noqa: F811
    """IN-16: EHLO and QUIT in one segment, as mail programs do to see what a port offers."""
    _, submission, submissions, _ = site
    for port, wrapped in ((submission, False), (submissions, True)):
        client, reader = begin(port, wrapped)
        hear(reader)
        client.sendall(b"EHLO [192.168.1.20]\r\nQUIT\r\n")
        assert (b"STARTTLS" in hear(reader)) == (not wrapped)
        assert hear(reader) == b"221 2.0.0 Bye\r\n"
        assert reader.read() == b""
        client.close()


@pytest.mark.parametrize("style", ["outlook", "initial response", "thunderbird", "cancelled"])
def test_ways_to_log_in(site, style):  # noqa: F811
    mail, submission, _, logins = site
    client, reader = begin(submission, False)
    hear(reader)
    client.sendall(b"EHLO DESKTOP-ABC\r\n")
    assert b"AUTH" not in hear(reader)
    client.sendall(b"STARTTLS\r\n")
    hear(reader)
    client = unverified().wrap_socket(client)
    reader = client.makefile("rb")

    def ask(text):
        client.sendall(text.encode() + b"\r\n")
        return hear(reader).decode()
    assert "250-AUTH PLAIN LOGIN" in ask("EHLO DESKTOP-ABC")
    user, password = base64.b64encode(b"joe").decode(), word("good")
    if style == "outlook":  # no initial response, the name of the mechanism in lower case
        assert ask("AUTH login").startswith("334 ")
        assert ask(password) == "235 2.7.0 Authentication successful\r\n"
    elif style == "initial response":
        assert ask("AUTH LOGIN " + password) == "235 2.7.0 Authentication successful\r\n"
    elif style == "thunderbird":  # a failed login, then another mechanism in the same session
        assert ask("AUTH PLAIN " + word("fail")).startswith("535 5.7.8 Error: authentication failed")
        assert ask("AUTH LOGIN").startswith("334 ")
        assert ask(password).startswith("235")
        assert ask("AUTH PLAIN " + password) == "503 5.5.1 Error: already authenticated\r\n"
    else:
        assert ask("AUTH LOGIN").startswith("334 ")
        assert ask("*") == "501 5.7.0 Authentication aborted\r\n"
        assert ask("AUTH LOGIN " + user).startswith("535")
        client.close()
        return
    assert ask("MAIL FROM:<a@here.example> SIZE=300 BODY=8BITMIME").startswith("250")
    assert ask("RCPT TO:<b@elsewhere.example>").startswith("250")
    assert ask("QUIT").startswith("221")
    client.close()
    mail.wait_log("sasl_username=joe")
    assert logins.lines
