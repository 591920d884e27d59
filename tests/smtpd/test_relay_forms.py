"""Nobody's mail leaves through this server: every way there is to write "elsewhere" in a recipient, from a client that
has no right to relay. What is accepted must stay here, also after it has been rewritten and resolved."""
import re

import pytest

from instance import Instance, wait_for
from smtpd.dialogue import Client

# Each local user exists, so that only the relay rule can refuse; LEAKED in the log is mail on its way out.
WORLD = """
mynetworks = 192.0.2.0/24
myhostname = mx.here.example
mydomain = here.example
mydestination = $myhostname, here.example, localhost
relay_domains = partner.example
virtual_alias_domains = alias.example
virtual_alias_maps = inline:{ { user@alias.example = user@here.example } }
local_recipient_maps =
relay_recipient_maps =
local_transport = discard:HERE
relay_transport = discard:HERE
default_transport = discard:LEAKED
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
"""

DENIED = re.compile(r"[45]5[0-9] [45]\.7\.1 .*Relay access denied$")
NOT_TAKEN = re.compile(r"[45][0-9][0-9] ")  # which of the reasons comes first is no matter of relaying

# the recipient as it goes over the wire, and what may become of it
FORMS = [
    (b"<user@elsewhere.example>", DENIED),
    (b"user@elsewhere.example", DENIED),
    (b"<USER@ELSEWHERE.EXAMPLE>", DENIED),
    (b"<user@elsewhere.example.>", DENIED),
    (b"<user@elsewhere.example..>", NOT_TAKEN),
    (b"<user@.elsewhere.example>", NOT_TAKEN),
    (b"<user@elsewhere>", DENIED),
    # more than one @, with quotes and without
    (b"<user@elsewhere.example@here.example>", DENIED),
    (b"<\"user@elsewhere.example\"@here.example>", DENIED),
    (b"<\"user@elsewhere.example\">", DENIED),
    (b"<user\\@elsewhere.example@here.example>", DENIED),
    (b"<\"user\\@elsewhere.example\"@here.example>", DENIED),
    (b"<\"\\\"user@elsewhere.example\\\"\"@here.example>", NOT_TAKEN),
    (b"<\"user\"@elsewhere.example>", DENIED),
    (b"<@elsewhere.example>", NOT_TAKEN),
    (b"<user@@elsewhere.example>", NOT_TAKEN),
    (b"<\"user@elsewhere.example@here.example\"@here.example>", DENIED),
    # the hack with the per cent sign
    (b"<user%elsewhere.example@here.example>", DENIED),
    (b"<user%elsewhere.example>", DENIED),
    (b"<user%elsewhere.example@mx.here.example>", DENIED),
    (b"<user%elsewhere.example@localhost>", DENIED),
    (b"<user%elsewhere.example@[127.0.0.1]>", DENIED),
    (b"<user%elsewhere.example%here.example@here.example>", DENIED),
    (b"<\"user%elsewhere.example\"@here.example>", DENIED),
    (b"<\"user%elsewhere.example\">", DENIED),
    (b"<user%elsewhere.example@here.example.>", DENIED),
    (b"<user%elsewhere.example%@here.example>", NOT_TAKEN),
    # bang paths
    (b"<elsewhere.example!user>", DENIED),
    (b"<elsewhere.example!user@here.example>", DENIED),
    (b"<\"elsewhere.example!user\"@here.example>", DENIED),
    (b"<here.example!elsewhere.example!user>", DENIED),
    (b"<here.example!user%elsewhere.example>", DENIED),
    (b"<here.example!user@elsewhere.example>", DENIED),
    (b"<elsewhere.example!user%here.example@here.example>", DENIED),
    # source routes
    (b"<@here.example:user@elsewhere.example>", DENIED),
    (b"<@here.example,@localhost:user@elsewhere.example>", DENIED),
    (b"<@elsewhere.example:user%elsewhere.example@here.example>", DENIED),
    (b"<\"@here.example:user@elsewhere.example\"@here.example>", DENIED),
    (b"<here.example:user@elsewhere.example>", NOT_TAKEN),
    # addresses in brackets
    (b"<user@[192.0.2.55]>", DENIED),
    (b"<user@192.0.2.55>", NOT_TAKEN),
    (b"<user@[IPv6:2001:db8::1]>", DENIED),
    (b"<user@[127.0.0.1].elsewhere.example>", NOT_TAKEN),
    (b"<user@[127.0.0.1]elsewhere.example>", NOT_TAKEN),
    (b"<\"user@[192.0.2.55]\"@[127.0.0.1]>", DENIED),
    # through domains that we relay for or rewrite
    (b"<user%elsewhere.example@partner.example>", DENIED),
    (b"<\"user@elsewhere.example\"@partner.example>", DENIED),
    (b"<user@elsewhere.example@partner.example>", DENIED),
    (b"<elsewhere.example!user@partner.example>", DENIED),
    (b"<@partner.example:user@elsewhere.example>", DENIED),
    (b"<user%elsewhere.example@alias.example>", NOT_TAKEN),
    (b"<\"user@elsewhere.example\"@alias.example>", NOT_TAKEN),
    (b"<user%elsewhere.example@partner.example@here.example>", DENIED),
    # blanks, comments, groups, several mailboxes
    (b"<user@elsewhere.example (@here.example)>", DENIED),
    (b"<user@elsewhere.example(c)@here.example>", DENIED),
    (b"<user @ elsewhere.example>", NOT_TAKEN),
    (b"<user@elsewhere.example,user@here.example>", NOT_TAKEN),
    (b"<user@here.example,user@elsewhere.example>", NOT_TAKEN),
    (b"<group:user@elsewhere.example;>", NOT_TAKEN),
    (b"<user@here.example><user@elsewhere.example>", NOT_TAKEN),
    (b"<<user@elsewhere.example>>", DENIED),
    (b"user@here.example <user@elsewhere.example>", NOT_TAKEN),
    # bytes that end strings elsewhere, and bytes above 127
    (b"<user@elsewhere.example\x00@here.example>", NOT_TAKEN),
    (b"<user@here.example\x00.elsewhere.example>", NOT_TAKEN),
    (b"<user%elsewhere.example\x00@here.example>", NOT_TAKEN),
    (b"<user@elsewhere.example\r@here.example>", NOT_TAKEN),
    (b"<user@elsewhere.example\n@here.example>", NOT_TAKEN),
    (b"<user@elsewh\xc3\xa9re.example>", NOT_TAKEN),
    (b"<user@here\xff.example>", NOT_TAKEN),
    (b"<user\xa0%elsewhere.example@here.example>", NOT_TAKEN),
    (b"<user@h\xef\xbd\x85re.example>", NOT_TAKEN),
]

