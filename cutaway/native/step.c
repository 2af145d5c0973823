/* A few new tokens and a cache: their keys and values go in, then each query runs along the keys that it holds, together with
 * those of other heads that read the same keys. So does a query of cross attention along the keys of its source. */

#if defined(__x86_64__) && defined(__GNUC__)

#include "op.h"
#include "vector.h"

#include <stdlib.h>
#include <string.h>

#define SMALL 200000 /* products below which other threads are not worth waking */
#define SOON 64      /* keys of the next head that are asked for: from there on the chip sees where it goes */

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

/* q and out: [texts, n, heads, size], out without gaps, q's rows `q_row` numbers apart. keys and values: [memories, kv_heads,
 * *columns, size], memories `text` and heads `head` numbers apart. Text t's own columns begin at first_visible[t] (NULL: 0); the n
 * new tokens are the last ones, and each sees the columns up to its own; with a window, so many of them.
 * end (NULL but in cross attention): each token of text t sees the columns before end[t].
 * memory: the memory that text t reads (NULL: t). origin [texts, origin_row] (NULL but in beam search): the memory that holds each
 * column of text t, whose beam has come from others.
 * bias (NULL: none): [heads, bias_row], added to scores: the last for a token's own column, the one before for that on its left,
 * and so on; columns beyond take the first, and the first 16 are equal. */
typedef struct {
    Op op; /* rows: texts * n */
    const void *q, *keys, *values;
    void *out;
    const int64_t *columns, *first_visible, *end, *memory, *origin;
    const float *bias;
    int64_t text, head, q_row, n, heads, kv_heads, size, window, origin_row, bias_row;
    float scale;
    int bf16;
} Step;

/* What is added up at once, so that the sums stay in registers. */
#ifdef CW_AVX2
#define KEYS 4                         /* keys of a block of 16 that a query meets */
#define VALUES(heads) (heads > 2 ? 1 : 2) /* vectors of a value's numbers, of 4 */
#else
#define KEYS 16
#define VALUES(heads) 4
#endif

/* Lane i is the sum of a[i]. */
INLINE __m512 sums_of(__m512 *a) {
    for (int i = 0; i < 8; i++) a[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]), _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        const __m512d b = _mm512_castps_pd(a[2 * i]), c = _mm512_castps_pd(a[2 * i + 1]);
        a[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(b, c)), _mm512_castpd_ps(_mm512_unpackhi_pd(b, c)));
    }
    /* quarter q of a[i] holds parts of the sums 4 i .. 4 i + 3 */
    for (int i = 0; i < 2; i++)
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x88), _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x88), _mm512_shuffle_f32x4(a[0], a[1], 0xdd));
}

/* `count` rows of `size` numbers as 16 rows of `wide` float32: zeros fill up. They lie one after another from `from` on, or
 * where `at` says. */
INLINE void to_fp32_rows(const void *x, int64_t from, const int64_t *at, int64_t count, int64_t size, int64_t wide, float *to, const int bf16) {
    for (int64_t i = 0; i < 16; i++) {
        const int64_t row = i >= count ? 0 : at ? at[i] : from + i * size;
        for (int64_t c = 0; c < wide; c += 16) {
            const __mmask16 m = i < count ? lane_mask(size - c) : 0;
            _mm512_storeu_ps(to + i * wide + c, load(x, row + c, bf16, m));
        }
    }
}

/* weights [n] of scores -> e^(score - the largest), in place; returns what they add up to. */
INLINE float softmax_inplace(float *weights, int64_t n) {
    __m512 most = _mm512_set1_ps(-__builtin_inff()), total = _mm512_setzero_ps();
    for (int64_t j = 0; j < n; j += 16) most = _mm512_mask_max_ps(most, lane_mask(n - j), most, _mm512_loadu_ps(weights + j));
    most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (int64_t j = 0; j < n; j += 16) {
        const __m512 e = _mm512_maskz_mov_ps(lane_mask(n - j), exp_(_mm512_sub_ps(_mm512_loadu_ps(weights + j), most)));
        _mm512_storeu_ps(weights + j, e);
        total = _mm512_add_ps(total, e);
    }
    return _mm512_reduce_add_ps(total);
}

