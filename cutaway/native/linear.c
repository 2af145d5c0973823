/* Linear layers: rows times a packed weight, with bias, activation and residual in the same pass over memory.
 *
 * The rows are float32 or bfloat16 as they are, or become bytes: a row's own range in 256 steps. Each kind of weight is
 * packed in panels of 32 outputs; inside a panel, for each 4 bytes of inputs (1 float32, 2 bfloat16, 4 bytes), 32 outputs.
 */

#if defined(__x86_64__) && defined(__GNUC__)

#include "blocks.h"
#include "norm.h"
#include "tile.h"

#include <stdlib.h>
#include <string.h>

#define SMALL 500000     /* products below which other threads are not worth waking */
#define CACHED (160 << 10) /* bytes of rows that stay in the second cache while the weight passes through it */
#define FEW 96             /* rows up to which a weight comes from memory slower than it is used */
#ifdef CW_AVX2
#define ASKED_FROM 5 /* rows from which on asking pays: with fewer, a weight is read so steadily that the chip asks better alone */
#define OPENED 8 /* rows from which on it pays to read 32 columns of blocks beforehand */
#define AS_FLOATS_FROM 8 /* those from which on blocks that lie as tiles from the start become floats */
#else
#define ASKED_FROM 7
#define OPENED 2
#define AS_FLOATS_FROM INT64_MAX
#endif
#define MANY 64 /* rows from which on threads take parts of a product as they come for them */
#define CHAINED (160 << 10) /* bytes of rows between two products that stay there */
#ifdef CW_AVX2
#define CHAIN_ASKS 1 /* a tile takes half a panel after the other, which the chip does not guess */
#else
#define CHAIN_ASKS 0
#endif

/* A row of k numbers as bytes: x = scale * (byte - 128) + offset, over the row's range with 0 in it. NaN or infinity in
 * a row makes its scale NaN. */
typedef struct {
    float scale, offset;
} Row;

INLINE void row_bytes(const void *x, int64_t from, int bf16, int64_t k, int64_t padded, uint8_t *q, Row *row) {
    __m512 low = _mm512_setzero_ps(), high = low;
    __m512i most = _mm512_setzero_si512();
    for (int64_t i = 0; i < k; i += 16) {
        const __m512 value = load(x, from + i, bf16, lane_mask(k - i));
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
        const __m512 value = _mm512_sub_ps(load(x, from + i, bf16, lane_mask(k - i)), from_least);
        const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(value, inverse));
        store_bytes(q, i, padded, whole);
    }
}

/* One weight as `cw_pack` left it. The caller keeps what the pointers name. */
typedef struct {
    const char *packed;
    const float *bias;      /* [n], or NULL */
    const float *col_scale; /* of INT8: w = packed * col_scale */
    const int32_t *shift;   /* of INT8: 128 x the sum of each output's bytes */
    int64_t n, k;
    int kind, gated; /* gated: in each panel 16 gates, then the 16 outputs that they let through; n counts both */
} Weight;

const int64_t cw_weight_size = sizeof(Weight), cw_blocks_size = sizeof(Blocks);

/* How many activations `activate` knows, none included: a larger number would leave what it is given as it is. */
int64_t cw_activations(void) { return N_ACTIVATIONS; }

static int64_t steps_of(int kind, int64_t k) { return kind == FP32 ? k : kind == BF16 ? (k + 1) / 2 : (k + 3) / 4; }

/* w [n, k] -> packed [panels, steps, 32] of 4 bytes and, of INT8, shift [panels * 32]. */
void cw_pack(const void *w, int64_t n, int64_t k, int kind, char *packed, int32_t *shift) {
    const int64_t steps = steps_of(kind, k), size = kind == FP32 ? 4 : kind == BF16 ? 2 : 1, row = k * size;
    const int64_t panels = (n + PANEL - 1) / PANEL;
    memset(packed, 0, panels * steps * PANEL * 4);
    if (kind == INT8) memset(shift, 0, panels * PANEL * sizeof *shift);
    for (int64_t i = 0; i < n; i++) {
        const char *from = (const char *)w + i * row;
        char *to = packed + (i / PANEL * steps * PANEL + i % PANEL) * 4;
        for (int64_t s = 0; s < steps; s++) memcpy(to + s * PANEL * 4, from + s * 4, row - s * 4 < 4 ? row - s * 4 : 4);
        if (kind == INT8)
            for (int64_t j = 0; j < k; j++) shift[i] += 128 * (int8_t)from[j];
    }
}

