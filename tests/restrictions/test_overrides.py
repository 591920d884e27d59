"""smtpd -o NAME=VALUE in master.cf: the tables of recipients of one smtpd are not those of another."""
import contextlib
import smtplib

from instance import free_port, wait_for

WORLD = """\
mydestination = here.example
local_recipient_maps = inline:{ {user=x} }
local_transport = discard:
relay_domains = relay.example
relay_recipient_maps = inline:{ {ok@relay.example=x} }
relay_transport = discard:
"""


def rcpt(port, recipient, sender="a@there.example"):
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo("x")
        client.mail(sender)
        code, text = client.rcpt(recipient)
        return code, text.decode()


def test_recipient_tables_of_one_service(make_instance):
    """Like the port that a content filter gives mail back to."""
    back, other = free_port(), free_port()
    master = (f"127.0.0.1:{back} inet n - n - - smtpd -o local_recipient_maps= -o relay_recipient_maps=\n"
              f"127.0.0.1:{other} inet n - n - - smtpd -o {{ local_recipient_maps = inline:{{ {{else=x}} }} }}\n"
              "  -o unknown_local_recipient_reject_code=450 -o show_user_unknown_table_name=no\n"
              "  -o smtpd_recipient_restrictions=reject_unlisted_sender\n")
    instance = make_instance(main_cf=WORLD, master_extra=master)
    unknown = "5.1.1 <{}>: Recipient address rejected: User unknown in {} recipient table"
    assert rcpt(instance.port, "user@here.example")[0] == 250
    assert rcpt(instance.port, "nobody@here.example") == (550, unknown.format("nobody@here.example", "local"))
    assert rcpt(instance.port, "no@relay.example") == (550, unknown.format("no@relay.example", "relay"))
    for recipient in ("user@here.example", "nobody@here.example", "no@relay.example"):
        assert rcpt(back, recipient)[0] == 250
    assert rcpt(other, "else@here.example")[0] == 250
    assert rcpt(other, "user@here.example") == (450, "4.1.1 <user@here.example>: Recipient address rejected: User unknown")
    assert rcpt(other, "else@here.example", sender="user@here.example")[0] == 450
    assert rcpt(other, "no@relay.example")[0] == 550
    # a reload sees what has changed
    text = (instance.etc / "master.cf").read_text()
    (instance.etc / "master.cf").write_text(text.replace("{else=x}", "{more=x}"))
    instance.reload()

    def reloaded():
        with contextlib.suppress(OSError, smtplib.SMTPException):  # a session that the old process ends
            return rcpt(other, "more@here.example")[0] == 250
    wait_for(reloaded, what="the reload")
    assert rcpt(other, "else@here.example")[0] == 450
