"""postfix tls: keys, certificates, requests and TLSA records, read again with openssl(1)."""
import os
import re
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

CLIENT = ["smtp_use_tls = yes", "smtp_enforce_tls = yes", "smtp_tls_enforce_peername = no",
          "smtp_tls_security_level = encrypt", "smtp_tls_cert_file = /x", "smtp_tls_dcert_file = /x",
          "smtp_tls_eccert_file = /x", "smtp_tls_enforce_peername = yes"]
SERVER = ["smtpd_use_tls = yes", "smtpd_enforce_tls = yes", "smtpd_tls_security_level = may",
          "smtpd_tls_cert_file = /x", "smtpd_tls_dcert_file = /x", "smtpd_tls_eccert_file = /x", "smtpd_enforce_tls = no"]
NEITHER = ["smtpd_tls_loglevel = 1", "smtp_tls_loglevel = 1", "smtpd_tls_security_level =", "smtp_tls_CAfile = /x",
           "smtpd_starttls_timeout = 1", "lmtp_tls_security_level = may", "tls_random_source = x"]


def tls(machine, *args):
    return machine.postfix("tls", *args)


def openssl(*args, text=None):
    return subprocess.run(["openssl", *map(str, args)], input=text, capture_output=True, text=True, timeout=60,
                          check=True).stdout


def made(machine, prefix=""):
    """The one pair of that algorithm in the configuration directory."""
    names = sorted(os.listdir(machine.etc))
    keys = [name for name in names if re.fullmatch(prefix + r"key-\d{8}-\d{6}\.pem", name)]
    certs = [name for name in names if re.fullmatch(prefix + r"cert-\d{8}-\d{6}\.pem", name)]
    assert len(keys) == len(certs) == 1, names
    return machine.etc / keys[0], machine.etc / certs[0]


def in_etc(path):
    return f"/etc/postfix/{path.name}"


def digest(key):
    der = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], capture_output=True, timeout=60,
                         check=True).stdout
    return subprocess.run(["openssl", "dgst", "-sha256", "-r"], input=der, capture_output=True, timeout=60,
                          check=True).stdout.decode().split()[0]


def add(machine, *lines):
    with (machine.etc / "main.cf").open("a") as main:
        main.write("".join(line + "\n" for line in lines))


def test_all_default(machine, debian):
    """The same settings count as for Debian's, each on its own."""
    stock = {one: (one.etc / "main.cf").read_text() for one in (machine, debian)}

    def status(one, side):
        return one.command("postfix", "tls", f"all-default-{side}").returncode
    with ThreadPoolExecutor() as several:
        for line in ["", *CLIENT, *SERVER, *NEITHER]:
            for one in (machine, debian):
                (one.etc / "main.cf").write_text(stock[one] + line + "\n")
            asked = [several.submit(status, one, side) for one in (machine, debian) for side in ("client", "server")]
            ours, theirs = [a.result() for a in asked[:2]], [a.result() for a in asked[2:]]
            assert ours == theirs == [int(line in CLIENT), int(line in SERVER)], line


def test_chain_files_count(machine):
    add(machine, "smtpd_tls_chain_files = /x")
    assert tls(machine, "all-default-server").returncode == 1
    assert tls(machine, "all-default-client").returncode == 0


def test_enable_client(machine):
    done = tls(machine, "enable-client", "-r", "dev:/dev/random")
    assert done.returncode == 0 and "postfix reload" in done.stderr
    assert machine.postconf("smtp_tls_security_level") == "may"
    assert machine.postconf("smtp_tls_loglevel") == "1"
    assert machine.postconf("smtp_tls_session_cache_database") == "${default_cache_db_type}:${data_directory}/smtp_scache"
    assert machine.postconf("tls_random_source") == "dev:/dev/random"
    assert tls(machine, "all-default-client").returncode == 1


@pytest.mark.parametrize("side,line", [("client", "smtp_tls_security_level = none"),
                                       ("server", "smtpd_tls_security_level = none")])
