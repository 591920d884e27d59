"""Run the fuzz targets with libFuzzer, one after the other, each for a bounded time, under the sanitizers (clang).

usage: fuzz.py [--seconds N] [--build DIR] [--keep DIR] [TARGET ...]

Without a TARGET every one is run. Each begins with its corpus (src/<room>/corpus/<target>) and what an earlier run has
found (kept in DIR, default build-fuzz/found), uses the dictionary that lies beside its source, and stops at the first
failure. What it was fed then lies in DIR/<target>-faults; with the fault mended it belongs into the corpus. Exit status
1 when a target has failed.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LENGTH_MAX = 20_000  # bytes of an input; longer ones show nothing new, and fewer of them fit into a minute
MEMORY_MAX = 2048  # MiB
PATIENCE = 25  # seconds for one input


def targets():
    """{target: (room, first source)} as the rooms' meson.build files have them."""
    found = {}
    for path in sorted((ROOT / "src").glob("*/meson.build")):
        for name, source in re.findall(r"'(\w+)': files\('(\w+_fuzz\.c)'", path.read_text()):
            found[name] = (path.parent, path.parent / source)
    return found


def build(folder, names):
    env = {**os.environ, "CC": os.environ.get("FUZZ_CC", "clang")}
    if not (folder / "build.ninja").exists():
        subprocess.run(["meson", "setup", folder, "-Dfuzz=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"],
                       cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", folder, *(f"src/{name}_fuzz" for name in names)], check=True, cwd=ROOT,
                   stdout=subprocess.DEVNULL)


def run(folder, keep, name, room, source, seconds):
    """True: nothing was found."""
    found, faults = keep / name, keep / f"{name}-faults"
    found.mkdir(parents=True, exist_ok=True)
    faults.mkdir(exist_ok=True)
    dictionary = source.with_suffix(".dict")
    args = [folder / "src" / f"{name}_fuzz", found, room / "corpus" / name, f"-max_total_time={seconds}",
            f"-max_len={LENGTH_MAX}", f"-rss_limit_mb={MEMORY_MAX}", f"-timeout={PATIENCE}", "-print_final_stats=1",
            f"-artifact_prefix={faults}/", *([f"-dict={dictionary}"] if dictionary.exists() else [])]
    env = {**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=1",
           "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
    log = keep / f"{name}.log"
    with open(log, "wb") as out:
        status = subprocess.run(args, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT).returncode
    text = log.read_text(errors="replace")
    runs = re.search(r"number_of_executed_units: (\d+)", text)
    reached = re.findall(r"cov: (\d+)", text)
    print(f"{name}: {runs[1] if runs else '?'} inputs, {reached[-1] if reached else '?'} places reached"
          + (f"; FAILED, see {log} and {faults}" if status else ""), flush=True)
    return status == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build-fuzz")
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("target", nargs="*")
    args = parser.parse_args()
    known = targets()
    names = args.target or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"fuzz: no target {unknown[0]}; there are: {' '.join(known)}")
    folder = args.build.resolve()
    build(folder, names)
    keep = (args.keep or folder / "found").resolve()
    results = [run(folder, keep, name, *known[name], args.seconds) for name in names]
    print(f"{results.count(True)} targets without a fault, {results.count(False)} with")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
