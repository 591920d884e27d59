"""Filters from Debian's packages: OpenDKIM signs a message, and takes the signature for good when it comes back."""
import base64
import os
import re
import shutil
import subprocess

import pytest

from instance import free_port, wait_for
from milter.both_servers import SESSION, play

OPENDKIM = shutil.which("opendkim", path="/usr/sbin:/usr/bin")
ONE = SESSION[:1] + SESSION[2:7] + ["QUIT"]
MESSAGE = "Subject: signed\r\nFrom: x@y.example\r\nTo: a@localhost\r\nX-Long:  two\r\n\tfolded\r\n\r\nbody\r\n\r\n.x\r\nend\r\n"


def opendkim(tmp_path, mode, lines):
    port = free_port()
    conf = tmp_path / f"{mode}.conf"
    conf.write_text(f"Socket inet:{port}@127.0.0.1\nMode {mode}\nBackground no\nUMask 022\nSyslog no\n{lines}\n")
    process = subprocess.Popen([OPENDKIM, "-f", "-x", str(conf)])

    def listens():
        import socket
        assert process.poll() is None, "opendkim has ended"
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0
    wait_for(listens, what="opendkim")
    return process, port


@pytest.mark.skipif(not OPENDKIM, reason="no opendkim")
def test_opendkim(make_instance, tmp_path):
    key = tmp_path / "key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    os.chmod(key, 0o600)
    public = subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-outform", "DER"], check=True,
                            capture_output=True).stdout
    dns = tmp_path / "dns"
    dns.write_text(f"s._domainkey.y.example v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}\n")
    running = []
    try:
        signer, sign_port = opendkim(tmp_path, "s", f"Domain y.example\nSelector s\nKeyFile {key}\n"
                                     "InternalHosts 127.0.0.1\nCanonicalization simple/simple\n"
                                     "RequireSafeKeys no")
        running.append(signer)
        checker, check_port = opendkim(tmp_path, "v", f"TestDNSData refile:{dns}\nInternalHosts 192.0.2.1\n"
                                       "AlwaysAddARHeader yes\nAuthservID checked.example")
        running.append(checker)
        server = make_instance(main_cf=f"smtpd_milters = inet:127.0.0.1:{sign_port} inet:127.0.0.1:{check_port}\n"
                               "local_recipient_maps =\nlocal_transport = discard\nmilter_default_action = tempfail\n"
                               "smtpd_data_restrictions = check_client_access static:HOLD\n")
        heard = dict(play(server.port, ONE, MESSAGE.replace("\r\n.x", "\r\n..x")))
        assert heard["message"].startswith("250")
        name = re.search(r"(\w+): client=", server.log()).group(1)

        def shown():
            done = server.command("postcat", "-qbh", name, capture_output=True)
            return done.returncode == 0 and done.stdout
        message = wait_for(shown, what="the held message")
        assert "DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=y.example; s=s;" in message
        # the second filter has seen what the first one made, with the bytes it was signed with
        assert re.search(r"Authentication-Results: checked\.example;\s+dkim=pass", message), message
    finally:
        for process in running:
            process.terminate()
            process.wait(20)
