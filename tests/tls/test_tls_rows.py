"""TLS parameters of smtpd and postscreen in a table: what a client meets, or what is logged of it, and that it is otherwise
without the parameter. All are services of one server, each with a name of its own in the log, and played side by side."""
import concurrent.futures
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from instance import Instance, free_port, wait_for  # noqa: E402
from tls_ca import TestCA, TlsClient, client_context  # noqa: E402

TLS12 = ssl.TLSVersion.TLSv1_2
FIRST = "ECDHE-RSA-AES256-GCM-SHA384"  # what is agreed on in TLS 1.2 when nothing speaks against it
OTHER = "ECDHE-RSA-AES128-GCM-SHA256"
SAID = {"tls_loglevel": "1"}
ASKED = {**SAID, "tls_ask_ccert": "yes"}
MUST = {"tls_security_level": "encrypt"}

OPENSSL_CNF = """\
postfix = postfix_part
other = other_part
[postfix_part]
ssl_conf = postfix_ssl
[other_part]
ssl_conf = other_ssl
[postfix_ssl]
system_default = postfix_values
[other_ssl]
system_default = other_values
[postfix_values]
Ciphersuites = TLS_CHACHA20_POLY1305_SHA256
[other_values]
Ciphersuites = TLS_AES_128_GCM_SHA256
"""


def shake(files, port, with_it, chain=None, **context):
    """Version and cipher, or that there are none."""
    try:
        with TlsClient(port, context=client_context(files.get(chain), **context)) as client:
            client.command("EHLO client.example")
            if not client.starttls()[-1].startswith("220"):
                return client.transcript[-1]
            client.command("QUIT")
            return " ".join(map(str, client.socket.cipher()[:2][::-1]))
    except (ssl.SSLError, ConnectionError):
        return "no handshake"


def s_client(files, port, with_it, *options):
    """What openssl(1) says of its connection."""
    return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-starttls", "smtp", *options], input="Q\n",
                          capture_output=True, text=True, timeout=60).stdout


def silence(files, port, with_it):
    """STARTTLS, and nothing more."""
    with TlsClient(port) as client:
        client.command("EHLO client.example")
        client.command("STARTTLS")
        client.socket.settimeout(30 if with_it else 3)
        try:
            return "closed" if client.file.read() == b"" else "something was said"
        except TimeoutError:
            return "waits"


def half_closed(files, port, with_it):
    """QUIT, and the server's end of TLS unanswered: does the connection end, too?"""
    with TlsClient(port) as client:
        client.hello()
        client.command("QUIT")
        with socket.socket(fileno=os.dup(client.socket.fileno())) as below:
            assert client.file.read() == b""
            below.settimeout(1 if with_it else 30)
            try:
                return "closed" if below.recv(1) == b"" else "something was said"
            except TimeoutError:
                return "waits"


def does(how, *args, **options):
    return lambda files, port, with_it: how(files, port, with_it, *args, **options)


