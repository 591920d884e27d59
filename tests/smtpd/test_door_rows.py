"""A table of smtpd's parameters for servers beside it, milters and policy servers, and for TLS: each with a value, and what is
seen of it that is not seen without. One server; a service for each value."""
import re
import socket
import ssl
import threading
import time

import pytest

from instance import Instance, free_port, wait_for
from milter.scripted_milter import ScriptedMilter
from restrictions.policy_servers import PolicyServer
from smtpd.dialogue import Client
from tls.tls_ca import TestCA, TlsClient, client_context

MAIN = """\
mydestination = localhost
local_recipient_maps = inline:{ { user = x } }
local_transport = discard
default_transport = discard
defer_transports = discard
virtual_alias_maps =
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
mynetworks = 127.0.0.2/32
transport_maps = inline:{ { gone.example = gone:nobody } }
"""
RECIPIENT = ("EHLO x", "MAIL FROM:<a@there.example>", "RCPT TO:<user@localhost>")
MESSAGE = (*RECIPIENT, "DATA", "Subject: x\r\n\r\nx\r\n.")
# parameter, the events behind whose macros it decides
MACROS = [("milter_connect_macros", "connect"), ("milter_helo_macros", "helo"), ("milter_mail_macros", "mail"),
          ("milter_rcpt_macros", "rcpt"), ("milter_data_macros", "data"), ("milter_unknown_command_macros", "unknown"),
          ("milter_end_of_header_macros", "eoh"), ("milter_end_of_data_macros", "eom")]
# parameter: which filter does not answer, and what the client says when it does not
MILTER_TIMES = {"milter_connect_timeout": ("silent", ("EHLO x", "MAIL FROM:<a@there.example>")),
                "milter_command_timeout": ("mute", ("EHLO x", "MAIL FROM:<late@there.example>")),
                "milter_content_timeout": ("mute", MESSAGE)}


