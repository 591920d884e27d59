"""private/proxywrite in a running system: what a cache's user asks (put, get, delete, list), as postmap asks it and over the
wire; nothing is written that proxy_write_maps does not name, nor through proxymap."""
import socket
import struct

import pytest

GET, PUT, DELETE, FIRST, NEXT = range(1, 6)  # enum table_ask
FOUND, NOT_FOUND, ERROR = range(3)  # enum table_result
FOLD, WRITE = 1, 16  # enum table_flags
ASK, ANSWER = 1, 2


class Asker:
    """One connection, framed as run/ipc.h and proto/lookup.h say."""

    def __init__(self, instance, service):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(instance.queue / "private" / service))

    def read(self, n):
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            assert more, "the service hung up"
            data += more
        return data

    def ask(self, what, spec, key="", value="", flags=FOLD | WRITE):
        payload = struct.pack("<BBI", what, 1, flags)
        for text in (spec, key, value):
            payload += struct.pack("<I", len(text.encode())) + text.encode()
        self.socket.sendall(struct.pack("<IBB", len(payload), ASK, 0) + payload)
        size, kind, _ = struct.unpack("<IBB", self.read(6))
        assert kind == ANSWER
        reply = self.read(size)
        result, rest, texts = reply[0], reply[1:], []
        while rest:
            n, = struct.unpack("<I", rest[:4])
            texts.append(rest[4:4 + n].decode())
            rest = rest[4 + n:]
        return (result, *texts[:2])

    def close(self):
        self.socket.close()


@pytest.fixture
def running(make_instance):
    i = make_instance(start=False, master_extra="proxywrite unix - - n - 1 proxymap\n")
    i.cache = f"lmdb:{i.data}/cache"
    main_cf = i.etc / "main.cf"
    main_cf.write_text(main_cf.read_text() + f"proxy_write_maps = proxy:{i.cache}\nproxy_read_maps = proxy:{i.cache}\n")
    return i.start()


def test_put_get_delete_list(running):
    asker = Asker(running, "proxywrite")
    try:
        assert asker.ask(GET, running.cache, "a")[0] == NOT_FOUND
        for key, value in (("A", "1"), ("b", "2"), ("c", "x y"), ("b", "22")):
            assert asker.ask(PUT, running.cache, key, value)[0] == FOUND
        assert asker.ask(GET, running.cache, "B") == (FOUND, "", "22")
        listed, entry = {}, asker.ask(FIRST, running.cache)
        while entry[0] == FOUND:
            listed[entry[1]] = entry[2]
            entry = asker.ask(NEXT, running.cache, entry[1])
        assert entry[0] == NOT_FOUND and listed == {"a": "1", "b": "22", "c": "x y"}
        assert asker.ask(DELETE, running.cache, "b")[0] == FOUND
        assert asker.ask(DELETE, running.cache, "b")[0] == NOT_FOUND
        assert asker.ask(GET, running.cache, "b")[0] == NOT_FOUND
    finally:
        asker.close()

    def postmap(*args):
        done = running.command("postmap", *args, f"proxy:{running.cache}", capture_output=True)
        return done.returncode, done.stdout, done.stderr

    assert postmap("-q", "a") == (0, "1\n", "")
    assert postmap("-s") == (0, "a\t1\nc\tx y\n", "")
    assert postmap("-d", "a") == (0, "", "")
    assert postmap("-d", "a") == (1, "", "")
    assert postmap("-s") == (0, "c\tx y\n", "")


@pytest.mark.parametrize("service", ["proxymap", "proxywrite"])
def test_what_may_not_be_written(running, service):
    other = f"lmdb:{running.data}/other"
    asker = Asker(running, service)
    try:
        for what in (PUT, DELETE, GET, FIRST):
            assert asker.ask(what, other, "a", "1")[0] == ERROR, what
        if service == "proxymap":
            assert asker.ask(PUT, running.cache, "a", "1")[0] == ERROR
        assert asker.ask(PUT, running.cache, "a", "1", flags=FOLD)[0] == ERROR, "opened for reading"
    finally:
        asker.close()
    assert not list(running.data.glob("other*"))
    running.wait_log(f'request for unauthorized table: "proxy:{other}"', 20)


def test_postmap_needs_the_service(make_instance):
    i = make_instance(main_cf="proxy_write_maps = proxy:lmdb:/nonexistent\n")
    done = i.command("postmap", "-d", "a", "proxy:lmdb:/nonexistent", capture_output=True)
    assert done.returncode == 1 and "proxywrite service of the mail system" in done.stderr
