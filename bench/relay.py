"""Mail on its way: Angarium beside Debian's Postfix (and Exim), in one run, with one load tool, all durable.

usage: relay.py [--build DIR] [--only NAME,...] [--quick] [--seconds S] [--pairs N] [--own SETTING] [--write FILE]

  limits       what the loopback and the disk allow without a server
  relay        4 KiB through a relay to a sink; 1, 10, 50 and 100 sessions
  accept       accepting only: the queue manager is not there, all mail stays in the queue
  held         accepting only: an access table says HOLD to every client
  recipients   20 messages of 1,000 recipients to one sink, beside Exim, too
  large        100 messages of 20 MiB

Runs alternate A B A B; a run has as many messages as the server handles in --seconds; what is quoted are medians of the
pairs. A run lasts from the first connection of the load tool until the sink has got the last message; the CPU time counts
until the server is idle again. --quick: one pair of short runs, to see that it works. Needs root (Debian's Postfix does).
--own 'service_worker_limit = 2': a setting that only Angarium has, given to it in all scenarios and named in the report.
"""
import contextlib
import re
import statistics
import time

from limits import report_limits
from measure import Load, Sink, pss_kib
from report import run_scenarios
from servers import TUNED, Angarium, Exim, Postfix, unpacked

from instance import free_port

