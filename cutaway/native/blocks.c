/* Products with weights as GGUF files hold them (blocks.h): the formats are ggml's (ggml-org/ggml, ggml-common.h).
 *
 * Every format says a number of a row as scale * u + least, for a whole number u below 256 and a scale and least of 16 or
 * 32 numbers. The row that it is multiplied by has bytes q with a scale of each 32, so that
 *     sum w x = sum over groups of x's scale * (scale * sum(u q) + least * sum(q))
 * where sum(u q) is exact. Few rows are multiplied by the blocks as they lie; for many, 32 columns are read once.
 */

#if defined(__x86_64__) && defined(__GNUC__)

#include "block_reader.h"
#include "blocks.h"
#include "team.h"
#include "tile.h"
#include "vector.h"

#include <string.h>

/* --- rows of bytes -------------------------------------------------------------------------------------------------------- */

/* A row: k bytes with sign, then for each 32 their scale and its product with their sum, then that product for each 16. */
INLINE const float *scales_of(const char *row, int64_t k) { return (const float *)(row + k); }
INLINE const float *sums_of(const char *row, int64_t k) { return scales_of(row, k) + k / GROUP; }
INLINE const float *half_sums_of(const char *row, int64_t k) { return sums_of(row, k) + k / GROUP; }

int64_t cw_block_row_bytes(int64_t k) { return (k + k / GROUP * 4 * (int64_t)sizeof(float) + 63) / 64 * 64; }

TARGET void cw_block_row(const float *x, int64_t k, char *to) {
    float *scales = (float *)(to + k), *sums = scales + k / GROUP, *halves = sums + k / GROUP;
    for (int64_t g = 0; g < k / GROUP; g++, x += GROUP, to += GROUP) {
        __m256 v[4], most = _mm256_setzero_ps();
        const __m256 sign = _mm256_set1_ps(-0.0f);
        int finite = 1;
        EACH_PAIR for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            const __m256 size = _mm256_andnot_ps(sign, v[i]);
            finite &= _mm256_movemask_ps(_mm256_cmp_ps(size, _mm256_set1_ps(3.4028235e38f), _CMP_LE_OQ)) == 255;
            most = _mm256_max_ps(most, size);
        }
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        four = _mm_max_ss(four, _mm_movehdup_ps(four));
        const float largest = _mm_cvtss_f32(four);
        /* NaN or infinity in a group makes its scale, and so every product with the row, NaN */
        const float scale = finite ? largest / 127.0f : __builtin_nanf("");
        const __m256 inverse = _mm256_set1_ps(finite && largest > 1e-36f ? 127.0f / largest : 0.0f);
        __m256i q[4], sum[2];
        EACH_PAIR for (int i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
        if (!finite) q[0] = _mm256_set1_epi32(1); /* so that no sum is 0 */
        sum[0] = _mm256_add_epi32(q[0], q[1]), sum[1] = _mm256_add_epi32(q[2], q[3]);
        EACH_PAIR for (int i = 0; i < 2; i++) {
            __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum[i]), _mm256_extracti128_si256(sum[i], 1));
            s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
            s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
            halves[2 * g + i] = scale * (float)_mm_cvtsi128_si32(s);
        }
        scales[g] = scale, sums[g] = halves[2 * g] + halves[2 * g + 1];
        const __m256i words = _mm256_packs_epi32(q[0], q[1]), more = _mm256_packs_epi32(q[2], q[3]);
        const __m256i bytes = _mm256_packs_epi16(words, more);
        _mm256_storeu_si256((__m256i *)to, _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    }
}

/* --- few rows: the blocks as they lie ------------------------------------------------------------------------------------- */

/* Sums of 4 products each. */
INLINE __m256i fours(const int type, __m256i u, __m256i q) {
#ifdef CW_AVX2
    const __m256i ones = _mm256_set1_epi16(1);
    if (SIGNED(type)) return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(u), _mm256_sign_epi8(q, u)), ones);
    return _mm256_madd_epi16(_mm256_maddubs_epi16(u, q), ones);
