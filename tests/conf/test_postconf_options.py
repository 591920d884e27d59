"""postconf: what Debian's Postfix cannot be asked (JSON, templates in our words), and how files are replaced."""
import fcntl
import json
import os
import pathlib
import re
import subprocess
import time

import pytest

from instance import build_directory

ORACLE = pathlib.Path(os.environ.get("ANGARIUM_ORACLE", "/nonexistent"))


@pytest.fixture
def etc(tmp_path):
    (tmp_path / "main.cf").write_text("myhostname = mx.example.org\nown = \"q\"\\\nrelayhost = $own\n")
    (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd -o relayhost=$own -o { mynetworks = a b }\n"
                                        "relay unix - - n - - smtp\n")
    return tmp_path


@pytest.fixture
def postconf(etc):
    program = str(build_directory() / "sbin" / "postconf")

    def run(*arguments, **options):
        done = subprocess.run([program, "-c", etc, *arguments], timeout=60, capture_output=True, **options)
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode().replace(f"{program}: ", "")
    run.program = program
    return run


def test_lists_what_is_built(postconf):
    assert postconf("-a") == (0, "cyrus\ndovecot\n", "")
    assert postconf("-A") == (0, "cyrus\nnative\n", "")
    assert postconf("-l") == (0, "flock\nfcntl\ndotlock\n", "")
    types = postconf("-m")[1].split()
    assert types == sorted(types) and {"btree", "cidr", "hash", "lmdb", "regexp", "static", "texthash"} <= set(types)


def test_every_listed_table_opens(postconf, etc):
    """-m names what table look-ups know: another word is refused."""
    postmap = build_directory() / "sbin/postmap"
    known = postconf("-m")[1].split()
    for name in [*known, "nosuchtype"]:
        said = subprocess.run([postmap, "-c", etc, "-q", "x", f"{name}:/nonexistent"], capture_output=True, timeout=60, text=True)
        assert ("unsupported dictionary type" in said.stderr) == (name == "nosuchtype"), (name, said.stderr)


def test_tls_versions(postconf):
    pattern = r"OpenSSL 3\.\d+\.\d+.*\n"
    for mode in ("compile-version", "run-version"):
        status, out, errors = postconf("-T", mode)
        assert (status, errors) == (0, "") and re.fullmatch(pattern, out)
    assert postconf("-T", "public-key-algorithms") == (0, "dsa\necdsa\nrsa\n", "")
    assert postconf("-T", "what") == (1, "", "warning: unknown 'postconf -T' mode: what\n")


def read_json(result):
    assert result[0] == 0
    return [json.loads(line) for line in result[1].splitlines()]


def test_json(postconf):
    assert read_json(postconf("-j", "-n", "-C", "user,builtin", "own", "myhostname")) == [
        {"name": "own", "value": '"q"\\'}, {"name": "myhostname", "value": "mx.example.org"}]
    assert len(read_json(postconf("-jd"))) > 900
    service = {"service": "smtp", "type": "inet", "private": "n", "unprivileged": "-", "chroot": "n", "wakeup": "-",
               "process_limit": "-", "command": "smtpd -o relayhost=$own -o {mynetworks=a b}"}
    assert read_json(postconf("-jM", "smtp/inet")) == [service]
    assert read_json(postconf("-jF", "smtp/inet")) == [
        {"service": "smtp", "type": "inet", "field": name, "value": value} for name, value in service.items()]
    assert read_json(postconf("-jPx", "*/*/relayhost")) == [
        {"service": "smtp", "type": "inet", "parameter": "relayhost", "value": '"q"\\'}]


def test_json_of_odd_bytes(postconf, etc):  # CM-09
    (etc / "main.cf").write_bytes(b"own = a\x01\x1b\x7f\t\"\\ \xc3\xa9 \xff \xed\xa0\x80\nrelayhost = $own\n")
    assert read_json(postconf("-j", "own")) == [{"name": "own", "value": 'a\x01\x1b\x7f\t"\\ \u00e9 \ufffd \ufffd\ufffd\ufffd'}]


