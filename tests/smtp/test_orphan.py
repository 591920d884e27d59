"""The queue manager is killed while the SMTP client is at work."""
import os
import pwd
import signal

import pytest

from instance import wait_for
from sink import Sink

USER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def kill_qmgr(instance):
    [pid] = instance.pids("qmgr")
    os.kill(pid, signal.SIGKILL)
    instance.wait_log(f"pid {pid} killed by signal 9")  # its connections are closed by then


@pytest.fixture
def slow(request):
    server = Sink(held=True, held_at=request.param)
    yield server
    server.close()


def start(make_instance, server, main_cf=""):
    instance = make_instance(user=USER if os.geteuid() == 0 else None,
                             main_cf=f"relayhost = [127.0.0.1]:{server.port}\n{main_cf}")
    with instance.smtp() as smtp:
        smtp.sendmail("me@here.example", ["a@far.example"], "Subject: x\r\n\r\n" + "hello\r\n" * 30)
    assert wait_for(lambda: server.waiting)
    kill_qmgr(instance)
    return instance


@pytest.mark.parametrize("slow", ["data"], indirect=True)
def test_before_the_dot(make_instance, slow):
    """The message does not come twice: the client gives up, the next queue manager begins again."""
    instance = start(make_instance, slow)
    slow.go.set()
    instance.wait_log("the queue manager has gone: delivery given up")
    wait_for(lambda: slow.broken_off == 1)
    instance.postfix("flush")
    instance.wait_log("status=sent", 60)
    wait_for(instance.queue_is_empty)
    assert slow.messages == 1


@pytest.mark.parametrize("slow", ["dot"], indirect=True)
def test_after_the_dot(make_instance, slow):
    """The server may have it: its answer is waited for and logged, though nobody is there to be told."""
    instance = start(make_instance, slow)
    slow.go.set()
    instance.wait_log("status=sent")
    assert "given up" not in instance.log()
