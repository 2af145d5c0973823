/* Products with 8-bit weights that are our own (blocks.h, TILES_8): they lie as the tiles read them from the start, so that no
 * call puts them in order.
 *
 * 16 columns are a unit: for each two groups of 32 numbers of a row their scales, 2 x 16 halves (or once and a gap); then, for each 4
 * numbers, 16 columns of 4 bytes, each a number and 128. With rows of bytes q whose groups have scales of their own,
 *     sum w x = sum over groups of x's scale * w's scale * (sum(u q) - 128 sum(q)), u = w's number + 128
 * where the products begin with -128 sum(q), which lies beside the row's bytes, and are exact.
 *
 * The rows of one tile lie side by side, so that a tile reads two streams: of each group the scales of all rows, where their products
 * begin, and their bytes.
 */

#if defined(__x86_64__) && defined(__GNUC__)

#include "blocks.h"
#include "row_group.h"
#include "team.h"
#include "tile.h"
#include "vector.h"

#include <string.h>

#define EACH _Pragma("GCC unroll 16")
#define STEP (UNIT * 4)   /* bytes of 4 numbers of each column */
#define STEPS (GROUP / 4) /* of a group */
#define PAIR (64 + 2 * STEPS * STEP)
#define ROW_GROUP (GROUP + 8) /* bytes of a row's group */
/* What a tile asks memory for: nothing, since the chip does so in time; what it will read itself, NEAR bytes ahead; with others that
 * read the same unit, a part of the next. */
enum { NOTHING, ITSELF, NEXT, ASKS };

/* In a unit: where the numbers of group g lie, and its scales. */
#define NUMBERS_AT(g) ((g) / 2 * PAIR + 64 + (g) % 2 * (STEPS * STEP))
#define SCALES_AT(g) ((g) / 2 * PAIR + (g) % 2 * UNIT * 2)

INLINE const uint8_t *unit_at(const Part *part, int64_t column) { return part->data + column / UNIT * part->row; }

INLINE __m512 unit_scales(const uint8_t *unit, int64_t g) {
#ifdef CW_AVX2
    const __m128i *at = (const __m128i *)(unit + SCALES_AT(g));
    return (__m512){_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
#else
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(unit + SCALES_AT(g))));
#endif
}

/* --- rows of bytes ---------------------------------------------------------------------------------------------------------- */

int64_t cw_unit_rows_bytes(int64_t k, int64_t rows) { return k / GROUP * ROW_GROUP * rows; }

TARGET void cw_unit_bytes(const float *x, int64_t k, int64_t r, int64_t rows, char *to) {
    const int64_t first = r / ROWS * ROWS, count = rows - first < ROWS ? rows - first : ROWS;
    to += cw_unit_rows_bytes(k, first);
    for (int64_t g = 0; g < k / GROUP; g++, x += GROUP, to += ROW_GROUP * count) {
        const RowGroup own = row_group(x);
        /* in unsigned numbers, which may wrap: of a row that is not finite the sum means nothing, and its scale is NaN */
        const uint32_t start = 0u - 128u * (own.sum[0] + own.sum[1]);
        memcpy(to + (r - first) * 4, &own.scale, 4);
        memcpy(to + (count + r - first) * 4, &start, 4);
        _mm256_storeu_si256((__m256i *)(to + count * 8 + (r - first) * GROUP), own.bytes);
    }
}

/* --- products --------------------------------------------------------------------------------------------------------------- */

INLINE float float_at(const char *at) {
    float x;
    memcpy(&x, at, 4);
    return x;
}
INLINE int32_t int_at(const char *at) {
    int32_t x;
    memcpy(&x, at, 4);
    return x;
}

#ifdef CW_AVX2
#define MOST 2 /* rows whose sums stay in registers */

/* Products of 4 bytes each, both with sign: of w and its sizes. */
INLINE __m256i add_fours(__m256i sum, __m256i w, __m256i sizes, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
INLINE __m256i with_sign(const uint8_t *w) {
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)w), _mm256_set1_epi8((char)128));
}

/* `count` rows from `row` on, of the `rows` that lie side by side, times the 16 columns of a unit. */
INLINE void unit_tile(const int count, const int ask, const uint8_t *unit, int64_t k, const char *x, int64_t row, int64_t rows, Ahead ahead, float *sums) {
    __m512 all[MOST];
    EACH for (int i = 0; i < count; i++) all[i] = _mm512_setzero_ps();
    for (int64_t g = 0; g < k / GROUP; g++, x += ROW_GROUP * rows) {
        const uint8_t *w = unit + NUMBERS_AT(g);
        const char *q = x + rows * 8 + row * GROUP;
        __m512i whole[MOST];
        EACH for (int i = 0; i < count; i++) whole[i] = _mm512_setzero_si512();
        EACH for (int s = 0; s < STEPS; s++, w += STEP) {
            const __m256i a = with_sign(w), b = with_sign(w + 32), size_a = _mm256_abs_epi8(a), size_b = _mm256_abs_epi8(b);
            EACH for (int i = 0; i < count; i++) {
                const __m256i each = _mm256_set1_epi32(int_at(q + i * GROUP + s * 4));
                whole[i].a = add_fours(whole[i].a, a, size_a, each);
                whole[i].b = add_fours(whole[i].b, b, size_b, each);
            }
        }
        const __m512 scale = unit_scales(unit, g);
        EACH for (int i = 0; i < count; i++) {
            const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(float_at(x + (row + i) * 4)));
            all[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[i]), both, all[i]);
        }
    }
    EACH for (int i = 0; i < count; i++) _mm512_storeu_ps(sums + i * PANEL, all[i]);
    (void)ask, (void)ahead;
}
#else
#define MOST ROWS

