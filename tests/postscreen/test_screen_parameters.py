"""Parameters of postscreen(8) in a table: what a client hears, or what is logged, and that it is otherwise without the parameter.
All are services of one server, each with its own log name, and played side by side."""
import concurrent.futures
import os
import pathlib
import re
import signal
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tls"))

from instance import Instance, free_port, wait_for  # noqa: E402
from name_server import Names  # noqa: E402
from screens import MAIN, Client  # noqa: E402
from tls_ca import TestCA  # noqa: E402

DEEP = {"postscreen_pipelining_enable": "yes"}
COMMANDS = {"postscreen_non_smtp_command_enable": "yes", "postscreen_non_smtp_command_action": "enforce"}
EHLO, QUIT = ["EHLO c.example\r\n", 1], ["QUIT\r\n", 1]
MAIL = [*EHLO, "MAIL FROM:<a@b.example>\r\n", 1, "RCPT TO:<u@localhost>\r\n", 1, *QUIT]
AGAIN = object()  # another connection

# A pass that has ended is gained anew. All passes but the one in question last long.
LONG = {f"postscreen_{test}_ttl": "1h" for test in ("greet", "bare_newline", "non_smtp_command", "pipelining")}
PASSES = [1, *MAIL, 2.2, AGAIN, 1, *MAIL]


def ends_early(test):
    settings = {f"postscreen_{test}_enable": "yes", "postscreen_cache_map": "internal:passes"}
    return {**settings, **{name: value for name, value in LONG.items() if name != f"postscreen_{test}_ttl"}}


# There is no such entry in the list, and no word of for how long: postscreen_dnsbl_max_ttl is.
LISTS = {"postscreen_dnsbl_sites": "list.example", "postscreen_dnsbl_min_ttl": "1s", "postscreen_greet_ttl": "1h",
         "postscreen_cache_map": "internal:passes"}

# @NAME@ is a file; without the parameter there is no pair of key and certificate, and so no TLS.
TLS = {**DEEP, "postscreen_tls_security_level": "may"}
STARTTLS, READY = [1, *EHLO, "STARTTLS\r\n", 1], r"220 2\.0\.0 Ready to start TLS"

