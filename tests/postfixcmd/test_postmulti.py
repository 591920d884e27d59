"""postmulti(1) and the multi-instance side of postfix(1)."""
import json
import os
import pwd
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest


class Pair:
    """One of the two systems, with paths that are the same word in both: QUEUE/x, DATA/x."""

    def __init__(self, system):
        self.system = system

    def run(self, *args):
        place = str(self.system.directory)
        args = [arg.replace("PLACE", place) for arg in args]
        done = self.system.command("postmulti", *args)
        return done.returncode, done.stdout.replace(place, "PLACE"), done.stderr

    def setting(self, directory, name):
        done = self.system.command("postconf", "-c", directory, "-h", name)
        return done.stdout.replace(str(self.system.directory), "PLACE")


CREATE = ["-e", "create", "-I"]
A = [*CREATE, "postfix-a", "queue_directory=PLACE/qa", "data_directory=PLACE/da"]
B = [*CREATE, "postfix-b", "-G", "grp", "queue_directory=PLACE/qb", "data_directory=PLACE/db",
     "config_directory=/etc/postfix-second"]
C = [*CREATE, "postfix-c", "-g", "grp", "queue_directory=PLACE/qc", "data_directory=PLACE/dc"]
LISTS = [["-l"], ["-l", "-a"], ["-l", "-R"], ["-l", "-g", "grp"], ["-l", "-g", "nope"], ["-l", "-i", "-"],
         ["-l", "-i", "postfix-b"], ["-l", "-i", "/etc/postfix-second"], ["-l", "-i", "nope"]]
IMPOSSIBLE = [
    A, ["-x", "-i", "nope", "true"], ["-p", "-g", "nope", "stop"], [*CREATE, "foo"], [*CREATE, "postfix-x", "foo=bar"],
    ["-e", "create"], ["-e", "bogus"], ["-e", "enable"], ["-e", "enable", "-i", "nope"], ["-e", "assign", "-i", "postfix-b"],
    ["-l", "-a", "-g", "x"], ["-l", "foo"], ["-p"], ["-x"], ["-p", "-R", "start"], ["-l", "-I", "postfix-b"],
    ["-l", "-p"], ["-l", "-G", "x"], [], [*CREATE, "postfix-b", "config_directory=/etc/other"],
    ["-e", "import", "-I", "postfix-nothing-there"], ["-e", "enable", "-a", "-i", "postfix-b"],
    ["-e", "destroy", "-i", "-"], ["-e", "deport", "-i", "-"], ["-e", "assign", "-i", "postfix-b", "-I", "zz"],
    ["-e", "import", "config_directory=/etc/postfix-second"], ["-x", "sh", "-c", "exit 3"],
]
ALSO_IMPOSSIBLE = [["-e", "deport", "-i", "postfix-b"], ["-e", "destroy", "-i", "postfix-b"]]
CONTEXTS = [
    ["-x", "true"],
    ["-x", "-R", "sh", "-c", "echo $MAIL_CONFIG $multi_instance_name $multi_instance_group $multi_instance_enable "
     "$queue_directory $data_directory $config_directory"],
    ["-x", "-i", "postfix-c", "sh", "-c", "echo ${command_directory:+c} ${daemon_directory:+d}; exit 2"],
]
LIFE = [  # what changes nothing is asked together
    [["-l"], A], ["-e", "init"], [["-l"]], ["-e", "disable", "-i", "-"], [["-l"]], ["-e", "init"], A, B, LISTS,
    # places in the list
    C, [["-l"]], [*CREATE, "postfix-d", "-a", "queue_directory=PLACE/qd", "data_directory=PLACE/dd"],
    [*CREATE, "postfix-e", "-i", "postfix-c", "queue_directory=PLACE/qe", "data_directory=PLACE/de"], LISTS, IMPOSSIBLE,
    # one after the other
    ["-e", "enable", "-i", "postfix-b"], [["-l"], *ALSO_IMPOSSIBLE], ["-e", "disable", "-i", "postfix-b"],
    ["-e", "assign", "-i", "postfix-b", "-I", "postfix-y", "-G", "-"], [["-l"]],
    ["-e", "assign", "-i", "postfix-y", "-I", "-", "-G", "other"], [["-l"], ["-l", "-i", "/etc/postfix-second"]],
    ["-e", "deport", "-i", "/etc/postfix-second"], [["-l"]],
    ["-e", "import", "-a", "-I", "postfix-b", "config_directory=/etc/postfix-second"], [["-l"], *CONTEXTS],
    ["-e", "destroy", "-i", "postfix-c"], [["-l"], ["-e", "destroy", "-i", "postfix-c"]],
]


