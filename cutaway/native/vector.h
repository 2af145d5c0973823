/* Vectors of 16 numbers: loads and stores in float32 and bfloat16, the exponential, the activations.
 *
 * Every kernel is compiled once for AVX-512 with VNNI and, with CW_AVX2 defined, once for AVX2 with FMA; `cw_supported` says
 * whether the chip has the one that the library is for. With AVX-512, those for bfloat16 ask for the chip's own product of
 * it too (`cw_bf16_supported`); with AVX2 it is widened to float32.
 */
#ifndef CW_VECTOR_H
#define CW_VECTOR_H

#include <immintrin.h>
#include <stdint.h>

#ifdef CW_AVX2
#include "avx2.h"
#else
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")))
#define TARGET_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,fma,f16c")))
#define ALWAYS static inline __attribute__((always_inline))
#define INLINE TARGET ALWAYS
#endif

enum { NONE, GELU, GELU_TANH, GELU_QUICK, RELU, SILU, TANH, N_ACTIVATIONS };

extern float cw_gelu[5][16] __attribute__((visibility("hidden")));

/* The first n lanes. */
INLINE __mmask16 lane_mask(int64_t n) { return n >= 16 ? 0xffff : n > 0 ? (__mmask16)((1u << n) - 1) : 0; }

INLINE __m512 widen(__m256i halves) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16)); }

/* Nearest bfloat16 in the low half of each lane, ties to even; NaN stays NaN. */
INLINE __m512i rounded(__m512 x) {
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
#ifdef CW_AVX2
    return wide_unless_nan(x, up, _mm512_set1_epi32(0x7fc0));
#else
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_mask_mov_epi32(up, nan, _mm512_set1_epi32(0x7fc0));
#endif
}

/* The sanitizers watch plain reads and writes, and not those under a mask: for them, each lane's first byte is read plainly. */
INLINE void watch(const void *at, int64_t size, __mmask16 m) {
#ifdef __SANITIZE_ADDRESS__
    for (int lane = 0; lane < 16; lane++)
        if (m >> lane & 1) (void)*((const volatile char *)at + lane * size);
#else
    (void)at, (void)size, (void)m;
#endif
}

INLINE __m512 load(const void *x, int64_t i, int bf16, __mmask16 m) {
    watch((const char *)x + i * (bf16 ? 2 : 4), bf16 ? 2 : 4, m);
    if (bf16) return widen(_mm256_maskz_loadu_epi16(m, (const uint16_t *)x + i));
    return _mm512_maskz_loadu_ps(m, (const float *)x + i);
}

INLINE void store(void *x, int64_t i, int bf16, __mmask16 m, __m512 value) {
    watch((const char *)x + i * (bf16 ? 2 : 4), bf16 ? 2 : 4, m);
    if (bf16) _mm256_mask_storeu_epi16((uint16_t *)x + i, m, _mm512_cvtepi32_epi16(rounded(value)));
    else _mm512_mask_storeu_ps((float *)x + i, m, value);
}

/* What a row of bytes is read in: `ROW_STEP` bytes for 4 numbers. */
#ifdef CW_AVX2
extern int64_t cw_row_step __attribute__((visibility("hidden"))); /* 4 with AVX-VNNI; else 8: words, which do not saturate */
#define ROW_STEP cw_row_step
#else
#define ROW_STEP 4
#endif

/* The low byte of each lane as numbers i .. i + 16 of a row of bytes that has n, a multiple of 4. */
INLINE void store_bytes(uint8_t *row, int64_t i, int64_t n, __m512i x) {
    uint8_t *to = row + i / 4 * ROW_STEP;
#ifdef CW_AVX2
    const int64_t steps = (n - i) / 4 < 4 ? (n - i) / 4 : 4;
    watch(to, ROW_STEP, lane_mask(steps));
    x = _mm512_and_si512(x, _mm512_set1_epi32(0xff));
    if (ROW_STEP == 4) wide_store_fours(to, steps, x);
    else wide_store_pairs(to, steps, x);
#else
    watch(to, 1, lane_mask(n - i));
    _mm_mask_storeu_epi8(to, lane_mask(n - i), _mm512_cvtepi32_epi8(x));
#endif
}

/* e^x to float32's precision: 2^n times a polynomial of the rest. The order of the bounds lets NaN through. */
INLINE __m512 exp_(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), _mm512_min_ps(_mm512_set1_ps(88.0f), x));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 0x08);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* 2^x to float32's precision; 0 for what is very small. */
INLINE __m512 exp2_(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(x, 0x08), r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.5403530e-4f); /* ln(2)^k / k! */
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

INLINE __m512 sigmoid(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, exp_(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

/* x times the normal distribution's share below x: x / 2 + |x| h(|x|), with h = share - 1/2 as 16 polynomials of degree 4
 * over [0, 5.5] (error 1e-7), beyond which it is 1/2 to that error. */
INLINE __m512 gelu(__m512 x) {
    const __m512 size = _mm512_abs_ps(x);
    const __m512 place = _mm512_mul_ps(_mm512_min_ps(size, _mm512_set1_ps(5.4999f)), _mm512_set1_ps(16 / 5.5f));
    const __m512 whole = _mm512_roundscale_ps(place, 0x0b); /* the interval: towards zero */
    const __m512i i = _mm512_cvtps_epi32(whole);
    const __m512 t = _mm512_sub_ps(place, whole);
    __m512 h = _mm512_permutexvar_ps(i, _mm512_loadu_ps(cw_gelu[4]));
    h = _mm512_fmadd_ps(h, t, _mm512_permutexvar_ps(i, _mm512_loadu_ps(cw_gelu[3])));
    h = _mm512_fmadd_ps(h, t, _mm512_permutexvar_ps(i, _mm512_loadu_ps(cw_gelu[2])));
    h = _mm512_fmadd_ps(h, t, _mm512_permutexvar_ps(i, _mm512_loadu_ps(cw_gelu[1])));
    h = _mm512_fmadd_ps(h, t, _mm512_permutexvar_ps(i, _mm512_loadu_ps(cw_gelu[0])));
    return _mm512_fmadd_ps(size, h, _mm512_mul_ps(x, _mm512_set1_ps(0.5f)));
}

INLINE __m512 activate(__m512 x, int kind) {
    const __m512 one = _mm512_set1_ps(1.0f);
    switch (kind) {
    case GELU: return gelu(x);
    case GELU_TANH: { /* 0.5 x (1 + tanh u) = x sigmoid(2 u) */
        __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
        __m512 u = _mm512_fmadd_ps(_mm512_set1_ps(0.044715f), cube, x);
        return _mm512_mul_ps(x, sigmoid(_mm512_mul_ps(u, _mm512_set1_ps(1.5957691216057308f))));
    }
    case GELU_QUICK: return _mm512_mul_ps(x, sigmoid(_mm512_mul_ps(x, _mm512_set1_ps(1.702f))));
    case RELU: return _mm512_max_ps(_mm512_setzero_ps(), x); /* in this order NaN stays NaN */
    case SILU: return _mm512_mul_ps(x, sigmoid(x));
    case TANH: return _mm512_fmsub_ps(_mm512_set1_ps(2.0f), sigmoid(_mm512_add_ps(x, x)), one);
    default: return x;
    }
}

#endif
