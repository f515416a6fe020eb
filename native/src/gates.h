/* gates: the only reader of the environment. A leaf.
 *
 * gates.def lists the gates; a value is an integer: 0/1 for BOOL, the number for INT, the index of the word for ENUM and
 * PROFILE; FILE and DIR have a text instead, gate_text(). Values are fixed once, by gates_load(), before the first block is handed out; afterwards they are constants.
 * A bad or unknown setting is reported in one line and the default stands. Programs that run with raised privileges
 * (AT_SECURE) get the defaults.
 */
#ifndef HAK_GATES_H
#define HAK_GATES_H

#include "base.h"

typedef enum { GATE_BOOL, GATE_INT, GATE_ENUM, GATE_PROFILE, GATE_FILE, GATE_DIR } gate_type;
typedef enum { SCOPE_CORE, SCOPE_RESEARCH, SCOPE_DUMP, SCOPE_BENCH } gate_scope;

enum {
#define GATE(name, type, def, allowed, scope, doc) G_##name,
#define PROFILE(name, settings, doc)
#include "gates.def"
#undef GATE
#undef PROFILE
    G_COUNT
};

/* Words of ENUM gates, in the order of gates.def. */
enum { DECOMMIT_FREE, DECOMMIT_DONTNEED, DECOMMIT_OFF };
enum { PREWARM_OFF, PREWARM_RESERVE, PREWARM_TOUCH };
enum { RESERVE_0, RESERVE_1, RESERVE_2, RESERVE_ADAPTIVE };
enum { SS_2048K, SS_1024K, SS_512K };
enum { LEVELS_1, LEVELS_2 };
enum { HUGE_NEVER, HUGE_LARGE, HUGE_ALWAYS };

extern HIDDEN long long hak_gate_value[G_COUNT];
static inline long long gate(int g) { return hak_gate_value[g]; }

#define GATE_TEXT_MAX 1024
const char *gate_text(int g); /* of a FILE or DIR gate; NULL: unset */

/* Read the environment; called once, by the initialiser, before any other thread can see a value. */
void gates_load(void);

/* {"HAKMEM_X":"value",...} of every gate this build reads; returns the bytes needed, like snprintf. */
size_t gates_json(char *buf, size_t size);

#endif
