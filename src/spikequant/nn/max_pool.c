/* Maximum over windows of images [N][H][W][C] in floats, and its gradient.  Behind `products/kernels.c`.
 * window: {kh, kw, sh, sw, top, left, OH, OW}; size: {H, W, C}. */

#define LANES 16
#if VNNI
/* LANES channels of one window: as below. */
static inline void largest_of_all(const float *from, ptrdiff_t row, ptrdiff_t column, ptrdiff_t a0, ptrdiff_t a1,
                                  ptrdiff_t b0, ptrdiff_t b1, ptrdiff_t kw, float *to, uint8_t *where)
{
    __m512 most = _mm512_set1_ps(-INFINITY);
    __m512i tap = _mm512_set1_epi32((int32_t)(a0 * kw + b0));
    for (ptrdiff_t a = a0; a < a1; ++a)
        for (ptrdiff_t b = b0; b < b1; ++b) {
            const __m512 value = _mm512_loadu_ps(from + a * row + b * column);
            const __mmask16 take = _mm512_cmp_ps_mask(value, most, _CMP_GT_OQ) | _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
            most = _mm512_mask_mov_ps(most, take, value);
            tap = _mm512_mask_mov_epi32(tap, take, _mm512_set1_epi32((int32_t)(a * kw + b)));
        }
    _mm512_storeu_ps(to, most);
    if (where) _mm_storeu_si128((__m128i *)(void *)where, _mm512_cvtepi32_epi8(tap));
}
#endif

/* Some channels of one window, rows a0 .. a1 and columns b0 .. b1 of it: the largest value, and which tap has it, the
 * first of equal ones; a NaN is larger than every number. */
static inline void largest_of(const float *from, ptrdiff_t row, ptrdiff_t column, ptrdiff_t a0, ptrdiff_t a1,
                              ptrdiff_t b0, ptrdiff_t b1, ptrdiff_t kw, float *to, uint8_t *where, ptrdiff_t many)
{
#if VNNI
    if (many == LANES) {
        largest_of_all(from, row, column, a0, a1, b0, b1, kw, to, where);
        return;
    }
#endif
    float most[LANES], value[LANES];
    int32_t tap[LANES];
    for (int c = 0; c < LANES; ++c) most[c] = -INFINITY, value[c] = 0.0f, tap[c] = (int32_t)(a0 * kw + b0);
    for (ptrdiff_t a = a0; a < a1; ++a)
        for (ptrdiff_t b = b0; b < b1; ++b) {
            const int32_t here = (int32_t)(a * kw + b);
            if (many == LANES) memcpy(value, from + a * row + b * column, sizeof value);
            else memcpy(value, from + a * row + b * column, (size_t)many * sizeof *value);
            for (int c = 0; c < LANES; ++c) {
                const int take = (value[c] > most[c]) | (value[c] != value[c]);
                most[c] = take ? value[c] : most[c];
                tap[c] = take ? here : tap[c];
            }
        }
    memcpy(to, most, (size_t)many * sizeof *most);
    if (where)
        for (ptrdiff_t c = 0; c < many; ++c) where[c] = (uint8_t)tap[c];
}

typedef struct { ptrdiff_t h0, w0, a0, a1, b0, b1; } window_t;

static inline window_t window_at(const ptrdiff_t *window, ptrdiff_t H, ptrdiff_t W, ptrdiff_t oh, ptrdiff_t ow)
{
    window_t v = {oh * window[2] - window[4], ow * window[3] - window[5], 0, window[0], 0, window[1]};
    if (v.h0 < 0) v.a0 = -v.h0;
    if (v.w0 < 0) v.b0 = -v.w0;
    if (v.h0 + v.a1 > H) v.a1 = H - v.h0;
    if (v.w0 + v.b1 > W) v.b1 = W - v.w0;
    return v;
}

/* Images n0 .. n1; `where` [N][OH][OW][C] takes the tap of each maximum, or is NULL. */
void sq_max_pool(const float *x, const ptrdiff_t *size, const ptrdiff_t *window, float *out, uint8_t *where,
                 ptrdiff_t n0, ptrdiff_t n1)
{
    const ptrdiff_t H = size[0], W = size[1], C = size[2], OH = window[6], OW = window[7];
    for (ptrdiff_t n = n0; n < n1; ++n)
        for (ptrdiff_t oh = 0; oh < OH; ++oh)
            for (ptrdiff_t ow = 0; ow < OW; ++ow) {
                const window_t v = window_at(window, H, W, oh, ow);
                const float *const from = x + ((n * H + v.h0) * W + v.w0) * C;
                const ptrdiff_t to = ((n * OH + oh) * OW + ow) * C;
                for (ptrdiff_t c = 0; c < C; c += LANES)
                    largest_of(from + c, W * C, C, v.a0, v.a1, v.b0, v.b1, window[1], out + to + c,
                               where ? where + to + c : where, C - c < LANES ? C - c : LANES);
            }
}

/* dx = what each value's windows give it back, windows in order. */
void sq_max_pool_backward(const float *g, const uint8_t *where, const ptrdiff_t *size, const ptrdiff_t *window,
                          float *dx, ptrdiff_t n0, ptrdiff_t n1)
{
    const ptrdiff_t H = size[0], W = size[1], C = size[2], OH = window[6], OW = window[7];
    for (ptrdiff_t n = n0; n < n1; ++n) {
        memset(dx + n * H * W * C, 0, (size_t)(H * W * C) * sizeof *dx);
        for (ptrdiff_t oh = 0; oh < OH; ++oh)
            for (ptrdiff_t ow = 0; ow < OW; ++ow) {
                const window_t v = window_at(window, H, W, oh, ow);
                const ptrdiff_t at = ((n * OH + oh) * OW + ow) * C;
                for (ptrdiff_t a = v.a0; a < v.a1; ++a)
                    for (ptrdiff_t b = v.b0; b < v.b1; ++b) {
                        float *const to = dx + ((n * H + v.h0 + a) * W + v.w0 + b) * C;
                        const uint8_t tap = (uint8_t)(a * window[1] + b);
                        for (ptrdiff_t c = 0; c < C; ++c) to[c] += where[at + c] == tap ? g[at + c] : 0.0f;
                    }
            }
    }
}
