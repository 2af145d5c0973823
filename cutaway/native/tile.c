/* The tiles of tile.h, one function for each kind and count, so that all sums stay in registers. */

#if defined(__x86_64__) && defined(__GNUC__)

#include "op.h"
#include "tile.h"
#include "vector.h"

#include <math.h>
#include <string.h>

int cw_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

int cw_bf16_supported(void) { return cw_supported() && __builtin_cpu_supports("avx512bf16"); }

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
#define TILES(name, ...)                                                                                              \
    TILE(name, 1, __VA_ARGS__) TILE(name, 2, __VA_ARGS__) TILE(name, 3, __VA_ARGS__) TILE(name, 4, __VA_ARGS__)       \
    TILE(name, 5, __VA_ARGS__) TILE(name, 6, __VA_ARGS__) TILE(name, 7, __VA_ARGS__) TILE(name, 8, __VA_ARGS__)       \
    TILE(name, 9, __VA_ARGS__) TILE(name, 10, __VA_ARGS__) TILE(name, 11, __VA_ARGS__) TILE(name, 12, __VA_ARGS__)

#define FLOAT_STEP(sum, x, w) _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sum)
#define HALF_STEP(sum, x, w) _mm512_dpbf16_ps(sum, (__m512bh)(x), (__m512bh)(w))
TILES(floats, TARGET, __m512, _mm512_setzero_ps(), _mm512_storeu_ps, FLOAT_STEP)
TILES(halves, TARGET_BF16, __m512, _mm512_setzero_ps(), _mm512_storeu_ps, HALF_STEP)
TILES(bytes, TARGET, __m512i, _mm512_setzero_si512(), _mm512_storeu_si512, _mm512_dpbusd_epi32)

#define EACH(name) \
    {0, name##1, name##2, name##3, name##4, name##5, name##6, name##7, name##8, name##9, name##10, name##11, name##12}
Tile *const cw_tiles[3][ROWS + 1] = {EACH(floats), EACH(halves), EACH(bytes)};
AskingTile *const cw_asking_tiles[3][ROWS + 1] = {EACH(floats_asking), EACH(halves_asking), EACH(bytes_asking)};

#else

int cw_supported(void) { return 0; }

int cw_bf16_supported(void) { return 0; }

#endif
