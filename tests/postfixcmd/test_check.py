"""postfix check: what is wrong is said, with what mends it; and postfix set-permissions mends it."""
import grp
import os
import pwd
import re
import stat
import subprocess

import pytest


def check(machine, *args):
    done = machine.postfix(*(args or ["check"]))
    assert done.returncode == 0, done.stderr
    return [line.split("postfix-script: ", 1)[1] for line in done.stderr.splitlines()]


@pytest.fixture
def clean(machine):
    """Nothing to say about it."""
    assert machine.postfix("check").returncode == 0
    assert machine.postfix("set-permissions").returncode == 0
    assert check(machine) == []
    return machine


def add(machine, *lines):
    with (machine.etc / "main.cf").open("a") as main:
        main.write("".join(line + "\n" for line in lines))


def apply_and_recheck(machine, said):
    """Every command that was given is run; then there is nothing left to say."""
    commands = [line.split("to mend it: ", 1)[1] for line in said if "to mend it: " in line]
    assert commands
    for command in commands:
        from machine import in_namespace
        subprocess.run(in_namespace(machine.whole_etc, ["sh", "-ec", command]), check=True, timeout=60)
    assert check(machine) == []


NOBODY = 65534
FAULTS = {  # what is done: what is said
    "etc/main.cf chown": "not owned by root: /etc/postfix/main.cf",
    "etc/master.cf 666": "group or other writable: /etc/postfix/master.cf",
    "etc chown": "not owned by root: /etc/postfix", "etc 777": "group or other writable: /etc/postfix",
    "etc/new/deep 666": "group or other writable: /etc/postfix/new/deep",
    "etc/new/deep chown": "not owned by root: /etc/postfix/new/deep",
    "data chown": "not owned by postfix: {data}", "data 770": "group or other writable: {data}",
    "data/cache.lmdb chown": "not owned by postfix: {data}/cache.lmdb",
    "queue chown": "not owned by root: {queue}", "queue 777": "group or other writable: {queue}",
    "queue/active chown": "not owned by postfix: {queue}/active",
    "queue/deferred 722": "group or other writable: {queue}/deferred",
    "queue/pid chown": "not owned by root: {queue}/pid", "queue/pid 777": "group or other writable: {queue}/pid",
    "queue/maildrop chgrp": "not owned by group postdrop: {queue}/maildrop",
    "queue/public chgrp": "not owned by group postdrop: {queue}/public",
    "queue/maildrop 777": "group or other writable: {queue}/maildrop",
    "libexec chown": "not owned by root: {directory}/libexec",
    "libexec/pickup 775": "group or other writable: {directory}/libexec/pickup",
    "libexec/pickup chown": "not owned by root: {directory}/libexec/pickup",
    "bin/postmap 777": "group or other writable: {directory}/bin/postmap",
    "bin/postdrop chgrp": "not owned by group postdrop: {directory}/bin/postdrop",
    "bin/postqueue 755": "not set-gid or not owner+group+world executable: {directory}/bin/postqueue",
    "bin/postlog 2750": "not set-gid or not owner+group+world executable: {directory}/bin/postlog",
}


def spoil(machine, what):
    name, how = what.split()
    path = machine.etc / name[4:] if name.startswith("etc") else machine.directory / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        if name.startswith("data"):
            os.chown(path, pwd.getpwnam("postfix").pw_uid, -1)
    if how == "chown":
        os.chown(path, NOBODY, -1)
    elif how == "chgrp":
        mode = stat.S_IMODE(path.stat().st_mode)
        os.chown(path, -1, 0)
        path.chmod(mode)
    else:
        path.chmod(int(how, 8))


@pytest.mark.parametrize("what", FAULTS)
def test_owners_and_modes(clean, what):
    """Each is said with a command that mends it; set-permissions mends those of the table."""
    spoil(clean, what)
    said = check(clean)
    text = FAULTS[what].format(data=clean.data, queue=clean.queue, directory=clean.directory)
    assert f"warning: {text}" in said
    assert said[said.index(f"warning: {text}") + 1].startswith("  to mend it: ch")
    apply_and_recheck(clean, said)


@pytest.mark.parametrize("what", [what for what in FAULTS if "new/deep" not in what])
def test_set_permissions(clean, what):
    spoil(clean, what)
    assert check(clean) != []
    assert clean.postfix("set-permissions").returncode == 0
    assert check(clean) == []


