/* What ggml's blocks hold (ggml-org/ggml, ggml-common.h): bytes of each group of 32, and the scales and leasts of each 32 or 16. */
#ifndef CW_BLOCK_READER_H
#define CW_BLOCK_READER_H

#include "blocks.h"
#include "vector.h"

#include <string.h>

#define EACH_PAIR _Pragma("GCC unroll 16")

#ifdef CW_AVX2
#define ZERO_POINT 0 /* bytes with a sign stay so: sums of two products of larger ones would not fit 16 bits */
#else
#define ZERO_POINT 128
#endif

typedef struct {
    __m256i u[8];
    float scale[16], least[16];
} Numbers;

INLINE float half_at(const uint8_t *at) {
    uint16_t bits;
    memcpy(&bits, at, 2);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

/* 16 bytes of two nibbles: the low ones, then the high ones. */
INLINE __m256i nibbles(const uint8_t *at) {
    const __m128i q = _mm_loadu_si128((const __m128i *)at);
    return _mm256_and_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1), _mm256_set1_epi8(15));
}

/* 32 bits as bytes of 0 or 16. */
INLINE __m256i fifth_bits(const uint8_t *at) {
    uint32_t bits;
    memcpy(&bits, at, 4);
    const __m256i order = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i each = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), order), bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(each, bit), bit), _mm256_set1_epi8(16));
}

INLINE __m256i with_sign(__m256i x) {
    return ZERO_POINT ? _mm256_xor_si256(x, _mm256_set1_epi8((char)0x80)) : x;
}

INLINE __m256i from_table(__m256i nibbles_) {
    const __m128i values = _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    return with_sign(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), nibbles_));
}

INLINE __m256i load32(const uint8_t *at) { return _mm256_loadu_si256((const __m256i *)at); }
INLINE __m256i low_bits(__m256i x, int shift, int mask) {
    return _mm256_and_si256(_mm256_srl_epi16(x, _mm_cvtsi32_si128(shift)), _mm256_set1_epi8((char)mask));
}

/* 8 bytes as numbers times a factor. */
INLINE void scaled(float *to, uint64_t bytes, float factor) {
    const __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes)));
    _mm256_storeu_ps(to, _mm256_mul_ps(x, _mm256_set1_ps(factor)));
}

/* The scales and leasts of Q4_K and Q5_K: 2 x 8 numbers of 6 bits in 12 bytes, a byte for each. */
INLINE void six_bit_bytes(const uint8_t *at, uint64_t *scales, uint64_t *leasts) {
    uint32_t a, b, c;
    memcpy(&a, at, 4), memcpy(&b, at + 4, 4), memcpy(&c, at + 8, 4);
    *scales = (a & 0x3f3f3f3f) | (uint64_t)((c & 0x0f0f0f0f) | (a >> 2 & 0x30303030)) << 32;
    *leasts = (b & 0x3f3f3f3f) | (uint64_t)((c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)) << 32;
}

INLINE void six_bits(const uint8_t *at, float scale, float least, Numbers *to) {
    uint64_t scales, leasts;
    six_bit_bytes(at, &scales, &leasts);
    scaled(to->scale, scales, scale);
    scaled(to->least, leasts, -least);
}

/* 16 bytes with sign, less `from`, as numbers times a factor. */
INLINE void scaled16(float *to, __m128i bytes, int from, float factor) {
    EACH_PAIR for (int i = 0; i < 16; i += 8) {
        const __m256i whole = _mm256_cvtepi8_epi32(i ? _mm_srli_si128(bytes, 8) : bytes);
        const __m256 x = _mm256_cvtepi32_ps(_mm256_sub_epi32(whole, _mm256_set1_epi32(from)));
        _mm256_storeu_ps(to + i, _mm256_mul_ps(x, _mm256_set1_ps(factor)));
    }
}

/* -1 for a type that is not one of blocks. */
#define BLOCK_BYTES(type)                                                                                                  \
    ((type) == Q4_0 || (type) == IQ4_NL ? 18 : (type) == Q4_1 ? 20 : (type) == Q5_0 ? 22 : (type) == Q5_1 ? 24              \
     : (type) == Q8_0 ? 34 : (type) == Q2_K ? 84 : (type) == Q3_K ? 110 : (type) == Q4_K ? 144 : (type) == Q5_K ? 176       \
     : (type) == Q6_K ? 210 : (type) == IQ4_XS ? 136 : -1)
#define SMALL_BLOCK(type) ((type) < Q2_K || (type) == IQ4_NL)
#define GROUPS(type) (SMALL_BLOCK(type) ? 1 : 8)                              /* of 32 numbers, in a block */
#define OF_16(type) ((type) == Q2_K || (type) == Q3_K || (type) == Q6_K)      /* whether 16 numbers share a scale */
#define SIGNED(type) ((type) == Q8_0 || (type) == IQ4_NL || (type) == IQ4_XS) /* bytes that are larger than 63 */
/* u of which number 0 is, where it is the same in all blocks, so that least = -ORIGIN * scale; else 0 */
#define ORIGIN(type) ((type) == Q4_0 ? 8 : (type) == Q5_0 ? 16 : SIGNED(type) ? ZERO_POINT : (type) == Q6_K ? 32 : (type) == Q3_K ? 4 : 0)

