/* What a kernel is asked to do. */
#ifndef CW_OP_H
#define CW_OP_H

#include "team.h"

#include <stdint.h>

enum { PRODUCT, CHAIN, NORM, ROPE, TEXTS, PUT, STEP, BEST };

#define LONG_FROM 30000000 /* products of numbers, a part of a millisecond: from there on work is LONG */

/* How every kind's own structure begins. */
typedef struct {
    int64_t kind, rows;
} Op;

/* One kind of kernel. All threads of a team call `run` for the same op; what it has written is there for all after their next wait. */
typedef struct {
    int (*run)(const void *op, char *workspace, Member *member); /* 0, or 1 where memory is short */
    int64_t (*workspace)(const void *op);         /* bytes that the team shares, or NULL for none */
    int (*large)(const void *op);            /* ALONE, SHORT or LONG: whether other threads are worth waking, and the work worth waiting for */
    int64_t size;                            /* bytes of its structure, as __init__.py has to lay it out */
} Kind;

#define KIND(name) extern const Kind name __attribute__((visibility("hidden")))
KIND(cw_product);
KIND(cw_chain);
KIND(cw_norm);
KIND(cw_rope);
KIND(cw_texts);
KIND(cw_put);
KIND(cw_step);
KIND(cw_best);

extern const int64_t cw_weight_size __attribute__((visibility("hidden"))); /* of linear.c's Weight */
extern const int64_t cw_blocks_size __attribute__((visibility("hidden"))); /* of blocks.h's Blocks */

#endif