def test_check_changes_nothing(clean):
    for what in FAULTS:
        spoil(clean, what)
    def state():
        return {path: (path.lstat().st_uid, path.lstat().st_gid, path.lstat().st_mode)
                for path in clean.directory.rglob("*") if path.name != "log"}
    before = state()
    check(clean)
    assert state() == before


def test_missing_directories(clean):
    """check makes them, also data_directory and the queue itself."""
    for name in ("active", "maildrop", "pid"):
        subprocess.run(["rm", "-r", clean.queue / name], check=True)
    clean.data.rmdir() if not any(clean.data.iterdir()) else subprocess.run(["rm", "-r", clean.data], check=True)
    assert check(clean) == []
    assert stat.S_IMODE((clean.queue / "maildrop").stat().st_mode) == 0o730
    assert (clean.queue / "maildrop").stat().st_gid == grp.getgrnam("postdrop").gr_gid
    assert clean.data.stat().st_uid == pwd.getpwnam("postfix").pw_uid
    subprocess.run(["rm", "-r", clean.queue], check=True)
    assert check(clean, "check-fatal") == []
    assert sorted(os.listdir(clean.queue)) == sorted(
        "active bounce corrupt defer deferred flush hold incoming log maildrop pid private public saved trace".split())


def test_phases(clean):
    """check-fatal makes and stops, check-warn only talks."""
    (clean.queue / "active").rmdir()
    (clean.queue / "corrupt/X").write_text("")
    assert check(clean, "check-warn") == ["warning: damaged message: corrupt/X"]
    assert not (clean.queue / "active").exists()
    assert check(clean, "check-fatal") == []
    assert (clean.queue / "active").exists()
    add(clean, f"daemon_directory = {clean.directory}/nowhere")
    for name in ("check-fatal", "check"):
        done = clean.postfix(name)
        assert done.returncode == 1 and "fatal: no Postfix daemon directory" in done.stderr


def test_another_systems_daemons(clean):
    """A main.cf that Postfix's installation has written its own daemon_directory into."""
    (clean.daemons / "postfix-script").write_text("")
    done = clean.postfix("start")
    assert done.returncode == 1
    assert f"daemon_directory = {clean.daemons} has Postfix's daemons" in done.stderr


def test_stray_files(clean):
    (clean.queue / "incoming/4BxyZ").write_text("")
    (clean.queue / "deferred/A").mkdir()
    (clean.queue / "deferred/A/ABC").write_text("")
    assert check(clean) == []
    (clean.queue / "deferred/A/no message").write_text("")
    (clean.queue / "hold/folder").mkdir()
    said = check(clean)
    assert f"warning: not a message: {clean.queue}/deferred/A/no message" in said
    assert f"warning: not a message: {clean.queue}/hold/folder" in said
    for i in range(100):
        (clean.queue / f"active/bad name {i}").write_text("")
    said = check(clean)
    assert "warning: 82 more files in the queue that are no messages" in said and len(said) < 60
    # a start does not wait for a look at every message of a long queue
    started = clean.postfix("start")
    assert started.returncode == 0 and "starting the Postfix mail system" in started.stderr
    assert "no message" not in started.stderr and "not a message" not in started.stderr


def test_copies_for_chroot(clean):
    (clean.queue / "etc").mkdir()
    copy = clean.queue / "etc/services"
    copy.write_bytes((clean.whole_etc / "services").read_bytes())
    (clean.queue / "etc/only-here").write_text("")
    assert check(clean) == []
    copy.write_text("old")
    said = check(clean)
    assert said[0] == f"warning: {copy} and /etc/services differ"
    apply_and_recheck(clean, said)


# --- tables ---
@pytest.mark.parametrize("spec,mend", [
    ("hash:/etc/postfix/gone", "write /etc/postfix/gone, then: postmap hash:/etc/postfix/gone"),
    ("lmdb:/etc/postfix/gone", "write /etc/postfix/gone, then: postmap lmdb:/etc/postfix/gone"),
    ("regexp:/etc/postfix/gone", "write or correct /etc/postfix/gone"),
    ("proxy:hash:/etc/postfix/gone", "write /etc/postfix/gone, then: postmap hash:/etc/postfix/gone"),
    ("dbm:/etc/postfix/gone", "write or correct /etc/postfix/gone"),
])
def test_missing_table(clean, spec, mend):
    add(clean, f"virtual_alias_maps = inline:{{a=b}}, {spec}")
    said = check(clean)
    at = next(i for i, line in enumerate(said) if "warning: /etc/postfix/main.cf: parameter virtual_alias_maps: " in line)
    assert spec.removeprefix("proxy:") in said[at]
    assert said[at + 1] == f"  to mend it: {mend}"


