/* Gradients of a convolution whose shapes repeat over many pictures.  A link (q, k) of an input place p: output place q
 * reads p by tap k; what would meet the border has no link and costs nothing.  Behind `gradients.c`. */
#ifndef THREAD
#ifdef _OPENMP
#include <omp.h>
#define THREAD omp_get_thread_num()
#else
#define THREAD 0
#endif
#endif

#define IMAGES 8  /* pictures of one pass over the weights */
#define NARROW 32 /* channels of one pass: two vectors */
#define HALF 16

/* rows[k][o][NARROW] = gain[o] * w[o][c0 + i][k] of weights [Co][Ci][K]; channels from Ci on are 0. */
static void rows_of_taps(const float *w, const float *gain, ptrdiff_t Co, ptrdiff_t Ci, ptrdiff_t K, ptrdiff_t c0,
                         float *rows)
{
    const ptrdiff_t here = Ci - c0 < NARROW ? Ci - c0 : NARROW;
    for (ptrdiff_t o = 0; o < Co; ++o) {
        const float *from = w + (o * Ci + c0) * K, by = gain ? gain[o] : 1.0f;
        for (ptrdiff_t k = 0; k < K; ++k) {
            float *to = rows + (k * Co + o) * NARROW;
            for (ptrdiff_t i = 0; i < here; ++i) to[i] = by * from[i * K + k];
            for (ptrdiff_t i = here; i < NARROW; ++i) to[i] = 0.0f;
        }
    }
}

/* panel[q][o][j] = g[n + j][q][o], many = Q * Co; the last picture stands for those that lack. */
static void side_by_side(const float *g, ptrdiff_t many, ptrdiff_t n, ptrdiff_t N, float *panel)
{
    const float *at[IMAGES];
    for (int j = 0; j < IMAGES; ++j) at[j] = g + (n + j < N ? n + j : N - 1) * many;
    for (ptrdiff_t i = 0; i < many; ++i)
        for (int j = 0; j < IMAGES; ++j) panel[i * IMAGES + j] = at[j][i];
}

/* sum[j][NARROW] += the products of one link of IMAGES pictures. */
static inline void add_link(const float *x, const float *v, ptrdiff_t Co, float (*const sum)[NARROW])
{
#if VNNI
    __m512 a[IMAGES][2];
    for (int j = 0; j < IMAGES; ++j)
        for (int h = 0; h < 2; ++h) a[j][h] = _mm512_loadu_ps(sum[j] + h * HALF);
    for (ptrdiff_t o = 0; o < Co; ++o, x += IMAGES, v += NARROW) {
        const __m512 one = _mm512_loadu_ps(v), two = _mm512_loadu_ps(v + HALF);
        for (int j = 0; j < IMAGES; ++j) {
            const __m512 by = _mm512_set1_ps(x[j]);
            a[j][0] = _mm512_fmadd_ps(by, one, a[j][0]);
            a[j][1] = _mm512_fmadd_ps(by, two, a[j][1]);
        }
    }
    for (int j = 0; j < IMAGES; ++j)
        for (int h = 0; h < 2; ++h) _mm512_storeu_ps(sum[j] + h * HALF, a[j][h]);
#else
    for (ptrdiff_t o = 0; o < Co; ++o, x += IMAGES, v += NARROW)
        for (int j = 0; j < IMAGES; ++j)
            for (int i = 0; i < NARROW; ++i) sum[j][i] += x[j] * v[i];
#endif
}

/* out[n][p][c] = sum of gain[o] * g[n][q][o] * w[o][c][k] over the links of place p, first[p] .. first[p + 1].
 * Scratch: K * Co * NARROW floats `rows` for each thread, Q * Co * IMAGES floats `panel` for every IMAGES pictures. */
