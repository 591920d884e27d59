#include "sasl/serve.h"

#include "base/die.h"
#include "base/map.h"
#include "sasl/fields.h"
#include <stdlib.h>
#include <unistd.h>

enum { KEY_SIZE = 12, WRITE_SECONDS = 60 };

static const struct err broken = { .kind = ERR_SYNTAX, .text = STR_INIT("malformed request to the login service") };

struct client {
    const struct login_library *library;
    struct line_writer out;
    struct map logins; /* by number, as it is written: struct login */
    struct group steps;
};

struct login {
    struct client *client;
    char key[KEY_SIZE];
    size_t key_length;
    void *state; /* the library's; NULL: it has not begun, or has ended */
    bool busy;   /* a step is under way */
    bool gone;   /* cancelled meanwhile */
    /* what the step is about */
    struct buf line; /* the whole request: holds a password, most likely */
};

static struct str id_of(const struct login *l) {
    return str_n(l->key, l->key_length);
}

static void login_free(struct login *l) {
    map_remove(&l->client->logins, id_of(l));
    if (l->state)
        l->client->library->end(l->state);
    buf_wipe(&l->line);
    free(l);
}

static void send_answer(struct login *l, const struct sasl_answer *r) {
    struct buf b = { 0 };
    struct str id = id_of(l);
    if (r->outcome == LOGIN_MORE) {
        buf_printf(&b, "CONT\t%.*s\t%.*s", STR_ARG(id), STR_ARG(r->challenge));
    } else {
        buf_printf(&b, "%s\t%.*s", r->outcome == LOGIN_OK ? "OK" : "FAIL", STR_ARG(id));
        field_add(&b, "user", r->username);
        field_add(&b, "reason", r->reason);
        if (r->outcome == LOGIN_TEMP)
            buf_add(&b, STR("\ttemp"));
    }
    buf_byte(&b, '\n');
    line_write(&l->client->out, &b, deadline_in(WRITE_SECONDS));
}

/* --- a step --- */
static void read_peer(struct arena *a, struct str fields, struct sasl_peer *ret, struct str *ret_initial,
                      bool *ret_has_initial) {
    const struct {
        struct str name;
        struct str *value;
    } known[] = {
        { STR("service="), &ret->service }, { STR("realm="), &ret->realm },       { STR("rip="), &ret->address },
        { STR("rport="), &ret->port },      { STR("lip="), &ret->local_address }, { STR("lport="), &ret->local_port },
    };
    struct str f;
    while (field_next(&fields, &f)) {
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (str_starts(f, known[i].name))
                *known[i].value = field_unescape(a, str_from(f, known[i].name.n));
        if (str_eq(f, STR("secured")))
            ret->tls = true;
        if (str_starts(f, STR("resp="))) {
            *ret_initial = str_from(f, 5);
            *ret_has_initial = true;
        }
    }
}

static void step(void *arg) {
    struct login *l = arg;
    struct client *c = l->client;
    struct arena *a = arena_new();
    struct sasl_answer answer = { .outcome = LOGIN_FAILED };
    struct str rest = buf_str(&l->line), verb = STR(""), id = STR(""), word = STR(""), initial = STR("");
    (void)(field_next(&rest, &verb) && field_next(&rest, &id) && field_next(&rest, &word));
    if (str_eq(verb, STR("AUTH"))) {
        struct sasl_peer peer = { 0 };
        bool has_initial = false;
        read_peer(a, rest, &peer, &initial, &has_initial);
        l->state = c->library->begin(c->library->ctx, &peer, word, has_initial ? &initial : NULL, a, &answer);
    } else {
        c->library->step(l->state, word, a, &answer);
    }
    buf_wipe(&l->line);
    l->line = (struct buf){ 0 };
    if (!l->gone)
        send_answer(l, &answer);
    l->busy = false;
    if (answer.outcome != LOGIN_MORE || l->gone)
        login_free(l);
    arena_free(a);
    group_leave(&c->steps);
}