#else
    (void)type;
    return _mm256_dpbusd_epi32(_mm256_setzero_si256(), u, q);
#endif
}

INLINE float total(__m256 x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

#ifndef CW_AVX2
/* A block of 8 groups, two groups at a time: `own` are the scales of its 32 or 16 numbers, with the row's. */
INLINE __m512 eight_groups(const Numbers *n, const int of_16, __m512 own, const char *row, __m512 all) {
    EACH_PAIR for (int j = 0; j < 4; j++) {
        const __m512i u = _mm512_inserti64x4(_mm512_castsi256_si512(n->u[2 * j]), n->u[2 * j + 1], 1);
        const __m512i of_32s = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
        const __m512i of_16s = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        const __m512i pick = _mm512_add_epi32(of_16 ? of_16s : of_32s, _mm512_set1_epi32((of_16 ? 4 : 2) * j));
        const __m512i products = _mm512_dpbusd_epi32(_mm512_setzero_si512(), u, _mm512_loadu_si512(row + 2 * j * GROUP));
        all = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_permutexvar_ps(pick, own), all);
    }
    return all;
}
#endif

/* The halves at the same place of 8 blocks, as floats. Gathered in whole numbers, which the vectors' units have no part in. */
INLINE __m256 eight_halves(const uint8_t *at, const int64_t apart) {
    uint64_t four[2];
    EACH_PAIR for (int i = 0; i < 2; i++, at += 4 * apart) {
        uint16_t h[4];
        EACH_PAIR for (int j = 0; j < 4; j++) memcpy(h + j, at + j * apart, 2);
        four[i] = h[0] | (uint64_t)h[1] << 16 | (uint64_t)h[2] << 32 | (uint64_t)h[3] << 48;
    }
    return _mm256_cvtph_ps(_mm_set_epi64x((long long)four[1], (long long)four[0]));
}

/* Ask for what lies AHEAD of the next `bytes`: the processor itself does so only inside a page, and a file's are small. */
#define AHEAD 2048
INLINE void ask_ahead(const uint8_t *w, const int bytes) {
    EACH_PAIR for (int b = 0; b < bytes; b += 64) _mm_prefetch((const char *)w + AHEAD + b, _MM_HINT_T0);
}

/* One row of a weight times one of bytes. */
INLINE float dot(const int type, const uint8_t *w, int64_t k, const char *row) {
    const float *scales = scales_of(row, k), *sums = sums_of(row, k), *halves = half_sums_of(row, k);
    __m256 all = _mm256_setzero_ps(), leasts = all;
    float least = 0;
#ifndef CW_AVX2
    __m512 wide = _mm512_setzero_ps();
#endif
    const int groups = GROUPS(type), origin = ORIGIN(type);
    int64_t g = 0;
    if (groups == 1) {
        __m256 more = all;
        for (; g + 8 <= k / GROUP; g += 8, w += 8 * BLOCK_BYTES(type), row += 8 * GROUP) {
            float own[8];
            ask_ahead(w, 8 * BLOCK_BYTES(type));
            const __m256 scale = eight_halves(w, BLOCK_BYTES(type));
            _mm256_storeu_ps(own, _mm256_mul_ps(scale, _mm256_loadu_ps(scales + g)));
            if (origin) leasts = _mm256_fmadd_ps(scale, _mm256_loadu_ps(sums + g), leasts);
            else if (!SIGNED(type)) leasts = _mm256_fmadd_ps(eight_halves(w + 2, BLOCK_BYTES(type)), _mm256_loadu_ps(sums + g), leasts);
            EACH_PAIR for (int i = 0; i < 8; i += 2) {
                const __m256i a = fours(type, block_bytes(type, w + i * BLOCK_BYTES(type)), load32((const uint8_t *)row + i * GROUP));
                const __m256i b = fours(type, block_bytes(type, w + (i + 1) * BLOCK_BYTES(type)), load32((const uint8_t *)row + (i + 1) * GROUP));
                all = _mm256_fmadd_ps(_mm256_cvtepi32_ps(a), _mm256_set1_ps(own[i]), all);
                more = _mm256_fmadd_ps(_mm256_cvtepi32_ps(b), _mm256_set1_ps(own[i + 1]), more);
            }
        }
        all = _mm256_add_ps(all, more);
    }
    for (; g < k / GROUP; g += groups, w += BLOCK_BYTES(type), row += groups * GROUP) {
        Numbers n;
        if (groups > 1) ask_ahead(w, BLOCK_BYTES(type));
        read_block(type, w, &n);
        if (groups == 1) {
            const __m256i products = fours(type, n.u[0], load32((const uint8_t *)row));
            all = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), _mm256_set1_ps(n.scale[0] * scales[g]), all);
            if (origin) least = __builtin_fmaf(n.scale[0], sums[g], least);
            else if (!SIGNED(type)) least = __builtin_fmaf(n.least[0], sums[g], least);
        } else if (!OF_16(type)) {
#ifndef CW_AVX2
            const __m256 both = _mm256_mul_ps(_mm256_loadu_ps(n.scale), _mm256_loadu_ps(scales + g));
            wide = eight_groups(&n, 0, _mm512_castps256_ps512(both), row, wide);
#else
            float own[8];
            _mm256_storeu_ps(own, _mm256_mul_ps(_mm256_loadu_ps(n.scale), _mm256_loadu_ps(scales + g)));
            EACH_PAIR for (int i = 0; i < 8; i++) {
                const __m256i products = fours(type, n.u[i], load32((const uint8_t *)row + i * GROUP));
                all = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), _mm256_set1_ps(own[i]), all);
            }
