/* postmap - make and query look-up tables (postmap(1)). */
#include "cmd/map_tool.h"

int main(int argc, char **argv) {
    static const struct map_tool postmap = { "postmap", "[-bfFhijmnNoprsuUvw]", "NUFbc:d:fhijmnopq:rsuvw", false };
    return map_tool_main(argc, argv, &postmap);
}
