/* Maximum over windows of images [N][H][W][C] in floats, and its gradient.  Behind `products/kernels.c`.
 * window: {kh, kw, sh, sw, top, left, OH, OW}; size: {H, W, C}. */

#define LANES 16
/* Some channels of one window, rows a0 .. a1 and columns b0 .. b1 of it: the largest value, and which tap has it, the
 * first of equal ones; a NaN is larger than every number. */
static inline void largest_of(const float *from, ptrdiff_t row, ptrdiff_t column, ptrdiff_t a0, ptrdiff_t a1,
                              ptrdiff_t b0, ptrdiff_t b1, ptrdiff_t kw, float *to, uint8_t *where, ptrdiff_t many)
{
#if VNNI
    const __mmask16 m = many == LANES ? 0xFFFF : (__mmask16)((1u << many) - 1u);
    __m512 most = _mm512_set1_ps(-INFINITY);
    __m512i tap = _mm512_set1_epi32((int32_t)(a0 * kw + b0));
    for (ptrdiff_t a = a0; a < a1; ++a)
        for (ptrdiff_t b = b0; b < b1; ++b) {
            const __m512 value = _mm512_maskz_loadu_ps(m, from + a * row + b * column);
            const __mmask16 take = _mm512_cmp_ps_mask(value, most, _CMP_GT_OQ) | _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
            most = _mm512_mask_mov_ps(most, take, value);
            tap = _mm512_mask_mov_epi32(tap, take, _mm512_set1_epi32((int32_t)(a * kw + b)));
        }
    _mm512_mask_storeu_ps(to, m, most);
    if (where) _mm512_mask_cvtepi32_storeu_epi8(where, m, tap);
#else
    float most[LANES], value[LANES];
    int32_t tap[LANES];
    for (int c = 0; c < LANES; ++c) most[c] = -INFINITY, value[c] = 0.0f, tap[c] = (int32_t)(a0 * kw + b0);
    for (ptrdiff_t a = a0; a < a1; ++a)
        for (ptrdiff_t b = b0; b < b1; ++b) {
            const int32_t here = (int32_t)(a * kw + b);
            memcpy(value, from + a * row + b * column, (size_t)many * sizeof *value);
            for (int c = 0; c < LANES; ++c) {
                const int take = (value[c] > most[c]) | (value[c] != value[c]);
                most[c] = take ? value[c] : most[c];
                tap[c] = take ? here : tap[c];
            }
        }
    memcpy(to, most, (size_t)many * sizeof *most);
    if (where)
        for (ptrdiff_t c = 0; c < many; ++c) where[c] = (uint8_t)tap[c];
#endif
}

/* What one tap of a window is given back; `alone`: no other window reaches it. */
static inline void give_back(const float *g, const uint8_t *where, uint8_t tap, ptrdiff_t C, int alone, float *to)
{
    ptrdiff_t c = 0;
#if VNNI
    for (; c < C; c += LANES) {
        const __mmask16 m = C - c >= LANES ? 0xFFFF : (__mmask16)((1u << (C - c)) - 1u);
        const __mmask16 mine = _mm_mask_cmpeq_epi8_mask(m, _mm_maskz_loadu_epi8(m, where + c), _mm_set1_epi8((char)tap));
        const __m512 given = _mm512_maskz_loadu_ps(mine, g + c);
        _mm512_mask_storeu_ps(to + c, m, alone ? given : _mm512_add_ps(_mm512_maskz_loadu_ps(m, to + c), given));
    }
#endif
    for (; c < C; ++c) to[c] = (alone ? 0.0f : to[c]) + (where[c] == tap ? g[c] : 0.0f);
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

/* All images; `where` [N][OH][OW][C] takes the tap of each maximum, or is NULL. */
void sq_max_pool(const float *x, const ptrdiff_t *size, const ptrdiff_t *window, float *out, uint8_t *where,
                 ptrdiff_t images, int threads)
{
    const ptrdiff_t H = size[0], W = size[1], C = size[2], OH = window[6], OW = window[7];
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t n = 0; n < images; ++n)
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
                          float *dx, ptrdiff_t images, int threads)
{
    const ptrdiff_t H = size[0], W = size[1], C = size[2], OH = window[6], OW = window[7];
    const int alone = window[0] <= window[2] && window[1] <= window[3];
    const int covers = alone && window[0] == window[2] && window[1] == window[3] && OH * window[2] - window[4] >= H &&
                       OW * window[3] - window[5] >= W;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t n = 0; n < images; ++n) {
        if (!covers) memset(dx + n * H * W * C, 0, (size_t)(H * W * C) * sizeof *dx);
        for (ptrdiff_t oh = 0; oh < OH; ++oh)
            for (ptrdiff_t ow = 0; ow < OW; ++ow) {
                const window_t v = window_at(window, H, W, oh, ow);
                const ptrdiff_t at = ((n * OH + oh) * OW + ow) * C;
                for (ptrdiff_t a = v.a0; a < v.a1; ++a)
                    for (ptrdiff_t b = v.b0; b < v.b1; ++b)
                        give_back(g + at, where + at, (uint8_t)(a * window[1] + b), C, alone,
                                  dx + ((n * H + v.h0 + a) * W + v.w0 + b) * C);
            }
    }
}
