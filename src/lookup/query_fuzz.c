/* Fuzz: the configuration of a database table, and a key and a value put into its templates. The key is the first line,
 * the value the second; the rest is the file. */
#include "base/die.h"
#include "base/log.h"
#include "lookup/query.h"
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void no_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)ctx, (void)level, (void)tag, (void)text;
}

/* What is put in ends up between quotes, and must not end them. */
static bool quote(void *ctx, struct buf *b, struct str text) {
    (void)ctx;
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] != '\'')
            buf_byte(b, text.p[i]);
    return true;
}

static void ask(struct table *t, struct source *s, struct str key, struct str value) {
    struct query_common common;
    struct str sql;
    struct query_hosts *hosts;
    bool failed;
    /* a domain list may name files: that is match.h's to fuzz */
    error e = source_has(s, "domain") ? NULL : query_common_open(t, s, "result_filter", &common);
    if (e || source_has(s, "domain"))
        return;
    struct buf b = { 0 };
    struct query_rows rows = { .common = &common, .key = key };
    size_t quotes = 0, found = 0;
    if (!query_sql_open(s, t, true, &sql)) {
        for (size_t i = 0; i < sql.n; i++)
            quotes += sql.p[i] == '\'';
        if (query_common_allows(&common, t, key, &failed) == QUERY_OK &&
            query_expand(sql, key, quote, NULL, &b) == QUERY_OK) {
            for (size_t i = 0; i < b.n; i++)
                found += b.p[i] == '\'';
            if (found != quotes)
                die("the key has left its quotes");
        }
    }
    if (query_rows_add(&rows, value) == QUERY_ROWS_OK && query_rows_add(&rows, key) == QUERY_ROWS_OK &&
        rows.all.n > LOOKUP_RESULT_MAX)
        die("over the limit");
    struct str list = source_str(s, "hosts", STR("localhost"));
    if (!query_hosts_open(t, s, list, true, &hosts)) {
        query_hosts_begin(hosts);
        for (struct query_host *host; (host = query_hosts_next(hosts));)
            query_host_failed(hosts, host);
    }
    source_warn_unused(s);
    buf_free(&b);
    buf_free(&rows.all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    log_set_sink(no_log, NULL);
    struct str in = str_n((const char *)data, size), key, value;
    if (!str_next(&in, STR("\n"), &key) || !str_next(&in, STR("\n"), &value))
        return 0;
    int fd = memfd_create("query_fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, in.p, in.n) != (ssize_t)in.n)
        die("memfd");
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct table t = { .arena = arena_new(),
                       .gen = arena_new(),
                       .error_arena = arena_new(),
                       .name = str_c(path),
                       .spec = STR_INIT("mysql:fuzz") };
    struct source *s = NULL;
    if (!source_open(&t, &s))
        ask(&t, s, key, value);
    source_close(s);
    arena_free(t.arena);
    arena_free(t.gen);
    arena_free(t.error_arena);
    close(fd);
    return 0;
}
