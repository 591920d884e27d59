"""Reports of delivery: NOTIFY=SUCCESS, sendmail -v and -bv, delays that are over; and VERP (VERP_README)."""
import email
import email.policy
import mailbox
import os
import pwd

import pytest

from instance import wait_for
from sink import Sink

ME = pwd.getpwuid(os.geteuid()).pw_name
SENDER = "sender@mail.example"
BASE = r"""
smtpd_reject_unlisted_recipient = no
alias_maps = pcre:{{ {{/^(?!{me}\b)(owner-list\b|(?!owner-))/ {me}}} }}
recipient_delimiter = +
minimal_backoff_time = 1s
maximal_backoff_time = 1s
queue_run_delay = 1s
transport_maps = inline:{{ {{err.example=error:5.1.6 moved away}}, {{retry.example=retry:4.7.9 come again}},
    {{disc.example=discard:gone}} {more} }}
"""


def main_cf(more="", extra=""):
    return BASE.format(me=ME, more=more) + extra


def send(instance, rcpts, mail=(), rcpt=(), sender=SENDER, message=b"Subject: original\r\n\r\nthe body\r\n"):
    with instance.smtp() as s:
        s.ehlo("client.example")
        assert s.mail(sender, list(mail))[0] == 250
        for r in rcpts:
            assert s.rcpt(r, list(rcpt))[0] == 250
        assert s.data(message)[0] == 250


def box(instance, count=1, wanted=lambda m: True):
    """All that was delivered and is `wanted`."""
    path = instance.mail / ME

    def look():
        if not path.exists():
            return None
        found = [email.message_from_bytes(mailbox.mbox(path).get_bytes(key), policy=email.policy.default)
                 for key in mailbox.mbox(path).keys()]
        found = [m for m in found if wanted(m)]
        return found if len(found) >= count else None
    return wait_for(look, 30, f"{count} messages")


def notices(instance, count=1):
    return box(instance, count, lambda m: m.get_content_type() == "multipart/report")


def reported(notice):
    """{final recipient: (action, status)}"""
    _, report, _ = notice.get_payload()
    return {r["final-recipient"].split("; ")[1]: (r["action"], r["status"]) for r in report.get_payload()[1:]}


def test_success(make_instance):
    i = make_instance(main_cf=main_cf())
    send(i, ["a@disc.example", "b@mail.example", "c@err.example"], ["ENVID=env+2B1"],
         ["NOTIFY=SUCCESS", "ORCPT=rfc822;first@there.example"])
    send(i, ["silent@disc.example"], [], ["NOTIFY=NEVER"])
    send(i, ["usual@disc.example"])
    i.wait_log("sender delivery status notification: ")
    found = notices(i)
    wait_for(i.queue_is_empty, 20, "the empty queue")
    assert len(found) == len(notices(i)) == 1
    notice = found[0]
    assert notice["subject"] == "Successful Mail Delivery Report"
    assert notice["return-path"] == "<>" and notice["to"] == SENDER
    assert reported(notice) == {"a@disc.example": ("delivered", "2.0.0"), f"{ME}@mail.example": ("delivered", "2.0.0")}
    text, report, returned = notice.get_payload()
    assert f"<{ME}@mail.example> (expanded from <b@mail.example>): delivery via local: delivered to mailbox" in text.get_content().replace("\n    ", " ")
    assert "<a@disc.example>: gone\n" in text.get_content()
    assert report.get_payload()[0]["original-envelope-id"] == "env+1"
    assert report.get_payload()[1]["original-recipient"] == "rfc822;first@there.example"
    assert returned.get_content_type() == "text/rfc822-headers"
    assert i.log().count("notification: ") == 1
    assert not [p for p in (i.queue / "trace").iterdir()]


