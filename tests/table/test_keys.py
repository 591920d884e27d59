"""Which keys a table is asked for, and in which order, for each use of tables: beside Debian's Postfix.

Both ask the same table server (socketmap:), which has no entry, so each question is asked; it keeps the keys in their order.
"""
import pathlib
import re
import smtplib
import socketserver
import sys
import threading

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


class KeyServer:
    """A socketmap server without entries: netstrings `name key`, answered NOTFOUND; .keys has what was asked."""

    def __init__(self):
        self.keys = []
        keys = self.keys

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while digits := self.until_colon():
                    request = self.rfile.read(int(digits))
                    self.rfile.read(1)
                    keys.append(tuple(request.decode().split(" ", 1)))
                    self.wfile.write(b"9:NOTFOUND ,")

            def until_colon(self):
                digits = b""
                while (byte := self.rfile.read(1)) and byte != b":":
                    digits += byte
                return digits

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def table(self, name):
        return f"socketmap:inet:127.0.0.1:{self.server.server_address[1]}:{name}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def key_orders(start_peer):
    """{(address, parameter): keys in the order first asked}"""
    orders = {}
    with KeyServer() as server:
        tables = "".join(f"{p} = {server.table(p)}\n" for p in ASKED)
        with start_peer(SETTINGS + tables) as peer:
            wait_for(lambda: listens(peer.port), seconds=90, what="smtpd")
            with smtplib.SMTP("127.0.0.1", peer.port, timeout=60) as smtp:
                smtp.helo("client.example")
                for sender, recipient in [("", r) for r in RECIPIENTS] + [(s, OTHER) for s in SENDERS]:
                    asked, logged = len(server.keys), len(peer.log())
                    if talk(smtp, sender, recipient):
                        wait_for(lambda s=logged: re.search(r"postfix/qmgr\[\d+\]: \w+: removed", peer.log()[s:]), seconds=90,
                                 what="delivery")
                    sort_keys(server.keys[asked:], sender, recipient, orders)
    return orders


def sort_keys(asked, sender, recipient, orders):
    for parameter, key in asked:
        if "fixed" in key or "MAILER-DAEMON" in key or key in ("*", '""', '"<>"', "<>"):
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


def of_theirs():
    """On a busy machine Debian's stands still for a minute, now and then: then another instance is asked."""
    for _ in range(4):
        try:
            return key_orders(lambda main_cf: Oracle(main_cf=main_cf))
        except smtplib.SMTPServerDisconnected as e:
            last = e
    raise last


@pytest.fixture(scope="module")
def asked():
    reason = Oracle.why_not()
    if reason:
        pytest.skip(reason)
    theirs = of_theirs()
    mine = key_orders(lambda main_cf: Instance(main_cf=main_cf))
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
