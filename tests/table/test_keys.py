"""Which keys a table is asked for, and in which order, for each use of tables: beside Debian's Postfix.

Debian's programs name each key with -v; ours with a table of type debug:. No table has an entry, so each question is asked.
"""
import pathlib
import re
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from instance import Instance, wait_for  # noqa: E402
from oracle import Oracle  # noqa: E402

ASKED = ["canonical_maps", "sender_canonical_maps", "recipient_canonical_maps", "virtual_alias_maps", "transport_maps",
         "relocated_maps", "sender_bcc_maps", "recipient_bcc_maps", "local_recipient_maps", "relay_recipient_maps",
         "virtual_mailbox_maps", "sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps"]
SENDERS_ASKED = ["canonical_maps", "sender_canonical_maps", "sender_bcc_maps", "sender_dependent_relayhost_maps",
                 "sender_dependent_default_transport_maps"]
OTHER = "fixed@fixed.invalid"  # the address at the other end, accepted by every table
SETTINGS = """\
myhostname = host.mine.example
mydomain = mine.example
myorigin = origin.mine.example
mydestination = local.example
relay_domains = relay.example
virtual_alias_domains = alias.example
virtual_mailbox_domains = mailbox.example
recipient_delimiter = +-
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_relay_restrictions =
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
smtpd_junk_command_limit = 1000
default_transport = discard
relay_transport = discard
local_transport = discard
virtual_transport = discard
in_flow_delay = 0
"""
RECIPIENTS = ["joe+foo@a.b.remote.test", "joe-a+foo@c.remote.test", "joe@local.example", "Jim+Ext@Local.Example",
              "jack+ext@origin.mine.example", "joe+x@relay.example", "ann+x@mailbox.example", "ann-y@alias.example",
              "joe@[127.0.0.1]", "kim+x@[192.0.2.1]", '"a b+c"@quoted.test', "+x@plus.test", "x+@minus.test", "owner-list@o.test",
              "list-request@o.test", "j\\@k@at.test", "postmaster@pm.test", "mailer-daemon@local.example", "a+b+c@two.test"]
SENDERS = ["sue+foo@a.b.from.test", "sue@local.example", "sam-x@origin.mine.example", "sam@[192.0.2.7]",
           '"s q+r"@quoted.test', ""]


def talk(smtp, sender, recipient):
    assert smtp.docmd("MAIL", f"FROM:<{sender}>")[0] == 250
    if smtp.docmd("RCPT", f"TO:<{recipient}>")[0] != 250:
        smtp.rset()
        return False
    assert smtp.docmd("DATA")[0] == 354
    smtp.send(b"From: fixed@fixed.invalid\r\n\r\n.\r\n")
    assert smtp.getreply()[0] == 250
    return True


def key_orders(peer, port, pattern):
    """{(address, parameter): keys in the order first asked}"""
    import smtplib
    orders = {}
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as smtp:
        smtp.helo("client.example")
        for n, (sender, recipient) in enumerate([("", r) for r in RECIPIENTS] + [(s, OTHER) for s in SENDERS]):
            start = len(peer.log())
            if talk(smtp, sender, recipient):
                wait_for(lambda s=start: re.search(r"postfix/qmgr\[\d+\]: \w+: removed", peer.log()[s:]), seconds=90, what="delivery")
            for parameter, key in re.findall(pattern, peer.log()[start:]):
                if parameter not in ASKED or "fixed" in key or "MAILER-DAEMON" in key or key in ("*", '""', '"<>"', "<>"):
                    continue
                if key.endswith("host.mine.example"):
                    continue  # of the header fields that each adds in its own way
                if key[0] == "." and key[-1] == "]":
                    continue  # Debian's cuts address literals at their dots
                if recipient == OTHER and parameter not in SENDERS_ASKED:
                    continue  # Debian's resolves senders too
                keys = orders.setdefault((sender if recipient == OTHER else recipient, parameter), [])
                if key.lower() not in keys:  # the tables fold them anyhow
                    keys.append(key.lower())
    return orders


class VerboseOracle(Oracle):
    def write(self):
        super().write()
        master_cf = self.directory / "etc/master.cf"
        master_cf.write_text(re.sub(r"(?m)^(.* (?:smtpd|cleanup|trivial-rewrite))$", r"\1 -v", master_cf.read_text()))


@pytest.fixture(scope="module")
def asked():
    reason = Oracle.why_not()
    if reason:
        pytest.skip(reason)
    tables = "".join(f"{p} = inline:{{zz=zz}}\n" for p in ASKED)
    with VerboseOracle(main_cf=SETTINGS + tables) as oracle:
        wait_for(lambda: listens(oracle.port), seconds=90, what="Debian's smtpd")
        theirs = key_orders(oracle, oracle.port, r"maps_find: (\w+): (.*): not found")
    tables = "".join(f"{p} = debug:inline:{{{p}=zz}}\n" for p in ASKED)
    with Instance(main_cf=SETTINGS + tables) as ours:
        mine = key_orders(ours, ours.port, r'inline:\{(\w+)=zz\} lookup: "(.*)" = "not_found"')
    return mine, theirs


def listens(port):
    import socket
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("parameter", ASKED)
def test_keys_are_asked_as_debians_are(asked, parameter):
    mine, theirs = ({who: keys for (who, p), keys in side.items() if p == parameter} for side in asked)
    assert theirs, "Debian's asked nothing: the test is blind"
    assert mine == theirs