PLAIN = does(shake)
TLS12_ONLY = does(shake, highest=TLS12)
NAMED = does(shake, chain="@client@")
# parameters, value, other settings, what the client does, what is seen ("log: ..." in the log). Each parameter is set in a
# service of its own, of the daemon whose name it begins with. In other settings a name is the rest of the daemon's
# (postscreen_tls_...); "=tls_..." is one that all of them have. @NAME@ is a file.
TABLE = [
    ("smtpd_tls_CAfile postscreen_tls_CAfile",
     "@ca@", ASKED, NAMED, "log: Trusted TLS connection established from"),
    ("smtpd_tls_CApath postscreen_tls_CApath",
     "@ca_dir@", ASKED, NAMED, "log: Trusted TLS connection established from"),
    ("smtpd_tls_ask_ccert postscreen_tls_ask_ccert",
     "yes", {**SAID, "tls_CAfile": "@ca@"}, NAMED, "log: Trusted TLS connection established from"),
    ("smtpd_tls_req_ccert postscreen_tls_req_ccert",
     "yes", {**SAID, **MUST, "tls_CAfile": "@ca@"}, NAMED, "log: Trusted TLS connection established from"),
    ("smtpd_tls_ccert_verifydepth postscreen_tls_ccert_verifydepth",
     "0", {**ASKED, "tls_CAfile": "@ca@"}, does(shake, chain="@deep@"),
     "log: Untrusted TLS connection established from"),
    ("smtpd_tls_fingerprint_digest postscreen_tls_fingerprint_digest",
     "md99", ASKED, NAMED, r"log: Digest algorithm \"md99\" not found"),
    ("smtpd_tls_protocols postscreen_tls_protocols", "<=TLSv1.2", {}, PLAIN, rf"^TLSv1.2 {FIRST}$"),
    ("smtpd_tls_mandatory_protocols postscreen_tls_mandatory_protocols",
     "<=TLSv1.2", MUST, PLAIN, rf"^TLSv1.2 {FIRST}$"),
    ("smtpd_tls_ciphers postscreen_tls_ciphers",
     "high", {"=tls_high_cipherlist": OTHER}, TLS12_ONLY, rf"^TLSv1.2 {OTHER}$"),
    ("smtpd_tls_mandatory_ciphers postscreen_tls_mandatory_ciphers",
     "high", {**MUST, "=tls_high_cipherlist": OTHER}, TLS12_ONLY, rf"^TLSv1.2 {OTHER}$"),
    ("smtpd_tls_exclude_ciphers postscreen_tls_exclude_ciphers",
     "AES256", {}, does(shake, highest=TLS12, ciphers=FIRST), "^no handshake$"),
    ("smtpd_tls_mandatory_exclude_ciphers postscreen_tls_mandatory_exclude_ciphers",
     "AES256", MUST, does(shake, highest=TLS12, ciphers=FIRST), "^no handshake$"),
    ("smtpd_tls_loglevel postscreen_tls_loglevel",
     "1", {}, PLAIN, "log: Anonymous TLS connection established from"),
    ("smtpd_tls_loglevel_maps postscreen_tls_loglevel_maps",
     "inline:{127.0.0.1=1}", {}, PLAIN, "log: Anonymous TLS connection established from"),
    ("smtpd_tls_dh1024_param_file postscreen_tls_dh1024_param_file",
     "@dh@", {}, does(s_client, "-tls1_2", "-cipher", "DHE-RSA-AES256-GCM-SHA384"),
     "Server Temp Key: DH, 4096 bits"),
    ("smtpd_tls_always_issue_session_ids postscreen_tls_always_issue_session_ids",
     "no", {"=tls_session_ticket_cipher": ""}, does(s_client, "-tls1_2"),
     r"Session-ID: \n"),
    ("smtpd_starttls_timeout postscreen_starttls_timeout", "1s", {}, silence, "^closed$"),
    ("tls_null_cipherlist", OTHER, {"tls_ciphers": "null"}, TLS12_ONLY, rf"^TLSv1.2 {OTHER}$"),
    ("tls_ffdhe_auto_groups", "ffdhe3072", {}, does(s_client, "-tls1_3", "-groups", "ffdhe2048"), "Cipher is .NONE."),
    ("tls_config_file", "@cnf@", {"=tls_config_name": "postfix"}, PLAIN, "^TLSv1.3 TLS_CHACHA20_POLY1305_SHA256$"),
    ("tls_config_name", "other", {"=tls_config_file": "@cnf@"}, PLAIN, "^TLSv1.3 TLS_AES_128_GCM_SHA256$"),
    # an authority of the system's, and a certificate that claims to be from it
    ("tls_append_default_CA", "yes", {"tls_loglevel": "2", "tls_ask_ccert": "yes", "tls_CAfile": "@ca@"},
     does(shake, chain="@forged@"), "log: depth=1 verify=1 subject="),
    ("tls_fast_shutdown_enable", "no", {}, half_closed, "^waits$"),
]


def cases():
    for parameters, value, more, act, pattern in TABLE:
        for parameter in parameters.split():
            daemon = "postscreen" if parameter.startswith("postscreen_") else "smtpd"
            settings = {name[1:] if name.startswith("=") else f"{daemon}_{name}": v for name, v in more.items()}
            yield parameter, (daemon, settings, value, act, pattern)


CASES = dict(cases())


