"""The other side of the SMTP client: a mail server, and a name server."""
import socket
import threading
import time

import dns.flags
import dns.message
import dns.rrset

from instance import free_port


class Server:
    """Takes mail and writes down what was said to it: `said` has (connection, line)."""

    def __init__(self, idle=None):
        """`idle`: seconds without a command after which it says 421 and closes."""
        self.port = free_port()
        self.idle = idle
        self.said = []
        self.connections = 0
        self.go = threading.Event()  # while it is not set, messages wait for their last reply
        self.go.set()
        self.in_data = 0
        self.socket = socket.create_server(("127.0.0.1", self.port), backlog=200)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            self.connected = time.monotonic()
            threading.Thread(target=self.serve, args=(client, self.connections), daemon=True).start()

    def serve(self, client, number):
        with client, client.makefile("rwb") as peer:
            def say(line):
                peer.write(line + b"\r\n")
                peer.flush()
            say(b"220 server ESMTP")
            client.settimeout(self.idle)
            accepted = 0
            try:
                for line in peer:
                    verb = line.split()[0].decode().upper()
                    self.said.append((number, line.strip().decode()))
                    if verb == "DATA" and not accepted:
                        say(b"503 5.5.1 no recipients")
                        continue
                    if verb == "DATA":
                        say(b"354 go on")
                        while peer.readline() not in (b".\r\n", b""):
                            pass
                        self.in_data += 1
                        self.go.wait(60)
                        self.in_data -= 1
                    if verb in ("EHLO", "LHLO"):
                        say(b"250-server\r\n250 PIPELINING")
                    elif verb == "RCPT" and b"refused" in line:
                        say(b"550 5.1.1 unknown")
                    else:
                        accepted = {"MAIL": 0, "RCPT": accepted + 1}.get(verb, accepted)
                        say(b"221 bye" if verb == "QUIT" else b"250 ok")
                    if verb == "QUIT":
                        return
            except TimeoutError:
                client.sendall(b"421 4.4.2 idle\r\n")
                self.said.append((number, "<closed>"))
                return
            except OSError:
                return
            self.said.append((number, "<lost>"))

    def verbs(self, number):
        return [line.split()[0] for n, line in self.said if n == number]

    def close(self):
        self.go.set()
        self.socket.close()


class Names:
    """Answers from `zone`, {(name, type): (ttl, [data])}, and counts questions."""

    def __init__(self, zone):
        self.zone = zone
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                packet, client = self.socket.recvfrom(4096)
            except OSError:
                return
            query = dns.message.from_wire(packet)
            question = query.question[0]
            key = (question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype))
            self.asked.append(key)
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.RA
            if key in self.zone:
                ttl, data = self.zone[key]
                answer.answer.append(dns.rrset.from_text(question.name, ttl, "IN", key[1], *data))
            self.socket.sendto(answer.to_wire(), client)

    def close(self):
        self.socket.close()