# parameter, value, other settings, what the client does, what is seen then ("log: ..." in the log). In a script a number waits
# for so many replies, a float for so many seconds.
ROWS = [
    ("postscreen_disable_vrfy_command", "yes", DEEP, [1, *EHLO, "VRFY x\r\n", 1], r"502 5\.5\.1 VRFY command is disabled"),
    ("postscreen_discard_ehlo_keywords", "dsn, vrfy", DEEP, [1, *EHLO], r"250-ETRN\r\n250-E(?s:(?!DSN).)*$"),
    ("postscreen_discard_ehlo_keyword_address_maps", "inline:{127.0.0.1=dsn}", DEEP, [1, *EHLO],
     r"250-ETRN\r\n250-E(?s:(?!DSN).)*$"),
    ("postscreen_forbidden_commands", "FOO", {**DEEP, **COMMANDS}, [1, "FOO x\r\n", 1], r"log: NON-SMTP COMMAND .*: FOO x"),
    ("postscreen_helo_required", "yes", DEEP, [1, "MAIL FROM:<a@b>\r\n", 1], r"503 5\.5\.1 Error: send HELO/EHLO first"),
    ("postscreen_reject_footer", "call us", DEEP, [1, *MAIL], r"450-4\.3\.2 [^\n]*\n450 4\.3\.2 call us"),
    ("postscreen_reject_footer_maps", "regexp:{{/^450/ look there}}", DEEP, [1, *MAIL], r"450 4\.3\.2 look there"),
    ("postscreen_expansion_filter", "abc", {**DEEP, "postscreen_reject_footer": "at $server_name"}, [1, *MAIL],
     r"450 4\.3\.2 at _____a____\r"),
    ("postscreen_denylist_action", "drop", {"postscreen_access_list": "reject"}, [1, *QUIT],
     r"521 5\.3\.2 Service currently unavailable"),
    ("postscreen_command_time_limit", "1s", DEEP, [1, 1.5, *QUIT], r"421 4\.4\.2 mx\.example Error: timeout exceeded"),
    ("postscreen_command_filter", "regexp:{{/^FOO/ NOOP}}", DEEP, [1, "FOO\r\n", 1], r"250 2\.0\.0 Ok"),
    ("postscreen_command_count_limit", "2", DEEP, [1, "NOOP\r\n", 1, "NOOP\r\n", 1, "NOOP\r\n", 1], r"421 mx\.example Service una"),
    ("smtpd_service_name", "otherdoor", {}, [1, *QUIT], r"220 this is the other door"),
    ("postscreen_pipelining_ttl", "1s", ends_early("pipelining"), PASSES, r"log: (?s:PASS NEW.*PASS NEW)"),
    ("postscreen_non_smtp_command_ttl", "1s", ends_early("non_smtp_command"), PASSES, r"log: (?s:PASS NEW.*PASS NEW)"),
    ("postscreen_bare_newline_ttl", "1s", ends_early("bare_newline"), PASSES, r"log: (?s:PASS NEW.*PASS NEW)"),
    ("postscreen_dnsbl_max_ttl", "1s", LISTS, [1, *QUIT, 2.2, AGAIN, 1, *QUIT], r"log: (?s:PASS NEW.*PASS NEW)"),
    ("postscreen_cache_cleanup_interval", "1s", {"postscreen_cache_map": "internal:cleaned"}, [1, 2.5, *QUIT],
     r"log: (?s:full cleanup.*full cleanup)"),
    ("postscreen_tls_security_level", "may", DEEP, [1, *EHLO, "STARTTLS\r\n", 1], r"454 4\.7\.0 TLS not available"),
    ("postscreen_use_tls", "yes", DEEP, [1, *EHLO, "STARTTLS\r\n", 1], r"454 4\.7\.0 TLS not available"),
    ("postscreen_tls_cert_file", "@cert@", {**TLS, "postscreen_tls_key_file": "@key@"}, STARTTLS, READY),
    ("postscreen_tls_key_file", "@key@", {**TLS, "postscreen_tls_cert_file": "@cert@"}, STARTTLS, READY),
    ("postscreen_tls_eccert_file", "@eccert@", {**TLS, "postscreen_tls_eckey_file": "@eckey@"}, STARTTLS, READY),
    ("postscreen_tls_eckey_file", "@eckey@", {**TLS, "postscreen_tls_eccert_file": "@eccert@"}, STARTTLS, READY),
    ("postscreen_tls_dcert_file", "@dcert@", {**TLS, "postscreen_tls_dkey_file": "@dkey@"}, STARTTLS, READY),
    ("postscreen_tls_dkey_file", "@dkey@", {**TLS, "postscreen_tls_dcert_file": "@dcert@"}, STARTTLS, READY),
    ("postscreen_tls_chain_files", "@chain@", TLS, STARTTLS, READY),
    ("postscreen_enforce_tls", "yes", DEEP, [1, *EHLO, "MAIL FROM:<a@b>\r\n", 1], r"530 5\.7\.0 Must issue a STARTTLS"),
]
IDS = [parameter for parameter, *_ in ROWS]


