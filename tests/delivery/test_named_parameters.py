"""Parameters of bounce(8), local(8), error(8) and pipe(8) that nothing else shows: each with its value, and beside it
what is there without it."""
import email
import mailbox
import os
import pathlib
import pwd
import re

import pytest

from instance import wait_for

ME = pwd.getpwuid(os.geteuid()).pw_name
USER = "nobody" if os.geteuid() == 0 else ME
BASE = f"""\
smtpd_reject_unlisted_recipient = no
alias_maps = inline:{{ {{sender={ME}}}, {{postmaster={ME}}}, {{others={ME}}} }}
transport_maps = inline:{{ {{err.example=error:5.1.6 moved away}}, {{retry.example=retry:4.7.9 come again}},
    {{far.example=discard:far}} }}
"""


def send(instance, *to, sender="sender@mail.example"):
    with instance.smtp() as s:
        s.sendmail(sender, list(to), "Subject: x\r\n\r\nhello\r\n")


def notices(instance, count):
    path = instance.mail / ME

    def look():
        box = mailbox.mbox(path) if path.exists() else []
        found = [email.message_from_bytes(box.get_bytes(key)) for key in box.keys()] if path.exists() else []
        return found if len(found) >= count else None
    return wait_for(look, 30, f"{count} notices")


# What the postmaster is told of failures, delays and notices that come back, by class: (to whom, from whom, about what)
COPY, TWICE, LATE = "Postmaster Copy: Undelivered Mail", "Undelivered Mail Returned to Sender", "Postmaster Warning: Delayed Mail"


@pytest.mark.parametrize("classes, sender, to, told", [
    ("bounce", "sender@mail.example", "x@err.example", COPY),
    ("2bounce", "sender@mail.example", "x@err.example", None),
    ("2bounce", "", "x@err.example", "Undeliverable Mail"),
    ("bounce", "", "x@err.example", None),
    ("delay", "sender@mail.example", "x@retry.example", LATE),
    ("bounce, 2bounce", "sender@mail.example", "x@retry.example", None),
    ("data, policy, protocol, resource, software", "sender@mail.example", "x@err.example", None),
])
def test_notify_classes(make_instance, classes, sender, to, told):
    """With each class its notice goes to its own recipient, from double_bounce_sender; no other class brings it."""
    i = make_instance(main_cf=BASE + f"notify_classes = {classes}\ndelay_warning_time = 1s\ndouble_bounce_sender = twice\n"
                      "minimal_backoff_time = 1s\nqueue_run_delay = 1s\nmaximal_backoff_time = 1s\n"
                      "bounce_notice_recipient = bounced@far.example\n2bounce_notice_recipient = twice@far.example\n"
                      "delay_notice_recipient = late@far.example\n")
    send(i, to, sender=sender)
    if to.endswith("retry.example"):
        i.wait_log("sender delay notification: ")
    elif sender:
        i.wait_log("sender non-delivery notification: ")
    who = {COPY: "bounced", "Undeliverable Mail": "twice", LATE: "late"}.get(told)
    if who:
        line = i.wait_log(f"to=<{who}@far.example>")
        queue_id = line.split("]: ")[1].split(":")[0]
        assert "from=<twice@mail.example>" in i.wait_log(f"{queue_id}: from=<")
    elif to.endswith("err.example"):
        wait_for(i.queue_is_empty, 30, "the empty queue")
    assert len(re.findall(r"postmaster [a-z-]+ notification", i.log())) == (1 if told else 0)


def test_double_bounce_sender(make_instance):
    """What it has sent is never returned; mail to it ends here, with another name only mail to that one."""
    for name in ("double-bounce", "twice"):
        i = make_instance(main_cf=BASE + f"double_bounce_sender = {name}\nnotify_classes = bounce\n"
                          "bounce_notice_recipient = gone@err.example\n")
        send(i, "x@err.example", sender="sender@mail.example")
        i.wait_log("undeliverable postmaster notification discarded")
        assert f"from=<{name}@mail.example>" in i.log()
        send(i, "twice@mail.example", sender="")
        assert ('unknown user: "twice"' in i.wait_log("to=<twice@mail.example>")) == (name != "twice")


def test_owner_alias_is_inherited(make_instance):
    """reset_owner_alias: members of a list in a list with an owner, without an owner of its own, get a message of their
    own, or the one that is here. Its sender is the owner in any case."""
    for value, end in (("no", "forwarded as"), ("yes", "delivered to mailbox")):
        i = make_instance(main_cf=BASE + f"reset_owner_alias = {value}\n"
                          f"alias_maps = inline:{{ {{outer=inner}} {{inner={ME}}} {{owner-outer=far@far.example}} }}\n")
        send(i, "outer@mail.example")
        assert end in i.wait_log("to=<")
        wait_for(lambda: (i.mail / ME).exists() and "From owner-outer@mail.example " in (i.mail / ME).read_text(), 30, "the mail")


def test_extensions_of_owners(make_instance):
    """owner_request_special: owner-list and list-request are whole names for every program that looks for extensions."""
    for value, found in (("yes", False), ("no", True)):
        i = make_instance(main_cf=BASE + f"owner_request_special = {value}\nrecipient_delimiter = -\n"
                          "virtual_alias_domains = va.example\nvirtual_mailbox_domains = v.example\nvirtual_mailbox_base = /tmp\n"
                          "virtual_mailbox_maps = inline:{ {owner@v.example=x/} }\nvirtual_transport = p:\n"
                          "virtual_alias_maps = inline:{ {owner@va.example=o@far.example} {list@va.example=l@far.example} }\n"
                          "smtpd_recipient_restrictions = check_recipient_access inline:{ {asked@r.example=REJECT it is known} },\n"
                          "    reject_unlisted_recipient, permit\n",
                          master_extra=f"p unix - n n - - pipe user={USER} argv=/bin/echo u=$user x=$extension\n")
        for name, base in (("owner-x", "o-x"), ("list-request", "l-request")):
            send(i, f"{name}@va.example") if found else refuse(i, f"{name}@va.example", "User unknown in virtual alias table")
            if found:
                i.wait_log(f"to=<{base}@far.example>, orig_to=<{name}@va.example>")
        refuse(i, "asked-request@r.example", "it is known") if found else send(i, "asked-request@r.example")
        if found:
            send(i, "owner-y@v.example")
            i.wait_log("(u=owner x=y)")
        else:
            refuse(i, "owner-y@v.example", "User unknown in virtual mailbox table")
        i.stop()


def refuse(instance, to, why):
    with instance.smtp() as s:
        s.ehlo("client.example")
        s.mail("sender@mail.example")
        code, text = s.rcpt(to)
    assert code // 100 == 5 and why in text.decode(), (code, text)
