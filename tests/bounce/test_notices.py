"""Notices as a mail program reads them: Python's email package takes them apart (RFC 3464, 6522)."""
import email
import email.policy
import mailbox
import os
import pwd

import pytest

from instance import wait_for

ME = pwd.getpwuid(os.geteuid()).pw_name
SENDER = "sender@mail.example"
BASE = f"""\
smtpd_reject_unlisted_recipient = no
alias_maps = inline:{{ {{sender={ME}}}, {{postmaster={ME}}} }}
minimal_backoff_time = 1s
maximal_backoff_time = 1s
queue_run_delay = 1s
transport_maps = inline:{{ {{err.example=error:5.1.6 moved away}}, {{retry.example=retry:4.7.9 come again}} }}
"""


def send(instance, rcpts, message="Subject: original\nX-Mark: 1\n\nthe body\n", sender=SENDER, **options):
    with instance.smtp() as s:
        message = message if isinstance(message, bytes) else message.encode()
        s.sendmail(sender, rcpts, message.replace(b"\n", b"\r\n"), **options)


def notices(instance, count=1):
    path = instance.mail / ME
    wait_for(lambda: path.exists() and len(mailbox.mbox(path)) >= count, 30, f"{count} notices")
    box = mailbox.mbox(path)
    raw = [box.get_bytes(key) for key in box.keys()]
    return [email.message_from_bytes(r, policy=email.policy.default) for r in raw]


def parts(notice):
    assert notice.get_content_type() == "multipart/report"
    assert notice.get_param("report-type") == "delivery-status"
    text, report, returned = notice.get_payload()
    assert not notice.defects and not text.defects and not report.defects
    assert text.get_content_type() == "text/plain"
    assert report.get_content_type() == "message/delivery-status"
    return text, report.get_payload(), returned


def test_failure(make_instance):
    i = make_instance(main_cf=BASE)
    send(i, ["one@err.example", "two@err.example", "nosuchuser@mail.example"])
    line = i.wait_log("sender non-delivery notification: ")
    old, new = line.split(": ")[1], line.split("notification: ")[1]
    i.wait_log(f"{old}: removed")
    i.wait_log(f"{new}: from=<>, ")
    all_of_them = notices(i)
    assert len(all_of_them) == 1
    notice = all_of_them[0]
    assert notice["return-path"] == "<>"
    assert notice["subject"] == "Undelivered Mail Returned to Sender"
    assert notice["from"] == "Mail Delivery System <MAILER-DAEMON@mail.example>"
    assert notice["to"] == SENDER
    assert notice["auto-submitted"] == "auto-replied"
    assert notice["message-id"] and notice["date"] and notice["mime-version"] == "1.0"
    text, (message, *recipients), returned = parts(notice)
    assert "<one@err.example>: moved away\n" in text.get_content()
    assert message["reporting-mta"] == "dns; mail.example"
    assert message["x-postfix-queue-id"] == old
    assert message["x-postfix-sender"] == f"rfc822; {SENDER}"
    assert message["arrival-date"]
    assert {r["final-recipient"]: (r["status"], r["diagnostic-code"]) for r in recipients} == {
        "rfc822; one@err.example": ("5.1.6", "X-Postfix; moved away"),
        "rfc822; two@err.example": ("5.1.6", "X-Postfix; moved away"),
        "rfc822; nosuchuser@mail.example": ("5.1.1", 'X-Postfix; unknown user: "nosuchuser"')}
    assert {r["action"] for r in recipients} == {"failed"}
    assert returned.get_content_type() == "message/rfc822"
    original = returned.get_payload(0)
    assert original["subject"] == "original" and original["x-mark"] == "1"
    assert original["return-path"] == f"<{SENDER}>"
    assert original.get_payload() == "the body\n"


def test_member_of_an_alias(make_instance):
    """The notice names what failed, and what it was expanded from."""
    i = make_instance(main_cf=BASE.replace("inline:{ ", "inline:{ {team=nosuchuser}, ", 1))
    send(i, ["team@mail.example"])
    text, (_, recipient), _ = parts(notices(i)[0])
    assert '<nosuchuser@mail.example> (expanded from <team@mail.example>): unknown user' in text.get_content().replace(
        "\n    ", " ")
    assert recipient["final-recipient"] == "rfc822; nosuchuser@mail.example"
    assert recipient["original-recipient"] == "rfc822;team@mail.example"


def test_large_and_8bit(make_instance):
    i = make_instance(main_cf=BASE + "bounce_size_limit = 1000\nsmtputf8_enable = no\n")
    send(i, ["small@err.example"], "Subject: x\n\nstra\u00dfe\n".encode(), mail_options=["BODY=8BITMIME"])
    small = notices(i)[0]
    assert small["content-transfer-encoding"] == "8bit"
    assert "stra\u00dfe".encode() in small.as_bytes()
    send(i, ["large@err.example"], "Subject: big\n\n" + "line\n" * 100000)
    large = notices(i, 2)[1]
    assert len(large.as_bytes()) < 6000
    assert large["content-transfer-encoding"] is None
    assert parts(large)[2].get_content_type() == "text/rfc822-headers"


