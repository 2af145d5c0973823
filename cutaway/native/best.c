/* The likeliest tokens of rows of logits, and what turns them into log-probabilities: one pass over memory each. */

#if defined(__x86_64__) && defined(__GNUC__)

#include "op.h"
#include "vector.h"

#define SMALL 200000 /* numbers below which other threads are not worth waking */
#define AT_ONCE 64   /* numbers that are looked at for one above the least that is kept */

/* x: [rows, columns]. Of each row: the n largest numbers, the largest first, of equals the first, into values [rows, n], and their
 * columns into ids; -infinity is none. The largest of all into most[row], the sum of e^(x - most) into sum[row], which is
 * NaN where a number is, and that of (x - most) e^(x - most) into spread[row]. */
typedef struct {
    Op op;
    const float *x;
    float *values, *most, *sum, *spread;
    int64_t *ids;
    int64_t columns, n;
} Best;

static int best_large(const void *op) {
    const Best *p = op;
    return p->op.rows * p->columns > SMALL;
}

/* Puts a number that is larger than the last of values [n] in its place. */
static inline void insert(float *values, int64_t *ids, int64_t n, float value, int64_t id) {
    int64_t i = n - 1;
    for (; i && values[i - 1] < value; i--) values[i] = values[i - 1], ids[i] = ids[i - 1];
    values[i] = value, ids[i] = id;
}

INLINE void best_of_row(const Best *p, int64_t row) {
    const float *x = p->x + row * p->columns;
    const int64_t n = p->n, columns = p->columns;
    float *values = p->values + row * n;
    int64_t *ids = p->ids + row * n;
    for (int64_t i = 0; i < n; i++) values[i] = -__builtin_inff(), ids[i] = 0;
    for (int64_t c = 0; c < columns; c += AT_ONCE) {
        const int64_t count = columns - c < AT_ONCE ? columns - c : AT_ONCE;
        if (count == AT_ONCE) {
            const __m512 a = _mm512_max_ps(_mm512_loadu_ps(x + c), _mm512_loadu_ps(x + c + 16));
            const __m512 b = _mm512_max_ps(_mm512_loadu_ps(x + c + 32), _mm512_loadu_ps(x + c + 48));
            if (!(_mm512_reduce_max_ps(_mm512_max_ps(a, b)) > values[n - 1])) continue;
        }
        for (int64_t i = c; i < c + count; i++)
            if (x[i] > values[n - 1]) insert(values, ids, n, x[i], i);
    }
    const __m512 most = _mm512_set1_ps(values[0]);
    const __m512 least = _mm512_set1_ps(-1000.0f); /* below, e^x is 0, and so is its product with x, -infinity included */
    __m512 sums[4], spreads[4];
    for (int i = 0; i < 4; i++) sums[i] = spreads[i] = _mm512_setzero_ps();
    for (int64_t c = 0; c < columns; c += AT_ONCE)
        for (int i = 0; i < 4; i++) {
            const __mmask16 m = lane_mask(columns - c - 16 * i);
            const __m512 below = _mm512_sub_ps(load(x, c + 16 * i, 0, m), most);
            const __m512 e = _mm512_maskz_mov_ps(m, exp_(below));
            sums[i] = _mm512_add_ps(sums[i], e);
            spreads[i] = _mm512_fmadd_ps(e, _mm512_max_ps(below, least), spreads[i]);
        }
    p->most[row] = values[0];
    p->sum[row] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
    p->spread[row] =
        _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(spreads[0], spreads[1]), _mm512_add_ps(spreads[2], spreads[3])));
}

TARGET static int best_run(const void *op, char *workspace, Member *member) {
    (void)workspace, (void)member;
    const Best *p = op;
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < p->op.rows; r++) best_of_row(p, r);
    return 0;
}

const Kind cw_best = {best_run, NULL, best_large, sizeof(Best)};

#endif
