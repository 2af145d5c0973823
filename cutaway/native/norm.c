/* Norms of rows, and the turning of heads by their positions: one pass over memory each, in float32 inside. */

#if defined(__x86_64__) && defined(__GNUC__)

#include "vector.h"

#define SMALL 200000 /* numbers below which other threads are not worth waking */

enum { LAYER, RMS, RMS_ROUNDED }; /* RMS_ROUNDED: the normed row is rounded to its dtype before the weight */

INLINE void norm_row(const void *x, int64_t from, void *out, int64_t to, int64_t n, const void *weight, const void *bias,
                     float eps, float offset, int kind, const int bf16) {
    __m512 a = _mm512_setzero_ps(), b = a;
    __m512 mean = a;
    if (kind == LAYER) {
        for (int64_t i = 0; i < n; i += 32) {
            a = _mm512_add_ps(a, load(x, from + i, bf16, first(n - i)));
            if (n - i > 16) b = _mm512_add_ps(b, load(x, from + i + 16, bf16, first(n - i - 16)));
        }
        mean = _mm512_set1_ps(_mm512_reduce_add_ps(_mm512_add_ps(a, b)) / n);
        a = b = _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < n; i += 32) {
        const __mmask16 low = first(n - i), high = first(n - i - 16);
        const __m512 c = _mm512_maskz_sub_ps(low, load(x, from + i, bf16, low), mean);
        a = _mm512_fmadd_ps(c, c, a);
        if (!high) break;
        const __m512 d = _mm512_maskz_sub_ps(high, load(x, from + i + 16, bf16, high), mean);
        b = _mm512_fmadd_ps(d, d, b);
    }
    const float square = _mm512_reduce_add_ps(_mm512_add_ps(a, b)) / n;
    const __m512 inverse = _mm512_set1_ps(1.0f / __builtin_sqrtf(square + eps)), more = _mm512_set1_ps(offset);
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 m = first(n - i);
        __m512 y = _mm512_mul_ps(_mm512_sub_ps(load(x, from + i, bf16, m), mean), inverse);
        if (kind == RMS_ROUNDED && bf16) y = _mm512_castsi512_ps(_mm512_slli_epi32(rounded(y), 16));
        const __m512 scale = _mm512_add_ps(load(weight, i, bf16, m), more);
        y = bias ? _mm512_fmadd_ps(y, scale, load(bias, i, bf16, m)) : _mm512_mul_ps(y, scale);
        store(out, to + i, bf16, m, y);
    }
}

/* Each row of x [rows, n], `stride` numbers apart, normed: out [rows, n]. weight [n] and bias [n] (or NULL) are of x's dtype. */
TARGET void cw_norm(const void *x, int64_t rows, int64_t n, int64_t stride, const void *weight, const void *bias, float eps,
                    float offset, int kind, void *out, int bf16, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * n > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        if (bf16) norm_row(x, r * stride, out, r * n, n, weight, bias, eps, offset, kind, 1);
        else norm_row(x, r * stride, out, r * n, n, weight, bias, eps, offset, kind, 0);
    }
}

INLINE void turn_row(const void *x, int64_t from, void *out, int64_t to, const void *cos, const void *sin, int64_t at,
                     int64_t heads, int64_t size, int64_t turned, const int bf16) {
    const int64_t half = turned / 2;
    for (int64_t h = 0; h < heads; h++, from += size, to += size) {
        for (int64_t i = 0; i < half; i += 16) {
            const __mmask16 m = first(half - i);
            const __m512 a = load(x, from + i, bf16, m), b = load(x, from + half + i, bf16, m);
            const __m512 ca = load(cos, at + i, bf16, m), sa = load(sin, at + i, bf16, m);
            const __m512 cb = load(cos, at + half + i, bf16, m), sb = load(sin, at + half + i, bf16, m);
            store(out, to + i, bf16, m, _mm512_fmadd_ps(b, sa, _mm512_mul_ps(a, ca)));
            store(out, to + half + i, bf16, m, _mm512_fmadd_ps(a, sb, _mm512_mul_ps(b, cb)));
        }
        for (int64_t i = turned; i < size; i += 16) {
            const __mmask16 m = first(size - i);
            store(out, to + i, bf16, m, load(x, from + i, bf16, m));
        }
    }
}

/* The first `turned` numbers of each head of x [rows, heads, size], rows `stride` numbers apart: halves a and b become
 * a cos + b sin and b cos + a sin with cos and sin [rows, turned], as in `rotate` of positions.py; out [rows, heads, size]. */
TARGET void cw_turn(const void *x, int64_t rows, int64_t stride, int64_t heads, int64_t size, int64_t turned, const void *cos,
                    const void *sin, void *out, int bf16, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * heads * size > SMALL)
    for (int64_t r = 0; r < rows; r++) {
        const int64_t to = r * heads * size, at = r * turned;
        if (bf16) turn_row(x, r * stride, out, to, cos, sin, at, heads, size, turned, 1);
        else turn_row(x, r * stride, out, to, cos, sin, at, heads, size, turned, 0);
    }
}

#endif
