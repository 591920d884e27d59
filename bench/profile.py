"""Where a relayed message costs what, in each process of Angarium: CPU, context switches, system calls, hot functions.

usage: profile.py [--build DIR] [--messages N] [--sessions N] [--size N] [--hot N] [--no-trace] [--deferred]

Three runs through a relay to a sink (with --deferred, to one that rejects all recipients for now): one undisturbed (CPU and switches from /proc), one with `perf trace -s` (system
calls), one with `perf record` (functions). perf needs root. For the eyes of who works on speed; nothing is written.
"""
import argparse
import collections
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

from measure import ROOT, Group, Load, Sink
from servers import TUNED

from instance import Instance, free_port


# System calls whose __x64_sys_ function the compiler has put into another, and what costs time without being a call.
INLINED = {"do_writev": "writev", "ksys_read": "read", "ksys_write": "write", "__sys_sendmsg": "sendmsg",
           "__sys_recvmsg": "recvmsg", "asm_exc_page_fault": "(page faults)",
           "asm_sysvec_apic_timer_interrupt": "(timer interrupts)"}


def name_of(pid):
    return pathlib.Path(os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")).name


def used_by(pids):
    """{program: [CPU seconds, voluntary switches, involuntary switches, processes]}"""
    table = collections.defaultdict(lambda: [0, 0, 0, 0])
    for pid in pids:
        with contextlib.suppress(OSError):
            row = table[name_of(pid)]
            row[3] += 1
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                row[0] += int((task / "schedstat").read_text().split()[0]) / 1e9
                status = (task / "status").read_text()
                row[1] += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)[1])
                row[2] += int(re.search(r"nonvoluntary_ctxt_switches:\s+(\d+)", status)[1])
    return table


def all_deferred(server):
    """The file of each message is there; the number of files tells when."""
    return sum(len(files) for _, _, files in os.walk(server.queue / "deferred"))


def run(load, sink, server, args):
    sink.expect(args.messages)
    before = all_deferred(server)
    result = load(server.port, s=args.sessions, m=args.messages, l=args.size)
    if not args.deferred:
        return args.messages / (sink.wait()["last"] - result["start"]), result
    while all_deferred(server) < before + args.messages:
        time.sleep(0.1)
    return args.messages / (time.monotonic() - result["start"]), result


def system_calls(trace, pids):
    """{program: {call: number}} from the summary of perf trace."""
    names = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                names[task] = name_of(pid)
    table = collections.defaultdict(collections.Counter)
    program = None
    for line in trace.splitlines():
        head = re.match(r" .*\((\d+)\), \d+ events", line)
        row = re.match(r"   (\w+)\s+(\d+)\s", line)
        if head:
            program = names.get(head[1], "?")
        elif row and program:
            table[program][row[1]] += int(row[2])
    return table


