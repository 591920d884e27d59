"""TLS of the SMTP client: a table of settings, servers and what is seen. Debian's Postfix sees the same, where it is there.

All cases run in one instance: each has a transport of its own (`c7`), with its own -o, to one of the servers."""
import pathlib
import re
import smtplib
import ssl
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import oracle as oracle_module  # noqa: E402
from instance import Instance, wait_for  # noqa: E402
from name_server import Names  # noqa: E402
from oracle import Oracle  # noqa: E402
from tls_ca import TestCA  # noqa: E402
from tls_sink import TlsSink, server_context  # noqa: E402

TLS12 = ssl.TLSVersion.TLSv1_2
CIPHERS = "aNULL:-aNULL:HIGH:MEDIUM:+RC4:@STRENGTH"  # the same list for both: the default has changed since 3.7
MAY, ENCRYPT, VERIFY, SECURE, PRINT = (f"smtp_tls_security_level={level}" for level in
                                       ("may", "encrypt", "verify", "secure", "fingerprint"))
CA = "smtp_tls_CAfile={ca}"
OLD = "/minimal_backoff_time=1s"
T13 = r"TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 \(256/256 bits\) key-exchange X25519 server-signature RSA-PSS " \
      r"\(2048 bits\) server-digest SHA256"


def established(kind, details=T13):
    return f"{kind} TLS connection established to localhost\\[127.0.0.1\\]:PORT: {details}$"


SENT = r"status=sent \(250 2.0.0 ok\)"
FAILED = r"dsn=4.7.5, status=deferred \(Cannot start TLS: handshake failure\)"
UNVERIFIED = r"dsn=4.7.5, status=deferred \(Server certificate not verified\)"

BAD_POLICY = r"relay=none, dsn=4.7.5, status=deferred \(client TLS configuration problem\)"


def policy(text):
    return f"smtp_tls_policy_maps=static:{{{{{text}}}}}" if text != "may" else "smtp_tls_policy_maps=static:may"