# the same with the rules for routes switched off: then these are strange names of users of this host
NAMES_HERE = [
    b"<user%elsewhere.example@here.example>",
    b"<elsewhere.example!user@here.example>",
    b"<\"user@elsewhere.example\"@here.example>",
]

# what must still come in, or the table above would prove nothing
HERE = [b"<user@here.example>", b"<user@localhost>", b"<user>", b"<user@[127.0.0.1]>", b"<user@here.example.>",
        b"<user@partner.example>", b"<user@alias.example>", b"<user%here.example@here.example>",
        b"<here.example!user>", b"<@elsewhere.example:user@here.example>", b"<postmaster>"]


@pytest.fixture(scope="module")
def world():
    with Instance(name="forms", main_cf=WORLD) as instance:
        yield instance


def talk(instance, form):
    """The reply to RCPT; when it is taken, the message is sent."""
    client = Client(instance.port)
    try:
        assert client.reply()[0].startswith("220 ")
        client.ask("EHLO client.example")
        assert client.ask("MAIL FROM:<a@there.example>")[0].startswith("250 ")
        client.send(b"RCPT TO:" + form + b"\r\n")
        reply = client.reply()[-1]
        if reply.startswith("2"):
            assert client.ask("DATA")[0].startswith("354 ")
            queued = client.ask("Subject: x\r\n\r\nx\r\n.")[0]
            assert queued.startswith("250 2.0.0 Ok: queued as ")
            queue_id = queued.split()[-1]
            wait_for(lambda: f"{queue_id}: removed" in instance.log(), what=f"the end of {queue_id}")
        return reply
    finally:
        client.close()


@pytest.mark.parametrize(("form", "wanted"), FORMS, ids=[repr(form)[2:-1] for form, _ in FORMS])
def test_elsewhere(world, form, wanted):
    before = world.log().count("LEAKED")
    reply = talk(world, form)
    assert world.log().count("LEAKED") == before
    assert wanted.match(reply), reply


@pytest.mark.parametrize("form", HERE, ids=[repr(form)[2:-1] for form in HERE])
def test_here(world, form):
    before = world.log().count("status=sent (HERE)")
    assert talk(world, form).startswith("250 ")
    assert world.log().count("status=sent (HERE)") == before + 1


def test_names_with_routes_switched_off():
    off = WORLD + "allow_percent_hack = no\nswap_bangpath = no\nresolve_dequoted_address = no\n"
    with Instance(name="names", main_cf=off) as instance:
        for form in NAMES_HERE:
            assert talk(instance, form).startswith(("250 ", "4", "5")), form
        assert "LEAKED" not in instance.log()
        for form in (b"<user%elsewhere.example>", b"<user@elsewhere.example>", b"<@here.example:user@elsewhere.example>"):
            talk(instance, form)
        assert "LEAKED" not in instance.log()
