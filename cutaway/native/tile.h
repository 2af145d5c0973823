/* The product that everything else is made of: a few rows times a panel of 32 columns. */
#ifndef CW_TILE_H
#define CW_TILE_H

#include <stdint.h>

#define PANEL 32 /* columns of one panel */
#define ROWS 12  /* rows of one tile: 12 x 2 vectors of sums, of the 32 that AVX-512 has; with AVX2 in parts */

/* what a step of 4 bytes holds: 1 float32, 2 bfloat16, or 4 bytes (unsigned times signed); BLOCKS have no steps (blocks.h) */
enum { FP32, BF16, INT8, BLOCKS };

typedef struct {
    int64_t row, step; /* bytes from one row to the next, and from one step to the next */
} Stride;

/* sums [count][32] = the rows x times the panel w over `steps` steps. A step of w is 32 columns of 4 bytes, `w_step` bytes
 * after the one before. Sums are float32, of INT8 int32. Each row's sums are added in the order of its steps, so they do not
 * depend on `count`. */
typedef void Tile(const char *x, Stride stride, const char *w, int64_t w_step, int64_t steps, float *sums);

extern Tile *cw_tiles[3][ROWS + 1] __attribute__((visibility("hidden"))); /* by kind and count */

/* The same, which asks memory for other bytes while it works, each step `ahead.step` further on: the chip guesses too late
 * what comes after a panel. */
typedef struct {
    const char *from;
    int64_t step;
} Ahead;
typedef void AskingTile(const char *x, Stride stride, const char *w, int64_t w_step, int64_t steps, Ahead ahead, float *sums);

extern AskingTile *cw_asking_tiles[3][ROWS + 1] __attribute__((visibility("hidden")));

#endif
