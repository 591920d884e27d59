"""A name server on a loopback address of its own, so that Debian's postfix, whose resolver knows port 53 only, can ask it."""
import os
import random
import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class ZoneServer:
    """`zone`: lines "name TYPE data"; data "!" is a failure (SERVFAIL). Names that are in no line do not exist."""

    def __init__(self, zone, port=53):
        self.records, self.names, self.broken, self.asked = {}, set(), set(), []
        for line in zone.splitlines():
            if line.strip():
                name, kind, data = line.split(None, 2)
                self.names.add(name)
                if data == "!":
                    self.broken.add((name, kind))
                else:
                    absolute = kind in ("PTR", "NS", "MX") and not data.endswith(".")
                    self.records.setdefault((name, kind), []).append(data + "." * absolute)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while True:
            self.host = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.{random.randrange(2, 255)}"
            try:
                self.socket.bind((self.host, port))
                break
            except PermissionError:
                port = 0
            except OSError:
                continue
        self.address = f"{self.host}:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def answer(self, query):
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if (name, kind) in self.broken:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif (name, kind) in self.records:
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *self.records[name, kind]))
        elif name not in self.names and not any(n.endswith("." + name) for n in self.names):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply

    def serve(self):
        while True:
            try:
                packet, client = self.socket.recvfrom(4096)
            except OSError:
                return
            self.socket.sendto(self.answer(dns.message.from_wire(packet)).to_wire(), client)

    def close(self):
        self.socket.close()


def with_resolver(command, host, directory):
    """The same command, which finds `host` in its resolv.conf: in a mount namespace of its own (root only)."""
    path = os.path.join(directory, "resolv.conf")
    with open(path, "w") as f:
        f.write(f"nameserver {host}\noptions timeout:2 attempts:2\n")
    return ["unshare", "-m", "sh", "-c", f'mount --bind {path} /etc/resolv.conf && exec "$@"', "sh", *command]