def test_enable_changes_nothing_of_ones_own(machine, side, line):
    add(machine, line)
    before = (machine.etc / "main.cf").read_text()
    done = tls(machine, f"enable-{side}")
    assert done.returncode == 0 and "no changes made" in done.stderr
    assert (machine.etc / "main.cf").read_text() == before
    assert sorted(os.listdir(machine.etc)) == ["main.cf", "master.cf"]


def test_enable_server(machine):
    done = tls(machine, "enable-server", "-r", "dev:/dev/random", "mx.example")
    assert done.returncode == 0, done.stderr
    key, cert = made(machine)
    assert machine.postconf("smtpd_tls_security_level") == "may"
    assert machine.postconf("smtpd_tls_loglevel") == "1"
    assert machine.postconf("smtpd_tls_received_header") == "yes"
    assert machine.postconf("smtpd_tls_key_file") == in_etc(key)
    assert machine.postconf("smtpd_tls_cert_file") == in_etc(cert)
    assert machine.postconf("tls_random_source") == "dev:/dev/random"
    assert "CN = mx.example" in openssl("x509", "-in", cert, "-noout", "-subject", "-nameopt", "oneline")
    assert tls(machine, "all-default-server").returncode == 1


@pytest.mark.parametrize("args,kind,detail,prefix", [
    ([], "rsaEncryption", "(2048 bit)", ""), (["-a", "rsa", "-b", "3072"], "rsaEncryption", "(3072 bit)", ""),
    (["-a", "ecdsa"], "id-ecPublicKey", "prime256v1", "ec"),
    (["-a", "ecdsa", "-b", "secp384r1"], "id-ecPublicKey", "secp384r1", "ec"),
    (["-a", "ecdsa", "-b", "secp521r1"], "id-ecPublicKey", "secp521r1", "ec"),
    (["-a", "ecdsa", "-b", "secp256r1"], "id-ecPublicKey", "prime256v1", "ec"),
])
def test_new_server_key(machine, args, kind, detail, prefix):
    before = (machine.etc / "main.cf").read_text()
    done = tls(machine, "new-server-key", *args, "mx.example", "mail.example")
    assert done.returncode == 0, done.stderr
    assert (machine.etc / "main.cf").read_text() == before
    key, cert = made(machine, prefix)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and stat.S_IMODE(cert.stat().st_mode) == 0o644
    text = openssl("x509", "-in", cert, "-noout", "-text")
    for part in (kind, detail, "Version: 3", "CA:FALSE", "TLS Web Server Authentication, TLS Web Client Authentication",
                 "DNS:mx.example, DNS:mail.example", "Subject Key Identifier", "Issuer: CN = mx.example",
                 "Subject: CN = mx.example", "sha256", "Not After : "):
        assert part.lower() in text.lower(), part
    years = [int(re.search(rf"{edge} *: .* (\d{{4}}) GMT", text).group(1)) for edge in ("Not Before", "Not After ")]
    assert years[1] - years[0] == 100
    openssl("verify", "-CAfile", cert, cert)
    assert openssl("x509", "-in", cert, "-noout", "-pubkey") == openssl("pkey", "-in", key, "-pubout")
    for command in (f"deploy-server-cert {in_etc(cert)} {in_etc(key)}", f"output-server-csr -k {in_etc(key)}",
                    f"output-server-tlsa [-h <hostname>] {in_etc(key)}"):
        assert f"  # postfix tls {command}" in done.stderr
    assert not [name for name in os.listdir(machine.etc) if ".tmp" in name]


def test_serials_differ(machine):
    tls(machine, "new-server-key", "-a", "ecdsa")
    tls(machine, "new-server-key", "-a", "ecdsa")  # also within the same second
    certs = sorted(path for path in machine.etc.iterdir() if path.name.startswith("eccert-"))
    assert len(certs) == 2
    assert len({openssl("x509", "-in", cert, "-noout", "-serial") for cert in certs}) == 2


