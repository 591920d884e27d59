#!/usr/bin/env python3
"""Check the tables of src/conf against the code: usage check_params.py SOURCE_ROOT.

Every LIVE row of params.def and service_params.def is read somewhere, every INERT row says why, no name is there
twice, and rows, names and statuses are well-formed. (Defaults and ranges are checked by src/conf/conf_test.c, which
has the real parser.)"""
import pathlib
import re
import sys

ROW = re.compile(r"^PARAM\((\w+), (STRING|BOOL|INT|LONG|RAW|TIME\('[smhdw]'\)), (.*), (\d+), (\d+), (\w+), (\".*\")\)$")
SERVICE = re.compile(r"^SERVICE_PARAM\((\w+), \"(\w+)\", .*, (\w+)\)$")
STATUSES = {"LIVE", "INERT", "PENDING"}


def main():
    root = pathlib.Path(sys.argv[1])
    conf = root / "src" / "conf"
    problems = []
    code = ""
    for path in sorted((root / "src").rglob("*.[ch]")):
        if not re.search(r"_(test|fuzz)\.c$", path.name) and path.name not in ("params.h", "params.c"):
            code += re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
    read = set(re.findall(r"\bPARAM_(\w+)", code))
    suffixes = set(re.findall(r'"(_\w+)"', code))
    # the value of a live <service>_... row is its default's, which names another parameter
    for line in (conf / "service_params.def").read_text().splitlines():
        if line.startswith("SERVICE_PARAM(") and line.rstrip().endswith("LIVE)"):
            read.update(re.findall(r"\$(\w+)", line))
    # `stress` and its like have their effect in the defaults of live rows: ${stress?{10}:{300}}s
    for line in (conf / "params.def").read_text().splitlines():
        row = ROW.match(line)
        if row and row.group(6) == "LIVE":
            read.update(re.findall(r"\$\{(\w+)\?", row.group(3)))
            # the default for several others: $default_delivery_status_filter
            read.update(re.findall(r'^"\$(default_\w+)"$', row.group(3)))
    seen = set()
    counts = dict.fromkeys(sorted(STATUSES), 0)

    for number, line in enumerate((conf / "params.def").read_text().splitlines(), 1):
        where = f"src/conf/params.def:{number}"
        if not line.startswith("PARAM("):
            continue
        row = ROW.match(line)
        if not row:
            problems.append(f"{where}: malformed row")
            continue
        name, _, _, _, _, status, note = row.groups()
        if status not in STATUSES:
            problems.append(f"{where}: {name}: no such status: {status}")
            continue
        counts[status] += 1
        if name in seen:
            problems.append(f"{where}: {name} is there twice")
        seen.add(name)
        if status == "LIVE" and name not in read:
            problems.append(f"{where}: {name} is LIVE, but nothing reads PARAM_{name}")
        if status == "PENDING" and name in read:
            problems.append(f"{where}: {name} is PENDING, but PARAM_{name} is read: make it LIVE")
        if status == "INERT" and note == '""':
            problems.append(f"{where}: {name} is INERT without a reason")

    for number, line in enumerate((conf / "service_params.def").read_text().splitlines(), 1):
        where = f"src/conf/service_params.def:{number}"
        if not line.startswith("SERVICE_PARAM("):
            continue
        row = SERVICE.match(line)
        if not row or row.group(3) not in STATUSES:
            problems.append(f"{where}: malformed row")
        elif row.group(3) == "LIVE" and row.group(2) not in suffixes:
            problems.append(f"{where}: {row.group(2)} is LIVE, but nothing reads it")
        elif row.group(3) == "PENDING" and row.group(2) in suffixes:
            problems.append(f"{where}: {row.group(2)} is PENDING, but it is read: make it LIVE")

    for problem in problems:
        print(problem)
    print(", ".join(f"{n} {status}" for status, n in counts.items()))
    return 1 if problems else 0


sys.exit(main())
