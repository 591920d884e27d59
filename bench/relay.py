"""Relay to a sink: Angarium beside Debian's Postfix, in one run, with one load tool, both durable.

usage: relay.py [--build DIR] [--messages N] [--sessions N] [--pairs N] [--write FILE]

The load tool is smtp-source and smtp-sink of Debian's postfix package, unpacked beside (tools/oracle). A run is timed from
the first connection of smtp-source until the sink has got the last message. Pairs run in turn A B A B; the figure to quote
is the median of the ratios. Needs root (Debian's Postfix does).
"""
import argparse
import os
import pathlib
import re
import select
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from instance import Instance, free_port  # noqa: E402
from oracle import Oracle  # noqa: E402
from report import Report  # noqa: E402

# Postfix as its TUNING_README says for a relay on a fast, near destination.
TUNED = """\
default_process_limit = 200
default_destination_concurrency_limit = 100
initial_destination_concurrency = 20
in_flow_delay = 0
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtp_connection_cache_on_demand = yes
"""


class Load:
    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.env = {**os.environ, "LD_LIBRARY_PATH": str(self.root / "usr/lib/postfix")}

    def sink(self, port):
        return subprocess.Popen([str(self.root / "usr/sbin/smtp-sink"), "-u", "nobody", "-c", f"127.0.0.1:{port}", "500"],
                                env=self.env, stdout=subprocess.PIPE)

    @staticmethod
    def wait_for_messages(sink, messages, seconds=600):
        """smtp-sink -c prints a running `mesg=N`."""
        end = time.monotonic() + seconds
        seen = b""
        while time.monotonic() < end:
            if select.select([sink.stdout], [], [], 1)[0]:
                piece = os.read(sink.stdout.fileno(), 65536)
                if not piece:
                    break
                seen = (seen + piece)[-200:]
                counts = re.findall(rb"mesg=(\d+)", seen)
                if counts and int(counts[-1]) >= messages:
                    return
        raise RuntimeError(f"the sink did not get its {messages} messages")

    def source(self, port, messages, sessions, size):
        return subprocess.run([str(self.root / "usr/sbin/smtp-source"), "-d", "-l", str(size), "-m", str(messages), "-s",
                               str(sessions), "-f", "bench@near.example", "-t", "rcpt@far.example",
                               f"127.0.0.1:{port}"], env=self.env, timeout=600, check=True)

    def timed(self, port, sink_port, messages, sessions, size):
        sink = self.sink(sink_port)
        try:
            time.sleep(0.3)  # the sink must listen before the first delivery
            started = time.monotonic()
            self.source(port, messages, sessions, size)
            accepted = time.monotonic() - started
            self.wait_for_messages(sink, messages)
            return messages / (time.monotonic() - started), messages / accepted
        finally:
            sink.kill()
            sink.wait()


def cpu_seconds(pids):
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15]))  # own and of ended children
        except OSError:
            pass
    return total / ticks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--size", type=int, default=4096, help="bytes of a message")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--write", type=pathlib.Path, help="also put the result into this file")
    args = parser.parse_args()
    oracle_root = os.environ.get("ANGARIUM_ORACLE") or subprocess.run(
        [ROOT / "tools/oracle", str(args.build.resolve() / "oracle")], capture_output=True, text=True).stdout.strip()
    reason = Oracle.why_not(oracle_root)
    if reason:
        sys.exit(f"relay.py: {reason}")
    load = Load(oracle_root)
    sink_port = free_port()
    relay = f"relayhost = [127.0.0.1]:{sink_port}\n"
    with Oracle(oracle_root, relay + TUNED) as postfix, \
            Instance(main_cf=relay + TUNED + "inet_interfaces = 127.0.0.1\n", build=args.build) as angarium:
        version = postfix.command("postconf", "-h", "mail_version", capture_output=True, text=True).stdout.strip()
        report = Report("Relay to a sink (bench/relay.py)")
        say = report.say
        say(f"{report.machine()}; "
            f"{args.messages} messages of {args.size} bytes, {args.sessions} sessions, {args.pairs} pairs; "
            f"Angarium {angarium.postconf('angarium_version')}, Postfix {version}; both sync before 250.")
        say("Both: " + ", ".join(TUNED.split("\n")[:-1]) + ".")
        say()
        say("| pair | Angarium msg/s | Postfix msg/s | ratio | accepting: Angarium | Postfix |")
        say("|---|---|---|---|---|---|")
        ratios = []
        load.timed(angarium.port, sink_port, 200, args.sessions, args.size)  # both warm
        load.timed(postfix.port, sink_port, 200, args.sessions, args.size)
        for pair in range(1, args.pairs + 1):
            ours, ours_in = load.timed(angarium.port, sink_port, args.messages, args.sessions, args.size)
            theirs, theirs_in = load.timed(postfix.port, sink_port, args.messages, args.sessions, args.size)
            ratios.append(ours / theirs)
            say(f"| {pair} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} | {ours_in:.0f} | {theirs_in:.0f} |")
        say()
        say(f"Median ratio: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f}).")
        say(f"CPU of Angarium's processes for all of its runs: {cpu_seconds(angarium.pids()):.1f} s.")
    if args.write:
        report.write(args.write)


if __name__ == "__main__":
    main()
