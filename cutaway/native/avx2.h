/* The instructions of AVX-512 that the kernels name, carried out by AVX2 and FMA: each vector of 16 lanes is two of 8, and a
 * mask of 16 bits becomes lanes of ones where one is needed. So the kernels are written once and compiled twice.
 *
 * Only what they use is here, with what they rely on: NaN goes the same ways, and nothing under a mask is touched.
 */
#ifndef CW_AVX2_H
#define CW_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define ALWAYS static inline __attribute__((always_inline))
#define INLINE TARGET ALWAYS

typedef struct {
    __m256 a, b;
} Wide;
typedef struct {
    __m256i a, b;
} WideInts;
typedef struct {
    __m256d a, b;
} WideDoubles;
#define __m512 Wide
#define __m512i WideInts
#define __m512d WideDoubles

#define PAIRED(name, type, from, half) \
    INLINE type wide_##name(from x, from y) { return (type){half(x.a, y.a), half(x.b, y.b)}; }
#define PAIRED_ONE(name, type, from, half) \
    INLINE type wide_##name(from x) { return (type){half(x.a), half(x.b)}; }
#define PAIRED_THREE(name, half) \
    INLINE Wide wide_##name(Wide x, Wide y, Wide z) { return (Wide){half(x.a, y.a, z.a), half(x.b, y.b, z.b)}; }

PAIRED(add_ps, Wide, Wide, _mm256_add_ps)
PAIRED(sub_ps, Wide, Wide, _mm256_sub_ps)
PAIRED(mul_ps, Wide, Wide, _mm256_mul_ps)
PAIRED(div_ps, Wide, Wide, _mm256_div_ps)
PAIRED(min_ps, Wide, Wide, _mm256_min_ps)
PAIRED(max_ps, Wide, Wide, _mm256_max_ps)
PAIRED(unpacklo_ps, Wide, Wide, _mm256_unpacklo_ps)
PAIRED(unpackhi_ps, Wide, Wide, _mm256_unpackhi_ps)
PAIRED(unpacklo_pd, WideDoubles, WideDoubles, _mm256_unpacklo_pd)
PAIRED(unpackhi_pd, WideDoubles, WideDoubles, _mm256_unpackhi_pd)
PAIRED(add_epi32, WideInts, WideInts, _mm256_add_epi32)
PAIRED(sub_epi32, WideInts, WideInts, _mm256_sub_epi32)
PAIRED(max_epi32, WideInts, WideInts, _mm256_max_epi32)
PAIRED(and_si512, WideInts, WideInts, _mm256_and_si256)
PAIRED(or_si512, WideInts, WideInts, _mm256_or_si256)
PAIRED(unpacklo_epi32, WideInts, WideInts, _mm256_unpacklo_epi32)
PAIRED(unpackhi_epi32, WideInts, WideInts, _mm256_unpackhi_epi32)
PAIRED(unpacklo_epi64, WideInts, WideInts, _mm256_unpacklo_epi64)
PAIRED(unpackhi_epi64, WideInts, WideInts, _mm256_unpackhi_epi64)
PAIRED_ONE(abs_epi32, WideInts, WideInts, _mm256_abs_epi32)
PAIRED_ONE(castps_si512, WideInts, Wide, _mm256_castps_si256)
PAIRED_ONE(castsi512_ps, Wide, WideInts, _mm256_castsi256_ps)
PAIRED_ONE(castps_pd, WideDoubles, Wide, _mm256_castps_pd)
PAIRED_ONE(castpd_ps, Wide, WideDoubles, _mm256_castpd_ps)
PAIRED_ONE(cvtepi32_ps, Wide, WideInts, _mm256_cvtepi32_ps)
PAIRED_ONE(cvtps_epi32, WideInts, Wide, _mm256_cvtps_epi32)
PAIRED_THREE(fmadd_ps, _mm256_fmadd_ps)
PAIRED_THREE(fmsub_ps, _mm256_fmsub_ps)
PAIRED_THREE(fnmadd_ps, _mm256_fnmadd_ps)

