"""Parameters of what comes in at the door, each seen at work and without: over one server, one service a value. What is
expected is what Debian's postfix does, where that is not asked beside it."""
import os
import pwd
import re
import socket
import struct

import pytest

from instance import Instance, free_port, wait_for
from milter.scripted_milter import ScriptedMilter
from restrictions.zone_server import ZoneServer
from smtpd.dialogue import Client
from tls.tls_ca import TestCA, TlsClient

MAIN = """\
mydestination = localhost
local_recipient_maps = inline:{ { user = x } }
local_transport = discard
default_transport = discard
relay_transport = discard
defer_transports = discard
smtpd_peername_lookup = no
mynetworks = 127.0.0.2/32
local_header_rewrite_clients = static:all
myorigin = here.example
recipient_delimiter = +
info_log_address_format = internal
tcp_windowsize = 8192
"""
ZONE = "strasse.example A 192.0.2.1\n"
SENDERS = ["root", "a@there.example", "a+b@there.example", "", "other@There.Example", "A@There.Example"]
# what root's entry says, the senders it is for (those of Debian's postfix 3.7)
LOGIN_SENDERS = [
    ("a@there.example", ["a@there.example", "a+b@there.example", "A@There.Example"]),
    ("<>", [""]),
    ("@there.example", ["a@there.example", "a+b@there.example", "other@There.Example", "A@There.Example"]),
    ("root", ["root"]),
    ("root, <>", ["root", ""]),
    ("*", SENDERS),
]


def service(server, name, **options):
    server.ports[name] = server.next_port()
    words = "".join(f" -o {{ {key} = {value} }}" for key, value in options.items())
    return f"127.0.0.1:{server.ports[name]} inet n - n - - smtpd{words}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    zone = ZoneServer(ZONE)
    folder = tmp_path_factory.mktemp("tls")
    ca = TestCA(folder)
    key, cert, _ = ca.make("mx.here.example")
    chain = folder / "chain.pem"
    chain.write_text(key.read_text() + cert.read_text())
    for path in (folder, chain):
        path.chmod(0o755)
    made = Instance(main_cf=MAIN, name="door", dns=zone.address)
    made.ports, made.next_port = {"plain": made.port}, free_port
    made.milter = ScriptedMilter()
    made.extra += f"tls_server_sni_maps = inline:{{ {{ sni.example = {chain} }} }}\n"
    made.write_config()
    with open(made.etc / "master.cf", "a") as master_cf:
        master_cf.write(service(made, "external", info_log_address_format="external"))
        master_cf.write(service(made, "both", info_log_address_format="both"))
        for value in ("yes", "no"):
            master_cf.write(service(made, f"idna {value}", enable_idna2003_compatibility=value,
                                    smtpd_sender_restrictions="reject_unknown_sender_domain", smtpd_delay_reject="no"))
        master_cf.write("cleanup-six unix n - n - 0 cleanup -o header_address_token_limit=6\n")
        master_cf.write(service(made, "six", cleanup_service_name="cleanup-six"))
        master_cf.write(service(made, "milter", smtpd_milters=made.milter.name, smtpd_tls_security_level="may",
                                smtpd_tls_chain_files=chain, milter_helo_macros="{tls_version} {tls_sni}"))
    with made.milter:
        try:
            yield made.start()
        finally:
            print(made.log())
            made.stop()
            zone.close()


def say(port, *commands):
    client = Client(port)
    client.reply()
    replies = [client.ask(command)[-1] for command in commands]
    client.ask("QUIT")
    client.close()
    return replies


@pytest.mark.parametrize("name, form", [("plain", "a b@there.example"), ("external", '"a b"@there.example')])
def test_info_log_address_format(server, name, form):
    replies = say(server.ports[name], "EHLO x", 'MAIL FROM:<"a b"@there.example>', f'RCPT TO:<"{name} x"@localhost>')
    assert replies[-1].startswith("550 5.1.1")
    line = server.wait_log(f'from=<{form}>')
    assert (f"to=<{name} x@localhost>" in line) == (name == "plain")


def test_info_log_address_format_behind_the_queue(server):
    replies = say(server.port, "EHLO x", 'MAIL FROM:<"q r"@there.example>', "RCPT TO:<user@localhost>", "DATA",
                  "Subject: x\r\n\r\nx\r\n.")
    assert replies[-1].startswith("250")
    assert "queue active" in server.wait_log("from=<q r@there.example>")
    assert 'from=<"q r"@there.example>' not in server.log()


def test_info_log_address_format_bad(server):
    with socket.create_connection(("127.0.0.1", server.ports["both"])):
        server.wait_log("fatal: bad parameter value: 'info_log_address_format = both': specify external or internal")


