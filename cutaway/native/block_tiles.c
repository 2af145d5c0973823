/* Products with a file's blocks that were put in the order of the tiles when they were first used (blocks.h, LAID_OUT): the same
 * numbers and scales in about the same memory, but 16 columns side by side, so that a row times a weight is as fast as memory, and no
 * call with several rows puts them in order first.
 *
 * 16 columns are a unit. Of blocks of 32 it is pairs of groups: the scales of both, 2 x 16 halves, where the format has them the same of
 * leasts, then their numbers. Of blocks of 256 it is blocks: the scale of each column and, of Q4_K and Q5_K, of its leasts, as halves; a
 * byte for each column's scale of each group (Q6_K: half a group), then for its least; the numbers of 8 groups.
 *
 * The numbers of a group are 8 steps of 4 numbers of each column. Low 4 bits: a vector for steps j and j + 4 each, the first in the low
 * half of its bytes. The fifth bit: a vector whose bytes hold a bit of each step. The fifth and sixth: a vector for 4 steps each.
 *
 * Rows are bytes q with a scale of each 32, as in tiles8.c: sums of u q begin with -origin sum(q), and are exact. The rows of a tile lie side
 * by side; of each group their scales, -sum(q), sum(q) as a float, where a part is of Q6_K -sum(q) of each half, and their bytes.
 */

#if defined(__x86_64__) && defined(__GNUC__)

#include "block_reader.h"
#include "blocks.h"
#include "row_group.h"
#include "team.h"
#include "tile.h"
#include "vector.h"

#include <string.h>

#ifdef CW_AVX2

int64_t cw_laid_out_bytes(int64_t type, int64_t k) {
    (void)type, (void)k;
    return 0;
}
void cw_lay_out(const Part *part, int64_t k, char *to, int threads) { (void)part, (void)k, (void)to, (void)threads; }

#else

#define STEP (UNIT * 4)   /* bytes of 4 numbers of each column */
#define STEPS (GROUP / 4) /* of a group */
#define BITS(type) ((type) == Q8_0 ? 8 : (type) == Q6_K ? 6 : (type) == Q5_0 || (type) == Q5_1 || (type) == Q5_K ? 5 : 4)
#define LEASTS(type) ((type) == Q4_1 || (type) == Q5_1 || (type) == Q4_K || (type) == Q5_K)
#define NUMBERS(type) (BITS(type) * STEP) /* bytes of a group's */
#define OF_HEAD(type) (SMALL_BLOCK(type) ? 2 : 8) /* groups behind one head of scales */
#define HEAD(type) (SMALL_BLOCK(type) ? LEASTS(type) ? 128 : 64 : 64 + 256)
#define ZERO_SHIFT(type) ((type) == Q4_0 ? 3 : (type) == Q5_0 ? 4 : (type) == Q8_0 ? 7 : 5) /* of -sum(q): the origin as a power of 2 */
#define WORDS(halves) ((halves) ? 5 : 3)                                                   /* before the bytes of a row's group */

#define ALL_LAID_OUT(DO) DO(Q4_0) DO(Q4_1) DO(Q5_0) DO(Q5_1) DO(Q8_0) DO(Q4_K) DO(Q5_K) DO(Q6_K)

/* --- the order ---------------------------------------------------------------------------------------------------------------- */

#define SIZE(type) \
    case type: return k % (GROUPS(type) * GROUP) ? 0 : (k / GROUP + OF_HEAD(type) - 1) / OF_HEAD(type) * HEAD(type) + k / GROUP * NUMBERS(type);

/* Bytes of a unit of rows of k numbers; 0 for a type that stays as it lies. */
int64_t cw_laid_out_bytes(int64_t type, int64_t k) {
    switch (type) {
        ALL_LAID_OUT(SIZE)
    default: return 0;
    }
}

INLINE __m256i shifted_left(__m256i x, int n, int mask) { return _mm256_and_si256(_mm256_sll_epi16(x, _mm_cvtsi32_si128(n)), _mm256_set1_epi8((char)mask)); }