typedef struct {
    const Weight *weight;
    const char *x;
    Stride stride;
    const Row *rows;      /* of INT8 */
    const void *residual; /* or NULL */
    void *out;
    int64_t steps;
    int activation, bf16; /* bf16: residual and out are bfloat16 */
    int few;              /* whether the weight comes from memory slower than it is used */
} Job;

/* 16 columns of row r + i of the product with its bias, from their sums: `from` is 0 or 16. */
INLINE __m512 number(const Job *job, const float *sums, int64_t r, int64_t column, int64_t i, int64_t from, const int bytes) {
    const Weight *weight = job->weight;
    const __mmask16 m = lane_mask(weight->n - column);
    const __m512 bias = weight->bias ? load(weight->bias, column, 0, m) : _mm512_setzero_ps();
    __m512 y = _mm512_loadu_ps(sums + i * PANEL + from);
    if (!bytes) return _mm512_add_ps(y, bias);
    const __m512i shift = _mm512_loadu_si512(weight->shift + column);
    const __m512 whole = _mm512_mul_ps(_mm512_cvtepi32_ps(shift), _mm512_set1_ps(1.0f / 128));
    const Row *row = job->rows + r + i;
    y = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(y), shift));
    y = _mm512_mul_ps(y, _mm512_set1_ps(row->scale));
    y = _mm512_fmadd_ps(_mm512_set1_ps(row->offset), whole, y);
    return _mm512_fmadd_ps(y, load(weight->col_scale, column, 0, m), bias);
}

/* What the sums [count][32] of rows r .. r + count of one panel become. */
INLINE void finish(const Job *job, const float *sums, int64_t r, int64_t panel, int64_t count, const int bytes, const int bf16) {
    const int64_t n = job->weight->n;
    for (int64_t column = panel * PANEL, from = 0; from < PANEL && column < n; column += 16, from += 16) {
        const __mmask16 m = lane_mask(n - column);
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = (r + i) * n + column;
            __m512 y = number(job, sums, r, column, i, from, bytes);
            if (job->activation) y = activate(y, job->activation);
            if (job->residual) y = _mm512_add_ps(y, load(job->residual, at, bf16, m));
            store(job->out, at, bf16, m, y);
        }
    }
}

/* The same of a gated panel: activation(gate) times its output. */
INLINE void finish_gated(const Job *job, const float *sums, int64_t r, int64_t panel, int64_t count, const int bytes, const int bf16) {
    const int64_t n = job->weight->n / 2;
    for (int64_t i = 0; i < count; i++) {
        const __m512 gate = activate(number(job, sums, r, panel * PANEL, i, 0, bytes), job->activation);
        const __m512 y = number(job, sums, r, panel * PANEL + 16, i, 16, bytes);
        store(job->out, (r + i) * n + panel * 16, bf16, 0xffff, _mm512_mul_ps(gate, y));
    }
}

INLINE void end_of(const Job *job, const float *sums, int64_t r, int64_t panel, int64_t count, const int bytes, const int bf16) {
    if (job->weight->gated) finish_gated(job, sums, r, panel, count, bytes, bf16);
    else finish(job, sums, r, panel, count, bytes, bf16);
}

/* Asks for the places that `end_of` will read and write: a few numbers in each of many rows, which the chip does not guess. */
INLINE void await(const Job *job, int64_t r, int64_t panel, int64_t count) {
    const int64_t size = job->bf16 ? 2 : 4, gated = job->weight->gated, n = gated ? job->weight->n / 2 : job->weight->n;
    const int64_t width = (gated ? PANEL / 2 : PANEL) * size;
    for (int64_t i = 0; i < count; i++)
        for (int64_t b = 0; b < width; b += 64) {
            const int64_t at = (r + i) * n * size + panel * width + b;
            if (job->residual) _mm_prefetch((const char *)job->residual + at, _MM_HINT_T0);
            _mm_prefetch((const char *)job->out + at, _MM_HINT_T0);
        }
}

