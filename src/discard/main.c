/* discard - throw mail away and say so in the log: discard(8). */
#include "discard/discard.h"

int main(int argc, char **argv) {
    static const struct agent agent = {
        .service = { .program = "discard", .confine = CONFINE_NO_FILES | CONFINE_NO_NETWORK },
        .deliver = discard_deliver,
    };
    return agent_main(argc, argv, &agent);
}