INLINE Wide wide_setzero_ps(void) { return (Wide){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
INLINE WideInts wide_setzero_si512(void) { return (WideInts){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
INLINE Wide wide_set1_ps(float x) { return (Wide){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE WideInts wide_set1_epi32(int x) { return (WideInts){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
INLINE WideInts wide_loadu_si512(const void *x) {
    return (WideInts){_mm256_loadu_si256((const __m256i *)x), _mm256_loadu_si256((const __m256i *)x + 1)};
}
INLINE void wide_storeu_si512(void *to, WideInts x) {
    _mm256_storeu_si256((__m256i *)to, x.a), _mm256_storeu_si256((__m256i *)to + 1, x.b);
}
INLINE Wide wide_loadu_ps(const float *x) { return (Wide){_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
INLINE void wide_storeu_ps(float *to, Wide x) { _mm256_storeu_ps(to, x.a), _mm256_storeu_ps(to + 8, x.b); }
INLINE WideInts wide_slli_epi32(WideInts x, const int n) { return (WideInts){_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)}; }
INLINE WideInts wide_srli_epi32(WideInts x, const int n) { return (WideInts){_mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n)}; }
INLINE Wide wide_abs_ps(Wide x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (Wide){_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
INLINE WideInts wide_cvtepu16_epi32(__m256i x) {
    return (WideInts){_mm256_cvtepu16_epi32(_mm256_castsi256_si128(x)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(x, 1))};
}
#define wide_setr_epi32(a, b, c, d, e, f, g, h, ...) \
    (WideInts){_mm256_setr_epi32(a, b, c, d, e, f, g, h), _mm256_setr_epi32(__VA_ARGS__)}
#define wide_roundscale_ps(x, way) (Wide){_mm256_round_ps((x).a, way), _mm256_round_ps((x).b, way)}

/* Ones in the lanes that the mask has. */
INLINE __m256i wide_half(__mmask16 m) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(m), bit), bit);
}
INLINE WideInts wide_mask(__mmask16 m) { return (WideInts){wide_half(m), wide_half(m >> 8)}; }
INLINE __mmask16 wide_bits(__m256 a, __m256 b) { return (__mmask16)(_mm256_movemask_ps(a) | _mm256_movemask_ps(b) << 8); }
INLINE __mmask16 wide_cmpgt(WideInts x, WideInts y) {
    return wide_bits(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x.a, y.a)), _mm256_castsi256_ps(_mm256_cmpgt_epi32(x.b, y.b)));
}
INLINE __mmask16 wide_cmplt_epi32_mask(WideInts x, WideInts y) { return wide_cmpgt(y, x); }
INLINE __mmask16 wide_cmple_epi32_mask(WideInts x, WideInts y) { return (__mmask16)~wide_cmpgt(x, y); }
INLINE Wide wide_mask_mov_ps(Wide other, __mmask16 m, Wide x) {
    if (m == 0xffff) return x;
    const WideInts own = wide_mask(m);
    return (Wide){_mm256_blendv_ps(other.a, x.a, _mm256_castsi256_ps(own.a)), _mm256_blendv_ps(other.b, x.b, _mm256_castsi256_ps(own.b))};
}
INLINE Wide wide_maskz_mov_ps(__mmask16 m, Wide x) { return wide_mask_mov_ps(wide_setzero_ps(), m, x); }
INLINE Wide wide_mask_max_ps(Wide other, __mmask16 m, Wide x, Wide y) { return wide_mask_mov_ps(other, m, wide_max_ps(x, y)); }
INLINE Wide wide_maskz_sub_ps(__mmask16 m, Wide x, Wide y) { return wide_maskz_mov_ps(m, wide_sub_ps(x, y)); }
INLINE Wide wide_maskz_loadu_ps(__mmask16 m, const float *x) {
    if (m == 0xffff) return wide_loadu_ps(x);
    const WideInts own = wide_mask(m);
    return (Wide){_mm256_maskload_ps(x, own.a), _mm256_maskload_ps(x + 8, own.b)};
}
INLINE void wide_mask_storeu_ps(float *to, __mmask16 m, Wide x) {
    if (m == 0xffff) {
        wide_storeu_ps(to, x);
        return;
    }
    const WideInts own = wide_mask(m);
    _mm256_maskstore_ps(to, own.a, x.a), _mm256_maskstore_ps(to + 8, own.b, x.b);
}

/* The same of 16 numbers of 16 bits, whose mask is one of the first lanes: pairs, then the odd one by itself. */
INLINE __m256i wide_maskz_loadu_epi16(__mmask16 m, const uint16_t *x) {
    if (m == 0xffff) return _mm256_loadu_si256((const __m256i *)x);
    const int n = __builtin_popcount(m);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), pairs = _mm256_set1_epi32(n / 2);
    const __m256i all = _mm256_maskload_epi32((const int *)x, _mm256_cmpgt_epi32(pairs, lane));
    if (n % 2 == 0) return all;
    return _mm256_or_si256(all, _mm256_and_si256(_mm256_cmpeq_epi32(pairs, lane), _mm256_set1_epi32(x[n - 1])));
}
INLINE void wide_mask_storeu_epi16(uint16_t *to, __mmask16 m, __m256i x) {
    if (m == 0xffff) {
        _mm256_storeu_si256((__m256i *)to, x);
        return;
    }
    const int n = __builtin_popcount(m);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), pairs = _mm256_set1_epi32(n / 2);
    _mm256_maskstore_epi32((int *)to, _mm256_cmpgt_epi32(pairs, lane), x);
    if (n % 2) to[n - 1] = (uint16_t)_mm256_extract_epi16(_mm256_permutevar8x32_epi32(x, pairs), 0);
}

/* `instead` where x is NaN, else the value. */
INLINE WideInts wide_unless_nan(Wide x, WideInts value, WideInts instead) {
    const __m256i a = _mm256_castps_si256(_mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q));
    const __m256i b = _mm256_castps_si256(_mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q));
    return (WideInts){_mm256_blendv_epi8(value.a, instead.a, a), _mm256_blendv_epi8(value.b, instead.b, b)};
}

/* The low halves of 16 lanes, whose high halves are zeros. */
INLINE __m256i wide_cvtepi32_epi16(WideInts x) { return _mm256_permute4x64_epi64(_mm256_packus_epi32(x.a, x.b), 0xd8); }

/* Lane i of a table of 16. */
INLINE __m256 wide_chosen(__m256i i, Wide table) {
    const __m256 low = _mm256_permutevar8x32_ps(table.a, i), high = _mm256_permutevar8x32_ps(table.b, i);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28))); /* bit 3 says which half */
}
INLINE Wide wide_permutexvar_ps(WideInts i, Wide table) { return (Wide){wide_chosen(i.a, table), wide_chosen(i.b, table)}; }

