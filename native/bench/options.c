/* Options of a driver: strict, because a mistyped argument would silently measure something else. */
#include "options.h"

#include "say.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const bench_spec *spec;
static const bench_option *shared; /* by all drivers */

static bool is_choice(const char *choices, const char *word) {
    size_t length = strlen(word);
    for (const char *at = choices; *at; at += strspn(at, " ")) {
        size_t next = strcspn(at, " ");
        if (next == length && memcmp(at, word, length) == 0) return true;
        at += next;
    }
    return false;
}

static bool parse_integer(const char *text, int64_t lo, int64_t hi, int64_t *value) {
    char *end;
    if (!(*text == '-' || (*text >= '0' && *text <= '9'))) return false;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (errno || end == text || *end || parsed < lo || parsed > hi) return false;
    *value = parsed;
    return true;
}

static bool parse_real(const char *text, double lo, double hi, double *value) {
    char *end;
    if (!(*text == '.' || (*text >= '0' && *text <= '9'))) return false;
    errno = 0;
    double parsed = strtod(text, &end);
    if (errno || end == text || *end || !(parsed >= lo && parsed <= hi)) return false;
    *value = parsed;
    return true;
}

static void set_option(const bench_option *option, const char *value) {
    if (option->number && !parse_integer(value, option->lo, option->hi, option->number))
        bench_refuse("--%s takes an integer in %" PRId64 "..%" PRId64 ", not '%s'", option->name, option->lo, option->hi, value);
    if (option->real && !parse_real(value, (double)option->lo, (double)option->hi, option->real))
        bench_refuse("--%s takes a number in %" PRId64 "..%" PRId64 ", not '%s'", option->name, option->lo, option->hi, value);
    if (option->text) {
        if (option->choices && !is_choice(option->choices, value))
            bench_refuse("--%s takes one of: %s; not '%s'", option->name, option->choices, value);
        if (!*value) bench_refuse("--%s needs a value", option->name);
        *option->text = value;
    }
}

static const bench_option *find_among(const bench_option *options, const char *name, size_t length) {
    for (const bench_option *option = options; option->name; option++)
        if (strlen(option->name) == length && memcmp(option->name, name, length) == 0) return option;
    return NULL;
}

static const bench_option *find_option(const char *name, size_t length) {
    const bench_option *own = find_among(spec->options, name, length);
    return own ? own : find_among(shared, name, length);
}

static void print_options(const bench_option *options) {
    for (const bench_option *option = options; option->name; option++) {
        printf("  --%-15s %s", option->name, option->help);
        if (option->number) printf(" (%" PRId64 "; %" PRId64 "..%" PRId64 ")\n", *option->number, option->lo, option->hi);
        if (option->real) printf(" (%g; %" PRId64 "..%" PRId64 ")\n", *option->real, option->lo, option->hi);
        if (option->text)
            printf(" (%s%s%s)\n", *option->text ? *option->text : "none", option->choices ? "; one of: " : "",
                   option->choices ? option->choices : "");
    }
}

static _Noreturn void print_help(void) {
    printf("bench_%s", spec->driver);
    for (int i = 0; i < spec->positional; i++) printf(" [%s]", spec->options[i].name);
    printf(" [--name=value ...] [--json]\n%s\n\n", spec->about);
    print_options(spec->options);
    print_options(shared);
    printf("  --%-15s %s\n\nHAKMEM_BENCH_PREFAULT sets the untimed warm-up iterations (default: a tenth of the run).\n", "json",
           "print one line of JSON last");
    exit(0);
}

bool bench_parse_arguments(int argc, char **argv, const bench_spec *own, const bench_option *of_all) {
    bool want_json = false;
    int positional = 0;
    spec = own;
    shared = of_all;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--json") == 0) {
            want_json = true;
        } else if (strcmp(arg, "--help") == 0) {
            print_help();
        } else if (strncmp(arg, "--", 2) == 0) {
            const char *name = arg + 2;
            size_t length = strcspn(name, "=");
            const bench_option *option = find_option(name, length);
            if (!option) bench_refuse("unknown option '%s' (--help lists them)", arg);
            if (name[length] != '=') bench_refuse("--%s needs a value: --%s=VALUE", option->name, option->name);
            set_option(option, name + length + 1);
        } else {
            if (positional == spec->positional)
                bench_refuse("unexpected argument '%s': at most %d arguments without a name", arg, spec->positional);
            set_option(&spec->options[positional++], arg);
        }
    }
    return want_json;
}

/* The gate's default and range stand in gates.def alone. */
int64_t bench_prefault_gate(void) {
    static const struct {
        const char *name, *preset, *allowed;
    } gates[] = {
#define GATE(name, type, preset, allowed, scope, doc) {#name, preset, allowed},
#define PROFILE(name, settings, doc)
#include "../src/gates.def"
#undef GATE
#undef PROFILE
    };
    for (size_t i = 0; i < sizeof gates / sizeof *gates; i++) {
        if (strcmp(gates[i].name, "BENCH_PREFAULT") != 0) continue;
        char *dots;
        int64_t lo = strtoll(gates[i].allowed, &dots, 10), hi = strtoll(dots + 2, NULL, 10);
        const char *asked = getenv("HAKMEM_BENCH_PREFAULT");
        int64_t value = strtoll(gates[i].preset, NULL, 10);
        if (asked && !parse_integer(asked, lo, hi, &value))
            bench_refuse("HAKMEM_BENCH_PREFAULT takes an integer in %s, not '%s'", gates[i].allowed, asked);
        return value;
    }
    bench_refuse("gates.def names no BENCH_PREFAULT");
}
