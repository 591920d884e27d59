"""postscreen in front of smtpd, here and with Debian's Postfix, and a client that notes what it hears."""
import contextlib
import re
import socket
import time

import instance
import oracle
from instance import Instance, wait_for

DOORS = """\
127.0.0.1:{port} inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
"""
MAIN = """\
mynetworks = 192.0.2.0/24
mydestination = localhost
local_recipient_maps =
postscreen_greet_wait = 1s
myhostname = mx.example
mail_name = Postfix
"""


class Screen(Instance):
    def __init__(self, main_cf="", **kwargs):
        super().__init__(main_cf=MAIN + main_cf, **kwargs)

    def write_config(self):
        self.master_cf = instance.MASTER_CF.replace("{smtpd}", DOORS.format(port=self.port))
        super().write_config()


class OracleScreen(oracle.Oracle):
    def __init__(self, main_cf=""):
        super().__init__(main_cf=MAIN + main_cf)

    def write(self):
        super().write()
        path = self.directory / "etc/master.cf"
        old = f"127.0.0.1:{self.port} inet n - n - - smtpd\n"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, DOORS.format(port=self.port)))


class Client:
    """say() and hear() fill `heard`, a list of what came."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.port = self.socket.getsockname()[1]
        self.heard = []
        self.unread = ""

    def say(self, text):
        with contextlib.suppress(OSError):
            self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def hear(self, lines=1, seconds=30):
        """So many whole reply lines, or less at the end ("<end>")."""
        text = ""
        self.socket.settimeout(seconds)
        while text.count("\n") < lines:
            try:
                got = self.socket.recv(4096)
            except TimeoutError:
                break
            except ConnectionResetError:
                got = b""
            if not got:
                text += "<end>"
                break
            text += got.decode()
        self.heard.append(text)
        return text

    def reply(self, seconds=30):
        """A whole reply, also of many lines; what came with it is the beginning of the next."""
        text = ""
        while True:
            line, end, rest = self.unread.partition("\n")
            if end:
                self.unread = rest
                text += line + end
                if line[3:4] != "-":
                    return text
                continue
            more = self.hear(seconds=seconds)
            if not more or more.endswith("<end>"):
                text, self.unread = text + self.unread + more, ""
                return text
            self.unread += more

    def close(self):
        self.socket.close()


def lines_of(log):
    """What postscreen logged, without what differs from run to run."""
    found = []
    for line in log.splitlines():
        if "/postscreen[" not in line:
            continue
        text = line.split("]: ", 1)[1]
        if "full cleanup" in text or text.startswith("warning: "):
            continue
        text = re.sub(r"\]:\d+", "]:PORT", text)
        found.append(re.sub(r" after [0-9.]+ from", " after T from", text))
    return found


def play(server, script):
    """One connection: a number waits so many replies, None closes, text is said. What was heard."""
    client = Client(server.port)
    for step in script:
        if step is None:
            break
        if isinstance(step, float):
            time.sleep(step)
        elif isinstance(step, int):
            for _ in range(step):
                client.reply()
        else:
            client.say(step)
    client.close()
    return "".join(client.heard)


__all__ = ["Client", "OracleScreen", "Screen", "lines_of", "play", "wait_for"]