/* x 2^n for x about 1 and whole n below 128: zero where n <= -127. */
INLINE __m256 wide_scaled(__m256 x, __m256 n) {
    const __m256i bits = _mm256_cvtps_epi32(_mm256_max_ps(_mm256_set1_ps(-127.0f), n));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(127)), 23)));
}
INLINE Wide wide_scalef_ps(Wide x, Wide n) { return (Wide){wide_scaled(x.a, n.a), wide_scaled(x.b, n.b)}; }

/* Two quarters of x, then two of y: 0 and 1 (0x44), 2 and 3 (0xee), 0 and 2 (0x88), 1 and 3 (0xdd). */
INLINE WideInts wide_shuffle_i32x4(WideInts x, WideInts y, const int which) {
    if (which == 0x44) return (WideInts){x.a, y.a};
    if (which == 0xee) return (WideInts){x.b, y.b};
    if (which == 0x88) return (WideInts){_mm256_permute2x128_si256(x.a, x.b, 0x20), _mm256_permute2x128_si256(y.a, y.b, 0x20)};
    return (WideInts){_mm256_permute2x128_si256(x.a, x.b, 0x31), _mm256_permute2x128_si256(y.a, y.b, 0x31)};
}
INLINE Wide wide_shuffle_f32x4(Wide x, Wide y, const int which) {
    return wide_castsi512_ps(wide_shuffle_i32x4(wide_castps_si512(x), wide_castps_si512(y), which));
}

INLINE float wide_reduce_add_ps(Wide x) {
    const __m256 eight = _mm256_add_ps(x.a, x.b);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
INLINE float wide_reduce_max_ps(Wide x) {
    const __m256 eight = _mm256_max_ps(x.a, x.b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}
INLINE float wide_reduce_min_ps(Wide x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return -wide_reduce_max_ps((Wide){_mm256_xor_ps(sign, x.a), _mm256_xor_ps(sign, x.b)});
}
INLINE int wide_reduce_max_epi32(WideInts x) {
    const __m256i eight = _mm256_max_epi32(x.a, x.b);
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_extract_epi32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 1)), 0);
}

/* 4 bytes of 4 lanes each, as many steps as the mask has lanes: the layout that AVX-VNNI multiplies. */
INLINE void wide_store_fours(uint8_t *to, int64_t steps, WideInts x) {
    const __m256i words = _mm256_packus_epi32(x.a, x.b), bytes = _mm256_packus_epi16(words, words);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 0, 0, 0, 0);
    const __m128i lane = _mm_setr_epi32(0, 1, 2, 3), own = _mm_cmpgt_epi32(_mm_set1_epi32((int)steps), lane);
    _mm_maskstore_epi32((int *)to, own, _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(bytes, order)));
}

/* The same as words: of each step the even two side by side, then the odd two, for products of pairs of words. */
INLINE __m128i wide_words(__m256i x) {
    const __m256i both = _mm256_or_si256(x, _mm256_slli_epi32(_mm256_srli_si256(x, 8), 16));
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(both, 0x08));
}
INLINE void wide_store_pairs(uint8_t *to, int64_t steps, WideInts x) {
    const __m256i all = _mm256_inserti128_si256(_mm256_castsi128_si256(wide_words(x.a)), wide_words(x.b), 1);
    const __m256i own = _mm256_cmpgt_epi64(_mm256_set1_epi64x(steps), _mm256_setr_epi64x(0, 1, 2, 3));
    _mm256_maskstore_epi64((long long *)to, own, all);
}

