"""check_policy_service against scripted and real policy servers, by inet and unix sockets and through spawn."""
import contextlib
import grp
import importlib.util
import os
import pwd
import shutil
import signal
import smtplib
import socket
import subprocess
import sys

import pytest

from instance import free_port, wait_for
from restrictions.policy_servers import USER, PolicyServer, give_to_nobody

WORLD = "mydestination = here.example\nlocal_recipient_maps =\nlocal_transport = discard:\n"


def rcpt(instance, *recipients, sender="a@there.example"):
    """The replies to RCPT, in one transaction."""
    with instance.smtp() as client:
        client.ehlo("client.example")
        client.mail(sender)
        replies = [client.rcpt(recipient) for recipient in recipients]
        return [(code, text.decode()) for code, text in replies]


def with_policy(make_instance, endpoint, **kwargs):
    return make_instance(main_cf=f"{WORLD}smtpd_recipient_restrictions = check_policy_service {endpoint}\n", **kwargs)


def test_inet(make_instance):
    port = free_port()
    server = PolicyServer(("127.0.0.1", port), lambda asked: "450 4.2.0 Greylisted, see http://postgrey.example/")
    instance = with_policy(make_instance, f"inet:127.0.0.1:{port}")
    assert rcpt(instance, "user@here.example") == [
        (450, "4.2.0 <user@here.example>: Recipient address rejected: Greylisted, see http://postgrey.example/")]
    asked = server.asked[0]
    assert asked["request"] == "smtpd_access_policy" and asked["protocol_state"] == "RCPT"
    assert asked["server_address"] == asked["client_address"] == "127.0.0.1"
    assert asked["server_port"] == str(instance.port)
    server.close()


def test_unix_socket_and_one_connection(make_instance):
    instance = with_policy(make_instance, "unix:private/policy")
    server = PolicyServer(str(instance.queue / "private/policy"))
    for _ in range(3):
        assert [code for code, _ in rcpt(instance, "a@here.example", "b@here.example")] == [250, 250]
    assert server.connections == 1
    instances = [asked["instance"] for asked in server.asked]
    assert len(instances) == 6 and len(set(instances)) == 3 and instances[0] == instances[1]
    server.close()


def test_restarted_server(make_instance):
    """A connection that died while nobody used it costs nobody anything."""
    port = free_port()
    answers = iter(["DUNNO", None])
    server = PolicyServer(("127.0.0.1", port), lambda asked: next(answers, "REJECT again"))
    instance = with_policy(make_instance, f"{{ inet:127.0.0.1:{port}, try_limit=1 }}")
    assert rcpt(instance, "a@here.example")[0][0] == 250
    assert "again" in rcpt(instance, "a@here.example")[0][1]
    assert "problem talking" not in instance.log()
    server.close()


def test_server_that_is_not_there(make_instance):
    instance = with_policy(make_instance, "{ unix:private/nobody, { default_action = 451 4.3.5 See you }, retry_delay=1s }")
    assert rcpt(instance, "a@here.example") == [(451, "4.3.5 <a@here.example>: Recipient address rejected: See you")]
    instance.wait_log("warning: problem talking to server private/nobody: ")


# --- spawn ---
SERVER = """\
import os, sys
asked = {}
for line in sys.stdin:
    if line == "\\n":
        print(f"action=450 4.2.0 uid={os.geteuid()} context={asked['policy_context']} pid={os.getpid()} "
              f"env={os.environ.get('COLOUR')}\\n", flush=True)
        asked = {}
    else:
        name, _, value = line.rstrip("\\n").partition("=")
        asked[name] = value
"""


def spawned(make_instance, command, settings="", main_cf=""):
    master = f"policy unix - n n - 0 spawn\n  user={USER} argv={command}\n"
    return with_policy(make_instance, f"{{ unix:private/policy, {settings} timeout=20s }}", master_extra=master,
                       start=False), main_cf


def start(instance, main_cf=""):
    with open(instance.etc / "main.cf", "a") as f:
        f.write(main_cf)
    return instance.start()


def test_spawn(make_instance, tmp_path):
    script = tmp_path / "policy.py"
    script.write_text(SERVER)
    open_to_all(script)
    instance, _ = spawned(make_instance, f"{sys.executable} {script}", "policy_context=outside,")
    start(instance, "export_environment = TZ COLOUR=blue\n")
    replies = rcpt(instance, "a@here.example", "b@here.example")
    uid = pwd.getpwnam(USER).pw_uid
    assert all(f"uid={uid} context=outside" in text and "env=blue" in text for _, text in replies), replies
    assert len({text.split("pid=")[1] for _, text in replies}) == 1


def test_spawn_time_limit(make_instance):
    """The command and what it has started are killed; the next question begins a new one."""
    long = f"{600 + os.getpid()}.125"  # nobody else sleeps as long
    instance, _ = spawned(make_instance, f"/bin/sh -c {{sleep {long} & sleep {long}}}", "try_limit=1,")
    start(instance, "policy_time_limit = 2s\nsmtpd_policy_service_default_action = DUNNO\n")
    assert rcpt(instance, "a@here.example")[0][0] == 250
    line = instance.wait_log("time limit")
    assert "command /bin/sh: killed after its time limit of 2 seconds (policy_time_limit)" in line
    wait_for(lambda: not subprocess.run(["pgrep", "-f", f"^sleep {long}$"], capture_output=True).stdout)


