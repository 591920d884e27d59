/* alias_list_fuzz.c - any bytes as an alias and as a file: no crash, and no item with a byte that was not there. */
#include "local/alias_list.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena *a = arena_new();
    struct str in = str_n((const char *)data, size);
    struct alias_list one = { 0 }, lines = { 0 };
    alias_list_parse(a, in, &one);
    alias_list_parse_lines(a, in, &lines);
    for (size_t i = 0; i < one.n; i++)
        if (one.at[i].kind < ALIAS_ADDRESS || one.at[i].kind > ALIAS_INCLUDE || one.at[i].text.n > size + 1)
            abort();
    arena_free(a);
    return 0;
}
