/* anvil.h - how many sessions clients have, and how often they do things: anvil(8).
 *
 * A client's numbers begin anew when anvil_rate_time_unit has passed since they began. What nobody needs any more goes
 * at the next anvil_sweep(); with ANVIL_CLIENTS_MAX clients new ones are not counted: nothing is refused for it. */
#ifndef ANGARIUM_ANVIL_ANVIL_H
#define ANGARIUM_ANVIL_ANVIL_H

#include "base/map.h"
#include "proto/anvil.h"

enum { ANVIL_CLIENTS_MAX = 1000 * 1000 };

struct anvil_peak { /* the largest since the last report */
    uint32_t value;
    int64_t when_us; /* wall clock */
    char ident[ANVIL_IDENT_MAX + 1];
};

struct anvil {          /* set `unit`, zero the rest */
    int64_t unit;       /* anvil_rate_time_unit, seconds */
    struct map clients; /* ident: struct anvil_client */
    struct anvil_peak rates[ANVIL_EVENTS], count;
    uint32_t most_clients;
    int64_t most_clients_us;
};
struct anvil_open { /* sessions that one connection has told of, to be taken back when it ends; `{0}` */
    struct map map; /* ident: struct anvil_held */
};

/* Something has happened. */
struct anvil_answer anvil_take(struct anvil *a, struct anvil_open *o, enum anvil_event event, struct str ident);
/* The connection has ended. */
void anvil_gone(struct anvil *a, struct anvil_open *o);
/* Forget clients whose numbers are old. */
void anvil_sweep(struct anvil *a);
/* Log "statistics: ..." of what there was since the last time, and begin anew. */
void anvil_report(struct anvil *a);
void anvil_free(struct anvil *a);
#endif
