/* local - deliver to the users of this host: local(8). */
#include "local/local.h"

int main(int argc, char **argv) {
    static const struct agent agent = {
        .service = { .program = "local", .confine = CONFINE_EXEC, .root = true, .init = local_init },
        .deliver = local_deliver,
    };
    return agent_main(argc, argv, &agent);
}