/* Headers define some of these as macros where nothing is optimized. */
#undef _mm512_roundscale_ps
#undef _mm512_shuffle_i32x4
#undef _mm512_shuffle_f32x4
#undef _mm512_slli_epi32
#undef _mm512_srli_epi32
#undef _mm512_cmplt_epi32_mask
#undef _mm512_cmple_epi32_mask
#undef _mm512_maskz_sub_ps
#undef _mm512_mask_max_ps
#undef _mm512_setr_epi32
#define _mm512_abs_epi32 wide_abs_epi32
#define _mm512_abs_ps wide_abs_ps
#define _mm512_add_epi32 wide_add_epi32
#define _mm512_add_ps wide_add_ps
#define _mm512_and_si512 wide_and_si512
#define _mm512_castpd_ps wide_castpd_ps
#define _mm512_castps_pd wide_castps_pd
#define _mm512_castps_si512 wide_castps_si512
#define _mm512_castsi512_ps wide_castsi512_ps
#define _mm512_cmple_epi32_mask wide_cmple_epi32_mask
#define _mm512_cmplt_epi32_mask wide_cmplt_epi32_mask
#define _mm512_cvtepi32_epi16 wide_cvtepi32_epi16
#define _mm512_cvtepi32_ps wide_cvtepi32_ps
#define _mm512_cvtepu16_epi32 wide_cvtepu16_epi32
#define _mm512_cvtps_epi32 wide_cvtps_epi32
#define _mm512_div_ps wide_div_ps
#define _mm512_fmadd_ps wide_fmadd_ps
#define _mm512_fmsub_ps wide_fmsub_ps
#define _mm512_fnmadd_ps wide_fnmadd_ps
#define _mm512_loadu_ps wide_loadu_ps
#define _mm512_loadu_si512 wide_loadu_si512
#define _mm512_mask_max_ps wide_mask_max_ps
#define _mm512_mask_storeu_ps wide_mask_storeu_ps
#define _mm512_maskz_loadu_ps wide_maskz_loadu_ps
#define _mm512_maskz_mov_ps wide_maskz_mov_ps
#define _mm512_maskz_sub_ps wide_maskz_sub_ps
#define _mm512_max_epi32 wide_max_epi32
#define _mm512_max_ps wide_max_ps
#define _mm512_min_ps wide_min_ps
#define _mm512_mul_ps wide_mul_ps
#define _mm512_or_si512 wide_or_si512
#define _mm512_permutexvar_ps wide_permutexvar_ps
#define _mm512_reduce_add_ps wide_reduce_add_ps
#define _mm512_reduce_max_epi32 wide_reduce_max_epi32
#define _mm512_reduce_max_ps wide_reduce_max_ps
#define _mm512_reduce_min_ps wide_reduce_min_ps
#define _mm512_roundscale_ps wide_roundscale_ps
#define _mm512_scalef_ps wide_scalef_ps
#define _mm512_setr_epi32 wide_setr_epi32
#define _mm512_set1_epi32 wide_set1_epi32
#define _mm512_set1_ps wide_set1_ps
#define _mm512_setzero_ps wide_setzero_ps
#define _mm512_setzero_si512 wide_setzero_si512
#define _mm512_shuffle_f32x4 wide_shuffle_f32x4
#define _mm512_shuffle_i32x4 wide_shuffle_i32x4
#define _mm512_slli_epi32 wide_slli_epi32
#define _mm512_srli_epi32 wide_srli_epi32
#define _mm512_storeu_ps wide_storeu_ps
#define _mm512_storeu_si512 wide_storeu_si512
#define _mm512_sub_epi32 wide_sub_epi32
#define _mm512_sub_ps wide_sub_ps
#define _mm512_unpackhi_epi32 wide_unpackhi_epi32
#define _mm512_unpackhi_epi64 wide_unpackhi_epi64
#define _mm512_unpackhi_pd wide_unpackhi_pd
#define _mm512_unpackhi_ps wide_unpackhi_ps
#define _mm512_unpacklo_epi32 wide_unpacklo_epi32
#define _mm512_unpacklo_epi64 wide_unpacklo_epi64
#define _mm512_unpacklo_pd wide_unpacklo_pd
#define _mm512_unpacklo_ps wide_unpacklo_ps
#define _mm256_maskz_loadu_epi16 wide_maskz_loadu_epi16
#define _mm256_mask_storeu_epi16 wide_mask_storeu_epi16

#endif
