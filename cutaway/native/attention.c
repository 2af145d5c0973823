/* Attention inside texts that lie one after another: softmax(q k^T scale) v for each text and head, with no padding. Keys
 * and values may also lie in a cache, behind those of earlier tokens.
 *
 * Scores stand keys down, queries across: 32 queries of a text are transposed once, keys are read where they lie,
 * and maximum, exponential and sum run down the columns, 16 queries to an instruction. All keys' scores of 32 queries are
 * held at once (they fit the cache to a few thousand keys), so the softmax is the plain one.
 */

#if defined(__x86_64__) && defined(__GNUC__)

#include "op.h"
#include "tile.h"
#include "vector.h"

#include <stdlib.h>
#include <string.h>

#define SMALL 200000 /* products below which other threads are not worth waking */
#define APART 256    /* keys of a text from which on it pays to gather those of a head */
#define PIECE 64     /* rows of panels of a long text that are one job: a prompt has few heads that keys are read by, and its end most to see */

/* Rows of q, k, v, out lie `row` numbers apart; the heads of a row stand side by side, `size` (a multiple of 32) numbers
 * each; those of k are `k_head` numbers apart, of v `v_head`. heads is a multiple of kv_heads. Text t has `lengths[t]` rows
 * from row `starts[t]`.
 * In a cache, its keys and values begin at the number `key_starts[t]` (NULL: in its first row), and the first `before[t]` of
 * them (NULL: none) belong to earlier tokens. */
typedef struct {
    Op op;
    const void *q, *k, *v;
    void *out;
    int64_t q_row, k_row, v_row, out_row, k_head, v_head;
    const int64_t *starts, *lengths, *key_starts, *before;
    int64_t texts, heads, kv_heads, size, window; /* window: a query sees keys less than so many places away; 0: all */
    float scale;
    int causal, bf16;
} Attention;

/* 16 rows of 16 units of 4 bytes, row i at from + rows[i] -> the same by columns, at `to`, columns PANEL units apart. Rows from
 * `count` on are zeros. */
INLINE void transposed(const char *from, const int64_t *rows, int64_t count, int32_t *to) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = i < count ? _mm512_loadu_si512(from + rows[i]) : _mm512_setzero_si512();
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    /* a[4 g + c] holds, in each quarter f, column 4 f + c of rows 4 g .. 4 g + 3 */
    for (int c = 0; c < 4; c++) {
        const __m512i low = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x44), high = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xee);
        const __m512i low2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x44);
        const __m512i high2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xee);
        _mm512_storeu_si512(to + c * PANEL, _mm512_shuffle_i32x4(low, low2, 0x88));
        _mm512_storeu_si512(to + (4 + c) * PANEL, _mm512_shuffle_i32x4(low, low2, 0xdd));
        _mm512_storeu_si512(to + (8 + c) * PANEL, _mm512_shuffle_i32x4(high, high2, 0x88));
        _mm512_storeu_si512(to + (12 + c) * PANEL, _mm512_shuffle_i32x4(high, high2, 0xdd));
    }
}

/* Which of 16 queries see a key, `ahead` places behind the first of a panel; theirs are `places` behind it. */
INLINE __mmask16 sees(const Attention *a, int64_t ahead, __m512i places) {
    const __m512i far = _mm512_sub_epi32(_mm512_set1_epi32((int)ahead), places); /* the key's place minus the query's */
    __mmask16 m = a->causal ? _mm512_cmple_epi32_mask(far, _mm512_setzero_si512()) : 0xffff;
    if (a->window) m &= _mm512_cmplt_epi32_mask(_mm512_abs_epi32(far), _mm512_set1_epi32((int)a->window));
    return m;
}

/* The scores [keys][32] of queries, `places` [32] behind the first of them, and keys from `ahead` places behind it on ->
 * e^(scale (score - the largest)), in place; of bfloat16, pairs of keys side by side. total [32] = what each query's numbers
 * add up to. */
