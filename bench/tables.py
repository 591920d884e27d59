"""Indexed tables: ours beside Debian's Postfix, in one run: building, and look-ups through postmap -q -.

usage: tables.py [--build DIR] [--entries N] [--pairs N] [--write FILE]

Runs alternate A B A B; the figure to quote is the median of the ratios. Needs root (tools/oracle, as relay.py).
"""
import argparse
import os
import pathlib
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from oracle import Oracle  # noqa: E402


def timed(command, env, directory, stdin=None):
    with open(stdin or os.devnull, "rb") as keys, open(directory / "out", "wb") as out:
        started = time.monotonic()
        subprocess.run(command, env=env, cwd=directory, stdin=keys, stdout=out, check=True, timeout=600)
        return time.monotonic() - started


def private_memory(command, env, directory):
    """KiB of its own that a process which has its tables open has."""
    process = subprocess.Popen(command, env=env, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(b"user7@example7.com\n")
    process.stdin.flush()
    process.stdout.readline()
    rollup = pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    process.communicate()
    return sum(int(n) for n in re.findall(r"Private_\w+: +(\d+) kB", rollup))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--entries", type=int, default=1000000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--write", type=pathlib.Path, help="also put the result into this file")
    args = parser.parse_args()
    reason = Oracle.why_not()
    if reason:
        sys.exit(f"tables.py: {reason}")
    oracle = Oracle()
    oracle.write()
    etc = oracle.directory / "etc"
    (etc / "dynamicmaps.cf").write_text("".join(
        f"{name}\t{oracle.root}/usr/lib/postfix/postfix-{name}.so\tdict_{name}_open\tmkmap_{name}_open\n"
        for name in ("lmdb", "cdb")))
    main_cf = (etc / "main.cf").read_text()
    (etc / "main.cf").write_text(re.sub(r"meta_directory = .*", f"meta_directory = {etc}", main_cf))
    work = pathlib.Path(tempfile.mkdtemp(prefix="bench-tables-"))
    numbers = list(range(args.entries))
    random.Random(1).shuffle(numbers)
    text = "".join(f"user{i}@example{i % 1000}.com\tmailbox{i}@store{i % 37}.example.net\n" for i in numbers)
    for name in ("ours", "theirs"):
        (work / name).write_text(text)
    asked = random.Random(2).sample(numbers, args.entries // 2)
    (work / "keys").write_text("".join(f"user{i}@example{i % 1000}.com\n" for i in asked))
    env = {"ours": {**os.environ, "MAIL_CONFIG": str(etc)}, "theirs": oracle.environment()}
    postmap = {"ours": str(args.build.resolve() / "sbin/postmap"), "theirs": str(oracle.root / "usr/sbin/postmap")}
    out = []

    def say(line=""):
        print(line, flush=True)
        out.append(line)

    def compare(kind, *options, stdin=None):
        times = {"ours": [], "theirs": []}
        for _ in range(args.pairs):
            for name, of in times.items():
                of.append(timed([postmap[name], *options, f"{kind}:{name}"], env[name], work, stdin))
        ratios = [b / a for a, b in zip(times["ours"], times["theirs"])]
        say(f"| {'look-ups' if options else 'building'} | {kind} | {statistics.median(times['ours']):.2f} | "
            f"{statistics.median(times['theirs']):.2f} | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f} to {max(ratios):.2f} |")

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    say("## Indexed tables (bench/tables.py)")
    say()
    say(f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} CPUs ({cpu}), Linux {platform.release()}; {args.entries} entries in "
        f"random order; {len(asked)} look-ups through postmap -q -; {args.pairs} pairs; seconds, medians.")
    say()
    say("| what | type | Angarium | Postfix | ratio | from, to |")
    say("|---|---|---|---|---|---|")
    compare("lmdb")
    compare("cdb")
    compare("lmdb", "-q", "-", stdin=work / "keys")
    compare("cdb", "-q", "-", stdin=work / "keys")
    specs = [f"{kind}:ours" for kind in ("lmdb", "cdb")]
    few, many = (private_memory([postmap["ours"], "-q", "-", *specs * n], env["ours"], work) for n in (1, 50))
    say()
    say(f"Private memory of a process with 2 of these tables open: {few} KiB; with 100: {many} KiB.")
    oracle.stop()
    if args.write:
        section = "\n".join(out) + "\n"
        old = args.write.read_text() if args.write.exists() else "# Measured\n"
        pattern = re.compile(r"## Indexed tables \(bench/tables\.py\)\n.*?(?=\n## |\Z)", re.S)
        args.write.write_text(pattern.sub(lambda _: section, old) if pattern.search(old) else old + "\n" + section)
    subprocess.run(["rm", "-rf", str(work)], check=True)


if __name__ == "__main__":
    main()
