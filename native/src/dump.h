/* dump: what the allocator says of itself, in the user's line formats and as JSON. Reads every room, changes none. */
#ifndef HAK_DUMP_H
#define HAK_DUMP_H

#include "base.h"

size_t dump_json(char *buf, size_t size); /* see hakmem_stats_json */
void dump_start(void); /* remembers whose statistics they are, and which file is the descriptor of STATS_JSON */
void dump_json_at_exit(void); /* before the caches are emptied */
void dump_at_exit(void); /* what the other DUMP gates ask for */

#endif
