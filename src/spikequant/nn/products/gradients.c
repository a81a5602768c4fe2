/* The weight gradient of a matrix whose inputs are sparse bytes.  Behind `kernels.c`. */

#define ACROSS 64
typedef float lanes_t __attribute__((vector_size(64), aligned(4), may_alias)); /* 16 floats at any address */
#define WIDE_BY (ACROSS / 16) /* vectors of one row */
#define ROW(from, r) ((const lanes_t *)(const void *)((from) + (ptrdiff_t)(r) * ACROSS))
#define NEAR_ROWS 256 /* gradients of ACROSS outputs of so many rows stay beside the processor */

/* sums[i][o] += the gradients near[row][o] of the rows in which input i is not 0; `cursor` moves behind `end`. */
static void gather_rows(const float *near, const int32_t *where, const uint8_t *value, const ptrdiff_t *first,
                        ptrdiff_t Ci, int binary, int32_t start, int32_t end, float *sums, ptrdiff_t *cursor)
{
    const float *const base = near - (ptrdiff_t)start * ACROSS;
    for (ptrdiff_t i = 0; i < Ci; ++i) {
        ptrdiff_t e = cursor[i];
        const ptrdiff_t stop = first[i + 1];
        lanes_t *const to = (lanes_t *)(void *)(sums + i * ACROSS);
        lanes_t one[WIDE_BY], two[WIDE_BY]; /* two chains: an addition takes four cycles */
        for (int k = 0; k < WIDE_BY; ++k) one[k] = to[k], two[k] = (lanes_t){0};
        for (; binary && e + 1 < stop && where[e + 1] < end; e += 2) {
            const lanes_t *const a = ROW(base, where[e]), *const b = ROW(base, where[e + 1]);
            for (int k = 0; k < WIDE_BY; ++k) one[k] += a[k], two[k] += b[k];
        }
        for (; e < stop && where[e] < end; ++e) {
            const lanes_t *const a = ROW(base, where[e]);
            for (int k = 0; k < WIDE_BY; ++k) one[k] += (float)value[e] * a[k];
        }
        for (int k = 0; k < WIDE_BY; ++k) to[k] = one[k] + two[k];
        cursor[i] = e;
    }
}

#if VNNI
/* to[o][i] = from[i][o], 16 by 16. */
static inline void turn_square(const float *from, float *to, ptrdiff_t step)
{
    __m512 r[16], s[16];
    for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(from + i * ACROSS);
    for (int i = 0; i < 16; i += 2) {
        s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int k = 0; k < 2; ++k) {
            r[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(s[i + k]), _mm512_castps_pd(s[i + k + 2])));
            r[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(s[i + k]), _mm512_castps_pd(s[i + k + 2])));
        }
    for (int h = 0; h < 16; h += 8) /* r[i + k]: column 4 b + k of quarter b, rows i .. i + 3 */
        for (int k = 0; k < 4; ++k) {
            s[h + k] = _mm512_shuffle_f32x4(r[h + k], r[h + k + 4], 0x88);
            s[h + k + 4] = _mm512_shuffle_f32x4(r[h + k], r[h + k + 4], 0xDD);
        }
    for (int k = 0; k < 8; ++k) {
        /* s[k]: columns k and k + 8; s[k + 4]: k + 4 and k + 12 */
        _mm512_storeu_ps(to + k * step, _mm512_shuffle_f32x4(s[k], s[k + 8], 0x88));
        _mm512_storeu_ps(to + (k + 8) * step, _mm512_shuffle_f32x4(s[k], s[k + 8], 0xDD));
    }
}
#endif

/* grad[o][i] = sums[i][o], `wide` outputs, a square of 16 at a time. */
static void turn_around(const float *sums, ptrdiff_t Ci, ptrdiff_t wide, float *grad)
{
    for (ptrdiff_t i = 0; i < Ci; i += 16)
        for (ptrdiff_t o = 0; o < wide; o += 16) {
            const ptrdiff_t high = Ci - i < 16 ? Ci - i : 16, broad = wide - o < 16 ? wide - o : 16;
#if VNNI
            if (high == 16 && broad == 16) {
                turn_square(sums + i * ACROSS + o, grad + o * Ci + i, Ci);
                continue;
            }
#endif
            for (ptrdiff_t j = 0; j < broad; ++j)
                for (ptrdiff_t k = 0; k < high; ++k) grad[(o + j) * Ci + i + k] = sums[(i + k) * ACROSS + o + j];
        }
}

/* grad[o][i] = sum over rows of g[row][o] * x[row][i].  Bytes x are listed by input: where[first[i]] .. where[first[i +
 * 1]] are their rows, in order.  Scratch of each thread: NEAR_ROWS * ACROSS floats, Ci * ACROSS floats, Ci cursors.
 * With weights w it is taken on to them: see `toward_weights`. */
void sq_matrix_gradient(const float *g, ptrdiff_t rows, ptrdiff_t Co, const int32_t *where, const uint8_t *value,
                        const ptrdiff_t *first, ptrdiff_t Ci, int binary, float *near_all, float *sums_all,
                        ptrdiff_t *cursors, float *grad, const float *w, const float *scale, ptrdiff_t per_row,
                        float low, float high, const float *gain, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (ptrdiff_t b = 0; b < (Co + ACROSS - 1) / ACROSS; ++b) {
        const ptrdiff_t wide = Co - b * ACROSS < ACROSS ? Co - b * ACROSS : ACROSS;
        float *const near = near_all + THREAD * NEAR_ROWS * ACROSS, *const sums = sums_all + THREAD * Ci * ACROSS;
        ptrdiff_t *const cursor = cursors + THREAD * Ci;
        memset(sums, 0, (size_t)(Ci * ACROSS) * sizeof *sums);
        memset(near, 0, (size_t)(NEAR_ROWS * ACROSS) * sizeof *near);
        for (ptrdiff_t i = 0; i < Ci; ++i) cursor[i] = first[i];
        for (ptrdiff_t r = 0; r < rows; r += NEAR_ROWS) {
            const ptrdiff_t many = rows - r < NEAR_ROWS ? rows - r : NEAR_ROWS;
            for (ptrdiff_t p = 0; p < many; ++p)
                memcpy(near + p * ACROSS, g + (r + p) * Co + b * ACROSS, (size_t)wide * sizeof *g);
            gather_rows(near, where, value, first, Ci, binary, (int32_t)r, (int32_t)(r + many), sums, cursor);
        }
        float *const to = grad + b * ACROSS * Ci;
        turn_around(sums, Ci, wide, to);
        for (ptrdiff_t o = 0; w && o < wide; ++o) {
            const ptrdiff_t c = b * ACROSS + o;
            toward_weights(w + c * Ci, Ci, scale[per_row * c], low, high, to + o * Ci, gain ? gain[c] : 1.0f, to + o * Ci);
        }
    }
}
