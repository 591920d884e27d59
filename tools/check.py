"""Every test of the project, as `make check` runs it; the last line is `N passed, N failed`.

usage: check.py [--plain-only] [--no-lint] [argument of pytest ...]

1. the style of the source (clang-format, clang-tidy)
2. plain build with warnings as errors: unit tests, fuzz corpora, black-box tests
3. the same under AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer

Files or folders of tests/ among the arguments are then the only black-box tests. A build that fails counts as one
failed test. Results are read from the JUnit files that meson and pytest write. Black-box tests that failed beside
others are run once more alone, when they are few: one that passes then counts as passed, and is named as unsteady.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"
AGAIN_LIMIT = 12  # failed tests; more than these are no matter of a busy machine
WORKERS = 4  # of pytest, on two cores: tests mostly wait; the tests of one file stay in one worker
SANITIZE = ["-Db_sanitize=address,undefined", "-Db_lundef=false"]
SANITIZER_ENV = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=0:abort_on_error=1:detect_leaks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []
        self.unsteady = []

    def add_junit(self, path, label, again=None):
        """`again`: the results of a second run of those that failed."""
        if not path.exists():
            self.fail(f"{label}: no results in {path.name}")
            return
        mended = {name for name, case in cases(again) if good(case)} if again and again.exists() else set()
        for name, case in cases(path):
            if not good(case) and name in mended:
                self.unsteady.append(f"{label}: {name}")
                self.passed += 1
            elif not good(case):
                self.fail(f"{label}: {name}")
            elif case.find("skipped") is not None:
                self.skipped += 1
            else:
                self.passed += 1

    def fail(self, name):
        self.failed += 1
        self.failures.append(name)

    def step(self, name, good):
        if good:
            self.passed += 1
        else:
            self.fail(name)
        return good


def cases(path):
    for case in xml.parse(path).getroot().iter("testcase"):
        yield f"{case.get('classname', '')} {case.get('name')}".strip(), case


def good(case):
    return case.find("failure") is None and case.find("error") is None


def say(text):
    print(f"=== {time.strftime('%H:%M:%S')} {text}", flush=True)


def run(args, log, **kwargs):
    """Run quietly with the output in a log file; show its end when the command fails."""
    with open(log, "wb") as out:
        status = subprocess.run(args, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, **kwargs).returncode
    if status != 0:
        print(f"    failed ({status}): {' '.join(map(str, args))}\n    the end of {log}:")
        for line in pathlib.Path(log).read_text(errors="replace").splitlines()[-60:]:
            print(f"    | {line}")
    return status == 0


def build(tally, folder, options, label):
    say(f"{label}: build")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "build.ninja").exists():
        if not run(["meson", "setup", str(folder), "-Dwerror=true", *options], folder / "setup.log"):
            return tally.step(f"{label}: meson setup", False)
    return tally.step(f"{label}: build", run(["ninja", "-C", str(folder)], folder / "build.log"))


def black_box(pytest_args):
    """The arguments for pytest: all of tests/ unless some of it is named."""
    named = any((ROOT / a.split("::")[0]).exists() for a in pytest_args)
    return pytest_args if named else ["tests", *pytest_args]


def suite(tally, folder, label, extra_env, pytest_args):
    env = {**os.environ, **extra_env, "ANGARIUM_BUILD": str(folder)}
    say(f"{label}: unit tests and fuzz corpora")
    junit = folder / "meson-logs" / "testlog.junit.xml"
    junit.unlink(missing_ok=True)
    run(["meson", "test", "-C", str(folder), "--no-rebuild", "--print-errorlogs"], folder / "unit.log", env=env)
    tally.add_junit(junit, label)
    say(f"{label}: black-box tests")
    junit = folder / "pytest.xml"
    junit.unlink(missing_ok=True)
    again = folder / "pytest-again.xml"
    again.unlink(missing_ok=True)
    pytest = [PYTHON, "-m", "pytest", "-q", "--durations=15", "-o", f"cache_dir={folder / 'pytest-cache'}"]
    run([*pytest, f"--junitxml={junit}", "-n", str(WORKERS), "--dist", "loadfile", *black_box(pytest_args)],
        folder / "pytest.log", env=env)
    failed = sum(not good(case) for _, case in cases(junit)) if junit.exists() else 0
    if 0 < failed <= AGAIN_LIMIT:
        say(f"{label}: the {failed} that failed, alone")
        run([*pytest, f"--junitxml={again}", "--last-failed", "--last-failed-no-failures=none",
             *black_box(pytest_args)], folder / "pytest-again.log", env=env)
    tally.add_junit(junit, label, again)


def pending():
    """How much of the interface is still to be done, in one line."""
    shown = subprocess.run([PYTHON, "tools/check_params.py", "."], capture_output=True, text=True, cwd=ROOT).stdout
    return shown.splitlines()[-1] if shown else "?"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain-only", action="store_true", help="leave out the sanitizer build")
    parser.add_argument("--no-lint", action="store_true", help="leave out clang-format and clang-tidy")
    args, pytest_args = parser.parse_known_args()
    started = time.time()
    os.environ.pop("MAIL_CONFIG", None)
    tally = Tally()
    top = ROOT / "build-check"
    top.mkdir(exist_ok=True)
    oracle = subprocess.run([ROOT / "tools/oracle", str(top / "oracle")], capture_output=True, text=True)
    if oracle.returncode == 0:
        os.environ["ANGARIUM_ORACLE"] = oracle.stdout.strip()
    else:
        print(oracle.stderr, end="")
    if build(tally, top / "plain", [], "plain"):
        suite(tally, top / "plain", "plain", {}, pytest_args)
        if not args.no_lint:
            say("clang-format and clang-tidy")
            tally.step("lint", run([PYTHON, "tools/lint.py", "--build", str(top / "plain")], top / "lint.log"))
    if not args.plain_only and build(tally, top / "asan", SANITIZE, "sanitizers"):
        suite(tally, top / "asan", "sanitizers", SANITIZER_ENV, pytest_args)
    minutes = (time.time() - started) / 60
    for name in tally.unsteady:
        print(f"UNSTEADY {name} (it failed beside others and passed alone)")
    for name in tally.failures:
        print(f"FAILED {name}")
    print(f"parameter rows: {pending()}")
    print(f"{tally.skipped} skipped; {minutes:.1f} minutes; logs in {top.relative_to(ROOT)}/")
    print(f"{tally.passed} passed, {tally.failed} failed")
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