def test_charset_with_smtputf8(make_instance):
    """smtputf8_enable: names of hosts may be UTF-8, and so is all of the text."""
    i = make_instance(main_cf=BASE)
    send(i, ["x@err.example"])
    notice = notices(i)[0]
    text, _, returned = notice.get_payload()
    assert [part["content-transfer-encoding"] for part in notice.walk()][:2] == ["8bit", "8bit"]
    assert text.get_param("charset") == "utf-8" and returned["content-transfer-encoding"] == "8bit"
    assert notice.get_payload(1)["content-transfer-encoding"] is None  # RFC 3464, 2


def test_delay(make_instance):
    i = make_instance(main_cf=BASE + "delay_warning_time = 1s\n")
    send(i, ["slow@retry.example"])
    i.wait_log("sender delay notification: ")
    notice = notices(i)[0]
    assert notice["subject"] == "Delayed Mail (still being retried)"
    _, (_, recipient), returned = parts(notice)
    assert recipient["action"] == "delayed" and recipient["status"] == "4.7.9"
    assert recipient["will-retry-until"]
    assert returned.get_content_type() == "text/rfc822-headers"


def test_null_sender_and_double_bounce(make_instance):
    i = make_instance(main_cf=BASE)
    send(i, ["x@err.example"], sender="")
    wait_for(i.queue_is_empty, 20, "the empty queue")
    assert "notification" not in i.log()
    i.stop()
    i = make_instance(main_cf=BASE + "notify_classes = 2bounce\n2bounce_notice_recipient = gone@err.example\n")
    send(i, ["x@err.example"], sender="")
    i.wait_log("postmaster non-delivery notification: ")
    i.wait_log("undeliverable postmaster notification discarded")
    wait_for(i.queue_is_empty, 20, "the empty queue")


def test_postmaster_copy(make_instance):
    i = make_instance(main_cf=BASE + "notify_classes = bounce, 2bounce\n")
    send(i, ["x@err.example"])
    both = notices(i, 2)
    copy = next(n for n in both if n["subject"] == "Postmaster Copy: Undelivered Mail")
    assert copy["return-path"] == "<double-bounce@mail.example>"
    assert parts(copy)[2].get_content_type() == "text/rfc822-headers"


TEMPLATES = """\
# of our own
failure_template = <<EOF
Charset: iso-8859-1
From: Post Office <post@mail.example>
Subject: It came back
Postmaster-Subject: A copy

Gr\u00fcezi from $myhostname, $$5: $delay_warning_time_hours $maximal_queue_lifetime_days ${mine}
EOF

delay_template = <<END
Subject: It takes time

More than $delay_warning_time_seconds second(s), up to $maximal_queue_lifetime_hours hour(s)
END
"""


def test_template_file(make_instance, tmp_path):
    path = tmp_path / "bounce.cf"
    path.write_text(TEMPLATES, encoding="iso-8859-1")
    i = make_instance(main_cf=BASE + f"bounce_template_file = {path}\nmine = own words\nnotify_classes = bounce\n"
                                     "maximal_queue_lifetime = 3d\ndelay_warning_time = 2h\n")
    send(i, ["x@err.example"])
    both = {notice["subject"]: notice for notice in notices(i, 2)}
    assert set(both) == {"It came back", "A copy"}
    for notice in both.values():
        assert notice["from"] == "Post Office <post@mail.example>"
        assert parts(notice)[0].get_param("charset") == "iso-8859-1"
    text = parts(both["It came back"])[0].get_content()
    assert text.startswith("Gr\u00fcezi from mail.example, $5: 2 3 own words\n\n<x@err.example>: moved away\n")
    assert "Gr" not in parts(both["A copy"])[0].get_content()


def test_template_of_delays(make_instance, tmp_path):
    path = tmp_path / "bounce.cf"
    path.write_text(TEMPLATES, encoding="iso-8859-1")
    i = make_instance(main_cf=BASE + f"bounce_template_file = {path}\nmine = x\nmaximal_queue_lifetime = 3d\n"
                                     "delay_warning_time = 1s\n")
    send(i, ["slow@retry.example"])
    notice = notices(i)[0]
    assert notice["subject"] == "It takes time"
    assert notice["from"] == "Mail Delivery System <MAILER-DAEMON@mail.example>"
    assert parts(notice)[0].get_content().startswith("More than 1 second(s), up to 72 hour(s)\n\n<slow@")
    i.wait_log("zero result in failure template conversion of parameter \"delay_warning_time_hours\"")


@pytest.mark.parametrize("text, message", [
    ("# x\nnonsense\n", ", line 2: missing '=' after attribute name: \"nonsense\" -- using the built-in templates"),
    ("\n\nfailure_template = <<EOF\nhello\n", ", line 4: missing end marker EOF -- using the built-in templates"),
    ("\nfailure_template = <<EOF\nReply-To: a\n\nhello\nEOF\n",
     ", line 2: unknown \"Reply-To\" header label in failure template -- ignoring this template"),
    ("\nfailure_template = <<EOF\nhello $nobody\nEOF\n",
     ": undefined $name in failure template: nobody (template in line 2) -- using the built-in template"),
    (None, ": No such file or directory -- using the built-in templates"),
])
def test_broken_template_file(make_instance, tmp_path, text, message):
    path = tmp_path / "bounce.cf"
    if text:
        path.write_text(text)
    i = make_instance(main_cf=BASE + f"bounce_template_file = {path}\n")
    send(i, ["x@err.example"])
    notice = notices(i)[0]
    assert notice["subject"] == "Undelivered Mail Returned to Sender"
    assert "could not be delivered to the recipients below" in parts(notice)[0].get_content()
    assert f"{path}{message}" in i.log()
