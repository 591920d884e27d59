/* pipe - deliver to a command: pipe(8). */
#include "pipe/pipe.h"

int main(int argc, char **argv) {
    static const struct agent agent = {
        .service = { .program = "pipe", .confine = CONFINE_EXEC, .root = true, .init = pipe_init },
        .deliver = pipe_deliver,
    };
    return agent_main(argc, argv, &agent);
}
