"""What is wrong in main.cf ends every command with `fatal:`, naming file, line and parameter, and Postfix's exit status."""
import contextlib
import os
import pty
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from instance import Instance
from oracle import Oracle

STATUS = {  # exit status of each command when main.cf cannot be used
    ("postconf", "myhostname"): 1, ("sendmail", "somebody"): 75, ("postmap", "table"): 1,
    ("postmap", "-q", "key", "texthash:table"): 1, ("postalias", "table"): 1, ("newaliases",): 75, ("postdrop",): 1,
    ("postkick", "public", "pickup", "W"): 1, ("postqueue", "-p"): 69, ("mailq",): 75, ("postfix", "check"): 1,
    ("postfix", "start"): 1, ("postfix", "status"): 1, ("postlog", "text"): 1,
}
SILENT = ("postfix", "postlog")  # Postfix 3.7 says it to a terminal only; 3.8 and we to a pipe as well

FAULTS = {  # line: what is said
    "frob": """{file}, line {line}: missing '=' after attribute name: "frob\"""",
    "= x": """{file}, line {line}: missing attribute name: "= x\"""",
    "message_size_limit = 12x": "bad numerical configuration: message_size_limit = 12x ({file}, line {line})",
    "fork_delay = -1s": "parameter fork_delay: bad time value or unit: -1s ({file}, line {line})",
    "default_process_limit = 0": "invalid default_process_limit parameter value 0 < 1 ({file}, line {line})",
    "fork_attempts = 99999999999999999999":
        "bad numerical configuration: fork_attempts = 99999999999999999999 ({file}, line {line})",
}
# no file or line in Postfix's sentences about values: ours says them in addition
ADDED = re.compile(r" \([^()]*main\.cf, line \d+\)$")


@pytest.fixture(scope="module")
def ours():
    instance = Instance()
    main_cf = instance.etc / "main.cf"
    stock = main_cf.read_text()
    (instance.directory / "table").write_text("key value\n")

    def run(fault, *command):
        main_cf.write_text(f"{stock}{fault}\n")
        done = instance.command(*command, capture_output=True, input="")
        return done.returncode, done.stderr.strip()
    run.file, run.line, run.instance, run.stock = main_cf, stock.count("\n") + 1, instance, stock
    yield run
    instance.stop()


@pytest.fixture(scope="module")
def debian():
    reason = Oracle.why_not()
    if reason:
        pytest.skip(reason)
    oracle = Oracle()
    oracle.write()
    main_cf = oracle.directory / "etc/main.cf"
    stock = main_cf.read_text()

    def run(fault, *command):
        program = {"newaliases": "sendmail", "mailq": "sendmail"}.get(command[0], command[0])
        done = subprocess.run(command, executable=str(oracle.root / "usr/sbin" / program), env=oracle.environment(),
                              timeout=60, text=True, capture_output=True, input="", cwd=oracle.directory)
        return done.returncode, done.stderr.strip()
    run.file, run.stock = main_cf, stock
    yield run
    oracle.stop()


@pytest.mark.parametrize("command", STATUS, ids=" ".join)
def test_unusable_main_cf(ours, command):
    for fault, text in FAULTS.items():
        status, said = ours(fault, *command)
        if command[0] == "postconf" and "=" in fault and fault[0] != "=":
            assert status == 0  # it shows values, it does not judge them
            continue
        assert status == STATUS[command], fault
        name = str(ours.instance.bin / "postconf") if command[0] == "postconf" else command[0]
        assert said == f"{name}: fatal: " + text.format(file=ours.file, line=ours.line), fault


@pytest.mark.parametrize("fault", FAULTS)
def test_same_as_debians(ours, debian, fault):
    debian.file.write_text(f"{debian.stock}{fault}\n")
    with ThreadPoolExecutor() as several:  # each of Postfix's waits a second before it ends
        theirs = list(several.map(lambda command: debian(fault, *command), STATUS))
    for command, want in zip(STATUS, theirs):
        got = ours(fault, *command)
        assert got[0] == want[0], (command, got, want)
        strip = [re.sub(r"^\S*/", "", re.sub(r"\S*/main\.cf, line \d+", "FILE", ADDED.sub("", said)))
                 for _, said in (got, want)]
        if command[0] not in SILENT and (command[0] != "postconf" or got[0] != 0):
            assert strip[0] == strip[1], command


def test_unknown_parameter(ours):
    """A warning that names the nearest known name; mail goes on."""
    status, said = ours("mynetwork = 127.0.0.1\nmy_hostname = x", "postconf", "-n")
    assert status == 0
    assert f"warning: {ours.file}: unused parameter: mynetwork=127.0.0.1" in said
    assert "mynetworks" in said and "myhostname" in said
    status, said = ours("mynetwork = 127.0.0.1", "postfix", "check")
    log = ours.instance.log()
    assert status == 0
    line = next(line for line in log.splitlines() if "mynetwork=" in line or "mynetwork " in line)
    assert "warning: " in line and "mynetworks" in line and str(ours.file) in line


# an ordinary user's mail system owns everything itself and does not ask who these are
OWNERS = ["mail_owner = no-such-user", "setgid_group = no-such-group"] if os.geteuid() == 0 else []


@pytest.mark.parametrize("fault", [*FAULTS, "soft_bounce = maybe", "myhostname = bad_host!", "inet_protocols = ipv5",
                                   *OWNERS])
def test_start_at_a_terminal(ours, fault):
    """Who starts the mail system sees what is wrong; words are judged, too."""
    ours.file.write_text(f"{ours.stock}{fault}\n")
    main, other = pty.openpty()
    with subprocess.Popen([ours.instance.bin / "postfix", "start"], env=ours.instance.environment(), stdin=other, stdout=other,
                          stderr=other) as start:
        assert start.wait(60) == 1
    os.close(other)
    said = b""
    with contextlib.suppress(OSError):  # a terminal that nobody holds any more
        while more := os.read(main, 4096):
            said += more
    os.close(main)
    assert b"fatal: " in said
    assert fault.split()[0] in said.decode() or fault.split()[-1] in said.decode()
    assert not ours.instance.pids()


@pytest.mark.parametrize("command, said", [
    (["postmap", "-v", "-q", "a", "inline:{a=b}"], "open table inline:{a=b}: done"),
    (["postmap", "-v", "lmdb:{folder}/table"], "1 entries of {folder}/table"),
    (["postalias", "-v", "lmdb:{folder}/aliases"], "4 entries of {folder}/aliases"),
    (["postlock", "-v", "-l", "flock", "{folder}/table", "true"], "{folder}/table: locked by flock"),
], ids=lambda v: " ".join(v[:2]) if isinstance(v, list) else "")
def test_verbose(make_instance, tmp_path, command, said):
    """-v says what is done; without it nothing is said."""
    instance = make_instance(start=False)
    (tmp_path / "table").write_text("a b\n")
    (tmp_path / "aliases").write_text("a: b\n")
    command = [word.replace("{folder}", str(tmp_path)) for word in command]
    assert said.replace("{folder}", str(tmp_path)) in instance.command(*command, capture_output=True).stderr
    quiet = instance.command(*(word for word in command if word != "-v"), capture_output=True)
    assert (quiet.returncode, quiet.stderr) == (0, "")