/* The numbers of 8 columns of a group, steps [8] of 8 columns by 4 numbers. */
INLINE void put_numbers(const int type, const __m256i *u, uint8_t *to) {
    if (BITS(type) == 8) {
        EACH_PAIR for (int s = 0; s < STEPS; s++) _mm256_storeu_si256((__m256i *)(to + s * STEP), u[s]);
        return;
    }
    EACH_PAIR for (int j = 0; j < 4; j++) {
        const __m256i both = _mm256_or_si256(low_bits(u[j], 0, 15), shifted_left(u[j + 4], 4, 0xf0));
        _mm256_storeu_si256((__m256i *)(to + j * STEP), both);
    }
    to += 4 * STEP;
    if (BITS(type) == 5) {
        __m256i all = _mm256_setzero_si256();
        EACH_PAIR for (int s = 0; s < STEPS; s++) all = _mm256_or_si256(all, shifted_left(low_bits(u[s], 4, 1), s, 1 << s));
        _mm256_storeu_si256((__m256i *)to, all);
    }
    if (BITS(type) == 6)
        EACH_PAIR for (int half = 0; half < 2; half++) {
            __m256i all = _mm256_setzero_si256();
            EACH_PAIR for (int s = 0; s < 4; s++) all = _mm256_or_si256(all, shifted_left(low_bits(u[half * 4 + s], 4, 3), 2 * s, 3 << 2 * s));
            _mm256_storeu_si256((__m256i *)(to + half * STEP), all);
        }
}

/* The scales of block number `b` of a row, for column c of its unit. */
INLINE void put_scales(const int type, const uint8_t *block, int64_t b, int64_t c, uint8_t *head) {
    if (SMALL_BLOCK(type)) {
        memcpy(head + b % 2 * UNIT * 2 + c * 2, block, 2);
        if (LEASTS(type)) memcpy(head + 64 + b % 2 * UNIT * 2 + c * 2, block + 2, 2);
        return;
    }
    memcpy(head + c * 2, block + (type == Q6_K ? 208 : 0), 2);
    if (LEASTS(type)) memcpy(head + UNIT * 2 + c * 2, block + 2, 2);
    head += 64 + c;
    if (type == Q6_K) {
        for (int i = 0; i < 16; i++) head[i * UNIT] = block[192 + i];
        return;
    }
    uint64_t scales, leasts;
    six_bit_bytes(block + 4, &scales, &leasts);
    for (int g = 0; g < 8; g++) head[g * UNIT] = (uint8_t)(scales >> 8 * g), head[(8 + g) * UNIT] = (uint8_t)(leasts >> 8 * g);
}

INLINE void lay_out_unit(const int type, const Part *part, int64_t column, int64_t k, uint8_t *unit) {
    const int groups = GROUPS(type);
    for (int64_t c = 0; c < UNIT; c += 8) {
        const uint8_t *w[8];
        for (int64_t i = 0; i < 8; i++) w[i] = row_at(part, column + c + i < part->n ? column + c + i : column);
        uint8_t *head = unit, *to = unit + HEAD(type);
        for (int64_t g = 0; g < k / GROUP; g += groups) {
            __m256i u[8][8];
            if (g && g % OF_HEAD(type) == 0) head = to, to += HEAD(type);
            for (int i = 0; i < 8; i++) {
                Numbers n;
                const uint8_t *block = w[i] + g / groups * BLOCK_BYTES(type);
                read_block(type, block, &n);
                EACH_PAIR for (int j = 0; j < groups; j++) u[j][i] = n.u[j];
                put_scales(type, block, g / groups, c + i, head);
            }
            for (int j = 0; j < groups; j++, to += NUMBERS(type)) turn(u[j]), put_numbers(type, u[j], to + c * 4);
        }
    }
}

#define LAY_OUT(type) \
    TARGET static void lay_out_##type(const Part *part, int64_t column, int64_t k, uint8_t *unit) { lay_out_unit(type, part, column, k, unit); }
ALL_LAID_OUT(LAY_OUT)
typedef void LayOut(const Part *part, int64_t column, int64_t k, uint8_t *unit);
#define NAMED_LAY_OUT(type) [type] = lay_out_##type,
static LayOut *const LAY_OUT_OF[TYPES] = {ALL_LAID_OUT(NAMED_LAY_OUT)};

/* A part's rows of k numbers -> units [n / 16, `cw_laid_out_bytes`]. */
void cw_lay_out(const Part *part, int64_t k, char *to, int threads) {
    const int64_t size = cw_laid_out_bytes(part->type, k), units = (part->n + UNIT - 1) / UNIT;
    const uint64_t start = __rdtsc();
    Team team __attribute__((aligned(64))) = {0};
    threads = threads > 1 && part->n * k > 500000 ? cw_members(threads, SHORT, start) : 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Member member = cw_join(&team);
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < units; i++) LAY_OUT_OF[part->type](part, i * UNIT, k, (uint8_t *)to + i * size);
        cw_leave(&member);
    }
    if (threads > 1) cw_judge(&team, threads, SHORT, start);
}

