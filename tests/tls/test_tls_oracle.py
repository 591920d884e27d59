"""The same sessions with Debian's Postfix and with ours: log lines, replies and Received: fields are the same."""
import re
import ssl
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from instance import Instance, wait_for  # noqa: E402
from oracle import Oracle  # noqa: E402
from tls_ca import TestCA, TlsClient, client_context  # noqa: E402

pytestmark = pytest.mark.skipif(Oracle.why_not() is not None, reason=str(Oracle.why_not()))

CIPHERS = "aNULL:-aNULL:HIGH:MEDIUM:+RC4:@STRENGTH"  # the same list for both: the default has changed since 3.7
COMMON = f"""smtpd_tls_loglevel = 2
smtpd_tls_received_header = yes
local_recipient_maps =
smtpd_recipient_restrictions = check_client_access static:HOLD, permit
mail_name = Mail
tls_medium_cipherlist = {CIPHERS}
tls_high_cipherlist = HIGH:@STRENGTH
"""
TLS12 = ssl.TLSVersion.TLSv1_2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    ca = TestCA(tmp_path_factory.mktemp("ca"))
    other = TestCA(tmp_path_factory.mktemp("other"), "Other CA")
    names = {"ca": ca.cert, "rsa": ca.make("server.example")[2], "ec": ca.make("ec.example", key="ec:prime256v1")[2],
             "ed": ca.make("ed.example", key="ed25519")[2], "client": ca.make("client.example", usage="clientAuth")[2],
             "ec_client": ca.make("ec.client.example", key="ec:secp384r1", usage="clientAuth")[2],
             "wrong": ca.make("wrong.example")[2], "stranger": other.make("stranger.example", usage="clientAuth")[2]}
    return {name: str(path) for name, path in names.items()}