/* The numbers of a block of 32. */
INLINE __m256i block_bytes(const int type, const uint8_t *b) {
    if (type == Q4_0) return nibbles(b + 2);
    if (type == IQ4_NL) return from_table(nibbles(b + 2));
    if (type == Q4_1) return nibbles(b + 4);
    if (type == Q5_0) return _mm256_or_si256(nibbles(b + 6), fifth_bits(b + 2));
    if (type == Q5_1) return _mm256_or_si256(nibbles(b + 8), fifth_bits(b + 4));
    return with_sign(load32(b + 2));
}

/* One block. Of a type with an ORIGIN, `least` is not filled. */
INLINE void read_block(const int type, const uint8_t *b, Numbers *to) {
    if (SMALL_BLOCK(type)) {
        to->scale[0] = half_at(b);
        if (type == Q4_1 || type == Q5_1) to->least[0] = half_at(b + 2);
        to->u[0] = block_bytes(type, b);
    } else if (type == Q4_K || type == Q5_K) {
        six_bits(b + 4, half_at(b), half_at(b + 2), to);
        const uint8_t *q = b + (type == Q4_K ? 16 : 48);
        EACH_PAIR for (int g = 0; g < 8; g++) {
            to->u[g] = low_bits(load32(q + g / 2 * 32), g % 2 * 4, 15);
            if (type == Q5_K) {
                const __m256i fifth = low_bits(load32(b + 16), g, 1);
                to->u[g] = _mm256_or_si256(to->u[g], _mm256_slli_epi16(fifth, 4));
            }
        }
    } else if (type == Q6_K) {
        scaled16(to->scale, _mm_loadu_si128((const __m128i *)(b + 192)), 0, half_at(b + 208));
        EACH_PAIR for (int g = 0; g < 8; g++) {
            const int part = g / 4, j = g % 4;
            const __m256i low = low_bits(load32(b + part * 64 + j % 2 * 32), j / 2 * 4, 15);
            to->u[g] = _mm256_or_si256(low, _mm256_slli_epi16(low_bits(load32(b + 128 + part * 32), 2 * j, 3), 4));
        }
    } else if (type == Q2_K) {
        const __m128i both = _mm_loadu_si128((const __m128i *)b), fifteen = _mm_set1_epi8(15);
        scaled16(to->scale, _mm_and_si128(both, fifteen), 0, half_at(b + 80));
        scaled16(to->least, _mm_and_si128(_mm_srli_epi16(both, 4), fifteen), 0, -half_at(b + 82));
        EACH_PAIR for (int g = 0; g < 8; g++) to->u[g] = low_bits(load32(b + 16 + g / 4 * 32), g % 4 * 2, 3);
    } else if (type == Q3_K) {
        uint32_t a[3], sixes[4];
        memcpy(a, b + 96, 12);
        EACH_PAIR for (int i = 0; i < 4; i++)
            sixes[i] = (a[i % 2] >> i / 2 * 4 & 0x0f0f0f0f) | (a[2] >> 2 * i & 0x03030303) << 4;
        scaled16(to->scale, _mm_loadu_si128((const __m128i *)sixes), 32, half_at(b + 108));
        EACH_PAIR for (int g = 0; g < 8; g++) {
            const __m256i third = _mm256_slli_epi16(low_bits(load32(b), g, 1), 2);
            to->u[g] = _mm256_or_si256(low_bits(load32(b + 32 + g / 4 * 32), g % 4 * 2, 3), third);
        }
    } else if (type == IQ4_XS) {
        uint16_t high;
        memcpy(&high, b + 2, 2);
        const float scale = half_at(b);
        EACH_PAIR for (int g = 0; g < 8; g++) {
            const int six = (b[4 + g / 2] >> g % 2 * 4 & 15) | (high >> 2 * g & 3) << 4;
            to->scale[g] = scale * (float)(six - 32);
            to->u[g] = from_table(nibbles(b + 8 + 16 * g));
        }
    }
}

static inline const uint8_t *row_at(const Part *part, int64_t i) {
    if (part->half) {
        const int64_t size = 2 * part->half, at = i % size;
        i += 2 * (at % part->half) + at / part->half - at;
    }
    return part->data + i * part->row;
}

/* Eight vectors of eight numbers, turned. */
INLINE void turn(__m256i *x) {
    __m256i a[8], b[8];
    EACH_PAIR for (int i = 0; i < 8; i += 2) a[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]), a[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
    EACH_PAIR for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]), b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]), b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    EACH_PAIR for (int i = 0; i < 4; i++) {
        x[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
        x[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
    }
}

#endif
