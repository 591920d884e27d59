"""What nobody plans for: a message that fails for 100,000 recipients, an alias file of a million, parts within parts
10,000 deep. All of it arrives or is returned, in memory that has a bound."""
import contextlib
import os
import pathlib
import pwd
import re
import smtplib

import pytest

from instance import SANITIZED, wait_for

ME = pwd.getpwuid(os.geteuid()).pw_name
MIB = 1 << 20
MEMBERS = 20_000 if SANITIZED else 100_000
ALIASES = 100_000 if SANITIZED else 1_000_000


def peak(instance, program):
    """The most memory its processes have had, in bytes."""
    found = 0
    for pid in instance.pids(program):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            text = pathlib.Path(f"/proc/{pid}/status").read_text()
            found = max(found, int(re.search(r"VmHWM:\s+(\d+)", text)[1]) * 1024)
    return found


def send(instance, to, content, sender="sender@mail.example"):
    with instance.smtp() as s:
        s.sendmail(sender, [to], content)


def test_failed_recipients(make_instance, tmp_path):
    """Each is named once in the notices, none of which is over the size limit."""
    i = make_instance(start=False, main_cf="smtpd_reject_unlisted_recipient = no\nmailbox_size_limit = 0\n"
                      f"alias_maps = inline:{{ {{sender={ME}}} }}\nvirtual_alias_expansion_limit = {MEMBERS}\n"
                      "transport_maps = inline:{ {err.example=error:5.1.6 moved away} }\nmessage_size_limit = 4000000\n")
    table = i.etc / "virtual"
    table.write_text("all@list.example " + ",".join(f"member{n:06d}@err.example" for n in range(MEMBERS)) + "\n")
    table.chmod(0o644)
    with open(i.etc / "main.cf", "a") as f:
        f.write(f"virtual_alias_domains = list.example\nvirtual_alias_maps = texthash:{table}\n")
    i.start()
    send(i, "all@list.example", "Subject: original\r\n\r\nhello\r\n")
    box = i.mail / ME

    def named():
        text = box.read_bytes() if box.exists() else b""
        return len(re.findall(rb"^Final-Recipient: ", text, re.M)) == MEMBERS and text

    text = wait_for(named, 500, "all of them in notices")
    assert len(set(re.findall(rb"^Final-Recipient: rfc822; (member\d{6})@err\.example$", text, re.M))) == MEMBERS
    notices = text.split(b"\n\nFrom MAILER-DAEMON ")
    assert len(notices) > 1 and max(map(len, notices)) < 4_000_000
    wait_for(i.queue_is_empty, 120, "the empty queue")
    if not SANITIZED:
        assert peak(i, "bounce") < 300 * MIB and peak(i, "qmgr") < 300 * MIB  # 2 KiB and less a recipient


def test_a_million_aliases(make_instance):
    """The index is made, and the last entry is found without reading the others."""
    i = make_instance(start=False, main_cf="smtpd_reject_unlisted_recipient = no\n")
    aliases = i.etc / "aliases"
    with open(aliases, "w") as f:
        f.writelines(f"alias{n}: {ME}\n" if n % 2 else f'alias{n}: {ME}, "|exit 0"\n' for n in range(ALIASES))
    with open(i.etc / "main.cf", "a") as f:
        f.write(f"alias_maps = hash:{aliases}\nalias_database = $alias_maps\n")
    assert i.command("newaliases", timeout=500).returncode == 0
    i.start()
    for n in (0, 1, ALIASES - 1):
        send(i, f"alias{n}@mail.example", "Subject: x\r\n\r\nhello\r\n")
        assert "delivered to mailbox" in i.wait_log(f"orig_to=<alias{n}@mail.example>, relay=local", 60)
    send(i, f"alias{ALIASES}@mail.example", "Subject: x\r\n\r\nhello\r\n")
    assert "unknown user" in i.wait_log(f"to=<alias{ALIASES}@mail.example>", 60)
    if not SANITIZED:
        assert rss(i, "local") < 60 * MIB


def rss(instance, program):
    """Memory of its own, without the pages of the index that it reads, in bytes."""
    sizes = [re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()) for pid in instance.pids(program)]
    return max(int(m[1]) * 1024 for m in sizes)


def deep(depth):
    parts = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n" for n in range(depth))
    return f"Subject: deep\r\nMIME-Version: 1.0\r\n{parts}Content-Type: text/plain\r\n\r\nbottom\r\n"


def test_parts_10000_deep(make_instance):
    """Returned as it came; refused with a reason where somebody wants to look at each part."""
    settings = (f"smtpd_reject_unlisted_recipient = no\nalias_maps = inline:{{ {{sender={ME}}} }}\n"
                "transport_maps = inline:{ {err.example=error:5.1.6 moved away} }\nbounce_size_limit = 1000000\n")
    i = make_instance(main_cf=settings + "body_checks = pcre:{ {/^nowhere$$/ REJECT} }\n")
    with pytest.raises(smtplib.SMTPDataError, match="5.6.0 MIME nesting exceeds safety limit"):
        send(i, "x@err.example", deep(10_000))
    assert SANITIZED or peak(i, "cleanup") < 60 * MIB
    i = make_instance(main_cf=settings)
    send(i, "x@err.example", deep(10_000))
    box = i.mail / ME
    wait_for(lambda: box.exists() and b"\nbottom\n" in box.read_bytes(), 60, "the notice")
    assert b"--b9999\n" in box.read_bytes()
