"""Parameters of address verification in tables: which way probes go, how long an answer counts, and what clients are told."""
import smtplib
import time

import pytest

from instance import Instance, free_port, wait_for
from oracle import Oracle
from sink import Sink

# Of probes alone: each sends them to a server of its own, and mail of that kind goes to nobody at all.
WAYS = [  # what is set in one server: parameter, its value, the domain of the address that is asked about
    [("address_verify_local_transport", "smtp:[127.0.0.1]:{port}", "here.example"),
     ("address_verify_relay_transport", "smtp:[127.0.0.1]:{port}", "relay.example"),
     ("address_verify_virtual_transport", "smtp:[127.0.0.1]:{port}", "virtual.example"),
     ("address_verify_relayhost", "[127.0.0.1]:{port}", "else.example")],
    [("address_verify_sender_dependent_relayhost_maps", "inline:{{{{probe@here.example=[127.0.0.1]:{port}}}}}", "else.example")],
    [("address_verify_sender_dependent_default_transport_maps", "inline:{{{{probe@here.example=smtp:[127.0.0.1]:{port}}}}}",
      "else.example")],
]
WORLD = """\
mydestination = here.example
local_recipient_maps =
local_transport = discard
relay_domains = relay.example
relay_transport = discard
virtual_mailbox_domains = virtual.example
virtual_mailbox_maps =
virtual_transport = discard
relayhost = [127.0.0.1]:{closed}
smtp_dns_support_level = disabled
smtpd_relay_restrictions = permit_mynetworks, reject
address_verify_sender = probe@here.example
address_verify_poll_count = 1
"""


def reply(port, sender="x@there.example", recipient="x@here.example"):
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo("x")
        client.mail(sender)
        code, text = client.rcpt(recipient)
        return code, text.decode()


@pytest.mark.parametrize("rows", WAYS, ids=lambda rows: "+".join(name.removeprefix("address_verify_") for name, _, _ in rows))
@pytest.mark.parametrize("kind", [Instance, Oracle])
def test_which_way_probes_go(kind, rows):
    if kind is Oracle and Oracle.why_not():
        pytest.skip(Oracle.why_not())
    servers = [Sink() for _ in rows]
    settings = "".join(f"{name} = {value.format(port=server.port)}\n" for (name, value, _), server in zip(rows, servers))
    main = WORLD.format(closed=free_port()) + "smtpd_recipient_restrictions = reject_unverified_recipient\n" + settings
    with kind(main_cf=main.replace("{{", "{").replace("}}", "}")) as system:
        try:
            for (name, _, domain), server in zip(rows, servers):
                reply(system.port, recipient=f"good@{domain}")
                wait_for(lambda server=server: server.said and "QUIT" in server.said[-1][1], what=f"a probe by {name}")
                assert [line for _, line in server.said if line[:4] in ("MAIL", "RCPT")] == [
                    "MAIL FROM:<probe@here.example>", f"RCPT TO:<good@{domain}>"]
        finally:
            print(system.log())
            for server in servers:
                server.close()


# parameter, the address, what is said while the first answer counts, what is said once it does not, by the setting
EXPIRED = (450, "Address verification in progress")
TIMES = [
    ("address_verify_positive_expire_time", "good-1@there.example", (250, "Ok"), EXPIRED),
    ("address_verify_negative_expire_time", "refused-1@there.example", (450, "550 5.1.1 unknown"), EXPIRED),
    # asked again, and the answer that was there still counts
    ("address_verify_positive_refresh_time", "good-2@there.example", (250, "Ok"), (250, "Ok")),
    ("address_verify_negative_refresh_time", "refused-2@there.example", (450, "550 5.1.1 unknown"), (450, "550 5.1.1 unknown")),
]