/* --- rows of bytes ------------------------------------------------------------------------------------------------------------ */

int64_t cw_laid_out_rows_bytes(int64_t k, int64_t rows, int halves) { return k / GROUP * (WORDS(halves) * 4 + GROUP) * rows; }

TARGET void cw_laid_out_row(const float *x, int64_t k, int64_t r, int64_t rows, int halves, char *to) {
    const int64_t first = r / ROWS * ROWS, count = rows - first < ROWS ? rows - first : ROWS, words = WORDS(halves);
    to += cw_laid_out_rows_bytes(k, first, halves);
    r -= first;
    for (int64_t g = 0; g < k / GROUP; g++, x += GROUP, to += (words * 4 + GROUP) * count) {
        const RowGroup own = row_group(x);
        /* in unsigned numbers, which may wrap: of a row that is not finite the sums mean nothing, and its scale is NaN */
        const uint32_t sum = own.sum[0] + own.sum[1], each[4] = {0 - sum, 0, 0 - own.sum[0], 0 - own.sum[1]};
        const float as_float = (float)(int32_t)sum;
        memcpy(to + r * 4, &own.scale, 4);
        memcpy(to + (count + r) * 4, each, 4);
        memcpy(to + (2 * count + r) * 4, &as_float, 4);
        if (halves) memcpy(to + (3 * count + r) * 4, each + 2, 4), memcpy(to + (4 * count + r) * 4, each + 3, 4);
        _mm256_storeu_si256((__m256i *)(to + count * words * 4 + r * GROUP), own.bytes);
    }
}

/* --- products ----------------------------------------------------------------------------------------------------------------- */

INLINE __m512 float_of_all(const char *at) {
    float x;
    memcpy(&x, at, 4);
    return _mm512_set1_ps(x);
}
INLINE __m512i int_of_all(const char *at) {
    int32_t x;
    memcpy(&x, at, 4);
    return _mm512_set1_epi32(x);
}
INLINE __m512 halves16(const uint8_t *at) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at)); }
INLINE __m128i load16(const uint8_t *at) { return _mm_loadu_si128((const __m128i *)at); }

INLINE __m512i bits_at(__m512i x, const int from, const int to) {
    return from < to ? _mm512_slli_epi16(x, to - from) : from > to ? _mm512_srli_epi16(x, from - to) : x;
}

/* Step s of a group: 4 numbers of each column. */
INLINE __m512i step_of(const int type, const uint8_t *w, const int s) {
    if (BITS(type) == 8) return _mm512_loadu_si512(w + s * STEP);
    const __m512i both = _mm512_loadu_si512(w + s % 4 * STEP), fifteen = _mm512_set1_epi8(15);
    const __m512i low = _mm512_and_si512(s < 4 ? both : _mm512_srli_epi16(both, 4), fifteen);
    if (BITS(type) == 4) return low;
    const __m512i more = _mm512_loadu_si512(w + (4 + (BITS(type) == 6 ? s / 4 : 0)) * STEP);
    const __m512i high = bits_at(more, BITS(type) == 6 ? s % 4 * 2 : s, 4);
    return _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi8(BITS(type) == 6 ? 0x30 : 0x10), 0xf8); /* low | high & mask */
}

