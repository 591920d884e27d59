/* postfix tls: opportunistic TLS with one command; keys and certificates of the SMTP server. */
#include "base/buf.h"
#include "base/log.h"
#include "cmd/postfix.h"
#include "cmd/server_cert.h"
#include "cmd/settings_edit.h"
#include "conf/params.h"
#include "conf/settings.h"
#include "conf/values.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { NAME_TRIES = 5, ARGUMENTS_MAX = 1000, SMTP_PORT = 25 };

struct tls_command {
    const struct conf *c;
    struct arena *a;
    const char *usage;
    char *const *args; /* without the options */
    size_t arg_count;
    struct str random, algorithm, bits, key_file, host; /* -r -a -b -k -h; empty: not given */
};

/* --- what main.cf says --- */

/* TLS settings of the client and the server may be not live yet, so they are asked for by name. */
static struct str setting(const struct tls_command *t, struct str name) {
    struct str value;
    return conf_lookup(t->c, name, t->a, &value) ? value : STR("");
}

static struct str prefixed(const struct tls_command *t, const char *prefix, struct str rest) {
    return arena_printf(t->a, "%s%.*s", prefix, STR_ARG(rest));
}

/* Whoever has set it to anything has decided, be it to the default value. */
static bool is_set(const struct tls_command *t, struct str name) {
    const struct setting *set = conf_setting(t->c, name);
    return set && set->value.n > 0;
}

