"""Tables that change under running daemons: seen without a reload, never half of them, whatever the daemon may read."""
import os
import pathlib
import re
import smtplib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from instance import MASTER_CF, wait_for  # noqa: E402

CHROOTED = re.sub(r"(?m)^(cleanup +unix +n +-) n", r"\1 y", MASTER_CF)
assert CHROOTED != MASTER_CF
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can confine a daemon to a directory")


def replace(path, text, mode=0o644):
    """As careful editors do it."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.chmod(mode)
    os.rename(new, path)


def deliver(mail, to="someone@example.com"):
    """Where one message goes: the recipient of its delivery line."""
    before = len(re.findall(r"discard\[.*to=<", mail.log()))
    with mail.smtp() as s:
        s.sendmail("a@here.example", [to], "Subject: x\n\nx\n")
    lines = wait_for(lambda: re.findall(r"discard\[.*? to=<([^>]*)>", mail.log())[before:], what="a delivery")
    return lines[-1]


def delivered_to(mail, want, seconds=15, may_fail=False):
    """New sessions see the table as it is now, soon; `may_fail`: after temporary errors."""
    def look():
        try:
            return deliver(mail) == want
        except smtplib.SMTPException as e:
            assert may_fail and "(451, " in str(e), e
            return False
    return wait_for(look, seconds, f"mail to go to {want}")


MAIN = """
virtual_alias_maps = {kind}:{path}
default_transport = discard
local_transport = discard
relay_transport = discard
virtual_alias_domains =
smtpd_relay_restrictions = permit_mynetworks, reject
"""


@pytest.fixture(params=["plain", pytest.param("chroot", marks=needs_root)])
def mail(request, make_instance, tmp_path):
    def make(kind, text, mode=0o644, more=""):
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents:
            if os.access(parent, os.W_OK) and parent.owner() == tmp_path.owner() and parent != pathlib.Path("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o055) if os.geteuid() == 0 and parent != pathlib.Path("/") else None
        path = tmp_path / "virtual"
        path.write_text(text)
        path.chmod(mode)
        return make_instance(main_cf=MAIN.format(kind=kind, path=path) + more,
                             master_cf=None if request.param == "plain" else CHROOTED), path
    return make


@pytest.mark.parametrize("kind", ["hash", "cdb", "texthash", "regexp"])
def test_an_edited_text_is_seen(mail, kind):
    text = "/^someone@/ {}\n" if kind == "regexp" else "someone@example.com {}\n"
    running, path = mail(kind, text.format("first@example.com"))
    assert deliver(running) == "first@example.com"
    replace(path, text.format("second@example.com"))
    delivered_to(running, "second@example.com")
    path.write_text(text.format("third@example.com"))  # in place
    delivered_to(running, "third@example.com")


@pytest.mark.parametrize("kind", ["hash", "cdb"])
def test_an_index_is_seen(mail, kind):
    """Made, made anew, and, once the text has gone, all there is."""
    running, path = mail(kind, "someone@example.com first@example.com\n")
    assert deliver(running) == "first@example.com"
    replace(path, "someone@example.com second@example.com\n")
    assert running.command("postmap", f"{kind}:{path}").returncode == 0
    delivered_to(running, "second@example.com")
    replace(path, "someone@example.com third@example.com\n")
    assert running.command("postmap", f"{kind}:{path}").returncode == 0
    path.unlink()
    delivered_to(running, "third@example.com")
    assert "second@example.com" not in [deliver(running) for _ in range(3)]


@needs_root
def test_a_table_for_root_alone(mail):
    """mode 0600: read at the start, before the daemon gives up being root; a change is read by its successor."""
    running, path = mail("hash", "someone@example.com first@example.com\n", mode=0o600)
    assert deliver(running) == "first@example.com"
    replace(path, "someone@example.com second@example.com\n", mode=0o600)
    delivered_to(running, "second@example.com")
    running.wait_log("has changed -- restarting")
    assert "Permission denied" not in running.log()


def test_a_table_that_goes_and_comes_back(mail):
    """Without it mail waits: 4xx or deferred, never as if the table were empty."""
    running, path = mail("texthash", "someone@example.com first@example.com\n")
    assert deliver(running) == "first@example.com"
    path.unlink()

    def refused():
        try:
            deliver(running)
        except smtplib.SMTPException as e:
            return "45" in str(e)
        except TimeoutError:
            return True
        return False

    wait_for(refused, 30, "an error for a table that has gone")
    assert " to=<someone@example.com>, relay=" not in running.log()
    path.write_text("someone@example.com back@example.com\n")

    def back():
        try:
            return deliver(running) == "back@example.com"
        except smtplib.SMTPException:
            return False

    wait_for(back, 40, "the table to be back")


def test_a_text_written_slowly_is_never_half_read(mail):
    """In place, piece by piece: until it is quiet, the old one counts."""
    rows = "".join(f"user{i}@example.com x@example.com\n" for i in range(2000))
    running, path = mail("hash", rows + "someone@example.com first@example.com\n")
    assert deliver(running) == "first@example.com"
    seen = set()
    with open(path, "w") as f:
        for i in range(8):
            f.write(rows[i * len(rows) // 8:(i + 1) * len(rows) // 8])
            f.flush()
            seen.add(deliver(running))
            time.sleep(0.1)
        f.write("someone@example.com second@example.com\n")
    assert seen == {"first@example.com"}
    delivered_to(running, "second@example.com")


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="a sanitizer's runtime takes SIGBUS for its own")
def test_an_index_cut_short_under_a_daemon(mail):
    """No crash, and no answer as if it were empty; with its text beside it the text is used."""
    running, path = mail("hash", "someone@example.com first@example.com\n")
    assert running.command("postmap", f"hash:{path}").returncode == 0
    delivered_to(running, "first@example.com")
    index = path.with_name("virtual.lmdb")
    with open(index, "r+b") as f:
        f.truncate(1000)
    delivered_to(running, "first@example.com", 30, may_fail=True)
    assert not re.search(r"killed by signal|panic", running.log())
    assert " to=<someone@example.com>, relay=" not in running.log()


def test_table_freshness_index(make_instance, tmp_path):
    """Postfix's way: the index is the table; an old one is warned of and used; a missing one is an error."""
    mail = make_instance(start=False, main_cf="table_freshness = index\n")
    path = tmp_path / "t"
    path.write_text("a 1\n")

    def ask(kind):
        done = mail.command("postmap", "-q", "a", f"{kind}:{path}", capture_output=True)
        return done.returncode, done.stdout, done.stderr

    for kind, suffix in (("hash", "lmdb"), ("cdb", "cdb")):
        index = path.with_name(f"t.{suffix}")
        code, out, err = ask(kind)
        assert (code, out) == (1, "") and f"open database {index}: No such file or directory" in err
        assert mail.command("postmap", f"{kind}:{path}").returncode == 0
        assert ask(kind) == (0, "1\n", "")
        path.write_text("a 2\n")
        os.utime(path, (time.time() + 10, time.time() + 10))
        code, out, err = ask(kind)
        assert (code, out) == (0, "1\n") and f"database {index} is older than source file {path}" in err
        path.write_text("a 1\n")
        os.utime(path, (time.time() - 10, time.time() - 10))
    main_cf = mail.etc / "main.cf"
    main_cf.write_text(main_cf.read_text().replace("table_freshness = index", "table_freshness = source"))
    index.unlink()
    assert ask("cdb")[:2] == (0, "1\n")


def test_the_note_is_once_and_only_of_tables_in_use(make_instance, tmp_path):
    tmp_path.chmod(0o755)
    path = tmp_path / "virtual"
    path.write_text("someone@example.com first@example.com\n")
    unused = tmp_path / "unused"
    unused.write_text("a b\n")
    mail = make_instance(main_cf=MAIN.format(kind="hash", path=path) + f"sender_bcc_maps =\nrelocated_maps = hash:{unused}\n")
    for _ in range(4):
        deliver(mail)
    notes = [line for line in mail.log().splitlines() if "using the text file" in line and str(path) in line]
    assert notes and len(notes) == len({re.search(r"/(\w[\w-]*\[\d+\])", line).group(1) for line in notes}), notes
    assert "warning: table hash" not in mail.log()
