/* Integer products for the processor: rows of numbers become bytes, bytes times bytes become sums, sums become numbers.
 *
 * Each step is one pass over memory, which no chain of torch operators gives: scaling by row and column, bias, activation
 * and residual happen in the registers that hold the sums. AVX-512 with VNNI only; `cw_supported` says whether the chip
 * has it, and cutaway computes the same through torch where it has not, or where this file was not compiled.
 *
 * Layout of a packed weight: panels of 32 outputs; inside a panel, for each 4 inputs, 32 outputs of 4 bytes.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define PANEL 32
#define ROWS 12     /* rows of one tile: 12 x 2 vectors of sums, of the 32 that the chip has */
#define BLOCK 48    /* rows that one thread takes at a time */
#define SMALL 500000 /* products below which other threads are not worth waking */

enum { NONE, GELU, GELU_TANH, GELU_QUICK, RELU, SILU, TANH };

int cw_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

INLINE __m512 widen(__m256i halves) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16)); }

/* Nearest bfloat16, ties to even; NaN stays NaN. */
INLINE __m256i narrow(__m512 x) {
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(up, nan, _mm512_set1_epi32(0x7fc0)));
}

INLINE __m512 load(const void *x, int64_t i, int bf16, __mmask16 m) {
    if (bf16) return widen(_mm256_maskz_loadu_epi16(m, (const uint16_t *)x + i));
    return _mm512_maskz_loadu_ps(m, (const float *)x + i);
}

INLINE void store(void *x, int64_t i, int bf16, __mmask16 m, __m512 value) {
    if (bf16) _mm256_mask_storeu_epi16((uint16_t *)x + i, m, narrow(value));
    else _mm512_mask_storeu_ps((float *)x + i, m, value);
}

/* e^x to float32's precision: 2^n times a polynomial of the rest. */
INLINE __m512 exp_(__m512 x) {
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.0f)), _mm512_set1_ps(-87.0f));
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

INLINE __m512 sigmoid(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, exp_(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

/* x times the normal distribution's share below x; erf after Abramowitz and Stegun, 7.1.26 (error 1.5e-7). */
INLINE __m512 gelu(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678118654752f));
    __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(_mm512_set1_ps(0.3275911f), z, one));
    __m512 p = _mm512_set1_ps(1.061405429f);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
    __m512 tail = _mm512_mul_ps(_mm512_mul_ps(p, t), exp_(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(z, z))));
    /* share below |x| is 1 - tail / 2, below -|x| tail / 2 */
    __m512 half = _mm512_mul_ps(tail, _mm512_set1_ps(0.5f));
    __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mul_ps(x, _mm512_mask_mov_ps(_mm512_sub_ps(one, half), negative, half));
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

/* A row of k numbers as bytes: x = scale * (byte - 128) + offset, over the row's range with 0 in it. NaN or infinity in
 * a row makes its scale NaN. */
typedef struct {
    float scale, offset;
} Row;

INLINE __mmask16 first(int64_t n) { return n >= 16 ? 0xffff : n > 0 ? (__mmask16)((1u << n) - 1) : 0; }

INLINE void row_bytes(const void *x, int64_t from, int bf16, int64_t k, int64_t padded, uint8_t *q, Row *row) {
    __m512 low = _mm512_setzero_ps(), high = low;
    __m512i most = _mm512_setzero_si512();
    for (int64_t i = 0; i < k; i += 16) {
        const __m512 value = load(x, from + i, bf16, first(k - i));
        low = _mm512_min_ps(low, value), high = _mm512_max_ps(high, value);
        /* as whole numbers without sign, infinity and NaN are the largest */
        most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(value), _mm512_set1_epi32(0x7fffffff)));
    }
    const float least = _mm512_reduce_min_ps(low), range = _mm512_reduce_max_ps(high) - least;
    const int finite = _mm512_reduce_max_epi32(most) < 0x7f800000;
    row->scale = finite ? range / 255.0f : __builtin_nanf("");
    row->offset = least + 128.0f * row->scale;
    const __m512 inverse = _mm512_set1_ps(range > 0.0f ? 255.0f / range : 0.0f), from_least = _mm512_set1_ps(least);
    for (int64_t i = 0; i < padded; i += 16) {
        const __m512 value = _mm512_sub_ps(load(x, from + i, bf16, first(k - i)), from_least);
        const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(value, inverse));
        _mm_mask_storeu_epi8(q + i, first(padded - i), _mm512_cvtepi32_epi8(whole));
    }
}

