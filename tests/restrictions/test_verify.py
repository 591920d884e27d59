"""reject_unverified_sender, reject_unverified_recipient: probes through the whole system, and what is remembered of them."""
import smtplib

from instance import free_port, wait_for
from sink import Sink

WORLD = """\
mydestination = here.example
local_recipient_maps =
local_transport = discard:
default_transport = smtp:[127.0.0.1]:{port}
address_verify_poll_count = 3
address_verify_poll_delay = 1s
smtpd_recipient_restrictions = permit_mynetworks
mynetworks = 192.0.2.1/32
relay_domains = relay.example
relay_transport = smtp:[127.0.0.1]:{port}
"""


def reply(instance, sender, recipient="user@here.example"):
    with smtplib.SMTP("127.0.0.1", instance.port, timeout=60) as client:
        client.ehlo("x")
        client.mail(sender)
        code, text = client.rcpt(recipient)
        return code, text.decode()


def begin(make_instance, restriction, more=""):
    server = Sink()
    instance = make_instance(main_cf=WORLD.format(port=server.port) + f"smtpd_sender_restrictions = {restriction}\n" + more)
    return instance, server


def probes(server):
    return [line for _, line in server.said if line.startswith("RCPT")]


def test_sender_that_takes_mail(make_instance):
    instance, server = begin(make_instance, "reject_unverified_sender")
    assert reply(instance, "good@there.example")[0] == 250
    assert probes(server) == ["RCPT TO:<good@there.example>"]
    assert not any(line.startswith("DATA") for _, line in server.said)
    assert any(line.startswith("MAIL FROM:<double-bounce@") for _, line in server.said)
    instance.wait_log("status=deliverable (250 ok)")
    # remembered, also by the next process
    instance.postfix("stop")
    instance.start()
    assert reply(instance, "good@there.example")[0] == 250
    assert len(probes(server)) == 1
    wait_for(instance.queue_is_empty)
    server.close()


def test_sender_that_does_not(make_instance):
    instance, server = begin(make_instance, "reject_unverified_sender", "unverified_sender_reject_code = 550\n")
    code, text = reply(instance, "refused@there.example")
    assert code == 550
    assert text.startswith("5.1.7 <refused@there.example>: Sender address rejected: undeliverable address: host 127.0.0.1")
    assert "550 5.1.1 unknown (in reply to RCPT TO command)" in text
    instance.wait_log("status=undeliverable")
    assert reply(instance, "refused@there.example")[0] == 550
    assert len(probes(server)) == 1
    wait_for(instance.queue_is_empty)
    assert "status=bounced" not in instance.log() and "non-delivery" not in instance.log()
    assert reply(instance, "")[0] == 250
    server.close()


def test_nobody_can_say(make_instance):
    """The server is not there: the client is put off, nothing stays in the queue."""
    instance, server = begin(make_instance, "reject_unverified_sender", f"default_transport = smtp:[127.0.0.1]:{free_port()}\n")
    code, text = reply(instance, "x@there.example")
    assert code == 450
    assert text.startswith("4.1.7 <x@there.example>: Sender address rejected: unverified address: connect to 127.0.0.1")
    wait_for(instance.queue_is_empty)
    assert "status=deferred" not in instance.log()
    server.close()


def test_probe_that_takes_long(make_instance):
    """Polls come to an end; the answer is there when the client comes back."""
    instance, server = begin(make_instance, "reject_unverified_sender",
                             "address_verify_poll_count = 1\nunverified_sender_tempfail_action = defer\n")
    code, text = reply(instance, "slow@there.example")
    assert (code, text) == (450, "4.1.7 <slow@there.example>: Sender address rejected: unverified address: "
                                 "Address verification in progress")
    instance.wait_log("status=deliverable")
    wait_for(lambda: reply(instance, "slow@there.example")[0] == 250)
    assert len(probes(server)) == 1
    server.close()


def test_recipient(make_instance):
    instance, server = begin(make_instance, "permit", "unverified_recipient_reject_code = 550\n"
                             "unverified_recipient_reject_reason = no such mailbox\n")
    with open(instance.etc / "main.cf", "a") as f:
        f.write("smtpd_recipient_restrictions = reject_unauth_destination, reject_unverified_recipient\n")
    instance.reload()
    assert reply(instance, "a@there.example", "ok@relay.example")[0] == 250
    assert reply(instance, "a@there.example", "refused@relay.example") == (
        550, "5.1.1 <refused@relay.example>: Recipient address rejected: undeliverable address: no such mailbox")
    assert reply(instance, "a@there.example", "anybody@here.example")[0] == 250  # discard takes everything
    server.close()


def test_no_verify_service(make_instance):
    master = "127.0.0.1:{} inet n - n - - smtpd -o address_verify_service_name=nowhere\n"
    port = free_port()
    server = Sink()
    instance = make_instance(main_cf=WORLD.format(port=server.port) + "smtpd_sender_restrictions = reject_unverified_sender\n",
                             master_extra=master.format(port))
    instance.port = port
    code, text = reply(instance, "x@there.example")
    assert (code, text) == (450, "4.1.7 <x@there.example>: Sender address rejected: address verification problem")
    server.close()


def test_probes_go_their_own_way(make_instance):
    """address_verify_transport_maps: mail goes to one host, probes to the one that knows."""
    server, probe_server = Sink(), Sink()
    instance = make_instance(main_cf=WORLD.format(port=server.port) + f"""\
smtpd_sender_restrictions = reject_unverified_sender
address_verify_default_transport = smtp:[127.0.0.1]:{probe_server.port}
""")
    assert reply(instance, "refused@there.example")[0] == 450
    assert reply(instance, "good@there.example")[0] == 250
    assert probes(server) == []
    assert probes(probe_server) == ["RCPT TO:<refused@there.example>", "RCPT TO:<good@there.example>"]
    server.close()
    probe_server.close()


def test_probe_up_to_data(make_instance):
    """smtp_address_verify_target = data: for servers that refuse recipients only then. No content is sent."""
    instance, server = begin(make_instance, "reject_unverified_sender", "smtp_address_verify_target = data\n")
    assert reply(instance, "good@there.example")[0] == 250
    assert [line.split()[0] for _, line in server.said if line[:4] in ("MAIL", "RCPT", "DATA")] == ["MAIL", "RCPT", "DATA"]
    instance.wait_log("status=deliverable (354 go on)")
    server.close()