def peers_window_scale(port):
    client = Client(port)
    client.reply()
    info = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    client.close()
    return struct.unpack_from("B", info, 6)[0] & 15


def test_tcp_windowsize(server):
    """So small a buffer needs no window scaling: the server says so when it accepts."""
    assert peers_window_scale(server.port) == 0
    with Instance(main_cf="tcp_windowsize = 0\n", name="window") as other:
        assert peers_window_scale(other.port) > 0


@pytest.mark.parametrize("value, code", [("yes", "250"), ("no", "450")])
def test_enable_idna2003_compatibility(server, value, code):
    replies = say(server.ports[f"idna {value}"], "EHLO x", "MAIL FROM:<a@straße.example> SMTPUTF8")
    assert replies[-1].startswith(code)


FIELDS = "Reply-To: q, w,\r\n e, r, t@u.example, y\r\nCc: a@b.example, c\r\nTo: Foo Bar <x@there.example>\r\n"


def stored(server, port):
    replies = say(port, "EHLO x", "MAIL FROM:<a@there.example>", "RCPT TO:<user@localhost>", "DATA", FIELDS + "\r\nx\r\n.")
    queue_id = re.search(r"queued as (\w+)", replies[-1]).group(1)

    def text():
        done = server.command("postcat", "-qh", queue_id, capture_output=True)
        return done.returncode == 0 and done.stdout
    return wait_for(text, what="the message")


def test_header_address_token_limit(server):
    text = stored(server, server.ports["six"])
    assert "\nReply-To: q@here.example, w@here.example,\n e@here.example\nCc: " in text
    assert "\nTo: Foo Bar <x@there.example>\n" in text
    assert "\n e@here.example, r@here.example, t@u.example, y@here.example\n" in stored(server, server.port)


def test_tls_sni_macro(server):
    """{tls_sni} of a client's name, when there is a certificate for it (smtpd, from 3.12 on)."""
    for name, wanted in (("sni.example", "{tls_sni}=sni.example"), ("other.example", None)):
        before = len(server.milter.events)
        with TlsClient(server.ports["milter"], name=name) as client:
            client.hello()
            client.command("QUIT")
        wait_for(lambda: "quit" in [e.split(" ")[0] for e in server.milter.events[before:]], what="the milter's end")
        macros = " ".join(e for e in server.milter.events[before:] if e.startswith("macro-"))
        assert "{tls_version}=TLS" in macros
        assert (wanted in macros) if wanted else ("tls_sni" not in macros)


def senders_allowed(server, table, more=""):
    basic = server.extra
    server.extra = f"{basic}local_login_sender_maps = {table}\n{more}"
    server.write_config_of_main()
    try:
        done = {s: server.sendmail("-f", s, "user@localhost") for s in SENDERS}
    finally:
        server.extra = basic
        server.write_config_of_main()
    for sender, result in done.items():
        if result.returncode:
            assert f"not authorized to use sender='{sender}'" in result.stderr
    return [s for s in SENDERS if done[s].returncode == 0]


@pytest.fixture(scope="module")
def submitter():
    """postdrop works without a running system."""
    made = Instance(main_cf=MAIN, name="submitter")

    def write():
        text = (made.etc / "main.cf").read_text().partition("\n# tested\n")[0]
        (made.etc / "main.cf").write_text(text + "\n# tested\n" + made.extra.removeprefix(MAIN))
    made.write_config_of_main = write
    (made.queue / "maildrop").mkdir()
    yield made
    made.stop()


@pytest.mark.parametrize("entry, allowed", LOGIN_SENDERS, ids=[e for e, _ in LOGIN_SENDERS])
def test_local_login_sender_maps(submitter, entry, allowed):
    user = pwd.getpwuid(os.getuid()).pw_name
    assert senders_allowed(submitter, f"inline:{{ {{ {user} = {entry} }} }}") == allowed


def test_local_login_sender_maps_nobody(submitter):
    assert senders_allowed(submitter, "inline:{ { nobody-else = * } }") == []
    assert senders_allowed(submitter, "static:*") == SENDERS


def test_empty_address_local_login_sender_maps_lookup_key(submitter):
    key = "empty_address_local_login_sender_maps_lookup_key = null-sender\n"
    assert senders_allowed(submitter, "static:null-sender", key) == [""]
    assert senders_allowed(submitter, "static:null-sender") == []


def test_local_login_sender_maps_fails(submitter):
    submitter.extra += "local_login_sender_maps = fail:1\n"
    submitter.write_config_of_main()
    done = submitter.sendmail("-f", "root", "user@localhost")
    assert done.returncode == 75