INLINE void weights(const Attention *a, float *scores, int64_t keys, int64_t ahead, const int32_t *places, float *total, const int bf16) {
    const __m512 scale = _mm512_set1_ps(a->scale * 1.44269504088896341f); /* e^x is 2^(x / ln 2) */
    const __m512i half_up = _mm512_set1_epi32(0x8000);
    const int masked = a->causal || a->window;
    for (int half = 0; half < 2; half++) {
        float *column = scores + half * 16;
        const __m512i own = _mm512_loadu_si512(places + half * 16);
        __m512 largest = _mm512_set1_ps(-__builtin_inff()), sum = _mm512_setzero_ps();
        for (int64_t j = 0; j < keys; j++) {
            const __m512 x = _mm512_loadu_ps(column + j * PANEL);
            largest = masked ? _mm512_mask_max_ps(largest, sees(a, ahead + j, own), largest, x) : _mm512_max_ps(largest, x);
        }
        const __m512 zero = _mm512_mul_ps(largest, scale);
        __m512i before = _mm512_setzero_si512();
        for (int64_t j = 0; j < keys; j++) {
            __m512 e = exp2_(_mm512_fmsub_ps(_mm512_loadu_ps(column + j * PANEL), scale, zero));
            if (masked) e = _mm512_maskz_mov_ps(sees(a, ahead + j, own), e);
            sum = _mm512_add_ps(sum, e);
            if (!bf16) {
                _mm512_storeu_ps(column + j * PANEL, e);
                continue;
            }
            const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(e), half_up); /* to the nearest: none is negative */
            if (j % 2) {
                const __m512i high = _mm512_and_si512(bits, _mm512_set1_epi32((int)0xffff0000));
                _mm512_storeu_si512(column + j / 2 * PANEL, _mm512_or_si512(_mm512_srli_epi32(before, 16), high));
            }
            before = bits;
        }
        if (bf16 && keys % 2) _mm512_storeu_si512(column + keys / 2 * PANEL, _mm512_srli_epi32(before, 16));
        _mm512_storeu_ps(total + half * 16, sum);
    }
}

/* v [n] rows, `row` numbers apart -> pairs of rows side by side: [n / 2, size] of 2 bfloat16. */
INLINE void paired(const uint16_t *v, int64_t row, int64_t n, int64_t size, int32_t *to) {
    for (int64_t j = 0; j < n; j += 2)
        for (int64_t c = 0; c < size; c += 16) {
            const uint16_t *at = v + j * row + c;
            __m512i both = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)at));
            if (j + 1 < n) {
                const __m512i next = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(at + row)));
                both = _mm512_or_si512(both, _mm512_slli_epi32(next, 16));
            }
            _mm512_storeu_si512(to + j / 2 * size + c, both);
        }
}

/* Of a text: the number at which its first key or value begins, and how many it has. */
static inline int64_t first_key(const Attention *a, int64_t text, int64_t row) {
    return a->key_starts ? a->key_starts[text] : a->starts[text] * row;
}

static inline int64_t keys_of(const Attention *a, int64_t text) {
    return a->lengths[text] + (a->before ? a->before[text] : 0);
}

/* What a thread holds of a text's keys and values of one head, `of` (text * kv_heads + head; -1: of none): where many panels meet them,
 * keys and float32 values one after another, since rows of all heads lie on as many pages; the values of BF16 in pairs. */
typedef struct {
    int64_t of;
    const char *k, *v;   /* the first key and value, */
    int64_t k_row, v_row; /* and bytes from one to the next */
    int32_t *pairs;
    char *keys, *values; /* memory for them, or NULL */
} Held;

/* Bytes of rows that lie one after another. */
INLINE void gathered(const char *from, int64_t row, int64_t rows, int64_t bytes, char *to) {
    for (int64_t r = 0; r < rows; r++) memcpy(to + r * bytes, from + r * row, bytes);
}

TARGET static void hold(const Attention *a, int64_t text, int64_t kv_head, Held *held) {
    if (held->of == text * a->kv_heads + kv_head) return;
    const int64_t bytes = a->bf16 ? 2 : 4, own = a->size * bytes, n = keys_of(a, text);
    held->of = text * a->kv_heads + kv_head;
    held->k_row = a->k_row * bytes, held->v_row = a->v_row * bytes;
    held->k = (const char *)a->k + (first_key(a, text, a->k_row) + kv_head * a->k_head) * bytes;
    held->v = (const char *)a->v + (first_key(a, text, a->v_row) + kv_head * a->v_head) * bytes;
    if (a->bf16) paired((const uint16_t *)held->v, a->v_row, n, a->size, held->pairs);
    if (!held->keys || n < APART) return;
    if (held->k_row != own) gathered(held->k, held->k_row, n, own, held->keys), held->k = held->keys, held->k_row = own;
    if (held->v_row != own && !a->bf16) gathered(held->v, held->v_row, n, own, held->values), held->v = held->values, held->v_row = own;
}