def test_default_name_is_myhostname(machine):
    tls(machine, "new-server-key", "-a", "ecdsa")
    _, cert = made(machine, "ec")
    assert "DNS:mail.example\n" in openssl("x509", "-in", cert, "-noout", "-ext", "subjectAltName")


def test_long_name(machine):
    """More than a common name may hold: the alternative name has it."""
    name = ".".join(["a" * 40] * 3)
    assert tls(machine, "new-server-key", "-a", "ecdsa", name).returncode == 0
    text = openssl("x509", "-in", made(machine, "ec")[1], "-noout", "-text")
    assert f"DNS:{name}" in text and f"CN = {name}" not in text


def test_deploy(machine):
    tls(machine, "new-server-key")
    tls(machine, "new-server-key", "-a", "ecdsa")
    pairs = {prefix: made(machine, prefix) for prefix in ("", "ec")}
    key, cert = pairs[""]
    assert tls(machine, "deploy-server-cert", cert.name, key.name).returncode == 0  # relative to the directory
    assert machine.postconf("smtpd_tls_cert_file") == in_etc(cert)
    assert machine.postconf("smtpd_tls_key_file") == in_etc(key)
    assert machine.postconf("smtpd_tls_eccert_file") == ""
    key, cert = pairs["ec"]
    assert tls(machine, "deploy-server-cert", in_etc(cert), in_etc(key)).returncode == 0
    assert machine.postconf("smtpd_tls_eccert_file") == in_etc(cert)
    assert machine.postconf("smtpd_tls_eckey_file") == in_etc(key)
    before = (machine.etc / "main.cf").read_text()
    done = tls(machine, "deploy-server-cert", cert.name, pairs[""][0].name)
    assert done.returncode == 1 and "does not belong to the key" in done.stderr
    assert (machine.etc / "main.cf").read_text() == before


def test_new_server_cert_keeps_the_key(machine):
    tls(machine, "enable-server", "-a", "ecdsa", "old.example")
    old_key, old_cert = made(machine, "ec")
    old = old_key.read_text()
    tls(machine, "new-server-cert", "-a", "ecdsa", "new.example")
    new_key, = (path for path in machine.etc.glob("eckey-*") if path != old_key)
    new_cert, = (path for path in machine.etc.glob("eccert-*") if path != old_cert)
    assert digest(new_key) == digest(old_key)
    assert stat.S_IMODE(new_key.stat().st_mode) == 0o600
    assert "CN = new.example" in openssl("x509", "-in", new_cert, "-noout", "-subject", "-nameopt", "oneline")
    assert old_key.read_text() == old
    # none of that algorithm: a new one
    assert tls(machine, "new-server-cert", "rsa.example").returncode == 0
    made(machine)


def test_csr(machine):
    tls(machine, "enable-server", "mx.example")
    key, _ = made(machine)
    for args, names in (([], "DNS:mail.example"), (["a.example", "b.example"], "DNS:a.example, DNS:b.example"),
                        (["-k", "rsa"], "DNS:mail.example"), (["-k", key.name], "DNS:mail.example"),
                        (["-k", in_etc(key), "c.example"], "DNS:c.example")):
        done = tls(machine, "output-server-csr", *args)
        assert done.returncode == 0, done.stderr
        text = openssl("req", "-noout", "-text", "-verify", text=done.stdout)
        assert names in text and "TLS Web Server Authentication" in text
        assert openssl("req", "-noout", "-pubkey", text=done.stdout) == openssl("pkey", "-in", key, "-pubout")
    assert tls(machine, "output-server-csr", "-k", "ecdsa").returncode == 1


