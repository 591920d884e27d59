"""What every benchmark says of where it ran, and how its section of docs/benchmarks.md is replaced."""
import argparse
import os
import pathlib
import platform
import re
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEAD = "# Measured\n\nWritten by the scripts in bench/; `make bench` makes it anew.\n\n"


class Report:
    def __init__(self, title):
        """`title` is the heading of the section: "Relay to a sink (bench/relay.py)"."""
        self.title, self.lines = title, []
        self.say(f"## {title}")
        self.say()

    def say(self, text=""):
        print(text, flush=True)
        self.lines.append(text)

    def run(self, scenarios):
        """Runs (name, function) one after the other; one that fails is said and does not stop the others. Whether any did."""
        failed = False
        for name, scenario in scenarios:
            try:
                scenario()
            except Exception as why:
                failed = True
                traceback.print_exc()
                self.say(f"{name}: failed: {why}")
                self.say()
        return failed

    @staticmethod
    def machine():
        cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
        return (f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} CPUs ({cpu}), Linux {platform.release()}, load average "
                f"{os.getloadavg()[0]:.1f} before")

    def write(self, path):
        """Into `path`, in place of the section of this title, else behind all others."""
        section = "\n".join(self.lines) + "\n"
        old = path.read_text() if path.exists() else HEAD
        pattern = re.compile(rf"## {re.escape(self.title)}\n.*?(?=\n## |\Z)", re.S)
        if pattern.search(old):
            path.write_text(pattern.sub(lambda _: section, old))
        else:
            path.write_text(old + ("" if old.endswith("\n\n") else "\n") + section)


def run_scenarios(title, usage, names, make, add_options=None, make_small=None):
    """The command line of a benchmark of several scenarios, and its run. `make(args, report)`: the object that has a method
    scenario_NAME for each of `names`. `add_options(parser)`: options of its own; `make_small(args)`: what --quick does to them."""
    parser = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--only", default=",".join(names), help="scenarios, with commas between")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", type=pathlib.Path, help="also put the result into this file")
    if add_options:
        add_options(parser)
    args = parser.parse_args()
    args.build = args.build.resolve()
    if args.quick:
        args.seconds, args.pairs = 0.5, 1
        if make_small:
            make_small(args)
    wanted = args.only.split(",")
    for name in wanted:
        if name not in names:
            parser.error(f"{name}: no such scenario; there are {', '.join(names)}")
    report = Report(title)
    report.say(f"{report.machine()}.")
    report.say()
    bench = make(args, report)
    failed = report.run((name, getattr(bench, f"scenario_{name}")) for name in wanted)
    if args.write:
        report.write(args.write)
    sys.exit(1 if failed else 0)