def test_life_cycle_as_debians(machine, debian):
    ours, theirs = Pair(machine), Pair(debian)
    with ThreadPoolExecutor(8) as several:  # a fatal error of Debian's takes a second
        for step in LIFE:
            calls = step if isinstance(step[0], list) else [step]
            want = list(several.map(lambda args: theirs.run(*args), calls))
            got = list(several.map(lambda args: ours.run(*args), calls))
            for args, mine, other in zip(calls, got, want):
                assert mine[:2] == other[:2], args
                if mine[0] == 1 and "-x" not in args:
                    assert "fatal: " in mine[2], args
    for name in ("multi_instance_directories", "multi_instance_wrapper", "multi_instance_enable"):
        assert ours.setting("/etc/postfix", name) == theirs.setting("/etc/postfix", name)
    for name in ("multi_instance_name", "multi_instance_group", "multi_instance_enable", "queue_directory",
                 "data_directory", "master_service_disable", "authorized_submit_users", "mail_owner", "setgid_group",
                 "meta_directory"):
        for directory in ("/etc/postfix-a", "/etc/postfix-second"):
            assert ours.setting(directory, name) == theirs.setting(directory, name), name


def create(machine, name="postfix-a", *args):
    assert machine.command("postmulti", "-e", "init").returncode == 0
    done = machine.command("postmulti", "-e", "create", "-I", name, *args,
                           f"queue_directory={machine.directory}/queue-{name}",
                           f"data_directory={machine.directory}/data-{name}")
    assert done.returncode == 0, done.stderr
    return machine.whole_etc / name, machine.directory / f"queue-{name}", machine.directory / f"data-{name}"


def test_created_directories(machine):
    etc, queue, data = create(machine)
    postfix = pwd.getpwnam("postfix").pw_uid
    assert stat.S_IMODE((queue / "maildrop").stat().st_mode) == 0o730
    assert (queue / "incoming").stat().st_uid == data.stat().st_uid == postfix
    assert queue.stat().st_uid == 0
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((etc / "main.cf").stat().st_mode) == 0o644


def test_default_paths(machine):
    """Beside those of the primary instance."""
    machine.command("postmulti", "-e", "init")
    done = machine.command("postmulti", "-e", "create", "-I", "postfix-x", f"data_directory={machine.directory}/dx")
    assert done.returncode == 0, done.stderr
    assert machine.postconf("queue_directory", "/etc/postfix-x") == f"{machine.directory}/postfix-x"
    assert (machine.whole_etc / "postfix-x/main.cf").exists()
    done = machine.command("postmulti", "-e", "create", "-I", "postfix-y")
    assert done.returncode == 1 and "must be three directories" in done.stderr  # of siblings in one folder


def test_templates(machine):
    """The installation's, else the stock files."""
    etc, _, _ = create(machine, "postfix-stock")
    assert "# main.cf: the settings of the mail system" in (etc / "main.cf").read_text()
    assert "pickup      unix" in (etc / "master.cf").read_text()
    meta = machine.directory / "meta"
    meta.mkdir()
    (meta / "main.cf.proto").write_text("# ours\ncompatibility_level = 3.6\n")
    (meta / "master.cf.proto").write_text("# also ours\n")
    with (machine.etc / "main.cf").open("a") as main:
        main.write(f"meta_directory = {meta}\n")
    etc, _, _ = create(machine, "postfix-own")
    assert (etc / "main.cf").read_text().startswith("# ours\n")
    assert (etc / "master.cf").read_text() == "# also ours\n"


def test_json(machine):
    create(machine, "postfix-a", "-G", "g")
    lines = machine.command("postmulti", "-l", "-j").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"name": "-", "group": "-", "enabled": True, "config_directory": "/etc/postfix"},
        {"name": "postfix-a", "group": "g", "enabled": False, "config_directory": "/etc/postfix-a"}]
    assert machine.command("postmulti", "-x", "-j", "true").returncode == 1


def test_no_group(machine):
    create(machine, "postfix-a", "-G", "g")
    assert "postfix-a" not in machine.command("postmulti", "-l", "-g", "-").stdout


