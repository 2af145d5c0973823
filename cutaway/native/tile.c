/* The tiles of tile.h, one function for each kind and count, so that all sums stay in registers. */

#if defined(__x86_64__) && defined(__GNUC__)

#include "op.h"
#include "tile.h"
#include "vector.h"

#include <math.h>
#include <string.h>

#ifdef CW_AVX2
#include <cpuid.h>

int cw_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

int cw_bf16_supported(void) { return cw_supported(); }
#else
int cw_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

int cw_bf16_supported(void) { return cw_supported() && __builtin_cpu_supports("avx512bf16"); }
#endif

float cw_gelu[5][16];

/* Each interval's polynomial through h at the five Chebyshev points, as powers of the place in it (0 to 1). */
__attribute__((constructor)) static void lay_out_gelu(void) {
    for (int i = 0; i < 16; i++) {
        double t[5], d[5], powers[5] = {0};
        for (int j = 0; j < 5; j++) {
            t[j] = 0.5 - 0.5 * cos((2 * j + 1) * M_PI / 10);
            d[j] = 0.5 * erf((i + t[j]) * 5.5 / 16 * M_SQRT1_2);
        }
        for (int order = 1; order < 5; order++) /* divided differences */
            for (int j = 4; j >= order; j--) d[j] = (d[j] - d[j - 1]) / (t[j] - t[j - order]);
        for (int j = 4; j >= 0; j--) { /* Newton's form to powers: p = d[j] + (x - t[j]) p */
            for (int n = 4; n > 0; n--) powers[n] = powers[n - 1] - t[j] * powers[n];
            powers[0] = d[j] - t[j] * powers[0];
        }
        for (int n = 0; n < 5; n++) cw_gelu[n][i] = (float)powers[n];
    }
}

#ifdef CW_AVX2

/* 16 registers hold the sums of 6 rows times half a panel, or of 2 rows times all of it. More rows are done one part after
 * another. A step of 4 bytes is multiplied as it is, or in two parts: the lower and the higher bfloat16, to_fp32_rows; the even and the
 * odd bytes as words. */
#define PART 6
/* Added to where it is: the compiler would gather both parts first, for which there are no registers. */
#define IN_PLACE(sum) __asm__("" : "+x"(sum))
#define BLOCK(name, target, type, zero, put, parts, weight_of, row_of, add_step)                                            \
    target ALWAYS void name##_block(const char *x, Stride stride, const char *w, int64_t w_step, int64_t steps,             \
                                    const int count, const int vectors, const int asking, Ahead ahead, float *out) {        \
        type sums[PART][4];                                                                                                 \
        _Pragma("GCC unroll 6") for (int i = 0; i < count; i++)                                                             \
            _Pragma("GCC unroll 4") for (int v = 0; v < vectors; v++) sums[i][v] = zero;                                    \
        for (int64_t s = 0; s < steps; s++, w += w_step, x += stride.step) {                                                \
            if (asking) {                                                                                                   \
                _mm_prefetch(ahead.from, _MM_HINT_T1);                                                                      \
                _mm_prefetch(ahead.from + 64, _MM_HINT_T1);                                                                 \
                ahead.from += ahead.step;                                                                                   \
            }                                                                                                               \
            _Pragma("GCC unroll 2") for (int part = 0; part < parts; part++) {                                              \
                if (part) __asm__ volatile("" ::: "memory"); /* what the other part held is read again: no registers are left */ \
                __m256i columns[4];                                                                                         \
                _Pragma("GCC unroll 4") for (int v = 0; v < vectors; v++)                                                   \
                    columns[v] = weight_of(part, _mm256_loadu_si256((const __m256i *)w + v));                               \
                _Pragma("GCC unroll 6") for (int i = 0; i < count; i++) {                                                   \
                    const __m256i each = row_of(part, x + i * stride.row);                                                  \
                    _Pragma("GCC unroll 4") for (int v = 0; v < vectors; v++) {                                             \
                        sums[i][v] = add_step(sums[i][v], each, columns[v]);                                                \
                        IN_PLACE(sums[i][v]);                                                                               \
                    }                                                                                                       \
                }                                                                                                           \
            }                                                                                                               \
        }                                                                                                                   \
        _Pragma("GCC unroll 6") for (int i = 0; i < count; i++)                                                             \
            _Pragma("GCC unroll 4") for (int v = 0; v < vectors; v++) put(out + i * PANEL + v * 8, sums[i][v]);             \
    }
