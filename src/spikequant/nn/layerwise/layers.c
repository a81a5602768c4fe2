/* Whole layers of an integer network over all steps of a few samples at a time: what lies between a product and its
 * neurons never leaves the cache.  Stands behind `products/kernels.c`, whose `sq_conv` it calls.
 * Values are bytes [N][T][H][W][C] with any stride over samples and steps. */

typedef int (*neuron_t)(const int64_t *, void *const *);
#define SPARSE 4 /* inputs to one that is not 0, from which rows of codes are faster than tiles */

/* Images of m samples from n on, into a buffer whose border holds its bytes already. */
static void pad_images(const uint8_t *x, const ptrdiff_t *in, const ptrdiff_t *size, ptrdiff_t n, ptrdiff_t m, uint8_t *to)
{
    const ptrdiff_t sn = in[0], st = in[1], T = in[2], H = in[3], W = in[4], C = in[5], top = in[6], left = in[7];
    const ptrdiff_t Hp = size[0], Wp = size[1], Cp = size[2];
    for (ptrdiff_t i = 0; i < m * T; ++i) {
        const uint8_t *from = x + (n + i / T) * sn + i % T * st;
        uint8_t *image = to + i * Hp * Wp * Cp;
        if (C == Cp && Hp == H && Wp == W) {
            memcpy(image, from, (size_t)(H * W * C));
            continue;
        }
        for (ptrdiff_t h = 0; h < H; ++h, from += W * C) {
            uint8_t *row = image + ((h + top) * Wp + left) * Cp;
            if (C == Cp) {
                memcpy(row, from, (size_t)(W * C));
                continue;
            }
            for (ptrdiff_t w = 0; w < W; ++w)
                for (ptrdiff_t c = 0; c < C; ++c) row[w * Cp + c] = from[w * C + c];
        }
    }
}

/* The sums of `many` positions of padded images: row by row of codes where the map is a matrix (`rows`: codes
 * [Co/LINE][Cp][LINE], else NULL) and few of its inputs are not 0, else by `sq_conv`. */
static void layer_sums(const uint8_t *padded, const ptrdiff_t *size, const ptrdiff_t *taps, ptrdiff_t K, const int8_t *w,
                       const int32_t *minus, const float *gain, const int8_t *rows, float *sums,
                       ptrdiff_t many)
{
    ptrdiff_t done = 0;
    if (rows) {
        const ptrdiff_t bytes = many * size[2];
        ptrdiff_t live = 0;
        for (ptrdiff_t i = 0; i < bytes; ++i) live += padded[i] != 0;
        if (live * SPARSE <= bytes) done = sq_linear_events(padded, size[2], rows, gain, size[5], sums, 0, many);
    }
    sq_conv(padded, size, taps, K, w, minus, gain, sums, done, many);
}

/* out[n][t][...] = spikes of the neurons behind a convolution, of all samples, `together` at a time on each of
 * `threads` threads, which have `padded_bytes` and `many_sums` of the scratch each.
 * in: {strides of samples and steps, T, H, W, C, top, left}; sizes, many_sizes, pointers, many_pointers: of the neuron
 * kernel, which is given sums, output and first sample here; places: neurons of a sample; steps: of the output. */
int sq_layer(const uint8_t *x, const ptrdiff_t *in, const ptrdiff_t *size, const ptrdiff_t *taps, ptrdiff_t K,
             const int8_t *w, const int32_t *minus, const float *gain, const int8_t *rows,
             uint8_t *padded, ptrdiff_t padded_bytes, float *sums, ptrdiff_t many_sums, neuron_t neurons,
             const int64_t *sizes, ptrdiff_t many_sizes, void *const *pointers, ptrdiff_t many_pointers, uint8_t *out,
             ptrdiff_t steps, ptrdiff_t places, ptrdiff_t together, ptrdiff_t samples, int threads)
{
    const ptrdiff_t turns = (samples + together - 1) / together;
    int failed = 0;
    if (many_sizes > 64 || many_pointers > 64) return 2;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : failed) if (threads > 1)
    for (ptrdiff_t turn = 0; turn < turns; ++turn) {
        int64_t own_sizes[64];
        void *own[64];
        const ptrdiff_t n = turn * together, m = samples - n < together ? samples - n : together;
        uint8_t *const images = padded + THREAD * padded_bytes;
        float *const found = sums + THREAD * many_sums;
        memcpy(own_sizes, sizes, (size_t)many_sizes * sizeof *sizes);
        memcpy(own, pointers, (size_t)many_pointers * sizeof *pointers);
        pad_images(x, in, size, n, m, images);
        layer_sums(images, size, taps, K, w, minus, gain, rows, found, m * in[2] * size[3] * size[4]);
        for (ptrdiff_t i = 0; i < m && !failed; ++i) {
            own_sizes[10] = sizes[10] + n + i;
            own[0] = found + i * in[2] * places;
            own[1] = out + (n + i) * steps * places;
            failed |= neurons(own_sizes, own) != 0;
        }
    }
    return failed;
}

