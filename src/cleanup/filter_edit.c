#include "cleanup/filter_edit.h"

#include "base/log.h"
#include "cleanup/filter.h"
#include "mail/address.h"
#include "mail/dsn.h"
#include "mail/header.h"

enum { COPY_SIZE = 32 * 1024, NAME_MAX_BYTES = 500 };

/* --- header fields --- */

static bool split(struct str field, struct str *ret_name, struct str *ret_value) {
    if (!header_split(field, ret_name, ret_value))
        return false;
    const char *colon = memchr(field.p, ':', field.n);
    struct str value = str_from(field, (size_t)(colon - field.p) + 1);
    if (str_ends(value, STR("\n")))
        value.n--;
    *ret_value = value; /* with what stands behind the colon */
    return true;
}

void filtered_header(struct filtered *f, struct str header) {
    f->own = SIZE_MAX;
    f->header_bytes = header.n;
    while (header.n > 0) {
        size_t n = 0;
        do {
            ptrdiff_t lf = str_index(str_from(header, n), '\n');
            n = lf < 0 ? header.n : n + (size_t)lf + 1;
        } while (n < header.n && (header.p[n] == ' ' || header.p[n] == '\t'));
        struct str field = str_sub(header, 0, n), name, value;
        header = str_from(header, n);
        if (f->own == SIZE_MAX && split(field, &name, &value) && str_eq_icase(name, STR("Received")))
            f->own = f->fields.n;
        *vec_add(f->m->arena, &f->fields) = field;
    }
}

bool filtered_field(const struct filtered *f, size_t i, struct str *ret_name, struct str *ret_value) {
    return split(f->fields.at[i], ret_name, ret_value);
}

static bool name_valid(struct str name) {
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] <= ' ' || name.p[i] > '~' || name.p[i] == ':')
            return false;
    return name.n > 0 && name.n <= NAME_MAX_BYTES;
}

/* "Name: value\n": each further line of the value is a continuation (RFC 5322, 2.2.3), so that none of them can be a
 * field of its own or the end of the header. False: it cannot be a field, or there are too many; which has been logged
 * or counts as a failure. */
static bool make_field(struct filtered *f, const struct milter_reply *r, bool leading_space, struct str *ret) {
    struct buf b = { 0 };
    struct str value = r->argument, line;
    buf_printf(&b, "%.*s:%s", STR_ARG(r->text), leading_space ? "" : " ");
    for (bool first = true; str_next(&value, STR("\n"), &line); first = false) {
        if (str_ends(line, STR("\r")))
            line.n--;
        if (!first && str_trim(line).n == 0)
            continue;
        if (!first)
            buf_byte(&b, '\n');
        if (!first && line.p[0] != ' ' && line.p[0] != '\t')
            buf_byte(&b, '\t');
        buf_add(&b, line);
    }
    for (size_t i = 0; i < b.n; i++)
        if (b.p[i] == '\r')
            b.p[i] = ' ';
    buf_byte(&b, '\n');
    f->header_bytes += b.n;
    bool good = f->header_bytes <= FILTER_HEADER_MAX;
    if (good)
        *ret = arena_str(f->m->arena, buf_str(&b));
    else
        log_warn("%s: a mail filter adds too many header fields", f->m->id.text);
    buf_free(&b);
    return good;
}

/* Where the `index`th field is that filters hear of, from 1; behind the last: the end. 0: the very front. */
static size_t position(const struct filtered *f, uint32_t index) {
    if (index == 0)
        return 0;
    for (size_t i = 0; i < f->fields.n; i++)
        if (i != f->own && --index == 0)
            return i;
    return f->fields.n;
}

static void insert_field(struct filtered *f, size_t at, struct str field) {
    (void)vec_add(f->m->arena, &f->fields);
    memmove(&f->fields.at[at + 1], &f->fields.at[at], (f->fields.n - 1 - at) * sizeof *f->fields.at);
    f->fields.at[at] = field;
    if (f->own != SIZE_MAX && at <= f->own)
        f->own++;
    f->header_changed = true;
}

static void remove_field(struct filtered *f, size_t at) {
    memmove(&f->fields.at[at], &f->fields.at[at + 1], (f->fields.n - 1 - at) * sizeof *f->fields.at);
    f->fields.n--;
    if (f->own != SIZE_MAX && at < f->own)
        f->own--;
    f->header_changed = true;
}

static size_t find_field(const struct filtered *f, struct str wanted, uint32_t index) {
    struct str name, value;
    for (size_t i = 0; i < f->fields.n; i++)
        if (i != f->own && filtered_field(f, i, &name, &value) && str_eq_icase(name, wanted) && index-- <= 1)
            return i;
    return SIZE_MAX;
}