/* out [heads, size] from `out` on = the values [n, size] from `v` on, or where `at` says, mixed by each head's weights, `row` apart. */
INLINE void weighted_sum(const Step *s, int64_t out, int64_t v, const int64_t *at, int64_t n, const float *weights, int64_t row, const float *total,
                  const int heads, const int bf16) {
#define VALUE(j) (at ? at[j] : v + (j) * size)
    const int64_t size = s->size;
    const int abreast = VALUES(heads);
    for (int64_t c = 0; c < size; c += 16 * abreast) {
        const __mmask16 m[4] = {lane_mask(size - c), lane_mask(size - c - 16), lane_mask(size - c - 32), lane_mask(size - c - 48)};
        __m512 sums[4][4];
        for (int h = 0; h < 4; h++)
            for (int i = 0; i < abreast; i++) sums[h][i] = _mm512_setzero_ps();
        if (heads == 1) { /* two keys at a time, so that no sum waits for itself */
            int64_t j = 0;
            for (; j + 1 < n; j += 2)
                for (int odd = 0; odd < 2; odd++) {
                    const __m512 w = _mm512_set1_ps(weights[j + odd]);
#pragma GCC unroll 4
                    for (int i = 0; i < abreast; i++)
                        sums[odd][i] = _mm512_fmadd_ps(w, load(s->values, VALUE(j + odd) + c + i * 16, bf16, m[i]), sums[odd][i]);
                }
            const __m512 w = _mm512_set1_ps(j < n ? weights[j] : 0.0f);
            for (int i = 0; i < abreast; i++) {
                if (j < n) sums[0][i] = _mm512_fmadd_ps(w, load(s->values, VALUE(j) + c + i * 16, bf16, m[i]), sums[0][i]);
                sums[0][i] = _mm512_add_ps(sums[0][i], sums[1][i]);
            }
        } else {
            for (int64_t j = 0; j < n; j++) {
                __m512 each[4];
#pragma GCC unroll 4
                for (int i = 0; i < abreast; i++) each[i] = load(s->values, VALUE(j) + c + i * 16, bf16, m[i]);
#pragma GCC unroll 4
                for (int h = 0; h < heads; h++) {
                    const __m512 w = _mm512_set1_ps(weights[h * row + j]);
#pragma GCC unroll 4
                    for (int i = 0; i < abreast; i++) sums[h][i] = _mm512_fmadd_ps(w, each[i], sums[h][i]);
                }
            }
        }
#pragma GCC unroll 4
        for (int h = 0; h < heads; h++) {
            const __m512 share = _mm512_set1_ps(1.0f / total[h]);
#pragma GCC unroll 4
            for (int i = 0; i < abreast; i++) store(s->out, out + h * size + c + i * 16, bf16, m[i], _mm512_mul_ps(sums[h][i], share));
        }
    }
#undef VALUE
}

/* Floats that `heads_of` wants, with `columns` of them. */
INLINE int64_t workspace_of(const Step *s, int64_t columns) {
    const int64_t group = s->heads / s->kv_heads, wide = (s->size + 15) / 16 * 16;
    const int64_t places = s->origin ? 2 * columns : 0; /* an int64 for each */
    return group * (columns + 16) + (group + 16) * wide + group + 1 + places;
}

/* Where the keys and values of a job begin, in numbers, how many there are, and in which column. */
typedef struct {
    int64_t at, n, from;
} Span;

INLINE Span span_of(const Step *s, int64_t job, int64_t columns) {
    const int64_t kv_head = job % s->kv_heads, row = job / s->kv_heads, text = row / s->n;
    const int64_t own = s->end ? s->end[text] - 1 : columns - s->n + row % s->n, memory = s->memory ? s->memory[text] : text;
    int64_t from = s->first_visible ? s->first_visible[text] : 0;
    if (s->window && own - s->window + 1 > from) from = own - s->window + 1;
    return (Span){memory * s->text + kv_head * s->head + from * s->size, own + 1 - from, from};
}

/* Asks for `count` numbers from x[from] on, which the chip does not guess: what is read next lies elsewhere. */
INLINE void prefetch(const void *x, int64_t from, int64_t count, int bf16) {
    const char *at = (const char *)x + from * (bf16 ? 2 : 4);
    for (int64_t b = 0; b < count * (bf16 ? 2 : 4); b += 64) _mm_prefetch(at + b, _MM_HINT_T0);
}

/* Where each of the columns of a job lies, in numbers. */
INLINE void places_of(const Step *s, int64_t job, Span own, int64_t *places) {
    const int64_t kv_head = job % s->kv_heads, text = job / s->kv_heads / s->n;
    const int64_t *origin = s->origin + text * s->origin_row + own.from;
    for (int64_t j = 0; j < own.n; j++) places[j] = origin[j] * s->text + kv_head * s->head + (own.from + j) * s->size;
}

