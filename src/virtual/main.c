/* virtual - deliver to the mailboxes of virtual domains: virtual(8). */
#include "virtual/virtual.h"

int main(int argc, char **argv) {
    static const struct agent agent = {
        .service = { .program = "virtual",
                     .confine = CONFINE_WRITE_FILES | CONFINE_FORK | CONFINE_NO_NETWORK,
                     .root = true,
                     .init = virtual_init },
        .deliver = virtual_deliver,
    };
    return agent_main(argc, argv, &agent);
}