/* w [n, k] -> packed [panels, padded / 4, 32, 4] and shift [panels * 32] = 128 x the sum of each row of w. */
void cw_pack(const int8_t *w, int64_t n, int64_t k, int8_t *packed, int32_t *shift) {
    int64_t steps = (k + 3) / 4, panels = (n + PANEL - 1) / PANEL;
    memset(packed, 0, panels * steps * PANEL * 4);
    memset(shift, 0, panels * PANEL * 4);
    for (int64_t i = 0; i < n; i++) {
        int8_t *to = packed + i / PANEL * steps * PANEL * 4 + i % PANEL * 4;
        int32_t sum = 0;
        for (int64_t j = 0; j < k; j++) {
            to[j / 4 * PANEL * 4 + j % 4] = w[i * k + j];
            sum += w[i * k + j];
        }
        shift[i] = 128 * sum;
    }
}

/* One weight as `cw_pack` left it: w = packed * col_scale. The caller keeps what the pointers name. */
typedef struct {
    const int8_t *packed;
    const float *col_scale;
    const int32_t *shift;
    const float *bias; /* or NULL */
    int64_t n, k;
} Weight;

typedef struct {
    const Weight *weight;
    const uint8_t *q;
    const Row *scales;
    const void *residual; /* or NULL */
    void *out;
    int64_t padded;
    int bf16;
} Job;

/* Rows r .. r + count of one panel. `count`, `activation` and `bf16` are constants where this is called. */
INLINE void tile(const Job *job, int64_t r, int64_t panel, const int count, const int activation, const int bf16) {
    __m512i sums[ROWS][2];
    const int64_t padded = job->padded, steps = padded / 4;
    const uint8_t *q = job->q + r * padded;
    const int8_t *w = job->weight->packed + panel * steps * PANEL * 4;
#pragma GCC unroll 12
    for (int i = 0; i < count; i++) sums[i][0] = sums[i][1] = _mm512_setzero_si512();
    for (int64_t s = 0; s < steps; s++, w += PANEL * 4) {
        const __m512i low = _mm512_loadu_si512(w), high = _mm512_loadu_si512(w + 64);
#pragma GCC unroll 12
        for (int i = 0; i < count; i++) {
            int32_t four;
            memcpy(&four, q + i * padded + s * 4, 4);
            const __m512i x = _mm512_set1_epi32(four);
            sums[i][0] = _mm512_dpbusd_epi32(sums[i][0], x, low);
            sums[i][1] = _mm512_dpbusd_epi32(sums[i][1], x, high);
        }
    }
    __m512i done[2][ROWS]; /* what is indexed below lies in memory; the sums above must stay in registers */
#pragma GCC unroll 12
    for (int i = 0; i < count; i++) done[0][i] = sums[i][0], done[1][i] = sums[i][1];
    const Weight *weight = job->weight;
    for (int half = 0; half < 2; half++) {
        const int64_t column = panel * PANEL + half * 16, left = weight->n - column;
        if (left <= 0) break;
        const __mmask16 m = first(left);
        const __m512 scale = _mm512_maskz_loadu_ps(m, weight->col_scale + column);
        const __m512i shift = _mm512_loadu_si512(weight->shift + column);
        const __m512 sum = _mm512_mul_ps(_mm512_cvtepi32_ps(shift), _mm512_set1_ps(1.0f / 128));
        const __m512 bias = weight->bias ? _mm512_maskz_loadu_ps(m, weight->bias + column) : _mm512_setzero_ps();
        for (int i = 0; i < count; i++) {
            __m512 y = _mm512_cvtepi32_ps(_mm512_sub_epi32(done[half][i], shift));
            y = _mm512_mul_ps(y, _mm512_set1_ps(job->scales[r + i].scale));
            y = _mm512_fmadd_ps(_mm512_set1_ps(job->scales[r + i].offset), sum, y);
            y = activate(_mm512_fmadd_ps(y, scale, bias), activation);
            const int64_t at = (r + i) * weight->n + column;
            if (job->residual) y = _mm512_add_ps(y, load(job->residual, at, bf16, m));
            store(job->out, at, bf16, m, y);
        }
    }
}

