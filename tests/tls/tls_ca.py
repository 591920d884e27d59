"""A small certificate authority for tests, made with openssl(1): nothing of it leaves the test's directory."""
import datetime
import socket
import ssl
import subprocess


class TestCA:
    __test__ = False

    def __init__(self, directory, name="Test CA"):
        self.directory = directory
        self.name = name
        self.made = 0
        self.above = ""  # certificates between those it makes and the one that is trusted
        directory.mkdir(parents=True, exist_ok=True)
        self.cert = directory / "ca.pem"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                      "ca.key", "-out", "ca.pem", "-days", "3650", "-subj", f"/CN={name}")

    def _openssl(self, *args):
        return subprocess.run(["openssl", *args], cwd=self.directory, check=True, capture_output=True, text=True,
                              timeout=60).stdout

    def make(self, name, key="rsa:2048", usage="serverAuth", days=3650):
        """A key and a certificate: returns (key, certificate, chain): paths; the chain file has both, and what leads to
        the authority. `days` below 0: it has ended that long ago."""
        self.made += 1
        base = f"{name}-{self.made}"
        kind, _, curve = key.partition(":")
        algorithm = [key] if kind == "rsa" else [kind] + (["-pkeyopt", f"ec_paramgen_curve:{curve}"] if curve else [])
        self._openssl("req", "-new", "-newkey", *algorithm, "-nodes", "-keyout", f"{base}.key", "-out", f"{base}.csr",
                      "-subj", f"/CN={name}")
        (self.directory / f"{base}.ext").write_text(f"subjectAltName=DNS:{name}\nextendedKeyUsage={usage}\n")
        self._sign(base, days)
        paths = [self.directory / f"{base}.{kind}" for kind in ("key", "pem", "chain")]
        paths[2].write_text(paths[0].read_text() + paths[1].read_text() + self.above)
        return paths

    def _sign(self, base, days):
        if int(days) >= 0:
            self._openssl("x509", "-req", "-in", f"{base}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                          "-days", str(days), "-extfile", f"{base}.ext", "-out", f"{base}.pem")
            return
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=int(days))
        begin = end - datetime.timedelta(days=30)
        (self.directory / "index.txt").write_text("")
        (self.directory / "ca.cnf").write_text("[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\nnew_certs_dir=.\n"
                                               "default_md=sha256\npolicy=p\nrand_serial=yes\n[p]\n"
                                               "commonName=supplied\n")
        self._openssl("ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", "-in",
                      f"{base}.csr", "-out", f"{base}.pem", "-extfile", f"{base}.ext", "-startdate",
                      f"{begin:%Y%m%d%H%M%SZ}", "-enddate", f"{end:%Y%m%d%H%M%SZ}")

    def intermediate(self, name):
        """An authority below this one."""
        below = TestCA(self.directory / f"below-{name.replace(' ', '-')}", name)
        (below.directory / "ca.ext").write_text("basicConstraints=critical,CA:TRUE\n")
        below._openssl("req", "-new", "-key", "ca.key", "-out", "ca.csr", "-subj", f"/CN={name}")
        below._openssl("x509", "-req", "-in", "ca.csr", "-CA", str(self.cert), "-CAkey",
                       str(self.directory / "ca.key"), "-CAcreateserial", "-days", "3650", "-extfile", "ca.ext", "-out",
                       "ca.pem")
        below.above = below.cert.read_text() + self.above
        return below

    def hash(self):
        return self._openssl("x509", "-in", "ca.pem", "-noout", "-hash").strip()

    def fingerprint(self, cert, digest="sha256"):
        return self._openssl("x509", "-in", str(cert), "-noout", "-fingerprint", f"-{digest}").split("=")[1].strip()


def client_context(chain=None, highest=None, lowest=None, ciphers=None):
    """Of a client that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if ciphers:
        context.set_ciphers(ciphers)
    if lowest:
        context.minimum_version = lowest
    if highest:
        context.maximum_version = highest
    if chain:
        context.load_cert_chain(chain)
    return context


class TlsClient:
    """An SMTP client; `transcript` has all replies."""

    def __init__(self, port, wrapped=False, context=None, name=None, session=None):
        self.context = context or client_context()
        self.name, self.session = name, session
        self.transcript = []
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        if wrapped:
            self._wrap()
        self.file = self.socket.makefile("rb")
        self.reply()

    def _wrap(self):
        self.socket = self.context.wrap_socket(self.socket, server_hostname=self.name, session=self.session)

    def reply(self):
        lines = []
        while not lines or lines[-1][3:4] == "-":
            lines.append(self.file.readline().decode(errors="replace").rstrip("\r\n"))
        self.transcript += lines
        return lines

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def command(self, line):
        self.send(line + "\r\n")
        return self.reply()

    def starttls(self):
        lines = self.command("STARTTLS")
        if lines[-1].startswith("220"):
            self._wrap()
            self.file = self.socket.makefile("rb")
        return lines

    def hello(self):
        """EHLO, STARTTLS, EHLO: the second answer."""
        self.command("EHLO client.example")
        self.starttls()
        return self.command("EHLO client.example")

    def mail(self, recipient="a@localhost", sender="x@x.example"):
        self.command(f"MAIL FROM:<{sender}>")
        self.command(f"RCPT TO:<{recipient}>")
        self.command("DATA")
        return self.command("Subject: t\r\n\r\nhello\r\n.")[-1]

    def peer_common_name(self):
        der = self.socket.getpeercert(True)
        text = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "multiline"],
                              input=der, capture_output=True, check=True, timeout=60).stdout.decode()
        return text.split("commonName")[1].split("=")[1].strip()

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
