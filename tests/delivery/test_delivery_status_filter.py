"""*_delivery_status_filter in the daemons themselves, which have given up their rights when they ask the tables."""
import pytest

from instance import Instance, free_port

ROUTES = ("transport_maps = inline:{{ l.example = lmtp:inet:127.0.0.1:%(dead)d }, { s.example = smtp:[127.0.0.1]:%(dead)d }, "
          "{ v.example = virtual: }, { e.example = error:5.7.1 never here }}\n"
          "smtpd_reject_unlisted_recipient = no\n")
FILTER = r"regexp:{ {/^[45]\.[0-9]+\.[0-9]+ (.*)(refused|unknown user|never here)/ 5.9.9 changed: $$2} }"


@pytest.mark.parametrize("program, address, what", [
    ("local", "nobody-there@localhost", "unknown user"),
    ("virtual", "u@v.example", "unknown user"),
    ("smtp", "u@s.example", "refused"),
    ("lmtp", "u@l.example", "refused"),
])
@pytest.mark.parametrize("scope", ["own", "default"])
def test_filtered(program, address, what, scope):
    parameter = f"{program if scope == 'own' else 'default'}_delivery_status_filter"
    main_cf = ROUTES % {"dead": free_port()} + f"{parameter} = {FILTER}\n"
    with Instance(main_cf=main_cf) as mail:
        with mail.smtp() as s:
            s.sendmail("", [address], "Subject: x\n\nx\n")
        line = mail.wait_log("status=")
        assert f"to=<{address}>" in line
        assert f"dsn=5.9.9, status=bounced (changed: {what})" in line


def test_error_is_not_filtered():
    """The text of error(8) is the administrator's already: no filter is asked, as in Postfix."""
    with Instance(main_cf=ROUTES % {"dead": free_port()} + f"default_delivery_status_filter = {FILTER}\n"
                  "smtpd_recipient_restrictions =\n") as mail:
        mail.sendmail("-f", "", "u@e.example")
        assert "dsn=5.7.1, status=bounced (never here)" in mail.wait_log("status=")