void sq_input_gradient(const float *g, ptrdiff_t N, ptrdiff_t Q, ptrdiff_t Co, const float *w, const float *gain,
                       ptrdiff_t Ci, ptrdiff_t K, const int32_t *first, const int32_t *from, const int32_t *tap,
                       ptrdiff_t P, float *rows, float *panel, float *out, int threads)
{
    const ptrdiff_t groups = (N + IMAGES - 1) / IMAGES;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *const own = rows + THREAD * K * Co * NARROW;
#pragma omp for schedule(static)
        for (ptrdiff_t m = 0; m < groups; ++m)
            side_by_side(g, Q * Co, m * IMAGES, N, panel + m * Q * Co * IMAGES);
        for (ptrdiff_t c = 0; c < Ci; c += NARROW) {
            const ptrdiff_t here = Ci - c < NARROW ? Ci - c : NARROW;
            rows_of_taps(w, gain, Co, Ci, K, c, own);
#pragma omp for schedule(static) nowait
            for (ptrdiff_t m = 0; m < groups; ++m)
                for (ptrdiff_t p = 0; p < P; ++p) {
                    float sum[IMAGES][NARROW] = {{0}};
                    for (ptrdiff_t l = first[p]; l < first[p + 1]; ++l)
                        add_link(panel + (m * Q + from[l]) * Co * IMAGES, own + tap[l] * Co * NARROW, Co, sum);
                    for (ptrdiff_t j = 0; j < IMAGES && m * IMAGES + j < N; ++j)
                        memcpy(out + ((m * IMAGES + j) * P + p) * Ci + c, sum[j], (size_t)here * sizeof *out);
                }
        }
    }
}

#define NEAR_PLACES 2048 /* places of one list at most */
#define MOST_TAPS 64     /* of one convolution */

/* word[c]: which of up to 64 places, `stride` bytes apart, have a byte of channel c that is not 0. */
static void live_places(const uint8_t *x, ptrdiff_t many, ptrdiff_t stride, ptrdiff_t channels, uint64_t *word)
{
#if VNNI
    const __mmask64 in = channels >= 64 ? ~0ull : (1ull << channels) - 1;
    for (ptrdiff_t p = 0; p < many; ++p) {
        const __m512i bytes = _mm512_maskz_loadu_epi8(in, x + p * stride);
        word[p] = _mm512_test_epi8_mask(bytes, bytes);
    }
#else
    for (ptrdiff_t p = 0; p < many; ++p) {
        word[p] = 0;
        for (ptrdiff_t c = 0; c < 64 && c < channels; ++c) word[p] |= (uint64_t)(x[p * stride + c] != 0) << c;
    }
#endif
    for (ptrdiff_t p = many; p < 64; ++p) word[p] = 0;
    uint64_t mask = 0x00000000FFFFFFFFull; /* the square of bits turned around, halves first */
    for (int j = 32; j; j >>= 1, mask ^= mask << j)
        for (int k = 0; k < 64; k = ((k | j) + 1) & ~j) {
            const uint64_t t = ((word[k] >> j) ^ word[k | j]) & mask;
            word[k] ^= t << j;
            word[k | j] ^= t;
        }
}

/* Lists of the bytes that are not 0.  List m is of places start[m], start[m] + stride, ... (`many[m]` of them, at most
 * `most`), Cp channels each; its entries begin at m * most * Cp and are sorted by channel: first[m][c] .. first[m][c + 1]. */
void sq_list_places(const uint8_t *x, const int64_t *start, const int32_t *many, ptrdiff_t lists, ptrdiff_t stride,
                    ptrdiff_t Cp, ptrdiff_t most, uint16_t *where, uint8_t *value, int32_t *first, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t m = 0; m < lists; ++m) {
        uint64_t live[NEAR_PLACES / 64][64];
        const uint8_t *from = x + start[m];
        const ptrdiff_t here = many[m], words = (here + 63) / 64;
        uint16_t *to = where + m * most * Cp;
        uint8_t *what = value + m * most * Cp;
        int32_t *begin = first + m * (Cp + 1), found = 0;
        for (ptrdiff_t c = 0; c < Cp; ++c) {
            if (c % 64 == 0)
                for (ptrdiff_t k = 0; k < words; ++k)
                    live_places(from + k * 64 * stride + c, here - k * 64 < 64 ? here - k * 64 : 64, stride, Cp - c, live[k]);
            begin[c] = found;
            for (ptrdiff_t k = 0; k < words; ++k)
                for (uint64_t left = live[k][c % 64]; left; left &= left - 1) {
                    const ptrdiff_t p = k * 64 + __builtin_ctzll(left);
                    to[found] = (uint16_t)p;
                    what[found++] = from[p * stride + c];
                }
        }
        begin[Cp] = found;
    }
}

