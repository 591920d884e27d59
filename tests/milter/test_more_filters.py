"""More filters from Debian's packages: ClamAV with a signature of the test's own, OpenDMARC, and rspamd's milter worker."""
import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from instance import free_port, wait_for
from milter.both_servers import SESSION, play

ONE = SESSION[:1] + SESSION[2:7] + ["QUIT"]
HOLD = "smtpd_data_restrictions = check_client_access static:HOLD\n"
MAIL = "local_recipient_maps =\nlocal_transport = discard\nmilter_default_action = tempfail\n"
HEADER = "Subject: x\r\nFrom: x@y.example\r\nTo: a@localhost\r\nDate: Sat, 21 Nov 2026 20:00:00 +0000\r\n"
VIRUS = "angarium-test-" + "pattern-which-is-in-no-other-mail"  # in two parts: this file is none


def needs(*programs):
    missing = [p for p in programs if not shutil.which(p, path="/usr/sbin:/usr/bin")]
    return pytest.mark.skipif(bool(missing), reason=f"no {' '.join(missing)}")


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(*args, ready, seconds=60, **kwargs):
    """A process of ours, ended with the processes it has started."""
    process = subprocess.Popen(args, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)

    def up():
        assert process.poll() is None, f"{args[0]} has ended with {process.returncode}"
        return ready()
    try:
        wait_for(up, seconds, what=args[0])
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def held_message(server):
    """The queue id and the text of the one message."""
    [name] = wait_for(server.queue_ids, what="the held message")

    def shown():
        done = server.command("postcat", "-qbh", name, capture_output=True)
        return done.returncode == 0 and done.stdout
    return name, wait_for(shown, what="its text")


# --- ClamAV ---
@pytest.fixture
def clamav(tmp_path):
    """clamd with one signature, and its milter: the milter's port."""
    database = tmp_path / "db"
    database.mkdir()
    database.chmod(0o755)
    (database / "test.ndb").write_text(f"Angarium.Test:0:*:{VIRUS.encode().hex()}\n")
    clamd_port, port = free_port(), free_port()
    clamd = tmp_path / "clamd.conf"
    clamd.write_text(f"DatabaseDirectory {database}\nTCPSocket {clamd_port}\nTCPAddr 127.0.0.1\nForeground yes\n"
                     f"LogFile {tmp_path}/clamd.log\nTemporaryDirectory {tmp_path}\nDisableCache yes\n"
                     f"PidFile {tmp_path}/clamd.pid\nMaxThreads 2\n")
    milter = tmp_path / "clamav-milter.conf"
    milter.write_text(f"MilterSocket inet:{port}@127.0.0.1\nClamdSocket tcp:127.0.0.1:{clamd_port}\nForeground yes\n"
                      f"LogFile {tmp_path}/milter.log\nTemporaryDirectory {tmp_path}\nOnInfected Reject\n"
                      "RejectMsg Infected by %v\nAddHeader Replace\nOnFail Defer\n")
    with running("clamd", "-c", str(clamd), ready=lambda: listens(clamd_port)), \
            running("clamav-milter", "-c", str(milter), ready=lambda: listens(port)):
        yield port


@needs("clamd", "clamav-milter")
def test_clamav(make_instance, clamav):
    server = make_instance(main_cf=MAIL + f"smtpd_milters = inet:127.0.0.1:{clamav}\n{HOLD}")
    heard = dict(play(server.port, ONE, f"{HEADER}\r\nhello\r\n{VIRUS}\r\nend\r\n"))
    assert re.fullmatch(r"5\d\d 5\.7\.1 Infected by Angarium.Test\S*", heard["message"]), heard
    server.wait_log("milter-reject: END-OF-MESSAGE from localhost[127.0.0.1]: 5.7.1 Infected by Angarium.Test")
    # in an attachment, hidden by base64, and across the filter's packets of 64 KiB
    part = base64.encodebytes(b"z" * 70000 + VIRUS.encode() + b"z" * 1000).decode().replace("\n", "\r\n")
    heard = dict(play(server.port, ONE, f"{HEADER}MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
                      f"Content-Transfer-Encoding: base64\r\n\r\n{part}"))
    assert heard["message"].startswith("5"), heard
    assert server.queue_ids() == []
    heard = dict(play(server.port, ONE, f"{HEADER}\r\nhello\r\n"))
    assert heard["message"].startswith("250"), heard
    _, text = held_message(server)
    assert "X-Virus-Scanned: clamav-milter" in text and "X-Virus-Status: Clean" in text


