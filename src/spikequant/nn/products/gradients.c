/* The weight gradient of a matrix whose inputs are sparse bytes.  Behind `kernels.c`. */

#define ACROSS 16
typedef float lanes_t __attribute__((vector_size(64), aligned(4), may_alias)); /* ACROSS floats at any address */
#define NEAR_ROWS 512 /* gradients of ACROSS outputs of so many rows stay beside the processor */

/* grad[o][i] = sum over rows of g[row][o] * x[row][i], outputs of blocks b0 .. b1 of ACROSS.  Bytes x are listed by
 * input: where[first[i]] .. where[first[i + 1]] are their rows, in order.  Scratch: NEAR_ROWS * ACROSS floats `near`,
 * Cp * ACROSS floats `sums`, Cp cursors. */
void sq_matrix_gradient(const float *g, ptrdiff_t rows, ptrdiff_t Co, const int32_t *where, const uint8_t *value,
                        const ptrdiff_t *first, ptrdiff_t Ci, int binary, float *near, float *sums, ptrdiff_t *cursor,
                        float *grad, ptrdiff_t b0, ptrdiff_t b1)
{
    for (ptrdiff_t b = b0; b < b1; ++b) {
        const ptrdiff_t wide = Co - b * ACROSS < ACROSS ? Co - b * ACROSS : ACROSS;
        memset(sums, 0, (size_t)(Ci * ACROSS) * sizeof *sums);
        memset(near, 0, (size_t)(NEAR_ROWS * ACROSS) * sizeof *near);
        for (ptrdiff_t i = 0; i < Ci; ++i) cursor[i] = first[i];
        for (ptrdiff_t r = 0; r < rows; r += NEAR_ROWS) {
            const ptrdiff_t many = rows - r < NEAR_ROWS ? rows - r : NEAR_ROWS;
            for (ptrdiff_t p = 0; p < many; ++p)
                memcpy(near + p * ACROSS, g + (r + p) * Co + b * ACROSS, (size_t)wide * sizeof *g);
            for (ptrdiff_t i = 0; i < Ci; ++i) {
                ptrdiff_t e = cursor[i];
                const ptrdiff_t end = first[i + 1];
                lanes_t one = {0}, two = {0}; /* two chains: an addition takes four cycles */
                for (; binary && e + 1 < end && where[e + 1] < r + many; e += 2) {
                    one += *(const lanes_t *)(near + (where[e] - r) * ACROSS);
                    two += *(const lanes_t *)(near + (where[e + 1] - r) * ACROSS);
                }
                for (; e < end && where[e] < r + many; ++e)
                    one += (float)value[e] * *(const lanes_t *)(near + (where[e] - r) * ACROSS);
                *(lanes_t *)(sums + i * ACROSS) += one + two;
                cursor[i] = e;
            }
        }
        for (ptrdiff_t i = 0; i < Ci; i += ACROSS) { /* turned around a square at a time */
            const ptrdiff_t high = Ci - i < ACROSS ? Ci - i : ACROSS;
            for (ptrdiff_t o = 0; o < wide; ++o)
                for (ptrdiff_t k = 0; k < high; ++k) grad[(b * ACROSS + o) * Ci + i + k] = sums[(i + k) * ACROSS + o];
        }
    }
}
