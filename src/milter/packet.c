#include "milter/packet.h"

const struct milter_event_row milter_events[MILTER_EVENTS] = {
    [MILTER_CONNECT] = { 'C', "SMFIC_CONNECT", MILTER_NO_CONNECT, MILTER_MUTE_CONNECT, 2, MILTER_AT_CONNECT, 2 },
    [MILTER_HELO] = { 'H', "SMFIC_HELO", MILTER_NO_HELO, MILTER_MUTE_HELO, 2, MILTER_AT_HELO, 2 },
    [MILTER_MAIL] = { 'M', "SMFIC_MAIL", MILTER_NO_MAIL, MILTER_MUTE_MAIL, 2, MILTER_AT_MAIL, 2 },
    [MILTER_RCPT] = { 'R', "SMFIC_RCPT", MILTER_NO_RCPT, MILTER_MUTE_RCPT, 2, MILTER_AT_RCPT, 2 },
    [MILTER_DATA] = { 'T', "SMFIC_DATA", MILTER_NO_DATA, MILTER_MUTE_DATA, 4, MILTER_AT_DATA, 4 },
    [MILTER_UNKNOWN] = { 'U', "SMFIC_UNKNOWN", MILTER_NO_UNKNOWN, MILTER_MUTE_UNKNOWN, 3, MILTER_AT_UNKNOWN, 3 },
    [MILTER_HEADER] = { 'L', "SMFIC_HEADER", MILTER_NO_HEADERS, MILTER_MUTE_HEADER, 2, MILTER_AT_EOH, 6 },
    [MILTER_EOH] = { 'N', "SMFIC_EOH", MILTER_NO_EOH, MILTER_MUTE_EOH, 2, MILTER_AT_EOH, 6 },
    [MILTER_BODY] = { 'B', "SMFIC_BODY", MILTER_NO_BODY, MILTER_MUTE_BODY, 2, MILTER_AT_EOM, 2 },
    [MILTER_EOM] = { 'E', "SMFIC_BODYEOB", 0, 0, 2, MILTER_AT_EOM, 2 },
};

unsigned milter_protocol_mask(unsigned version) {
    return version >= 6 ? 0x1fffff : version >= 4 ? 0x3ff : version >= 3 ? 0x1ff : 0x7f;
}

unsigned milter_action_mask(unsigned version) {
    return version >= 6 ? 0x1ff : 0x3f;
}

/* --- what is said --- */
void milter_add_u32(struct buf *b, uint32_t v) {
    for (int shift = 24; shift >= 0; shift -= 8)
        buf_byte(b, (char)(unsigned char)(v >> shift));
}

static uint32_t take_u32(const char *p) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v = v << 8 | (unsigned char)p[i];
    return v;
}

size_t milter_packet_begin(struct buf *b, char letter) {
    size_t begun = b->n;
    milter_add_u32(b, 0);
    buf_byte(b, letter);
    return begun;
}

void milter_packet_end(struct buf *b, size_t begun) {
    size_t n = b->n - begun - MILTER_HEAD;
    for (size_t i = 0; i < MILTER_HEAD; i++)
        b->p[begun + i] = (char)(unsigned char)(n >> (8 * (3 - i)));
}

void milter_put(struct buf *b, char letter, struct str data) {
    size_t begun = milter_packet_begin(b, letter);
    buf_add(b, data);
    milter_packet_end(b, begun);
}

void milter_add_text(struct buf *b, struct str text) {
    const char *nul = text.n ? memchr(text.p, 0, text.n) : NULL;
    buf_add(b, nul ? str_sub(text, 0, (size_t)(nul - text.p)) : text);
    buf_byte(b, 0);
}

void milter_put_options(struct buf *b, unsigned version, unsigned actions, unsigned protocol) {
    size_t begun = milter_packet_begin(b, 'O');
    milter_add_u32(b, version);
    milter_add_u32(b, actions);
    milter_add_u32(b, protocol);
    milter_packet_end(b, begun);
}

/* --- what is heard --- */

enum shape { NOTHING, TEXT, TEXT_MAYBE_TEXT, TEXT_TEXT, NUMBER_TEXT_TEXT, BYTES };

static const struct reply_row {
    char said;
    enum shape shape;
    bool edit;
    const char *name;
} rows[] = {
    { MILTER_SAID_ADD_RCPT, TEXT, true, "SMFIR_ADDRCPT" },
    { MILTER_SAID_DEL_RCPT, TEXT, true, "SMFIR_DELRCPT" },
    { MILTER_SAID_ADD_RCPT_PAR, TEXT_MAYBE_TEXT, true, "SMFIR_ADDRCPT_PAR" },
    { MILTER_SAID_SHUTDOWN, BYTES, false, "SMFIR_SHUTDOWN" },
    { MILTER_SAID_ACCEPT, NOTHING, false, "SMFIR_ACCEPT" },
    { MILTER_SAID_BODY, BYTES, true, "SMFIR_REPLBODY" },
    { MILTER_SAID_CONTINUE, NOTHING, false, "SMFIR_CONTINUE" },
    { MILTER_SAID_DISCARD, NOTHING, false, "SMFIR_DISCARD" },
    { MILTER_SAID_CHANGE_FROM, TEXT_MAYBE_TEXT, true, "SMFIR_CHGFROM" },
    { MILTER_SAID_CONN_FAIL, NOTHING, false, "SMFIR_CONN_FAIL" },
    { MILTER_SAID_ADD_HEADER, TEXT_TEXT, true, "SMFIR_ADDHEADER" },
    { MILTER_SAID_INSERT_HEADER, NUMBER_TEXT_TEXT, true, "SMFIR_INSHEADER" },
    { MILTER_SAID_CHANGE_HEADER, NUMBER_TEXT_TEXT, true, "SMFIR_CHGHEADER" },
    { MILTER_SAID_PROGRESS, NOTHING, false, "SMFIR_PROGRESS" },
    { MILTER_SAID_QUARANTINE, TEXT, true, "SMFIR_QUARANTINE" },
    { MILTER_SAID_REJECT, NOTHING, false, "SMFIR_REJECT" },
    { MILTER_SAID_SKIP, NOTHING, false, "SMFIR_SKIP" },
    { MILTER_SAID_TEMPFAIL, NOTHING, false, "SMFIR_TEMPFAIL" },
    { MILTER_SAID_REPLY_CODE, TEXT, false, "SMFIR_REPLYCODE" },
};