#endif
            if (origin || !SIGNED(type))
                leasts = _mm256_fmadd_ps(_mm256_loadu_ps(origin ? n.scale : n.least), _mm256_loadu_ps(sums + g), leasts);
        } else {
#ifndef CW_AVX2
            const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
            const __m512 theirs = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(scales + g)));
            wide = eight_groups(&n, 1, _mm512_mul_ps(_mm512_loadu_ps(n.scale), theirs), row, wide);
#else
            EACH_PAIR for (int i = 0; i < 8; i++) {
                const __m256i products = fours(type, n.u[i], load32((const uint8_t *)row + i * GROUP));
                const __m256 own = _mm256_set_m128(_mm_set1_ps(n.scale[2 * i + 1]), _mm_set1_ps(n.scale[2 * i]));
                const __m256 each = _mm256_mul_ps(own, _mm256_set1_ps(scales[g + i]));
                all = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), each, all);
            }
#endif
            EACH_PAIR for (int i = 0; i < 16; i += 8)
                leasts = _mm256_fmadd_ps(_mm256_loadu_ps((origin ? n.scale : n.least) + i), _mm256_loadu_ps(halves + 2 * g + i), leasts);
        }
    }
    least += total(leasts);
#ifndef CW_AVX2
    if (groups > 1) return _mm512_reduce_add_ps(wide) + (origin ? -(float)origin * least : least);
#endif
    return total(all) + (origin ? -(float)origin * least : least);
}