def test_spawn_reports_failures(make_instance):
    instance, _ = spawned(make_instance, "/nonexistent/policy", "try_limit=1,")
    start(instance)
    assert rcpt(instance, "a@here.example")[0][0] == 451
    instance.wait_log("command /nonexistent/policy cannot be run: No such file or directory")


def test_spawn_refuses_root(make_instance):
    master = "policy unix - n n - 0 spawn user=root argv=/bin/true\n"
    instance = with_policy(make_instance, "{ unix:private/policy try_limit=1 timeout=5s }", master_extra=master)
    assert rcpt(instance, "a@here.example")[0][0] == 451
    instance.wait_log("fatal: service policy: user= must not have root's rights")


# --- real ones ---
HOLD = "smtpd_data_restrictions = check_client_access static:HOLD\n"


def held_message(instance, recipient="user@here.example"):
    """Send one, which an access table holds; its text."""
    with instance.smtp() as client:
        client.sendmail("a@there.example", recipient, "Subject: x\n\nhello\n")
    [queue_id] = instance.queue_ids()
    return instance.command("postcat", "-q", queue_id, capture_output=True).stdout


def open_to_all(*paths):
    for path in paths:
        for one in (path, *path.parents):
            with contextlib.suppress(PermissionError):
                one.chmod(one.stat().st_mode | 0o055)


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.skipif(not shutil.which("postgrey"), reason="no postgrey")
@pytest.mark.parametrize("kind", ["inet", "unix"])
def test_postgrey(make_instance, tmp_path, kind):
    open_to_all(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    give_to_nobody(data, tmp_path)
    port = free_port()
    where = f"--inet=127.0.0.1:{port}" if kind == "inet" else f"--unix={tmp_path}/socket"
    group = grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name
    empty = tmp_path / "none"
    empty.write_text("")
    process = subprocess.Popen(["postgrey", where, f"--dbdir={data}", "--delay=1", f"--user={USER}", f"--group={group}",
                                "--greylist-text=Come again", f"--whitelist-clients={empty}",
                                f"--whitelist-recipients={empty}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (tmp_path / "socket").exists() if kind == "unix" else answers(port), what="postgrey")
        endpoint = f"inet:127.0.0.1:{port}" if kind == "inet" else f"unix:{tmp_path}/socket"
        instance = with_policy(make_instance, endpoint, start=False)
        start(instance, HOLD)
        assert rcpt(instance, "user@here.example") == [
            (450, "4.2.0 <user@here.example>: Recipient address rejected: Come again")]

        def message():
            with contextlib.suppress(smtplib.SMTPRecipientsRefused):
                return held_message(instance)
        assert "X-Greylist: delayed" in wait_for(message, what="the end of greylisting")
        assert "problem talking" not in instance.log()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.skipif(not importlib.util.find_spec("spf_engine"), reason="no spf_engine")
def test_policyd_spf(make_instance, tmp_path):
    """As its Debian package runs it, by spawn, with a longer life than other commands."""
    settings = tmp_path / "policyd-spf.conf"
    settings.write_text("debugLevel = 1\nskip_addresses = 127.0.0.0/8\n")
    script = tmp_path / "policyd-spf"
    script.write_text("from spf_engine.policyd_spf import main\nmain()\n")
    open_to_all(settings, script)
    instance, _ = spawned(make_instance, f"/usr/bin/python3 {script} {settings}", "try_limit=1,")
    start(instance, HOLD + "policy_time_limit = 3600\n")
    assert "X-Comment: SPF check N/A for local connections" in held_message(instance)
    assert "problem talking" not in instance.log()


@pytest.mark.skipif(not shutil.which("postfwd"), reason="no postfwd")
def test_postfwd(make_instance, tmp_path):
    rules = tmp_path / "postfwd.cf"
    rules.write_text("id=R1; sender=bad@there.example; action=REJECT not you\nid=R2; action=DUNNO\n")
    open_to_all(rules)
    give_to_nobody(tmp_path)
    port, pid_file = free_port(), tmp_path / "pid"
    group = grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name
    subprocess.run(["postfwd", "-f", str(rules), "-i", "127.0.0.1", "-p", str(port), "--cache_port", str(free_port()),
                    "-u", USER, "-g", group, "--pidfile", str(pid_file)], check=True, cwd=tmp_path, timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port), what="postfwd")
        instance = with_policy(make_instance, f"inet:127.0.0.1:{port}")
        assert rcpt(instance, "user@here.example")[0][0] == 250
        assert rcpt(instance, "user@here.example", sender="bad@there.example") == [
            (554, "5.7.1 <user@here.example>: Recipient address rejected: not you")]
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
