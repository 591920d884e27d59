"""clang-format and clang-tidy over the whole of src/.

usage: lint.py [--build DIR] [--format-only]

Exit status 0 when nothing was found. clang-tidy needs the compile commands of a configured build folder.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def sources():
    listed = subprocess.run(["git", "ls-files", "src/*.c", "src/*.h"], cwd=ROOT, check=True, capture_output=True,
                            text=True)
    return listed.stdout.split()


def check_format():
    return subprocess.run(["clang-format", "--dry-run", "-Werror", *sources()], cwd=ROOT).returncode == 0


def tidy_one(build, path):
    # tests are run, under sanitizers too; to walk their paths as well would be half of the whole time
    options = ["--checks=-clang-analyzer-*"] if path.endswith(("_test.c", "_fuzz.c")) else []
    done = subprocess.run(["clang-tidy", "--quiet", "-p", str(build), *options, path],
                          capture_output=True, text=True, cwd=build)
    return path, done.returncode, done.stdout


def check_tidy(build):
    commands = json.loads((build / "compile_commands.json").read_text())
    paths = sorted({os.path.normpath(os.path.join(c["directory"], c["file"])) for c in commands
                    if c["file"].endswith(".c") and "-fsanitize=fuzzer" not in c["command"]})
    clean = True
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (path, status, text) in enumerate(pool.map(lambda p: tidy_one(build, p), paths), 1):
            if sys.stdout.isatty():
                print(f"\rclang-tidy {number}/{len(paths)}", end="", flush=True)
            if status != 0:
                clean = False
                print(f"\n{os.path.relpath(path, ROOT)}:\n{text}")
    return clean


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--format-only", action="store_true")
    args = parser.parse_args()
    build = args.build.resolve()
    good = check_format()
    if not args.format_only:
        if not (build / "compile_commands.json").exists():
            sys.exit(f"lint: {build} is not configured; run `make build` first")
        good = check_tidy(build) and good
    print("lint: clean" if good else "lint: see above; `make format` mends formatting")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
