/* A few new tokens and a cache: their keys and values go in, then each query runs alone along the keys that it holds. */

#if defined(__x86_64__) && defined(__GNUC__)

#include "op.h"
#include "vector.h"

#include <stdlib.h>
#include <string.h>

#define SMALL 200000 /* products below which other threads are not worth waking */

/* k and v: [texts, n, kv_heads, size], rows `k_row` and `v_row` bytes apart, `width` bytes a head; they become the last n of
 * *columns columns of keys and values [texts, kv_heads, columns, size], texts `text` and heads `head` numbers apart. */
typedef struct {
    Op op; /* rows: texts * n */
    const char *k, *v;
    char *keys, *values;
    const int64_t *columns;
    int64_t k_row, v_row, text, head, n, kv_heads, width;
    int bf16;
} Put;

/* q and out: [texts, n, heads, size], out without gaps, q's rows `q_row` numbers apart. keys and values: [texts, kv_heads,
 * *columns, size], texts `text` and heads `head` numbers apart. Text t's own columns begin at firsts[t] (NULL: 0); the n new
 * tokens are the last ones, and each sees the columns up to its own; with a window, so many of them. */
typedef struct {
    Op op; /* rows: texts * n */
    const void *q, *keys, *values;
    void *out;
    const int64_t *columns, *firsts;
    int64_t text, head, q_row, n, heads, kv_heads, size, window;
    float scale;
    int bf16;
} Step;

INLINE void query(const Step *s, int64_t job, float *weights, const int bf16) {
    const int64_t head = job % s->heads, row = job / s->heads, text = row / s->n, size = s->size;
    const int64_t own = *s->columns - s->n + row % s->n;
    int64_t from = s->firsts ? s->firsts[text] : 0;
    if (s->window && own - s->window + 1 > from) from = own - s->window + 1;
    const int64_t at = text * s->text + head / (s->heads / s->kv_heads) * s->head, q = row * s->q_row + head * size;
    const int64_t n = own + 1 - from;
    float largest = -__builtin_inff();
    for (int64_t j = 0; j < n; j++) {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t c = 0; c < size; c += 16) {
            const __mmask16 m = first(size - c);
            sum = _mm512_fmadd_ps(load(s->q, q + c, bf16, m), load(s->keys, at + (from + j) * size + c, bf16, m), sum);
        }
        const float score = _mm512_reduce_add_ps(sum) * s->scale;
        weights[j] = score;
        largest = score > largest ? score : largest;
    }
    const __m512 most = _mm512_set1_ps(largest);
    __m512 total = _mm512_setzero_ps();
    for (int64_t j = 0; j < n; j += 16) {
        const __mmask16 m = first(n - j);
        const __m512 e = _mm512_maskz_mov_ps(m, exp_(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, weights + j), most)));
        _mm512_mask_storeu_ps(weights + j, m, e);
        total = _mm512_add_ps(total, e);
    }
    const __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total));
    for (int64_t c = 0; c < size; c += 64) {
        const __mmask16 m[4] = {first(size - c), first(size - c - 16), first(size - c - 32), first(size - c - 48)};
        __m512 sums[4];
        for (int i = 0; i < 4; i++) sums[i] = _mm512_setzero_ps();
        for (int64_t j = 0; j < n; j++) {
            const __m512 w = _mm512_set1_ps(weights[j]);
            const int64_t v = at + (from + j) * size + c;
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sums[i] = _mm512_fmadd_ps(w, load(s->values, v + i * 16, bf16, m[i]), sums[i]);
        }
        for (int i = 0; i < 4; i++) store(s->out, job * size + c + i * 16, bf16, m[i], _mm512_mul_ps(sums[i], share));
    }
}

static int step_large(const void *op) {
    const Step *s = op;
    return s->op.rows * s->heads * *s->columns * s->size > SMALL;
}

TARGET static int step_run(const void *op, char *room) {
    (void)room;
    const Step *s = op;
    float *weights = malloc(*s->columns * sizeof *weights);
#pragma omp for schedule(static)
    for (int64_t job = 0; job < s->op.rows * s->heads; job++) {
        if (!weights) continue;
        if (s->bf16) query(s, job, weights, 1);
        else query(s, job, weights, 0);
    }
    free(weights);
    return !weights;
}

const Kind cw_step = {step_run, NULL, step_large};

static int put_large(const void *op) {
    const Put *p = op;
    return p->op.rows * p->kv_heads * p->width > SMALL;
}

static int put_run(const void *op, char *room) {
    (void)room;
    const Put *p = op;
    const int64_t size = p->bf16 ? 2 : 4;
#pragma omp for schedule(static)
    for (int64_t r = 0; r < p->op.rows; r++)
        for (int64_t h = 0; h < p->kv_heads; h++) {
            const int64_t column = *p->columns - p->n + r % p->n;
            const int64_t to = (r / p->n * p->text + h * p->head) * size + column * p->width;
            memcpy(p->keys + to, p->k + r * p->k_row + h * p->width, p->width);
            memcpy(p->values + to, p->v + r * p->v_row + h * p->width, p->width);
        }
    return 0;
}

const Kind cw_put = {put_run, NULL, put_large};

#endif
