"""memcache: (memcache_table(5)) with a real memcached, and beside Debian's postmap on the same server."""
import contextlib
import hashlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import servers  # noqa: E402
from instance import build_directory, free_port  # noqa: E402
from oracle import Oracle  # noqa: E402
from servers import Memcached, Scripted, seconds  # noqa: E402

pytestmark = pytest.mark.skipif(not os.path.exists(servers.MEMCACHED), reason="memcached is not installed")


@pytest.fixture(scope="module")
def memcached():
    with Memcached() as server:
        for key, value in {b"k": b"value", b"nl": b"a\nb", b"blanks": b" a b ", b"u:user": b"of user",
                           b"10k": b"x" * 10240, b"over": b"x" * 10241, b"\xc3\xbc": b"umlaut", b"x" * 250: b"long",
                           b"user@example.com": b"address", b"a:k": b"prefixed"}.items():
            server.set(key, value)
        yield server


class Client:
    def __init__(self, directory, program, env):
        self.directory, self.program, self.env = directory, program, {**env, "LC_ALL": "C"}

    def run(self, text, *args, stdin=b""):
        path = self.directory / "table.cf"
        path.write_text(text)
        done = subprocess.run([self.program, *args, f"memcache:{path}"], env=self.env, input=stdin, timeout=60,
                              capture_output=True)
        return done.returncode, done.stdout, done.stderr.decode(errors="replace")

    def ask(self, text, *keys):
        keys = [k if isinstance(k, bytes) else k.encode() for k in keys]
        if len(keys) == 1:
            return self.run(text, "-q", keys[0])
        return self.run(text, "-q", "-", stdin=b"".join(k + b"\n" for k in keys))


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ours")
    (directory / "main.cf").write_text(f"""\
compatibility_level = 3.6
myhostname = oracle.example
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
daemon_directory = {build_directory()}/libexec
""")
    return Client(directory, str(build_directory() / "sbin/postmap"), {**os.environ, "MAIL_CONFIG": str(directory)})


@pytest.fixture(scope="module")
def debian():
    reason = Oracle.why_not()
    if reason:
        pytest.skip(reason)
    oracle = Oracle()
    oracle.write()
    main_cf = oracle.directory / "etc/main.cf"
    main_cf.write_text(re.sub(r"meta_directory = .*", f"meta_directory = {oracle.directory}/etc", main_cf.read_text()))
    yield Client(oracle.directory, str(oracle.root / "usr/sbin/postmap"), oracle.environment())
    oracle.stop()


def settings(server, **changes):
    rows = {"memcache": f"inet:127.0.0.1:{server.port}", **changes}
    return "".join(f"{name} = {value}\n" for name, value in rows.items())


HOSTILE = ["k", "K", "nosuch", "nl", "blanks", "a b", "a\tb", "k\x01", "k\x7f", "\u00fc", b"\xff", "x" * 250, "k\rget k",
           "k 0 0 1", "*", "%s", "10k"]
SAME = {
    "keys": ({}, HOSTILE),
    "key_format": (dict(key_format="a:%s"), ["k", "K", "user@example.com"]),
    "parts of the key": (dict(key_format="u:%u"), ["user@example.com", "user@other.example", "k"]),
    "needs a domain": (dict(key_format="%u%%%d"), ["k", "user@example.com"]),
    "blank in key_format": (dict(key_format="a %s"), ["k"] * 2),
    "domain": (dict(domain="example.com"), ["k", "user@example.com", "@example.com"]),
    "data_size_limit met": (dict(data_size_limit=5), ["k"] * 2),
    "unix": (dict(memcache="unix:{path}"), ["k", "nosuch"]),
}
FAILING = {
    "data_size_limit": (dict(data_size_limit=4), "k"),
    "default data_size_limit": ({}, "over"),
    "line_size_limit": (dict(line_size_limit=8), "k"),
    "long key": ({}, "x" * 251),
    "no server": (dict(memcache="inet:127.0.0.1:{dead}"), "k"),
    "no socket": (dict(memcache="unix:/nonexistent"), "k"),
    "no type": (dict(memcache="127.0.0.1:{dead}"), "k"),
    "no port": (dict(memcache="inet:127.0.0.1"), "k"),
    "max_try 0": (dict(max_try=0), "k"),
    "retry_pause 0": (dict(retry_pause=0), "k"),
    "line_size_limit 0": (dict(line_size_limit=0), "k"),
    "data_size_limit 0": (dict(data_size_limit=0), "k"),
    "timeout x": (dict(timeout="x"), "k"),
    "ttl x": (dict(ttl="x"), "k"),
    "flags x": (dict(flags="x"), "k"),
    "unknown expansion": (dict(key_format="%x"), "k"),
    "unknown backup": (dict(backup="nosuch:type"), "other"),
    "failing backup": (dict(backup="fail:always"), "other"),
}