class DsnSink(Sink):
    """It knows DSN when `dsn`."""
    dsn = False

    def converse(self, peer, number):
        if not self.dsn:
            return super().converse(peer, number)

        class Front:
            def __iter__(front):
                return iter(peer)

            def readline(front):
                return peer.readline()

            def flush(front):
                peer.flush()

            def write(front, data):
                peer.write(data.replace(b"250 PIPELINING", b"250-PIPELINING\r\n250 DSN"))
        return super().converse(Front(), number)


def test_passed_on_or_relayed(make_instance):
    """A server that knows DSN is told what the sender wants; for one that does not the notice says `relayed`."""
    knows, does_not = DsnSink(), DsnSink()
    knows.dsn = True
    i = make_instance(main_cf=main_cf(f", {{dsn.example=smtp:[127.0.0.1]:{knows.port}}}, "
                                      f"{{old.example=smtp:[127.0.0.1]:{does_not.port}}}"))
    send(i, ["a@dsn.example", "b@old.example"], ["RET=HDRS", "ENVID=e+2B1"],
         ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;first+2B@there.example"])
    found = notices(i)
    send(i, ["c@dsn.example"])
    send(i, ["d@dsn.example"], ["RET=FULL"], ["NOTIFY=NEVER"])
    wait_for(i.queue_is_empty, 20, "the empty queue")
    assert len(notices(i)) == 1
    assert reported(found[0]) == {"b@old.example": ("relayed", "2.0.0")}
    said = [line for _, line in knows.said]
    assert f"MAIL FROM:<{SENDER}> ENVID=e+2B1 RET=HDRS" in said
    assert "RCPT TO:<a@dsn.example> ORCPT=rfc822;first+2B@there.example NOTIFY=SUCCESS,DELAY" in said
    assert "RCPT TO:<c@dsn.example> ORCPT=rfc822;c@dsn.example" in said
    assert f"MAIL FROM:<{SENDER}> RET=FULL" in said
    assert "RCPT TO:<d@dsn.example> ORCPT=rfc822;d@dsn.example NOTIFY=NEVER" in said
    assert "RCPT TO:<b@old.example>" in [line for _, line in does_not.said]
    knows.close()
    does_not.close()


@pytest.mark.parametrize("final, action", [("no", "relayed"), ("yes", "delivered")])
def test_lmtp_assume_final(make_instance, final, action):
    sink = Sink()
    i = make_instance(main_cf=main_cf(f", {{box.example=lmtp:inet:127.0.0.1:{sink.port}}}",
                                      f"lmtp_assume_final = {final}\n"))
    send(i, ["a@box.example"], [], ["NOTIFY=SUCCESS"])
    assert reported(notices(i)[0]) == {"a@box.example": (action, "2.0.0")}
    sink.close()


def test_verbose(make_instance):
    """sendmail -v: one report, of the first attempt, whatever its outcomes; notices come as always."""
    i = make_instance(main_cf=main_cf())
    assert i.sendmail("-v", "-f", SENDER, "ok@disc.example", "bad@err.example", "late@retry.example").returncode == 0
    found = {n["subject"]: n for n in notices(i, 2)}
    assert set(found) == {"Mail Delivery Status Report", "Undelivered Mail Returned to Sender"}
    assert reported(found["Mail Delivery Status Report"]) == {
        "ok@disc.example": ("delivered", "2.0.0"), "bad@err.example": ("failed", "5.1.6"),
        "late@retry.example": ("delayed", "4.7.9")}
    wait_for(lambda: i.log().count("to=<late@retry.example>") >= 3, 30, "the next attempts")
    assert len(notices(i)) == 2


def test_rehearsal(make_instance):
    """sendmail -bv: nothing is delivered, deferred or returned."""
    i = make_instance(main_cf=main_cf(extra="virtual_alias_maps = inline:{ {team@mail.example=me@mail.example} }\n"))
    assert i.command("sendmail", "-bv", "-f", SENDER, "team@mail.example", "bad@err.example", "late@retry.example",
                     stdin=-3).returncode == 0
    notice = notices(i)[0]
    assert notice["subject"] == "Mail Delivery Status Report"
    assert reported(notice) == {
        "me@mail.example": ("deliverable", "2.0.0"), "bad@err.example": ("undeliverable", "5.1.6"),
        "late@retry.example": ("undeliverable", "4.7.9")}
    text, _, returned = notice.get_payload()
    assert f"(expanded from <team@mail.example>): delivery via local: aliased to {ME}" in \
        text.get_content().replace("\n    ", " ")
    original = email.message_from_string(returned.get_content(), policy=email.policy.default)
    assert original["subject"] == "probe"
    assert original["to"] == "team@mail.example, bad@err.example, late@retry.example"
    wait_for(i.queue_is_empty, 20, "the empty queue")
    assert len(box(i)) == 1
    assert "status=undeliverable (come again)" in i.log()


@pytest.mark.parametrize("setting", ["yes", "no"])
def test_delay_cleared(make_instance, setting):
    """confirm_delay_cleared"""
    i = make_instance(main_cf=main_cf(extra=f"delay_warning_time = 1s\nconfirm_delay_cleared = {setting}\n"))
    send(i, ["a@retry.example", "b@retry.example"])
    send(i, ["c@retry.example"], [], ["NOTIFY=FAILURE"])
    assert notices(i)[0]["subject"] == "Delayed Mail (still being retried)"
    path = i.etc / "main.cf"
    path.write_text(path.read_text().replace("retry:4.7.9 come again", "discard:at last"))
    i.reload()
    wait_for(i.queue_is_empty, 30, "the empty queue")
    found = notices(i, 2 if setting == "yes" else 1)
    wait_for(i.queue_is_empty, 30, "the empty queue")
    assert [n["subject"] for n in found[1:]] == ["Successful Mail Delivery Report"] * (setting == "yes")
    if setting == "yes":
        assert reported(found[1]) == {"a@retry.example": ("delivered", "2.0.0"),
                                      "b@retry.example": ("delivered", "2.0.0")}


def test_success_of_null_sender(make_instance):
    i = make_instance(main_cf=main_cf())
    send(i, ["a@disc.example"], [], ["NOTIFY=SUCCESS"], sender="")
    wait_for(i.queue_is_empty, 20, "the empty queue")
    assert "notification: " not in i.log()


def test_trace_waits_for_its_service(make_instance):
    """trace_service_name: a report that cannot be made now is made later; nothing is delivered twice."""
    i = make_instance(main_cf=main_cf(extra="trace_service_name = follow\n"))
    send(i, ["a@disc.example"], [], ["NOTIFY=SUCCESS"])
    i.wait_log("status=deferred (trace failed)")
    assert [p.name for p in (i.queue / "trace").iterdir()]
    text = (i.etc / "master.cf").read_text()
    (i.etc / "master.cf").write_text(text + "follow unix - - n - 0 bounce\n")
    i.reload()
    assert reported(notices(i)[0]) == {"a@disc.example": ("delivered", "2.0.0")}
    wait_for(i.queue_is_empty, 20, "the empty queue")
    assert i.log().count("to=<a@disc.example>") == 1


# --- VERP_README ---
LIST = "owner-list@mail.example"


@pytest.mark.parametrize("options, extra, sender", [
    (["-XV"], "", "owner-list+user=disc.example@mail.example"),
    (["-XV"], "default_verp_delimiters = -=\n", "owner-list-user=disc.example@mail.example"),
    (["-XV=-"], "", "owner-list=user-disc.example@mail.example"),
    (["-V"], "", "owner-list+user=disc.example@mail.example"),
    (["-V-="], "", "owner-list-user=disc.example@mail.example"),
    (["-V", "envid"], "", LIST),
    (["-XV#~"], "verp_delimiter_filter = #~\n", "owner-list#user~disc.example@mail.example"),
])
def test_verp_senders(make_instance, options, extra, sender):
    i = make_instance(main_cf=main_cf(extra="always_bcc =\n" + extra).replace("discard:gone", "retry:4.0.0 wait"))
    done = i.sendmail(*options, "-f", LIST, "user@disc.example", "me@mail.example")
    assert done.returncode == 0, done.stderr
    assert ("deprecated" in done.stderr) == (options[0].startswith("-V") and len(options) == 1)
    plain = box(i)[0]
    assert plain["return-path"] == "<" + sender.replace("user", "me").replace("disc.example", "mail.example", 1) + ">"


@pytest.mark.parametrize("disable", ["no", "yes"])
def test_verp_bounces(make_instance, disable):
    """disable_verp_bounces; each recipient's notice goes to a sender of its own, in the name the list knows it by."""
    i = make_instance(main_cf=main_cf(extra=f"disable_verp_bounces = {disable}\nvirtual_alias_maps = "
                                            "inline:{ {alias@mail.example=real@err.example} }\n"))
    assert i.sendmail("-XV", "-f", LIST, "one@err.example", "two@err.example", "alias@mail.example").returncode == 0
    found = notices(i, 3 if disable == "no" else 1)
    wait_for(i.queue_is_empty, 20, "the empty queue")
    who = {n["to"]: list(reported(n)) for n in notices(i, len(found))}
    if disable == "yes":
        assert {to: sorted(names) for to, names in who.items()} == {
            LIST: ["one@err.example", "real@err.example", "two@err.example"]}
    else:
        assert who == {"owner-list+one=err.example@mail.example": ["one@err.example"],
                       "owner-list+two=err.example@mail.example": ["two@err.example"],
                       "owner-list+alias=mail.example@mail.example": ["real@err.example"]}


def test_verp_delay_goes_to_the_list(make_instance):
    i = make_instance(main_cf=main_cf(extra="delay_warning_time = 1s\n"))
    assert i.sendmail("-XV", "-f", LIST, "one@retry.example", "two@retry.example").returncode == 0
    notice = notices(i)[0]
    assert notice["to"] == LIST and len(reported(notice)) == 2


def test_verp_by_smtp(make_instance):
    """smtpd_authorized_verp_clients, and smtpd_command_filter that asks for it."""
    i = make_instance(main_cf=main_cf(
        extra="smtpd_authorized_verp_clients = $mynetworks\n"
              "smtpd_command_filter = pcre:{ {/^(MAIL FROM:<owner-list@mail\\.example>.*)/ $$1 XVERP} }\n"))
    send(i, ["user@err.example"], sender=LIST)
    send(i, ["user@err.example"], ["XVERP=-="], sender="other@mail.example")
    assert {n["to"] for n in notices(i, 2)} == {"owner-list+user=err.example@mail.example",
                                                "other-user=err.example@mail.example"}


def test_verp_forward_of_the_owner(make_instance):
    """The guide's owner alias and .forward+listname: the command sees who it was about. As another user when root asks,
    whose own forward files run no commands."""
    user = "nobody" if os.geteuid() == 0 else ME
    i = make_instance(start=False)
    home = i.directory / "home"
    home.mkdir()
    home.chmod(0o777)
    out = home / "bounced"
    (home / ".forward+list").write_text(f'"|(grep ^To:; id -un) > {out}"\n')
    i.extra = main_cf(extra=f"alias_maps = inline:{{ {{owner-list={user}+list}} }}\n"
                            f"forward_path = {home}/.forward${{recipient_delimiter}}${{extension}}, {home}/.forward\n"
                            "propagate_unmatched_extensions = canonical, virtual\n")
    i.write_config()
    i.start()
    assert i.sendmail("-XV", "-f", LIST, "user@err.example").returncode == 0
    said = f"To: owner-list+user=err.example@mail.example\n{user}\n"
    wait_for(lambda: out.exists() and out.read_text() == said, 30, "the command")