/* What decides whether there is TLS and with what certificate; log levels and the like do not. */
static bool all_default(const struct tls_command *t, const char *prefix) {
    static const struct str names[] = {
        STR_INIT("_use_tls"),
        STR_INIT("_enforce_tls"),
        STR_INIT("_tls_enforce_peername"),
        STR_INIT("_tls_security_level"),
        STR_INIT("_tls_cert_file"),
        STR_INIT("_tls_dcert_file"),
        STR_INIT("_tls_eccert_file"),
        STR_INIT("_tls_chain_files"),
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (is_set(t, prefixed(t, prefix, names[i])))
            return false;
    return true;
}

static struct str in_config_directory(const struct tls_command *t, struct str path) {
    return str_starts(path, STR("/")) ? path
                                      : arena_printf(t->a, "%.*s/%.*s", STR_ARG(conf_directory(t->c)), STR_ARG(path));
}

static struct str cert_parameter(enum key_algorithm algorithm) {
    return algorithm == KEY_RSA ? STR("smtpd_tls_cert_file") : STR("smtpd_tls_eccert_file");
}
static struct str key_parameter(enum key_algorithm algorithm) {
    return algorithm == KEY_RSA ? STR("smtpd_tls_key_file") : STR("smtpd_tls_eckey_file");
}

/* The key that is in use; empty: none. */
static struct str deployed_key(const struct tls_command *t, enum key_algorithm algorithm) {
    struct str path = setting(t, key_parameter(algorithm));
    return path.n == 0 || str_eq(path, STR("none")) ? STR("") : in_config_directory(t, path);
}

/* --- arguments --- */
_Noreturn static void usage(const struct tls_command *t) {
    log_fatal("usage: postfix tls %s", t->usage);
}

static enum key_algorithm wanted_algorithm(const struct tls_command *t) {
    enum key_algorithm algorithm = KEY_RSA;
    if (t->algorithm.n && !key_algorithm_find(t->algorithm, &algorithm))
        log_fatal("Unsupported public key algorithm: %.*s; use rsa or ecdsa", STR_ARG(t->algorithm));
    return algorithm;
}

static bool is_host_name(struct str name) {
    if (str_starts(name, STR("*.")))
        name = str_from(name, 2);
    return hostname_problem(name) == NULL;
}

/* The host names of the arguments, else myhostname. */
static size_t host_names(const struct tls_command *t, const struct str **ret) {
    size_t n = t->arg_count ? t->arg_count : 1;
    struct str *names = arena_array(t->a, n, sizeof *names);
    names[0] = conf_str(t->c, PARAM_myhostname);
    if (t->arg_count > CERT_NAMES_MAX)
        log_fatal("more than %d host names", CERT_NAMES_MAX);
    for (size_t i = 0; i < t->arg_count; i++) {
        names[i] = str_c(t->args[i]);
        if (!is_host_name(names[i]))
            log_fatal("not a host name: \"%.*s\"", STR_ARG(names[i]));
    }
    *ret = names;
    return n;
}

static void or_die(error e) {
    if (e)
        log_fatal("%.*s", STR_ARG(e->text));
}

/* --- files --- */

/* Whole or not at all, and never over something that is there. False: the name is taken. */
static bool write_new(const struct tls_command *t, struct str path, struct str content, mode_t mode) {
    struct str temporary = arena_printf(t->a, "%.*s.tmp%d", STR_ARG(path), (int)getpid());
    int fd = open(temporary.p, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        log_fatal("create %.*s: %s", STR_ARG(temporary), strerror(errno));
    bool ok = write(fd, content.p, content.n) == (ssize_t)content.n && fchmod(fd, mode) == 0 && fsync(fd) == 0;
    int why = errno;
    close(fd);
    if (ok && link(temporary.p, path.p) < 0) {
        ok = false;
        why = errno;
    }
    unlink(temporary.p);
    if (!ok && why != EEXIST)
        log_fatal("write %.*s: %s", STR_ARG(path), strerror(why));
    return ok;
}

struct pair {
    struct str key, cert; /* paths */
};

/* Both under names with the time in them; a second call within a second waits for the next one. */
static struct pair write_pair(const struct tls_command *t, const struct server_key *k, struct str cert) {
    const char *prefix = server_key_algorithm(k) == KEY_RSA ? "" : "ec";
    struct buf pem = { 0 };
    or_die(server_key_pem(k, t->a, &pem));
    for (int i = 0; i < NAME_TRIES; i++) {
        char stamp[32];
        time_t now = time(NULL);
        struct tm tm;
        gmtime_r(&now, &tm);
        strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &tm);
        struct pair p;
        p.key = in_config_directory(t, arena_printf(t->a, "%skey-%s.pem", prefix, stamp));
        p.cert = in_config_directory(t, arena_printf(t->a, "%scert-%s.pem", prefix, stamp));
        if (access(p.cert.p, F_OK) != 0 && write_new(t, p.key, buf_str(&pem), 0600)) {
            buf_wipe(&pem);
            if (!write_new(t, p.cert, cert, 0644)) {
                unlink(p.key.p);
                log_fatal("write %.*s: %s", STR_ARG(p.cert), strerror(EEXIST));
            }
            return p;
        }
        sleep(1);
    }
    buf_wipe(&pem);
    log_fatal("cannot find a free name for a key in %.*s", STR_ARG(conf_directory(t->c)));
}

static struct pair make_pair(const struct tls_command *t, struct server_key *k) {
    const struct str *names;
    size_t n = host_names(t, &names);
    struct buf cert = { 0 };
    or_die(server_key_certificate(k, names, n, t->a, &cert));
    struct pair p = write_pair(t, k, buf_str(&cert));
    buf_free(&cert);
    server_key_free(k);
    return p;
}

static struct pair make_new_pair(const struct tls_command *t) {
    struct server_key *k;
    or_die(server_key_new(wanted_algorithm(t), t->bits, t->a, &k));
    return make_pair(t, k);
}

/* --- what to do next --- */
static void say_reload(void) {
    log_info("Run the command:");
    log_info("  # postfix reload");
    log_info("if you want the new settings to take effect immediately.");
}

static void say_csr(struct pair p) {
    log_info("To generate a CSR run:");
    log_info("  # postfix tls output-server-csr -k %.*s [<hostname> ...]", STR_ARG(p.key));
    log_info("Save the signed certificate chain in %.*s.", STR_ARG(p.cert));
}

static void say_pair(struct pair p) {
    log_info("New private key and self-signed certificate created. To deploy run:");
    log_info("  # postfix tls deploy-server-cert %.*s %.*s", STR_ARG(p.cert), STR_ARG(p.key));
    say_csr(p);
    log_info("To generate TLSA records run:");
    log_info("  # postfix tls output-server-tlsa [-h <hostname>] %.*s", STR_ARG(p.key));
    log_info("(deploy after the DNS has them and old records have expired).");
}

/* --- enable --- */
static void set(const struct tls_command *t, const struct conf_override *settings, size_t n) {
    if (t->random.n)
        settings_edit(conf_directory(t->c), &(struct conf_override){ STR("tls_random_source"), t->random }, 1);
    settings_edit(conf_directory(t->c), settings, n);
    for (size_t i = 0; i < n; i++) {
        enum param p;
        if (param_find(settings[i].name, &p) && param_row(p)->status == STATUS_PENDING)
            log_warn("%.*s is set, but has no effect in this version yet", STR_ARG(settings[i].name));
    }
}

static int all_default_client(const struct tls_command *t) {
    return all_default(t, "smtp") ? 0 : 1;
}
static int all_default_server(const struct tls_command *t) {
    return all_default(t, "smtpd") ? 0 : 1;
}

static void say_settings(const char *side, const struct conf_override *settings, size_t n) {
    log_info("*** Non-default SMTP %s TLS settings detected, no changes made.", side);
    log_info("For opportunistic TLS in the Postfix SMTP %s, these settings are typical:", side);
    for (size_t i = 0; i < n; i++)
        log_info("  %.*s = %.*s", STR_ARG(settings[i].name), STR_ARG(settings[i].value));
}

static int enable_client(const struct tls_command *t) {
    static const struct conf_override settings[] = {
        { STR_INIT("smtp_tls_security_level"), STR_INIT("may") },
        { STR_INIT("smtp_tls_loglevel"), STR_INIT("1") },
        { STR_INIT("smtp_tls_session_cache_database"),
          STR_INIT("${default_cache_db_type}:${data_directory}/smtp_scache") },
    };
    enum { N = sizeof settings / sizeof *settings };
    if (!all_default(t, "smtp")) {
        say_settings("client", settings, N);
        return 0;
    }
    set(t, settings, N);
    log_info("Enabled opportunistic TLS in the Postfix SMTP client.");
    say_reload();
    return 0;
}

static void deploy(const struct tls_command *t, enum key_algorithm algorithm, struct pair p) {
    struct conf_override settings[] = { { key_parameter(algorithm), p.key }, { cert_parameter(algorithm), p.cert } };
    settings_edit(conf_directory(t->c), settings, 2);
    log_info("New TLS private key and certificate deployed.");
}

static int enable_server(const struct tls_command *t) {
    static const struct conf_override settings[] = {
        { STR_INIT("smtpd_tls_security_level"), STR_INIT("may") },
        { STR_INIT("smtpd_tls_loglevel"), STR_INIT("1") },
        { STR_INIT("smtpd_tls_received_header"), STR_INIT("yes") },
    };
    enum { N = sizeof settings / sizeof *settings };
    if (!all_default(t, "smtpd")) {
        say_settings("server", settings, N);
        log_info("Use \"postfix tls new-server-cert\" to create a new certificate,");
        log_info("or \"postfix tls new-server-key\" to also make a new private key.");
        log_info("Published TLSA records must match the new key before it is deployed:");
        log_info("RFC 7671, sections 5.1 and 8, says how.");
        return 0;
    }
    enum key_algorithm algorithm = wanted_algorithm(t);
    struct pair p = make_new_pair(t);
    deploy(t, algorithm, p);
    set(t, settings, N);
    log_info("Enabled opportunistic TLS in the Postfix SMTP server.");
    say_reload();
    say_csr(p);
    log_info("To generate TLSA records run:");
    log_info("  # postfix tls output-server-tlsa [-h <hostname>]");
    return 0;
}

/* --- keys and certificates --- */
static int new_server_key(const struct tls_command *t) {
    say_pair(make_new_pair(t));
    return 0;
}

/* The deployed key lives on in a new file, so TLSA records of it stay true. */
static int new_server_cert(const struct tls_command *t) {
    struct str path = deployed_key(t, wanted_algorithm(t));
    struct server_key *k;
    if (path.n == 0)
        return new_server_key(t);
    or_die(server_key_read(path, t->a, &k));
    say_pair(make_pair(t, k));
    return 0;
}

static int deploy_server_cert(const struct tls_command *t) {
    if (t->arg_count != 2)
        usage(t);
    struct pair p = { .cert = in_config_directory(t, str_c(t->args[0])),
                      .key = in_config_directory(t, str_c(t->args[1])) };
    struct str of_cert, of_key;
    struct server_key *k;
    or_die(certificate_digest(p.cert, t->a, &of_cert));
    or_die(server_key_read(p.key, t->a, &k));
    or_die(server_key_digest(k, t->a, &of_key));
    enum key_algorithm algorithm = server_key_algorithm(k);
    server_key_free(k);
    if (!str_eq(of_cert, of_key))
        log_fatal("the certificate in %.*s does not belong to the key in %.*s", STR_ARG(p.cert), STR_ARG(p.key));
    deploy(t, algorithm, p);
    say_reload();
    return 0;
}

/* --- for others to read --- */

/* An algorithm's name means the key that is deployed for it; empty: there is none. */
static struct str named_key(const struct tls_command *t, struct str name) {
    enum key_algorithm algorithm;
    return key_algorithm_find(name, &algorithm) ? deployed_key(t, algorithm) : in_config_directory(t, name);
}

static int finish_output(void) {
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    log_fatal("write to standard output: %s", strerror(errno));
}

static int output_server_csr(const struct tls_command *t) {
    struct str path = named_key(t, t->key_file.n ? t->key_file : STR("rsa"));
    struct server_key *k;
    const struct str *names;
    struct buf pem = { 0 };
    if (path.n == 0)
        log_fatal("no key is deployed: name a key file with -k");
    size_t n = host_names(t, &names);
    or_die(server_key_read(path, t->a, &k));
    or_die(server_key_request(k, names, n, t->a, &pem));
    server_key_free(k);
    fwrite(pem.p, 1, pem.n, stdout);
    buf_free(&pem);
    return finish_output();
}

static void print_tlsa(const struct tls_command *t, struct str host, struct str path) {
    struct server_key *k;
    struct str digest;
    or_die(server_key_read(path, t->a, &k));
    or_die(server_key_digest(k, t->a, &digest));
    server_key_free(k);
    printf("; %.*s\n_%d._tcp.%.*s. IN TLSA 3 1 1 %.*s\n", STR_ARG(path), SMTP_PORT, STR_ARG(host), STR_ARG(digest));
}

static int output_server_tlsa(const struct tls_command *t) {
    static const struct str usual[] = { STR_INIT("rsa"), STR_INIT("ecdsa") };
    struct str host = t->host.n ? t->host : conf_str(t->c, PARAM_myhostname);
    if (!is_host_name(host))
        log_fatal("not a host name: \"%.*s\"", STR_ARG(host));
    for (size_t i = 0; i < (t->arg_count ? t->arg_count : 2); i++) {
        struct str path = named_key(t, t->arg_count ? str_c(t->args[i]) : usual[i]);
        if (path.n)
            print_tlsa(t, host, path);
    }
    return finish_output();
}

/* --- which one --- */
static const struct subcommand {
    const char *name, *options, *usage;
    size_t args_max;
    int (*run)(const struct tls_command *t);
} subcommands[] = {
    { "enable-client", "+r:", "enable-client [-r randsource]", 0, enable_client },
    { "enable-server", "+r:a:b:", "enable-server [-r randsource] [-a algorithm] [-b bits] [hostname ...]",
      ARGUMENTS_MAX, enable_server },
    { "new-server-key", "+a:b:", "new-server-key [-a algorithm] [-b bits] [hostname ...]", ARGUMENTS_MAX,
      new_server_key },
    { "new-server-cert", "+a:b:", "new-server-cert [-a algorithm] [-b bits] [hostname ...]", ARGUMENTS_MAX,
      new_server_cert },
    { "deploy-server-cert", "+", "deploy-server-cert certfile keyfile", 2, deploy_server_cert },
    { "output-server-csr", "+k:", "output-server-csr [-k keyfile] [hostname ...]", ARGUMENTS_MAX, output_server_csr },
    { "output-server-tlsa", "+h:", "output-server-tlsa [-h hostname] [keyfile ...]", ARGUMENTS_MAX,
      output_server_tlsa },
    { "all-default-client", "+", "all-default-client", 0, all_default_client },
    { "all-default-server", "+", "all-default-server", 0, all_default_server },
};

static int run(const struct postfix_command *m, const struct subcommand *s) {
    struct arena *a = arena_new();
    struct tls_command t = { .c = m->c, .a = a, .usage = s->usage };
    int argc = 0;
    while (m->args[argc])
        argc++;
    opterr = 0;
    optind = 1;
    for (int o; (o = getopt(argc, m->args, s->options)) != -1;) {
        struct str *place = o == 'r'   ? &t.random
                            : o == 'a' ? &t.algorithm
                            : o == 'b' ? &t.bits
                            : o == 'k' ? &t.key_file
                            : o == 'h' ? &t.host
                                       : NULL;
        if (!place)
            usage(&t);
        *place = str_c(optarg);
    }
    t.args = m->args + optind;
    t.arg_count = (size_t)(argc - optind);
    if (t.arg_count > s->args_max)
        usage(&t);
    int status = s->run(&t);
    arena_free(a);
    return status;
}

int postfix_tls(const struct postfix_command *m) {
    const char *name = m->args[0] ? m->args[0] : "";
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++)
        if (strcmp(subcommands[i].name, name) == 0)
            return run(m, &subcommands[i]);
    log_error("unknown tls command: '%s'", name);
    log_fatal("usage: postfix tls enable-client (or enable-server, new-server-key, new-server-cert, "
              "deploy-server-cert, output-server-csr, output-server-tlsa, all-default-client, all-default-server)");
}