def test_table_states(clean):
    """No index, and an index older than its text: information, no warning; nothing has to be done."""
    table = clean.etc / "table"
    table.write_text("a b\n")
    add(clean, "transport_maps = hash:/etc/postfix/table")
    assert check(clean) == [
        "table hash:/etc/postfix/table: using the text file: index /etc/postfix/table.lmdb is missing"]
    assert clean.command("postmap", "hash:/etc/postfix/table").returncode == 0
    assert check(clean) == []
    os.utime(table, (2**31, 2**31))
    assert check(clean) == [
        "table hash:/etc/postfix/table: using the text file: index /etc/postfix/table.lmdb is older than its source"]


@pytest.mark.parametrize("name, value", [("default_database_type", "sdbm"), ("default_cache_db_type", "cdb")])
def test_default_types(clean, name, value):
    """A type that cannot be written, or not in place, would fail later and elsewhere."""
    add(clean, f"{name} = {value}")
    assert any(f"parameter {name}: this build cannot write tables of type \"{value}\"" in line
               for line in check(clean))


def test_all_bad_values_at_once(clean):
    add(clean, "mailbox_size_limit = abc", "smtpd_timeout = soon", "smtpd_banner = ${foo")
    done = clean.postfix("check")
    assert done.returncode == 1
    for name in ("mailbox_size_limit", "smtpd_timeout", "smtpd_banner"):
        assert re.search(f"parameter {name}: .*main.cf, line [0-9]+|{name}.*main.cf, line [0-9]+", done.stderr), name


def test_table_types_and_database_files(clean):
    """A type that does not exist, and a database without its file."""
    add(clean, "sender_canonical_maps = hsah:/etc/postfix/a, inline:{a=b}, static:{x y}",
        "virtual_mailbox_maps = proxy:mysql:/etc/postfix/gone.cf")
    said = check(clean)
    assert any("parameter sender_canonical_maps: unsupported table type: hsah:/etc/postfix/a" in s for s in said)
    assert any("virtual_mailbox_maps: table mysql:/etc/postfix/gone.cf: No such file or directory" in s for s in said)
    assert not any("inline" in s or "static" in s for s in said)


def test_malformed_table(clean):
    (clean.etc / "rules").write_text("/good/ OK\n/bad( OK\n")
    add(clean, "smtpd_client_restrictions = check_client_access regexp:/etc/postfix/rules")
    assert any("rules" in line and "line 2" in line for line in check(clean))


def test_unreadable_table(clean):
    table = clean.etc / "secret"
    table.write_text("a b\n")
    table.chmod(0o600)
    add(clean, "transport_maps = texthash:/etc/postfix/secret")
    said = check(clean)
    assert said[0] == "warning: /etc/postfix/main.cf: table texthash:/etc/postfix/secret: " \
                      "user postfix cannot read /etc/postfix/secret"
    apply_and_recheck(clean, said)


def test_passwords_may_be_roots_alone(clean):
    table = clean.etc / "passwords"
    table.write_text("a b\n")
    table.chmod(0o600)
    add(clean, "smtp_sasl_password_maps = texthash:/etc/postfix/passwords")
    assert not [line for line in check(clean) if "cannot read" in line]


def test_tables_of_services_and_caches(clean):
    """-o of master.cf counts; what a daemon makes for itself does not."""
    master_cf = clean.etc / "master.cf"
    text = master_cf.read_text()
    master_cf.write_text(text.replace("pickup     unix", "other unix - - n - 1 pickup\n"
                                      "  -o virtual_alias_maps=cidr:/etc/postfix/gone\npickup     unix", 1))
    add(clean, "smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache",
        "address_verify_map = btree:${data_directory}/verify")
    said = check(clean)
    assert any("/etc/postfix/master.cf: parameter virtual_alias_maps: table cidr:/etc/postfix/gone" in s for s in said)
    assert not any("scache: " in line or "verify: " in line for line in said)


