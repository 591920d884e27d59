"""postconf -n: Angarium beside Debian's Postfix on one main.cf of 300 settings, in one run.

usage: postconf.py [--build DIR] [--settings N] [--runs N] [--pairs N] [--write FILE]

The settings are defaults of Postfix's own, spread over the alphabet, so that both know them all; both print the same
lines. A run starts the program, reads, prints into a pipe. Pairs run in turn A B A B; the figure to quote is the median of
the ratios. No root needed.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from report import ROOT, Report

MASTER_CF = "smtp inet n - n - - smtpd\nsmtp unix - - n - - smtp\nlocal unix - n n - - local\n"
# decided by the program that runs, or different on purpose
OWN = ("process_", "service_name", "mail_version", "config_directory", "mail_name")


class Postconf:
    def __init__(self, program, directory, libraries=None):
        self.command = [str(program), "-c", str(directory)]
        self.environment = {**os.environ, "MAIL_CONFIG": "", **({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})}

    def __call__(self, *arguments):
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            sys.exit(f"{' '.join(self.command)}: {done.stderr}")
        return done.stdout

    def rate(self, runs):
        started = time.monotonic()
        for _ in range(runs):
            self("-n")
        return runs / (time.monotonic() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--settings", type=int, default=300)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--write", type=pathlib.Path, help="also put the result into this file")
    args = parser.parse_args()
    oracle = os.environ.get("ANGARIUM_ORACLE") or subprocess.run(
        [ROOT / "tools/oracle", str(args.build.resolve() / "oracle")], capture_output=True, text=True).stdout.strip()
    root = pathlib.Path(oracle or "/nonexistent")
    if not (root / "usr/sbin/postconf").exists():
        sys.exit("postconf.py: no unpacked Debian postfix (tools/oracle; ANGARIUM_ORACLE)")
    with tempfile.TemporaryDirectory(prefix="angarium-bench-") as folder:
        directory = pathlib.Path(folder)
        (directory / "master.cf").write_text(MASTER_CF)
        (directory / "main.cf").write_text("")
        postfix = Postconf(root / "usr/sbin/postconf", directory, root / "usr/lib/postfix")
        angarium = Postconf(args.build.resolve() / "sbin/postconf", directory)
        known = set(angarium("-d", "-H").split())
        lines = [line for line in postfix("-d").splitlines() if not line.startswith(OWN) and line.split()[0] in known]
        step = len(lines) / args.settings
        (directory / "main.cf").write_text("\n".join(lines[int(i * step)] for i in range(args.settings)) + "\n")
        if angarium("-n") != postfix("-n"):
            sys.exit("postconf.py: the two do not print the same")
        report = Report("Reading main.cf (bench/postconf.py)")
        say = report.say
        say(f"{report.machine()}; `postconf -n` on a main.cf of {args.settings} settings, {args.runs} runs, {args.pairs} pairs; "
            f"Angarium {angarium('-h', 'angarium_version').strip()}, Postfix {postfix('-h', 'mail_version').strip()}.")
        say()
        say("| pair | Angarium runs/s | Postfix runs/s | ratio |")
        say("|---|---|---|---|")
        ratios = []
        angarium.rate(20), postfix.rate(20)  # both warm
        for pair in range(1, args.pairs + 1):
            ours, theirs = angarium.rate(args.runs), postfix.rate(args.runs)
            ratios.append(ours / theirs)
            say(f"| {pair} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} |")
        say()
        say(f"Median ratio: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f}).")
    if args.write:
        report.write(args.write)


if __name__ == "__main__":
    main()