# name: (server, settings, what has to be seen in the log, in order; "-": and no TLS line at all)
CASES = {
    "off": ("good", [], ["-", SENT]),
    "none": ("good", ["smtp_tls_security_level=none"], ["-", SENT]),
    "may": ("good", [MAY], [established("Untrusted"), SENT]),
    "may, CAfile": ("good", [MAY, CA], [established("Trusted"), SENT]),
    "may, CApath": ("good", [MAY, "smtp_tls_CApath={ca_dir}"], [established("Trusted"), SENT]),
    "may, steps": ("good", [MAY, CA, "smtp_tls_loglevel=2"], [
        "initializing the client-side TLS engine", "setting up TLS connection to localhost",
        'TLS cipher list "aNULL:-aNULL:HIGH:MEDIUM:\\+RC4:@STRENGTH"', "depth=1 verify=1 subject=/CN=Test CA",
        "subject_CN=localhost, issuer_CN=Test CA, fingerprint=", established("Trusted"), SENT]),
    "may, silent": ("good", [MAY, "smtp_tls_loglevel=0"], ["-", SENT]),
    "may, another's name": ("wrong", [MAY, CA], [established("Trusted"), SENT]),
    "may, not offered": ("plain", [MAY, CA], ["-", SENT]),
    "may, refused": ("refused", [MAY, CA], ["-", SENT]),
    "may, refused for good": ("refused for good", [MAY, CA], ["-", SENT]),
    "may, text behind the reply": ("injected", [MAY, CA], [established("Trusted"), SENT]),
    "may, closed": ("closed", [MAY], ["SSL_connect error to localhost.*: lost connection", FAILED]),
    "may, garbage": ("garbage", [MAY], ["SSL_connect error to localhost", FAILED]),
    "may, alert": ("alert", [MAY], ["SSL_connect error to localhost.*: -1", "handshake failure:.*SSL alert number 40",
                                    FAILED]),
    "may, silence": ("silent", [MAY, "smtp_starttls_timeout=1s"], [
        "SSL_connect error to localhost.*: Connection timed out", FAILED]),
    "encrypt": ("good", [ENCRYPT, CA], [established("Trusted"), SENT]),
    "encrypt, not offered": ("plain", [ENCRYPT], [
        r"dsn=4.7.4, status=deferred \(TLS is required, but was not offered by host localhost\[127.0.0.1\]\)"]),
    "encrypt, refused": ("refused", [ENCRYPT], [
        r"dsn=4.7.0, status=deferred \(TLS is required, but host localhost\[127.0.0.1\] refused to start TLS: "
        r"454 4.7.0 not now\)"]),
    "encrypt, refused for good": ("refused for good", [ENCRYPT], [
        r"dsn=5.5.1, status=bounced \(TLS is required, but host localhost\[127.0.0.1\] refused to start TLS: "
        r"500 5.5.1 what\)"]),
    "encrypt, no authorities": ("good", [ENCRYPT, "smtp_tls_CAfile=/nonexistent"], [
        'cannot load Certification Authority data, CAfile="/nonexistent": disabling TLS support',
        r"dsn=4.7.5, status=deferred \(TLS is required, but our TLS engine is unavailable\)"]),
    "may, no authorities": ("good", [MAY, "smtp_tls_CAfile=/nonexistent"], ["cannot load Certification Authority", SENT]),
    "wrapper": ("wrapped", [ENCRYPT, CA, "smtp_tls_wrappermode=yes"], [established("Trusted"), SENT]),
    "wrapper, may": ("wrapped", [MAY, "smtp_tls_wrappermode=yes"], [
        r'warning: smtp_tls_wrappermode requires "smtp_tls_security_level = encrypt" \(or stronger\)',
        r"relay=none, .*dsn=4.3.0, status=deferred \(server unavailable or unable to receive mail\)"]),
    "closed after the handshake": ("closed after", [ENCRYPT, CA], [
        established("Trusted"), r"dsn=4.4.2, status=deferred \(lost connection with localhost\[127.0.0.1\] while "
        r"performing the EHLO handshake\)"]),
    "closed at MAIL": ("closed at MAIL", [MAY, CA], [
        established("Trusted"), r"dsn=4.4.2, status=deferred \(lost connection with localhost\[127.0.0.1\] while "
        r"sending MAIL FROM\)"]),
    "offered again": ("offered again", [MAY, CA], [established("Trusted"), SENT]),
    "EHLO refused": ("EHLO refused", [MAY, CA], [
        established("Trusted"), r"dsn=5.5.1, status=bounced \(host localhost\[127.0.0.1\] refused to talk to me: "
        r"500 5.5.1 no\)"]),
    "use_tls": ("good", ["smtp_use_tls=yes"], [established("Untrusted"), SENT]),
    "enforce_tls": ("good", ["smtp_enforce_tls=yes", CA], [established("Verified"), SENT]),
    "enforce_tls, untrusted": ("stranger", ["smtp_enforce_tls=yes", CA], [
        "certificate verification failed for localhost.*: untrusted issuer /CN=Other CA", established("Untrusted"),
        UNVERIFIED]),
    "enforce_peername": ("wrong", ["smtp_enforce_tls=yes", "smtp_tls_enforce_peername=no", CA], [established("Trusted"), SENT]),
    "verify": ("good", [VERIFY, CA], [established("Verified"), SENT]),
    "verify, another's name": ("wrong", [VERIFY, CA], [
        "server certificate verification failed for localhost.*: num=62:hostname mismatch", established("Untrusted"),
        UNVERIFIED]),
    "verify, expired": ("expired", [VERIFY, CA], [
        "server certificate verification failed for localhost.*: certificate has expired", UNVERIFIED]),
    "verify, steps": ("wrong", [VERIFY, CA, "smtp_tls_loglevel=2"], [
        "@STRENGTH:!aNULL", "depth=0 verify=0 subject=/CN=wrong.example", "num=62", "subject_CN=wrong.example",
        UNVERIFIED]),
    "verify, match": ("wrong", [VERIFY, CA, "smtp_tls_verify_cert_match=a.example:wrong.example"],
                      [established("Verified"), SENT]),
    "verify, match below": ("deep", [VERIFY, CA, "smtp_tls_verify_cert_match=.deep.example"],
                            [established("Verified"), SENT]),
    "verify, wildcard": ("wildcard", [VERIFY, CA, "smtp_tls_verify_cert_match=one.wild.example"],
                         [established("Verified"), SENT]),
    "verify, wildcard, labels": ("wildcard", [VERIFY, CA, "smtp_tls_verify_cert_match=two.one.wild.example"],
                                 [established("Verified"), SENT]),
    "verify, wildcard, one label": ("wildcard", [VERIFY, CA, "smtp_tls_verify_cert_match=two.one.wild.example",
                                                 "/tls_wildcard_matches_multiple_labels=no"], ["num=62", UNVERIFIED]),
    "verify, depth": ("intermediate", [VERIFY, CA, "smtp_tls_scert_verifydepth=0"], [
        r"certificate verification failed for localhost.*: certificate chain longer than limit\(1\)", UNVERIFIED]),
    "verify, depth enough": ("intermediate", [VERIFY, CA, "smtp_tls_scert_verifydepth=1"],
                             [established("Verified"), SENT]),
    "verify, no authorities": ("good", [VERIFY], ["untrusted issuer /CN=Test CA", UNVERIFIED]),
    "secure": ("good", [SECURE, CA], [established("Verified"), SENT]),
    "secure, dot-nexthop": ("good", [SECURE, CA, "smtp_tls_secure_cert_match=dot-nexthop"], ["num=62", UNVERIFIED]),
    "secure, another's name": ("wrong", [SECURE, CA], ["num=62", UNVERIFIED]),
    "fingerprint": ("good", [PRINT, "smtp_tls_fingerprint_digest=sha256", "smtp_tls_fingerprint_cert_match={print}"],
                    [established("Verified"), SENT]),
    "fingerprint, sha1": ("good", [PRINT, "smtp_tls_fingerprint_digest=sha1",
                                   "smtp_tls_fingerprint_cert_match={print_sha1}"], [established("Verified"), SENT]),
    "fingerprint, other": ("wrong", [PRINT, "smtp_tls_fingerprint_digest=sha256", "smtp_tls_fingerprint_cert_match={print}"], [
        "num=65:no matching DANE TLSA records", established("Untrusted"), UNVERIFIED]),
    "fingerprint, none": ("good", [PRINT], [
        r"warning: nexthop domain \[localhost\]:PORT: configured at fingerprint security level, but with no "
        r"fingerprints to match\.",
        r"warning: TLS policy lookup for \[localhost\]:PORT/localhost: client TLS configuration problem",
        r"relay=none, .*dsn=4.7.5, status=deferred \(client TLS configuration problem\)"]),
    "note_starttls_offer": ("good", ["smtp_tls_note_starttls_offer=yes"], [r"Host offered STARTTLS: \[localhost\]", SENT]),
    "certificate": ("asking", [ENCRYPT, CA, "smtp_tls_cert_file={client_cert}", "smtp_tls_key_file={client_key}"], [
        established("Trusted", T13 + r" client-signature RSA-PSS \(2048 bits\) client-digest SHA256"), SENT]),
    "EC certificate": ("asking", [ENCRYPT, CA, "smtp_tls_eccert_file={ec_cert}", "smtp_tls_eckey_file={ec_key}"], [
        established("Trusted", T13 + r" client-signature ECDSA \(prime256v1\) client-digest SHA256"), SENT]),
    "d certificate": ("asking", [ENCRYPT, CA, "smtp_tls_dcert_file={client_cert}", "smtp_tls_dkey_file={client_key}"], [
        established("Trusted", T13 + r" client-signature RSA-PSS \(2048 bits\) client-digest SHA256"), SENT]),
    "chain": ("asking", [ENCRYPT, CA, "smtp_tls_chain_files={client_chain}"], [
        established("Trusted", T13 + r" client-signature RSA-PSS \(2048 bits\) client-digest SHA256"), SENT]),
    "protocols unknown": ("good", [MAY, "smtp_tls_protocols=TLSv9"], [
        'Invalid TLS protocol list "TLSv9": aborting TLS session', FAILED]),
    "protocols": ("good", [MAY, "smtp_tls_protocols=<=TLSv1.2"], [
        established("Untrusted", r"TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384 \(256/256 bits\)"), SENT]),
    "mandatory protocols": ("good", [ENCRYPT, "smtp_tls_mandatory_protocols=!TLSv1.3", "smtp_tls_protocols=TLSv1.3"], [
        established("Untrusted", r"TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384 \(256/256 bits\)"), SENT]),
    "protocols, none in common": ("TLSv1.2", [MAY, "smtp_tls_protocols=>=TLSv1.3"], [
        "SSL_connect error.*: -1", "alert protocol version", FAILED]),
    "grade unknown": ("good", [MAY, "smtp_tls_ciphers=foo"], [
        r'warning: localhost\[127.0.0.1\]:PORT: invalid cipher grade: "foo"', FAILED]),
    "mandatory grade unknown": ("good", [ENCRYPT, "smtp_tls_mandatory_ciphers=foo"], [
        'invalid cipher grade: "foo"', FAILED]),
    "exclude": ("TLSv1.2", [MAY, "smtp_tls_exclude_ciphers=AES256, SHA384"], [
        established("Untrusted", r"TLSv1.2 with cipher ECDHE-RSA-(CHACHA20-POLY1305|AES128-GCM-SHA256) .*"), SENT]),
    "mandatory exclude": ("TLSv1.2", [ENCRYPT, "smtp_tls_mandatory_exclude_ciphers=CHACHA20, AESGCM, AES256"], [
        established("Untrusted", "TLSv1.2 with cipher ECDHE-RSA-(AES128|ARIA128|CAMELLIA128).*"), SENT]),
    "nothing left": ("good", [ENCRYPT, "smtp_tls_mandatory_exclude_ciphers=ALL"], [
        'error setting cipher grade: "medium"', "no cipher match", FAILED]),
    "SNI": ("named", [MAY, "smtp_tls_servername=hostname"], [established("Untrusted"), SENT]),
    "SNI, nexthop": ("named", [MAY, "smtp_tls_servername=nexthop"], [established("Untrusted"), SENT]),
    "SNI, literal": ("named", [MAY, "smtp_tls_servername=lit.example"], [established("Untrusted"), SENT]),
    "dane": ("good", ["smtp_tls_security_level=dane", CA], [
        r"warning: \[localhost\]:PORT: dane configured with dnssec lookups disabled", established("Trusted"), SENT]),
    "dane-only": ("good", ["smtp_tls_security_level=dane-only", CA], [
        r"warning: \[localhost\]:PORT: dane-only configured with dnssec lookups disabled", BAD_POLICY]),
    # policies of destinations
    "policy": ("good", [MAY, CA, policy("encrypt protocols=!TLSv1.3")], [
        established("Trusted", r"TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384 \(256/256 bits\)"), SENT]),
    "policy, commas": ("good", [MAY, CA, policy("encrypt,protocols=TLSv1.2:!TLSv1.3")], [
        established("Trusted", r"TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384 \(256/256 bits\)"), SENT]),
    "policy, not for it": ("good", [MAY, CA, "smtp_tls_policy_maps=inline:{{localhost=none}}"],
                           [established("Trusted"), SENT]),
    "policy, none": ("good", [MAY, CA, policy("none")], ["-", SENT]),
    "policy, none and more": ("good", [MAY, CA, policy("none foo=x")], [
        'smtp_tls_policy_maps, next-hop destination "\\[localhost\\]:PORT": ignoring attribute "foo=x" with TLS '
        "disabled", SENT]),
    "policy alone": ("good", [policy("may")], [established("Untrusted"), SENT]),
    "policy, upper case": ("good", [MAY, CA, policy("MAY CIPHERS=high")], [established("Trusted"), SENT]),
    "policy, ciphers": ("TLSv1.2", [MAY, policy("encrypt ciphers=foo")], ['invalid cipher grade: "foo"', FAILED]),
    "policy, exclude": ("TLSv1.2", [ENCRYPT, "smtp_tls_mandatory_exclude_ciphers=ALL", policy("encrypt exclude=AES256:SHA384")],
                        [established("Untrusted", "TLSv1.2 with cipher ECDHE-RSA-(CHACHA20|AES128).*"), SENT]),
    "policy, match": ("wrong", [CA, policy("verify match=a.example:wrong.example")], [established("Verified"), SENT]),
    "policy, match twice": ("wrong", [CA, policy("verify match=a.example match=wrong.example")],
                            [established("Verified"), SENT]),
    "policy, match words": ("good", [CA, policy("secure match=dot-nexthop:nexthop")],
                            [established("Verified"), SENT]),
    "policy, other match": ("good", [CA, policy("secure match=a.example")], ["num=62", UNVERIFIED]),
    "policy, fingerprint": ("good", ["smtp_tls_fingerprint_digest=sha256", policy("fingerprint match={print}")],
                            [established("Verified"), SENT]),
    "policy, servername": ("named", [MAY, policy("encrypt servername=pol.example")], [established("Untrusted"), SENT]),
    "policy, bad": ("good", [MAY, "smtp_tls_policy_maps=fail:x"], [": policy table lookup error", BAD_POLICY]),
    **{f"policy, bad: {text}": ("good", [MAY, policy(text)], [
        rf'warning: smtp_tls_policy_maps, next-hop destination "\[localhost\]:PORT": {why}',
        r"warning: TLS policy lookup for \[localhost\]:PORT/localhost: client TLS configuration problem", BAD_POLICY])
       for text, why in {
           "encrypt foo=bar": 'invalid attribute name: "foo"',
           "foo": 'invalid security level "foo"',
           "half-dane": 'invalid security level "half-dane"',
           "may match=localhost": 'attribute "match" invalid at security level "may"',
           "encrypt match=localhost": 'attribute "match" invalid at security level "encrypt"',
           "verify match=": 'attribute "match" has empty value',
           "encrypt servername=": '"servername=" specifies an invalid hostname',
           "encrypt servername=a..b": '"servername=a..b" specifies an invalid hostname',
           "encrypt connection_reuse=maybe": 'attribute "connection_reuse" has bad value: "maybe"',
           "encrypt protocols": "malformed attribute/value pair \"protocols\": missing '=' after attribute name",
           "verify ciphers=high ciphers=low": 'attribute "ciphers" is specified multiple times'}.items()},
    "per site, NONE": ("good", [ENCRYPT, CA, "smtp_tls_per_site=static:NONE"], ["-", SENT]),
    "per site, NONE for all": ("good", ["smtp_enforce_tls=yes", CA, "smtp_tls_per_site=inline:{{localhost=NONE}}"], ["-", SENT]),
    "per site, MAY": ("good", [CA, "smtp_tls_per_site=static:MAY"], [established("Trusted"), SENT]),
    "per site, MAY is not more": ("wrong", ["smtp_enforce_tls=yes", CA, "smtp_tls_per_site=static:MAY"], ["num=62", UNVERIFIED]),
    "per site, MUST": ("wrong", [CA, "smtp_tls_per_site=inline:{{localhost=must}}"], ["num=62", UNVERIFIED]),
    "per site, no names": ("wrong", [CA, "smtp_tls_per_site=static:MUST_NOPEERMATCH"], [established("Trusted"), SENT]),
    "per site, bad": ("good", ["smtp_tls_per_site=static:BAD"], [
        r"smtp_tls_per_site: unknown TLS policy 'BAD' for next-hop destination \[localhost\]:PORT", BAD_POLICY]),
    "per site, error": ("good", ["smtp_tls_per_site=fail:x"], [
        r'smtp_tls_per_site: next-hop destination "\[localhost\]:PORT": per-site table lookup error',
        r"relay=none, dsn=4.3.0, status=deferred \(Temporary lookup error\)"]),
    "per site and policy": ("wrong", [CA, "smtp_tls_per_site=static:MUST", policy("may")], [
        "warning: smtp_tls_per_site ignored when smtp_tls_policy_maps is not empty.", established("Trusted"), SENT]),
    # of a message that is older than minimal_backoff_time: what fails is tried without TLS at once
    "old, closed": ("closed", [MAY, OLD], ["SSL_connect error", SENT]),
    "old, closed after": ("closed after", [MAY, OLD], [established("Untrusted"), SENT]),
    "old, closed at MAIL": ("closed at MAIL", [MAY, OLD], [established("Untrusted"), SENT]),
    "old, encrypt": ("closed", [ENCRYPT, OLD], ["SSL_connect error", FAILED]),
}
NAMES = {name: f"c{number}" for number, name in enumerate(CASES)}