/* Rows r .. end of one panel. */
TARGET static void panel_of(const Job *job, int64_t r, int64_t end, int64_t panel) {
    float sums[ROWS * PANEL] __attribute__((aligned(64)));
    const int kind = job->weight->kind;
    const int64_t bytes = job->steps * PANEL * 4, tiles = (end - r + ROWS - 1) / ROWS;
    const char *w = job->weight->packed + panel * bytes;
    /* each tile for its part of the next panel */
    const int asking = job->few && end - r >= ASKED_FROM && (panel + 1) * PANEL < job->weight->n;
    for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t count = end - r < ROWS ? end - r : ROWS;
        const char *x = job->x + r * job->stride.row;
        await(job, r, panel, count);
        if (asking) {
            const Ahead ahead = {w + bytes + bytes / tiles * tile, PANEL * 4 / tiles};
            cw_asking_tiles[kind][count](x, job->stride, w, PANEL * 4, job->steps, ahead, sums);
        } else cw_tiles[kind][count](x, job->stride, w, PANEL * 4, job->steps, sums);
        if (kind == INT8 && job->bf16) end_of(job, sums, r, panel, count, 1, 1);
        else if (kind == INT8) end_of(job, sums, r, panel, count, 1, 0);
        else if (job->bf16) end_of(job, sums, r, panel, count, 0, 1);
        else end_of(job, sums, r, panel, count, 0, 0);
        r += count;
    }
}

/* Bytes that `job_of` wants beside a weight of INT8, for so many rows. */
static int64_t workspace_of(const Weight *weight, int64_t rows) {
    return weight->kind == INT8 ? rows * (steps_of(INT8, weight->k) * ROW_STEP + (int64_t)sizeof(Row)) : 0;
}

/* The job of x [rows, k], its rows `stride` numbers apart; of INT8, `row_of` has to fill `workspace` before it runs. */
static Job job_of(const Weight *weight, const void *x, int64_t rows, int64_t stride, int activation, const void *residual,
                  void *out, int bf16, char *workspace) {
    const int64_t steps = steps_of(weight->kind, weight->k), size = bf16 ? 2 : 4;
    Job job = {weight, x, {stride * size, 4}, NULL, residual, out, steps, activation, bf16, 0};
    if (weight->kind == INT8) {
        job.x = workspace, job.stride.row = steps * ROW_STEP, job.stride.step = ROW_STEP;
        job.rows = (Row *)(workspace + rows * steps * ROW_STEP); /* a multiple of 4 bytes, as is what a Row asks for */
    }
    return job;
}

TARGET static void row_of(const Job *job, const void *x, int64_t stride, int64_t r) {
    const int64_t padded = job->steps * 4, k = job->weight->k;
    uint8_t *q = (uint8_t *)job->x + r * job->stride.row;
    if (job->bf16) row_bytes(x, r * stride, 1, k, padded, q, (Row *)job->rows + r);
    else row_bytes(x, r * stride, 0, k, padded, q, (Row *)job->rows + r);
}

/* activation(x w^T + bias) + residual -> out [rows, n], or of a gated weight [rows, n / 2] without a residual: x [rows, k], its
 * rows `stride` numbers apart. x, residual and out are all bfloat16, or all float32; a weight of BF16 wants the one, of
 * FP32 and of BLOCKS the other, of INT8 either. k of BF16 is even; a weight of BLOCKS has neither chain nor norm. A chain has a second weight, whose residual it is. With a norm, which one thread does
 * for all of a row, out is the normed rows. */
typedef struct {
    Op op;
    const Weight *weight, *down;
    const void *x, *residual;
    void *out;
    const Norm *norm; /* or NULL; of `out`'s dtype and width */
    int64_t stride;
    int activation, bf16;
} Product;

/* How the rows of a product with blocks become bytes. */
enum { FOR_BLOCKS, FOR_TILES_8, FOR_LAID_OUT, FOR_LAID_OUT_HALVES };
static int row_form(const Blocks *blocks) {
    if (blocks->part[0].type == TILES_8) return FOR_TILES_8;
    if (blocks->part[0].type < LAID_OUT) return FOR_BLOCKS;
    int halves = 0;
    for (int64_t i = 0; i < blocks->parts; i++) halves = halves || blocks->part[i].type == LAID_OUT + Q6_K;
    return halves ? FOR_LAID_OUT_HALVES : FOR_LAID_OUT;
}

/* Bytes of rows for tiles. */
static int64_t tile_rows_bytes(int form, int64_t k, int64_t rows) {
#ifndef CW_AVX2
    if (form != FOR_TILES_8) return cw_laid_out_rows_bytes(k, rows, form == FOR_LAID_OUT_HALVES);
#endif
    (void)form;
    return cw_unit_rows_bytes(k, rows);
}