class Doors(Instance):
    """A postscreen for each row, and one that lacks the parameter."""

    def __init__(self, files):
        self.ports = {}
        lines = ["smtpd pass - - n - - smtpd\n", "otherdoor pass - - n - - smtpd -o { smtpd_banner = this is the other door }\n"]
        for parameter, value, more, _, _ in ROWS:
            for with_it in (True, False):
                self.ports[parameter, with_it] = free_port()
                settings = {"postscreen_cache_map": "", **more, "syslog_name": self.tag(parameter, with_it)}
                settings |= {parameter: value} if with_it else {}
                lines.append(f"127.0.0.1:{self.ports[parameter, with_it]} inet n - n - 1 postscreen" +
                             "".join(f" -o {{ {n} = {files.get(v, v)} }}" for n, v in settings.items()) + "\n")
        self.names = Names({})
        super().__init__(main_cf=MAIN, master_extra="".join(lines), name="doors", dns=self.names.address)

    def stop(self):
        super().stop()
        self.names.close()

    @staticmethod
    def tag(parameter, with_it):
        return f"p{IDS.index(parameter):02}{'with' if with_it else 'bare'}"

    def play(self, parameter, with_it, script):
        """What the client has heard, and what was logged of it."""
        client, heard = Client(self.ports[parameter, with_it]), ""
        for step in script:
            if step is AGAIN:
                heard += "".join(client.heard)
                client.close()
                client = Client(self.ports[parameter, with_it])
            elif isinstance(step, float):
                time.sleep(step)
            elif isinstance(step, int):
                for _ in range(step):
                    client.reply()
            else:
                client.say(step)
        client.close()
        return heard + "".join(client.heard)

    def logged(self, parameter, with_it):
        return "\n".join(line for line in self.log().splitlines() if f" {self.tag(parameter, with_it)}/postscreen" in line)


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """The server, and {(parameter, with it): what was heard}."""
    ca = TestCA(tmp_path_factory.mktemp("ca"))
    key, cert, chain = ca.make("mx.example")
    eckey, eccert, _ = ca.make("ec.example", key="ec:prime256v1")
    files = {"@key@": key, "@cert@": cert, "@chain@": chain, "@eckey@": eckey, "@eccert@": eccert, "@dkey@": key, "@dcert@": cert}
    with Doors(files) as doors, concurrent.futures.ThreadPoolExecutor(2 * len(ROWS)) as pool:
        jobs = {(parameter, with_it): pool.submit(doors.play, parameter, with_it, script)
                for parameter, _, _, script, _ in ROWS for with_it in (True, False)}
        yield doors, {key: job.result() for key, job in jobs.items()}


@pytest.mark.parametrize("parameter, pattern", [(p, pattern) for p, _, _, _, pattern in ROWS], ids=IDS)
def test_it_makes_the_difference(heard, parameter, pattern):
    doors, of = heard
    if pattern.startswith("log: "):
        pattern = pattern.removeprefix("log: ")
        wait_for(lambda: re.search(pattern, doors.logged(parameter, True)), what=f"{pattern} in {doors.logged(parameter, True)}")
        assert not re.search(pattern, doors.logged(parameter, False))
    else:
        assert re.search(pattern, of[parameter, True])
        assert not re.search(pattern, of[parameter, False])


def test_postscreen_post_queue_limit():
    """While nobody takes clients over (master, who would, stands still), so many wait; the next one hears that all is busy."""
    ports = {name: free_port() for name in ("few", "many")}
    limits = {"few": " -o postscreen_post_queue_limit=5", "many": ""}
    lines = "".join(f"127.0.0.1:{port} inet n - n - 1 postscreen -o syslog_name=postfix/{name} -o postscreen_cache_map="
                    f" -o mynetworks=127.0.0.0/8{limits[name]}\n" for name, port in ports.items())
    clients = []
    with Instance(main_cf=MAIN, master_extra="smtpd pass - - n - - smtpd\n" + lines, name="queue") as server:
        master = server.master_pid()
        try:
            for port in ports.values():
                client = Client(port)
                assert client.reply().startswith("220 ")
                client.close()
            os.kill(master, signal.SIGSTOP)
            for name, port in ports.items():
                clients += [Client(port) for _ in range(6)]
                wait_for(lambda name=name: len(re.findall(rf"postfix/{name}/postscreen\S* ALLOWLISTED", server.log())) == 7)
            busy = wait_for(lambda: [line for line in server.log().splitlines() if "all server ports busy" in line])
            assert len(busy) == 1 and "postfix/few/" in busy[0]
            heard = [client.reply(seconds=30) for client in clients[5:6]]
            assert heard == ["421 4.3.2 All server ports are busy\r\n"]
        finally:
            os.kill(master, signal.SIGCONT)
            for client in clients:
                client.close()
            print(server.log())
