/* Norms of rows, and the turning of heads by their positions: one pass over memory each, in float32 inside. */

#if defined(__x86_64__) && defined(__GNUC__)

#include "norm.h"

#define SMALL 200000 /* numbers below which other threads are not worth waking */

static int norm_large(const void *op) {
    const Norm *p = op;
    return p->op.rows * p->n > SMALL;
}

TARGET static int norm_run(const void *op, char *workspace, Member *member) {
    (void)workspace, (void)member;
    const Norm *p = op;
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < p->op.rows; r++)
        norm_at(p, p->x, r / p->heads * p->stride + r % p->heads * p->n, p->out, r * p->n);
    return 0;
}

const Kind cw_norm = {norm_run, NULL, norm_large, sizeof(Norm)};

INLINE void rope_row(const void *x, int64_t from, void *out, int64_t to, const void *cos, const void *sin, int64_t at,
                     int64_t heads, int64_t size, int64_t rotated, const int bf16) {
    const int64_t half = rotated / 2;
    for (int64_t h = 0; h < heads; h++, from += size, to += size) {
        for (int64_t i = 0; i < half; i += 16) {
            const __mmask16 m = lane_mask(half - i);
            const __m512 a = load(x, from + i, bf16, m), b = load(x, from + half + i, bf16, m);
            const __m512 ca = load(cos, at + i, bf16, m), sa = load(sin, at + i, bf16, m);
            const __m512 cb = load(cos, at + half + i, bf16, m), sb = load(sin, at + half + i, bf16, m);
            store(out, to + i, bf16, m, _mm512_fmadd_ps(b, sa, _mm512_mul_ps(a, ca)));
            store(out, to + half + i, bf16, m, _mm512_fmadd_ps(a, sb, _mm512_mul_ps(b, cb)));
        }
        for (int64_t i = rotated; i < size; i += 16) {
            const __mmask16 m = lane_mask(size - i);
            store(out, to + i, bf16, m, load(x, from + i, bf16, m));
        }
    }
}

/* The first `rotated` numbers of each head of x [rows, heads, size], rows `stride` numbers apart: halves a and b become
 * a cos + b sin and b cos + a sin with cos and sin [rows, rotated], as in `rotate` of positions.py; out [rows, heads, size]. */
typedef struct {
    Op op;
    const void *x, *cos, *sin;
    void *out;
    int64_t stride, heads, size, rotated;
    int bf16;
} Rope;

static int rope_large(const void *op) {
    const Rope *p = op;
    return p->op.rows * p->heads * p->size > SMALL;
}

TARGET static int rope_run(const void *op, char *workspace, Member *member) {
    (void)workspace, (void)member;
    const Rope *p = op;
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < p->op.rows; r++) {
        const int64_t from = r * p->stride, to = r * p->heads * p->size, at = r * p->rotated;
        if (p->bf16) rope_row(p->x, from, p->out, to, p->cos, p->sin, at, p->heads, p->size, p->rotated, 1);
        else rope_row(p->x, from, p->out, to, p->cos, p->sin, at, p->heads, p->size, p->rotated, 0);
    }
    return 0;
}

const Kind cw_rope = {rope_run, NULL, rope_large, sizeof(Rope)};

#endif