static int64_t product_workspace(const void *op) {
    const Product *p = op;
    if (p->weight->kind == BLOCKS) {
        const Blocks *blocks = (const Blocks *)p->weight->packed;
        const int form = row_form(blocks);
        if (form != FOR_BLOCKS) return tile_rows_bytes(form, p->weight->k, p->op.rows) + 63;
        return blocks->bytes ? p->op.rows * cw_block_row_bytes(p->weight->k) + 63 : 0;
    }
    return workspace_of(p->weight, p->op.rows);
}

static int product_large(const void *op) {
    const Product *p = op;
    const int64_t products = p->op.rows * p->weight->n * p->weight->k;
    return products > LONG_FROM ? LONG : products > SMALL ? SHORT : ALONE;
}

/* The two halves of a panel: where their columns begin. */
static Halves halves_of(const Weight *weight, int64_t panel) {
    const Blocks *blocks = (const Blocks *)weight->packed;
    Halves halves = {{NULL, NULL}, {0, 0}, {0, 0}};
    if (weight->gated) {
        for (int h = 0; h < 2; h++) halves.part[h] = &blocks->part[h], halves.column[h] = panel * UNIT, halves.columns[h] = UNIT;
        return halves;
    }
    int64_t at = panel * PANEL, i = 0;
    while (i + 1 < blocks->parts && at >= blocks->part[i].n) at -= blocks->part[i++].n;
    for (int h = 0; h < 2; h++, at += UNIT) {
        const int64_t rest = blocks->part[i].n - at;
        halves.part[h] = &blocks->part[i], halves.column[h] = at, halves.columns[h] = rest > UNIT ? UNIT : rest > 0 ? rest : 0;
    }
    return halves;
}

/* Rows of a product with a weight of BLOCKS that one pass of it serves. */
static int64_t block_rows(int64_t k) {
    const int64_t block = CACHED / (ROWS * k) * ROWS;
    return block < 4 * ROWS ? 4 * ROWS : block;
}

/* The rows of each block where they are cut evenly in as few blocks as that: threads that take one each are done together. */
static int64_t even_block(int64_t rows, int64_t most) {
    const int64_t blocks = (rows + most - 1) / most;
    return blocks > 1 ? (rows + blocks * ROWS - 1) / (blocks * ROWS) * ROWS : most;
}

/* The product with blocks as they lie in a file, or, of AVX2, with many rows and our own. */
TARGET static int blocks_run(const Product *p, char *workspace, Member *member) {
    const int64_t rows = p->op.rows, k = p->weight->k, panels = (p->weight->n + PANEL - 1) / PANEL;
    const Blocks *blocks = (const Blocks *)p->weight->packed;
    const Job job = {p->weight, p->x, {0, 0}, NULL, p->residual, p->out, 0, p->activation, 0, 0};
    const BlockRows x = {p->x, p->stride, workspace, cw_block_row_bytes(k)};
    if (blocks->bytes && blocks->part[0].type != TILES_8) {
#pragma omp for schedule(static) nowait
        for (int64_t r = 0; r < rows; r++) cw_block_row(x.floats + r * p->stride, k, workspace + r * x.bytes_row);
        cw_wait(member);
    }
    char *opened = rows < OPENED ? NULL : malloc(cw_panel_bytes(k));
    const int failed = rows >= OPENED && !opened;
    const int64_t block = block_rows(k), n_blocks = (rows + block - 1) / block;
#pragma omp for collapse(2) schedule(static) nowait
    for (int64_t b = 0; b < n_blocks; b++)
        for (int64_t n = 0; n < panels; n++) {
            if (failed) continue;
            float sums[ROWS * PANEL] __attribute__((aligned(64)));
            const Halves halves = halves_of(p->weight, n);
            const int lies = opened ? cw_block_open(&halves, k, opened) : 0;
            const int64_t end = rows - b * block < block ? rows : (b + 1) * block;
            for (int64_t r = b * block; r < end; r += ROWS) {
                const int64_t count = end - r < ROWS ? end - r : ROWS;
                if (opened) cw_block_tile(&halves, lies, k, opened, &x, r, count, sums);
                else
                    for (int h = 0; h < 2; h++)
                        if (halves.columns[h])
                            cw_block_dots(halves.part[h], halves.column[h], halves.columns[h], k, &x, r, count, sums + h * UNIT);
                end_of(&job, sums, r, n, count, 0, 0);
            }
        }
    free(opened);
    return failed;
}

