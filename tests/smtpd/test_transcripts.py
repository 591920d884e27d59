"""Transcripts of sessions with errors, mailed to the postmaster (notify_classes, error_notice_recipient,
bounce_notice_recipient, smtpd_history_flush_threshold), beside Debian's postfix: the same sessions are reported, of the same
classes, in the same words. A session is played twice: where only its own classes are wanted, and where all others are."""
import concurrent.futures
import difflib
import json
import re
import time

import pytest

from corpus.corpus_play import split_postcat
from instance import Instance, free_port, wait_for
from login_server import LoginServer
from oracle import Oracle
from smtpd.dialogue import WORLD, Client, unescape

CLASSES = {"bounce", "data", "policy", "protocol", "resource", "software"}
EHLO = ["EHLO client.example"]
MAIL = [*EHLO, "MAIL FROM:<a@there.example>"]
RCPT = [*MAIL, "RCPT TO:<user@here.example>"]
SENT = [*RCPT, "DATA", "Subject: x\\r\\n\\r\\nhello\\r\\n."]
NO_TABLE = "tcp:127.0.0.1:1"
LOGIN = {"smtpd_sasl_auth_enable": "yes"}


def access(action):
    return {"smtpd_recipient_restrictions": f"check_recipient_access inline:{{ {{user@here.example = {action}}} }}, permit"}


