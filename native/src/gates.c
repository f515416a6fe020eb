#include "gates.h"

#include "diag.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define PREFIX "HAKMEM_"
#define PREFIX_LEN (sizeof PREFIX - 1)

typedef struct {
    const char *name, *def, *allowed;
    gate_type type;
    gate_scope scope;
} gate_desc;

static const gate_desc descs[G_COUNT] = {
#define GATE(name, type, def, allowed, scope, doc) [G_##name] = {#name, def, allowed, GATE_##type, SCOPE_##scope},
#define PROFILE(name, settings, doc)
#include "gates.def"
#undef GATE
#undef PROFILE
};

static const struct {
    const char *name, *settings;
} profiles[] = {
#define GATE(name, type, def, allowed, scope, doc)
#define PROFILE(name, settings, doc) {#name, settings},
#include "gates.def"
#undef GATE
#undef PROFILE
};
#define PROFILE_COUNT (sizeof profiles / sizeof profiles[0])

long long hak_gate_value[G_COUNT];
static bool set_by_user[G_COUNT];
#define TEXTS 2 /* FILE and DIR gates */
static char texts[TEXTS][GATE_TEXT_MAX]; /* copies: a program may write over its environment */
static int text_count;
static char proc_environ[65536]; /* untouched, hence not resident, unless libc is not ready yet */

static bool read_here(const gate_desc *d) {
    if (d->scope == SCOPE_BENCH) return false;
    return HAK_STATS_ON || d->scope == SCOPE_CORE;
}

/* Strings are taken apart by hand: strlen, strcspn, strtoll, memchr, memcmp: each faults in up to 64 KB of libc in every process. */
static size_t length(const char *s) {
    size_t n = 0;
    for (; s[n]; n++) HAK_OPAQUE(n); /* or the compiler calls strlen */
    return n;
}

static bool begins(const char *s, const char *with) {
    while (*with && *s == *with) s++, with++;
    return !*with;
}

static size_t word_length(const char *s) {
    size_t n = 0;
    while (s[n] && s[n] != ' ') n++;
    return n;
}

/* Whether s[0..len) is the word that begins there. */
static bool is_word(const char *word, const char *s, size_t len) {
    size_t same = 0;
    while (same < len && word[same] == s[same]) same++;
    return same == len && word_length(word) == len;
}

/* Index of the word s[0..len) in words with a space between two, or -1. */
static int word_index(const char *words, const char *s, size_t len) {
    for (int i = 0; *words; i++) {
        size_t n = word_length(words);
        if (is_word(words, s, len)) return i;
        words += n + (words[n] == ' ');
    }
    return -1;
}

static int profile_index(const char *s, size_t len) {
    for (size_t i = 0; i < PROFILE_COUNT; i++)
        if (is_word(profiles[i].name, s, len)) return (int)i;
    return -1;
}

/* Decimal integer: an optional minus and at most 18 digits, which cannot overflow. */
static bool decimal(const char *s, size_t len, long long *out) {
    bool minus = len && *s == '-';
    s += minus, len -= minus;
    if (len == 0 || len > 18) return false;
    for (*out = 0; len; s++, len--) {
        if (*s < '0' || *s > '9') return false;
        *out = *out * 10 + (*s - '0');
    }
    if (minus) *out = -*out;
    return true;
}

/* Decimal integer in "lo..hi". */
static bool parse_int(const char *range, const char *s, size_t len, long long *out) {
    long long lo, hi, v;
    size_t n = 0;
    while (range[n] != '.') n++;
    if (!decimal(range, n, &lo) || !decimal(range + n + 2, length(range + n + 2), &hi)) return false;
    if (!decimal(s, len, &v) || v < lo || v > hi) return false;
    *out = v;
    return true;
}

/* What can stand in a message, a path and JSON as it is. */
static bool is_plain(const char *s, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] < ' ' || s[i] == 127 || s[i] == '"' || s[i] == '\\') return false;
    return true;
}

/* A path, or "" for unset, is copied; the value is the index of the copy, -1 where there is none. */
static bool parse_text(const gate_desc *d, const char *s, size_t len, long long *out) {
    long long fd;
    *out = -1;
    if (len == 0) return true;
    bool path = s[0] == '/' && len < GATE_TEXT_MAX - 32 && is_plain(s, len);
    if (!path && !(d->type == GATE_FILE && parse_int("0..1048576", s, len, &fd))) return false;
    if (text_count == TEXTS) return false;
    memcpy(texts[text_count], s, len);
    texts[text_count][len] = 0;
    *out = text_count++;
    return true;
}

static bool parse_value(const gate_desc *d, const char *s, size_t len, long long *out) {
    if (d->type == GATE_FILE || d->type == GATE_DIR) return parse_text(d, s, len, out);
    if (d->type == GATE_INT) return parse_int(d->allowed, s, len, out);
    int i = d->type == GATE_PROFILE ? profile_index(s, len) : word_index(d->allowed, s, len);
    *out = i;
    return i >= 0;
}