def test_tlsa(machine):
    tls(machine, "enable-server", "mx.example")
    rsa, _ = made(machine)
    tls(machine, "new-server-key", "-a", "ecdsa")
    ecdsa, cert = made(machine, "ec")

    def record(path, host="mail.example"):
        return f"; {in_etc(path)}\n_25._tcp.{host}. IN TLSA 3 1 1 {digest(path)}\n"
    assert tls(machine, "output-server-tlsa").stdout == record(rsa)
    assert tls(machine, "output-server-tlsa", "-h", "mx.example", "rsa", ecdsa.name).stdout == \
        record(rsa, "mx.example") + record(ecdsa, "mx.example")
    tls(machine, "deploy-server-cert", cert.name, ecdsa.name)
    assert tls(machine, "output-server-tlsa").stdout == record(rsa) + record(ecdsa)
    assert tls(machine, "output-server-tlsa", "nofile").returncode == 1


def test_reads_debians_and_debian_ours(machine, debian):
    """Each side's files serve the other."""
    for args in ([], ["-a", "ecdsa"]):
        for maker, reader in ((machine, debian), (debian, machine)):
            assert maker.command("postfix", "tls", "new-server-key", *args, "x.example").returncode == 0
            prefix = "ec" if args else ""
            key, cert = made(maker, prefix)
            for path in (key, cert):
                path.rename(reader.etc / f"moved-{path.name}")
            name = f"moved-{key.name}"
            want = f"; /etc/postfix/{name}\n_25._tcp.h.example. IN TLSA 3 1 1 {digest(reader.etc / name)}\n"
            for one in {machine, debian} & {reader}:
                assert one.command("postfix", "tls", "output-server-tlsa", "-h", "h.example", name).stdout == want
            assert reader.command("postfix", "tls", "deploy-server-cert", f"moved-{cert.name}", name).returncode == 0


WRONG = [
    [], ["bogus"], ["enable-client", "x"], ["enable-client", "-a", "rsa"], ["enable-server", "-x"],
    ["new-server-key", "-a", "dsa"], ["new-server-key", "-b", "100"], ["new-server-key", "-a", "ecdsa", "-b", "bogus"],
    ["new-server-key", "-x"], ["all-default-server", "x"], ["all-default-client", "x"], ["deploy-server-cert", "x"],
    ["deploy-server-cert", "x", "y"], ["deploy-server-cert"], ["output-server-csr", "-k", "nofile"],
    ["output-server-csr", "-k", "dsa"], ["output-server-csr"], ["output-server-tlsa", "nofile"],
]


def test_wrong_arguments_as_debians(machine, debian):
    with ThreadPoolExecutor() as several:  # each of Debian's waits a second before it ends
        theirs = list(several.map(lambda args: debian.command("postfix", "tls", *args), WRONG))
    for args, want in zip(WRONG, theirs):
        got = tls(machine, *args)
        assert got.returncode == want.returncode == 1, args
        assert "fatal: " in got.stderr, args
    assert sorted(os.listdir(machine.etc)) == ["main.cf", "master.cf"]


@pytest.mark.parametrize("args,text", [
    (["new-server-key", "-b", "999999"], "1024 to 8192"), (["new-server-key", "a,DNS:b"], "not a host name"),
    (["new-server-key", "-b", "2048x"], "1024 to 8192"),
    (["new-server-key", *(f"h{i}.example" for i in range(101))], "more than 100 host names"),
    (["output-server-tlsa", "-h", "a\nb", "main.cf"], "not a host name"),
    (["output-server-tlsa", "main.cf"], "no private key in PEM form"),
])
def test_hostile_arguments(machine, args, text):
    done = tls(machine, *args)
    assert done.returncode == 1 and text in done.stderr


def test_key_with_a_password(machine):
    """Nobody is there to type it: an error at once, no question."""
    subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes128", "-pass",
                    "pass:secret", "-out", machine.etc / "locked.pem"], check=True, timeout=60, capture_output=True)
    done = tls(machine, "output-server-tlsa", "locked.pem")
    assert done.returncode == 1 and "with a password" in done.stderr


def test_log_names_the_script(machine):
    tls(machine, "bogus")
    assert "postfix/postfix-tls-script[" in machine.log() and "unknown tls command: 'bogus'" in machine.log()