# --- OpenDMARC ---
@needs("opendmarc")
def test_opendmarc(make_instance, tmp_path):
    """It reads the results of the filters before it, here in a header that the test itself writes, and the policy of
    the author's domain, here none; the name by which it trusts the results is the macro {j}."""
    port = free_port()
    conf = tmp_path / "opendmarc.conf"
    conf.write_text(f"Socket inet:{port}@127.0.0.1\nBackground false\nSyslog false\nAuthservID checked.example\n"
                    f"TrustedAuthservIDs mail.example\nIgnoreHosts {tmp_path}/ignored\nRejectFailures false\n"
                    "SoftwareHeader true\nDNSTimeout 2\n")
    (tmp_path / "ignored").write_text("192.0.2.1\n")
    with running("opendmarc", "-f", "-c", str(conf), ready=lambda: listens(port)):
        server = make_instance(main_cf=MAIL + f"smtpd_milters = inet:127.0.0.1:{port}\n{HOLD}")
        heard = dict(play(server.port, ONE, "Authentication-Results: mail.example; dkim=pass header.d=y.example\r\n"
                          f"{HEADER}\r\nhello\r\n"))
        assert heard["message"].startswith("250"), heard
        name, text = held_message(server)
    assert re.search(r"^DMARC-Filter: OpenDMARC Filter v\S+ mail\.example \w+", text, re.M), text
    assert re.search(r"^Authentication-Results: checked\.example; dmarc=\w+ ", text, re.M), text
    assert "header.from=y.example" in text and "milter-reject" not in server.log()
    # the id in its header is the macro {i}
    assert re.search(rf"^DMARC-Filter: .* {name}$", text, re.M), text


# --- rspamd ---
RSPAMD = """\
options {{
  filters = "";
  dns {{ nameserver = ["127.0.0.1:{dns}:1"]; timeout = 100ms; retransmits = 1; }}
  tempdir = "{here}"; pidfile = "{here}/rspamd.pid"; url_tld = "{here}/tlds";
  hs_cache_dir = "{here}/";
}}
logging {{ type = "file"; filename = "{here}/rspamd.log"; level = "info"; }}
actions {{ reject = 15; add_header = 6; }}
worker {{ type = "normal"; bind_socket = "127.0.0.1:{normal}"; count = 1; enabled = false; }}
worker {{
  type = "rspamd_proxy"; bind_socket = "127.0.0.1:{port}"; milter = yes; timeout = 60s; count = 1;
  upstream "local" {{ default = yes; self_scan = yes; }}
  reject_message = "rspamd has seen enough";
}}
lua = "{here}/rules.lua";
"""
RULES = """\
local function has(text) return function(task) return string.find(tostring(task:get_content()), text, 1, true) ~= nil end end
rspamd_config.WORST = { callback = has('the worst of words'), score = 20 }
rspamd_config.BAD = { callback = has('a bad word'), score = 7 }
rspamd_config.LOOKED = { callback = function(task)
  local ip, from, rcpt = task:get_from_ip(), task:get_from('smtp'), task:get_recipients('smtp')
  task:set_milter_reply({ add_headers = { ['X-Seen'] = string.format('ip=%s helo=%s from=%s rcpt=%s id=%s',
    ip and ip:to_string() or '?', task:get_helo() or '?', from and from[1].addr or '?',
    rcpt and rcpt[1].addr or '?', task:get_queue_id() or '?') }, remove_headers = { ['X-A'] = 1 } })
  return true
end, score = 0, type = 'postfilter' }
"""


@pytest.fixture
def rspamd(tmp_path):
    port = free_port()
    tmp_path.chmod(0o777)
    (tmp_path / "rules.lua").write_text(RULES)
    (tmp_path / "tlds").write_text("example\n")  # its own list takes half a minute to compile
    conf = tmp_path / "rspamd.conf"
    conf.write_text(RSPAMD.format(here=tmp_path, port=port, normal=free_port(), dns=free_port()))
    for one in (tmp_path, *tmp_path.parents):
        with contextlib.suppress(PermissionError):
            one.chmod(one.stat().st_mode | 0o055)
    user = ["-u", "_rspamd", "-g", "_rspamd"] if os.geteuid() == 0 else ["-i"]
    with running("rspamd", "-f", *user, "-c", str(conf), ready=lambda: listens(port)):
        yield port


@needs("rspamd")
def test_rspamd(make_instance, rspamd):
    server = make_instance(main_cf=MAIL + f"smtpd_milters = inet:127.0.0.1:{rspamd}\n{HOLD}")
    heard = dict(play(server.port, ONE, f"{HEADER}\r\nthe worst of words\r\n"))
    assert heard["message"] == "554 5.7.1 rspamd has seen enough", heard
    assert server.queue_ids() == []
    heard = dict(play(server.port, ONE, f"{HEADER}X-A: goes\r\nX-B: stays\r\n\r\na bad word\r\n"))
    assert heard["message"].startswith("250"), heard
    name, text = held_message(server)
    assert f"X-Seen: ip=127.0.0.1 helo=client.example from=s@client.example rcpt=a@localhost id={name}\n" in text, text
    assert "X-Spam: Yes" in text and "X-A:" not in text and "X-B: stays" in text
