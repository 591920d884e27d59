/* packet.h - the bytes of the Milter protocol, version 6: what a mail server says to a mail filter, and what it hears.
 *
 * A packet is u32 length (big endian), one letter, data. The letters and flags are those of Sendmail's libmilter
 * (mfdef.h). Pure: no sockets, no clock. A filter is a program that may be broken or broken into: of what it says,
 * every length and every end of a string is checked. */
#ifndef ANGARIUM_MILTER_PACKET_H
#define ANGARIUM_MILTER_PACKET_H

#include "base/arena.h"
#include "base/buf.h"

enum {
    MILTER_PACKET_MAX = 1024 * 1024 + 64, /* bytes of a reply; libmilter itself sends at most 1 MiB */
    MILTER_CHUNK = 65535,                 /* bytes of content in one body packet */
    MILTER_HEAD = 4,
    MILTER_REPLY_LINES_MAX = 32, /* of a reply code, as in libmilter */
};

/* What happens in a session, in the order of the table in packet.c. */
enum milter_event {
    MILTER_CONNECT,
    MILTER_HELO,
    MILTER_MAIL,
    MILTER_RCPT,
    MILTER_DATA,
    MILTER_UNKNOWN,
    MILTER_HEADER,
    MILTER_EOH,
    MILTER_BODY,
    MILTER_EOM,
    MILTER_EVENTS,
};
/* Lists of macro names, with the numbers that filters use for them (SMFIM_). */
enum milter_stage {
    MILTER_AT_CONNECT,
    MILTER_AT_HELO,
    MILTER_AT_MAIL,
    MILTER_AT_RCPT,
    MILTER_AT_DATA,
    MILTER_AT_EOM,
    MILTER_AT_EOH,
    MILTER_AT_UNKNOWN, /* ours: filters cannot ask for others here */
    MILTER_STAGES,
};
struct milter_event_row {
    char letter;
    const char *name;    /* "SMFIC_CONNECT": for logs */
    unsigned not_wanted; /* SMFIP_NO...: the filter does not want to hear of it; 0: it always does */
    unsigned no_reply;   /* SMFIP_NR_...: it does not answer; 0: it always does */
    unsigned version;    /* of the protocol, from which on it exists */
    enum milter_stage macros;
    unsigned macro_version; /* from which on macros go with it */
};
extern const struct milter_event_row milter_events[MILTER_EVENTS];

enum milter_protocol { /* SMFIP_: offered, and asked for */
                       MILTER_NO_CONNECT = 0x1,
                       MILTER_NO_HELO = 0x2,
                       MILTER_NO_MAIL = 0x4,
                       MILTER_NO_RCPT = 0x8,
                       MILTER_NO_BODY = 0x10,
                       MILTER_NO_HEADERS = 0x20,
                       MILTER_NO_EOH = 0x40,
                       MILTER_MUTE_HEADER = 0x80,
                       MILTER_NO_UNKNOWN = 0x100,
                       MILTER_NO_DATA = 0x200,
                       MILTER_CAN_SKIP = 0x400,
                       MILTER_REJECTED_RCPT = 0x800, /* also recipients that the server has refused */
                       MILTER_MUTE_CONNECT = 0x1000,
                       MILTER_MUTE_HELO = 0x2000,
                       MILTER_MUTE_MAIL = 0x4000,
                       MILTER_MUTE_RCPT = 0x8000,
                       MILTER_MUTE_DATA = 0x10000,
                       MILTER_MUTE_UNKNOWN = 0x20000,
                       MILTER_MUTE_EOH = 0x40000,
                       MILTER_MUTE_BODY = 0x80000,
                       MILTER_LEADING_SPACE = 0x100000, /* values of header fields with the blank behind the colon */
};
/* Everything a version of the protocol knows. */
unsigned milter_protocol_mask(unsigned version); /* SMFIP_ */
unsigned milter_action_mask(unsigned version);   /* SMFIF_ */

/* --- what is said --- */
void milter_put(struct buf *b, char letter, struct str data);
/* For data of several parts: begin, append, end. */
size_t milter_packet_begin(struct buf *b, char letter);
void milter_packet_end(struct buf *b, size_t begun);
void milter_add_text(struct buf *b, struct str text); /* with a NUL behind it; a NUL within ends the text */
void milter_add_u32(struct buf *b, uint32_t v);
void milter_put_options(struct buf *b, unsigned version, unsigned actions, unsigned protocol);

/* --- what is heard --- */
enum milter_said { /* the letters of SMFIR_ */
                   MILTER_SAID_ADD_RCPT = '+',
                   MILTER_SAID_DEL_RCPT = '-',
                   MILTER_SAID_ADD_RCPT_PAR = '2',
                   MILTER_SAID_SHUTDOWN = '4',
                   MILTER_SAID_ACCEPT = 'a',
                   MILTER_SAID_BODY = 'b',
                   MILTER_SAID_CONTINUE = 'c',
                   MILTER_SAID_DISCARD = 'd',
                   MILTER_SAID_CHANGE_FROM = 'e',
                   MILTER_SAID_CONN_FAIL = 'f',
                   MILTER_SAID_ADD_HEADER = 'h',
                   MILTER_SAID_INSERT_HEADER = 'i',
                   MILTER_SAID_CHANGE_HEADER = 'm',
                   MILTER_SAID_PROGRESS = 'p',
                   MILTER_SAID_QUARANTINE = 'q',
                   MILTER_SAID_REJECT = 'r',
                   MILTER_SAID_SKIP = 's',
                   MILTER_SAID_TEMPFAIL = 't',
                   MILTER_SAID_REPLY_CODE = 'y',
};
struct milter_reply {
    char said;           /* enum milter_said */
    uint32_t index;      /* INSERT_HEADER, CHANGE_HEADER */
    struct str text;     /* name of a field, an address, a reason, a reply as it came, bytes of a body */
    struct str argument; /* value of a field; ESMTP arguments */
};
/* `packet` is letter and data. Borrowed from it. NULL, or what is wrong with it (a literal). */
const char *milter_reply_parse(struct str packet, struct milter_reply *ret);
bool milter_is_edit(char said); /* one that changes the message: only at its end, any number of them */
/* The name of a letter, "SMFIR_ACCEPT"; of others "(unknown filter reply)". */
const char *milter_said_name(char said);

/* The reply code of a filter as an SMTP server says it (RFC 5321, 4.2.1): lines of printable text with the same code,
 * "NNN-" in all but the last, "\n" between them; "%%" becomes "%". False: it is none of 4yz or 5yz. */
bool milter_reply_text(struct arena *a, struct str said, struct str *ret);

struct milter_options {
    unsigned version, actions, protocol;
    struct str macros[MILTER_STAGES]; /* names, by blanks or commas; p NULL: did not ask */
};
/* The answer to milter_put_options(): letter and data. Borrowed. NULL, or what is wrong with it. */
const char *milter_options_parse(struct str packet, struct milter_options *ret);
#endif
