"""Mail for domains kept by PostfixAdmin: Debian's package (unpacked by tools/oracle) makes its tables in a private MariaDB,
its command adds what an administrator adds, and the files are those which its documentation writes for Postfix."""
import gzip
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from instance import changed, wait_for  # noqa: E402
from sql_servers import MariaDB  # noqa: E402

PASSWORD = "only-for-reading"
USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


class PostfixAdmin:
    def __init__(self, package, server):
        self.server = server
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="postfixadmin-"))
        self.directory.chmod(0o755)
        self.program = self.directory / "program"
        shutil.copytree(package / "usr/share/postfixadmin", self.program, symlinks=True,
                        ignore=shutil.ignore_patterns("config.*.php", "templates_c"))
        shutil.copy(package / "etc/postfixadmin/config.inc.php", self.program)
        (self.program / "templates_c").mkdir()
        (self.program / "dbconfig.inc.php").write_text(
            "<?php $dbtype = 'mysqli'; $dbserver = '127.0.0.1'; $dbname = 'postfixadmin'; $dbuser = 'admin'; $dbpass = 'admin';")
        (self.program / "config.local.php").write_text(
            f"<?php $CONF['database_port'] = '{server.port}'; $CONF['emailcheck_resolve_domain'] = 'NO';")
        server.sql(f"""\
CREATE DATABASE postfixadmin;
CREATE USER admin@'127.0.0.1' IDENTIFIED BY 'admin';
GRANT ALL ON postfixadmin.* TO admin@'127.0.0.1';
CREATE USER postfix@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
GRANT SELECT ON postfixadmin.* TO postfix@'127.0.0.1';
""")
        self.php("public/upgrade.php")

    def run(self, *args, **kwargs):
        done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=120, **kwargs)
        assert done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
        return done.stdout

    def php(self, script, *args):
        return self.run("php", "-d", f"include_path={self.program}", self.program / script, *args,
                        cwd=(self.program / script).parent)

    def add(self, kind, name, *args):
        said = self.php("scripts/postfixadmin-cli.php", kind, "add", name, "--active", "1", *args)
        assert "has been" in said, said

    def maps(self, package):
        """Its documentation is a shell script, which asks and writes the files."""
        document = self.directory / "POSTFIX_CONF.txt"
        document.write_bytes(gzip.decompress(
            (package / "usr/share/doc/postfixadmin/DOCUMENTS/POSTFIX_CONF.txt.gz").read_bytes()))
        said = self.run("sh", document, input=f"127.0.0.1:{self.server.port}\npostfixadmin\npostfix\n{PASSWORD}\n")
        written = pathlib.Path(said.split("\n")[0])
        shutil.move(written, self.directory / "sql")
        folder = self.directory / "sql"
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        for path in folder.glob("*.cf"):  # or the test would last for the minute that a dead server rests
            path.write_text(path.read_text() + "retry_interval = 1\n")
        return folder

    def end(self):
        shutil.rmtree(self.directory)


@pytest.fixture(scope="module")
def package():
    oracle = pathlib.Path(os.environ.get("ANGARIUM_ORACLE", "/nonexistent"))
    if not oracle.is_dir():
        pytest.skip("no unpacked Debian packages (tools/oracle; ANGARIUM_ORACLE)")
    if not (oracle / "usr/share/postfixadmin").is_dir():
        pytest.fail(f"{oracle} has no postfixadmin: run `tools/oracle {oracle}` again")
    return oracle


@pytest.fixture(scope="module")
def server(package):
    server = MariaDB()
    yield server
    server.end()


@pytest.fixture(scope="module")
def admin(package, server):
    admin = PostfixAdmin(package, server)
    admin.add("domain", "b.example", "--default-aliases", "0")
    admin.add("domain", "c.example", "--default-aliases", "0")
    admin.add("mailbox", "anna@b.example", "--name", "Anna", "--password", "12secret34", "--password2", "12secret34")
    admin.add("alias", "info@b.example", "--goto", "anna@b.example")
    admin.add("aliasdomain", "c.example", "--target-domain", "b.example")
    # everything for one of two domains goes to Anna
    admin.add("domain", "e.example", "--default-aliases", "0")
    admin.add("domain", "f.example", "--default-aliases", "0")
    admin.add("alias", "*@e.example", "--goto", "anna@b.example")
    admin.add("aliasdomain", "f.example", "--target-domain", "e.example")
    yield admin
    admin.end()