/* The sums alone, [n][t][OH][OW][Co] in floats. */
void sq_layer_sums(const uint8_t *x, const ptrdiff_t *in, const ptrdiff_t *size, const ptrdiff_t *taps, ptrdiff_t K,
                   const int8_t *w, const int32_t *minus, const float *gain, const int8_t *rows,
                   uint8_t *padded, ptrdiff_t padded_bytes, float *sums, ptrdiff_t together, ptrdiff_t samples,
                   int threads)
{
    const ptrdiff_t per_sample = in[2] * size[3] * size[4], turns = (samples + together - 1) / together;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t turn = 0; turn < turns; ++turn) {
        const ptrdiff_t n = turn * together, m = samples - n < together ? samples - n : together;
        uint8_t *const images = padded + THREAD * padded_bytes;
        pad_images(x, in, size, n, m, images);
        layer_sums(images, size, taps, K, w, minus, gain, rows, sums + n * per_sample * size[5], m * per_sample);
    }
}

#define CHUNK 16
/* Some channels of one window, rows a0 .. a1 and columns b0 .. b1 of it. */
static inline void pool_chunk(const uint8_t *window, ptrdiff_t row, ptrdiff_t column, ptrdiff_t a0, ptrdiff_t a1,
                              ptrdiff_t b0, ptrdiff_t b1, int largest, uint8_t *to, ptrdiff_t many)
{
    uint8_t found[CHUNK] = {0};
    for (ptrdiff_t a = a0; a < a1; ++a)
        for (ptrdiff_t b = b0; b < b1; ++b) {
            uint8_t value[CHUNK] = {0};
            if (many == CHUNK) memcpy(value, window + a * row + b * column, CHUNK);
            else memcpy(value, window + a * row + b * column, (size_t)many);
            if (largest)
                for (int c = 0; c < CHUNK; ++c) found[c] = value[c] > found[c] ? value[c] : found[c];
            else
                for (int c = 0; c < CHUNK; ++c) found[c] = (uint8_t)(found[c] + value[c]);
        }
    if (many == CHUNK) memcpy(to, found, CHUNK);
    else memcpy(to, found, (size_t)many);
}

/* Largest value or sum over windows; window: {kh, kw, sh, sw, top, left, OH, OW}.  What lies outside counts as 0. */
void sq_layer_pool(const uint8_t *x, const ptrdiff_t *in, const ptrdiff_t *window, int largest, uint8_t *out,
                   ptrdiff_t samples, int threads)
{
    const ptrdiff_t sn = in[0], st = in[1], T = in[2], H = in[3], W = in[4], C = in[5];
    const ptrdiff_t kh = window[0], kw = window[1], sh = window[2], sw = window[3], top = window[4], left = window[5];
    const ptrdiff_t OH = window[6], OW = window[7];
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t i = 0; i < samples * T; ++i) {
        const uint8_t *image = x + i / T * sn + i % T * st;
        for (ptrdiff_t oh = 0; oh < OH; ++oh)
            for (ptrdiff_t ow = 0; ow < OW; ++ow) {
                const ptrdiff_t h0 = oh * sh - top, w0 = ow * sw - left;
                const ptrdiff_t a0 = h0 < 0 ? -h0 : 0, a1 = kh < H - h0 ? kh : H - h0;
                const ptrdiff_t b0 = w0 < 0 ? -w0 : 0, b1 = kw < W - w0 ? kw : W - w0;
                uint8_t *const to = out + ((i * OH + oh) * OW + ow) * C;
                for (ptrdiff_t c = 0; c < C; c += CHUNK)
                    pool_chunk(image + (h0 * W + w0) * C + c, W * C, C, a0, a1, b0, b1, largest, to + c,
                               C - c < CHUNK ? C - c : CHUNK);
            }
    }
}
