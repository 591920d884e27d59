"""An SMTP server for tests of a client's TLS, in one process with the test: one listener for each way to behave."""
import contextlib
import ssl
import socket
import threading

from instance import free_port


def server_context(chain, ca=None, lowest=None, highest=None, ciphers=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    if ciphers:
        context.set_ciphers(ciphers)
    if lowest:
        context.minimum_version = lowest
    if highest:
        context.maximum_version = highest
    if ca:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class TlsSink:
    """`said`: (connection, line, encrypted) of each command; `handshakes`: (protocol, SNI name, resumed, client's
    certificate in DER or None) of each that succeeded.

    How it behaves:
      offer         STARTTLS stands in the answer to EHLO
      answer        what it says to STARTTLS; a second line there is plain text behind the reply
      wrapped       TLS from the first byte on
      at_handshake  instead of a handshake: "close", "garbage", "alert", "stall", or None
      after         after the handshake: "close" before EHLO is answered, "mail" closes at MAIL, "offer" offers STARTTLS
                    again, "refuse" answers EHLO with 500"""

    def __init__(self, context=None, port=None, offer=True, answer=b"220 2.0.0 go ahead\r\n", wrapped=False,
                 at_handshake=None, after=None, lmtp=False, name=None):
        self.context, self.offer, self.answer, self.wrapped = context, offer, answer, wrapped
        self.at_handshake, self.after, self.lmtp, self.name = at_handshake, after, lmtp, name or "sink.example"
        self.port = port or free_port()
        self.said, self.handshakes, self.messages, self.names = [], [], [], {}
        self.connections = 0
        if context:
            context.sni_callback = self._sni
        self.ended = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", self.port), backlog=200)
        threading.Thread(target=self._accept, daemon=True).start()

    def _sni(self, sock, name, context):
        self.names[id(sock)] = name

    def _accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client, self.connections), daemon=True).start()

    def _serve(self, client, number):
        with contextlib.suppress(OSError, ssl.SSLError):
            client.settimeout(120)
            if self.wrapped:
                client = self._handshake(client)
            with client:
                self._converse(client, number)

    def _handshake(self, client):
        if self.at_handshake:
            if self.at_handshake == "garbage":
                client.recv(65536)
                client.sendall(b"this is no handshake at all\r\n" * 20)
            elif self.at_handshake == "close":
                client.recv(65536)  # what is not read turns the close into a reset
            elif self.at_handshake == "alert":
                client.recv(65536)
                client.sendall(b"\x15\x03\x03\x00\x02\x02\x28")
            elif self.at_handshake == "stall":
                self.ended.wait(60)
            client.close()
            raise OSError
        wrapped = self.context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        wrapped.do_handshake()
        cert = wrapped.getpeercert(True) if self.context.verify_mode != ssl.CERT_NONE else None
        self.handshakes.append((wrapped.version(), self.names.pop(id(wrapped), None), wrapped.session_reused, cert))
        return wrapped

    def _converse(self, client, number):
        peer = client.makefile("rwb")
        encrypted = isinstance(client, ssl.SSLSocket)

        def say(text):
            peer.write(text)
            peer.flush()
        say(b"220 %s ESMTP\r\n" % self.name.encode())
        while line := peer.readline():
            verb = line.split()[0].decode(errors="replace").upper() if line.split() else ""
            self.said.append((number, line.strip().decode(errors="replace"), encrypted))
            if verb in ("EHLO", "LHLO", "HELO"):
                if encrypted and self.after == "close":
                    client.close()
                    return
                if encrypted and self.after == "refuse":
                    say(b"500 5.5.1 no\r\n")
                    continue
                offer = self.offer and (not encrypted or self.after == "offer")
                lines = [self.name.encode(), b"PIPELINING"] + ([b"STARTTLS"] if offer else []) + [b"DSN"]
                say(b"".join(b"250-%s\r\n" % one for one in lines[:-1]) + b"250 %s\r\n" % lines[-1])
            elif verb == "STARTTLS":
                say(self.answer)
                if self.answer.startswith(b"220"):
                    client = self._handshake(client)
                    peer = client.makefile("rwb")
                    encrypted = True
            elif verb == "DATA":
                say(b"354 go on\r\n")
                text = b""
                while (one := peer.readline()) != b".\r\n":
                    if not one:
                        return
                    text += one
                self.messages.append((number, text, encrypted))
                say(b"250 2.0.0 ok\r\n")
            elif verb == "QUIT":
                say(b"221 2.0.0 bye\r\n")
                return
            elif verb == "MAIL" and encrypted and self.after == "mail":
                client.close()
                return
            else:
                say(b"250 2.0.0 ok\r\n")

    def verbs(self, number=None):
        return [line.split()[0] for n, line, _ in self.said if line and number in (None, n)]

    def close(self):
        self.ended.set()
        self.socket.close()