/* Panels whose sums are kept before they are written: the writes lie far apart, and between the reads of a weight they make the chip
 * forget what it was about to ask memory for. */
#define KEPT(tiles) ((tiles) == 1 ? 8 : (tiles) <= 4 ? 4 : 2)

/* What all threads know of a product with blocks of TILES_8 or LAID_OUT; sums: a thread's own. */
typedef struct {
    const Job *job;
    const char *workspace;
    int form;
    int64_t rows, block, kept;
    float *sums;
} TileJob;

/* The panels from `from` on that are kept together, times block number b of the rows. */
TARGET static void tiles_of(const TileJob *own, int64_t b, int64_t from) {
    const Weight *weight = own->job->weight;
    const int64_t k = weight->k, panels = (weight->n + PANEL - 1) / PANEL, size = ROWS * PANEL;
    const int64_t first = b * own->block, left = own->rows - first < own->block ? own->rows - first : own->block, tiles = (left + ROWS - 1) / ROWS;
    const int64_t end = panels - from < own->kept ? panels : from + own->kept;
    for (int64_t n = from; n < end; n++) {
        const Halves halves = halves_of(weight, n);
        for (int h = 0; h < 2; h++)
            for (int64_t t = 0; halves.columns[h] && t < tiles; t++) {
                const int64_t r = t * ROWS, count = left - r < ROWS ? left - r : ROWS;
                const char *x = own->workspace + tile_rows_bytes(own->form, k, first + r);
                float *to = own->sums + ((n - from) * tiles + t) * size + h * UNIT;
#ifndef CW_AVX2
                if (own->form != FOR_TILES_8) {
                    cw_laid_out_tile(halves.part[h], halves.column[h], k, x, own->form == FOR_LAID_OUT_HALVES, t, tiles, count, to);
                    continue;
                }
#endif
                cw_unit_tile(halves.part[h], halves.column[h], k, x, t, tiles, count, to);
            }
    }
    for (int64_t t = 0; t < tiles; t++)
        for (int64_t n = from; n < end; n++) {
            const int64_t r = t * ROWS, count = left - r < ROWS ? left - r : ROWS;
            end_of(own->job, own->sums + ((n - from) * tiles + t) * size, first + r, n, count, 0, 0);
        }
}

/* The product with blocks of TILES_8 or LAID_OUT. */
TARGET static int tiles_run(const Product *p, char *workspace, Member *member) {
    const int form = row_form((const Blocks *)p->weight->packed);
    const int64_t rows = p->op.rows, k = p->weight->k, panels = (p->weight->n + PANEL - 1) / PANEL;
    const Job job = {p->weight, p->x, {0, 0}, NULL, p->residual, p->out, 0, p->activation, 0, 0};
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < rows; r++) {
        const float *x = (const float *)p->x + r * p->stride;
#ifndef CW_AVX2
        if (form != FOR_TILES_8) {
            cw_laid_out_row(x, k, r, rows, form == FOR_LAID_OUT_HALVES, workspace);
            continue;
        }
#endif
        cw_unit_bytes(x, k, r, rows, workspace);
    }
    cw_wait(member);
    const int64_t block = even_block(rows, block_rows(k)), n_blocks = (rows + block - 1) / block, most = ((rows < block ? rows : block) + ROWS - 1) / ROWS;
    const int64_t kept = KEPT(most), size = ROWS * PANEL, groups = (panels + kept - 1) / kept;
    char *memory = malloc(kept * most * size * sizeof(float) + 63);
    float *sums = (float *)(memory + (-(intptr_t)memory & 63)); /* [panels][tiles][12][32] */
    const TileJob own = {&job, workspace, form, rows, block, kept, sums};
    /* few rows: each thread has the same part of a weight in every call; many: who comes late, or waits for memory, does less */
    if (rows < MANY) {
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < n_blocks * groups; i++)
            if (memory) tiles_of(&own, i / groups, i % groups * kept);
    } else {
#pragma omp for schedule(dynamic) nowait
        for (int64_t i = 0; i < n_blocks * groups; i++)
            if (memory) tiles_of(&own, i / groups, i % groups * kept);
    }
    free(memory);
    return !memory;
}