INLINE void unit_tile(const int count, const int ask, const uint8_t *unit, int64_t k, const char *x, int64_t row, int64_t rows, Ahead ahead, float *sums) {
    __m512 all[ROWS];
    EACH for (int i = 0; i < count; i++) all[i] = _mm512_setzero_ps();
    for (int64_t g = 0; g < k / GROUP; g++, x += ROW_GROUP * count) {
        const uint8_t *w = unit + NUMBERS_AT(g);
        const char *q = x + count * 8;
        __m512i whole[ROWS];
        EACH for (int i = 0; i < count; i++) whole[i] = _mm512_set1_epi32(int_at(x + (count + i) * 4));
        EACH for (int s = 0; s < STEPS; s++, w += STEP) {
            const __m512i u = _mm512_loadu_si512(w);
            if (ask == ITSELF) _mm_prefetch(ahead.from, _MM_HINT_T0);
            if (ask == NEXT) _mm_prefetch(ahead.from, _MM_HINT_T1);
            ahead.from += ahead.step;
            EACH for (int i = 0; i < count; i++) whole[i] = _mm512_dpbusd_epi32(whole[i], u, _mm512_set1_epi32(int_at(q + i * GROUP + s * 4)));
        }
        const __m512 scale = unit_scales(unit, g);
        EACH for (int i = 0; i < count; i++) {
            const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(float_at(x + i * 4)));
            all[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[i]), both, all[i]);
        }
    }
    EACH for (int i = 0; i < count; i++) _mm512_storeu_ps(sums + i * PANEL, all[i]);
    (void)row, (void)rows;
}
#endif

typedef void UnitTile(const uint8_t *unit, int64_t k, const char *x, int64_t row, int64_t rows, Ahead ahead, float *sums);
#define UNIT_TILE_OF(n, asks, name)                                                                                                   \
    TARGET static void name##n(const uint8_t *unit, int64_t k, const char *x, int64_t row, int64_t rows, Ahead ahead, float *sums) { \
        unit_tile(n, asks, unit, k, x, row, rows, ahead, sums);                                                                       \
    }
#define UNIT_TILE(n) UNIT_TILE_OF(n, NOTHING, unit_) UNIT_TILE_OF(n, ITSELF, unit_asking_) UNIT_TILE_OF(n, NEXT, unit_asking_next_)
UNIT_TILE(1) UNIT_TILE(2)
#ifdef CW_AVX2
#define COUNTS(name) {0, name##1, name##2}
#else
UNIT_TILE(3) UNIT_TILE(4) UNIT_TILE(5) UNIT_TILE(6) UNIT_TILE(7) UNIT_TILE(8) UNIT_TILE(9) UNIT_TILE(10) UNIT_TILE(11) UNIT_TILE(12)
#define COUNTS(name) \
    {0, name##1, name##2, name##3, name##4, name##5, name##6, name##7, name##8, name##9, name##10, name##11, name##12}
#endif
static UnitTile *const UNIT_TILES[ASKS][MOST + 1] = {COUNTS(unit_), COUNTS(unit_asking_), COUNTS(unit_asking_next_)};

TARGET void cw_unit_tile(const Part *part, int64_t column, int64_t k, const char *x, int64_t tile, int64_t tiles, int64_t count, float *sums) {
    const uint8_t *unit = unit_at(part, column);
    const int asks = tiles > 1 ? NEXT : count < ASKING ? NOTHING : ITSELF;
    const int64_t each = PAIR / 2 / STEPS, step = (each + tiles - 1) / tiles;
    const Ahead ahead = {(const char *)unit + (tiles > 1 ? part->row + part->row / tiles * tile : NEAR), step};
    for (int64_t i = 0; i < count; i += MOST) {
        const int64_t n = count - i < MOST ? count - i : MOST;
        UNIT_TILES[asks][n](unit, k, x, i, count, ahead, sums + i * PANEL);
    }
}

/* --- as floats -------------------------------------------------------------------------------------------------------------- */

TARGET void cw_unit_floats(const Part *part, int64_t column, int64_t k, float *panel) {
    const uint8_t *unit = unit_at(part, column);
    for (int64_t g = 0; g < k / GROUP; g++) {
        const __m512 scale = unit_scales(unit, g);
        const uint8_t *w = unit + NUMBERS_AT(g);
        for (int s = 0; s < STEPS; s++, w += STEP) {
            const __m512i fours = _mm512_loadu_si512(w);
            EACH for (int i = 0; i < 4; i++, panel += PANEL) {
                const __m512i u = _mm512_and_si512(_mm512_srli_epi32(fours, 8 * i), _mm512_set1_epi32(255));
                const __m512i number = _mm512_sub_epi32(u, _mm512_set1_epi32(128));
                _mm512_storeu_ps(panel, _mm512_mul_ps(_mm512_cvtepi32_ps(number), scale));
            }
        }
    }
}

TARGET void cw_unit_row(const Part *part, int64_t row, int64_t k, float *out) {
    const uint8_t *unit = unit_at(part, row);
    for (int64_t g = 0; g < k / GROUP; g++, out += GROUP) {
        const uint8_t *w = unit + NUMBERS_AT(g) + row % UNIT * 4;
        uint16_t bits;
        uint8_t u[GROUP] __attribute__((aligned(32)));
        memcpy(&bits, unit + SCALES_AT(g) + row % UNIT * 2, 2);
        const __m256 scale = _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
        EACH for (int s = 0; s < STEPS; s++) memcpy(u + 4 * s, w + s * STEP, 4);
        EACH for (int j = 0; j < GROUP; j += 8) {
            const __m256i number = _mm256_sub_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(u + j))), _mm256_set1_epi32(128));
            _mm256_storeu_ps(out + j, _mm256_mul_ps(_mm256_cvtepi32_ps(number), scale));
        }
    }
}

#endif
