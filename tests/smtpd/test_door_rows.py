"""A table of smtpd's parameters for servers beside it, milters and policy servers, and for TLS: each with a value, and what is
seen of it that is not seen without. One server; a service for each value."""
import socket
import ssl
import threading

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
"""
RECIPIENT = ("EHLO x", "MAIL FROM:<a@there.example>", "RCPT TO:<user@localhost>")
MESSAGE = (*RECIPIENT, "DATA", "Subject: x\r\n\r\nx\r\n.")
# parameter, the events behind whose macros it decides
MACROS = [("milter_connect_macros", "connect"), ("milter_helo_macros", "helo"), ("milter_mail_macros", "mail"),
          ("milter_rcpt_macros", "rcpt"), ("milter_data_macros", "data"), ("milter_unknown_command_macros", "unknown"),
          ("milter_end_of_header_macros", "eoh"), ("milter_end_of_data_macros", "eom")]


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
        slow = {"smtpd_milters": f"inet:127.0.0.1:{self.silent.port}", "milter_default_action": "tempfail"}
        self.service("milter_command_timeout", milter_command_timeout="1s", **slow)
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
        for bits in ("24", "32"):
            self.service(f"prefix {bits}", smtpd_client_ipv4_prefix_length=bits, smtpd_client_connection_count_limit="1",
                         smtpd_client_event_limit_exceptions="")
        self.service("double", double_bounce_sender="twice", notify_classes="protocol", error_notice_recipient="user@localhost")
        tls = {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": self.rsa}
        cipher = "ECDHE-RSA-AES256-GCM-SHA384"
        self.service("tls", **tls)
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


def test_milter_command_timeout(world):
    """Without it the default 30 seconds, for which the client would wait here in vain."""
    assert say(world.ports["milter_command_timeout"], *RECIPIENT)[2][:3] == "451"
    line = world.server.wait_log("milter inet:127.0.0.1:%d" % world.silent.port)
    assert "timed out" in line or "timeout" in line


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