TARGET static int product_run(const void *op, char *workspace, Member *member) {
    const Product *p = op;
    if (p->weight->kind == BLOCKS) {
        const int form = row_form((const Blocks *)p->weight->packed);
        workspace += -(intptr_t)workspace & 63;
        return form != FOR_BLOCKS && p->op.rows < AS_FLOATS_FROM ? tiles_run(p, workspace, member) : blocks_run(p, workspace, member);
    }
    const int64_t rows = p->op.rows, panels = (p->weight->n + PANEL - 1) / PANEL;
    Job job = job_of(p->weight, p->x, rows, p->stride, p->activation, p->residual, p->out, p->bf16, workspace);
    job.few = rows <= FEW;
    int64_t block = CACHED / (ROWS * job.steps * 4) * ROWS;
    block = even_block(rows, block < ROWS ? ROWS : block);
    const int64_t blocks = (rows + block - 1) / block;
    if (job.rows) {
#pragma omp for schedule(static) nowait
        for (int64_t r = 0; r < rows; r++) row_of(&job, p->x, p->stride, r);
        cw_wait(member);
    }
    if (p->norm) {
#pragma omp for schedule(dynamic) nowait
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t end = rows - b * block < block ? rows : (b + 1) * block;
            for (int64_t n = 0; n < panels; n++) panel_of(&job, b * block, end, n);
            for (int64_t r = b * block; r < end; r++) norm_at(p->norm, p->out, r * p->norm->n, p->out, r * p->norm->n);
        }
        return 0;
    }
    /* blocks outside: the rows of a block stay in the cache, and the weight passes through it */
    if (rows < MANY) {
#pragma omp for collapse(2) schedule(static) nowait
        for (int64_t b = 0; b < blocks; b++)
            for (int64_t n = 0; n < panels; n++) panel_of(&job, b * block, rows - b * block < block ? rows : (b + 1) * block, n);
    } else {
#pragma omp for collapse(2) schedule(dynamic, 4) nowait
        for (int64_t b = 0; b < blocks; b++)
            for (int64_t n = 0; n < panels; n++) panel_of(&job, b * block, rows - b * block < block ? rows : (b + 1) * block, n);
    }
    return 0;
}

const Kind cw_product = {product_run, product_workspace, product_large, sizeof(Product)};

/* All rows of a job, by one thread. */
TARGET static void rows_of(const Job *job, const void *x, int64_t stride, int64_t rows) {
    if (job->rows)
        for (int64_t r = 0; r < rows; r++) row_of(job, x, stride, r);
    for (int64_t p = 0; p * PANEL < job->weight->n; p++) panel_of(job, 0, rows, p);
}

static int chain_large(const void *op) {
    const Product *p = op;
    return p->op.rows * p->weight->n * p->weight->k > LONG_FROM ? LONG : SHORT;
}

/* The product with `weight` and its activation, then with `down` and the residual: to the last bit what two products give,
 * but what lies between is a few rows that stay in the cache. */
TARGET static int chain_run(const void *op, char *shared, Member *member) {
    (void)shared, (void)member;
    const Product *p = op;
    const int64_t size = p->bf16 ? 2 : 4, width = p->down->k, n = p->down->n, rows = p->op.rows;
    int64_t block = CHAINED / (ROWS * width * size) * ROWS;
    block = even_block(rows, block < ROWS ? ROWS : block);
    const int64_t blocks = (rows + block - 1) / block;
    const int64_t between = block * width * size, first_workspace = workspace_of(p->weight, block), second_workspace = workspace_of(p->down, block);
    char *workspace = malloc(between + first_workspace + second_workspace), *other = workspace + between;
#pragma omp for schedule(dynamic) nowait
    for (int64_t b = 0; b < blocks; b++) {
        if (!workspace) continue;
        const int64_t from = b * block, count = rows - from < block ? rows - from : block;
        const char *own = (const char *)p->x + from * p->stride * size, *add = p->residual;
        char *out = (char *)p->out + from * n * size;
        Job a = job_of(p->weight, own, count, p->stride, p->activation, NULL, workspace, p->bf16, other);
        a.few = CHAIN_ASKS;
        rows_of(&a, own, p->stride, count);
        if (add) add += from * n * size;
        Job c = job_of(p->down, workspace, count, width, NONE, add, out, p->bf16, other + first_workspace);
        c.few = CHAIN_ASKS;
        rows_of(&c, workspace, width, count);
        if (p->norm)
            for (int64_t r = 0; r < count; r++) norm_at(p->norm, out, r * n, out, r * n);
    }
    free(workspace);
    return !workspace;
}

const Kind cw_chain = {chain_run, NULL, chain_large, sizeof(Product)};

#endif