SIZE = 4096
LARGE = 20 * 1024 * 1024
COUNTED = ("switches", "calls", "syncs")
HELD = re.compile(r"^[0-9A-Za-z]+!", re.M)  # an entry of `postqueue -p`


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def shown(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def per(value, count):
    return None if value is None else value / count


class Bench:
    def __init__(self, args, report):
        self.args, self.report, self.say = args, report, report.say
        self.load, self.sink_port = Load(args.build), free_port()
        self.postfix_root, self.exim_root = unpacked(args.build)
        self.tools_cpu = []
        if args.own:
            self.say(f"Angarium alone: {', '.join(args.own)}.")
            self.say()

    def relay(self, server, sink, messages, sessions, size=SIZE, recipients=1, count=False):
        """One run. Rates in messages or, with many recipients, in recipients a second."""
        total = messages * recipients
        sink.expect_recipients(total)
        usage = server.usage().start(count)
        got = self.load(server.port, s=sessions, m=messages, l=size, r=recipients, a=max(1000, messages * recipients))
        last = sink.wait()
        server.wait_until_idle()
        used = usage.stop()
        seconds = last["last"] - got["start"]
        self.tools_cpu.append((got["cpu"] + last["cpu"]) / seconds)
        return {
            "rate": total / seconds, "accepted": total / (got["end"] - got["start"]), "seconds": seconds,
            "cpu": used["cpu"] / total * 1000, "switches": per(used["switches"], total), "syncs": per(used["syncs"], total),
            "flushes": per(used["flushes"], total), "calls": per(used["calls"], total),
            "ack50": got["ack50"], "ack99": got["ack99"],
        }

    def enough(self, rate):
        """Messages for a run of the wanted length."""
        return max(20, int(rate * self.args.seconds) // 10 * 10)

    def pairs(self, ours, theirs, run):
        """run(server, messages, count) in turn; the number of messages comes from a first run, which also makes what a
        server makes once. The last run, as long as the others, is for the counters. ([ours], [theirs])"""
        first = [run(server, 200 if self.args.quick else 1000, False) for server in (ours, theirs)]
        counts = [self.enough(result["rate"]) for result in first]
        results = [], []
        for _ in range(self.args.pairs):
            for result, server, messages in zip(results, (ours, theirs), counts):
                result.append(run(server, messages, False))
        for result, server, messages in zip(results, (ours, theirs), counts):
            counted = run(server, messages, True)
            for one in result:
                one.update({key: counted[key] for key in COUNTED if key in counted})
        return results

    def servers(self, sink, main_cf="", **options):
        own = "".join(f"{setting}\n" for setting in self.args.own)
        return (Angarium(self.args.build, sink.port, main_cf=main_cf + own, **options),
                Postfix(self.postfix_root, sink.port, main_cf=main_cf, **options))

    # --- scenarios ---
    def scenario_relay(self):
        say = self.say
        with Sink(self.args.build, self.sink_port) as sink:
            ours, theirs = self.servers(sink)
            with ours, theirs:
                self.about(ours, theirs)
                say("### Relay to a sink, 4 KiB")
                say()
                say("| sessions | server | messages/s | CPU s per 1,000 | context switches | system calls | sync calls | "
                    "disk flushes | ack. median ms | 99th |")
                say("|---|---|---|---|---|---|---|---|---|---|")
                ratios = []
                for sessions in self.args.sessions:
                    both = self.pairs(ours, theirs, lambda server, n, count: self.relay(
                        server, sink, n, sessions, count=count))
                    for server, results in zip((ours, theirs), both):
                        m = {key: median([r[key] for r in results]) for key in results[0]}
                        say(f"| {sessions} | {server.name} | {m['rate']:.0f} | {m['cpu']:.3f} | {shown(m['switches'], 1)} | "
                            f"{shown(m['calls'], 0)} | {shown(m['syncs'], 3)} | {shown(m['flushes'], 3)} | {m['ack50']:.2f} | "
                            f"{m['ack99']:.2f} |")
                    ratios.append((sessions, both))
                say()
                say("Ratios, medians of pairs (from, to); switches and flushes are Angarium's own, a message:")
                say()
                say("| sessions | rate | CPU | ack. median | ack. 99th | switches | sync calls | wanted |")
                say("|---|---|---|---|---|---|---|---|")
                for sessions, (mine, other) in ratios:
                    wanted = "rate 2" if sessions == 1 else "rate 10, CPU 1/12, 8 switches"
                    if sessions == 50:
                        wanted += ", ack. 1/8, 0.1 flushes"
                    cells = [self.ratio(mine, other, "rate")]
                    cells += [self.ratio(other, mine, key, "1/") for key in ("cpu", "ack50", "ack99")]
                    cells += [shown(median([r[key] for r in mine])) for key in ("switches", "syncs")]
                    say(f"| {sessions} | {' | '.join(cells)} | {wanted} |")
                say()
                say(f"The load tool and the sink took {median(self.tools_cpu):.2f} CPUs of the machine's (median of runs, at most "
                    f"{max(self.tools_cpu):.2f}).")
                say()

    @staticmethod
    def ratio(top, bottom, key, before=""):
        values = [a[key] / b[key] for a, b in zip(top, bottom) if b[key]]
        if not values:
            return "-"
        return f"{before}{median(values):.1f} ({min(values):.1f}, {max(values):.1f})"

    def accepting(self, title, how, settle, **options):
        """Accepting only. `settle(sink, server, messages)` says what became of what was acknowledged."""
        say, delivered = self.say, {}
        with Sink(self.args.build, self.sink_port) as sink:
            ours, theirs = self.servers(sink, **options)
            with ours, theirs:
                def run(server, messages, count):
                    usage = server.usage().start(count)
                    got = self.load(server.port, s=100, m=messages, l=SIZE)
                    server.wait_until_idle()
                    used = usage.stop()
                    delivered[server.name] = delivered.get(server.name, 0) + messages
                    return {"rate": messages / (got["end"] - got["start"]), "cpu": used["cpu"] / messages * 1000,
                            "syncs": per(used["syncs"], messages), "switches": per(used["switches"], messages)}
                results = self.pairs(ours, theirs, run)
                say(f"### {title}, 4 KiB, 100 sessions")
                say()
                say(how)
                say()
                say("| server | messages/s | CPU s per 1,000 | context switches | sync calls |")
                say("|---|---|---|---|---|")
                for server, runs in zip((ours, theirs), results):
                    m = {key: median([r[key] for r in runs]) for key in runs[0]}
                    say(f"| {server.name} | {m['rate']:.0f} | {m['cpu']:.3f} | {shown(m['switches'], 1)} | "
                        f"{shown(m['syncs'], 3)} |")
                say()
                say(f"Ratio of rates, median of {self.args.pairs} pairs: {self.ratio(*results, 'rate')}; wanted 20.")
                for server in (ours, theirs):
                    settle(sink, server, delivered[server.name])

    def scenario_accept(self):
        def settle(sink, server, messages):
            sink.expect_recipients(messages)
            server.start_queue_manager()
            sink.wait()
        self.accepting("Accepting only", "No queue manager runs, so all mail stays in the queue.", settle, accept_only=True)
        self.say("Afterwards the queue managers were started: the sink got every acknowledged message of both.")
        self.say()

    def scenario_held(self):
        def settle(_, server, messages):
            end = time.monotonic() + 60  # Angarium's queue manager may still be reading what it has been told of
            while (held := len(HELD.findall(server.list_queue()))) != messages:
                if time.monotonic() > end:
                    raise RuntimeError(f"{server.name} holds {held} of {messages} messages")
                time.sleep(0.5)
        self.accepting("Accepting only, held", "An access table says HOLD to every client.", settle,
                       main_cf="smtpd_client_restrictions = check_client_access static:HOLD\n")
        self.say("Afterwards `postqueue -p` of both had every acknowledged message, held.")
        self.say()

    def scenario_recipients(self):
        say, messages, recipients = self.say, 20, 100 if self.args.quick else 1000
        with Sink(self.args.build, self.sink_port) as sink:
            servers = list(self.servers(sink))
            if self.exim_root:
                servers.append(Exim(self.exim_root, sink.port))
            results = {}
            with contextlib.ExitStack() as stack:
                for server in servers:
                    stack.enter_context(server)
                    self.relay(server, sink, 4, 4, recipients=recipients)
                for _ in range(self.args.pairs):
                    for server in servers:
                        results.setdefault(server.name, []).append(
                            self.relay(server, sink, messages, 20, recipients=recipients))
            say(f"### {messages} messages of {recipients} recipients, one sink, 20 sessions")
            say()
            say("At most 100 recipients a transaction and 100 connections on every side.")
            say()
            say("| server | recipients/s | CPU s per 1,000 recipients |")
            say("|---|---|---|")
            for name, runs in results.items():
                say(f"| {name} | {median([r['rate'] for r in runs]):.0f} | {median([r['cpu'] for r in runs]):.3f} |")
            say()
            for name, wanted in (("Postfix", "5"), ("Exim", "1.2")):
                if name in results:
                    say(f"Ratio to {name}: {self.ratio(results['Angarium'], results[name], 'rate')}; wanted {wanted}.")
            if not self.exim_root:
                say("Exim could not be had.")
            say()

    def scenario_large(self):
        say, size = self.say, LARGE
        messages = 10 if self.args.quick else 100
        with Sink(self.args.build, self.sink_port) as sink:
            ours, theirs = self.servers(sink)
            with ours, theirs:
                self.relay(ours, sink, 4, 4, size), self.relay(theirs, sink, 4, 4, size)
                results, memory = ([], []), [0, 0]
                for _ in range(self.args.pairs):
                    for i, server in enumerate((ours, theirs)):
                        run, peak = self.watch_memory(server, sink, messages, size)
                        results[i].append({**run, "rate": run["rate"] * size / 1e6})
                        memory[i] = max(memory[i], peak)
                say(f"### {messages} messages of 20 MiB, 10 sessions")
                say()
                say("| server | MB/s | CPU s per 1,000 MB | most memory of all processes (PSS), MiB |")
                say("|---|---|---|---|")
                for i, server in enumerate((ours, theirs)):
                    cpu = median([r["cpu"] for r in results[i]]) / (size / 1e6)
                    say(f"| {server.name} | {median([r['rate'] for r in results[i]]):.0f} | {cpu:.2f} | {memory[i] / 1024:.1f} |")
                say()
                say(f"Ratio: {self.ratio(*results, 'rate')}; wanted 1.5, and under 64 MiB.")
                say()

    def watch_memory(self, server, sink, messages, size):
        """A run whose memory is looked at four times a second."""
        sink.expect_recipients(messages)
        usage, peak = server.usage().start(), 0
        process = self.load.start(server.port, s=10, m=messages, l=size)
        while process.poll() is None:
            peak = max(peak, pss_kib(server.pids()))
            time.sleep(0.25)
        got = self.load.result(process)
        last = sink.wait()
        peak = max(peak, pss_kib(server.pids()))
        server.wait_until_idle()
        seconds = last["last"] - got["start"]
        return {"rate": messages / seconds, "cpu": usage.stop()["cpu"] / messages * 1000}, peak

    def scenario_limits(self):
        report_limits(self.report, self.args.build, self.args.quick)

    def about(self, ours, theirs):
        self.say(f"Angarium {ours.version()}, Postfix {theirs.version()}; {self.args.pairs} pairs, runs of about "
                 f"{self.args.seconds:g} s; {ours.group.how()}; disk flushes from the disk's counters, whoever asked for them.")
        self.say("Both sides: " + ", ".join(TUNED.split("\n")[:-1]) + ".")
        self.say()


SCENARIOS = ["limits", "relay", "accept", "held", "recipients", "large"]


def add_options(parser):
    parser.add_argument("--sessions", type=lambda text: [int(n) for n in text.split(",")], default=[1, 10, 50, 100])
    parser.add_argument("--own", action="append", default=[], metavar="SETTING")


if __name__ == "__main__":
    run_scenarios("Mail on its way (bench/relay.py)", __doc__, SCENARIOS, Bench, add_options)
