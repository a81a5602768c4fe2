/* Sums per channel of rows [rows][C], and what moments send back.  Behind `products/conv_gradients.c`. */

#define BLOCK_ROWS 16 /* rows whose sums are floats before they join a double */
#define MOST_CHANNELS 512 /* of one pass */

/* sums[part][0][c] and [1][c]: of values and of their squares, for `parts` parts of the rows. */
void sq_moments(const float *x, ptrdiff_t rows, ptrdiff_t C, ptrdiff_t parts, double *sums, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t part = 0; part < parts; ++part) {
        const ptrdiff_t r0 = rows * part / parts, r1 = rows * (part + 1) / parts;
        for (ptrdiff_t c0 = 0; c0 < C; c0 += MOST_CHANNELS) {
            const ptrdiff_t wide = C - c0 < MOST_CHANNELS ? C - c0 : MOST_CHANNELS;
            double *const total = sums + part * 2 * C + c0, *const squares = total + C;
            for (ptrdiff_t r = r0; r < r1; r += BLOCK_ROWS) {
                const ptrdiff_t end = r1 - r < BLOCK_ROWS ? r1 : r + BLOCK_ROWS;
                float one[MOST_CHANNELS] = {0}, two[MOST_CHANNELS] = {0};
                for (ptrdiff_t i = r; i < end; ++i) {
                    const float *const from = x + i * C + c0;
                    for (ptrdiff_t c = 0; c < wide; ++c) {
                        one[c] += from[c];
                        two[c] += from[c] * from[c];
                    }
                }
                for (ptrdiff_t c = 0; c < wide; ++c) {
                    total[c] += (double)one[c];
                    squares[c] += (double)two[c];
                }
            }
        }
    }
}

/* out = g + slope x + offset; g may be NULL. */
void sq_join(const float *g, const float *x, ptrdiff_t rows, ptrdiff_t C, const float *slope, const float *offset,
             float *out, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t r = 0; r < rows; ++r) {
        const float *const from = x + r * C, *const with = g ? g + r * C : NULL;
        float *const to = out + r * C;
        if (with)
            for (ptrdiff_t c = 0; c < C; ++c) to[c] = with[c] + (from[c] * slope[c] + offset[c]);
        else
            for (ptrdiff_t c = 0; c < C; ++c) to[c] = from[c] * slope[c] + offset[c];
    }
}
