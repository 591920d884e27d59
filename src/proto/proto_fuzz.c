/* Any payload to each unpacker of notice, delivery, bounce and listing. The first byte is the frame's type; its top
 * bit says that no descriptor came with it. */
#include "proto/bounce.h"
#include "proto/delivery.h"
#include "proto/edit.h"
#include "proto/flush.h"
#include "proto/listing.h"
#include "proto/notice.h"
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink;

static void touch(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        sink += (unsigned char)s.p[i];
}

/* One of the two forms, never both. */
static void touch_content(const struct spool_content *c, int fd) {
    if (c->fd != fd || (fd >= 0 && c->bytes.p) || (fd < 0 && (c->size != c->bytes.n || c->size > DELIVERY_INLINE_MAX)))
        abort();
    touch(c->bytes);
}

static void touch_envelope(const struct envelope *e) {
    touch(e->sender);
    touch(e->dsn_envid);
    touch(e->client.name);
    touch(e->client.sasl_sender);
    touch(e->content_filter);
    for (size_t i = 0; i < e->rcpt_count; i++) {
        touch(e->rcpts[i].address);
        touch(e->rcpts[i].orig);
        touch(e->rcpts[i].dsn_orcpt);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    char *payload = malloc(size > 1 ? size - 1 : 1);
    if (!payload)
        return 0;
    memcpy(payload, data + 1, size - 1);
    struct arena *a = arena_new();
    struct ipc_msg m = { .type = data[0] & 0x7f, .payload = str_n(payload, size - 1) };
    const int fd = data[0] & 0x80 ? -1 : 0;
    m.fd = fd;
    struct notice n;
    if (notice_unpack(&m, &n) && n.type != NOTICE_LOG && !queue_id_valid(queue_id_str(&n.id)))
        abort();
    struct flush_request flush;
    if (flush_unpack(&m, &flush)) {
        struct str normal;
        struct queue_id id;
        if (flush.count > FLUSH_ADD_MAX)
            abort();
        while (flush_next_id(&flush, &id))
            if (!queue_id_valid(queue_id_str(&id)))
                abort();
        if (flush.count) /* all had been looked at */
            abort();
        if (flush_site_normal(flush.site, a, &normal) &&
            (normal.n == 0 || normal.n > FLUSH_SITE_MAX || str_index(normal, '/') >= 0 || normal.p[0] == '.'))
            abort();
    }
    struct delivery_result result;
    if (delivery_unpack_result(&m, &result)) {
        touch(result.dsn);
        touch(result.reason);
        touch(result.remote_mta);
    }
    struct delivery_done done;
    if (delivery_unpack_done(&m, &done)) {
        touch(done.reason);
        touch(done.dsn);
    }
    struct delivery_request request;
    if (delivery_unpack_request(&m, a, &request)) {
        if (!queue_id_valid(queue_id_str(&request.id)) || m.fd != -1)
            abort();
        touch(request.transport);
        touch(request.nexthop);
        touch_envelope(&request.env);
        touch_content(&request.content, fd);
    }
    m.fd = fd;
    struct bounce_request bounce;
    if (bounce_unpack_request(&m, a, &(struct bounce_ahead){ 0 }, &bounce)) {
        touch_envelope(&bounce.env);
        touch_content(&bounce.content, fd);
        for (size_t i = 0; i < bounce.rcpt_count; i++) {
            touch(bounce.rcpts[i].address);
            touch(bounce.rcpts[i].reason);
            touch(bounce.rcpts[i].remote_mta);
        }
    }
    struct edit_request edit;
    if (edit_unpack(&m, a, &edit)) {
        if (edit.count > EDIT_IDS_MAX || (edit.states & ~QUEUE_STATES_ALL))
            abort();
        for (size_t i = 0; i < edit.count; i++)
            if (!queue_id_valid(queue_id_str(&edit.ids[i])))
                abort();
    }
    struct listing_entry entry;
    struct unpack list = unpack_from(m.payload);
    while (list.rest.n > 0 && listing_unpack(&list, m.type, a, &entry)) {
        touch(entry.queue_name);
        touch(entry.sender);
        for (size_t i = 0; i < entry.rcpt_count; i++) {
            touch(entry.rcpts[i].address);
            touch(entry.rcpts[i].delay_reason);
            touch(entry.rcpts[i].bounce_reason);
        }
    }
    arena_free(a);
    free(payload);
    return 0;
}