@pytest.mark.parametrize("other", "eX#fhH")
def test_json_conflicts(postconf, other):
    assert postconf("-j", f"-{other}")[2] in (f"fatal: specify one of -j -{other}\n", f"fatal: specify one of -{other} -j\n")


@pytest.mark.parametrize("mode", "aAblmtT")
def test_json_of_lists(postconf, mode):
    arguments = ["-T", "run-version"] if mode == "T" else [f"-{mode}"]
    assert postconf("-j", *arguments) == (1, "", f"fatal: with option -{mode}, do not specify -j\n")


def test_quiet(postconf, etc):
    (etc / "main.cf").write_text("nosuch = a\n")
    (etc / "master.cf").write_text("smtp inet n - n - - smtpd -o nosuchtoo=b\n")
    for arguments, files in ((["-n"], ["main.cf", "master.cf"]), (["-M"], ["master.cf"])):
        assert re.findall(r"(\w+\.cf): unused", postconf(*arguments)[2]) == files
        assert postconf("-q", *arguments)[2] == ""


def test_verbose(postconf, etc):
    assert f"reading {etc}/main.cf\nreading {etc}/master.cf\n" in postconf("-v", "-n")[2]


# --- templates ---

def test_templates_as_they_are(postconf, etc):
    status, plain, errors = postconf("-t")
    assert (status, errors) == (0, "")
    assert re.findall(r"(\w+)_template = <<EOF", plain) == ["failure", "delay", "success", "verify"]
    assert "Subject: Undelivered Mail Returned to Sender\nPostmaster-Subject: Postmaster Copy: Undelivered Mail\n" in plain
    assert "$myhostname" in plain and max(map(len, plain.splitlines())) <= 80
    own = etc / "bounce.cf"
    own.write_text(plain.replace("Undelivered", "Lost"))
    assert postconf("-t", own) == (0, plain.replace("Undelivered", "Lost"), "")
    (etc / "main.cf").write_text(f"bounce_template_file = {own}\n")
    assert "Subject: Lost Mail" in postconf("-t")[1]
    assert "Subject: Lost Mail" not in postconf("-t", "")[1]
    assert postconf("-t", own, own) == (1, "", "fatal: options -b and -t require at most one template file\n")
    assert postconf("-t", etc / "no") == (1, "", f"fatal: open {etc}/no: No such file or directory\n")


def test_templates_expanded(postconf, etc):
    (etc / "main.cf").write_text("myhostname = mx.example.org\ndelay_warning_time = 4h\nmaximal_queue_lifetime = 3d\n")
    status, out, errors = postconf("-b")
    assert (status, errors) == (0, "")
    assert re.findall(r"expanded_(\w+)_text = <<EOF", out) == ["failure", "delay", "success", "verify"]
    assert "mx.example.org" in out and "$" not in out and "4 hour" in out and "3 day" in out and "Subject" not in out
    (etc / "own.cf").write_text("failure_template = <<X\nEOF\n$nosuch\nX\n")
    assert postconf("-b", etc / "own.cf")[::2] == (1, f"fatal: {etc}/own.cf: undefined $name in failure template: nosuch\n")
    assert postconf("-t", etc / "own.cf")[1].startswith("failure_template = <<EOF1\n")


@pytest.mark.parametrize("text", [
    "failure_template = <<EOF\nCharset: utf-8\nFrom: X\nSubject:  s \nPostmaster-Subject: p\n\nhello $$ $myhostname\n\n  x\nEOF\n",
    "# c\n\n  failure_template=<<X Y\nhello\nEOF\nX Y\n", "failure_template = hello\n",
    "failure_template = <<E\n\none\nE\nfailure_template = <<E\ntwo $delay_warning_time_hours\nE\n",
    "failure_template = <<E\nSubject : a\nsubject: b\n y\nE\n",
])
def test_template_files_as_in_postfix(postconf, etc, text):
    if not (ORACLE / "usr/sbin/postconf").exists():
        pytest.skip("ANGARIUM_ORACLE does not name the root of an unpacked Debian postfix package")
    (etc / "main.cf").write_text(f"daemon_directory = {ORACLE}/usr/lib/postfix/sbin\ncompatibility_level = 3.6\n"
                                 f"command_directory = {ORACLE}/usr/sbin\nmyhostname = mx.example.org\ndelay_warning_time = 1h\n")
    (etc / "own.cf").write_text(text)
    for option in ("-t", "-b"):
        theirs = subprocess.run([str(ORACLE / "usr/sbin/postconf"), "-c", etc, option, etc / "own.cf"], timeout=60, text=True,
                                capture_output=True, env={"LD_LIBRARY_PATH": str(ORACLE / "usr/lib/postfix")})
        status, ours, _ = postconf(option, etc / "own.cf")
        assert (status, theirs.returncode) == (0, 0)
        # the other three templates are in words of our own
        ours, theirs = (re.split(r"^(?:expanded_)?delay_te", text, flags=re.M)[0] for text in (ours, theirs.stdout))
        assert ours.replace("EOF1", "EOF") == theirs.replace("EOF1", "EOF")


