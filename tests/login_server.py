"""A login server that speaks Dovecot's authentication protocol and knows no passwords: what comes of a login is what the
client says, in base64, and `lines` is what it was asked. For dialogues (the unit test has the same in
src/smtpd/harness.c) and for servers that misbehave."""
import base64
import os
import socket
import threading

GREETING = ("VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nMECH\tCRAM-MD5\tdictionary\tactive\n"
            "MECH\tANONYMOUS\tanonymous\nMECH\tEXTERNAL\tprivate\nMECH\tXMUT\tmutual-auth\tforward-secrecy\n"
            "SPID\t99\nCUID\t5\nCOOKIE\tabcd\nDONE\n")
ANSWERS = {
    "good": "OK\t{}\tuser=joe\n",
    "mask": "OK\t{}\tuser=a(b)\\c\n",
    "fail": "FAIL\t{}\tuser=joe\n",
    "reason": "FAIL\t{}\tuser=joe\treason=Because\tcode=authz_fail\n",
    "nouser": "FAIL\t{}\n",
    "temp": "FAIL\t{}\tuser=joe\ttemp\n",
    "more": "CONT\t{}\tbW9yZQ==\n",
    "empty": "CONT\t{}\t\n",
    "oknouser": "OK\t{}\n",
    "badchallenge": "CONT\t{}\t%%%\n",
    "nonumber": "OK\n",
    "long": "FAIL\t{}\tuser=" + "u\x01n" * 400 + "\treason=" + "r" * 3000 + "\n",
    "endless": "x" * 100_000,
    "close": None,
}


def word(text):
    """What a client says to get that answer."""
    return base64.b64encode(text.encode()).decode()


class LoginServer:
    def __init__(self, at, greeting=GREETING):
        """`at`: a path, or (host, port). Anybody may connect."""
        self.lines, self.connections, self.greeting = [], 0, greeting
        self.clients = set()
        unix = not isinstance(at, tuple)
        self.listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(str(at) if unix else at)
        if unix:
            os.chmod(at, 0o777)
        self.listener.listen(50)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.clients.add(client)
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            client.sendall(self.greeting.encode())
            for line in client.makefile("r", newline="\n"):
                self.lines.append(line.rstrip("\n"))
                answer = self.answer(self.lines[-1].split("\t"))
                if answer is None:
                    break
                client.sendall(answer.encode())
        except OSError:
            pass
        finally:
            self.drop(client)

    @staticmethod
    def answer(fields):
        if fields[0] not in ("AUTH", "CONT"):
            return ""
        if fields[0] == "AUTH" and not fields[-1].startswith("resp="):
            return f"CONT\t{fields[1]}\tY2hhbA==\n"
        said = fields[-1].removeprefix("resp=") if fields[0] == "AUTH" else fields[2]
        try:
            said = base64.b64decode(said, validate=True).decode()
        except ValueError:
            said = ""
        answer = ANSWERS.get(said, "FAIL\t{}\tuser=unknown\n")
        return answer and answer.replace("{}", fields[1])

    def drop(self, client):
        self.clients.discard(client)
        try:
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        client.close()

    def stop(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for client in list(self.clients):
            self.drop(client)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
