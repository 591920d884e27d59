"""MariaDB and PostgreSQL for tests: private data folders, loopback and unix sockets, started once and stopped after.
The system's own servers and their data are not touched. As root they run as nobody."""
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile

from instance import free_port, wait_for

SECRET = "se'cret \\#%"
AS_USER = ({"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if os.geteuid() == 0 else {})


class Server:
    """`start()` after `stop()` gives the same data on the same port again."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"sql-{self.name}-"))
        self.directory.chmod(0o755)
        if AS_USER:
            shutil.chown(self.directory, "nobody")
        self.port = free_port()
        self.process = None
        self.run(*self.install)
        self.start()

    def run(self, *args, check=True, **kwargs):
        done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120, cwd=self.directory,
                              **AS_USER, **kwargs)
        if check and done.returncode:
            raise RuntimeError(f"{args}: {done.stdout}{done.stderr}")
        return done

    def start(self):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen([str(a) for a in self.serve], stdout=log, stderr=log, cwd=self.directory,
                                            **AS_USER)
        try:
            wait_for(self.answers, 60, f"{self.name} to answer")
        except TimeoutError:
            self.stop()
            raise RuntimeError((self.directory / "log").read_text()) from None

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError((self.directory / "log").read_text())
        return self.sql("SELECT 1", check=False).returncode == 0

    def stop(self, how=signal.SIGKILL):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(60)
        self.process = None

    def end(self):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class MariaDB(Server):
    name = "mariadb"
    with_tls = True

    @property
    def socket(self):
        return self.directory / "socket"

    @property
    def install(self):
        return ("mariadb-install-db", "--no-defaults", f"--datadir={self.directory}/data", f"--tmpdir={self.directory}", "--skip-test-db",
                "--auth-root-authentication-method=normal", "--skip-name-resolve", "--innodb-log-file-size=5M",
                "--innodb-flush-log-at-trx-commit=0")

    @property
    def serve(self):
        return ("mariadbd", "--no-defaults", f"--datadir={self.directory}/data", f"--tmpdir={self.directory}", f"--socket={self.socket}",
                f"--pid-file={self.directory}/pid", f"--port={self.port}", "--bind-address=127.0.0.1,127.0.0.2",
                "--skip-name-resolve",
                "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=off",
                "--innodb-log-file-size=5M", *self.tls())

    def tls(self):
        """Ours is made out to 127.0.0.1; clients may show that of client.pem."""
        if not self.with_tls:
            return ("--skip-ssl",)
        if not (self.directory / "cert.pem").exists():
            self.certificate("cert.pem", "key.pem", "db.example", "-addext", "subjectAltName=IP:127.0.0.1")
            self.certificate("client.pem", "client-key.pem", "client.example")
        return (f"--ssl-key={self.directory}/key.pem", f"--ssl-cert={self.directory}/cert.pem",
                f"--ssl-ca={self.directory}/client.pem")

    def certificate(self, path, key, name, *extensions):
        self.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                 "-keyout", self.directory / key, "-out", self.directory / path, "-subj", f"/CN={name}", *extensions)
        (self.directory / key).chmod(0o644)

    def sql(self, text, database="", check=True):
        return self.run("mariadb", "--no-defaults", "-uroot", "-S", self.socket, "--default-character-set=utf8mb4", database,
                        input=text, check=check)


class PostgreSQL(Server):
    name = "postgresql"

    @staticmethod
    def program(name):
        return max(pathlib.Path("/usr/lib/postgresql").glob("*"), key=lambda p: float(p.name)) / "bin" / name

    @property
    def install(self):
        return (self.program("initdb"), "-D", self.directory / "data", "-U", "root", "--auth=scram-sha-256",
                f"--pwfile={self.password_file()}", "-N", "-E", "UTF8", "--no-locale")

    def password_file(self):
        path = self.directory / "password"
        path.write_text(SECRET + "\n")
        path.chmod(0o644)
        return path

    @property
    def serve(self):
        return (self.program("postgres"), "-D", self.directory / "data", "-k", self.directory, "-p", self.port,
                "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=4MB",
                "-c", "log_statement=all")

    def sql(self, text, database="postgres", check=True):
        return self.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.directory, "-p", self.port, "-U", "root", "-d",
                        database, "-f", "-", input=text, check=check, env={**os.environ, "PGPASSWORD": SECRET})