/* sum[.][NARROW] += v * the rows of gradients at[.] + where[e] * NARROW, for `rows` rows that stay in registers. */
#define GATHER(rows)                                                                                                   \
    static void gather##rows(const float *const *at, const uint16_t *where, const uint8_t *value, ptrdiff_t many,      \
                             int binary, float *const *sum)                                                            \
    {                                                                                                                  \
        VECTORS(rows)                                                                                                  \
    }
#if VNNI
#define VECTORS(rows)                                                                                                  \
    __m512 a[rows][2];                                                                                                 \
    for (int k = 0; k < rows; ++k)                                                                                     \
        for (int h = 0; h < 2; ++h) a[k][h] = _mm512_loadu_ps(sum[k] + h * HALF);                                      \
    for (ptrdiff_t e = 0; binary && e < many; ++e)                                                                     \
        for (int k = 0; k < rows; ++k)                                                                                 \
            for (int h = 0; h < 2; ++h)                                                                                \
                a[k][h] = _mm512_add_ps(a[k][h], _mm512_loadu_ps(at[k] + where[e] * NARROW + h * HALF));               \
    for (ptrdiff_t e = 0; !binary && e < many; ++e) {                                                                  \
        const __m512 v = _mm512_set1_ps((float)value[e]);                                                              \
        for (int k = 0; k < rows; ++k)                                                                                 \
            for (int h = 0; h < 2; ++h)                                                                                \
                a[k][h] = _mm512_fmadd_ps(v, _mm512_loadu_ps(at[k] + where[e] * NARROW + h * HALF), a[k][h]);          \
    }                                                                                                                  \
    for (int k = 0; k < rows; ++k)                                                                                     \
        for (int h = 0; h < 2; ++h) _mm512_storeu_ps(sum[k] + h * HALF, a[k][h]);
#else
#define VECTORS(rows)                                                                                                  \
    (void)binary;                                                                                                      \
    for (ptrdiff_t e = 0; e < many; ++e)                                                                               \
        for (int k = 0; k < rows; ++k)                                                                                 \
            for (int i = 0; i < NARROW; ++i) sum[k][i] += (float)value[e] * at[k][where[e] * NARROW + i];
#endif
GATHER(1)
GATHER(2)
GATHER(3)
GATHER(4)
GATHER(6)
GATHER(9)

/* The same for any number of rows, as many of them at once as one of the functions takes. */
static void gather_rows_at(const float *const *at, int rows, const uint16_t *where, const uint8_t *value,
                           ptrdiff_t many, int binary, float *const *sum)
{
    for (int k = 0; k < rows;) {
        const int left = rows - k;
        if (left >= 9) gather9(at + k, where, value, many, binary, sum + k), k += 9;
        else if (left >= 6) gather6(at + k, where, value, many, binary, sum + k), k += 6;
        else if (left >= 4) gather4(at + k, where, value, many, binary, sum + k), k += 4;
        else if (left == 3) gather3(at + k, where, value, many, binary, sum + k), k += 3;
        else if (left == 2) gather2(at + k, where, value, many, binary, sum + k), k += 2;
        else gather1(at + k, where, value, many, binary, sum + k), k += 1;
    }
}