/* The heads of one row that read the same keys. workspace: each head's weights, its query, 16 keys, each head's total, places. */
INLINE void heads_of(const Step *s, int64_t job, int64_t columns, float *workspace, const int bf16, const int by_origin) {
    const int64_t kv_head = job % s->kv_heads, row = job / s->kv_heads, size = s->size;
    const int64_t group = s->heads / s->kv_heads, wide = (size + 15) / 16 * 16, weights_row = columns + 16;
    const Span own = span_of(s, job, columns);
    const int64_t n = own.n, at = own.at;
    float *q = workspace + group * weights_row, *block = q + group * wide, *total = block + 16 * wide;
    int64_t *places = by_origin ? (int64_t *)(((uintptr_t)(total + group) + 7) & ~(uintptr_t)7) : NULL;
    if (by_origin) places_of(s, job, own, places);
    for (int64_t g = 0; g < group; g++)
        for (int64_t c = 0; c < wide; c += 16) {
            const __m512 x = load(s->q, row * s->q_row + (kv_head * group + g) * size + c, bf16, lane_mask(size - c));
            _mm512_storeu_ps(q + g * wide + c, x);
        }
    const __m512 scale = _mm512_set1_ps(s->scale);
    for (int64_t j = 0; j < n; j += 16) {
        const float *keys = (const float *)s->keys + at + j * size;
        if (!by_origin) prefetch(s->values, at + j * size, (n - j < 16 ? n - j : 16) * size, bf16);
        if (by_origin || bf16 || size != wide || n - j < 16)
            to_fp32_rows(s->keys, at + j * size, by_origin ? places + j : NULL, n - j, size, wide, block, bf16), keys = block;
        for (int64_t g = 0; g < group; g++) {
            __m512 sums[16];
#pragma GCC unroll 4
            for (int k = 0; k < 16; k += KEYS) {
#pragma GCC unroll 16
                for (int i = k; i < k + KEYS; i++) sums[i] = _mm512_setzero_ps();
                for (int64_t c = 0; c < wide; c += 16) {
                    const __m512 x = _mm512_loadu_ps(q + g * wide + c);
#pragma GCC unroll 16
                    for (int i = k; i < k + KEYS; i++) sums[i] = _mm512_fmadd_ps(x, _mm512_loadu_ps(keys + i * wide + c), sums[i]);
                }
            }
            __m512 scores = _mm512_mul_ps(sums_of(sums), scale);
            if (s->bias) {
                const int64_t near = s->bias_row - n + j;
                const float *bias = s->bias + (kv_head * group + g) * s->bias_row + (near > 0 ? near : 0);
                scores = _mm512_add_ps(scores, load(bias, 0, 0, lane_mask(n - j)));
            }
            _mm512_storeu_ps(workspace + g * weights_row + j, scores);
        }
    }
    if (!by_origin && job + 1 < s->op.rows * s->kv_heads) {
        const Span next = span_of(s, job + 1, columns);
        prefetch(s->keys, next.at, (next.n < SOON ? next.n : SOON) * size, bf16);
    }
    for (int64_t g = 0; g < group; g++) total[g] = softmax_inplace(workspace + g * weights_row, n);
    for (int64_t g = 0; g < group;) {
        const int64_t out = (row * s->heads + kv_head * group + g) * size;
        const float *w = workspace + g * weights_row;
        if (group - g >= 4) weighted_sum(s, out, at, places, n, w, weights_row, total + g, 4, bf16), g += 4;
        else if (group - g == 3) weighted_sum(s, out, at, places, n, w, weights_row, total + g, 3, bf16), g += 3;
        else if (group - g == 2) weighted_sum(s, out, at, places, n, w, weights_row, total + g, 2, bf16), g += 2;
        else weighted_sum(s, out, at, places, n, w, weights_row, total + g, 1, bf16), g += 1;
    }
}

static int step_large(const void *op) {
    const Step *s = op;
    return s->op.rows * s->heads * *s->columns * s->size > SMALL;
}

TARGET static int step_run(const void *op, char *shared, Member *member) {
    (void)shared, (void)member;
    const Step *s = op;
    const int64_t columns = *s->columns;
    float *workspace = malloc(workspace_of(s, columns) * sizeof *workspace);
#pragma omp for schedule(static) nowait
    for (int64_t job = 0; job < s->op.rows * s->kv_heads; job++) {
        if (!workspace) continue;
        if (s->origin && s->bf16) heads_of(s, job, columns, workspace, 1, 1);
        else if (s->origin) heads_of(s, job, columns, workspace, 0, 1);
        else if (s->bf16) heads_of(s, job, columns, workspace, 1, 0);
        else heads_of(s, job, columns, workspace, 0, 0);
    }
    free(workspace);
    return !workspace;
}

const Kind cw_step = {step_run, NULL, step_large, sizeof(Step)};

static int put_large(const void *op) {
    const Put *p = op;
    return p->op.rows * p->kv_heads * p->width > SMALL;
}

static int put_run(const void *op, char *workspace, Member *member) {
    (void)workspace, (void)member;
    const Put *p = op;
    const int64_t size = p->bf16 ? 2 : 4;
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < p->op.rows; r++)
        for (int64_t h = 0; h < p->kv_heads; h++) {
            const int64_t column = *p->columns - p->n + r % p->n;
            const int64_t to = (r / p->n * p->text + h * p->head) * size + column * p->width;
            memcpy(p->keys + to, p->k + r * p->k_row + h * p->width, p->width);
            memcpy(p->values + to, p->v + r * p->v_row + h * p->width, p->width);
        }
    return 0;
}

const Kind cw_put = {put_run, NULL, put_large, sizeof(Put)};

#endif
