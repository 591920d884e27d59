"""A private mail server, shown at work: `make demo`, or kept in the foreground: `make run`.

usage: demo.py --build DIR [--foreground]

Two instances on loopback ports, everything below one new directory. Run by root it steps down to an ordinary user.
"""
import argparse
import mailbox
import os
import pathlib
import pwd
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from instance import Instance, wait_for  # noqa: E402


def step(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def progress(text, condition):
    print(f"  {text} ...", end="", flush=True)
    value = wait_for(condition, 30, text)
    print(" done", flush=True)
    return value


def ordinary_user():
    """Who the instance runs as: the caller, or nobody when the caller is root."""
    return "nobody" if os.geteuid() == 0 else None


def make_instances(build, directory, user):
    owner = user or pwd.getpwuid(os.geteuid()).pw_name
    far = Instance(build=build, directory=directory / "far", name="far", user=user, main_cf="home_mailbox =\n")
    near = Instance(build=build, directory=directory / "near", name="near", user=user, main_cf=f"""\
relayhost = [127.0.0.1]:{far.port}
virtual_mailbox_domains = office.example
virtual_mailbox_base = {directory}/near/mail/office
virtual_mailbox_maps = inline:{{ {{ anna@office.example = anna/ }} }}
virtual_uid_maps = static:{pwd.getpwnam(owner).pw_uid}
virtual_gid_maps = static:{pwd.getpwnam(owner).pw_gid}
virtual_minimum_uid = 1
""")
    return near, far, owner


def send_smtp(instance, sender, rcpt, subject):
    with instance.smtp() as smtp:
        smtp.sendmail(sender, [rcpt], f"From: {sender}\r\nTo: {rcpt}\r\nSubject: {subject}\r\n\r\nHello.\r\n")


def mbox_subjects(path):
    return [m["Subject"] for m in mailbox.mbox(path, create=False)] if path.exists() else []


def show_log(instance, marker):
    lines = [line for line in instance.log().splitlines() if marker in line]
    queue_id = next((word.rstrip(":") for line in lines for word in line.split() if word.endswith(":") and
                     len(word) > 8 and word[:-1].isalnum()), None)
    for line in instance.log().splitlines():
        if queue_id and f"{queue_id}:" in line:
            print(f"    {line}")


def demonstrate(near, far, owner, directory):
    office = directory / "near/mail/office/anna"
    mbox = near.mail / owner
    far_mbox = far.mail / owner

    step("1. By SMTP to a virtual mailbox: a Maildir")
    send_smtp(near, "bert@elsewhere.example", "anna@office.example", "into a Maildir")
    new = progress("waiting for it", lambda: list((office / "new").glob("*")) if (office / "new").is_dir() else None)
    print(f"  it is in {new[0]}")
    show_log(near, "to=<anna@office.example>")

    step("2. With sendmail to a local user: an mbox")
    done = near.sendmail("-f", "bert@elsewhere.example", owner, message="Subject: into an mbox\n\nHello.\n")
    assert done.returncode == 0, done.stderr
    progress("waiting for it", lambda: "into an mbox" in mbox_subjects(mbox))
    print(f"  it is in {mbox}")
    show_log(near, "delivered to mailbox")

    step("3. By SMTP to a domain that is not ours: relayed to a second instance")
    send_smtp(near, "bert@elsewhere.example", f"{owner}@far.example", "relayed")
    progress("waiting for it", lambda: "relayed" in mbox_subjects(far_mbox))
    print(f"  it is in {far_mbox}")
    show_log(near, f"to=<{owner}@far.example>")

    step("4. With sendmail to a user who does not exist: returned to its sender")
    done = near.sendmail("-f", f"{owner}@near.example", "no-such-user@near.example",
                         message="Subject: nobody will read this\n\nHello.\n")
    assert done.returncode == 0, done.stderr
    progress("waiting for the notice", lambda: "Undelivered Mail Returned to Sender" in mbox_subjects(mbox))
    print(f"  the notice is in {mbox}")
    show_log(near, "to=<no-such-user@near.example>")


def foreground(near, far, owner, as_user):
    become = f"runuser -u {owner} -- " if as_user else ""
    print(f"""
Send, from another terminal:
  echo hello | {become}{near.bin}/sendmail -C {near.etc} {owner}
  swaks --server 127.0.0.1 --port {near.port} --from me@near.example --to anna@office.example
Look:
  {become}{near.bin}/mailq -C {near.etc}

SMTP     127.0.0.1:{near.port}
takes    {owner}@near.example (mbox), anna@office.example (Maildir); every other domain is relayed to far.example
mail     {near.mail}, {far.mail}
queue    {near.queue}
config   {near.etc}
log      {near.log_file}, as it grows:
""", flush=True)
    # a group of its own: Ctrl-C is for us, who have still something to say
    tail = subprocess.Popen(["tail", "-q", "-n", "+1", "-F", str(near.log_file), str(far.log_file)],
                            stderr=subprocess.DEVNULL, process_group=0)
    try:
        while near.pids("master") and far.pids("master"):  # `postfix status` would fill the log
            time.sleep(1)
        print("an instance has ended by itself: its log says why", flush=True)
    finally:
        tail.terminate()
        tail.wait()


def stop_all(instances, directory):
    """Whatever was started ends here, even if somebody is impatient; the last lines say whether it did."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("\nStopping both instances ...", end="", flush=True)
    for instance in instances:
        instance.stop()
    try:
        wait_for(lambda: not any(instance.pids() for instance in instances), 10)
        print(" done: no process of theirs is left")
    except TimeoutError:
        print(f" these processes are left: {[pid for instance in instances for pid in instance.pids()]}")
    print(f"Configuration, queue, mail and logs stay for you to look at: {directory}\nTo remove them: rm -r {directory}",
          flush=True)


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--foreground", action="store_true", help="keep it running until Ctrl-C")
    args = parser.parse_args()
    user = ordinary_user()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="angarium-demo-"))
    directory.chmod(0o755)
    near, far, owner = make_instances(args.build.resolve(), directory, user)
    if user:
        shutil.chown(directory, user)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    step(f"A private Angarium, as user {owner}, in {directory}")
    status = 0
    try:
        for instance in (far, near):
            print(f"  starting {instance.name}.example on 127.0.0.1:{instance.port} ...", end="", flush=True)
            instance.start()
            print(" done", flush=True)
        if args.foreground:
            foreground(near, far, owner, user is not None)
            status = 1
        else:
            demonstrate(near, far, owner, directory)
            step("Done: four messages, each where it belongs.")
            print(f"  queue    {near.command('mailq', capture_output=True).stdout.strip()}")
            print(f"  mail     {near.mail} and {far.mail}\n  log      {near.log_file}\n  config   {near.etc}")
    except KeyboardInterrupt:
        status = 0 if args.foreground else 1
    except (AssertionError, OSError, RuntimeError, smtplib.SMTPException) as problem:  # a TimeoutError is an OSError
        print(f"\n  FAILED: {problem}\n  the log ends with:")
        for line in (near.log() or far.log()).splitlines()[-15:]:
            print(f"    {line}")
        status = 1
    finally:
        stop_all((near, far), directory)
    sys.exit(status)


if __name__ == "__main__":
    main()
