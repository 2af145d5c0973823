/* A norm of rows, in float32 inside. */
#ifndef CW_NORM_H
#define CW_NORM_H

#include "op.h"
#include "vector.h"

enum { LAYER, RMS, RMS_ROUNDED }; /* RMS_ROUNDED: the normed row is rounded to its dtype before the weight */

INLINE void norm_row(const void *x, int64_t from, void *out, int64_t to, int64_t n, const void *weight, const void *bias,
                     float eps, float offset, int kind, const int bf16, const int whole) {
    __m512 sums[4], mean = _mm512_setzero_ps();
    if (kind == LAYER) {
        for (int j = 0; j < 4; j++) sums[j] = _mm512_setzero_ps();
        for (int64_t i = 0; i < n; i += 64)
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const int64_t at = i + j * 16;
                sums[j] = _mm512_add_ps(sums[j], load(x, from + at, bf16, whole ? 0xffff : lane_mask(n - at)));
            }
        mean = _mm512_set1_ps(_mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]))) / n);
    }
    for (int j = 0; j < 4; j++) sums[j] = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 64)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const int64_t at = i + j * 16;
            const __mmask16 m = whole ? 0xffff : lane_mask(n - at);
            const __m512 c = _mm512_maskz_sub_ps(m, load(x, from + at, bf16, m), mean);
            sums[j] = _mm512_fmadd_ps(c, c, sums[j]);
        }
    const float square = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]))) / n;
    const __m512 inverse = _mm512_set1_ps(1.0f / __builtin_sqrtf(square + eps)), more = _mm512_set1_ps(offset);
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = whole ? 0xffff : lane_mask(n - i);
        __m512 y = _mm512_mul_ps(_mm512_sub_ps(load(x, from + i, bf16, m), mean), inverse);
        if (kind == RMS_ROUNDED && bf16) y = _mm512_castsi512_ps(_mm512_slli_epi32(rounded(y), 16));
        const __m512 scale = _mm512_add_ps(load(weight, i, bf16, m), more);
        y = bias ? _mm512_fmadd_ps(y, scale, load(bias, i, bf16, m)) : _mm512_mul_ps(y, scale);
        store(out, to + i, bf16, m, y);
    }
}

/* Each row of x [rows / heads, heads, n], every `heads` of them `stride` numbers after those before, normed: out [rows, n].
 * weight [n] and bias [n] (or NULL) are of x's dtype. */
typedef struct {
    Op op;
    const void *x, *weight, *bias;
    void *out;
    int64_t n, heads, stride;
    float eps, offset;
    int norm, bf16;
} Norm;

/* The row of n numbers at x[from], normed, to out[to], which may be the same place. */
INLINE void norm_at(const Norm *p, const void *x, int64_t from, void *out, int64_t to) {
    const int whole = p->n % 64 == 0;
    if (p->bf16 && whole) norm_row(x, from, out, to, p->n, p->weight, p->bias, p->eps, p->offset, p->norm, 1, 1);
    else if (p->bf16) norm_row(x, from, out, to, p->n, p->weight, p->bias, p->eps, p->offset, p->norm, 1, 0);
    else if (whole) norm_row(x, from, out, to, p->n, p->weight, p->bias, p->eps, p->offset, p->norm, 0, 1);
    else norm_row(x, from, out, to, p->n, p->weight, p->bias, p->eps, p->offset, p->norm, 0, 0);
}

#endif