/* `fold` heads of one text from `head` on, which read the same keys: a row of a panel is a token's query of one of them. Of their
 * rows those from `begin` on, a multiple of 32, before `end`.
 * workspace: the queries' panel, then the scores. held: their keys and values. */
INLINE void rows_of(const Attention *a, int64_t text, int64_t head, int64_t fold, int64_t begin, int64_t end, char *workspace,
                    const Held *held, const int bf16) {
    const int64_t size = a->size, length = a->lengths[text], first_row = a->starts[text], bytes = bf16 ? 2 : 4;
    const int64_t q_row = a->q_row * bytes, k_row = held->k_row, v_row = held->v_row;
    const int64_t keys = keys_of(a, text), before = keys - length;
    const int64_t steps = size * bytes / 4;
    const char *q = (const char *)a->q + first_row * q_row + head * size * bytes;
    const char *k = held->k, *v = held->v;
    Tile *const *tiles = cw_tiles[bf16 ? BF16 : FP32];
    int32_t *panel = (int32_t *)workspace;
    float *scores = (float *)(workspace + steps * PANEL * 4), total[PANEL], sums[ROWS * PANEL];
    int64_t at[PANEL], out[PANEL]; /* where each row of a panel is read, in bytes, and goes, in numbers */
    int32_t places[PANEL] = {0};
    for (int64_t i = begin; i < end; i += PANEL) {
        const int64_t queries = end - i < PANEL ? end - i : PANEL, first = i / fold;
        for (int64_t r = 0; r < queries; r++) {
            const int64_t token = fold == 1 ? i + r : (i + r) / fold, h = i + r - token * fold;
            at[r] = token * q_row + h * size * bytes;
            out[r] = (first_row + token) * a->out_row + (head + h) * size;
            places[r] = (int32_t)(token - first);
        }
        const int64_t place = before + first, last = place + places[queries - 1]; /* the own keys of first and last query */
        int64_t from = 0, to = keys;
        if (a->window) {
            from = place - a->window + 1 > 0 ? (place - a->window + 1) / 2 * 2 : 0; /* pairs of keys stay together */
            if (last + a->window < keys) to = last + a->window;
        }
        if (a->causal) to = last + 1;
        for (int64_t half = 0; half < 2; half++)
            for (int64_t u = 0; u < steps; u += 16)
                transposed(q + u * 4, at + half * 16, queries - half * 16, panel + u * PANEL + half * 16);
        for (int64_t j = from; j < to; j += ROWS) {
            const int64_t count = to - j < ROWS ? to - j : ROWS;
            const Stride stride = {k_row, 4};
            tiles[count](k + j * k_row, stride, (const char *)panel, PANEL * 4, steps, scores + (j - from) * PANEL);
        }
        weights(a, scores, to - from, from - place, places, total, bf16);
        for (int64_t r = 0; r < queries; r += ROWS)
            for (int64_t c = 0; c < size; c += PANEL) {
                const int64_t count = queries - r < ROWS ? queries - r : ROWS;
                const Stride stride = {4, PANEL * 4};
                const char *x = (const char *)(scores + r);
                if (bf16)
                    tiles[count](x, stride, (const char *)(held->pairs + from / 2 * size + c), size * 4, (to - from + 1) / 2, sums);
                else
                    tiles[count](x, stride, v + from * v_row + c * 4, v_row, to - from, sums);
                for (int64_t n = 0; n < count; n++) {
                    const __m512 share = _mm512_set1_ps(1.0f / total[r + n]);
                    store(a->out, out[r + n] + c, bf16, 0xffff, _mm512_mul_ps(_mm512_loadu_ps(sums + n * PANEL), share));
                    store(a->out, out[r + n] + c + 16, bf16, 0xffff, _mm512_mul_ps(_mm512_loadu_ps(sums + n * PANEL + 16), share));
                }
            }
    }
}