class SilentServer:
    """Takes connections and says nothing."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.clients = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                self.clients.append(self.socket.accept()[0])
            except OSError:
                return

    def close(self):
        self.socket.close()
        for client in self.clients:
            client.close()


class World:
    def __init__(self, folder):
        self.ports, self.lines = {}, []
        self.milter, self.silent = ScriptedMilter(), SilentServer()
        self.mute = ScriptedMilter({"mail:late@": None, "eom": None})
        self.policy_port = free_port()
        self.refusing = free_port()  # nobody is there
        self.policy = PolicyServer(("127.0.0.1", self.policy_port))
        self.closing_port = free_port()
        self.closing = PolicyServer(("127.0.0.1", self.closing_port), decide=lambda asked: None)
        ca = TestCA(folder / "tls")
        _, _, self.rsa = ca.make("rsa.example")
        self.ec_key, self.ec_cert, _ = ca.make("ec.example", key="ec:prime256v1")
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)

    def service(self, service_name, **settings):
        self.ports[service_name] = free_port()
        options = "".join(f" -o {{ {name} = {value} }}" for name, value in settings.items())
        self.lines.append(f"127.0.0.1:{self.ports[service_name]} inet n - n - - smtpd{options}\n")

    def define(self):
        self.service("macros", smtpd_milters=self.milter.name,
                     **{name: f"{{{name}}} j" for name, _ in MACROS},
                     milter_macro_defaults=" ".join(f"{name}=value-of-{name}" for name, _ in MACROS))
        for parameter, (milter, _) in MILTER_TIMES.items():
            server = {"silent": f"inet:127.0.0.1:{self.silent.port}", "mute": self.mute.name}[milter]
            times = {name: "1s" if name == parameter else "1000s" for name in MILTER_TIMES}
            self.service(parameter, smtpd_milters=server, milter_default_action="tempfail", **times)
        check = f"check_policy_service inet:127.0.0.1:{self.policy_port}, permit"
        down = f"check_policy_service inet:127.0.0.1:{self.refusing}, permit"
        hangs = f"check_policy_service inet:127.0.0.1:{self.silent.port}, permit"
        ends = f"check_policy_service inet:127.0.0.1:{self.closing_port}, permit"
        often = {"smtpd_policy_service_retry_delay": "1s"}
        self.service("default_action", smtpd_recipient_restrictions=down, smtpd_policy_service_try_limit="1",
                     smtpd_policy_service_default_action="452 4.7.9 as told")
        self.service("timeout", smtpd_recipient_restrictions=hangs, smtpd_policy_service_try_limit="1",
                     smtpd_policy_service_timeout="1s")
        for limit in ("1", "3"):
            self.service(f"try {limit}", smtpd_recipient_restrictions=ends, smtpd_policy_service_try_limit=limit, **often)
        self.service("context", smtpd_recipient_restrictions=check,
                     smtpd_policy_service_policy_context="as the administrator says")
        self.service("no context", smtpd_recipient_restrictions=check)
        for limit in ("1", "0"):
            self.service(f"requests {limit}", smtpd_recipient_restrictions=check, smtpd_policy_service_request_limit=limit)
        self.service("idle", smtpd_recipient_restrictions=check, smtpd_policy_service_max_idle="1s")
        self.service("old", smtpd_recipient_restrictions=check, smtpd_policy_service_max_ttl="1s")
        for bits in ("64", "128"):
            self.service(f"prefix {bits}", smtpd_client_ipv6_prefix_length=bits, smtpd_client_connection_count_limit="1",
                         smtpd_client_event_limit_exceptions="", smtpd_upstream_proxy_protocol="haproxy")
        for bits in ("24", "32"):
            self.service(f"prefix {bits}", smtpd_client_ipv4_prefix_length=bits, smtpd_client_connection_count_limit="1",
                         smtpd_client_event_limit_exceptions="")
        self.service("double", double_bounce_sender="twice", notify_classes="protocol", error_notice_recipient="user@localhost")
        tls = {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": self.rsa}
        cipher = "ECDHE-RSA-AES256-GCM-SHA384"
        self.service("tls", **tls)
        self.service("requiretls", requiretls_esmtp_header="no", **tls)
        self.lines += ["cleanup-deaf unix n - n - 0 cleanup -o requiretls_esmtp_header=no\n", "gone unix - - n - - error\n"]
        self.service("deaf", cleanup_service_name="cleanup-deaf")
        self.service("exclude", smtpd_tls_exclude_ciphers=cipher, **tls)
        self.service("mandatory", **{**tls, "smtpd_tls_security_level": "encrypt"},
                     smtpd_tls_mandatory_protocols=">=TLSv1.3")
        self.service("loglevel", smtpd_tls_loglevel="0", smtpd_tls_loglevel_maps="inline:{ { 127.0.0.9 = 1 } }", **tls)
        self.service("ec", smtpd_tls_security_level="may", smtpd_tls_cert_file=self.rsa, smtpd_tls_dcert_file=self.ec_cert,
                     smtpd_tls_dkey_file=self.ec_key)

    def close(self):
        self.policy.close()
        self.closing.close()
        self.silent.close()
        self.milter.stop()
        self.mute.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("rows"))
    made.define()
    server = Instance(main_cf=MAIN, master_extra="".join(made.lines), name="rows")
    made.server = server
    try:
        server.start()
        yield made
    finally:
        print(server.log())
        server.stop()
        made.close()


def say(port, *commands, source="127.0.0.1"):
    """The last lines of the replies, from the greeting on."""
    client = Client(port, source)
    replies = client.reply()[-1:]
    for command in commands:
        replies += client.ask(command)[-1:]
    client.ask("QUIT")
    client.close()
    return replies


@pytest.fixture(scope="module")
def macro_lines(world):
    say(world.ports["macros"], "FOO", *MESSAGE)
    wait_for(lambda: "quit" in world.milter.names(), what="the milter's end")
    return [line for line in world.milter.events if line.startswith("macro-")]


@pytest.mark.parametrize("name, event", MACROS)
def test_milter_macros(macro_lines, name, event):
    line = next(line for line in macro_lines if line.startswith(f"macro-{event} "))
    assert f"{{{name}}}=value-of-{name}" in line
    assert not [other for other, _ in MACROS if other != name and other in line]


@pytest.mark.parametrize("parameter", MILTER_TIMES)
def test_milter_times(world, parameter):
    """Each alone is short: with one of the others the client would wait here in vain."""
    milter, script = MILTER_TIMES[parameter]
    replies = say(world.ports[parameter], *script)
    assert [reply[:3] for reply in replies[:-1] if reply[0] == "4"] == []
    assert replies[-1].startswith("451 4.7.1 ")
    port = world.silent.port if milter == "silent" else world.mute.port
    world.server.wait_log(f"milter inet:127.0.0.1:{port}: ")


def test_smtpd_policy_service_default_action(world):
    assert say(world.ports["default_action"], *RECIPIENT)[-1].startswith("452 4.7.9 ")


def test_smtpd_policy_service_timeout(world):
    assert say(world.ports["timeout"], *RECIPIENT)[-1].startswith("451 4.3.5 ")


def test_smtpd_policy_service_try_limit(world):
    """smtpd_policy_service_retry_delay is between the tries, or three would take a second longer each."""
    for limit in (1, 3):
        before = world.closing.connections
        assert say(world.ports[f"try {limit}"], *RECIPIENT)[-1].startswith("451 4.3.5 ")
        assert world.closing.connections - before == limit


@pytest.mark.parametrize("service, wanted", [("context", "as the administrator says"), ("no context", "")])
def test_smtpd_policy_service_policy_context(world, service, wanted):
    before = len(world.policy.asked)
    assert say(world.ports[service], *RECIPIENT)[-1].startswith("250")
    assert world.policy.asked[before]["policy_context"] == wanted


@pytest.mark.parametrize("limit, connections", [("1", 3), ("0", 1)])
def test_smtpd_policy_service_request_limit(world, limit, connections):
    before = len(world.policy.asked)
    for _ in range(3):
        assert say(world.ports[f"requests {limit}"], *RECIPIENT)[-1].startswith("250")
    assert len({asked["connection"] for asked in world.policy.asked[before:]}) == connections


def test_age_of_policy_connections(world):
    """smtpd_policy_service_max_idle, smtpd_policy_service_max_ttl: of a second here, and of minutes in the third service."""
    def connections():
        for service in ("idle", "old", "requests 0"):
            before = len(world.policy.asked)
            assert say(world.ports[service], *RECIPIENT)[-1].startswith("250")
            yield world.policy.asked[before]["connection"]

    first = list(connections())
    time.sleep(2.5)
    assert [now != then for now, then in zip(connections(), first)] == [True, True, False]


@pytest.mark.parametrize("bits, code", [("64", "421"), ("128", "220")])
def test_smtpd_client_ipv6_prefix_length(world, bits, code):
    """Of addresses that a proxy tells: a machine may have one of its own only."""
    clients = []
    for number, wanted in (1, "220"), (2, code):
        client = Client(world.ports[f"prefix {bits}"])
        clients.append(client)
        client.send(f"PROXY TCP6 2001:db8:0:7::{number} 2001:db8::25 40000 25\r\n".encode())
        assert client.reply()[-1].startswith(wanted)
    for client in clients:
        client.close()


@pytest.mark.parametrize("bits, code", [("24", "421"), ("32", "220")])
def test_smtpd_client_ipv4_prefix_length(world, bits, code):
    first = Client(world.ports[f"prefix {bits}"], "127.0.7.1")
    assert first.reply()[-1].startswith("220")
    second = Client(world.ports[f"prefix {bits}"], "127.0.7.2")
    assert second.reply()[-1].startswith(code)
    first.close()
    second.close()


def test_double_bounce_sender(world):
    say(world.ports["double"], "FOO")
    world.server.wait_log("from=<twice@rows.example>")


def handshake(port, **context):
    client = TlsClient(port, context=client_context(**context))
    try:
        client.hello()
        return client.socket.cipher()
    except (ssl.SSLError, ConnectionError):
        return None
    finally:
        client.close()


def stored(world, queue_id):
    """Between two queues it may be in none for postcat(1)."""
    return wait_for(lambda: world.server.command("postcat", "-bh", "-q", queue_id, capture_output=True).stdout)


@pytest.mark.parametrize("service, headers", [("tls", 1), ("requiretls", 0)])
def test_requiretls_esmtp_header(world, service, headers):
    """What was asked for with REQUIRETLS stands in the message, too, for a content filter to pass on."""
    with TlsClient(world.ports[service]) as client:
        assert any("REQUIRETLS" in line for line in client.hello())
        client.command("MAIL FROM:<a@there.example> REQUIRETLS")
        client.command("RCPT TO:<user@localhost>")
        client.command("DATA")
        queue_id = client.command("Subject: x\r\n\r\nx\r\n.")[-1].split()[-1]
    message = stored(world, queue_id)
    assert "Subject: x\n" in message
    assert len(re.findall(r"^Require-TLS-ESMTP: yes$", message, re.M)) == headers


@pytest.mark.parametrize("service, body", [("context", False), ("deaf", True)])
def test_requiretls_esmtp_header_that_came(world, service, body):
    """cleanup(8) takes the header for what it says: nothing of such mail is in the notice that it failed."""
    replies = say(world.ports[service], "EHLO x", "MAIL FROM:<a@there.example>", "RCPT TO:<x@gone.example>", "DATA",
                  "Subject: x\r\nRequire-TLS-ESMTP: yes\r\n\r\nprivate words\r\n.", source="127.0.0.2")
    line = world.server.wait_log(f"{replies[-1].split()[-1]}: sender non-delivery notification: ")
    message = stored(world, line.split()[-1])
    assert "Action: failed" in message
    assert ("private words" in message) == body


def test_smtpd_tls_exclude_ciphers(world):
    only = {"highest": ssl.TLSVersion.TLSv1_2, "ciphers": "ECDHE-RSA-AES256-GCM-SHA384"}
    assert handshake(world.ports["tls"], **only)
    assert not handshake(world.ports["exclude"], **only)
    assert handshake(world.ports["exclude"], highest=ssl.TLSVersion.TLSv1_2)


def test_smtpd_tls_mandatory_protocols(world):
    assert not handshake(world.ports["mandatory"], highest=ssl.TLSVersion.TLSv1_2)
    assert handshake(world.ports["tls"], highest=ssl.TLSVersion.TLSv1_2)
    assert handshake(world.ports["mandatory"])


def test_smtpd_tls_dkey_file(world):
    only = {"highest": ssl.TLSVersion.TLSv1_2, "ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"}
    assert handshake(world.ports["ec"], **only)
    assert not handshake(world.ports["tls"], **only)


def starttls_from(port, source):
    client = Client(port, source)
    client.reply()
    client.ask("EHLO x")
    assert client.ask("STARTTLS")[-1].startswith("220")
    client.socket = client_context().wrap_socket(client.socket)
    client.ask("QUIT")
    client.close()


def test_smtpd_tls_loglevel_maps(world):
    for source in ("127.0.0.8", "127.0.0.9"):
        starttls_from(world.ports["loglevel"], source)
        world.server.wait_log(f"disconnect from unknown[{source}]")
    lines = [line for line in world.server.log().splitlines() if "TLS connection established" in line]
    assert [line for line in lines if "127.0.0.9" in line] and not [line for line in lines if "127.0.0.8" in line]