/* The same for the nine taps of a 3x3 window whose rows lie `row` places apart: three addresses instead of nine. */
static void gather_window(const float *g, ptrdiff_t row, const uint16_t *where, const uint8_t *value, ptrdiff_t many,
                          int binary, float *sum)
{
#if VNNI
    __m512 a[9][2];
    for (int k = 0; k < 9; ++k)
        for (int h = 0; h < 2; ++h) a[k][h] = _mm512_loadu_ps(sum + k * NARROW + h * HALF);
    for (ptrdiff_t e = 0; e < many; ++e) {
        const float *const top = g + where[e] * NARROW;
        const float *const at[3] = {top, top - row * NARROW, top - 2 * row * NARROW};
        const __m512 v = _mm512_set1_ps((float)value[e]);
        for (int k = 0; binary && k < 9; ++k)
            for (int h = 0; h < 2; ++h)
                a[k][h] = _mm512_add_ps(a[k][h], _mm512_loadu_ps(at[k / 3] - k % 3 * NARROW + h * HALF));
        for (int k = 0; !binary && k < 9; ++k)
            for (int h = 0; h < 2; ++h)
                a[k][h] = _mm512_fmadd_ps(v, _mm512_loadu_ps(at[k / 3] - k % 3 * NARROW + h * HALF), a[k][h]);
    }
    for (int k = 0; k < 9; ++k)
        for (int h = 0; h < 2; ++h) _mm512_storeu_ps(sum + k * NARROW + h * HALF, a[k][h]);
#else
    (void)binary;
    for (ptrdiff_t e = 0; e < many; ++e)
        for (int k = 0; k < 9; ++k)
            for (int i = 0; i < NARROW; ++i)
                sum[k * NARROW + i] += (float)value[e] * g[(where[e] - k / 3 * row - k % 3) * NARROW + i];
#endif
}

/* dw[o][c][k] = sums[c][k][o] of `wide` outputs, a square of HALF at a time. */
static void turn_taps(const float *sums, ptrdiff_t many, ptrdiff_t wide, float *dw)
{
    for (ptrdiff_t i = 0; i < many; i += HALF) {
        const ptrdiff_t high = many - i < HALF ? many - i : HALF;
        for (ptrdiff_t o = 0; o < wide; ++o)
            for (ptrdiff_t k = 0; k < high; ++k) dw[o * many + i + k] = sums[(i + k) * NARROW + o];
    }
}

/* The weight gradient of stride 1 from lists of whole padded pictures, `places` in a list: an event adds the gradients
 * of the K outputs `off[k]` places before it.  size: {Hp, Wp, Cp, OH, OW, Co}.  Scratch of each thread: (lead + places)
 * * NARROW floats `near`, Cp * K * NARROW floats `sums`. */
void sq_tap_gradient(const ptrdiff_t *size, const ptrdiff_t *off, ptrdiff_t K, ptrdiff_t N, ptrdiff_t Ci,
                     ptrdiff_t places, const uint16_t *where, const uint8_t *value, const int32_t *first, int binary,
                     const float *g, float *near_all, float *sums_all, float *dw, int threads)
{
    const ptrdiff_t Hp = size[0], Wp = size[1], Cp = size[2], OH = size[3], OW = size[4], Co = size[5];
    const ptrdiff_t lead = off[K - 1], pictures = places / (Hp * Wp);
    const int window = K == 9 && off[2] == 2 && off[8] == 2 * off[3] + 2;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (ptrdiff_t b = 0; b < (Co + NARROW - 1) / NARROW; ++b) {
        const ptrdiff_t wide = Co - b * NARROW < NARROW ? Co - b * NARROW : NARROW;
        float *const near = near_all + THREAD * (lead + places) * NARROW, *const sums = sums_all + THREAD * Cp * K * NARROW;
        const float *at[MOST_TAPS];
        float *to[MOST_TAPS];
        memset(near, 0, (size_t)((lead + places) * NARROW) * sizeof *near);
        memset(sums, 0, (size_t)(Cp * K * NARROW) * sizeof *sums);
        for (ptrdiff_t k = 0; k < K; ++k) at[k] = near + (lead - off[k]) * NARROW;
        for (ptrdiff_t n = 0, m = 0; n < N; n += pictures, ++m) {
            const ptrdiff_t here = N - n < pictures ? N - n : pictures;
            for (ptrdiff_t i = 0; i < here; ++i)
                for (ptrdiff_t h = 0; h < OH; ++h)
                    for (ptrdiff_t w = 0; w < OW; ++w)
                        memcpy(near + (lead + (i * Hp + h) * Wp + w) * NARROW,
                               g + (((n + i) * OH + h) * OW + w) * Co + b * NARROW, (size_t)wide * sizeof *g);
            for (ptrdiff_t c = 0; c < Ci; ++c) {
                const int32_t *const list = first + m * (Cp + 1) + c;
                const ptrdiff_t from = m * places * Cp + list[0];
                const ptrdiff_t live = list[1] - list[0];
                for (ptrdiff_t k = 0; k < K; ++k) to[k] = sums + (c * K + k) * NARROW;
                if (live && window) gather_window(at[0], off[3], where + from, value + from, live, binary, to[0]);
                else if (live) gather_rows_at(at, (int)K, where + from, value + from, live, binary, to);
            }
        }
        turn_taps(sums, Ci * K, wide, dw + b * NARROW * Ci * K);
    }
}

