/* postalias - make and query alias databases (postalias(1)). */
#include "cmd/map_tool.h"

int main(int argc, char **argv) {
    static const struct map_tool postalias = { "postalias", "[-fijnNoprsuvw]", "Nc:d:fijnopq:rsuvw", true };
    return map_tool_main(argc, argv, &postalias);
}
