"""The door: Angarium beside Debian's Postfix with sessions that wait, are refused, encrypt, or are asked about.

usage: sessions.py [--build DIR] [--only NAME,...] [--quick] [--seconds S] [--pairs N] [--write FILE]

  idle         2,000 plain sessions after EHLO, beside OpenSMTPD, too: memory of all processes, and the banner of a new one;
               10,000 of ours
  idletls      2,000 sessions after STARTTLS and EHLO
  refused      sessions refused at RCPT by the last of 20 restrictions, three tables asked
  tls          sessions with STARTTLS and one message, full and resumed handshakes
  filters      relay with a policy service and a milter, the same for both
  silent       10,000 connections that never speak, to smtpd or to postscreen, while good clients send

Runs alternate A B A B; what is quoted are medians of the pairs. --quick: one pair of short runs and fewer sessions, to see that
it works. Needs root (Debian's Postfix does).
"""
import contextlib
import pathlib
import statistics
import subprocess
import tempfile

from measure import Load, Sink, parse, pss_kib
from report import run_scenarios
from servers import TUNED, Angarium, OpenSMTPD, Postfix, unpacked

from instance import free_port

IDLE, MANY = 2000, 10000
BANNERS = 200
# No names are looked up: the benchmark has no DNS. Nobody is sent away for being many.
DOOR = """\
smtpd_peername_lookup = no
smtpd_timeout = 600s
smtpd_client_message_rate_limit = 0
default_process_limit = {limit}
"""
TLS = """\
smtpd_tls_security_level = may
smtpd_tls_chain_files = {chain}
smtpd_tls_session_cache_database = btree:$data_directory/smtpd_scache
"""
TWENTY = """\
smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, permit_tls_clientcerts, permit_inet_interfaces,
    reject_unauth_pipelining, reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname, reject_non_fqdn_sender,
    reject_non_fqdn_recipient, check_client_access cidr:$config_directory/clients,
    check_helo_access regexp:$config_directory/names, check_sender_access hash:$config_directory/senders,
    check_recipient_access hash:$config_directory/senders, check_reverse_client_hostname_access regexp:$config_directory/names,
    reject_multi_recipient_bounce, reject_unlisted_sender, reject_unlisted_recipient, reject_known_sender_login_mismatch,
    reject_sender_login_mismatch, reject_unauth_destination
smtpd_relay_restrictions =
mynetworks = 192.0.2.0/24
"""
TABLES = {
    "clients": "".join(f"198.51.{n}.0/24 REJECT\n" for n in range(100)),
    "names": "".join(f"/^host{n}\\.bad\\.example$/ REJECT\n" for n in range(20)),
    "senders": "".join(f"user{n}@bad.example REJECT\n" for n in range(1000)),
}
EHLO = "EHLO load.example"
REFUSED = [EHLO, "MAIL FROM:<bench@near.example>|RCPT TO:<user@elsewhere.example>|QUIT"]
ENCRYPTED = [EHLO, "STARTTLS", EHLO]
ONE_MESSAGE = [*ENCRYPTED, "MAIL FROM:<bench@near.example>|RCPT TO:<user@far.example>|DATA", "MESSAGE", "QUIT"]


def ratio(top, bottom):
    values = [a / b for a, b in zip(top, bottom)]
    return f"{statistics.median(values):.1f} ({min(values):.1f}, {max(values):.1f})"


class Sessions:
    """The session tool."""

    def __init__(self, build):
        self.program = build / "bench/smtp_sessions"

    def start(self, port, script, **options):
        words = [word for name, value in options.items() for word in ([f"-{name}"] if value is True else [f"-{name}", str(value)])]
        return subprocess.Popen([self.program, *words, f"127.0.0.1:{port}", *script], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)

    def __call__(self, port, script, **options):
        process = self.start(port, script, **options)
        output = process.communicate()[0]
        if process.returncode:
            raise RuntimeError(f"the session tool ended with {process.returncode}: {output}")
        return parse(output.splitlines()[-1])

    @contextlib.contextmanager
    def held(self, port, script, count, **options):
        """`count` sessions at the end of the script, for as long as the block lasts."""
        process = self.start(port, script, n=count, **options)
        try:
            got = parse(process.stdout.readline())
            if got["held"] != count:
                raise RuntimeError(f"{got['held']} of {count} sessions stay")
            yield got
        finally:
            process.communicate(timeout=60)