/* Numbers 8 i .. 8 i + 8 of a row of floats, halves or bfloat16, of which there are k. */
INLINE __m256 eight(const int type, const uint8_t *w, int64_t i, int64_t k) {
    uint8_t rest[32] __attribute__((aligned(32)));
    const int64_t size = type == F32 ? 4 : 2;
    const uint8_t *at = w + i * 8 * size;
    if (k - 8 * i < 8) {
        memset(rest, 0, sizeof rest);
        memcpy(rest, at, (k - 8 * i) * size);
        at = rest;
    }
    if (type == F32) return _mm256_loadu_ps((const float *)at);
    const __m128i bits = _mm_loadu_si128((const __m128i *)at);
    if (type == F16) return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

INLINE float float_dot(const int type, const uint8_t *w, int64_t k, const float *x) {
    __m256 all[4];
    EACH_PAIR for (int i = 0; i < 4; i++) all[i] = _mm256_setzero_ps();
    int64_t i = 0;
    for (; (i + 4) * 8 <= k; i += 4)
        EACH_PAIR for (int j = 0; j < 4; j++)
            all[j] = _mm256_fmadd_ps(eight(type, w, i + j, (i + j + 1) * 8), _mm256_loadu_ps(x + (i + j) * 8), all[j]);
    for (; i * 8 < k; i++) all[0] = _mm256_fmadd_ps(eight(type, w, i, k), eight(F32, (const uint8_t *)x, i, k), all[0]);
    return total(_mm256_add_ps(_mm256_add_ps(all[0], all[1]), _mm256_add_ps(all[2], all[3])));
}

#define FLOATS(type) ((type) == F32 || (type) == F16 || (type) == BF16_ROWS)
#define ALL_BLOCKS(DO) DO(Q4_0) DO(Q4_1) DO(Q5_0) DO(Q5_1) DO(Q8_0) DO(Q2_K) DO(Q3_K) DO(Q4_K) DO(Q5_K) DO(Q6_K) DO(IQ4_NL) DO(IQ4_XS)
#define ALL_FLOATS(DO) DO(F32) DO(F16) DO(BF16_ROWS)

#define DOTS(type)                                                                                                         \
    TARGET static void dots_##type(const uint8_t *w, int64_t k, const BlockRows *x, int64_t r, int64_t count, float *out) { \
        for (int64_t i = 0; i < count; i++)                                                                                \
            out[i * PANEL] = dot(type, w, k, x->bytes + (r + i) * x->bytes_row);                                           \
    }
ALL_BLOCKS(DOTS)
#define FLOAT_DOTS(type)                                                                                                   \
    TARGET static void dots_##type(const uint8_t *w, int64_t k, const BlockRows *x, int64_t r, int64_t count, float *out) { \
        for (int64_t i = 0; i < count; i++)                                                                                \
            out[i * PANEL] = float_dot(type, w, k, x->floats + (r + i) * x->floats_row);                                   \
    }
ALL_FLOATS(FLOAT_DOTS)

typedef void Dots(const uint8_t *w, int64_t k, const BlockRows *x, int64_t r, int64_t count, float *out);
#define NAMED(type) [type] = dots_##type,
static Dots *const DOTS_OF[TYPES] = {ALL_BLOCKS(NAMED) ALL_FLOATS(NAMED)};

TARGET void cw_block_dots(const Part *part, int64_t column, int64_t columns, int64_t k, const BlockRows *x, int64_t r,
                          int64_t count, float *sums) {
    Dots *const dots = DOTS_OF[part->type];
    for (int64_t c = 0; c < columns; c++) dots(row_at(part, column + c), k, x, r, count, sums + c);
}

/* --- rows as floats --------------------------------------------------------------------------------------------------------- */

/* Numbers `from` .. from + 256 (or up to k) of a row; `from` is a multiple of 256. */
INLINE void floats_of(const int type, const uint8_t *w, int64_t from, int64_t k, float *out) {
    const int64_t end = k - from < 256 ? k : from + 256;
    if (FLOATS(type)) {
        for (int64_t i = from / 8; i * 8 < end; i++) {
            float each[8];
            _mm256_storeu_ps(each, eight(type, w, i, k));
            memcpy(out + i * 8 - from, each, (end - i * 8 < 8 ? end - i * 8 : 8) * sizeof(float));
        }
        return;
    }
    const int groups = GROUPS(type), origin = ORIGIN(type);
    for (int64_t g = from / GROUP; g < end / GROUP; g += groups) {
        Numbers n;
        read_block(type, w + g / groups * BLOCK_BYTES(type), &n);
        EACH_PAIR for (int i = 0; i < groups; i++) {
            uint8_t bytes[32] __attribute__((aligned(32)));
            _mm256_store_si256((__m256i *)bytes, n.u[i]);
            EACH_PAIR for (int j = 0; j < 4; j++) {
                const __m128i part = _mm_loadl_epi64((const __m128i *)(bytes + 8 * j));
                __m256i whole = SIGNED(type) && !ZERO_POINT ? _mm256_cvtepi8_epi32(part) : _mm256_cvtepu8_epi32(part);
                whole = _mm256_sub_epi32(whole, _mm256_set1_epi32(origin));
                const int at = OF_16(type) ? 2 * i + j / 2 : i;
                __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_set1_ps(n.scale[at]));
                if (!origin && !SIGNED(type)) y = _mm256_add_ps(y, _mm256_set1_ps(n.least[at]));
                _mm256_storeu_ps(out + (g + i) * GROUP + 8 * j - from, y);
            }
        }
    }
}