class Files(dict):
    def __init__(self, directory):
        super().__init__()
        directory.chmod(0o755)
        ca, other = TestCA(directory / "ca"), TestCA(directory / "other", "Other CA")
        self.directory, self.authority = directory, ca
        self.chains = {"good": ca.make("localhost"), "wrong": ca.make("wrong.example"),
                       "stranger": other.make("localhost"), "wildcard": ca.make("*.wild.example"),
                       "deep": ca.make("mx.deep.example"), "expired": ca.make("localhost", days="-10"),
                       "intermediate": ca.intermediate("Middle CA").intermediate("Low CA").make("localhost")}
        key, cert, chain = ca.make("client.example", usage="clientAuth")
        ec_key, ec_cert, _ = ca.make("client.example", key="ec:prime256v1", usage="clientAuth")
        good = self.chains["good"][1]
        by_hash = directory / "by-hash"
        by_hash.mkdir()
        (by_hash / f"{ca.hash()}.0").write_text(ca.cert.read_text())
        self.update(ca=ca.cert, ca_dir=by_hash, client_key=key, client_cert=cert, client_chain=chain, ec_key=ec_key,
                    ec_cert=ec_cert, print=ca.fingerprint(good), print_sha1=ca.fingerprint(good, "sha1"))
        for path in directory.rglob("*"):
            path.chmod(0o755)

    def context(self, name, **options):
        return server_context(self.chains[name][2], **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    made = Files(tmp_path_factory.mktemp("ca"))
    for parent in made.directory.parents:
        if parent.owner() == made.directory.owner() and str(parent) not in ("/", "/tmp"):
            parent.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def servers(files):
    good = files.context
    made = {name: TlsSink(good(name)) for name in files.chains}
    made |= {
        "plain": TlsSink(offer=False), "refused": TlsSink(answer=b"454 4.7.0 not now\r\n"),
        "refused for good": TlsSink(answer=b"500 5.5.1 what\r\n"),
        "injected": TlsSink(good("good"), answer=b"220 ok\r\n250 evil\r\n"), "closed": TlsSink(at_handshake="close"),
        "garbage": TlsSink(at_handshake="garbage"), "alert": TlsSink(at_handshake="alert"),
        "silent": TlsSink(at_handshake="stall"), "wrapped": TlsSink(good("good"), wrapped=True),
        "TLSv1.2": TlsSink(good("good", highest=TLS12)), "closed after": TlsSink(good("good"), after="close"),
        "closed at MAIL": TlsSink(good("good"), after="mail"), "offered again": TlsSink(good("good"), after="offer"),
        "EHLO refused": TlsSink(good("good"), after="refuse"), "asking": TlsSink(good("good", ca=files["ca"])),
        "named": TlsSink(good("good")),
    }
    yield made
    for one in made.values():
        one.close()


def options(settings, files, program="smtp"):
    """Of master.cf: of lmtp(8) those of its own. "/name=value" is one of both."""
    def setting(text):
        text = text.format(**files)
        return text[1:] if text.startswith("/") else program + text.removeprefix("smtp")
    every = ["smtp_tls_loglevel=1", "smtp_host_lookup=native", f"/tls_medium_cipherlist={CIPHERS}"]
    return "".join(f" -o {{{setting(one)}}}" for one in every + settings)


def set_up(kind, cases, files, servers, program="smtp", extra=""):
    """A running system in which a@c7.example goes to the server of case 7."""
    master = "".join(f"c{number} unix - - n - - {program} -o syslog_name=postfix/c{number}"
                     + options(settings, files, program) + "\n"
                     for number, (_, settings, _) in enumerate(cases.values()))
    transports = ",".join(f"{{c{number}.example=c{number}:"
                          f"{'inet:' if program == 'lmtp' else ''}[localhost]:{servers[server].port}}}"
                          for number, (server, _, _) in enumerate(cases.values()))
    main = f"transport_maps = inline:{{{transports}}}\nnotify_classes =\n{extra}"
    if kind == "oracle":
        if Oracle.why_not():
            pytest.skip(Oracle.why_not())
        system = Oracle(main_cf=main)
        services = oracle_module.SERVICES
        oracle_module.SERVICES += master.replace("{", "{{").replace("}", "}}")
        try:
            return system.start()
        finally:
            oracle_module.SERVICES = services
    return Instance(main_cf=main, master_extra=master).start()


def send(system, cases, numbers):
    """One message to the servers of these cases; two seconds old when it is accepted, where one of them asks for that."""
    with smtplib.SMTP("127.0.0.1", system.port, timeout=60) as smtp:
        smtp.ehlo()
        smtp.mail("x@x.example")
        for number in numbers:
            assert smtp.rcpt(f"a@c{number}.example")[0] == 250
        if any(OLD in list(cases.values())[number][1] for number in numbers):
            time.sleep(2.1)
        assert smtp.data("Subject: x\r\n\r\nhello\r\n")[0] == 250


def lines(system, number, server, program="smtp"):
    """What the client of this case said; numbers of its own taken out."""
    found = re.findall(rf" postfix/c{number}/{program}\[\d+\]: (.*)", system.log())
    found = [re.sub(r"(\.\./\S+?|\.c):\d+:", r"\1:N:", line.replace(f":{server.port}", ":PORT")) for line in found]
    return [re.sub(r"^[0-9A-F]+: |, delay=.*?(?=, dsn=)", "", line) for line in found]


def results(system, cases, servers, program="smtp"):
    """The lines of each case, once each has an end. A few at a time: each is a process of its own."""
    def ended(numbers):
        log = system.log()
        return all(re.search(rf"postfix/c{n}/.* to=<.* status=", log) for n in numbers)
    try:
        for first in range(0, len(cases), 16):
            numbers = range(first, min(first + 16, len(cases)))
            send(system, cases, numbers)
            wait_for(lambda numbers=numbers: ended(numbers), 60, f"an end of the cases {numbers}")
    finally:
        print(system.log())
    return {name: lines(system, n, servers[case[0]], program) for n, (name, case) in enumerate(cases.items())}


def check(cases, seen):
    for name, (_, _, expected) in cases.items():
        text, at = seen[name], 0
        if expected[0] == "-":
            assert len(text) == 1, (name, text)
        for pattern in expected[expected[0] == "-":]:
            found = next((i for i in range(at, len(text)) if re.search(pattern, text[i])), None)
            assert found is not None, (name, pattern, text)
            at = found + 1


OURS = re.compile(r"warning: .*(sent plain text behind|disabling TLS support|private/tlsmgr)|fail:x")  # said in other words, or by us alone


class Seen:
    """What each system has made of the cases, as far as asked for: log lines by case; commands and handshakes of the
    servers, by server."""

    def __init__(self, files, servers):
        self.files, self.servers = files, servers
        self.lines, self.said, self.handshakes = {}, {}, {}

    def get(self, kind, program="smtp"):
        if (kind, program) not in self.lines:
            cases = {name: (server, [*settings, "/max_idle=3s"], expected)
                     for name, (server, settings, expected) in CASES.items()}
            system = set_up(kind, cases, self.files, self.servers, program)
            try:
                self.lines[kind, program] = results(system, cases, self.servers, program)
            finally:
                system.stop()
            for field in "said", "handshakes":
                getattr(self, field)[kind, program] = {n: getattr(s, field)[:] for n, s in self.servers.items()}
                for server in self.servers.values():
                    getattr(server, field).clear()
        return self.lines[kind, program]


@pytest.fixture(scope="module")
def seen(files, servers):
    return Seen(files, servers)


@pytest.mark.parametrize("name", CASES)
def test_case(seen, name):
    check({name: CASES[name]}, seen.get("angarium"))


@pytest.mark.parametrize("name", [name for name in CASES if name != "EHLO refused"])
def test_lmtp(seen, name):
    """The same of lmtp(8), whose parameters are its own."""
    server, settings, expected = CASES[name]
    expected = [text.replace("smtp_tls", "lmtp_tls").replace("EHLO", "LHLO") for text in expected]
    check({name: (server, settings, expected)}, seen.get("angarium", "lmtp"))


# 3.7 forgets tls_wildcard_matches_multiple_labels where it looks for names
@pytest.mark.parametrize("name", [name for name in CASES if name != "verify, wildcard, labels"])
def test_same_as_postfix(seen, name):
    theirs, ours = seen.get("oracle")[name], seen.get("angarium")[name]
    assert [line for line in ours if not OURS.search(line)] == [line for line in theirs if not OURS.search(line)]


@pytest.mark.parametrize("kind", ["angarium", "oracle"])
def test_what_servers_are_told(seen, kind):
    seen.get(kind)
    said, handshakes = seen.said[kind, "smtp"], seen.handshakes[kind, "smtp"]
    assert {name for _, name, _, _ in handshakes["named"]} == {"localhost", "lit.example", "pol.example"}
    assert {name for _, name, _, _ in handshakes["good"]} == {None}
    assert all(cert for _, _, _, cert in handshakes["asking"]) and len(handshakes["asking"]) == 4
    # RFC 3207, 4.2: what was said in the clear does not count: EHLO again, and STARTTLS is not said twice
    for number in {n for n, line, _ in said["offered again"]}:
        assert [(line.split()[0], tls) for n, line, tls in said["offered again"] if n == number] == [
            ("EHLO", False), ("STARTTLS", False), ("EHLO", True), ("MAIL", True), ("RCPT", True), ("DATA", True),
            ("QUIT", True)]
    assert not any(line.startswith("MAIL") for n, line, tls in said["good"] if not tls
                   and any(m == n and other.startswith("STARTTLS") for m, other, _ in said["good"]))
    assert all(tls for _, _, tls in said["wrapped"]) and said["wrapped"]


REUSE = {  # two messages, one after the other: what the servers have seen
    "kept": (["smtp_tls_connection_reuse=yes"], 1),
    "not kept": (["smtp_tls_connection_reuse=no"], 2),
    "kept by policy": (["smtp_tls_policy_maps=static:{{encrypt connection_reuse=yes}}"], 1),
    "not kept by policy": (["smtp_tls_connection_reuse=yes",
                            "smtp_tls_policy_maps=static:{{encrypt connection_reuse=no}}"], 2),
}


@pytest.mark.parametrize("program", ["smtp", "lmtp"])
def test_connection_reuse(files, program):
    servers = {name: TlsSink(files.context("good")) for name in REUSE}
    kept = ["smtp_connection_cache_destinations=localhost", "smtp_connection_cache_time_limit=60s"]
    cases = {name: (name, [MAY, *settings, *kept], None) for name, (settings, _) in REUSE.items()}
    system = set_up("angarium", cases, files, servers, program, "connection_cache_ttl_limit = 60s\n")
    try:
        for messages in 1, 2:
            with smtplib.SMTP("127.0.0.1", system.port, timeout=60) as smtp:
                smtp.sendmail("x@x.example", [f"a@c{n}.example" for n in range(len(cases))], "Subject: x\r\n\r\nx\r\n")
            wait_for(lambda: all(len(server.messages) == messages for server in servers.values())
                     and system.log().count("status=sent") == messages * len(cases), 60)
        assert system.log().count("conn_use=2") == 2
        for name, (_, connections) in REUSE.items():
            assert (servers[name].connections, len(servers[name].handshakes)) == (connections, connections), name
    finally:
        print(system.log())
        system.stop()
        for server in servers.values():
            server.close()


# key of smtp_tls_policy_maps, destination, does the key count for it?
PARENTS = [(".example.net", "sub.example.net", True), (".example.net", "a.b.sub.example.net", True),
           (".net", "sub.example.net", True), ("sub.example.net", "sub.example.net", True),
           ("example.net", "sub.example.net", False), (".sub.example.net", "sub.example.net", False),
           (".example.net", "example.net", False), (".example.net", "[sub.example.net]", False),
           ("[sub.example.net]", "[sub.example.net]", True)]


def test_policies_of_parent_domains(files):
    """A key with a dot in front is that of all domains below it; only where the destination is a domain and nothing else."""
    server = TlsSink(files.context("good"))
    names = Names({(destination.strip("[]"), "A"): (60, ["127.0.0.1"]) for _, destination, _ in PARENTS})
    transports = ",".join(f"{{c{n}.example=c{n}:{destination}}}" for n, (_, destination, _) in enumerate(PARENTS))
    master = "".join(f"c{n} unix - - n - - smtp -o syslog_name=postfix/c{n} -o smtp_tls_loglevel=1 -o smtp_tcp_port={server.port}"
                     f" -o {{ smtp_tls_policy_maps = inline:{{ {{ {key} = encrypt }} }} }}\n"
                     for n, (key, _, _) in enumerate(PARENTS))
    system = Instance(main_cf=f"transport_maps = inline:{{{transports}}}\n", master_extra=master, dns=names.address)
    try:
        system.start()
        with smtplib.SMTP("127.0.0.1", system.port, timeout=60) as smtp:
            smtp.sendmail("x@x.example", [f"a@c{n}.example" for n in range(len(PARENTS))], "Subject: x\r\n\r\nx\r\n")
        wait_for(lambda: len(re.findall("status=", system.log())) == len(PARENTS), 60)
        log = system.log()
        assert log.count("status=sent") == len(PARENTS)
        assert [row for n, row in enumerate(PARENTS)
                if bool(re.search(rf"postfix/c{n}/smtp\S* Untrusted TLS connection", log)) != row[2]] == []
    finally:
        print(system.log())
        system.stop()
        names.close()
        server.close()
