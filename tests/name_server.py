"""A name server that a test answers for."""
import socket
import threading

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset


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