INLINE void rows_of(const Job *job, int64_t r, int64_t panel, int64_t count, const int activation, const int bf16) {
    for (; count >= ROWS; r += ROWS, count -= ROWS) tile(job, r, panel, ROWS, activation, bf16);
    for (; count >= 4; r += 4, count -= 4) tile(job, r, panel, 4, activation, bf16);
    for (; count > 0; r++, count--) tile(job, r, panel, 1, activation, bf16);
}

#define KIND(name, activation)                                                                           \
    TARGET static __attribute__((noinline)) void name(const Job *job, int64_t r, int64_t p, int64_t n) { \
        if (job->bf16) rows_of(job, r, p, n, activation, 1);                                             \
        else rows_of(job, r, p, n, activation, 0);                                                       \
    }
KIND(with_none, NONE)
KIND(with_gelu, GELU)
KIND(with_gelu_tanh, GELU_TANH)
KIND(with_gelu_quick, GELU_QUICK)
KIND(with_relu, RELU)
KIND(with_silu, SILU)
KIND(with_tanh, TANH)
static void (*const KINDS[])(const Job *, int64_t, int64_t, int64_t) = {
    with_none, with_gelu, with_gelu_tanh, with_gelu_quick, with_relu, with_silu, with_tanh,
};

/* activation(x w^T + bias) + residual -> out [rows, n]: x [rows, k], its rows `stride` numbers apart, becomes bytes on the
 * way. x, residual and out are all float32, or all bfloat16. Returns 0, or 1 where memory is short. */
TARGET int cw_linear(const Weight *weight, const void *x, int64_t rows, int64_t stride, int activation, const void *residual,
                     void *out, int bf16, int threads) {
    const int64_t k = weight->k, n = weight->n, padded = (k + 3) / 4 * 4;
    const int64_t panels = (n + PANEL - 1) / PANEL, blocks = (rows + BLOCK - 1) / BLOCK;
    uint8_t *q = malloc(rows * (padded + sizeof(Row)));
    if (!q) return 1;
    Row *scales = (Row *)(q + rows * padded); /* `padded` is a multiple of 4, as is what a Row asks for */
    const Job job = {weight, q, scales, residual, out, padded, bf16};
    void (*run)(const Job *, int64_t, int64_t, int64_t) = KINDS[activation];
#pragma omp parallel num_threads(threads) if (threads > 1 && rows * n * k > SMALL)
    {
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            if (bf16) row_bytes(x, r * stride, 1, k, padded, q + r * padded, scales + r);
            else row_bytes(x, r * stride, 0, k, padded, q + r * padded, scales + r);
        }
        /* blocks outside: the rows of a block stay in the first cache, and the weight passes through the second */
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < blocks; b++)
            for (int64_t p = 0; p < panels; p++) {
                const int64_t from = b * BLOCK;
                run(&job, from, p, rows - from < BLOCK ? rows - from : BLOCK);
            }
    }
    free(q);
    return 0;
}

#else

int cw_supported(void) { return 0; }

#endif