@pytest.fixture(scope="module")
def maps(admin, package):
    return admin.maps(package)


@pytest.fixture
def mail(make_instance, maps):
    """main.cf as its documentation has it."""
    ids = pwd.getpwnam(USER)
    return make_instance(user=USER if os.geteuid() == 0 else None, main_cf=f"""\
virtual_mailbox_domains = proxy:mysql:{maps}/mysql_virtual_domains_maps.cf
virtual_alias_maps =
   proxy:mysql:{maps}/mysql_virtual_alias_maps.cf,
   proxy:mysql:{maps}/mysql_virtual_alias_domain_maps.cf,
   proxy:mysql:{maps}/mysql_virtual_alias_domain_catchall_maps.cf
virtual_mailbox_maps =
   proxy:mysql:{maps}/mysql_virtual_mailbox_maps.cf,
   proxy:mysql:{maps}/mysql_virtual_alias_domain_mailbox_maps.cf
relay_domains = proxy:mysql:{maps}/mysql_relay_domains.cf
transport_maps = proxy:mysql:{maps}/mysql_transport_maps.cf
virtual_mailbox_base = $mail_spool_directory
virtual_uid_maps = static:{ids.pw_uid}
virtual_gid_maps = static:{ids.pw_gid}
virtual_minimum_uid = 1
""")


def code(mail, recipient):
    with mail.smtp() as smtp:
        smtp.helo("client.example")
        smtp.mail("a@elsewhere.example")
        return smtp.rcpt(recipient)[0]


def send(mail, recipient):
    with mail.smtp() as smtp:
        smtp.sendmail("a@elsewhere.example", [recipient], "Subject: test\r\n\r\nhello\r\n")


def delivered(mail):
    """Whom the messages in Anna's Maildir were for at first: its header field, which is there when that was not Anna."""
    found = []
    for path in (mail.mail / "b.example/anna/new").glob("*"):
        fields = dict(line.split(": ", 1) for line in path.read_text().split("\n\n")[0].splitlines() if line[0] > " ")
        assert fields["Delivered-To"] == "anna@b.example"
        found.append(fields.get("X-Original-To"))
    return sorted(found)


KNOWN = ["anna@b.example", "anna@c.example", "info@b.example", "info@c.example", "whoever@e.example", "whoever@f.example"]


def test_who_is_known(mail):
    for recipient in KNOWN:
        send(mail, recipient)
    wait_for(lambda: len(delivered(mail)) == len(KNOWN))
    assert delivered(mail) == KNOWN
    assert [code(mail, f"nobody@{domain}.example") for domain in "bc"] == [550, 550]
    assert PASSWORD not in mail.log()


def test_database_is_away(mail, server):
    """One message gets into the queue before the database is killed, its Maildir cannot be made then; the other is sent
    by a user of this machine while it is away. Nothing of the mail system is started anew."""
    def processes():
        return {name: mail.pids(name) for name in ("master", "proxymap", "trivial-rewrite", "cleanup", "smtpd")}

    obstacle = mail.mail / "b.example"
    obstacle.touch()
    send(mail, "info@b.example")
    first = mail.wait_log("status=deferred (")
    queue_id = first.split("]: ")[1].split(":")[0]
    obstacle.unlink()
    before = processes()
    server.stop()
    changed()
    try:
        assert [code(mail, recipient) for recipient in (*KNOWN, "nobody@b.example")] == [451] * (len(KNOWN) + 1)
        assert mail.sendmail("info@c.example").returncode == 0
        mail.wait_log("message not accepted")
        assert mail.command("postqueue", "-f").returncode == 0
        second = wait_for(lambda: [line for line in mail.log().splitlines()
                                   if f"{queue_id}: to=<" in line and line != first])[0]
        assert second.endswith("status=deferred (Temporary lookup failure)")
        assert mail.queue_ids().count(queue_id) == 1 and delivered(mail) == []
    finally:
        server.start()
    wait_for(lambda: code(mail, "anna@c.example") == 250)
    assert code(mail, "nobody@b.example") == 550
    assert mail.command("postqueue", "-f").returncode == 0
    mail.wait_log(f"{queue_id}: removed")
    assert mail.command("postkick", "public", "pickup", "W").returncode == 0
    wait_for(lambda: len(delivered(mail)) == 2)
    assert delivered(mail) == ["info@b.example", "info@c.example"]
    wait_for(mail.queue_is_empty)
    assert processes() == before
    assert PASSWORD not in mail.log()