#define TO_FLOATS(type) \
    TARGET static void floats_##type(const uint8_t *w, int64_t from, int64_t k, float *out) { floats_of(type, w, from, k, out); }
ALL_BLOCKS(TO_FLOATS) ALL_FLOATS(TO_FLOATS)
typedef void ToFloats(const uint8_t *w, int64_t from, int64_t k, float *out);
#define NAMED_FLOATS(type) [type] = floats_##type,
static ToFloats *const FLOATS_OF[TYPES] = {ALL_BLOCKS(NAMED_FLOATS) ALL_FLOATS(NAMED_FLOATS)};

/* Rows of a part by their numbers [count] -> out [count, k]. 1 where one is not there, and nothing is written. */
int cw_block_rows(const Part *part, const int64_t *rows, int64_t count, int64_t k, float *out, int threads) {
    for (int64_t i = 0; i < count; i++)
        if (rows[i] < 0 || rows[i] >= part->n) return 1;
    const uint64_t start = __rdtsc();
    Team team __attribute__((aligned(64))) = {0};
    threads = threads > 1 && count * k > 500000 ? cw_members(threads, SHORT, start) : 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Member member = cw_join(&team);
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < count; i++) {
            float last[256];
            if (part->type == TILES_8) {
                cw_unit_row(part, rows[i], k, out + i * k);
                continue;
            }
            const uint8_t *w = row_at(part, rows[i]);
            for (int64_t from = 0; from < k; from += 256) {
                const int64_t n = k - from < 256 ? k - from : 256;
                FLOATS_OF[part->type](w, from, k, last);
                memcpy(out + i * k + from, last, n * sizeof(float));
            }
        }
        cw_leave(&member);
    }
    if (threads > 1) cw_judge(&team, threads, SHORT, start);
    return 0;
}

/* --- many rows: 32 columns are read once ------------------------------------------------------------------------------------ */

/* What a thread's memory for one panel holds: as floats [k][32], or for each half bytes [k / 4][16][4], then for each 16 or 32 numbers
 * scales [16] and leasts [16]. */
#define HALF_SCALES(k) ((k) / 16 * UNIT * 2)
int64_t cw_panel_bytes(int64_t k) {
    const int64_t floats = k * PANEL * 4, halves = 2 * (k * UNIT + HALF_SCALES(k) * 4);
    return (floats > halves ? floats : halves) + 64;
}

enum { AS_FLOATS, AS_BYTES };

/* 32 columns as floats. */
TARGET static void open_floats(const Halves *halves, int64_t k, float *panel) {
    memset(panel, 0, k * PANEL * sizeof(float));
    for (int h = 0; h < 2; h++) {
        if (halves->columns[h] && halves->part[h]->type == TILES_8) {
            cw_unit_floats(halves->part[h], halves->column[h], k, panel + h * UNIT);
            continue;
        }
        for (int64_t c = 0; c < halves->columns[h]; c += 8) {
            const Part *part = halves->part[h];
            const int64_t count = halves->columns[h] - c < 8 ? halves->columns[h] - c : 8;
            for (int64_t from = 0; from < k; from += 256) {
                float rows[8][256] __attribute__((aligned(32)));
                const int64_t end = k - from < 256 ? k - from : 256;
                for (int64_t i = 0; i < 8; i++)
                    FLOATS_OF[part->type](row_at(part, halves->column[h] + c + (i < count ? i : 0)), from, k, rows[i]);
                for (int64_t j = 0; j < end; j += 8) {
                    __m256i x[8];
                    EACH_PAIR for (int i = 0; i < 8; i++) x[i] = _mm256_load_si256((const __m256i *)(rows[i] + j));
                    turn(x);
                    for (int64_t i = 0; i < 8 && j + i < end; i++)
                        _mm256_storeu_si256((__m256i *)(panel + (from + j + i) * PANEL + h * UNIT + c), x[i]);
                }
            }
        }
    }
}