# session: its classes, its smtpd's parameters, what the client says. "+": without waiting for a reply; "-": it hangs up;
# "=": it waits for the end.
CASES = {
    "nothing wrong": ("", {}, SENT),
    "unknown command": ("protocol", {}, ["FOO bar"]),
    "no name": ("protocol", {}, ["HELO"]),
    "no HELO": ("policy", {"smtpd_helo_required": "yes"}, ["MAIL FROM:<a@b.example>"]),
    "RCPT first": ("protocol", {}, [*EHLO, "RCPT TO:<user@here.example>"]),
    "bad sender": ("protocol", {}, [*EHLO, "MAIL FROM:<a b@c>"]),
    "bad option": ("protocol", {}, [*EHLO, "MAIL FROM:<a@b.example> FOO=bar"]),
    "relay": ("policy", {}, [*MAIL, "RCPT TO:<x@elsewhere.example>"]),
    "no such user": ("bounce", {}, [*MAIL, "RCPT TO:<nobody@here.example>"]),
    "two classes": ("bounce protocol", {}, [*MAIL, "RCPT TO:<nobody" + "y" * 60 + "@here.example>", "FOO " + "word " * 60]),
    "no table of users": ("data", {"local_recipient_maps": NO_TABLE}, RCPT),
    "no access table": ("policy", {"smtpd_recipient_restrictions": f"check_recipient_access {NO_TABLE}, permit"}, RCPT),
    "no such restriction": ("software", {"smtpd_recipient_restrictions": "foo, permit"}, RCPT),
    "REJECT": ("policy", access("REJECT"), RCPT),
    "DEFER_IF_PERMIT": ("policy", access("DEFER_IF_PERMIT"), RCPT),
    "unknown action": ("software", access("nonsense"), RCPT),
    "warn_if_reject": ("policy", {"smtpd_recipient_restrictions": "warn_if_reject reject, permit"}, RCPT),
    "no command filter": ("data", {"smtpd_command_filter": NO_TABLE}, ["FOO"]),
    "no keyword map": ("data", {"smtpd_discard_ehlo_keyword_address_maps": NO_TABLE}, EHLO),
    "SIZE": ("policy", {}, [*EHLO, "MAIL FROM:<a@b.example> SIZE=100000000"]),
    "too large": ("bounce", {"message_size_limit": "200"}, [*RCPT, "DATA", "x" * 300 + "\\r\\n."]),
    "too many hops": ("bounce", {}, [*RCPT, "DATA", "Received: x\\r\\n" * 60 + "\\r\\nx\\r\\n."]),
    "a header that is refused": ("policy", {"cleanup_service_name": "cleanup-reject"}, SENT),
    "end-of-data": ("policy", {"smtpd_end_of_data_restrictions": "reject"}, SENT),
    "VRFY off": ("policy", {"disable_vrfy_command": "yes"}, [*EHLO, "VRFY a"]),
    "ETRN of others": ("", {}, [*EHLO, "ETRN nothere.example"]),
    "too many recipients": ("policy", {"smtpd_recipient_limit": "1", "smtpd_recipient_overshoot_limit": "1"},
                            [*MAIL, *["RCPT TO:<user@here.example>"] * 4]),
    "too many errors": ("protocol", {"smtpd_hard_error_limit": "2"}, ["FOO"] * 3),
    "lost in RCPT": ("", {}, [*RCPT, "-"]),
    "lost with an error": ("protocol", {}, [*RCPT, "FOO", "DATA", "+hello\\r\\n", "-"]),
    "timeout": ("protocol", {"smtpd_timeout": "2s"}, [*EHLO, "FOO", "="]),
    "forbidden": ("", {"smtpd_forbidden_commands": "GET"}, ["GET / HTTP/1.0"]),
    "no TLS yet": ("", {"smtpd_tls_security_level": "encrypt"}, [*EHLO, "MAIL FROM:<a@b.example>"]),
    "no certificate": ("software", {"smtpd_tls_security_level": "may"}, [*EHLO, "STARTTLS"]),
    "XCLIENT": ("policy", {}, [*EHLO, "XCLIENT NAME=foo"]),
    "client refused": ("policy", {"smtpd_client_restrictions": "reject", "smtpd_delay_reject": "no"}, MAIL),
    "bad chunk": ("protocol", {}, [*RCPT, "BDAT foo"]),
    "too large a chunk": ("policy", {}, [*RCPT, "BDAT 3000000000 LAST"]),
    "no password": ("protocol", LOGIN, [*EHLO, "AUTH PLAIN " + "ZmFpbA==", "FOO"]),
    "login failed": ("", LOGIN, [*EHLO, "AUTH PLAIN " + "ZmFpbA=="]),
    "rate": ("policy", {"smtpd_client_message_rate_limit": "1", "smtpd_client_event_limit_exceptions": ""},
             [*MAIL, "RSET", "MAIL FROM:<b@there.example>"]),
    "no filter": ("software", {"smtpd_proxy_filter": "127.0.0.1:1"}, RCPT),
    "no milter": ("policy", {"smtpd_milters": "inet:127.0.0.1:1", "milter_default_action": "tempfail"}, MAIL),
    "forgotten at RSET": ("protocol", {"smtpd_history_flush_threshold": "10", "smtpd_junk_command_limit": "1000"},
                          [*["NOOP"] * 6, "RSET", "NOOP x", "FOO"]),
    "forgotten at EHLO": ("protocol", {"smtpd_history_flush_threshold": "10", "smtpd_junk_command_limit": "1000"},
                          [*["NOOP"] * 6, "EHLO x", "NOOP x", "FOO"]),
    "forgotten behind mail": ("protocol", {"smtpd_history_flush_threshold": "10"}, [*SENT, "FOO"]),
    "not forgotten": ("protocol", {"smtpd_history_flush_threshold": "100"}, [*SENT, "RSET", "EHLO x", "FOO"]),
    "folded": ("protocol", {}, [*(f"NOOP {'x' * n}" for n in (66, 67, 68, 69, 70, 71, 72, 73)), "NOOP x" + " " * 80 + "y",
                                "NOOP a\\tb " + "c" * 80 + "  d", "FOO" * 40, "FOO " * 19 + "x   ",
                                "NOOP \\x01z"]),
}
# The words differ, as other tests say: a chunk that is too large is refused before it has come; STARTTLS is offered with
# certificates that can be used; 3.12 says more of a client that sends too much.
OTHER_WORDS = {"too large a chunk", "no certificate", "rate"}
COMMON = {
    "smtpd_peername_lookup": "no",
    "smtpd_forbid_unauth_pipelining": "yes",
    "smtpd_forbid_bare_newline": "normalize",
    "error_notice_recipient": "errors@here.example",
    "bounce_notice_recipient": "bounces@here.example",
    "smtpd_client_connection_count_limit": "0",
}
CONF = WORLD + "defer_transports = discard\nminimal_backoff_time = 4000s\nmaximal_backoff_time = 4000s\nmail_name = Anybody\n"
CLEANUP = """\
cleanup-reject unix n - n - 0 cleanup -o { header_checks = regexp:{{/^Subject: x/ REJECT}} }
"""


def source(number, wanted):
    """The subject of a notice names the client: each session has an address of its own."""
    return f"127.{2 + wanted}.{number // 200}.{1 + number % 200}"


def play(port, lines, client_address):
    client = Client(port, client_address)
    try:
        client.reply()
        for line in lines:
            if line == "-":
                return
            if line == "=":
                while client.reply():
                    pass
            elif line[0] == "+":
                client.send(unescape(line[1:]))
            else:
                client.send(unescape(line) + b"\r\n")
                if not client.reply():
                    return
        client.send(b"QUIT\r\n")
        while client.reply():
            pass
    except OSError:
        pass
    finally:
        client.close()


