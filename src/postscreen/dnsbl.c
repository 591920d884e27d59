#include "postscreen/dnsbl.h"

#include "base/die.h"
#include "base/log.h"
#include <arpa/inet.h>
#include <stdlib.h>

enum { WEIGHT_MAX = 1000000 };

/* --- main.cf --- */
static struct dnsbl_list *list_of(struct dnsbl *d, struct arena *a, struct str domain, size_t room) {
    for (size_t i = 0; i < d->list_count; i++)
        if (str_eq_icase(d->lists[i].domain, domain))
            return &d->lists[i];
    struct dnsbl_list *l = &d->lists[d->list_count++];
    l->domain = arena_str(a, domain);
    l->sites = arena_array(a, room, sizeof *l->sites);
    return l;
}

static error load_site(struct dnsbl *d, struct arena *a, struct str item, size_t room, struct arena *err_arena) {
    struct dnsbl_site site = { .weight = 1 };
    struct str domain = item;
    ptrdiff_t star = str_rindex(domain, '*');
    if (star >= 0) {
        if (!str_to_i64(str_from(domain, (size_t)star + 1), -WEIGHT_MAX, WEIGHT_MAX, &site.weight))
            return err_make(err_arena, ERR_CONFIG, "postscreen_dnsbl_sites: bad weight in \"%.*s\"", STR_ARG(item));
        domain = str_sub(domain, 0, (size_t)star);
    }
    ptrdiff_t equals = str_index(domain, '=');
    if (equals >= 0) {
        error e = dnsxl_filter_parse(err_arena, str_from(domain, (size_t)equals + 1), &site.filter);
        if (e)
            return err_make(err_arena, ERR_CONFIG, "postscreen_dnsbl_sites: %.*s", STR_ARG(e->text));
        site.filtered = true;
        domain = str_sub(domain, 0, (size_t)equals);
    }
    if (domain.n == 0)
        return err_make(err_arena, ERR_CONFIG, "postscreen_dnsbl_sites: no domain in \"%.*s\"", STR_ARG(item));
    struct dnsbl_list *l = list_of(d, a, domain, room);
    l->sites[l->site_count++] = site;
    return d->list_count > DNSBL_LISTS_MAX
               ? err_make(err_arena, ERR_CONFIG, "postscreen_dnsbl_sites: more than %d lists", DNSBL_LISTS_MAX)
               : NULL;
}

error dnsbl_load(struct dnsbl *d, struct arena *a, struct str sites, struct arena *err_arena) {
    struct str item;
    size_t room = 0;
    for (struct str rest = sites; str_word(&rest, STR_COMMA_SPACE, &item);)
        room++;
    d->lists = arena_array(a, room + 1, sizeof *d->lists);
    error e = NULL;
    while (!e && str_word(&sites, STR_COMMA_SPACE, &item))
        e = load_site(d, a, item, room, err_arena);
    return e;
}

/* --- asking --- */
struct asked { /* one list */
    struct dnsbl_query *query;
    const struct dnsbl_list *list;
    struct coro *coro;
    struct dns_answer answer;
};
struct dnsbl_query {
    struct arena *arena;
    const struct dnsbl *dnsbl;
    struct dns *dns;
    struct endpoint client;
    int64_t deadline;
    struct group asking;
    struct asked asked[];
};

static void ask_main(void *arg) {
    struct asked *x = arg;
    struct dnsbl_query *q = x->query;
    struct str name;
    if (dnsxl_name(q->arena, &q->client, x->list->domain, &name))
        dns_query(q->dns, q->arena, name, DNS_A, q->deadline, &x->answer);
    x->coro = NULL;
    group_leave(&q->asking);
}

struct dnsbl_query *dnsbl_ask(const struct dnsbl *d, struct dns *dns, const struct endpoint *client, int64_t deadline) {
    struct dnsbl_query *q = calloc(1, sizeof *q + d->list_count * sizeof *q->asked);
    if (!q)
        die_no_memory(sizeof *q);
    q->arena = arena_new();
    q->dnsbl = d;
    q->dns = dns;
    q->client = *client;
    q->deadline = deadline;
    for (size_t i = 0; i < d->list_count; i++) {
        struct asked *x = &q->asked[i];
        *x = (struct asked){ .query = q, .list = &d->lists[i], .answer.status = DNS_RETRY };
        x->coro = coro_spawn(ask_main, x, "dnsbl");
        if (x->coro)
            group_enter(&q->asking);
    }
    return q;
}

static bool site_matches(const struct dnsbl_site *site, const struct dns_answer *answer) {
    for (size_t i = 0; i < answer->count; i++)
        if (answer->records[i].type == DNS_A &&
            (!site->filtered || dnsxl_filter_match(&site->filter, answer->records[i].addr.u.in.sin_addr)))
            return true;
    return false;
}

static void log_listed(const struct dnsbl_query *q, const struct asked *x) {
    char text[INET6_ADDRSTRLEN], answer[INET6_ADDRSTRLEN];
    struct str address = endpoint_address(&q->client, text);
    for (size_t i = 0; i < x->answer.count; i++)
        if (x->answer.records[i].type == DNS_A)
            log_info("addr %.*s listed by domain %.*s as %.*s", STR_ARG(address), STR_ARG(x->list->domain),
                     STR_ARG(endpoint_address(&x->answer.records[i].addr, answer)));
}

static struct str shown_domain(const struct dnsbl *d, struct arena *a, struct str domain) {
    struct str shown;
    if (d->reply_map && maps_get(d->reply_map, domain, a, &shown, NULL) == TABLE_FOUND)
        return shown;
    return arena_str(a, domain);
}

static void count(const struct dnsbl_query *q, const struct asked *x, int64_t *most, struct dnsbl_rank *ret,
                  struct str *worst) {
    int64_t score = 0;
    for (size_t i = 0; i < x->list->site_count; i++)
        if (site_matches(&x->list->sites[i], &x->answer))
            score += x->list->sites[i].weight;
    for (size_t i = 0; i < x->answer.count; i++)
        if (ret->ttl == 0 || x->answer.records[i].ttl < ret->ttl)
            ret->ttl = x->answer.records[i].ttl;
    if (x->answer.count)
        log_listed(q, x);
    ret->score += score;
    if (score > *most) {
        *most = score;
        *worst = x->list->domain;
    }
}

void dnsbl_end(struct dnsbl_query *q, struct arena *a, int64_t deadline, struct dnsbl_rank *ret) {
    *ret = (struct dnsbl_rank){ .domain = STR("") };
    struct str worst = STR("");
    int64_t most = 0;
    (void)group_wait(&q->asking, deadline);
    for (size_t i = 0; i < q->dnsbl->list_count; i++)
        if (q->asked[i].coro)
            coro_cancel(q->asked[i].coro);
    int shield = coro_shield(1); /* they hold what we free */
    (void)group_wait(&q->asking, DEADLINE_NEVER);
    coro_shield(shield);
    for (size_t i = 0; i < q->dnsbl->list_count; i++)
        if (q->asked[i].answer.status == DNS_OK)
            count(q, &q->asked[i], &most, ret, &worst);
    if (worst.n)
        ret->domain = shown_domain(q->dnsbl, a, worst);
    arena_free(q->arena);
    free(q);
}