def test_other_primary(machine):
    other = machine.directory / "elsewhere"
    done = machine.command("postmulti", "-l", env={"MAIL_CONFIG": str(other)})
    assert done.returncode == 1 and f"MAIL_CONFIG={other}" in done.stderr
    assert machine.command("postmulti", "-l", env={"MAIL_CONFIG": "/etc/postfix"}).returncode == 0


def test_broken_instance(machine):
    """It does not hide the others, and can be taken out."""
    etc, _, _ = create(machine)
    (etc / "main.cf").unlink()
    done = machine.command("postmulti", "-l")
    assert done.returncode == 1
    assert "/etc/postfix\n" in done.stdout and "/etc/postfix-a/main.cf" in done.stderr
    assert machine.command("postmulti", "-e", "destroy", "-i", "/etc/postfix-a").returncode == 1
    assert machine.command("postmulti", "-e", "deport", "-i", "/etc/postfix-a").returncode == 0
    assert machine.command("postmulti", "-l").returncode == 0


# --- destroy ---
def test_destroy_refuses_mail(machine):
    _, queue, _ = create(machine)
    for name in ("hold", "deferred/A", "maildrop"):
        message = queue / name / "ABC123"
        message.parent.mkdir(exist_ok=True)
        message.write_text("precious")
        done = machine.command("postmulti", "-e", "destroy", "-i", "postfix-a")
        assert done.returncode == 1 and "has mail" in done.stderr
        assert message.read_text() == "precious"
        message.unlink()
    assert machine.command("postmulti", "-e", "destroy", "-i", "postfix-a").returncode == 0
    assert not queue.exists()


def test_destroy_refuses_a_running_one(machine):
    create(machine)
    assert machine.command("postfix", "-c", "/etc/postfix-a", "start").returncode == 0
    done = machine.command("postmulti", "-e", "destroy", "-i", "postfix-a")
    assert machine.command("postfix", "-c", "/etc/postfix-a", "stop").returncode == 0
    assert done.returncode == 1 and "is running" in done.stderr


def test_destroy_leaves_what_is_not_ours(machine):
    etc, queue, data = create(machine)
    (etc / "transport").write_text("mine")
    (queue / "etc").mkdir()
    (queue / "etc/hosts").write_text("mine")
    (data / "notes").write_text("mine")
    (data / "smtp_scache.lmdb").write_text("cache")
    outside = machine.directory / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    os.symlink(outside, queue / "defer" / "link")
    done = machine.command("postmulti", "-e", "destroy", "-i", "postfix-a")
    assert done.returncode == 0
    for path in ("/etc/postfix-a", queue, data):
        assert f"{path} is not removed" in done.stderr
    assert sorted(os.listdir(etc)) == ["transport"]
    assert sorted(os.listdir(queue)) == ["etc"]
    assert os.listdir(data) == ["notes"]
    assert (outside / "precious").exists()
    assert machine.postconf("multi_instance_directories") == ""


# --- postfix(1) with several instances ---
def test_all_instances(machine):
    """start checks a disabled instance, stop goes the other way round and passes it over, -c means one alone."""
    create(machine, "postfix-a")
    create(machine, "postfix-b")
    assert machine.command("postmulti", "-e", "enable", "-i", "postfix-b").returncode == 0
    (machine.directory / "queue-postfix-a" / "corrupt" / "X").write_text("")
    started = machine.postfix("start")
    try:
        assert started.returncode == 0, started.stderr
        assert "damaged message: corrupt/X" in started.stderr
        status = machine.postfix("status")
        assert status.returncode == 1
        said = [line.split("/")[0] + (" not" if " not " in line else "") for line in status.stderr.splitlines()]
        assert said == ["postfix", "postfix-a not", "postfix-b"]
        assert machine.postfix("-c", "/etc/postfix-b", "status").returncode == 0
        assert machine.command("postfix", "status", env={"MAIL_CONFIG": "/etc/postfix-b"}).returncode == 0
        assert machine.command("postmulti", "-g", "nobody", "-p", "stop").returncode == 1
        assert machine.command("postmulti", "-i", "postfix-b", "-p", "reload").returncode == 0
    finally:
        stopped = machine.postfix("stop")
    assert stopped.returncode == 0
    assert [line.split("/")[0] for line in stopped.stderr.splitlines() if "stopping" in line] == ["postfix-b", "postfix"]