static bool edit_header(struct filtered *f, const struct milter_reply *r, bool leading_space) {
    struct str field;
    if (!name_valid(r->text)) {
        struct str shown = str_sub(r->text, 0, 100);
        log_warn("%s: ignoring a header field of a mail filter: \"%.*s\" is no name of one", f->m->id.text,
                 STR_ARG(shown));
        return true;
    }
    size_t at = r->said == MILTER_SAID_CHANGE_HEADER ? find_field(f, r->text, r->index) : SIZE_MAX;
    if (r->said == MILTER_SAID_CHANGE_HEADER && r->argument.n == 0) {
        if (at != SIZE_MAX)
            remove_field(f, at);
        return true;
    }
    if (!make_field(f, r, leading_space, &field))
        return false;
    if (!message_check_filter_field(f->m, &field))
        return true;
    if (f->m->status != SUBMIT_OK || f->m->discard) /* the filter may end what it has to say */
        return true;
    if (at != SIZE_MAX) {
        f->fields.at[at] = field;
        f->header_changed = true;
    } else {
        insert_field(f, r->said == MILTER_SAID_INSERT_HEADER ? position(f, r->index) : f->fields.n, field);
    }
    return true;
}

/* --- the body --- */

uint64_t filtered_body_size(const struct filtered *f) {
    return f->body ? spool_new_size(f->body) : spool_new_size(f->m->file) - f->body_at;
}

error filtered_body_read(struct filtered *f, uint64_t at, void *p, size_t n) {
    return f->body ? spool_new_read(f->body, at, p, n) : spool_new_read(f->m->file, f->body_at + at, p, n);
}

static bool begin_body(struct filtered *f) {
    if (f->body)
        spool_abort(f->body);
    f->body = NULL;
    f->replaces_body = true;
    f->body_cr = false;
    error e = spool_create(f->m->s->spool, &f->body);
    if (e)
        log_warn("%s: a new body from a mail filter: %.*s", f->m->id.text, STR_ARG(e->text));
    return !e;
}

/* Lines that end with CRLF, in pieces that end anywhere. */
static bool edit_body(struct filtered *f, struct str bytes) {
    const struct conf *c = f->m->s->c;
    struct str stray = conf_bool(c, PARAM_cleanup_replace_stray_cr_lf) ? STR(" ") : STR("\r");
    if (!f->replaces_body && !begin_body(f))
        return false;
    while (bytes.n > 0) {
        if (f->body_cr && bytes.p[0] != '\n')
            spool_write(f->body, stray);
        f->body_cr = false;
        ptrdiff_t cr = str_index(bytes, '\r');
        struct str piece = cr >= 0 ? str_sub(bytes, 0, (size_t)cr) : bytes;
        spool_write(f->body, piece);
        bytes = str_from(bytes, piece.n + (cr >= 0 ? 1 : 0));
        f->body_cr = cr >= 0;
    }
    int64_t limit = conf_int(c, PARAM_message_size_limit);
    if (limit <= 0 || spool_new_size(f->body) <= (uint64_t)limit)
        return true;
    log_warn("%s: queue file size limit exceeded", f->m->id.text);
    message_fail(f->m, SUBMIT_TOO_LARGE, STR("5.3.4"), STR("Error: message file too big"));
    return false;
}

void filtered_edits_done(struct filtered *f) {
    if (!f->replaces_body || !f->body)
        return;
    char last = '\n';
    uint64_t size = spool_new_size(f->body);
    if (size > 0)
        (void)spool_new_read(f->body, size - 1, &last, 1);
    if (last != '\n' || f->body_cr)
        spool_write(f->body, STR("\n"));
    f->body_cr = false;
}

/* --- the envelope --- */

static bool take_address(struct filtered *f, struct str text, struct str *ret) {
    struct str rest;
    bool good = address_parse_path(f->m->arena, text, 0, ret, &rest) && rest.n == 0 && ret->n <= ADDRESS_MAX &&
                str_index_any(*ret, STR("\r\n")) < 0;
    if (!good) {
        struct str shown = str_sub(text, 0, 100);
        log_warn("%s: ignoring a malformed address from a mail filter: \"%.*s\"", f->m->id.text, STR_ARG(shown));
    }
    return good;
}

static void edit_sender(struct filtered *f, const struct milter_reply *r) {
    struct message *m = f->m;
    struct str args = r->argument, word, sender, envid;
    if (!take_address(f, r->text, &sender))
        return;
    m->env.sender = sender;
    message_complete_sender(m);
    m->env.dsn_envid = STR("");
    m->env.dsn_ret = 0;
    while (str_word(&args, STR_SPACE, &word)) {
        if (str_eq_icase(word, STR("RET=FULL")))
            m->env.dsn_ret = DSN_RET_FULL;
        else if (str_eq_icase(word, STR("RET=HDRS")))
            m->env.dsn_ret = DSN_RET_HDRS;
        else if (str_starts_icase(word, STR("ENVID=")) && xtext_decode(m->arena, str_from(word, 6), &envid) &&
                 str_index_any(envid, STR("\r\n")) < 0)
            m->env.dsn_envid = envid;
        else
            log_warn("%s: ignoring bad ESMTP parameter \"%.*s\" in SMFI_CHGFROM request", m->id.text, STR_ARG(word));
    }
}

