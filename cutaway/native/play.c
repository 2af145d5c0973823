/* Kernels one after another, in one team of threads. */

#if defined(__x86_64__) && defined(__GNUC__)

#include "op.h"

#include <stdlib.h>

static const Kind *const KINDS[] = {
    [PRODUCT] = &cw_product, [CHAIN] = &cw_chain, [NORM] = &cw_norm, [ROPE] = &cw_rope,
    [TEXTS] = &cw_texts,     [PUT] = &cw_put,     [STEP] = &cw_step,       [BEST] = &cw_best,
};

/* The bytes of each kind's structure, then those of a weight and of its blocks, as far as `sizes` has space for n; returns how many there are. */
int64_t cw_sizes(int64_t *sizes, int64_t n) {
    const int64_t kinds = sizeof KINDS / sizeof *KINDS;
    for (int64_t i = 0; i < kinds && i < n; i++) sizes[i] = KINDS[i]->size;
    if (kinds < n) sizes[kinds] = cw_weight_size;
    if (kinds + 1 < n) sizes[kinds + 1] = cw_blocks_size;
    return kinds + 2;
}

#define DOUBLED 5 /* times at most */

/* What the calling thread knows of those that help it, in each kind of region. */
static __thread struct {
    uint64_t alone_until;
    int late; /* how often they were, of late */
} known[KINDS_OF_REGIONS];

int cw_members(int threads, int kind, uint64_t now) { return now < known[kind].alone_until ? 1 : threads; }

/* Alone, the first thread would have worked for all. Where waiting took longer than that, it goes on alone for as long as the
 * others have cost it, and twice as long each time they do so again: a busy machine costs little, and a hiccup is soon forgotten. */
void cw_judge(const Team *team, int threads, int kind, uint64_t start) {
    const uint64_t now = __rdtsc(), alone = team->worked * threads;
    if (now - start <= alone) {
        known[kind].late -= known[kind].late > 0;
        return;
    }
    known[kind].alone_until = now + ((now - start - alone) << known[kind].late);
    known[kind].late += known[kind].late < DOUBLED;
}

/* Runs n ops in order; each finds what those before it have written. Returns 0, or 1 where memory is short. */
int cw_replay(const Op *const *ops, int64_t n, int threads) {
    int64_t bytes = 0;
    int large = ALONE, failed = 0;
    for (int64_t i = 0; i < n; i++) {
        const Kind *kind = KINDS[ops[i]->kind];
        const int64_t own = kind->workspace ? kind->workspace(ops[i]) : 0;
        if (own > bytes) bytes = own;
        const int needs = kind->large(ops[i]);
        if (needs > large) large = needs;
    }
    char *workspace = bytes ? malloc(bytes) : NULL;
    if (bytes && !workspace) return 1;
    const uint64_t start = __rdtsc();
    Team team __attribute__((aligned(64))) = {0};
    threads = threads > 1 && large ? cw_members(threads, large, start) : 1;
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(| : failed)
    {
        Member member = cw_join(&team);
        for (int64_t i = 0; i < n; i++) {
            if (i) cw_wait(&member);
            failed |= KINDS[ops[i]->kind]->run(ops[i], workspace, &member);
        }
        cw_leave(&member);
    }
    if (threads > 1) cw_judge(&team, threads, large, start);
    free(workspace);
    return failed;
}

int cw_run(const Op *op, int threads) { return cw_replay(&op, 1, threads); }

#endif
