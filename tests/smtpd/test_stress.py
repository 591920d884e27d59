"""stress = yes (STRESS_README): new sessions run with it while a public service has as many as it may have, the same here and
with Debian's postfix. Parameters with ${stress?...} by default, and one of the test's own."""
import contextlib
import socket
import threading

import pytest

from instance import Instance, free_port, wait_for
from oracle import Oracle

MAIN = """\
myhostname = mx.here.example
smtpd_etrn_restrictions = ${stress?{reject}:{permit}}
fast_flush_domains = here.example
smtpd_forbid_unauth_pipelining = no
"""
LIMIT = 2
# all addresses: "public"; behind loopback there is no stress. -o settles it.
SERVICES = {
    "public": ("0.0.0.0", ""),
    "loopback": ("127.0.0.1", ""),
    "never": ("0.0.0.0", "  -o stress=\n"),
    "always": ("127.0.0.1", "  -o stress=yes\n"),
}


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.file = self.socket.makefile("rwb")

    def reply(self):
        while line := self.file.readline():
            if line[3:4] != b"-":
                break
        return line.decode().rstrip()

    def say(self, line):
        with contextlib.suppress(OSError):
            self.file.write(line.encode() + b"\r\n")
            self.file.flush()
            return self.reply()
        return ""

    def close(self):
        with contextlib.suppress(OSError):
            self.file.close()
        self.socket.close()


def run(kind):
    ports = {name: free_port() for name in SERVICES}
    lines = "".join(f"{host}:{ports[name]} inet n - n - {LIMIT} smtpd\n{options}"
                    for name, (host, options) in SERVICES.items())
    if kind == "ours":
        return Instance(main_cf=MAIN, master_extra=lines, name="stress"), ports
    server = Oracle(main_cf=MAIN)
    server.write()
    with open(server.directory / "etc/master.cf", "a") as master_cf:
        master_cf.write(lines)
    server.write = lambda: None
    return server, ports


KINDS = ["ours", pytest.param("oracle", marks=pytest.mark.skipif(Oracle.why_not() is not None,
                                                                 reason=str(Oracle.why_not())))]


@pytest.mark.parametrize("kind", KINDS)
def test_stress(kind):
    server, ports = run(kind)
    with server:
        for name, port in ports.items():
            first = [Client(port) for _ in range(LIMIT)]
            for client in first:
                assert client.reply().startswith("220")
            calm = name != "always"
            # who came before has the ordinary limits (smtpd_hard_error_limit); the one that fills the last place may not
            assert first[0].say("ETRN here.example").startswith("2" if calm else "5")
            stressed = name in ("public", "always")
            if stressed and calm:
                wait_for(lambda: "has reached its process limit" in server.log())
            waiting = Client(port)
            first[1].close()
            assert waiting.reply().startswith("220")
            assert waiting.say("ETRN here.example").startswith("5" if stressed else "2")
            waiting.close()
            another = Client(port)
            assert another.reply().startswith("220")
            answer = another.say("FOO")
            assert answer.startswith("500")
            assert another.say("NOOP").startswith("421 4.7.0" if stressed else "250") or stressed and kind == "oracle"
            for client in (another, first[0]):
                client.close()


def test_times():
    """smtpd_timeout under stress: ten seconds, not three hundred."""
    server, ports = run("ours")
    with server:
        client = Client(ports["always"])
        assert client.reply().startswith("220")
        assert client.reply() == "421 4.4.2 mx.here.example Error: timeout exceeded"


def test_policy_servers_hear_of_it():
    """stress=yes in requests, and in a running session nothing changes."""
    asked = []
    listener = socket.create_server(("127.0.0.1", free_port()))
    port = free_port()

    def answer(peer):
        with peer, peer.makefile("rwb") as f:
            request = {}
            for line in f:
                if line == b"\n":
                    asked.append(request.get("stress"))
                    f.write(b"action=DUNNO\n\n")
                    f.flush()
                else:
                    name, _, value = line.decode().rstrip("\n").partition("=")
                    request[name] = value

    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()
    policy = f"smtpd_client_restrictions = check_policy_service inet:127.0.0.1:{listener.getsockname()[1]}\n"
    with Instance(main_cf=policy + "smtpd_delay_reject = no\n", name="stresspolicy",
                  master_extra=f"0.0.0.0:{port} inet n - n - 1 smtpd\n") as server:
        first = Client(port)
        assert first.reply().startswith("220")
        server.wait_log("has reached its process limit")
        second = Client(port)
        first.close()
        assert second.reply().startswith("220")
        second.close()
        assert asked == ["", "yes"]
    listener.close()
