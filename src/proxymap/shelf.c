#include "proxymap/shelf.h"

#include "base/buf.h"
#include "base/die.h"
#include "base/log.h"
#include "base/map.h"
#include <stdlib.h>

struct job { /* one question; shared by who asks and the thread, freed by the last of the two */
    struct kind *kind;
    struct copy *copy;
    struct arena *arena;
    struct table_question q;
    enum table_result result;
    struct str key, value, why;
    struct buf log; /* level and text of what the table logged */
    struct cond done;
    int64_t begun;
    bool finished, abandoned, tries;
};

struct copy {
    struct table *table;
    struct copy *next; /* idle ones */
};

struct kind { /* one table, with the flags it is opened with */
    const struct conf *conf;
    struct str name; /* in the map: flags and spec */
    struct str spec;
    unsigned flags;
    bool blocks;
    bool failing, trying; /* it did not answer in time; one question tries whether it does again */
    int64_t rest_until;
    unsigned copies, waiting;
    struct copy *idle;
    struct cond room;
};

struct shelf {
    const struct conf *conf;
    struct arena *arena;
    struct map kinds;
};

struct shelf *shelf_new(const struct conf *c) {
    struct shelf *s = calloc(1, sizeof *s);
    if (!s)
        die_no_memory(sizeof *s);
    s->conf = c;
    s->arena = arena_new();
    offload_set_threads(SHELF_THREADS);
    return s;
}

void shelf_free(struct shelf *s) {
    if (!s)
        return;
    struct map_entry *e;
    for (size_t at = 0; map_next(&s->kinds, &at, &e);) {
        struct kind *k = e->value;
        for (struct copy *c = k->idle; c;) {
            struct copy *next = c->next;
            table_close(c->table);
            free(c);
            c = next;
        }
    }
    map_free(&s->kinds);
    arena_free(s->arena);
    free(s);
}

/* Only plain files and text in main.cf are asked in place; what contains other tables may contain a server. */
static bool may_block(struct str spec) {
    static const struct str quick[] = { STR_INIT("hash:"),     STR_INIT("btree:"),  STR_INIT("lmdb:"),
                                        STR_INIT("cdb:"),      STR_INIT("regexp:"), STR_INIT("pcre:"),
                                        STR_INIT("cidr:"),     STR_INIT("inline:"), STR_INIT("static:"),
                                        STR_INIT("texthash:"), STR_INIT("fail:"),   STR_INIT("environ:"),
                                        STR_INIT("internal:"), STR_INIT("randmap:") };
    for (size_t i = 0; i < sizeof quick / sizeof quick[0]; i++)
        if (str_starts(spec, quick[i]))
            return false;
    return true;
}

/* Those that matter to the table: a server hears nothing of the others, and is to have no more threads for them. */
static unsigned flags_of(const struct table_question *q) {
    ptrdiff_t colon = str_index(q->spec, ':');
    bool server = colon > 0 && table_type_is_server(str_sub(q->spec, 0, (size_t)colon));
    return server ? q->flags & (TABLE_FOLD | TABLE_ASCII | TABLE_WRITE) : q->flags;
}

static struct kind *kind_of(struct shelf *s, const struct table_question *q) {
    struct arena *scratch = arena_new();
    unsigned flags = flags_of(q);
    struct str name = arena_printf(scratch, "%u %.*s", flags, STR_ARG(q->spec));
    struct kind *k = map_get(&s->kinds, name);
    if (!k && s->kinds.n < SHELF_TABLES) {
        k = ARENA_NEW(s->arena, struct kind);
        *k = (struct kind){ .conf = s->conf, .flags = flags, .blocks = may_block(q->spec) };
        k->name = arena_str(s->arena, name);
        k->spec = arena_str(s->arena, q->spec);
        map_put(&s->kinds, k->name, k);
    }
    arena_free(scratch);
    return k;
}

/* --- in the thread --- */

static void keep_log(void *ctx, enum log_level level, struct str tag, struct str text) {
    (void)tag;
    struct buf *b = ctx;
    if (b->n < LOG_LINE_MAX * 10) {
        buf_byte(b, (char)('0' + (int)level));
        buf_printable(b, text, LOG_LINE_MAX); /* one line, whatever a server has said */
        buf_byte(b, '\n');
    }
}

static void ask_table(struct job *j) {
    struct table *t = j->copy->table;
    if (!t) /* opening may block, too */
        t = j->copy->table = table_open(j->kind->conf, j->kind->spec, j->kind->flags);
    switch (j->q.what) {
    case TABLE_ASK_GET:
        j->result = table_get(t, j->q.key, j->arena, &j->value);
        break;
    case TABLE_ASK_PUT:
        j->result = table_put(t, j->q.key, j->q.value);
        break;
    case TABLE_ASK_DELETE:
        j->result = table_delete(t, j->q.key);
        break;
    case TABLE_ASK_FIRST:
    case TABLE_ASK_NEXT:
        j->result = table_next(t, j->q.key, j->arena, &j->key, &j->value);
        break;
    }
    if (j->result == TABLE_FOUND && str_index(j->value, 0) >= 0) { /* whoever reads it as a C string would see less */
        j->result = TABLE_ERROR;
        j->why = arena_printf(j->arena, "%.*s: a value with a NUL byte in it", STR_ARG(j->kind->spec));
        j->value = STR("");
    } else if (j->result == TABLE_ERROR) {
        error e = table_error(t);
        j->why = arena_str(j->arena, e ? e->text : STR("table look-up problem"));
    }
}