#define TILE(name, count, target)                                                                                           \
    target ALWAYS void name##count##_of(const char *x, Stride stride, const char *w, int64_t w_step, int64_t steps,         \
                                        const int asking, Ahead ahead, float *out) {                                        \
        const int own = count > PART ? (count + 1) / 2 : count, other = count - own;                                        \
        if (count <= 2) {                                                                                                   \
            name##_block(x, stride, w, w_step, steps, count, 4, asking, ahead, out);                                        \
            return;                                                                                                         \
        }                                                                                                                   \
        const char *x2 = x + own * stride.row;                                                                              \
        name##_block(x, stride, w, w_step, steps, own, 2, asking, ahead, out);                                              \
        if (other) name##_block(x2, stride, w, w_step, steps, other, 2, 0, ahead, out + own * PANEL);                       \
        name##_block(x, stride, w + 64, w_step, steps, own, 2, 0, ahead, out + 16);                                         \
        if (other) name##_block(x2, stride, w + 64, w_step, steps, other, 2, 0, ahead, out + own * PANEL + 16);             \
    }                                                                                                                       \
    target static void name##count(const char *x, Stride stride, const char *w, int64_t w_step, int64_t steps, float *out) { \
        name##count##_of(x, stride, w, w_step, steps, 0, (Ahead){0}, out);                                                  \
    }                                                                                                                       \
    target static void name##_asking##count(const char *x, Stride stride, const char *w, int64_t w_step, int64_t steps,     \
                                            Ahead ahead, float *out) {                                                      \
        name##count##_of(x, stride, w, w_step, steps, 1, ahead, out);                                                       \
    }

#else

#define TILE(name, count, target, type, zero, put, add_step)                                                                \
    target ALWAYS void name##count##_of(const char *x, Stride stride, const char *w, int64_t w_step, int64_t steps,         \
                                        const int asking, Ahead ahead, float *out) {                                        \
        type sums[ROWS][2];                                                                                                 \
        _Pragma("GCC unroll 12") for (int i = 0; i < count; i++) sums[i][0] = sums[i][1] = zero;                            \
        for (int64_t s = 0; s < steps; s++, w += w_step, x += stride.step) {                                                \
            const __m512i low = _mm512_loadu_si512(w), high = _mm512_loadu_si512(w + 64);                                   \
            if (asking) {                                                                                                   \
                _mm_prefetch(ahead.from, _MM_HINT_T1);                                                                      \
                _mm_prefetch(ahead.from + 64, _MM_HINT_T1);                                                                 \
                ahead.from += ahead.step;                                                                                   \
            }                                                                                                               \
            _Pragma("GCC unroll 12") for (int i = 0; i < count; i++) {                                                      \
                int32_t four;                                                                                               \
                memcpy(&four, x + i * stride.row, 4);                                                                       \
                const __m512i each = _mm512_set1_epi32(four);                                                               \
                sums[i][0] = add_step(sums[i][0], each, low);                                                               \
                sums[i][1] = add_step(sums[i][1], each, high);                                                              \
            }                                                                                                               \
        }                                                                                                                   \
        _Pragma("GCC unroll 12") for (int i = 0; i < count; i++) {                                                          \
            put(out + i * PANEL, sums[i][0]);                                                                               \
            put(out + i * PANEL + 16, sums[i][1]);                                                                          \
        }                                                                                                                   \
    }                                                                                                                       \
    target static void name##count(const char *x, Stride stride, const char *w, int64_t w_step, int64_t steps, float *out) { \
        name##count##_of(x, stride, w, w_step, steps, 0, (Ahead){0}, out);                                                  \
    }                                                                                                                       \
    target static void name##_asking##count(const char *x, Stride stride, const char *w, int64_t w_step, int64_t steps,     \
                                            Ahead ahead, float *out) {                                                      \
        name##count##_of(x, stride, w, w_step, steps, 1, ahead, out);                                                       \
    }
#endif

#define TILES(name, ...)                                                                                              \
    TILE(name, 1, __VA_ARGS__) TILE(name, 2, __VA_ARGS__) TILE(name, 3, __VA_ARGS__) TILE(name, 4, __VA_ARGS__)       \
    TILE(name, 5, __VA_ARGS__) TILE(name, 6, __VA_ARGS__) TILE(name, 7, __VA_ARGS__) TILE(name, 8, __VA_ARGS__)       \
    TILE(name, 9, __VA_ARGS__) TILE(name, 10, __VA_ARGS__) TILE(name, 11, __VA_ARGS__) TILE(name, 12, __VA_ARGS__)

#ifdef CW_AVX2

INLINE __m256i four_bytes(const char *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}
INLINE void put_ints(float *to, __m256i x) { _mm256_storeu_si256((__m256i *)to, x); }

