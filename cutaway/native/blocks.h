/* Weights as GGUF files hold them: rows of blocks, each some bytes of numbers with a scale, in ggml's formats; and those with
 * the same numbers that are our own, in the order of the tiles. */
#ifndef CW_BLOCKS_H
#define CW_BLOCKS_H

#include <stdint.h>

#define UNIT 16  /* columns that are taken together */
#define GROUP 32 /* numbers of a row that share a scale */
#define MOST_PARTS 4

/* ggml's numbers of the types that are read in place. */
enum {
    F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14,
    IQ4_NL = 20, IQ4_XS = 23, BF16_ROWS = 30, TYPES = 31
};
#define LAID_OUT 64 /* added to a type: a file's blocks in the order of the tiles (block_tiles.c) */
#define TILES_8 256 /* no type of ggml's: numbers as Q8_0 has them, as tiles8.c says */

/* Some rows of a matrix in the file. `half`: of heads whose rows lie as pairs, which GGUF rotates, half a head's rows (0: in
 * order): row i of a head is then row 2 (i mod half) + i / half there. */
typedef struct {
    const uint8_t *data;
    int64_t n, row, half; /* rows; bytes from one to the next, of TILES_8 and LAID_OUT from 16 to the next 16 */
    int64_t type;
} Part;

/* What `packed` of a Weight of kind BLOCKS points to: parts side by side, or a gate and what it lets through. Parts that
 * are not the last have a multiple of 32 rows, of a gated weight each a multiple of 16. */
typedef struct {
    int64_t parts, bytes; /* bytes: whether a part is multiplied by rows of bytes */
    Part part[MOST_PARTS];
} Blocks;

/* The rows x [rows, k]: as they are, and as bytes with a scale for each group. */
typedef struct {
    const float *floats;
    int64_t floats_row; /* numbers from one row to the next */
    const char *bytes;
    int64_t bytes_row; /* bytes from one row to the next */
} BlockRows;

#define HIDDEN __attribute__((visibility("hidden")))
/* Bytes of one row of k numbers as bytes. */
HIDDEN int64_t cw_block_row_bytes(int64_t k);
HIDDEN void cw_block_row(const float *x, int64_t k, char *to);
/* sums [count][32], from column 0 or 16 on: rows r .. r + count times columns of one part. */
HIDDEN void cw_block_dots(const Part *part, int64_t column, int64_t columns, int64_t k, const BlockRows *x, int64_t r, int64_t count, float *sums);
/* Memory that a thread wants for a panel as `cw_block_open` leaves it. */
HIDDEN int64_t cw_panel_bytes(int64_t k);
/* A panel of 2 x 16 columns, read once for many rows: their first columns in parts a and b (the same one, or NULL for none). */
typedef struct {
    const Part *part[2];
    int64_t column[2], columns[2];
} Halves;
HIDDEN int cw_block_open(const Halves *halves, int64_t k, char *panel);
HIDDEN void cw_block_tile(const Halves *halves, int opened, int64_t k, const char *panel, const BlockRows *x, int64_t r, int64_t count, float *sums);

/* Of parts of TILES_8. Rows as bytes: row r of `rows` into the memory for all of them. */
HIDDEN int64_t cw_unit_rows_bytes(int64_t k, int64_t rows);
HIDDEN void cw_unit_bytes(const float *x, int64_t k, int64_t r, int64_t rows, char *to);
/* sums [count][32]: 16 columns from `column` on, a multiple of 16, times the rows x of a tile: 12 rows, or what is left; it is one of
 * `tiles` that the columns meet one after another. */
HIDDEN void cw_unit_tile(const Part *part, int64_t column, int64_t k, const char *x, int64_t tile, int64_t tiles, int64_t count, float *sums);
/* The numbers of these columns, as half a panel of floats [k][32]; one row's [k]. */
HIDDEN void cw_unit_floats(const Part *part, int64_t column, int64_t k, float *panel);
HIDDEN void cw_unit_row(const Part *part, int64_t row, int64_t k, float *out);

/* Of parts that are LAID_OUT, the same two. halves: whether a part is of Q6_K, which asks rows for the sums of each 16. */
HIDDEN int64_t cw_laid_out_rows_bytes(int64_t k, int64_t rows, int halves);
HIDDEN void cw_laid_out_row(const float *x, int64_t k, int64_t r, int64_t rows, int halves, char *to);
HIDDEN void cw_laid_out_tile(const Part *part, int64_t column, int64_t k, const char *x, int halves, int64_t tile, int64_t tiles, int64_t count, float *sums);

#endif