static bool add_rcpt(struct filtered *f, const struct milter_reply *r) {
    struct message *m = f->m;
    struct str args = r->argument, word, address, orcpt;
    if (!take_address(f, r->text, &address) || address.n == 0)
        return true;
    struct rcpt rcpt = { .address = address, .orig = address, .dsn_orcpt = STR("") };
    while (str_word(&args, STR_SPACE, &word)) {
        unsigned notify = str_starts_icase(word, STR("NOTIFY=")) ? dsn_notify_parse(str_from(word, 7)) : 0;
        if (notify)
            rcpt.dsn_notify = notify;
        else if (str_starts_icase(word, STR("ORCPT=")) && xtext_decode(m->arena, str_from(word, 6), &orcpt) &&
                 dsn_orcpt_valid(orcpt))
            rcpt.dsn_orcpt = orcpt;
        else
            log_warn("%s: ignoring ESMTP argument from Milter or header/body_checks: \"%.*s\"", m->id.text,
                     STR_ARG(word));
    }
    m->bytes += address.n + rcpt.dsn_orcpt.n;
    if (m->bytes > MESSAGE_ENVELOPE_MAX)
        return false;
    *vec_add(m->arena, &m->given) = rcpt;
    return true;
}

static struct str complete(struct filtered *f, struct str address) {
    struct message *m = f->m;
    return route_rewrite(m->s->router, m->arena, address, conf_str(m->s->c, PARAM_myorigin));
}

/* All that were given as this address, and with them what they are aliases for. */
static void delete_rcpt(struct filtered *f, const struct milter_reply *r) {
    struct message *m = f->m;
    struct str address;
    if (!take_address(f, r->text, &address))
        return;
    address = complete(f, address);
    size_t kept = 0;
    for (size_t i = 0; i < m->given.n; i++)
        if (!str_eq_icase(complete(f, m->given.at[i].address), address))
            m->given.at[kept++] = m->given.at[i];
    f->deleted = f->deleted || kept < m->given.n;
    m->given.n = kept;
}

bool filtered_edit(struct filtered *f, const struct milter_reply *r, bool leading_space) {
    switch (r->said) {
    case MILTER_SAID_ADD_HEADER:
    case MILTER_SAID_INSERT_HEADER:
    case MILTER_SAID_CHANGE_HEADER:
        return edit_header(f, r, leading_space);
    case MILTER_SAID_BODY:
        return edit_body(f, r->text);
    case MILTER_SAID_CHANGE_FROM:
        edit_sender(f, r);
        return true;
    case MILTER_SAID_ADD_RCPT:
    case MILTER_SAID_ADD_RCPT_PAR:
        return add_rcpt(f, r);
    case MILTER_SAID_DEL_RCPT:
        delete_rcpt(f, r);
        return true;
    }
    return true;
}

/* --- the new content --- */

static error copy_body(struct filtered *f, uint64_t old_size) {
    char *p = arena_alloc(f->scratch, COPY_SIZE);
    uint64_t size = f->body ? spool_new_size(f->body) : old_size - f->body_at;
    error e = NULL;
    for (uint64_t at = 0; at < size && !e;) {
        size_t n = size - at < COPY_SIZE ? (size_t)(size - at) : COPY_SIZE;
        e = f->body ? spool_new_read(f->body, at, p, n) : spool_old_read(f->m->file, f->body_at + at, p, n);
        if (!e)
            spool_write(f->m->file, str_n(p, n));
        at += n;
    }
    return e;
}

error filtered_write(struct filtered *f) {
    struct message *m = f->m;
    if (f->deleted && m->given.n == 0) /* nobody is left who could get it */
        m->discard = true;
    if ((!f->header_changed && !f->body) || m->discard)
        return NULL;
    uint64_t old_size = spool_new_size(m->file);
    error e = spool_new_again(m->file);
    if (e)
        return e;
    for (size_t i = 0; i < f->fields.n; i++)
        spool_write(m->file, f->fields.at[i]);
    if (f->separator || (f->body && spool_new_size(f->body) > 0))
        spool_write(m->file, STR("\n"));
    return copy_body(f, old_size);
}

void filtered_free(struct filtered *f) {
    if (f->body)
        spool_abort(f->body);
    arena_free(f->scratch);
}