def test_start_fg_is_for_one(machine):
    create(machine)
    done = machine.postfix("start-fg")
    assert done.returncode == 1 and "start-fg does not support multi_instance_directories" in done.stderr


def test_wrapper(machine):
    """Any program; with the settings in its environment."""
    create(machine)
    wrapper = machine.directory / "wrapper"
    wrapper.write_text("#!/bin/sh\necho \"$@\"; env\n")
    wrapper.chmod(0o755)
    with (machine.etc / "main.cf").open("a") as main:
        main.write(f"multi_instance_wrapper = {wrapper} one two\n")
    lines = machine.postfix("-v", "status", "three").stdout.splitlines()
    assert lines[0] == "one two status three"
    for name in ("command_directory", "daemon_directory", "queue_directory", "data_directory", "mail_owner",
                 "setgid_group", "sendmail_path", "mailq_path", "newaliases_path", "html_directory", "readme_directory",
                 "manpage_directory", "meta_directory"):
        assert f"{name}={machine.postconf(name)}" in lines
    assert "config_directory=/etc/postfix" in lines and "MAIL_VERBOSE=" in lines
    assert f"POSTLOG_SERVICE={machine.queue}/public/postlog" in lines
    assert not any(line.startswith("MAIL_CONFIG=") for line in lines)
    with (machine.etc / "main.cf").open("a") as main:
        main.write("multi_instance_wrapper =\n")
    done = machine.postfix("status")
    assert done.returncode == 1 and "multi_instance_wrapper is empty" in done.stderr


@pytest.mark.parametrize("kind,runs", [("start", "check"), ("stop", ""), ("control", ""), ("other", "frob")])
def test_command_lists(machine, kind, runs):
    """postmulti_start_commands and its like say what a command is."""
    create(machine)
    assert machine.command("postmulti", "-e", "disable", "-i", "-").returncode == 0
    with (machine.etc / "main.cf").open("a") as main:
        main.write(f"postmulti_{kind}_commands = frob\n" if kind != "other" else "")
    fake = machine.bin / "postfix"
    fake.unlink()
    fake.write_text("#!/bin/sh\necho $MAIL_CONFIG $*\n")
    fake.chmod(0o755)
    said = machine.command("postmulti", "-p", "frob").stdout.splitlines()
    assert said == ([f"/etc/postfix {runs}", f"/etc/postfix-a {runs}"] if runs else [])


def test_secondary_instances_leave_shared_files_alone(machine):
    create(machine)
    program = machine.daemons / "pickup"
    program.chmod(0o775)
    assert "group or other writable" in machine.postfix("-c", "/etc/postfix", "check").stderr
    assert "group or other writable" not in machine.postfix("-c", "/etc/postfix-a", "check").stderr
    assert machine.postfix("-c", "/etc/postfix-a", "set-permissions").returncode == 0
    assert stat.S_IMODE(program.stat().st_mode) == 0o775
    assert machine.postfix("-c", "/etc/postfix", "set-permissions").returncode == 0
    assert stat.S_IMODE(program.stat().st_mode) == 0o755


# --- set-gid commands ---
@pytest.mark.parametrize("parameter", ["multi_instance_directories", "alternate_config_directories"])
@pytest.mark.parametrize("command,status", [("postqueue", 69), ("postdrop", 1), ("postlog", 77)])
def test_directories_for_set_gid_commands(machine, parameter, command, status):
    """With more rights than their caller they believe only directories that the default main.cf names."""
    assert machine.postfix("check").returncode == 0
    assert machine.postfix("set-permissions").returncode == 0
    other = machine.whole_etc / "other"
    other.mkdir()
    for name in ("main.cf", "master.cf"):
        (other / name).write_text((machine.etc / name).read_text())
    args = ["-c", "/etc/other", *{"postqueue": ["-j"], "postdrop": [], "postlog": ["hello"]}[command]]
    done = machine.command_as("daemon", command, *args)
    assert done.returncode != 0
    assert "fatal: unauthorized configuration directory name: /etc/other" in done.stderr
    if command != "postqueue":
        assert done.returncode == status
    assert "unauthorized" not in machine.command(command, *args, **({"input": ""})).stderr  # root may
    with (machine.etc / "main.cf").open("a") as main:
        main.write(f"{parameter} = /etc/first /etc/other\n")
    assert "unauthorized" not in machine.command_as("daemon", command, *args).stderr