static void begin_step(struct login *l, struct str line) {
    struct client *c = l->client;
    buf_add(&l->line, line);
    l->busy = true;
    group_enter(&c->steps);
    if (coro_spawn(step, l, "login"))
        return;
    group_leave(&c->steps);
    send_answer(l, &(struct sasl_answer){ .outcome = LOGIN_TEMP, .reason = STR("out of memory") });
    login_free(l);
}

/* --- requests --- */
static bool valid_id(struct str id) {
    uint32_t v;
    return str_to_u32(id, UINT32_MAX, &v) && id.n < KEY_SIZE;
}

static error new_login(struct client *c, struct str id, struct str line) {
    if (map_get(&c->logins, id))
        return &broken;
    struct login *l = calloc(1, sizeof *l);
    if (!l)
        die_no_memory(sizeof *l);
    l->client = c;
    l->key_length = id.n;
    memcpy(l->key, id.p, id.n);
    bool full = c->logins.n >= SERVE_LOGINS_MAX;
    map_put(&c->logins, id_of(l), l);
    if (full) {
        send_answer(l, &(struct sasl_answer){ .outcome = LOGIN_TEMP, .reason = STR("too many logins at a time") });
        login_free(l);
    } else {
        begin_step(l, line);
    }
    return NULL;
}

static error request(struct client *c, struct str line) {
    struct str rest = line, verb = STR(""), id = STR("");
    (void)field_next(&rest, &verb);
    bool begin = str_eq(verb, STR("AUTH")), go_on = str_eq(verb, STR("CONT")), cancel = str_eq(verb, STR("CANCEL"));
    if (!begin && !go_on && !cancel)
        return NULL; /* the handshake, and what later versions may say */
    if (!field_next(&rest, &id) || !valid_id(id))
        return &broken;
    if (begin)
        return new_login(c, id, line);
    struct login *l = map_get(&c->logins, id);
    if (!l)
        return go_on ? &broken : NULL;
    if (cancel && !l->busy) {
        login_free(l);
    } else if (cancel) {
        l->gone = true;
    } else if (l->busy) {
        return &broken;
    } else {
        begin_step(l, line);
    }
    return NULL;
}

static void greet(struct client *c) {
    static unsigned connections;
    struct buf b = { 0 };
    buf_add(&b, STR("VERSION\t1\t1\n"));
    for (size_t i = 0; i < c->library->mechanism_count; i++) {
        static const struct {
            unsigned property;
            const char *word;
        } words[] = {
            { SASL_PLAINTEXT, "plaintext" },
            { SASL_ACTIVE, "active" },
            { SASL_DICTIONARY, "dictionary" },
            { SASL_ANONYMOUS, "anonymous" },
            { SASL_FORWARD_SECRECY, "forward-secrecy" },
            { SASL_MUTUAL_AUTH, "mutual-auth" },
        };
        const struct sasl_mechanism *m = &c->library->mechanisms[i];
        buf_printf(&b, "MECH\t%.*s", STR_ARG(m->name));
        for (size_t k = 0; k < sizeof words / sizeof *words; k++)
            if (m->properties & words[k].property)
                buf_printf(&b, "\t%s", words[k].word);
        buf_byte(&b, '\n');
    }
    buf_printf(&b, "SPID\t%d\nCUID\t%u\nDONE\n", (int)getpid(), ++connections);
    line_write(&c->out, &b, deadline_in(WRITE_SECONDS));
}

error login_serve(struct io *io, const struct login_library *library) {
    struct client c = { .library = library, .out = { .io = io } };
    io_secret(io, true);
    greet(&c);
    error e = NULL;
    while (!e) {
        struct str line;
        e = line_read(io, SERVE_LINE_MAX, DEADLINE_NEVER, &line);
        if (!e)
            e = request(&c, line);
    }
    size_t at = 0;
    struct map_entry *entry;
    while (map_next(&c.logins, &at, &entry)) {
        struct login *l = entry->value;
        l->gone = true;
        if (!l->busy)
            login_free(l);
    }
    int shielded = coro_shield(1);
    (void)group_wait(&c.steps, DEADLINE_NEVER); /* threads of the library cannot be ended */
    coro_shield(shielded);
    map_free(&c.logins);
    return e->kind == ERR_SYNTAX || e->kind == ERR_LIMIT ? &broken : NULL;
}
