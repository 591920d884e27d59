/* virtual - deliver to the mailboxes of virtual domains: virtual(8). */
#include "virtual/virtual.h"

int main(int argc, char **argv) {
    /* Mailboxes may be anywhere, behind links and mounts too: whose they are is what holds a delivery in. Said all the
     * same, because Landlock refuses a rename between directories (tmp/ to new/) wherever nothing allows it. */
    static const char *const writable[] = { "/", NULL };
    static const struct agent agent = {
        .service = { .program = "virtual",
                     .confine = CONFINE_WRITE_FILES | CONFINE_ACT_AS | CONFINE_NO_NETWORK,
                     .writable = writable,
                     .root = true,
                     .init = virtual_init },
        .deliver = virtual_deliver,
    };
    return agent_main(argc, argv, &agent);
}
