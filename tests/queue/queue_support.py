"""What the tests of the queue share: mail, the listing, a server at the other end."""
import json
import os
import pwd
import socket
import threading

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
ME = f"{USER}@mail.example"


def send(instance, to, sender=ME, text="hello"):
    with instance.smtp() as smtp:
        refused = smtp.sendmail(sender, [to] if isinstance(to, str) else to, f"Subject: test\r\n\r\n{text}\r\n")
    assert not refused


def listing(instance):
    done = instance.command("postqueue", "-j", capture_output=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Sink:
    """An SMTP server that takes every message, when it is told to answer the last dot."""

    def __init__(self, port, held=False):
        self.go = threading.Event()
        if not held:
            self.go.set()
        self.messages = 0
        self.waiting = 0
        self.socket = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rwb") as peer:
            def say(line):
                peer.write(line + b"\r\n")
                peer.flush()
            say(b"220 sink ESMTP")
            for line in peer:
                verb = line[:4].upper()
                if verb == b"DATA":
                    say(b"354 go on")
                    while peer.readline() not in (b".\r\n", b""):
                        pass
                    self.waiting += 1
                    self.go.wait(60)
                    self.waiting -= 1
                    self.messages += 1
                say(b"221 bye" if verb == b"QUIT" else b"250 ok")
                if verb == b"QUIT":
                    return

    def close(self):
        self.go.set()
        self.socket.close()