#define WHOLE(part, x) x
#define FROM_ROW(part, x) four_bytes(x)
#define FLOAT_STEP(sum, x, w) _mm256_fmadd_ps(_mm256_castsi256_ps(x), _mm256_castsi256_ps(w), sum)
BLOCK(floats, TARGET, __m256, _mm256_setzero_ps(), _mm256_storeu_ps, 1, WHOLE, FROM_ROW, FLOAT_STEP)
TILES(floats, TARGET)

#define HALF(part, x) ((part) ? _mm256_and_si256(x, _mm256_set1_epi32((int)0xffff0000)) : _mm256_slli_epi32(x, 16))
#define HALF_OF_ROW(part, x) HALF(part, four_bytes(x))
BLOCK(halves, TARGET, __m256, _mm256_setzero_ps(), _mm256_storeu_ps, 2, HALF, HALF_OF_ROW, FLOAT_STEP)
TILES(halves, TARGET)

#define WORDS(part, x) _mm256_srai_epi16((part) ? x : _mm256_slli_epi16(x, 8), 8)
#define WORDS_OF_ROW(part, x) four_bytes((x) + 4 * (part))
#define WORD_STEP(sum, x, w) _mm256_add_epi32(sum, _mm256_madd_epi16(x, w))
BLOCK(bytes, TARGET, __m256i, _mm256_setzero_si256(), put_ints, 2, WORDS, WORDS_OF_ROW, WORD_STEP)
TILES(bytes, TARGET)

/* AVX-VNNI, or to try the same on a chip that has it as a part of AVX-512 only (CW_TRY_VNNI), that. */
#if defined(CW_TRY_VNNI)
#define TARGET_VNNI __attribute__((target("avx2,fma,f16c,avx512vl,avx512vnni")))
#define FOURS_STEP _mm256_dpbusd_epi32
#elif defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define TARGET_VNNI __attribute__((target("avx2,fma,f16c,avxvnni")))
#define FOURS_STEP _mm256_dpbusd_avx_epi32
#endif
#ifdef TARGET_VNNI
TARGET_VNNI ALWAYS __m256i fours_of(const char *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}
TARGET_VNNI ALWAYS void put_fours(float *to, __m256i x) { _mm256_storeu_si256((__m256i *)to, x); }
#define FOURS_OF_ROW(part, x) fours_of(x)
BLOCK(fours, TARGET_VNNI, __m256i, _mm256_setzero_si256(), put_fours, 1, WHOLE, FOURS_OF_ROW, FOURS_STEP)
TILES(fours, TARGET_VNNI)
#endif

#else

#define FLOAT_STEP(sum, x, w) _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sum)
#define HALF_STEP(sum, x, w) _mm512_dpbf16_ps(sum, (__m512bh)(x), (__m512bh)(w))
TILES(floats, TARGET, __m512, _mm512_setzero_ps(), _mm512_storeu_ps, FLOAT_STEP)
TILES(halves, TARGET_BF16, __m512, _mm512_setzero_ps(), _mm512_storeu_ps, HALF_STEP)
TILES(bytes, TARGET, __m512i, _mm512_setzero_si512(), _mm512_storeu_si512, _mm512_dpbusd_epi32)

#endif

#define EACH(name) \
    {0, name##1, name##2, name##3, name##4, name##5, name##6, name##7, name##8, name##9, name##10, name##11, name##12}
Tile *cw_tiles[3][ROWS + 1] = {EACH(floats), EACH(halves), EACH(bytes)};
AskingTile *cw_asking_tiles[3][ROWS + 1] = {EACH(floats_asking), EACH(halves_asking), EACH(bytes_asking)};

#ifdef CW_AVX2
int64_t cw_row_step = 8;

static int vnni_supported(void) {
    unsigned a, b, c, d;
#ifdef CW_TRY_VNNI
    return __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#endif
    return cw_supported() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}

__attribute__((constructor)) static void choose_bytes(void) {
#ifdef TARGET_VNNI
    static Tile *const fours[] = EACH(fours);
    static AskingTile *const asking[] = EACH(fours_asking);
    if (!vnni_supported()) return;
    cw_row_step = 4;
    memcpy(cw_tiles[INT8], fours, sizeof fours);
    memcpy(cw_asking_tiles[INT8], asking, sizeof asking);
#endif
}

/* Whether the chip multiplies bytes as they are. */
int cw_vnni_used(void) { return ROW_STEP == 4; }
#else
int cw_vnni_used(void) { return 1; }
#endif

#else

int cw_supported(void) { return 0; }

int cw_bf16_supported(void) { return 0; }

int cw_vnni_used(void) { return 0; }

#endif