/* The same for few output places and any stride, from lists of one input place over up to `most` pictures each: list
 * m * P + p is of place p in the pictures from m * most on.  An event adds the gradients of the links of its place.
 * Scratch of each thread: Q * most * NARROW floats `near`, Cp * K * NARROW floats `sums`. */
void sq_link_gradient(ptrdiff_t N, ptrdiff_t Q, ptrdiff_t Co, ptrdiff_t Ci, ptrdiff_t Cp, ptrdiff_t K, ptrdiff_t P,
                      const int32_t *links, const int32_t *from, const int32_t *tap, ptrdiff_t most,
                      const uint16_t *where, const uint8_t *value, const int32_t *first, int binary, const float *g,
                      float *near_all, float *sums_all, float *dw, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (ptrdiff_t b = 0; b < (Co + NARROW - 1) / NARROW; ++b) {
        const ptrdiff_t wide = Co - b * NARROW < NARROW ? Co - b * NARROW : NARROW;
        float *const near = near_all + THREAD * Q * most * NARROW, *const sums = sums_all + THREAD * Cp * K * NARROW;
        memset(near, 0, (size_t)(Q * most * NARROW) * sizeof *near);
        memset(sums, 0, (size_t)(Cp * K * NARROW) * sizeof *sums);
        for (ptrdiff_t n = 0, m = 0; n < N; n += most, ++m) {
            const ptrdiff_t here = N - n < most ? N - n : most;
            for (ptrdiff_t i = 0; i < here; ++i)
                for (ptrdiff_t q = 0; q < Q; ++q)
                    memcpy(near + (q * most + i) * NARROW, g + ((n + i) * Q + q) * Co + b * NARROW,
                           (size_t)wide * sizeof *g);
            for (ptrdiff_t p = 0; p < P; ++p) {
                const float *at[MOST_TAPS];
                float *to[MOST_TAPS];
                const int rows = links[p + 1] - links[p];
                const int32_t *const list = first + (m * P + p) * (Cp + 1);
                const ptrdiff_t begin = (m * P + p) * most * Cp;
                for (int l = 0; l < rows; ++l) at[l] = near + from[links[p] + l] * most * NARROW;
                for (ptrdiff_t c = 0; c < Ci && rows; ++c) {
                    for (int l = 0; l < rows; ++l) to[l] = sums + (c * K + tap[links[p] + l]) * NARROW;
                    if (list[c] < list[c + 1])
                        gather_rows_at(at, rows, where + begin + list[c], value + begin + list[c],
                                       list[c + 1] - list[c], binary, to);
                }
            }
        }
        turn_taps(sums, Ci * K, wide, dw + b * NARROW * Ci * K);
    }
}
