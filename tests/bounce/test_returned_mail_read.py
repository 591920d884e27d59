"""Returned mail as mail programs show it: s-nail, GNU mailutils; and what BACKSCATTER_README keeps out."""
import os
import pwd
import shutil
import subprocess

import pytest

from instance import wait_for

ME = pwd.getpwuid(os.geteuid()).pw_name
SENDER = "sender@mail.example"
BASE = f"""\
smtpd_reject_unlisted_recipient = no
alias_maps = inline:{{ {{sender={ME}}} }}
transport_maps = inline:{{ {{err.example=error:5.1.6 moved away}} }}
"""
MESSAGE = b"Subject: original\r\nMessage-Id: <m@mail.example>\r\n\r\nthe body of it\r\n"
READERS = {
    "s-nail": ["s-nail", "-:/", "-R", "-f", "{box}"],
    "readmsg.mailutils": ["readmsg.mailutils", "-f", "{box}", "1"],
}


def returned(make_instance, message=MESSAGE, extra=""):
    i = make_instance(main_cf=BASE + extra)
    with i.smtp() as s:
        s.sendmail(SENDER, ["gone@err.example"], message)
    box = i.mail / ME
    wait_for(lambda: box.exists() and box.read_text().rstrip().endswith("--"), 30, "the notice")
    return box


@pytest.mark.parametrize("program", ["s-nail", "readmsg.mailutils"])
def test_read(make_instance, program):
    if not shutil.which(program):
        pytest.skip(f"no {program}")
    box = returned(make_instance)
    command = [word.format(box=box) for word in READERS[program]]
    done = subprocess.run(command, input="type 1\nexit\n", capture_output=True, text=True, timeout=20, check=False,
                          env={**os.environ, "TERM": "dumb", "MAILRC": "/dev/null"})
    shown = done.stdout
    assert "<gone@err.example>: moved away" in shown, done.stderr
    assert "Undelivered Mail Returned to Sender" in shown
    if program == "readmsg.mailutils":  # all of it
        assert "the body of it" in shown and "Status: 5.1.6" in shown


@pytest.mark.skipif(not shutil.which("mutt"), reason="no mutt")
def test_mutt(make_instance, tmp_path):
    """Its decoded copy has each part of the report."""
    box, out = returned(make_instance), tmp_path / "out"
    # mutt wants a terminal: script(1) gives it one
    subprocess.run(["script", "-qec", f"mutt -n -F /dev/null -R -f {box} -e 'set confirmappend=no confirmcreate=no delete=no' "
                    f"-e 'push <tag-pattern>~A<enter><tag-prefix><decode-copy><kill-line>{out}<enter><exit>'", "/dev/null"],
                   input="", text=True, capture_output=True, timeout=60, check=False,
                   env={**os.environ, "TERM": "xterm", "HOME": str(tmp_path)})
    shown = out.read_text()
    assert "<gone@err.example>: moved away" in shown and "Undelivered Mail Returned to Sender" in shown
    assert "Status: 5.1.6" in shown and "the body of it" in shown


# --- BACKSCATTER_README: notices about mail that only pretends to be ours ---
BACKSCATTER = r"""
header_checks = pcre:{ {/^(From|Return-Path):.*\buser@domain\.example\b/ reject forged sender address in $$1: header} }
body_checks = pcre:{
    {/^[> ]*(From|Return-Path):.*\b(user@domain\.example)\b/ reject forged sender address in $$1: header: $$2}
    {/^[> ]*Received: +from +(domain\.example) +/ reject forged client name in Received: header: $$1} }
nested_header_checks =
"""


@pytest.mark.parametrize("headers, body, refused", [
    (b"From: user@domain.example\r\n", b"x\r\n", "forged sender address in From: header"),
    (b"From: MAILER-DAEMON@there.example\r\n", b"--\r\n> From: user@domain.example\r\n",
     "forged sender address in From: header: user@domain.example"),
    (b"From: MAILER-DAEMON@there.example\r\n", b"Received: from domain.example (unknown [192.0.2.1])\r\n",
     "forged client name in Received: header: domain.example"),
    (b"From: MAILER-DAEMON@there.example\r\n", b"Received: from mail.there.example\r\n", None),
])
def test_backscatter(make_instance, headers, body, refused):
    i = make_instance(main_cf=BASE + BACKSCATTER)
    with i.smtp() as s:
        s.ehlo("there.example")
        assert s.mail("<>")[0] == 250 and s.rcpt("sender@mail.example")[0] == 250
        code, text = s.data(headers + b"Subject: Returned mail\r\n\r\n" + body)
    if refused:
        assert code == 550 and refused in text.decode()
        i.wait_log("reject: ")
    else:
        assert code == 250