@pytest.mark.parametrize("name", SAME)
def test_same_as_debians(ours, debian, memcached, name):
    changes, keys = SAME[name]
    with contextlib.ExitStack() as stack:
        if name == "unix":
            local = stack.enter_context(Memcached(unix=True))
            local.set(b"k", b"by socket")
            changes = dict(memcache=f"unix:{local.path}")
        mine, theirs = (side.ask(settings(memcached, **changes), *keys) for side in (ours, debian))
    assert mine[:2] == theirs[:2], (mine, theirs)


@pytest.mark.parametrize("name", FAILING)
def test_fails_as_debians(ours, debian, memcached, name):
    changes, key = FAILING[name]
    changes = {k: v.format(dead=free_port()) if k == "memcache" else v for k, v in changes.items()}
    mine, theirs = (side.ask(settings(memcached, **changes), key) for side in (ours, debian))
    assert mine[:2] == theirs[:2] == (1, b""), (mine, theirs)
    assert mine[2]


def test_key_digest(ours, memcached):
    """Keys too long for memcached: the digest of the formatted key, in hexadecimal."""
    key = "k" * 1000
    for name in ("sha256", "sha1"):
        memcached.set(getattr(hashlib, name)(f"p:{key}".encode()).hexdigest().encode(), name.encode())
        answer = ours.ask(settings(memcached, key_format="p:%s", key_digest=name), key)
        assert answer[:2] == (0, name.encode() + b"\n"), answer
    status, _, err = ours.ask(settings(memcached, key_digest="nosuch"), key)
    assert status == 1 and "key_digest" in err


def test_backup_fills_memcached(ours, memcached):
    text = settings(memcached, backup="inline:{fill=filled}", ttl=77, flags=5, key_format="b:%s")
    assert ours.ask(text, "fill", "nofill")[:2] == (0, b"fill\tfilled\n")
    reply = memcached.ask(b"get b:fill")
    assert reply == b"VALUE b:fill 5 6\r\nfilled\r\nEND\r\n"
    memcached.set(b"b:fill", b"newer")
    assert ours.ask(text, "fill")[:2] == (0, b"newer\n"), "memcached is asked first"
    # keys that memcached cannot have are the backup's alone
    assert ours.ask(settings(memcached, backup="static:blank"), "a b")[:2] == (0, b"blank\n")


def test_ttl(ours):
    with Scripted(answering({b"get": b"END\r\n", b"set": b"STORED\r\n"})) as server:
        ours.ask(settings(server, backup="inline:{k=bk}", ttl=77, flags=5), "k")
    assert server.received == [b"get k\r\n", b"set k 5 77 2\r\nbk\r\n"]


def test_backup_without_memcached(ours):
    text = f"memcache = inet:127.0.0.1:{free_port()}\nbackup = inline:{{k=bk}}\n"
    assert ours.ask(text, "k")[:2] == (0, b"bk\n")
    assert ours.ask(text, "nosuch")[:2] == (1, b"")


