"""What the tests of the queue share: mail, the listing."""
import json
import os
import pwd

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
ME = f"{USER}@mail.example"


def send(instance, to, sender=ME, text="hello"):
    with instance.smtp() as smtp:
        refused = smtp.sendmail(sender, [to] if isinstance(to, str) else to, f"Subject: test\r\n\r\n{text}\r\n")
    assert not refused


def listing(instance):
    done = instance.command("postqueue", "-j", capture_output=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