MAY = "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {rsa}\n"
ASK = MAY + "smtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = {ca}\n"
REQUIRE = ASK.replace("may", "encrypt") + "smtpd_tls_req_ccert = yes\n"
SNI = MAY + "tls_server_sni_maps = inline:{{{{sni.example={ec}}},{{.sub.example={ec}}}}}\n"
SESSIONS = {  # main.cf, what TlsClient is given; "chain" names a file
    "TLSv1.3": (MAY, {}),
    "TLSv1.2": (MAY, {"highest": TLS12}),
    "ECDSA": (MAY.replace("{rsa}", "{ec}"), {}),
    "Ed25519": (MAY.replace("{rsa}", "{ed}"), {}),
    "two chains": (MAY.replace("{rsa}", "{rsa}, {ec}"), {"highest": TLS12, "ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}),
    "wrapper": (MAY + "smtpd_tls_wrappermode = yes\n", {"wrapped": True}),
    "asked, none": (ASK, {}),
    "asked, trusted": (ASK, {"chain": "client"}),
    "asked, trusted ECDSA": (ASK, {"chain": "ec_client"}),
    "asked, trusted TLSv1.2": (ASK, {"chain": "client", "highest": TLS12}),
    "asked, for servers": (ASK, {"chain": "wrong"}),
    "asked, untrusted": (ASK, {"chain": "stranger"}),
    "required, none": (REQUIRE, {}),
    "required, untrusted": (REQUIRE, {"chain": "stranger"}),
    "required, wrapper": (REQUIRE + "smtpd_tls_wrappermode = yes\n", {"wrapped": True}),
    "verify depth": (ASK + "smtpd_tls_ccert_verifydepth = 0\n", {"chain": "client"}),
    "digest": (ASK + "smtpd_tls_fingerprint_digest = sha1\n", {"chain": "client"}),
    "SNI": (SNI, {"name": "sni.example"}),
    "SNI parent": (SNI, {"name": "a.b.sub.example"}),
    "SNI unknown": (SNI, {"name": "unknown.example"}),
    "SNI none": (SNI, {}),
    "protocols": (MAY + "smtpd_tls_protocols = >=TLSv1.3\n", {"highest": TLS12}),
    "protocols excluded": (MAY + "smtpd_tls_protocols = !TLSv1.3\n", {}),
    "protocols upper": (MAY + "smtpd_tls_protocols = <=TLSv1.2\n", {}),
    "protocols unknown": (MAY + "smtpd_tls_protocols = TLSv9\n", {}),
    "grade": (MAY + "smtpd_tls_ciphers = high\nsmtpd_tls_exclude_ciphers = AES256, SHA384\n", {"highest": TLS12}),
    "mandatory ciphers": (MAY.replace("may", "encrypt") + "smtpd_tls_mandatory_ciphers = high\n"
                          "smtpd_tls_mandatory_exclude_ciphers = AESGCM\nsmtpd_tls_mandatory_protocols = <=TLSv1.2\n", {}),
    "server's order": (MAY + "tls_preempt_cipherlist = yes\nsmtpd_tls_protocols = <=TLSv1.2\n",
                       {"ciphers": "AES128-SHA:ECDHE-RSA-AES256-GCM-SHA384"}),
    "client's order": (MAY + "smtpd_tls_protocols = <=TLSv1.2\n",
                       {"ciphers": "AES128-SHA:ECDHE-RSA-AES256-GCM-SHA384"}),
    # in TLSv1.3 Postfix sends tickets that it cannot open later
    "no tickets": (MAY + "tls_session_ticket_cipher =\n", {"highest": TLS12}),
    "ticket cipher": (MAY + "tls_session_ticket_cipher = aes-128-gcm\n", {"highest": TLS12}),
    "curves": (MAY + "tls_eecdh_auto_curves = prime256v1\n", {}),
    "unknown CA file": (MAY + "smtpd_tls_CAfile = /nonexistent/ca.pem\n", {}),
    "unknown digest": (MAY + "smtpd_tls_fingerprint_digest = md99\n", {}),
    "no certificate": (MAY.replace("{rsa}", ""), {}),
    "level": (MAY + "smtpd_tls_loglevel = 1\n", {"chain": "client"}),
    "level 0": (MAY + "smtpd_tls_loglevel = 0\n", {}),
}


def talk(port, files, options):
    """What the client saw; the queue id is taken out."""
    options = dict(options)
    chain = options.pop("chain", None)
    context = client_context(files[chain] if chain else None, **{
        name: options.pop(name) for name in ("highest", "lowest", "ciphers") if name in options})
    seen = []
    try:
        with TlsClient(port, context=context, **options) as client:
            seen = client.transcript
            if not options.get("wrapped"):
                client.command("EHLO client.example")
                client.starttls()
            refused = client.transcript[-1].startswith("421") or client.command("EHLO client.example")[-1][:3] == "421"
            seen.append(f"{client.socket.version()} {client.socket.cipher()[0]}"
                        if isinstance(client.socket, ssl.SSLSocket) else "in the clear")
            if not refused:
                client.mail()
                client.command("QUIT")
    except (ssl.SSLError, OSError) as e:
        seen.append(type(e).__name__)
    keywords = re.compile(r"250[- ](PIPELINING|SIZE|VRFY|ETRN|ENHANCED|8BITMIME|DSN|SMTPUTF8|CHUNKING|STARTTLS|REQUIRE)")
    return [re.sub(r"queued as \w+", "queued", line) for line in seen if not keywords.match(line)]


TLS_LINE = re.compile(r" postfix/smtpd\[\d+\]: (.*)")
OTHER = re.compile(r"connect from|disconnect from|: client=|hold: RCPT|lost connection after|overriding earlier|"
                   r": depth=0 verify=0")


def tls_lines(log):
    """What smtpd said of TLS; not the bytes of OpenSSL's source lines."""
    found = [m.group(1) for m in map(TLS_LINE.search, log.splitlines()) if m and not OTHER.search(m.group(1))]
    return [re.sub(r"(\.\./\S+?|\.c):\d+:|expiration: \d+", r"\1:N:", line) for line in found]


def received(text):
    field = re.search(r"Received: from .*?(?=\n\S)", text, re.S)
    return re.sub(r"id \w+|;\s.*", "", field.group(0), flags=re.S) if field else None


def held(log, command):
    message = re.search(r"smtpd\[\d+\]: (\w+): client=", log)
    if not message:
        return None
    return wait_for(lambda: received(command("postcat", "-h", "-q", message.group(1), capture_output=True, text=True)
                                     .stdout), what="the message")


@pytest.mark.parametrize("name", SESSIONS)
def test_same_as_postfix(files, name):
    main_cf, options = SESSIONS[name]
    own = main_cf.format(**files)
    set_here = {line.split(" =")[0] for line in own.splitlines()}
    both = "".join(line + "\n" for line in COMMON.splitlines() if line.split(" =")[0] not in set_here)
    seen, lines, fields = [], [], []
    with Oracle(main_cf=both + own) as oracle:
        seen.append(talk(oracle.port, files, options))
        wait_for(lambda: "disconnect from" in oracle.log(), what="the end of the session")
        lines.append(tls_lines(oracle.log()))
        fields.append(held(oracle.log(), oracle.command))
    ours = Instance(main_cf=both + own, name="oracle").start()
    try:
        seen.append(talk(ours.port, files, options))
        wait_for(lambda: "disconnect from" in ours.log(), what="the end of the session")
        lines.append(tls_lines(ours.log()))
        fields.append(held(ours.log(), ours.command))
    finally:
        print(ours.log())
        ours.stop()
    assert seen[1] == seen[0]
    assert lines[1] == lines[0]
    assert fields[1] == fields[0]