static void job_run(void *arg) {
    struct job *j = arg;
    log_set_thread_sink(keep_log, &j->log);
    ask_table(j);
    log_set_thread_sink(NULL, NULL);
}

/* --- in the loop --- */

static void write_log(struct job *j) {
    struct str rest = buf_str(&j->log), line;
    while (str_next(&rest, STR("\n"), &line))
        if (line.n > 1)
            log_record((enum log_level)(line.p[0] - '0'), str_from(line, 1));
}

static void job_free(struct job *j) {
    buf_free(&j->log);
    arena_free(j->arena);
    free(j);
}

static void copy_back(struct kind *k, struct copy *c) {
    c->next = k->idle;
    k->idle = c;
    cond_signal(&k->room);
}

/* Those who wait for a copy hear of it at once. */
static void kind_failed(struct kind *k) {
    k->failing = true;
    k->rest_until = deadline_in(SHELF_REST_SECONDS);
    cond_broadcast(&k->room);
}

static void job_main(void *arg) {
    struct job *j = arg;
    offload(job_run, j);
    write_log(j);
    if (j->result == TABLE_ERROR && sys->mono_us() - j->begun >= SHELF_SLOW_SECONDS * US_PER_S)
        kind_failed(j->kind);
    else if (j->result == TABLE_ERROR ? j->tries : !j->abandoned)
        j->kind->failing = false;
    if (j->tries)
        j->kind->trying = false;
    copy_back(j->kind, j->copy);
    j->finished = true;
    if (j->abandoned)
        job_free(j);
    else
        cond_broadcast(&j->done);
}

static const struct err resting = {
    .kind = ERR_TEMP, .dsn = STR_INIT(""), .text = STR_INIT("did not answer a moment ago"), .detail = STR_INIT("")
};

/* May this question be asked while the table fails? It is then the one that tries. */
static bool may_try(const struct kind *k) {
    return !k->trying && sys->mono_us() >= k->rest_until && (k->idle || k->copies < SHELF_COPIES);
}

/* A copy that nobody uses, or a new one; waits for one when there are enough. */
static error take_copy(struct kind *k, int64_t deadline, struct copy **ret) {
    unsigned most = k->blocks ? SHELF_COPIES : 1;
    if (k->waiting >= SHELF_WAITING)
        return &err_limit;
    for (;;) {
        if (k->failing && !may_try(k))
            return &resting;
        if (k->idle || k->copies < most)
            break;
        k->waiting++;
        error e = cond_wait(&k->room, deadline);
        k->waiting--;
        if (e)
            return e;
    }
    if (k->idle) {
        *ret = k->idle;
        k->idle = k->idle->next;
        return NULL;
    }
    *ret = calloc(1, sizeof **ret);
    if (!*ret)
        die_no_memory(sizeof **ret);
    k->copies++;
    return NULL;
}

static struct job *job_new(struct kind *k, struct copy *copy, const struct table_question *q) {
    struct job *j = calloc(1, sizeof *j);
    if (!j)
        die_no_memory(sizeof *j);
    j->kind = k;
    j->copy = copy;
    j->arena = arena_new();
    j->q = *q;
    j->q.key = arena_str(j->arena, q->key);
    j->q.value = arena_str(j->arena, q->value);
    j->result = TABLE_ERROR;
    j->begun = sys->mono_us();
    j->tries = k->failing;
    k->trying = k->trying || k->failing;
    j->key = j->value = j->why = STR("");
    return j;
}

static enum table_result no_answer(const struct kind *k, error e, struct arena *a, struct str *ret_why) {
    struct str what = e->kind == ERR_TIMEOUT ? STR("no answer in time")
                      : e->kind == ERR_LIMIT ? STR("too many questions are waiting")
                      : e == &resting        ? e->text
                                             : STR("the look-up process is ending");
    *ret_why = arena_printf(a, "%.*s: %.*s", STR_ARG(k->spec), STR_ARG(what));
    return TABLE_ERROR;
}

enum table_result shelf_ask(struct shelf *s, const struct table_question *q, int64_t deadline, struct arena *a,
                            struct str *ret_key, struct str *ret_value, struct str *ret_why) {
    *ret_key = *ret_value = *ret_why = STR("");
    struct kind *k = kind_of(s, q);
    if (!k) {
        *ret_why = arena_printf(a, "%.*s: more than %d tables", STR_ARG(q->spec), SHELF_TABLES);
        return TABLE_ERROR;
    }
    struct copy *copy;
    error e = take_copy(k, deadline, &copy);
    if (e)
        return no_answer(k, e, a, ret_why);
    struct job *j = job_new(k, copy, q);
    if (!k->blocks) {
        ask_table(j);
        copy_back(k, copy);
    } else if (!coro_spawn(job_main, j, "look-up")) {
        k->trying = k->trying && !j->tries;
        copy_back(k, copy);
        job_free(j);
        return no_answer(k, &err_limit, a, ret_why);
    } else {
        while (!j->finished && !e)
            e = cond_wait(&j->done, deadline);
        if (!j->finished) {
            j->abandoned = true;
            if (e->kind == ERR_TIMEOUT)
                kind_failed(k);
            k->trying = k->trying && !j->tries; /* its thread may never come back: another copy is to try */
            j->tries = false;
            return no_answer(k, e, a, ret_why);
        }
    }
    *ret_key = arena_str(a, j->key);
    *ret_value = arena_str(a, j->value);
    *ret_why = arena_str(a, j->why);
    enum table_result result = j->result;
    job_free(j);
    return result;
}
