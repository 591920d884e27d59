#include "mail/date.h"

#include <stdlib.h>
#include <time.h>

/* Not strftime's names: a locale must not change them. */
static const char *const days[] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
static const char *const months[] = {
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
};

/* A time so far off that the calendar has no words for it is shown as the epoch. */
static struct tm local_time(int64_t when) {
    time_t t = (time_t)when;
    struct tm tm;
    if (!localtime_r(&t, &tm)) {
        t = 0;
        localtime_r(&t, &tm);
    }
    return tm;
}

/* The zone name is put in a comment, so what could end or break one is not allowed. */
static bool zone_printable(const char *zone) {
    if (!zone || !*zone)
        return false;
    for (; *zone; zone++)
        if (!byte_is_print(*zone) || *zone == '(' || *zone == ')' || *zone == '\\')
            return false;
    return true;
}

struct str date_rfc5322(struct arena *a, int64_t when) {
    struct tm tm = local_time(when);
    long minutes = tm.tm_gmtoff / 60;
    bool zone = zone_printable(tm.tm_zone);
    return arena_printf(a, "%s, %2d %s %d %02d:%02d:%02d %c%02ld%02ld%s%s%s", days[tm.tm_wday], tm.tm_mday,
                        months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec, minutes < 0 ? '-' : '+',
                        labs(minutes) / 60, labs(minutes) % 60, zone ? " (" : "", zone ? tm.tm_zone : "",
                        zone ? ")" : "");
}

struct str date_syslog(struct arena *a, int64_t when) {
    struct tm tm = local_time(when);
    return arena_printf(a, "%s %2d %02d:%02d:%02d", months[tm.tm_mon], tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

struct str message_id(struct arena *a, int64_t when, struct str queue_id, struct str host) {
    time_t t = (time_t)when;
    struct tm tm;
    if (!gmtime_r(&t, &tm)) {
        t = 0;
        gmtime_r(&t, &tm);
    }
    return arena_printf(a, "<%04d%02d%02d%02d%02d%02d.%.*s@%.*s>", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
                        tm.tm_hour, tm.tm_min, tm.tm_sec, STR_ARG(queue_id), STR_ARG(host));
}
