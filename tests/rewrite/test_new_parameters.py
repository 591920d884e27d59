"""What Debian's Postfix is too old to know: (parameter, value, what is seen), by hand."""
import os

import pytest

from instance import Instance

WORLD = "header_checks = static:HOLD\nmyorigin = example.com\n"
NAME = "Jörg Müller"


def from_field(value, name):
    with Instance(main_cf=f"{WORLD}full_name_encoding_charset = {value}\n", name="named") as i:
        done = i.command("sendmail", "-F", name, "-f", "me", "a@b.example", input="Subject: x\n\nbody\n", capture_output=True)
        assert done.returncode == 0, done.stderr
        queue_id = i.wait_log("hold: header").split(": ")[1]
        text = i.command("postcat", "-h", "-q", queue_id, capture_output=True).stdout
    return text.partition("\nFrom: ")[2].partition("\n")[0]


@pytest.mark.parametrize("value, name, seen", [
    ("utf-8", NAME, "=?utf-8?Q?J=C3=B6rg_M=C3=BCller?= <me@example.com>"),
    ("iso-8859-1", os.fsdecode(NAME.encode("latin1")), "=?iso-8859-1?Q?J=F6rg_M=FCller?= <me@example.com>"),
    ("utf-8", "Plain Name", "Plain Name <me@example.com>"),
])
def test_full_name_encoding_charset(value, name, seen):
    assert from_field(value, name) == seen


@pytest.mark.parametrize("value, seen", [("yes", "Subject: a b"), ("no", "Subject: a\rb")])
def test_cleanup_replace_stray_cr_lf(value, seen):
    with Instance(main_cf=f"{WORLD}cleanup_replace_stray_cr_lf = {value}\n", name="stray") as i:
        with i.smtp() as smtp:
            smtp.ehlo("client.example")
            smtp.mail("s@b.example")
            smtp.rcpt("a@b.example")
            assert smtp.docmd("DATA")[0] == 354
            smtp.send(b"Subject: a\rb\r\n\r\nbody\r\n.\r\n")
            code, text = smtp.getreply()
            assert code == 250, text
        out = i.command("postcat", "-h", "-q", text.decode().split()[-1], capture_output=True, text=False).stdout
    assert seen.encode() + b"\n" in out