class Played:
    """Both ways of all sessions, by one server. `notices`: {client: (recipient, sender, text)}"""

    def __init__(self, make):
        lines, sessions, ports = [CLEANUP], [], {}
        for number, (classes, conf, said) in enumerate(CASES.values()):
            own = set(classes.split())
            for wanted in (0, 1):
                settings = {**COMMON, **conf, "notify_classes": " ".join(sorted(own if wanted else CLASSES - own))}
                key = json.dumps(settings, sort_keys=True)
                if key not in ports:
                    ports[key] = free_port()
                    options = "".join(f" -o {{ {name} = {value} }}" for name, value in settings.items())
                    lines.append(f"127.0.0.1:{ports[key]} inet n - n - - smtpd{options}\n")
                sessions.append((ports[key], said, source(number, wanted)))
        server = make("".join(lines))
        try:
            queue = getattr(server, "queue", None) or server.directory / "queue"
            with LoginServer(queue / "private/login"), concurrent.futures.ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda s: play(*s), sessions))
            # what is reported is in the queue before the session is over
            wait_for(lambda: all(f"disconnect from unknown[{c}]" in server.log() for _, _, c in sessions), 60, "all ends")
            self.notices = self.read(server)
            self.log = server.log()
        finally:
            server.stop()

    @staticmethod
    def read(server):
        def listing():
            text = server.command("postqueue", "-j", capture_output=True).stdout
            return [json.loads(line) for line in text.splitlines()]
        entries = listing()
        for _ in range(3):  # a message may be between two queues for a moment
            time.sleep(0.3)
            entries += listing()
        ids = {e["queue_id"]: e for e in entries if e["sender"].startswith("double-bounce@")}
        text = server.command("postcat", "-q", *ids, capture_output=True, text=False).stdout.decode()
        found = {}
        for queue_id, lines in split_postcat(text).items():
            content = "\n".join(lines[next(i for i, line in enumerate(lines) if "MESSAGE CONTENTS" in line) + 1:])
            content = content.partition("*** HEADER EXTRACTED")[0]
            client = re.search(r"^Subject: .*\[(.*)\]", content, re.M).group(1)
            to = ids[queue_id]["recipients"][0]["address"]
            found.setdefault(client, []).append((to, ids[queue_id]["sender"], content))
        return found


def theirs(services):
    server = Oracle(main_cf=CONF)
    server.write()
    with open(server.directory / "etc/master.cf", "a") as master_cf:
        master_cf.write(services)
    server.write = lambda: None
    return server.start()


@pytest.fixture(scope="module")
def ours_played():
    return Played(lambda services: Instance(main_cf=CONF, master_extra=services, name="transcript").start())


@pytest.fixture(scope="module")
def theirs_played():
    if Oracle.why_not():
        pytest.skip(Oracle.why_not())
    return Played(theirs)


@pytest.mark.parametrize("name", CASES)
def test_classes(ours_played, name):
    number, classes = list(CASES).index(name), CASES[name][0]
    assert source(number, 0) not in ours_played.notices
    told = ours_played.notices.get(source(number, 1), [])
    assert len(told) == (1 if classes else 0)
    for to, sender, content in told:
        assert to == ("bounces@here.example" if "bounce" in classes else "errors@here.example")
        assert sender == "double-bounce@mx.here.example"
        assert "\nTo: Postmaster <errors@here.example>\n" in content


def plain(content):
    content = re.sub(r"^Received: .*?^(?=\S)", "", content, flags=re.M | re.S)
    content = re.sub(r"^(Date|Message-Id): .*\n", "", content, flags=re.M)
    content = re.sub(r"queued as \w+", "queued as ID", content)
    content = content.replace("ESMTP Angarium", "ESMTP NAME").replace("ESMTP Postfix", "ESMTP NAME")
    hidden = "(not shown: it may be a password)"  # a difference that is meant
    content = re.sub(r"( In:  )AUTH PLAIN \S+(\n Out: 535.*\n In:  ).*", rf"\1{hidden}\2{hidden}", content)
    return re.sub(r"^ Out: 250.REQUIRETLS\n", "", content, flags=re.M)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0] and name not in OTHER_WORDS])
def test_words(ours_played, theirs_played, name):
    client = source(list(CASES).index(name), 1)
    theirs, ours = ([line for to, sender, content in played.notices.get(client, [])
                     for line in (to, sender, *plain(content).split("\n"))] for played in (theirs_played, ours_played))
    assert theirs
    assert ours == theirs, "\n" + "\n".join(difflib.unified_diff(theirs, ours, "3.7", "ours", lineterm=""))


@pytest.mark.parametrize("name", CASES)
def test_classes_beside(theirs_played, name):
    number = list(CASES).index(name)
    assert source(number, 0) not in theirs_played.notices
    assert (source(number, 1) in theirs_played.notices) == bool(CASES[name][0])


def test_no_passwords(ours_played):
    told = ours_played.notices[source(list(CASES).index("no password"), 1)]
    assert "ZmFpbA" not in told[0][2] and "not shown" in told[0][2]