static COLD void complain(const gate_desc *d, const char *s, size_t len) {
    if (d->type == GATE_PROFILE)
        hak_msg("%s%s=%.*s is not allowed; allowed: %s, %s; ignored", PREFIX, d->name, (int)(len < 80 ? len : 80), s,
                profiles[0].name, profiles[PROFILE_COUNT - 1].name);
    else
        hak_msg("%s%s=%.*s is not allowed; allowed: %s; using the default%s%s", PREFIX, d->name, (int)(len < 80 ? len : 80), s,
                d->allowed, *d->def ? " " : ": unset", d->def);
}

static int gate_index(const char *s, size_t len) {
    for (int g = 0; g < G_COUNT; g++)
        if (is_word(descs[g].name, s, len)) return g;
    return -1;
}

/* One "NAME=value" without the prefix. */
static void apply_setting(const char *s, size_t len, bool user) {
    size_t nlen = 0;
    while (nlen < len && s[nlen] != '=') nlen++;
    if (nlen == len) return;
    const char *value = s + nlen + 1;
    size_t vlen = len - nlen - 1;
    int g = gate_index(s, nlen);
    if (g < 0) {
        hak_msg("unknown gate %s%.*s; ignored (gates.def lists the gates)", PREFIX, (int)(nlen < 80 ? nlen : 80), s);
        return;
    }
    const gate_desc *d = &descs[g];
    if (!read_here(d) || (!user && set_by_user[g])) return;
    if (d->type == GATE_PROFILE && vlen == 0) return;
    long long v;
    if (!parse_value(d, value, vlen, &v)) {
        complain(d, value, vlen);
        return;
    }
    hak_gate_value[g] = v;
    set_by_user[g] = set_by_user[g] || user;
}

static void apply_environment(char **env) {
    for (; *env; env++)
        if (begins(*env, PREFIX)) apply_setting(*env + PREFIX_LEN, length(*env + PREFIX_LEN), true);
}

/* The dynamic loader may allocate before libc has set environ. */
static void apply_proc_environment(void) {
    int fd = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    size_t n = 0;
    for (ssize_t r; n < sizeof proc_environ - 1 && (r = read(fd, proc_environ + n, sizeof proc_environ - 1 - n)) > 0;)
        n += (size_t)r;
    close(fd);
    for (size_t i = 0; i < n; i += length(proc_environ + i) + 1)
        if (begins(proc_environ + i, PREFIX))
            apply_setting(proc_environ + i + PREFIX_LEN, length(proc_environ + i + PREFIX_LEN), true);
}

static void apply_profile(void) {
    long long p = gate(G_PROFILE);
    if (p < 0) return;
    for (const char *s = profiles[p].settings; *s;) {
        size_t n = word_length(s);
        apply_setting(s, n, false);
        s += n + (s[n] == ' ');
    }
}

const char *gate_text(int g) { return gate(g) < 0 ? NULL : texts[gate(g)]; }

void gates_load(void) {
    int saved = errno;
    for (int g = 0; g < G_COUNT; g++)
        if (!parse_value(&descs[g], descs[g].def, length(descs[g].def), &hak_gate_value[g])) hak_gate_value[g] = -1;
    if (!getauxval(AT_SECURE)) {
        if (environ) apply_environment(environ);
        else apply_proc_environment();
        apply_profile();
    }
    errno = saved;
}

static int print_value(const gate_desc *d, long long v, char *out, size_t size) {
    if (d->type == GATE_INT) return snprintf(out, size, "%lld", v);
    if (v < 0) return snprintf(out, size, "%s", "");
    if (d->type == GATE_PROFILE) return snprintf(out, size, "%s", profiles[v].name);
    if (d->type == GATE_FILE || d->type == GATE_DIR) return snprintf(out, size, "%s", texts[v]);
    const char *w = d->allowed;
    for (; v > 0; v--) w += strcspn(w, " ") + 1;
    return snprintf(out, size, "%.*s", (int)strcspn(w, " "), w);
}

COLD size_t gates_json(char *buf, size_t size) {
    size_t n = 0;
    char value[GATE_TEXT_MAX];
    for (int g = 0; g < G_COUNT; g++) {
        if (!read_here(&descs[g])) continue;
        (void)print_value(&descs[g], hak_gate_value[g], value, sizeof value);
        n += (size_t)snprintf(n < size ? buf + n : NULL, n < size ? size - n : 0, "%s\"" PREFIX "%s\":\"%s\"", n ? "," : "{",
                              descs[g].name, value);
    }
    n += (size_t)snprintf(n < size ? buf + n : NULL, n < size ? size - n : 0, "}");
    return n;
}
