/* Rows that meet weights of few bits: groups of 32 numbers as bytes with a scale of their own. */
#ifndef CW_ROW_GROUP_H
#define CW_ROW_GROUP_H

#include "vector.h"

/* What comes next is asked for by a tile itself, NEAR bytes ahead, from so many rows on: with fewer the chip does so in time. */
#define ASKING 6
#define NEAR 2048

/* A group of a row as bytes; sums of each half. */
typedef struct {
    __m256i bytes;
    float scale;
    uint32_t sum[2];
} RowGroup;

INLINE uint32_t whole_sum(__m256i x) {
    __m128i all = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    all = _mm_add_epi32(all, _mm_shuffle_epi32(all, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(all, _mm_shuffle_epi32(all, 0xb1)));
}

INLINE RowGroup row_group(const float *x) {
    __m256 v[4], most = _mm256_setzero_ps();
    const __m256 sign = _mm256_set1_ps(-0.0f);
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        /* as whole numbers, infinity and NaN are the largest */
        most = _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(_mm256_andnot_ps(sign, v[i])), _mm256_castps_si256(most)));
    }
    __m128i four = _mm_max_epi32(_mm_castps_si128(_mm256_castps256_ps128(most)), _mm_castps_si128(_mm256_extractf128_ps(most, 1)));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    const float largest = _mm_cvtss_f32(_mm_castsi128_ps(four));
    const int finite = _mm_cvtsi128_si32(four) < 0x7f800000;
    /* NaN or infinity in a group makes its scale, and so every product with the row, NaN */
    const float scale = finite ? largest / 127.0f : __builtin_nanf("");
    const __m256 inverse = _mm256_set1_ps(finite && largest > 1e-36f ? 127.0f / largest : 0.0f);
    __m256i q[4];
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    const __m256i words = _mm256_packs_epi32(q[0], q[1]), more = _mm256_packs_epi32(q[2], q[3]);
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words, more), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    return (RowGroup){bytes, scale, {whole_sum(_mm256_add_epi32(q[0], q[1])), whole_sum(_mm256_add_epi32(q[2], q[3]))}};
}

#endif