def make_chain(folder):
    """A key and certificate as certbot makes them today: ECDSA, P-256."""
    key, cert, chain = (folder / name for name in ("key.pem", "cert.pem", "chain.pem"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                    key, "-out", cert, "-days", "30", "-subj", "/CN=mail.example"], check=True, capture_output=True)
    chain.write_text(key.read_text() + cert.read_text())
    return chain


class Bench:
    def __init__(self, args, report, folder):
        self.args, self.say = args, report.say
        self.load, self.sessions, self.sink_port = Load(args.build), Sessions(args.build), free_port()
        self.postfix_root, _ = unpacked(args.build)
        self.chain = make_chain(folder)
        self.tls = TLS.format(chain=self.chain)
        self.say("Both sides: " + ", ".join([*TUNED.split("\n")[:-1], *DOOR.split("\n")[:-2]]) + ".")
        self.say()
        self.idle, self.many = (200, 1000) if args.quick else (IDLE, MANY)

    def ours(self, limit=1000, main_cf="", **options):
        return Angarium(self.args.build, self.sink_port, main_cf=DOOR.format(limit=limit) + main_cf, **options)

    def theirs(self, limit=1000, main_cf=""):
        return Postfix(self.postfix_root, self.sink_port, main_cf=DOOR.format(limit=limit) + main_cf)

    def both(self, **options):
        return self.ours(**options), self.theirs(**options)

    def pairs(self, servers, run):
        """run(server, sessions) in turn gives a rate and the tool's CPU seconds; the number comes from a first run.
        ([ours], [theirs]) of (rate, the server's CPU microseconds a session, the tool's)"""
        results = [], []
        counts = [max(50, int(run(server, 100 if self.args.quick else 500)[0] * self.args.seconds)) for server in servers]
        for _ in range(self.args.pairs):
            for result, server, count in zip(results, servers, counts):
                usage = server.usage().start()
                rate, tool = run(server, count)
                server.wait_until_idle()
                result.append((rate, usage.stop()["cpu"] / count * 1e6, tool / count * 1e6))
        return results

    def table(self, results, unit, wanted):
        self.say(f"| server | {unit}s/s | CPU us a {unit} | of the load tool | its share |")
        self.say("|---|---|---|---|---|")
        for name, runs in zip(("Angarium", "Postfix"), results):
            rate, cpu, tool = (statistics.median(values) for values in zip(*runs))
            self.say(f"| {name} | {rate:.0f} | {cpu:.0f} | {tool:.0f} | {tool / (cpu + tool):.0%} |")
        rates, cpus = ([[run[i] for run in runs] for runs in results] for i in (0, 1))
        self.say()
        self.say(f"Ratio of rates, median of {len(results[0])} pairs: {ratio(*rates)}; wanted {wanted}. "
                 f"CPU: 1/{ratio(*reversed(cpus))}.")
        self.say()

    # --- scenarios ---
    def memory(self, server, script, count, at_a_time=20):
        """KiB of all processes of the server with `count` sessions held, and the median banner of new ones, in ms: sessions
        that stay like the others, so that none gets what another has just left."""
        with server:
            self.sessions(server.port, [EHLO, "QUIT"], n=5)
            with self.sessions.held(server.port, script, count, i=True, s=at_a_time):
                kib = pss_kib(server.pids())
                with self.sessions.held(server.port, [], BANNERS, i=True) as banners:
                    return kib, banners["banner50"]

    def scenario_idle(self):
        say, n = self.say, self.idle
        say(f"### {n} idle sessions after EHLO")
        say()
        say("| server | MiB (PSS) of all processes | banner of a new session, median ms |")
        say("|---|---|---|")
        ours, theirs = self.both(limit=n + 2 * BANNERS)
        got = {server.name: self.memory(server, [EHLO], n) for server in (ours, theirs)}
        for name, (kib, banner) in got.items():
            say(f"| {name} | {kib / 1024:.1f} | {banner:.2f} |")
        third = OpenSMTPD.unpack(self.args.build / "opensmtpd")
        if third:  # of sessions that begin together, some get no answer from it for ever
            kib, banner = got["OpenSMTPD"] = self.memory(OpenSMTPD(third), [EHLO], n, at_a_time=1)
            say(f"| OpenSMTPD | {kib / 1024:.1f} | {banner:.2f} |")
        many = self.memory(self.ours(limit=self.many + 2 * BANNERS), [EHLO], self.many)
        say(f"| Angarium, {self.many} sessions | {many[0] / 1024:.1f} | {many[1]:.2f} |")
        say()
        if third:
            say(f"Memory: 1/{got['OpenSMTPD'][0] / got['Angarium'][0]:.1f} of OpenSMTPD's (wanted 1/4).")
        say(f"Memory: 1/{got['Postfix'][0] / got['Angarium'][0]:.1f} of Postfix's (wanted 1/60); wanted {self.many} within 160 MiB; "
            f"banner: {got['Angarium'][1] / got['Postfix'][1]:.2f} of Postfix's (wanted 0.5).")
        say()

    def scenario_idletls(self):
        say, n = self.say, self.idle
        say(f"### {n} idle sessions after STARTTLS and EHLO")
        say()
        say("| server | MiB (PSS) of all processes |")
        say("|---|---|")
        got = {}
        for server in self.both(limit=n + 2 * BANNERS, main_cf=self.tls):
            got[server.name] = self.memory(server, ENCRYPTED, n)[0]
            say(f"| {server.name} | {got[server.name] / 1024:.1f} |")
        say()
        say(f"Memory: 1/{got['Postfix'] / got['Angarium']:.1f} of Postfix's (wanted 1/20).")
        say()

    def write_tables(self, server):
        for name, text in TABLES.items():
            (server.etc / name).write_text(text)
        server.server.command("postmap", f"hash:{server.etc}/senders", check=True)

    def scenario_refused(self):
        ours, theirs = self.both(main_cf=TWENTY)
        with ours, theirs:
            for server in (ours, theirs):
                self.write_tables(server)

            def run(server, count):
                got = self.sessions(server.port, REFUSED, s=20, n=count)
                if got["refused"] != count:
                    raise RuntimeError(f"{server.name} refused {got['refused']} of {count}: {server.log()[-1000:]}")
                return got["rate"], got["cpu"]
            results = self.pairs((ours, theirs), run)
        self.say("### Sessions refused at RCPT: 20 restrictions, 3 kinds of tables; 20 at a time")
        self.say()
        self.table(results, "session", "8")
        self.ceiling()

    def ceiling(self):
        """The same sessions with a server that only says no."""
        port, count = free_port(), 2000 if self.args.quick else 100000
        with Sink(self.args.build, port) as sink:
            sink.expect(1)
            sink.reject("rcpt=550")
            got = self.sessions(port, REFUSED, s=20, n=count)
            served = sink.counts()["cpu"]
        self.say(f"The load tool into a sink that refuses every recipient: {got['rate']:.0f} sessions/s, CPU {served / count * 1e6:.0f} "
                 f"us a session and {got['cpu'] / count * 1e6:.0f} of the load tool: next to all of it connecting, sending, closing.")
        self.say()

    def scenario_tls(self):
        ours, theirs = self.both(main_cf=self.tls)
        with Sink(self.args.build, self.sink_port) as sink, ours, theirs:
            for how, options, wanted in (("full handshakes", {}, "3"), ("resumed", {"r": True}, "8")):
                resumed = {}

                def run(server, count):
                    sink.expect(count)
                    got = self.sessions(server.port, ONE_MESSAGE, s=20, n=count, **options)
                    resumed[server.name] = f"{got['resumed'] / count:.1%}"
                    if got["refused"] or got["handshakes"] != count or bool(got["resumed"]) != bool(options):
                        raise RuntimeError(f"{server.name}: {got}: {server.log()[-1000:]}")
                    return count / (max(sink.wait()["last"], got["end"]) - got["start"]), got["cpu"]
                results = self.pairs((ours, theirs), run)
                self.say(f"### Sessions with STARTTLS and one message, {how}; 20 at a time, TLS 1.3, P-256")
                self.say()
                self.table(results, "session", wanted)
                floor = parse(subprocess.run([self.args.build / "bench/tls_floor", self.chain, "500" if self.args.quick else "5000",
                                              "resumed" if options else "full"], capture_output=True, text=True, check=True).stdout)
                self.say("Resumed: " + ", ".join(f"{share} with {name}" for name, share in resumed.items()) + ". OpenSSL alone, both "
                         f"ends in one process without a socket, takes {floor['server']:.0f} us of a session as the server and "
                         f"{floor['client']:.0f} us as the client.")
                self.say()

    def scenario_filters(self):
        policy, milter = free_port(), free_port()
        asked = (f"smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:{policy}, permit_mynetworks, reject\n"
                 f"smtpd_milters = inet:127.0.0.1:{milter}\nmilter_default_action = tempfail\n")
        companions = subprocess.Popen([self.args.build / "bench/smtp_companions", f"127.0.0.1:{policy}", f"127.0.0.1:{milter}"],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        companions.stdout.readline()
        try:
            ours, theirs = self.both(main_cf=asked)
            with Sink(self.args.build, self.sink_port) as sink, ours, theirs:
                def run(server, count):
                    sink.expect(count)
                    got = self.load(server.port, s=50, m=count, l=4096)
                    return count / (sink.wait()["last"] - got["start"]), got["cpu"]
                results = self.pairs((ours, theirs), run)
        finally:
            companions.stdin.close()
            companions.wait(10)
        self.say("### Relay to a sink with a policy service and a milter, 4 KiB, 50 sessions")
        self.say()
        self.table(results, "message", "4")

    def scenario_silent(self):
        say = self.say
        say(f"### Good clients beside {self.many} connections that never speak; 4 KiB, 50 sessions")
        say()
        say("| the door | messages/s without them | with them | share (from, to) | CPU us a message without | with |")
        say("|---|---|---|---|---|---|")
        for name in ("smtpd", "postscreen"):
            # Good clients come from the one address of mynetworks, the others do not; they all wait for their greeting.
            server = self.ours(limit=self.many + 1000, postscreen=name == "postscreen",
                               main_cf="mynetworks = 127.0.0.1\npostscreen_greet_action = enforce\npostscreen_greet_wait = 300s\n")
            with Sink(self.args.build, self.sink_port) as sink, server:
                def run(count):
                    server.wait_until_idle()  # what was done for those who came or went is not the good clients' time
                    sink.expect(count)
                    usage = server.usage().start()
                    got = self.load(server.port, s=50, m=count, l=4096)
                    rate = count / (sink.wait()["last"] - got["start"])
                    server.wait_until_idle()
                    return rate, usage.stop()["cpu"] / count * 1e6
                run(500)
                count = int(run(500)[0] * self.args.seconds)
                without, beside = [], []
                for i in range(self.args.pairs + 2):
                    if i % 2 == 0:
                        without.append(run(count))
                    with self.sessions.held(server.port, [], self.many, q=True, s=200):
                        beside.append(run(count))
                    if i % 2:
                        without.append(run(count))
            shares = [b[0] / a[0] for a, b in zip(without, beside)]
            (rate, cpu), (rate_beside, cpu_beside) = ([statistics.median(values) for values in zip(*runs)] for runs in (without, beside))
            say(f"| {name} | {rate:.0f} | {rate_beside:.0f} | {statistics.median(shares):.2f} ({min(shares):.2f}, {max(shares):.2f}) | "
                f"{cpu:.0f} | {cpu_beside:.0f} |")
        say()
        say("Wanted: a share of at least 0.9.")
        say()


SCENARIOS = ["idle", "idletls", "refused", "tls", "filters", "silent"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        pathlib.Path(folder).chmod(0o755)
        run_scenarios("The door (bench/sessions.py)", __doc__, SCENARIOS, lambda *both: Bench(*both, pathlib.Path(folder)))