def hot(data):
    """{program: {"calls": Counter of system calls with what the kernel does in them, "own": Counter of functions outside
    the kernel}}, in shares of the program's samples."""
    def rows(*options):
        report = subprocess.run(["perf", "report", "-g", "none", "--sort", "comm,sym", "--stdio", "-i", data, *options],
                                capture_output=True, text=True).stdout
        for line in report.splitlines():
            row = re.match(r"\s+([\d.]+)%(?:\s+[\d.]+%)?\s+(\S+)\s+\[([k.])\]\s+(\S+)", line)
            if row:
                yield float(row[1]), row[2], row[3], row[4]
    own, table, total = list(rows("--no-children")), {}, collections.Counter()
    for share, program, _, _ in own:
        total[program] += share
    for program, share in total.most_common():
        if share >= 0.1:
            table[program] = {"calls": collections.Counter(), "own": collections.Counter()}
    for share, program, place, symbol in own:
        if place == "." and program in table:
            table[program]["own"][symbol] += share / total[program]
    for share, program, _, symbol in rows("--children"):
        if program in table and (symbol.startswith("__x64_sys_") or symbol in INLINED):
            table[program]["calls"][INLINED.get(symbol, symbol.removeprefix("__x64_sys_"))] += share / total[program]
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--hot", type=int, default=12, help="functions to list of each program")
    parser.add_argument("--deferred", action="store_true", help="the next server rejects all recipients for now")
    parser.add_argument("--no-trace", action="store_true", help="the undisturbed run alone")
    args = parser.parse_args()
    args.build = args.build.resolve()
    load, port, group = Load(args.build), free_port(), Group("profile")
    main_cf = f"relayhost = [127.0.0.1]:{port}\n" + TUNED
    with Sink(args.build, port) as sink, tempfile.TemporaryDirectory() as scratch:
        with group.inside():
            server = Instance(main_cf=main_cf, build=args.build).start()
        try:
            sink.expect(500)
            load(server.port, s=args.sessions, m=500, l=args.size)
            sink.wait()
            if args.deferred:
                sink.reject("rcpt=450")
            before, started = used_by(server.pids()), time.monotonic()
            rate, result = run(load, sink, server, args)
            after = used_by(server.pids())
            print(f"## {args.messages} messages of {args.size} bytes, {args.sessions} sessions: {rate:.0f} messages/s end to "
                  f"end ({time.monotonic() - started:.1f} s), acknowledgement {result['ack50']:.1f} ms median, "
                  f"{result['ack99']:.1f} ms 99th percentile\n")
            print("| process | CPU us/message | voluntary switches | involuntary | processes |\n|---|---|---|---|---|")
            total = [0, 0, 0, 0]
            for name, row in sorted(after.items(), key=lambda item: -item[1][0] + before[item[0]][0]):
                spent = [(now - then) / args.messages for now, then in zip(row[:3], before[name][:3])] + [row[3]]
                total = [a + b for a, b in zip(total, spent)]
                print(f"| {name} | {spent[0] * 1e6:.1f} | {spent[1]:.2f} | {spent[2]:.2f} | {row[3]} |")
            print(f"| all | {total[0] * 1e6:.1f} | {total[1]:.2f} | {total[2]:.2f} | {total[3]} |", flush=True)
            if args.no_trace:
                return
            pids = ",".join(map(str, server.pids()))
            tracer = subprocess.Popen(["perf", "trace", "-s", "-p", pids, "-o", f"{scratch}/trace"])
            time.sleep(1)
            run(load, sink, server, args)
            names = server.pids()
            tracer.send_signal(signal.SIGINT)
            tracer.wait(60)
            calls = system_calls(pathlib.Path(f"{scratch}/trace").read_text(), names)
            print("\nSystem calls a message:\n")
            for name, counter in sorted(calls.items(), key=lambda item: -item[1].total()):
                listed = ", ".join(f"{call} {n / args.messages:.2f}" for call, n in counter.most_common(14)
                                   if n / args.messages >= 0.01)
                print(f"- {name} {counter.total() / args.messages:.1f}: {listed}")
            print(f"- all: {sum(c.total() for c in calls.values()) / args.messages:.1f}", flush=True)
            recorder = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-g", "-p", pids, "-o",
                                         f"{scratch}/data"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(1)
            run(load, sink, server, args)
            recorder.send_signal(signal.SIGINT)
            recorder.wait(60)
            print(f"\nWhere the CPU time goes, us a message (shares of samples times the first run's time):\n")
            whole = {name: (row[0] - before[name][0]) / args.messages * 1e6 for name, row in after.items()}
            for program, rows in hot(f"{scratch}/data").items():
                micros = whole.get(program, 0)
                if micros >= 1:
                    print(f"- {program} {micros:.0f}, of it {rows['own'].total() * micros:.0f} outside the kernel: " + "; ".join(
                        f"{title} " + ", ".join(f"{symbol} {share * micros:.1f}" for symbol, share in rows[kind].most_common(args.hot)
                                                if share * micros >= 0.3)
                        for kind, title in (("calls", "SYSTEM CALLS"), ("own", "OWN CODE AND LIBRARIES"))))
        finally:
            server.stop()
            group.close()


if __name__ == "__main__":
    main()