# --- replacing files ---

def test_mode_and_owner_stay(postconf, etc):
    main_cf = etc / "main.cf"
    main_cf.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(main_cf, 12345, 23456)
    before = main_cf.stat()
    assert postconf("-e", "own=x") == (0, "", "")
    after = main_cf.stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
    assert before.st_ino != after.st_ino  # never written in place
    assert main_cf.read_text() == "myhostname = mx.example.org\nown = x\nrelayhost = $own\n"


def test_symbolic_link_becomes_a_file(postconf, etc):
    (etc / "main.cf").rename(etc / "real.cf")
    (etc / "main.cf").symlink_to("real.cf")
    assert postconf("relayhost=x")[0] == 0
    assert not (etc / "main.cf").is_symlink() and "relayhost = x\n" in (etc / "main.cf").read_text()
    assert "relayhost = $own\n" in (etc / "real.cf").read_text()


def waits_for_lock(pid):
    with open("/proc/locks", encoding="ascii") as locks:
        return any("-> FLOCK" in line and f" {pid} " in line for line in locks)


def test_editor_waits_for_the_other(postconf, etc):
    with open(etc / "main.cf.tmp", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen([postconf.program, "-c", etc, "-e", "own=late"])
        try:
            deadline = time.monotonic() + 60
            while not waits_for_lock(waiting.pid):
                assert waiting.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            lock.write("early = 1\n")
            lock.flush()
            os.rename(etc / "main.cf.tmp", etc / "main.cf")
        except BaseException:
            waiting.kill()
            raise
    assert waiting.wait(60) == 0
    assert (etc / "main.cf").read_text() == "early = 1\nown = late\n"  # the newer file was read


def test_many_editors_at_once(postconf, etc):
    editors = [subprocess.Popen([postconf.program, "-c", etc, "-e", f"own{i}={i}"]) for i in range(20)]
    assert [editor.wait(60) for editor in editors] == [0] * 20
    settings = dict(line.split(" = ") for line in (etc / "main.cf").read_text().splitlines())
    assert {f"own{i}": str(i) for i in range(20)}.items() <= settings.items()
    assert sorted(os.listdir(etc)) == ["main.cf", "master.cf"]


@pytest.mark.parametrize("arguments, file", [(["-e", "a=b"], "main.cf"), (["-X", "a"], "main.cf"), (["-MX", "a/unix"], "master.cf"),
                                             (["-P", "a/unix/b=c"], "master.cf")])
def test_no_file(postconf, etc, arguments, file):
    (etc / file).unlink()
    assert postconf(*arguments) == (1, "", f"fatal: open {etc}/{file} for reading: No such file or directory\n")
    assert not (etc / f"{file}.tmp").exists()


def test_full_disk(postconf, etc):
    """A file that cannot be written whole does not replace the old one."""
    import resource
    before = (etc / "main.cf").read_text()
    status, _, errors = postconf("-e", "own=" + "x" * 9000,
                                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert status != 0 and (etc / "main.cf").read_text() == before


def test_edits_need_no_sound_file(postconf, etc):
    (etc / "main.cf").write_text("not a setting\nown = ${x\n")
    assert postconf("-n")[0] == 1
    assert postconf("-e", "own=x") == (0, "", "")
    assert (etc / "main.cf").read_text() == "not a setting\nown = x\n"