static const struct reply_row *row_of(char said) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].said == said)
            return &rows[i];
    return NULL;
}

bool milter_is_edit(char said) {
    const struct reply_row *row = row_of(said);
    return row && row->edit;
}

const char *milter_said_name(char said) {
    const struct reply_row *row = row_of(said);
    return row ? row->name : "(unknown filter reply)";
}

/* A text and the NUL behind it. */
static bool take_text(struct str *rest, struct str *ret) {
    const char *nul = rest->n ? memchr(rest->p, 0, rest->n) : NULL;
    if (!nul)
        return false;
    size_t n = (size_t)(nul - rest->p);
    *ret = str_sub(*rest, 0, n);
    *rest = str_from(*rest, n + 1);
    return true;
}

const char *milter_reply_parse(struct str packet, struct milter_reply *ret) {
    *ret = (struct milter_reply){ .text = STR(""), .argument = STR("") };
    if (packet.n == 0)
        return "empty packet";
    ret->said = packet.p[0];
    struct str rest = str_from(packet, 1);
    const struct reply_row *row = row_of(ret->said);
    enum shape shape = row ? row->shape : BYTES; /* who asked will not know the letter either */
    if (shape == BYTES) {
        ret->text = rest;
        return NULL;
    }
    if (shape == NUMBER_TEXT_TEXT) {
        if (rest.n < 4)
            return "missing number";
        ret->index = take_u32(rest.p);
        rest = str_from(rest, 4);
    }
    if (shape != NOTHING && !take_text(&rest, &ret->text))
        return "missing string null terminator";
    bool second = shape == TEXT_TEXT || shape == NUMBER_TEXT_TEXT || (shape == TEXT_MAYBE_TEXT && rest.n > 0);
    if (second && !take_text(&rest, &ret->argument))
        return "missing string null terminator";
    return rest.n ? "left-over data" : NULL;
}

/* One line of a reply code: "NNN" and either a separator with text, or nothing. */
static bool take_line(struct str *rest, struct str *ret) {
    if (rest->n == 0)
        return false;
    ptrdiff_t lf = str_index(*rest, '\n');
    *ret = lf >= 0 ? str_sub(*rest, 0, (size_t)lf) : *rest;
    *rest = str_from(*rest, lf >= 0 ? (size_t)lf + 1 : rest->n);
    if (str_ends(*ret, STR("\r")))
        ret->n--;
    return true;
}

static bool line_valid(struct str line, struct str code) {
    return line.n >= 3 && str_eq(str_sub(line, 0, 3), code) && (line.n == 3 || line.p[3] == ' ' || line.p[3] == '-');
}

bool milter_reply_text(struct arena *a, struct str said, struct str *ret) {
    struct str rest = said, line, code = str_sub(said, 0, 3);
    struct buf b = { 0 };
    bool good = code.n == 3 && (code.p[0] == '4' || code.p[0] == '5') && code.p[1] >= '0' && code.p[1] <= '5' &&
                byte_is_digit(code.p[2]);
    for (size_t lines = 0; good && take_line(&rest, &line); lines++) {
        good = line_valid(line, code) && lines < MILTER_REPLY_LINES_MAX;
        if (!good)
            break;
        buf_printf(&b, "%s%.*s%c", lines ? "\n" : "", STR_ARG(code), rest.n ? '-' : ' ');
        struct buf text = { 0 };
        struct str words = str_from(line, 4);
        for (size_t i = 0; i < words.n; i++) {
            buf_byte(&text, words.p[i]);
            if (words.p[i] == '%' && i + 1 < words.n && words.p[i + 1] == '%')
                i++;
        }
        buf_printable(&b, buf_str(&text), text.n);
        buf_free(&text);
    }
    *ret = good ? arena_str(a, buf_str(&b)) : STR("");
    buf_free(&b);
    return good;
}

const char *milter_options_parse(struct str packet, struct milter_options *ret) {
    *ret = (struct milter_options){ 0 };
    if (packet.n == 0 || packet.p[0] != 'O')
        return "no answer to the option negotiation";
    struct str rest = str_from(packet, 1);
    if (rest.n < 12)
        return "option negotiation: short answer";
    ret->version = take_u32(rest.p);
    ret->actions = take_u32(rest.p + 4);
    ret->protocol = take_u32(rest.p + 8);
    rest = str_from(rest, 12);
    while (rest.n > 0) {
        struct str names;
        uint32_t stage = rest.n >= 4 ? take_u32(rest.p) : MILTER_STAGES;
        rest = str_from(rest, 4);
        if (stage >= MILTER_AT_UNKNOWN || !take_text(&rest, &names))
            return "option negotiation: malformed list of macro names";
        ret->macros[stage] = names;
    }
    return NULL;
}