#ifndef CW_AVX2
/* 16 columns as bytes. */
INLINE void open_bytes(const int type, const Part *part, int64_t column, int64_t columns, int64_t k, uint8_t *bytes, float *scales) {
    const int groups = GROUPS(type), origin = ORIGIN(type), each = OF_16(type) ? 2 : 1;
    for (int64_t c = 0; c < UNIT; c += 8) {
        const uint8_t *w[8];
        for (int64_t i = 0; i < 8; i++) w[i] = row_at(part, column + (c + i < columns ? c + i : 0));
        for (int64_t g = 0; g < k / GROUP; g += groups) {
            __m256i u[8][8];
            for (int i = 0; i < 8; i++) {
                Numbers n;
                read_block(type, w[i] + g / groups * BLOCK_BYTES(type), &n);
                EACH_PAIR for (int j = 0; j < groups; j++) u[j][i] = n.u[j];
                EACH_PAIR for (int j = 0; j < groups * each; j++) {
                    float *to = scales + (g * each + j) * 2 * UNIT + c + i;
                    to[0] = n.scale[j], to[UNIT] = origin ? -(float)origin * n.scale[j] : n.least[j];
                }
            }
            for (int j = 0; j < groups; j++) {
                turn(u[j]);
                EACH_PAIR for (int s = 0; s < 8; s++)
                    _mm256_storeu_si256((__m256i *)(bytes + ((g + j) * 8 + s) * UNIT * 4 + c * 4), u[j][s]);
            }
        }
    }
}
#define OPEN(type)                                                                                                        \
    TARGET static void open_##type(const Part *part, int64_t column, int64_t columns, int64_t k, uint8_t *b, float *s) {   \
        open_bytes(type, part, column, columns, k, b, s);                                                                 \
    }
ALL_BLOCKS(OPEN)
typedef void Open(const Part *part, int64_t column, int64_t columns, int64_t k, uint8_t *bytes, float *scales);
#define NAMED_OPEN(type) [type] = open_##type,
static Open *const OPEN_OF[TYPES] = {ALL_BLOCKS(NAMED_OPEN)};

