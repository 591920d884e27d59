"""daemon_timeout: an agent that hangs is waited for so long, and not for ever."""
import os
import re

import pytest

from instance import MASTER_CF, wait_for
from queue_support import USER, send
from sink import Sink

HANGS = """\
smtp_helo_timeout = 1000s
smtp_data_init_timeout = 1000s
local_recipient_maps =
mailbox_transport = smtp:[127.0.0.1]:{port}
default_transport = smtp:[127.0.0.1]:{port}
"""


@pytest.mark.parametrize("program, recipient, record", [
    ("qmgr", "x@there.example", r"warning: private/smtp socket: \S.* while delivering"),
    ("local", "x@localhost", r"to=<x@localhost>, .*dsn=4.3.0, status=deferred \(mail transport unavailable\)")])
def test_daemon_timeout(make_instance, program, recipient, record):
    """The queue manager waits for agents, and local(8) for those of mailbox_transport and its like."""
    server = Sink(held=True, held_at="data")
    master = re.sub(rf"({program})$", r"\1 -o daemon_timeout=1s", MASTER_CF, flags=re.M)
    assert master.count("daemon_timeout") == 1
    instance = make_instance(user=USER if os.geteuid() == 0 else None, main_cf=HANGS.format(port=server.port), master_cf=master)
    send(instance, recipient)
    wait_for(lambda: re.search(record, instance.log()), what=record)
    server.close()