class Doors(Instance):
    """Servers that ask verification services of their own, all of which know the same answers."""

    def __init__(self, services, main_cf):
        self.ports, lines = {}, []
        for name, (smtpd, verify) in services.items():
            self.ports[name] = free_port()
            own = "verify" if verify is None else f"verify_{name}"
            lines.append(f"127.0.0.1:{self.ports[name]} inet n - n - - smtpd -o address_verify_service_name={own}"
                         + "".join(f" -o {{ {n} = {v} }}" for n, v in smtpd.items()) + "\n")
            if verify is not None:
                lines.append(f"{own} unix - - n - 1 verify -o syslog_name=postfix/{name}"
                             + "".join(f" -o {{ {n} = {v} }}" for n, v in verify.items()) + "\n")
        super().__init__(main_cf=main_cf, master_extra="".join(lines), name="here")


@pytest.fixture(scope="module")
def server():
    made = Sink()
    yield made
    made.close()


@pytest.fixture(scope="module")
def doors(server):
    sender = {"smtpd_sender_restrictions": "reject_unverified_sender"}
    recipient = {"smtpd_recipient_restrictions": "reject_unverified_recipient, reject"}
    services = {
        "plain": (sender, None),
        **{name: (sender, {name: "1s"}) for name, *_ in TIMES},
        "address_verify_cache_cleanup_interval": (sender, {"address_verify_cache_cleanup_interval": "1s"}),
        "no cleanup": (sender, {"address_verify_cache_cleanup_interval": "0"}),
        "reason": ({**sender, "unverified_sender_reject_reason": "nobody is there"}, None),
        "recipient": (recipient, None),
        "tempfail": ({**recipient, "unverified_recipient_tempfail_action": "defer"}, None),
        "code": ({**recipient, "unverified_recipient_tempfail_action": "defer", "unverified_recipient_defer_code": "451"}, None),
    }
    main = WORLD.format(closed=free_port()) + f"""\
default_transport = smtp:[127.0.0.1]:{server.port}
relay_transport = smtp:[127.0.0.1]:{free_port()}
address_verify_map = lmdb:$data_directory/answers
"""
    services = {name.replace(" ", "_"): options for name, options in services.items()}
    with Doors(services, main) as system:
        yield system
        print(system.log())


def probes(server, address):
    return [line for _, line in server.said if line == f"RCPT TO:<{address}>"]


def says(doors, service, answer, **envelope):
    code, text = reply(doors.ports[service], **envelope)
    return code == answer[0] and answer[1] in text


def test_how_long_answers_count(doors, server):
    for name, address, answer, _ in TIMES:
        wait_for(lambda a=address, answer=answer: says(doors, "plain", answer, sender=a), what=f"an answer for {name}")
        assert len(probes(server, address)) == 1
    time.sleep(2.5)  # what was known is older than a second by then
    for name, address, answer, later in TIMES:
        assert says(doors, "plain", answer, sender=address), "without the parameter it still counts"
        assert len(probes(server, address)) == 1
        assert says(doors, name, later, sender=address), name
        wait_for(lambda a=address: len(probes(server, a)) == 2, what=f"another probe by {name}")


def test_address_verify_cache_cleanup_interval(doors):
    def passes(service):
        return doors.log().count(f"postfix/{service}/verify[") and [
            line for line in doors.log().splitlines() if f"postfix/{service}/verify[" in line and "full cleanup" in line]

    for service in ("address_verify_cache_cleanup_interval", "no_cleanup"):
        reply(doors.ports[service], sender="cleaned@there.example")
    wait_for(lambda: len(passes("address_verify_cache_cleanup_interval") or []) > 1, what="two passes over the cache")
    assert not passes("no_cleanup")


def test_unverified_sender_reject_reason(doors):
    address = "refused-3@there.example"
    wait_for(lambda: says(doors, "plain", (450, "undeliverable address: host 127.0.0.1"), sender=address))
    assert says(doors, "reason", (450, "undeliverable address: nobody is there"), sender=address)


def test_unverified_recipient_put_off(doors):
    """Nobody can say: by default the rest of the list is asked, too, which rejects here."""
    address = "x@relay.example"
    wait_for(lambda: says(doors, "tempfail", (450, "unverified address: connect to 127.0.0.1"), recipient=address))
    assert says(doors, "recipient", (554, "Access denied"), recipient=address), "unverified_recipient_tempfail_action"
    assert says(doors, "code", (451, "unverified address: connect to"), recipient=address), "unverified_recipient_defer_code"