class Files(dict):
    def __init__(self, directory):
        super().__init__()
        ca = TestCA(directory / "ca")
        by_hash = directory / "by-hash"
        by_hash.mkdir()
        (by_hash / f"{ca.hash()}.0").write_text(ca.cert.read_text())
        (directory / "openssl.cnf").write_text(OPENSSL_CNF)
        subprocess.run(["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe4096", "-out",
                        directory / "dh.pem"], check=True, capture_output=True, timeout=60)
        self.update({"@ca@": ca.cert, "@ca_dir@": by_hash, "@dh@": directory / "dh.pem", "@cnf@": directory / "openssl.cnf",
                     "@chain@": ca.make("mx.example")[2], "@client@": ca.make("client.example", usage="clientAuth")[2],
                     "@deep@": ca.intermediate("Middle CA").intermediate("Low CA").make("low.example", usage="clientAuth")[2]})
        self["@forged@"] = self.forge(directory)
        for path in [directory, *directory.rglob("*")]:
            path.chmod(0o755)

    @staticmethod
    def forge(directory):
        """A client's certificate that claims to be from one of the system's authorities: the name, and nothing else."""
        def openssl(*args):
            return subprocess.run(["openssl", *args], cwd=directory, capture_output=True, text=True, timeout=60)
        for root in sorted(pathlib.Path(ssl.get_default_verify_paths().openssl_capath).glob("*.0")):
            name = openssl("x509", "-in", root, "-noout", "-subject", "-nameopt", "compat", "-checkend", "86400")
            text = name.stdout.split("\n")[0].removeprefix("subject=").strip()
            if name.returncode or not re.fullmatch(r"(/\w+=[\w .-]+)+", text) or \
                    "rsaEncryption" not in openssl("x509", "-in", root, "-noout", "-text").stdout:
                continue
            for arguments in (["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "false.key", "-out", "false.pem",
                               "-subj", text],
                              ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "forged.key", "-out", "forged.csr",
                               "-subj", "/CN=client.example"],
                              ["x509", "-req", "-in", "forged.csr", "-CA", "false.pem", "-CAkey", "false.key", "-CAcreateserial",
                               "-out", "forged.pem"]):
                assert openssl(*arguments).returncode == 0
            chain = directory / "forged.chain"
            chain.write_text((directory / "forged.key").read_text() + (directory / "forged.pem").read_text())
            return chain
        return None


class Doors(Instance):
    """A service for each case, and one that lacks the parameter."""

    def __init__(self, files):
        self.ports, self.tags, self.files = {}, {}, files
        lines = ["smtpd pass - - n - - smtpd\n"]
        for number, (parameter, (daemon, more, value, _, _)) in enumerate(CASES.items()):
            for with_it in (True, False):
                port, tag = free_port(), f"r{number:02}{'with' if with_it else 'bare'}"
                self.ports[parameter, with_it], self.tags[parameter, with_it] = port, f" {tag}/{daemon}["
                settings = {f"{daemon}_tls_security_level": "may", f"{daemon}_tls_chain_files": "@chain@", "syslog_name": tag}
                settings |= more | ({parameter: value} if with_it else {})
                limit = 1 if daemon == "postscreen" else "-"
                lines.append(f"127.0.0.1:{port} inet n - n - {limit} {daemon}"
                             + "".join(f" -o {{ {n} = {files.get(v, v)} }}" for n, v in settings.items()) + "\n")
        super().__init__(main_cf="mynetworks = 192.0.2.0/24\npostscreen_greet_wait = 1s\npostscreen_pipelining_enable = yes\n"
                                 "postscreen_cache_map =\n"
                                 "smtpd_client_connection_count_limit = 0\nsmtpd_peername_lookup = no\n",
                         master_extra="".join(lines), name="rows")

    def logged(self, parameter, with_it):
        return "\n".join(line for line in self.log().splitlines() if self.tags[parameter, with_it] in line)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """The server, and {(parameter, with it): what was seen}."""
    folder = tmp_path_factory.mktemp("tls")
    for parent in folder.parents:
        if parent.owner() == folder.owner() and str(parent) not in ("/", "/tmp"):
            parent.chmod(0o755)
    files = Files(folder)
    with Doors(files) as doors, concurrent.futures.ThreadPoolExecutor(16) as pool:
        jobs = {(parameter, with_it): pool.submit(act, files, doors.ports[parameter, with_it], with_it)
                for parameter, (_, _, _, act, _) in CASES.items() for with_it in (True, False)}
        yield doors, {key: job.result() for key, job in jobs.items()}
        print(doors.log())


@pytest.mark.parametrize("parameter, pattern", [(name, pattern) for name, (*_, pattern) in CASES.items()], ids=CASES)
def test_it_makes_the_difference(seen, parameter, pattern):
    doors, of = seen
    if parameter == "tls_append_default_CA" and not doors.files["@forged@"]:
        pytest.skip("the system has no authorities (ca-certificates)")
    if pattern.startswith("log: "):
        pattern = pattern.removeprefix("log: ")
        wait_for(lambda: re.search(pattern, doors.logged(parameter, True)), what=pattern)
        assert not re.search(pattern, doors.logged(parameter, False))
    else:
        assert re.search(pattern, of[parameter, True])
        assert not re.search(pattern, of[parameter, False])