/* `count` rows times the 16 columns of a unit. */
INLINE void laid_out_tile(const int type, const int count, const uint8_t *unit, int64_t k, const char *x, const int64_t words, Ahead ahead, float *sums) {
    const int of_16 = OF_16(type), leasts = LEASTS(type), small = SMALL_BLOCK(type);
    __m512 all[ROWS], block_scale = _mm512_setzero_ps(), block_least = block_scale, scale = block_scale, least = block_scale;
    const uint8_t *head = unit, *w = unit;
    EACH_PAIR for (int i = 0; i < count; i++) all[i] = _mm512_setzero_ps();
    for (int64_t g = 0; g < k / GROUP; g++, x += (words * 4 + GROUP) * count, w += NUMBERS(type)) {
        const int at = (int)(g % OF_HEAD(type));
        if (at == 0) {
            head = w, w += HEAD(type);
            if (!small) block_scale = halves16(head), head += 64;
            if (!small && leasts) block_least = _mm512_sub_ps(_mm512_setzero_ps(), halves16(head - 32));
        }
        if (small) {
            scale = halves16(head + at * UNIT * 2);
            if (leasts) least = halves16(head + 64 + at * UNIT * 2);
        } else if (!of_16) {
            scale = _mm512_mul_ps(block_scale, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load16(head + at * UNIT))));
            least = _mm512_mul_ps(block_least, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load16(head + (8 + at) * UNIT))));
        }
        const char *q = x + count * words * 4;
        __m512i whole[ROWS];
        EACH_PAIR for (int n = 0; n < STEPS; n++) {
            const int s = of_16 ? n : n % 2 * 4 + n / 2; /* two steps of one vector, or one half after the other */
            const __m512i u = step_of(type, w, s);
            if (n == 0 || (of_16 && n == 4))
                EACH_PAIR for (int i = 0; i < count; i++)
                    whole[i] = leasts ? _mm512_setzero_si512() : _mm512_slli_epi32(int_of_all(x + ((of_16 ? 3 + n / 4 : 1) * count + i) * 4), ZERO_SHIFT(type));
            if (count >= ASKING) _mm_prefetch(ahead.from, _MM_HINT_T0), ahead.from += ahead.step;
            EACH_PAIR for (int i = 0; i < count; i++) whole[i] = _mm512_dpbusd_epi32(whole[i], u, int_of_all(q + i * GROUP + s * 4));
            if (of_16 && n % 4 == 3) {
                scale = _mm512_mul_ps(block_scale, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(head + (2 * at + n / 4) * UNIT))));
                EACH_PAIR for (int i = 0; i < count; i++)
                    all[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[i]), _mm512_mul_ps(scale, float_of_all(x + i * 4)), all[i]);
            }
        }
        if (of_16) continue;
        EACH_PAIR for (int i = 0; i < count; i++) {
            const __m512 own = float_of_all(x + i * 4), products = _mm512_cvtepi32_ps(whole[i]);
            if (leasts) {
                const __m512 both = _mm512_fmadd_ps(products, scale, _mm512_mul_ps(least, float_of_all(x + (2 * count + i) * 4)));
                all[i] = _mm512_fmadd_ps(both, own, all[i]);
            } else all[i] = _mm512_fmadd_ps(products, _mm512_mul_ps(scale, own), all[i]);
        }
    }
    EACH_PAIR for (int i = 0; i < count; i++) _mm512_storeu_ps(sums + i * PANEL, all[i]);
}

typedef void LaidOutTile(const uint8_t *unit, int64_t k, const char *x, int64_t words, Ahead ahead, float *sums);
#define TILE_OF(type, n)                                                                                                                  \
    TARGET static void tile_##type##_##n(const uint8_t *unit, int64_t k, const char *x, int64_t words, Ahead ahead, float *sums) {          \
        laid_out_tile(type, n, unit, k, x, words, ahead, sums);                                                                           \
    }
#define TILES_OF(type)                                                                                                                    \
    TILE_OF(type, 1) TILE_OF(type, 2) TILE_OF(type, 3) TILE_OF(type, 4) TILE_OF(type, 5) TILE_OF(type, 6)                                   \
    TILE_OF(type, 7) TILE_OF(type, 8) TILE_OF(type, 9) TILE_OF(type, 10) TILE_OF(type, 11) TILE_OF(type, 12)
ALL_LAID_OUT(TILES_OF)
#define NAMED_TILES(type)                                                                                                                 \
    [type] = {0, tile_##type##_1, tile_##type##_2, tile_##type##_3, tile_##type##_4, tile_##type##_5, tile_##type##_6, tile_##type##_7,     \
              tile_##type##_8, tile_##type##_9, tile_##type##_10, tile_##type##_11, tile_##type##_12},
static LaidOutTile *const LAID_OUT_TILES[TYPES][ROWS + 1] = {ALL_LAID_OUT(NAMED_TILES)};

TARGET void cw_laid_out_tile(const Part *part, int64_t column, int64_t k, const char *x, int halves, int64_t tile, int64_t tiles, int64_t count, float *sums) {
    const uint8_t *unit = part->data + column / UNIT * part->row;
    const int64_t step = (part->row + k / 4 * tiles - 1) / (k / 4 * tiles);
    const Ahead ahead = {(const char *)unit + (tiles > 1 ? part->row + part->row / tiles * tile : NEAR), step};
    LAID_OUT_TILES[part->type - LAID_OUT][count](unit, k, x, WORDS(halves), ahead, sums);
}

#endif

#endif