/* Asks for the rows of a head that comes next: they lie far apart, where the chip does not guess them. */
INLINE void fetch(const void *x, int64_t row, int64_t rows, int64_t from, int64_t bytes) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t b = 0; b < bytes; b += 64) _mm_prefetch((const char *)x + r * row + from + b, _MM_HINT_T1);
}

/* How many heads share a panel: a short text fills none by itself. */
static inline int64_t fold_of(const Attention *a, int64_t text) { return a->lengths[text] < PANEL ? a->heads / a->kv_heads : 1; }

/* The heads of a text that read the keys of one, piece number `piece` of their rows. */
TARGET static void heads_of(const Attention *a, int64_t text, int64_t kv_head, int64_t piece, char *workspace, Held *held) {
    const int64_t group = a->heads / a->kv_heads, length = a->lengths[text];
    const int64_t fold = fold_of(a, text);
    const int64_t begin = piece * PIECE, whole = length * fold, end = whole - begin < PIECE ? whole : begin + PIECE;
    hold(a, text, kv_head, held);
    if (kv_head + 1 < a->kv_heads && piece == 0) {
        const int64_t bytes = a->bf16 ? 2 : 4, own = a->size * bytes, n = keys_of(a, text), next = kv_head + 1;
        fetch(a->k, a->k_row * bytes, n, (first_key(a, text, a->k_row) + next * a->k_head) * bytes, own);
        fetch(a->v, a->v_row * bytes, n, (first_key(a, text, a->v_row) + next * a->v_head) * bytes, own);
        fetch(a->q, a->q_row * bytes, length, a->starts[text] * a->q_row * bytes + next * group * own, group * own);
    }
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head += fold) {
        if (a->bf16) rows_of(a, text, head, fold, begin, end, workspace, held, 1);
        else rows_of(a, text, head, fold, begin, end, workspace, held, 0);
    }
}

static int texts_large(const void *op) {
    const Attention *a = op;
    int64_t products = 0;
    for (int64_t t = 0; t < a->texts; t++) products += a->lengths[t] * keys_of(a, t) * a->heads * a->size;
    return products > LONG_FROM ? LONG : products > SMALL ? SHORT : ALONE;
}

TARGET static int texts_run(const void *op, char *shared, Member *member) {
    (void)shared, (void)member;
    const Attention *a = op;
    int64_t longest = 0, rows = 0;
    for (int64_t t = 0; t < a->texts; t++) {
        if (keys_of(a, t) > longest) longest = keys_of(a, t);
        if (a->lengths[t] * fold_of(a, t) > rows) rows = a->lengths[t] * fold_of(a, t);
    }
    const int64_t panel = a->size * PANEL * 4, scores = longest * PANEL * 4, heads = a->texts * a->kv_heads;
    const int64_t pieces = (rows + PIECE - 1) / PIECE;
    const int64_t numbers = longest * a->size, pairs = a->bf16 ? (longest + 1) / 2 * a->size * 4 : 0;
    const int64_t keys = longest < APART ? 0 : numbers * (a->bf16 ? 2 : 4), values = a->bf16 ? 0 : keys;
    char *own = malloc(panel + scores + pairs + keys + values), *more = own + panel + scores;
    Held held = {.of = -1, .pairs = (int32_t *)more, .keys = keys ? more + pairs : NULL, .values = more + pairs + keys};
    /* the last rows of a text first, which see most, so that what is left for the end is short */
#pragma omp for schedule(dynamic, pieces > 1 ? 1 : 4) nowait
    for (int64_t job = 0; job < heads * pieces; job++) {
        const int64_t head = job / pieces, text = head / a->kv_heads, piece = pieces - 1 - job % pieces;
        if (own && piece * PIECE < a->lengths[text] * fold_of(a, text))
            heads_of(a, text, head % a->kv_heads, piece, own, &held);
    }
    free(own);
    return !own;
}

const Kind cw_texts = {texts_run, NULL, texts_large, sizeof(Attention)};

#endif