/* `count` rows times 16 columns. */
INLINE void byte_tile(const int count, const int of_16, int64_t k, const uint8_t *w, const float *scales, const char *x, int64_t x_row, float *sums) {
    __m512 all[ROWS];
    EACH_PAIR for (int i = 0; i < count; i++) all[i] = _mm512_setzero_ps();
    const int steps = of_16 ? 4 : 8;
    const int64_t each = steps * 4;
    const int64_t scale_at = k, sum_at = of_16 ? k + k / GROUP * 8 : k + k / GROUP * 4;
    for (int64_t g = 0; g < k / each; g++, scales += 2 * UNIT) {
        __m512i whole[ROWS];
        EACH_PAIR for (int i = 0; i < count; i++) whole[i] = _mm512_setzero_si512();
        EACH_PAIR for (int s = 0; s < steps; s++, w += UNIT * 4) {
            const __m512i u = _mm512_loadu_si512(w);
            EACH_PAIR for (int i = 0; i < count; i++) {
                int32_t four;
                memcpy(&four, x + i * x_row + g * each + s * 4, 4);
                whole[i] = _mm512_dpbusd_epi32(whole[i], u, _mm512_set1_epi32(four));
            }
        }
        const __m512 scale = _mm512_loadu_ps(scales), least = _mm512_loadu_ps(scales + UNIT);
        EACH_PAIR for (int i = 0; i < count; i++) {
            float own, sum;
            memcpy(&own, x + i * x_row + scale_at + (of_16 ? g / 2 : g) * 4, 4);
            memcpy(&sum, x + i * x_row + sum_at + g * 4, 4);
            all[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[i]), _mm512_mul_ps(scale, _mm512_set1_ps(own)), all[i]);
            all[i] = _mm512_fmadd_ps(least, _mm512_set1_ps(sum), all[i]);
        }
    }
    EACH_PAIR for (int i = 0; i < count; i++) _mm512_storeu_ps(sums + i * PANEL, all[i]);
}
typedef void ByteTile(int64_t k, const uint8_t *w, const float *scales, const char *x, int64_t x_row, float *sums);
#define BYTE_TILE(n)                                                                                                                  \
    TARGET static void bytes32_##n(int64_t k, const uint8_t *w, const float *s, const char *x, int64_t x_row, float *sums) {           \
        byte_tile(n, 0, k, w, s, x, x_row, sums);                                                                                     \
    }                                                                                                                                 \
    TARGET static void bytes16_##n(int64_t k, const uint8_t *w, const float *s, const char *x, int64_t x_row, float *sums) {           \
        byte_tile(n, 1, k, w, s, x, x_row, sums);                                                                                     \
    }
BYTE_TILE(1) BYTE_TILE(2) BYTE_TILE(3) BYTE_TILE(4) BYTE_TILE(5) BYTE_TILE(6)
BYTE_TILE(7) BYTE_TILE(8) BYTE_TILE(9) BYTE_TILE(10) BYTE_TILE(11) BYTE_TILE(12)
#define COUNTS(name) \
    {0, name##1, name##2, name##3, name##4, name##5, name##6, name##7, name##8, name##9, name##10, name##11, name##12}
static ByteTile *const BYTE_TILES[2][ROWS + 1] = {COUNTS(bytes32_), COUNTS(bytes16_)};
#endif

/* Reads the panel; returns how it lies there. */
TARGET int cw_block_open(const Halves *halves, int64_t k, char *panel) {
    panel += -(intptr_t)panel & 63;
#ifndef CW_AVX2
    int bytes = 1;
    for (int h = 0; h < 2; h++) bytes = bytes && (!halves->columns[h] || OPEN_OF[halves->part[h]->type]);
    if (bytes) {
        for (int h = 0; h < 2; h++) {
            uint8_t *own = (uint8_t *)panel + h * (k * UNIT + HALF_SCALES(k) * 4);
            if (halves->columns[h])
                OPEN_OF[halves->part[h]->type](halves->part[h], halves->column[h], halves->columns[h], k, own, (float *)(own + k * UNIT));
        }
        return AS_BYTES;
    }
#endif
    open_floats(halves, k, (float *)panel);
    return AS_FLOATS;
}

TARGET void cw_block_tile(const Halves *halves, int opened, int64_t k, const char *panel, const BlockRows *x, int64_t r, int64_t count, float *sums) {
    panel += -(intptr_t)panel & 63;
#ifndef CW_AVX2
    if (opened == AS_BYTES) {
        for (int h = 0; h < 2; h++) {
            const uint8_t *own = (const uint8_t *)panel + h * (k * UNIT + HALF_SCALES(k) * 4);
            if (!halves->columns[h]) continue;
            const int of_16 = OF_16(halves->part[h]->type);
            BYTE_TILES[of_16][count](k, own, (const float *)(own + k * UNIT), x->bytes + r * x->bytes_row, x->bytes_row, sums + h * UNIT);
        }
        return;
    }
#endif
    (void)halves, (void)opened;
    const Stride stride = {x->floats_row * 4, 4};
    cw_tiles[FP32][count]((const char *)(x->floats + r * x->floats_row), stride, panel, PANEL * 4, k, sums);
}

#endif
