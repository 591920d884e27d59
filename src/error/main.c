/* error, retry - fail mail with a reason that the administrator or the resolver chose: error(8). */
#include "error/error.h"

int main(int argc, char **argv) {
    static const struct agent agent = {
        .service = { .program = "error", .confine = CONFINE_NO_FILES | CONFINE_NO_NETWORK },
        .deliver = error_deliver,
    };
    return agent_main(argc, argv, &agent);
}
