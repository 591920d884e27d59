"""postscreen's tests beside Debian's: the same clients, the same replies, the same log lines."""
import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from oracle import Oracle
from screens import OracleScreen, Screen, lines_of, play, wait_for

DEEP = """\
postscreen_pipelining_enable = yes
postscreen_non_smtp_command_enable = yes
postscreen_bare_newline_enable = yes
postscreen_bare_newline_action = enforce
"""
MAIL = ["EHLO c.example\r\n", 1, "MAIL FROM:<a@b.example>\r\n", 1, "RCPT TO:<u@localhost>\r\n", 1]
REPLY, QUIT = 1, ["QUIT\r\n", 1, 1]

# name: main.cf, sessions one after the other
SCENES = {
    "deep tests passed, then known": (DEEP, [[REPLY, *MAIL, "DATA\r\n", 1, 1], [REPLY, "QUIT\r\n", 1]]),
    "not far enough to pass": (DEEP, [[REPLY, *QUIT], [REPLY, "EHLO x\r\n", 1, *QUIT],
                                      [REPLY, "EHLO x\r\n", 1, "MAIL FROM:<a@b>\r\n", 1, *QUIT],
                                      [REPLY, *MAIL, *QUIT], [REPLY, "QUIT\r\n", 1]]),
    "pipelining": (DEEP, [[REPLY, "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<u@localhost>\r\n", 3, *QUIT]]),
    "pipelining dropped": (DEEP + "postscreen_pipelining_action = drop\n", [[REPLY, "EHLO x\r\nQUIT\r\n", 1, 1]]),
    "another protocol": (DEEP, [[REPLY, "GET / HTTP/1.0\r\n", 1, 1]]),
    "another protocol refused later": (DEEP + "postscreen_non_smtp_command_action = enforce\n",
                                       [[REPLY, "Subject: x\r\n", 1, "EHLO x\r\n", 1, "GET\r\n", 1, *MAIL[2:], *QUIT]]),
    "bare newline": (DEEP, [[REPLY, "EHLO x\n", 1, *MAIL[2:], *QUIT]]),
    "ignored": (DEEP.replace("action = enforce", "action = ignore") +
                "postscreen_non_smtp_command_action = ignore\npostscreen_pipelining_action = ignore\n"
                "smtpd_helo_required = yes\nsmtpd_discard_ehlo_keywords = DSN, etrn\n",
                [[REPLY, "MAIL FROM:<a@b>\r\n", 1, "GET /\r\n", 1, "EHLO x\nEHLO y\r\n", 2, "GET\r\n", 1, *MAIL[2:], *QUIT],
                 [REPLY, "QUIT\r\n", 1]]),
    "commands": (DEEP, [[REPLY, "HELO x\r\n", 1, "FOO\r\n", 1, "MAIL FROM:<a@b>\r\n", 1, "MAIL FROM:<a@b>\r\n", 1,
                         "RCPT TO:<>\r\n", 1, "RSET\r\n", 1, "RSET x\r\n", 1, "NOOP\r\n", 1, "NOOP x\r\n", 1, "VRFY x\r\n", 1,
                         "ETRN x\r\n", 1, "STARTTLS\r\n", 1, "AUTH PLAIN\r\n", 1, "BDAT 3\r\n", 1, 1]]),
    "syntax": (DEEP, [[REPLY, "MAIL FROM:<a@b>\r\n", 1, "HELO\r\n", 1, "EHLO\r\n", 1, "EHLO x\r\n", 1, "RCPT TO:<x@y>\r\n", 1,
                       "MAIL FROM\r\n", 1, "MAIL\r\n", 1, "MAIL FROM:<a@b> SIZE=3 FOO\r\n", 1, "RCPT\r\n", 1, "RCPT TO:\r\n", 1,
                       "RCPT TO:<u@localhost> ORCPT=x\r\n", 1, "VRFY\r\n", 1, "ETRN\r\n", 1, "DATA x\r\n", 1, 1]]),
    "data first": (DEEP, [[REPLY, "EHLO x\r\n", 1, "DATA\r\n", 1, 1]]),
    "too many commands": (DEEP + "postscreen_command_count_limit = 3\n",
                          [[REPLY, "EHLO x\r\n", 1, "NOOP\r\n", 1, "NOOP\r\n", 1, "NOOP\r\n", 1, 1]]),
    "too long": (DEEP, [[REPLY, "x" * 3000 + "\r\n", 1, 1]]),
    "no VRFY": (DEEP + "disable_vrfy_command = yes\n", [[REPLY, "EHLO x\r\n", 1, "VRFY x\r\n", 1, *QUIT]]),
    "spoke first, refused": ("postscreen_greet_action = enforce\n", [["EHLO early\r\n", 1, *MAIL[2:], "DATA\r\n", 1, 1]]),
    "spoke first, dropped": ("postscreen_greet_action = drop\n", [["EHLO early\r\n", 1, 1]]),
    "spoke first, ignored": ("postscreen_greet_action = ignore\nsmtpd_forbid_unauth_pipelining = no\n", [["HELO early\r\n", 2, "QUIT\r\n", 1]]),
    "hung up before": ("postscreen_greet_wait = 5s\n", [[0.3, None]]),
    "hung up after": (DEEP, [[REPLY, "EHLO x\r\n", 1, None]]),
    "denied, refused": ("postscreen_access_list = cidr:{{127.0.0.1 reject}}\npostscreen_denylist_action = enforce\n",
                        [[REPLY, *MAIL, "DATA\r\n", 1, 1]]),
    "denied, dropped": ("postscreen_access_list = cidr:{{127.0.0.1 reject}}\npostscreen_denylist_action = drop\n", [[1, 1]]),
    "denied, ignored": ("postscreen_access_list = cidr:{{127.0.0.1 reject}}\n", [[REPLY, "QUIT\r\n", 1]]),
    "allowed": ("postscreen_access_list = permit_mynetworks, cidr:{{127.0.0.1 permit}}\n", [[REPLY, "QUIT\r\n", 1]]),
    "old words": ("respectful_logging = no\npostscreen_access_list = cidr:{{127.0.0.1 permit}}\n", [[REPLY, "QUIT\r\n", 1]]),
    "veto": ("postscreen_allowlist_interfaces = !127.0.0.1, static:all\n", [[REPLY, *MAIL, *QUIT], [REPLY, *MAIL, *QUIT]]),
    "softened": ("soft_bounce = yes\npostscreen_greet_action = enforce\n", [["EHLO early\r\n", 1, *MAIL[2:], *QUIT]]),
    "with a footer": (DEEP + r"postscreen_reject_footer = \c. Call $server_name about $recipient of $sender,\n"
                      "you are $client_address ($helo_name)\n", [[REPLY, *MAIL, "FOO\r\n", 1, *QUIT]]),
    "with a footer of its own": (DEEP + "postscreen_reject_footer = other\npostscreen_reject_footer_maps = "
                                 "regexp:{{/^450/ this one}}\n", [[REPLY, *MAIL, *QUIT]]),
    "filtered": (DEEP + "postscreen_command_filter = regexp:{{/^HULLO(.*)/ EHLO$1}}\n", [[REPLY, "HULLO x\r\n", 1, *QUIT]]),
}


def run(server, sessions):
    heard = []
    for number, session in enumerate(sessions, 1):
        heard.append(play(server, session))
        wait_for(lambda n=number: sum("CONNECT from" in line for line in lines_of(server.log())) >= n)
        wait_for(lambda: ended(lines_of(server.log())))
    return heard


def ended(lines):
    """Has the last client been let in or sent away?"""
    last = [line.split(" [")[0] for line in lines]
    return last and (last[-1] in ("DISCONNECT", "PASS NEW", "PASS OLD") or last[-1].endswith("ALLOWLISTED") or
                     last[-1] in ("ALLOWLISTED", "WHITELISTED") or last[-1].startswith("PREGREET"))


@pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))
@pytest.mark.parametrize("name", SCENES)
def test_as_debians(name):
    main_cf, sessions = SCENES[name]
    with Screen(main_cf) as ours, OracleScreen(main_cf) as theirs:
        with ThreadPoolExecutor(2) as both:
            got, want = both.map(run, (ours, theirs), (sessions, sessions))
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: lines_of(ours.log()) == lines_of(theirs.log()))
        print("ours:", ours.log(), "theirs:", theirs.log(), sep="\n")
        assert got == want
        assert lines_of(ours.log()) == lines_of(theirs.log())