def test_aliases(clean):
    add(clean, "alias_maps = hash:/etc/gone-aliases", "alias_database = $alias_maps",
        "virtual_alias_maps = hash:/etc/gone-too")
    for name in ("check-alias-maps-migration", "check"):
        said = check(clean, name)
        assert "  to mend it: write /etc/gone-aliases, then: postalias hash:/etc/gone-aliases" in said
        assert len([line for line in said if "gone-aliases: open" in line]) == 1
        assert any("gone-too" in line for line in said) == (name == "check")


# --- set-permissions with settings ---
def test_new_owner(clean):
    """name=value goes into main.cf and counts at once, also for what lies in the queue."""
    message = clean.queue / "deferred/ABC"
    message.write_text("")
    os.chown(message, pwd.getpwnam("postfix").pw_uid, -1)
    done = clean.postfix("set-permissions", "mail_owner=daemon", "setgid_group=mail")
    assert done.returncode == 0, done.stderr
    assert clean.postconf("mail_owner") == "daemon" and clean.postconf("setgid_group") == "mail"
    daemon, mail = pwd.getpwnam("daemon").pw_uid, grp.getgrnam("mail").gr_gid
    assert (clean.queue / "active").stat().st_uid == message.stat().st_uid == daemon
    assert clean.data.stat().st_uid == daemon
    for path in (clean.queue / "maildrop", clean.bin / "postdrop"):
        assert path.stat().st_gid == mail
    assert stat.S_IMODE((clean.bin / "postdrop").stat().st_mode) == 0o2755
    assert check(clean) == []


@pytest.mark.parametrize("args,text", [
    (["mail_owner=nobody-there"], "nobody-there"), (["setgid_group=none-such"], "none-such"),
    (["myhostname=x.example"], "not a parameter of the installation"), (["frob"], "not name=value"),
])
def test_bad_settings(clean, args, text):
    before = (clean.etc / "main.cf").read_text()
    done = clean.postfix("set-permissions", *args)
    assert done.returncode == 1 and text in done.stderr
    assert (clean.etc / "main.cf").read_text() == before


def test_no_files_of_others(clean):
    """Links below what mail_owner owns lead nowhere: neither kind gives a file away."""
    outside = clean.directory / "outside"
    outside.write_text("root's")
    os.symlink(outside, clean.queue / "deferred/LINK")
    os.link(outside, clean.queue / "deferred/HARD")
    done = clean.postfix("set-permissions")
    assert done.returncode == 1 and "deferred/HARD" in done.stderr
    assert outside.stat().st_uid == 0


def test_closed_files_stay_closed(clean):
    (clean.etc / "main.cf").chmod(0o640)
    assert clean.postfix("set-permissions").returncode == 0
    assert stat.S_IMODE((clean.etc / "main.cf").stat().st_mode) == 0o640


def test_rows_of_ones_own(clean):
    """postfix-files.d: the same form, expanded, checked and mended; a bad row is named."""
    folder = clean.etc / "postfix-files.d"
    folder.mkdir()
    (folder / "mine").write_text("# a comment\n\n$config_directory/tables:d:$mail_owner:-:750:c\n")
    clean.postfix("check")
    made = clean.etc / "tables"
    assert made.stat().st_uid == pwd.getpwnam("postfix").pw_uid and stat.S_IMODE(made.stat().st_mode) == 0o750
    made.chmod(0o770)
    assert any("group or other writable: /etc/postfix/tables" in line for line in check(clean))
    for row, text in (("$config_directory/x:d:no-such-user:-:755:", "unknown user"), ("x", "need path:type"),
                      ("$config_directory/x:d:root:no-such-group:755:", "unknown group"),
                      ("$config_directory/x:q:root:-:755:", "bad type"), ("$config_directory/x:f:root:-:9:", "bad mode")):
        (folder / "mine").write_text(f"#\n{row}\n")
        done = clean.postfix("check")
        assert done.returncode == 1
        assert f"fatal: /etc/postfix/postfix-files.d/mine, line 2: {text}" in done.stderr


def test_ordinary_user(make_machine):
    """Everything is hers; only modes are looked at and set."""
    from instance import Instance
    subprocess.run(["id", "daemon"], check=True, capture_output=True)
    mine = Instance(user="daemon")
    try:
        assert mine.postfix("check").stderr == ""
        (mine.queue / "active").chmod(0o770)
        said = mine.postfix("check").stderr
        assert f"group or other writable: {mine.queue}/active" in said
        assert mine.postfix("set-permissions").returncode == 0
        assert mine.postfix("check").stderr == ""
    finally:
        mine.stop()
