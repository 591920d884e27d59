"""slapd and memcached as private processes on loopback, and a server that misbehaves: what the tests of ldap: and
memcache: talk to. Each has its own directory; nothing of the system's own is read or changed."""
import contextlib
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from instance import free_port, wait_for  # noqa: E402

SLAPD = shutil.which("slapd", path="/usr/sbin:/usr/lib/openldap:/usr/bin") or "/usr/sbin/slapd"
SLAPADD = "/usr/sbin/slapadd"
MEMCACHED = "/usr/bin/memcached"
PASSWORD = "lookmeup"
MAIL_DN = "uid=mailer,dc=example,dc=com"

SLAPD_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
attributetype ( 1.3.6.1.4.1.99999.1 NAME 'mailacceptinggeneralid' EQUALITY caseIgnoreMatch
  SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.99999.2 NAME 'maildrop' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.99999.3 NAME 'memberdn' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.99999.4 NAME 'memberaddr' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.99999.5 NAME 'blob' SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
objectclass ( 1.3.6.1.4.1.99999.11 NAME 'mailthing' SUP top STRUCTURAL
  MAY ( uid $ cn $ mail $ maildrop $ mailacceptinggeneralid $ memberdn $ memberaddr $ userPassword $ blob $
  associatedDomain $ description ) )
pidfile {directory}/pid
modulepath /usr/lib/ldap
moduleload back_mdb
sasl-secprops none
authz-regexp "^gidNumber=0[+]uidNumber=0,cn=peercred,cn=external,cn=auth$" "{mail_dn}"
authz-regexp "^uid=([^,]+),cn=lookup,cn=[^,]+,cn=auth$" "uid=$1,dc=example,dc=com"
sasl-realm lookup
authz-policy to
{tls}
database mdb
directory {directory}/db
suffix "dc=example,dc=com"
maxsize 10485760
dbnosync
access to attrs=userPassword by * auth
{access}
"""
# who may read: everybody, but not below ou=private
ACCESS = """\
access to dn.subtree="ou=private,dc=example,dc=com" by dn.exact="{mail_dn}" read by * none
access to * by * read
"""


class Certificates:
    """A CA, certificates of localhost and of another host, and one of a client; and a CA that signed none of them."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        for ca in ("ca", "otherca"):
            self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                          "-subj", f"/CN=test {ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem")
        self._sign("server", "localhost", "DNS:localhost,IP:127.0.0.1")
        self._sign("wrong", "elsewhere.example", "DNS:elsewhere.example")
        self._sign("client", "mailer", "DNS:mailer.example")
        (self.directory / "cadir").mkdir()
        shutil.copy(self.directory / "ca.pem", self.directory / "cadir/ca.pem")
        self._openssl("rehash", "cadir")

    def _openssl(self, *args):
        subprocess.run(["openssl", *args], cwd=self.directory, check=True, capture_output=True, timeout=60)

    def _sign(self, name, common_name, alternative):
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                      f"/CN={common_name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (self.directory / f"{name}.ext").write_text(f"subjectAltName={alternative}\n")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                      "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem")

    def __truediv__(self, name):
        return self.directory / name


class Slapd:
    def __init__(self, ldif, certificates=None, certificate="server", extra="", access=ACCESS):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="slapd-"))
        self.directory.chmod(0o755)
        self.port = free_port()
        self.tls_port = free_port() if certificates else None
        self.socket = self.directory / "ldapi"
        self.process = None
        tls = ""
        if certificates:
            tls = (f"TLSCACertificateFile {certificates / 'ca.pem'}\n"
                   f"TLSCertificateFile {certificates / (certificate + '.pem')}\n"
                   f"TLSCertificateKeyFile {certificates / (certificate + '.key')}\nTLSVerifyClient try\n")
        (self.directory / "db").mkdir()
        self.config = self.directory / "slapd.conf"
        self.config.write_text(SLAPD_CONF.format(
            directory=self.directory, mail_dn=MAIL_DN, tls=tls + extra, access=access.format(mail_dn=MAIL_DN)))
        done = subprocess.run([SLAPADD, "-q", "-f", self.config], input=ldif, text=True, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr

    @property
    def uri(self):
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def ldapi(self):
        return "ldapi://" + urllib.parse.quote(str(self.socket), safe="")

    def start(self):
        uris = [self.uri + "/", self.ldapi + "/"] + ([f"ldaps://127.0.0.1:{self.tls_port}/"] if self.tls_port else [])
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen([SLAPD, "-d", "256", "-f", self.config, "-h", " ".join(uris)], stdout=log,
                                            stderr=log)
        wait_for(lambda: can_connect(self.port), what="slapd")
        return self

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def log(self):
        return (self.directory / "log").read_text(errors="replace")

    def stop(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


class Memcached:
    def __init__(self, unix=False):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="memcached-"))
        self.directory.chmod(0o777)  # it makes its socket as nobody
        self.port = free_port()
        self.path = self.directory / "socket" if unix else None
        self.process = None

    def start(self):
        where = ["-s", str(self.path), "-a", "777"] if self.path else ["-l", "127.0.0.1", "-p", str(self.port), "-U", "0"]
        self.process = subprocess.Popen([MEMCACHED, "-u", "nobody", "-m", "8", "-t", "1", *where])
        wait_for((lambda: self.path.exists()) if self.path else (lambda: can_connect(self.port)), what="memcached")
        return self

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, command):
        """Send one command in the text protocol; the reply."""
        with contextlib.closing(socket.socket(socket.AF_UNIX if self.path else socket.AF_INET)) as s:
            s.settimeout(20)
            s.connect(str(self.path) if self.path else ("127.0.0.1", self.port))
            s.sendall(command + b"\r\n")
            reply = b""
            while not reply.endswith((b"END\r\n", b"STORED\r\n", b"DELETED\r\n", b"FOUND\r\n", b"OK\r\n", b"ERROR\r\n")):
                more = s.recv(65536)
                if not more:
                    break
                reply += more
            return reply

    def get(self, key):
        reply = self.ask(b"get " + key)
        return None if reply == b"END\r\n" else reply.split(b"\r\n", 1)[1][:-len(b"\r\nEND\r\n")]

    def set(self, key, value, flags=0, ttl=0):
        assert self.ask(b"set %s %d %d %d\r\n%s" % (key, flags, ttl, len(value), value)) == b"STORED\r\n"

    def stop(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


class Scripted:
    """Accepts connections and hands each to `serve(connection, number)` in a thread; by default it reads for ever and
    says nothing."""

    def __init__(self, serve=None):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.serve = serve or self._silent
        self.received = getattr(serve, "received", [])
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _silent(self, connection, _number):
        while data := connection.recv(65536):
            self.received.append(data)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._run, args=(connection, self.connections), daemon=True).start()

    def _run(self, connection, number):
        with contextlib.suppress(OSError), connection:
            self.serve(connection, number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    except OSError:
        return False


def seconds(call):
    """How long `call()` took, and what it gave."""
    start = time.monotonic()
    value = call()
    return time.monotonic() - start, value