def test_backup_in_an_index(ours, memcached):
    """memcached and lmdb: as a cache is kept; what is deleted is gone from both, and the list is the backup's."""
    (ours.directory / "cache").write_text("one first\ntwo second\n")
    made = subprocess.run([ours.program, f"lmdb:{ours.directory}/cache"], env=ours.env, capture_output=True, timeout=60)
    assert made.returncode == 0, made.stderr
    text = settings(memcached, backup=f"lmdb:{ours.directory}/cache", key_format="i:%s")
    assert ours.run(text, "-s") == (0, b"one\tfirst\ntwo\tsecond\n", "")
    assert ours.ask(text, "one", "two", "three")[:2] == (0, b"one\tfirst\ntwo\tsecond\n")
    assert memcached.get(b"i:one") == b"first"
    assert ours.run(text, "-d", "one") == (0, b"", "")
    assert memcached.get(b"i:one") is None and memcached.get(b"i:two") == b"second"
    assert ours.ask(text, "one")[:2] == (1, b"")
    assert ours.run(text, "-s") == (0, b"two\tsecond\n", "")
    assert ours.run(text, "-d", "-", stdin=b"none\ntwo\n") == (0, b"", "")
    assert ours.run(text, "-d", "two")[0] == 1
    # without a backup there is nothing to list, but there is something to delete
    memcached.set(b"k1", b"x")
    status, _, err = ours.run(settings(memcached), "-s")
    assert status == 1 and "only a table with a backup can be listed" in err
    assert ours.run(settings(memcached), "-d", "k1") == (0, b"", "") and memcached.get(b"k1") is None


def answering(answers):
    """A server that answers each command by its first word; None: with nothing; an empty answer hangs up."""
    def serve(connection, _):
        while data := connection.recv(65536):
            server_received.append(data)
            answer = answers.get(data.split(b" ")[0])
            if answer == b"":
                return
            if answer is not None:
                connection.sendall(answer)
    server_received = serve.received = []
    return serve


@pytest.mark.parametrize("reply", [b"VALUE q 0 3\r\nabc\r\nEND\r\n", b"VALUE k 0 3\r\nabcdEND\r\n", b"GARBAGE\r\n", b"",
                                   b"SERVER_ERROR oops\r\n", b"END\r\nEND\r\n", b"VALUE k 0 3\r\na\0c\r\nEND\r\n"])
def test_bad_replies(ours, reply):
    with Scripted(answering({b"get": reply})) as server:
        status, out, err = ours.ask(settings(server), "k")
    assert (status, out) == (1, b"") and err and "abc" not in err


def test_tries(ours):
    with Scripted(answering({b"get": b""})) as server:
        took, answer = seconds(lambda: ours.ask(settings(server, max_try=3), "k"))
        assert answer[0] == 1 and server.connections == 3 and took >= 2, "two pauses of a second"

    def second_time(connection, number):
        connection.recv(1000)
        if number > 1:
            connection.sendall(b"VALUE k 0 2\r\nok\r\nEND\r\n")
            connection.recv(1000)

    with Scripted(second_time) as server:
        assert ours.ask(settings(server), "k")[:2] == (0, b"ok\n")


def test_defaults(ours):
    """Two tries with a pause of a second; values of up to 10240 bytes."""
    with Scripted(answering({b"get": b""})) as server:
        took, answer = seconds(lambda: ours.ask(settings(server), "k"))
        assert answer[0] == 1 and server.connections == 2 and took >= 1

    def value(size):
        return answering({b"get": b"VALUE k 0 %d\r\n%s\r\nEND\r\n" % (size, b"v" * size)})

    with Scripted(value(10240)) as server:
        assert ours.ask(settings(server), "k")[:2] == (0, b"v" * 10240 + b"\n")
    with Scripted(value(10241)) as server:
        assert ours.ask(settings(server, max_try=1), "k")[0] == 1


def test_a_hanging_server_is_bounded(ours):
    with Scripted() as server:
        took, answer = seconds(lambda: ours.ask(settings(server, timeout=1, max_try=1), "k"))
        assert answer[:2] == (1, b"") and 1 <= took < 30
        # after that it rests: the second key does not wait
        took, answer = seconds(lambda: ours.ask(settings(server, timeout=2, max_try=1, backup="inline:{a=1,b=2,c=3}"),
                                                "a", "b", "c"))
        assert answer[:2] == (0, b"a\t1\nb\t2\nc\t3\n")
        assert server.connections == 2, "asked again while it should rest"
