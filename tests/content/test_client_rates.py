"""smtpd_client_*_rate_limit over a running anvil: replies and log lines, beside Debian's postfix where that is unpacked."""
import re

import pytest

from content.test_content_checks import COMMON, Client
from instance import wait_for
from oracle import Oracle

OPEN = "smtpd_client_event_limit_exceptions =\nanvil_rate_time_unit = 600s\n"
MAIL, RCPT = "MAIL FROM:<a@there.example>", "RCPT TO:<u@here.example>"
# main.cf, what each session says, the answers of the last command of each session, what the log says of the last
ROWS = {
    "connection": ("smtpd_client_connection_rate_limit = 2", [], ["220", "220", "421 4.7.0 HOST Error: too many connections from "
                                                                 "localhost[127.0.0.1]"],
                   "Connection rate limit exceeded: 3 from localhost[127.0.0.1] for service SERVICE"),
    "message": ("smtpd_client_message_rate_limit = 2", ["EHLO x", MAIL],
                ["250", "250", "450 4.7.1 Error: too much mail from localhost[127.0.0.1]"],
                "Message delivery request rate limit exceeded: 3 from localhost[127.0.0.1] for service SERVICE"),
    "recipient": ("smtpd_client_recipient_rate_limit = 2", ["EHLO x", MAIL, RCPT],
                  ["250", "250", "450 4.7.1 Error: too many recipients from localhost[127.0.0.1]"],
                  "Recipient address rate limit exceeded: 3 from localhost[127.0.0.1] for service SERVICE"),
}


def play(server, row):
    _, commands, answers, log = row
    for answer in answers:
        client = Client(server.port)
        reply = client.reply()
        for command in commands:
            reply = client.say(command)
        client.socket.close()
        reply = re.sub(r" \w+\.example Error", " HOST Error", reply)
        reply = re.sub(r" from 127\.0\.0\.1$", " from localhost[127.0.0.1]", reply)  # 3.7 has the address alone
        assert reply.startswith(answer)

    def logged():
        return log in re.sub(r"for service [\w.:]+", "for service SERVICE", server.log())
    wait_for(logged, what="the log record")


@pytest.mark.parametrize("name", ROWS)
def test_limit(make_instance, name):
    play(make_instance(main_cf=COMMON + OPEN + ROWS[name][0]), ROWS[name])


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
@pytest.mark.parametrize("name", ROWS)
def test_oracle_limit(name):
    with Oracle(main_cf=COMMON + OPEN + ROWS[name][0]) as server:
        play(server, ROWS[name])


def test_excepted(make_instance):
    """mynetworks are not counted by default."""
    server = make_instance(main_cf=f"{COMMON}smtpd_client_connection_rate_limit = 1\n")
    for _ in range(3):
        client = Client(server.port)
        assert client.reply().startswith("220")
        client.socket.close()


def test_statistics(make_instance):
    """Sessions without any limit are in the statistics, too."""
    server = make_instance(main_cf=f"{COMMON}{OPEN}anvil_status_update_time = 1s\n")

    def seen():
        client = Client(server.port)
        client.reply()
        client.socket.close()
        return re.search(r"anvil\[\d+\]: statistics: max connection rate \d+/600s for \(\S+:127\.0\.0\.1\) at \w{3} [ \d]\d "
                         r"\d\d:\d\d:\d\d\n", server.log())
    wait_for(seen, what="statistics")
    assert re.search(r"statistics: max connection count \d+ for \(", server.log())
    assert re.search(r"statistics: max cache size 1 at ", server.log())


def test_no_anvil(make_instance):
    """Who cannot be counted is not refused."""
    server = make_instance(main_cf=f"{COMMON}{OPEN}smtpd_client_message_rate_limit = 1\n", start=False)
    path = server.etc / "master.cf"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("anvil")))
    server.start()
    for _ in range(2):
        client = Client(server.port)
        client.reply()
        client.say("EHLO x")
        assert client.say(MAIL).startswith("250")
        client.socket.close()
    server.wait_log("warning: connect to the anvil service: ")
