/* Exact integer products and sparse weight gradients.  Every function works on a range of its outermost loop, so that
 * threads share a call; none keeps a state.  Bytes are laid out [N][Hp][Wp][Cp]: padded, channels last, Cp a multiple
 * of 4.  Integer sums are exact in int32 by the caller's proof, whatever the order. */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#define VNNI 1
#else
#define VNNI 0
#endif
#ifdef _OPENMP
#include <omp.h>
#define THREAD omp_get_thread_num()
#else
#define THREAD 0
#endif

int sq_has_vnni(void) { return VNNI; }

/* work(k) for k below parts, each on a thread of the team that torch's own operations run on; 0 without OpenMP.  That
 * team waits for its next work awake: another team beside it would have to share its cores. */
int sq_share(void (*work)(int), int parts)
{
#ifdef _OPENMP
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int k = 0; k < parts; ++k) work(k);
    return 1;
#else
    (void)work, (void)parts;
    return 0;
#endif
}

/* Float integers [N,C,H,W] (any strides, in elements) as bytes value + shift; counts what is not 0.
 * Returns 0, or 1 if a value is no integer in [low, high].  The border must hold its bytes already. */
int sq_pack(const float *x, const ptrdiff_t *st, const ptrdiff_t *dim, uint8_t *out, ptrdiff_t Hp, ptrdiff_t Wp,
            ptrdiff_t Cp, ptrdiff_t top, ptrdiff_t left, float low, float high, float shift, int64_t *live, int threads)
{
    const ptrdiff_t C = dim[1], H = dim[2], W = dim[3], sc = st[1], sw = st[3];
    int bad = 0;
    int64_t count = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : bad) reduction(+ : count) if (threads > 1)
    for (ptrdiff_t n = 0; n < dim[0]; ++n) {
        for (ptrdiff_t h = 0; h < H; ++h) {
            const float *row = x + n * st[0] + h * st[2];
            uint8_t *to = out + ((n * Hp + h + top) * Wp + left) * Cp;
            if (sc == 1 && (sw == C || W == 1) && C == Cp) {
                const ptrdiff_t many = W * C;
                int wrong = 0, alive = 0;
                for (ptrdiff_t i = 0; i < many; ++i) {
                    const float v = row[i];
                    const float inside = v < low ? low : (v > high ? high : v);
                    const int32_t k = (int32_t)inside;
                    wrong |= (float)k != v;
                    alive += k != 0;
                    to[i] = (uint8_t)(k + (int32_t)shift);
                }
                bad |= wrong;
                count += alive;
                continue;
            }
            for (ptrdiff_t c = 0; c < C; ++c) {
                const float *from = row + c * sc;
                int wrong = 0, alive = 0;
                for (ptrdiff_t w = 0; w < W; ++w) {
                    const float v = from[w * sw];
                    const float inside = v < low ? low : (v > high ? high : v);
                    const int32_t k = (int32_t)inside;
                    wrong |= (float)k != v;
                    alive += k != 0;
                    to[w * Cp + c] = (uint8_t)(k + (int32_t)shift);
                }
                bad |= wrong;
                count += alive;
            }
        }
    }
    *live = count;
    return bad;
}

/* Whether all of x are whole numbers from 0 to high, one that float32 holds. */
int sq_counts(const float *x, ptrdiff_t many, float high)
{
    int wrong = 0;
    for (ptrdiff_t i = 0; i < many; ++i) {
        const float v = x[i], inside = v < 0.0f ? 0.0f : (v > high ? high : v);
        wrong |= (float)(int32_t)inside != v;
    }
    return !wrong;
}

/* Codes [Co][Ci][K] (floats) as [Co/16][K][Cq][16][4] bytes, and the sum of each channel's; 1 if one is no int8.
 * `room` is Cq * 4 * K bytes for each thread, all 0. */
int sq_pack_weights(const float *w, ptrdiff_t Co, ptrdiff_t Ci, ptrdiff_t K, int8_t *out, int32_t *sums, int8_t *room,
                    int threads)
{
    const ptrdiff_t Cq = (Ci + 3) / 4, many = Ci * K;
    int bad = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : bad) if (threads > 1)
    for (ptrdiff_t o = 0; o < Co; ++o) {
        int8_t *const row = room + THREAD * Cq * 4 * K;
        const float *from = w + o * many;
        int8_t *to = out + o / 16 * K * Cq * 64 + o % 16 * 4;
        int32_t sum = 0, wrong = 0;
        ptrdiff_t i = 0;
#if VNNI
        __m512i total = _mm512_setzero_si512();
        for (; i + 16 <= many; i += 16) {
            const __m512 v = _mm512_loadu_ps(from + i);
            const __m512i c = _mm512_cvttps_epi32(
                _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(-128.0f)), _mm512_set1_ps(127.0f)));
            wrong |= _mm512_cmp_ps_mask(_mm512_cvtepi32_ps(c), v, _CMP_NEQ_UQ);
            total = _mm512_add_epi32(total, c);
            _mm_storeu_si128((__m128i *)(void *)(row + i), _mm512_cvtepi32_epi8(c));
        }
        sum = _mm512_reduce_add_epi32(total);
#endif
        for (; i < many; ++i) {
            const float v = from[i];
            const int32_t c = (int32_t)(v < -128.0f ? -128.0f : (v > 127.0f ? 127.0f : v));
            wrong |= (float)c != v;
            sum += c;
            row[i] = (int8_t)c;
        }
        bad |= wrong;
        sums[o] = sum;
        if (K == 1)
            for (ptrdiff_t q = 0; q < Cq; ++q) memcpy(to + q * 64, row + 4 * q, 4);
        else
            for (ptrdiff_t q = 0; q < Cq; ++q)
                for (ptrdiff_t k = 0; k < K; ++k)
                    for (ptrdiff_t j = 0; j < 4; ++j) to[(k * Cq + q) * 64 + j] = row[(4 * q + j) * K + k];
    }
    return bad;
}

/* Codes clip(w / scale) rounded half to even, [rows][many]; float rounding mode is the default one. */
static void encode_row(const float *w, ptrdiff_t many, float s, float low, float high, float *out)
{
    for (ptrdiff_t i = 0; i < many; ++i) {
        const float u = w[i] / s;
        out[i] = rintf(u < low ? low : (u > high ? high : u));
    }
}

void sq_encode(const float *w, ptrdiff_t rows, ptrdiff_t many, const float *scale, ptrdiff_t per_row, float low,
               float high, float *out, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t c = 0; c < rows; ++c) encode_row(w + c * many, many, scale[per_row * c], low, high, out + c * many);
}

/* The same with the scale largest / steps of each row (1 for a row of zeros), raised by an ulp where the largest weight
 * would pass the last step; 1 if a weight is not finite. */
int sq_fit_encode(const float *w, ptrdiff_t rows, ptrdiff_t many, float steps, float low, float high, float *scale,
                  float *out, int threads)
{
    int bad = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : bad) if (threads > 1)
    for (ptrdiff_t c = 0; c < rows; ++c) {
        int32_t most = 0; /* without their signs, floats are in the order of their words; NaN lies above infinity */
        for (ptrdiff_t i = 0; i < many; ++i) {
            int32_t word;
            memcpy(&word, w + c * many + i, sizeof word);
            word &= 0x7FFFFFFF;
            most = word > most ? word : most;
        }
        float largest;
        memcpy(&largest, &most, sizeof largest);
        bad |= most >= 0x7F800000;
        float s = largest / steps;
        s = s > 0.0f ? (s < FLT_MIN ? FLT_MIN : s) : 1.0f;
        if (largest / s > steps) s = nextafterf(s, INFINITY);
        scale[c] = s;
        encode_row(w + c * many, many, s, low, high, out + c * many);
    }
    return bad;
}

/* reach[c] = the sum of |codes| of row c, whole numbers of at most 16 bits. */
void sq_reach(const float *codes, ptrdiff_t rows, ptrdiff_t many, double *reach, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t c = 0; c < rows; ++c) {
        int64_t total = 0;
        for (ptrdiff_t from = 0; from < many; from += 1 << 15) {
            const ptrdiff_t to = many - from < 1 << 15 ? many : from + (1 << 15);
            int32_t sum = 0;
            for (ptrdiff_t i = from; i < to; ++i) sum += (int32_t)fabsf(codes[c * many + i]);
            total += sum;
        }
        reach[c] = (double)total;
    }
}

/* The gradient of codes times a gain (NULL: 1): gain * g / scale where w / scale lies in [low, high], else 0; `out` may
 * be `g`. */
static void toward_weights(const float *w, ptrdiff_t many, float s, float low, float high, const float *g, float gain,
                           float *out)
{
    for (ptrdiff_t i = 0; i < many; ++i) {
        const float u = w[i] / s, d = g[i] * gain / s;
        out[i] = (u >= low) & (u <= high) ? d : 0.0f;
    }
}

void sq_encode_backward(const float *w, ptrdiff_t rows, ptrdiff_t many, const float *scale, ptrdiff_t per_row, float low,
                        float high, const float *g, const float *gain, float *out, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t c = 0; c < rows; ++c)
        toward_weights(w + c * many, many, scale[per_row * c], low, high, g + c * many, gain ? gain[c] : 1.0f,
                       out + c * many);
}

#if VNNI
#define PIX 6
#define SLAB (32 * PIX)
/* PIX output positions, up to 64 channels: 24 sums stay in registers. */
#define DEFINE_TILE(BLOCKS)                                                                                           \
    static void tile##BLOCKS(const uint8_t *const *at, int pixels, const ptrdiff_t *taps, ptrdiff_t K, ptrdiff_t Cq,  \
                             const int8_t *w, ptrdiff_t block, const int32_t *minus, const float *gain,              \
                             float *const *to, ptrdiff_t left)                                                        \
    {                                                                                                                 \
        __m512i acc[PIX][BLOCKS];                                                                                     \
        for (int p = 0; p < PIX; ++p)                                                                                 \
            for (int b = 0; b < BLOCKS; ++b) acc[p][b] = _mm512_setzero_si512();                                      \
        for (ptrdiff_t k = 0; k < K; ++k) {                                                                           \
            const ptrdiff_t off = taps[k];                                                                            \
            const int8_t *wk = w + k * Cq * 64;                                                                       \
            for (ptrdiff_t q = 0; q < Cq; ++q) {                                                                      \
                __m512i wide[BLOCKS];                                                                                 \
                for (int b = 0; b < BLOCKS; ++b) wide[b] = _mm512_loadu_si512(wk + q * 64 + b * block);               \
                for (int p = 0; p < PIX; ++p) {                                                                       \
                    int32_t four;                                                                                     \
                    memcpy(&four, at[p] + off + 4 * q, 4);                                                            \
                    const __m512i x = _mm512_set1_epi32(four);                                                        \
                    for (int b = 0; b < BLOCKS; ++b) acc[p][b] = _mm512_dpbusd_epi32(acc[p][b], x, wide[b]);          \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
        for (int b = 0; b < BLOCKS; ++b) {                                                                            \
            const ptrdiff_t rest = left - 16 * b;                                                                     \
            const __mmask16 m = rest >= 16 ? 0xFFFF : (__mmask16)((1u << rest) - 1u);                                 \
            const __m512i off = _mm512_maskz_loadu_epi32(m, minus + 16 * b);                                          \
            const __m512 g = _mm512_maskz_loadu_ps(m, gain + 16 * b);                                                 \
            for (int p = 0; p < PIX; ++p)                                                                             \
                if (p < pixels)                                                                                       \
                    _mm512_mask_storeu_ps(to[p] + 16 * b, m,                                                          \
                        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(acc[p][b], off)), g));                      \
        }                                                                                                             \
    }
DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
#endif

#if VNNI
typedef struct { ptrdiff_t n, oh, ow; } place_t;

/* The next output position: a division for each would cost more than its sums. */
static inline void advance(place_t *p, ptrdiff_t OH, ptrdiff_t OW)
{
    if (++p->ow < OW) return;
    p->ow = 0;
    if (++p->oh < OH) return;
    p->oh = 0;
    ++p->n;
}
#endif

/* out[n,oh,ow,o] = gain[o] * (sum of bytes times codes - minus[o]), positions p0 .. p1 of [N*OH*OW]; the bytes may be
 * read 32 past their end. */
void sq_conv(const uint8_t *x, const ptrdiff_t *size, const ptrdiff_t *taps, ptrdiff_t K, const int8_t *w,
             const int32_t *minus, const float *gain, float *out, ptrdiff_t p0, ptrdiff_t p1)
{
    const ptrdiff_t Hp = size[0], Wp = size[1], Cp = size[2], OH = size[3], OW = size[4], Co = size[5];
    const ptrdiff_t sh = size[6], sw = size[7], Cq = Cp / 4, blocks = (Co + 15) / 16, block = K * Cq * 64;
#if VNNI
    for (ptrdiff_t slab = p0; slab < p1; slab += SLAB) { /* codes of 64 channels stay near for a slab of positions */
        const ptrdiff_t end = p1 - slab < SLAB ? p1 : slab + SLAB;
        const place_t first = {slab / OW / OH, slab / OW % OH, slab % OW};
        for (ptrdiff_t b = 0; b < blocks; b += 4) {
            const int8_t *wb = w + b * block;
            const ptrdiff_t left = Co - 16 * b, now = blocks - b < 4 ? blocks - b : 4;
            place_t here = first;
            for (ptrdiff_t p = slab; p < end; p += PIX) {
                const int pixels = end - p < PIX ? (int)(end - p) : PIX;
                const uint8_t *at[PIX];
                float *to[PIX];
                for (int j = 0; j < PIX; ++j) {
                    at[j] = x + ((here.n * Hp + here.oh * sh) * Wp + here.ow * sw) * Cp;
                    to[j] = out + (p + (j < pixels ? j : 0)) * Co + 16 * b;
                    if (j + 1 < pixels || pixels == PIX) advance(&here, OH, OW);
                }
                if (now == 4) tile4(at, pixels, taps, K, Cq, wb, block, minus + 16 * b, gain + 16 * b, to, left);
                else if (now == 3) tile3(at, pixels, taps, K, Cq, wb, block, minus + 16 * b, gain + 16 * b, to, left);
                else if (now == 2) tile2(at, pixels, taps, K, Cq, wb, block, minus + 16 * b, gain + 16 * b, to, left);
                else tile1(at, pixels, taps, K, Cq, wb, block, minus + 16 * b, gain + 16 * b, to, left);
            }
        }
    }
#else
    for (ptrdiff_t p = p0; p < p1; ++p) {
        const ptrdiff_t ow = p % OW, oh = p / OW % OH, n = p / OW / OH;
        const uint8_t *at = x + ((n * Hp + oh * sh) * Wp + ow * sw) * Cp;
        for (ptrdiff_t b = 0; b < blocks; ++b) {
            int32_t acc[16] = {0};
            for (ptrdiff_t k = 0; k < K; ++k)
                for (ptrdiff_t i = 0; i < Cp; ++i) {
                    const int32_t v = at[taps[k] + i];
                    const int8_t *wi = w + b * block + (k * Cq + i / 4) * 64 + i % 4;
                    for (int o = 0; o < 16; ++o) acc[o] += v * wi[4 * o];
                }
            for (ptrdiff_t o = 0; o < 16 && 16 * b + o < Co; ++o)
                out[p * Co + 16 * b + o] = gain[16 * b + o] * (float)(acc[o] - minus[16 * b + o]);
        }
    }
#endif
}

/* The same for spikes: rows of codes [K][Cp][Cw] (int16, Cw a multiple of 32) are added where a byte is not 0. */
void sq_events(const uint8_t *x, const ptrdiff_t *size, const ptrdiff_t *taps, ptrdiff_t K, const int16_t *w,
               ptrdiff_t Cw, const float *gain, float *out, int32_t *acc, ptrdiff_t p0, ptrdiff_t p1)
{
    const ptrdiff_t Hp = size[0], Wp = size[1], Cp = size[2], OH = size[3], OW = size[4], Co = size[5];
    const ptrdiff_t sh = size[6], sw = size[7];
    for (ptrdiff_t p = p0; p < p1; ++p) {
        const ptrdiff_t ow = p % OW, oh = p / OW % OH, n = p / OW / OH;
        const uint8_t *at = x + ((n * Hp + oh * sh) * Wp + ow * sw) * Cp;
        memset(acc, 0, (size_t)Cw * sizeof *acc);
        for (ptrdiff_t k = 0; k < K; ++k) {
            const uint8_t *bytes = at + taps[k];
            for (ptrdiff_t i = 0; i < Cp; i += 4) {
                uint32_t four;
                memcpy(&four, bytes + i, 4);
                if (four == 0) continue;
                for (ptrdiff_t j = i; j < i + 4; ++j) {
                    const int32_t v = bytes[j];
                    const int16_t *row = w + (k * Cp + j) * Cw;
                    if (v == 1)
                        for (ptrdiff_t o = 0; o < Cw; ++o) acc[o] += row[o];
                    else if (v != 0)
                        for (ptrdiff_t o = 0; o < Cw; ++o) acc[o] += v * row[o];
                }
            }
        }
        for (ptrdiff_t o = 0; o < Co; ++o) out[p * Co + o] = gain[o] * (float)acc[o];
    }
}

#if VNNI
#define LINE 128 /* channels whose sums of 16 bits stay in registers */
#define MOST_ADDED 255 /* codes of 8 bits whose sum fits 16 bits */
#define LISTED 16384

/* sum[o] += the codes of LINE channels of up to MOST_ADDED rows. */
static void add_rows(const int8_t *w, const uint16_t *rows, ptrdiff_t many, int32_t *sum)
{
    __m512i acc[LINE / 32];
    for (int b = 0; b < LINE / 32; ++b) acc[b] = _mm512_setzero_si512();
    for (ptrdiff_t e = 0; e < many; ++e) {
        const int8_t *row = w + (size_t)rows[e] * LINE;
        for (int b = 0; b < LINE / 32; ++b)
            acc[b] = _mm512_add_epi16(
                acc[b], _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(row + 32 * b))));
    }
    for (int b = 0; b < LINE / 32; ++b) {
        const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(acc[b]));
        const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(acc[b], 1));
        int32_t *const to = sum + 32 * b;
        _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), low));
        _mm512_storeu_si512(to + 16, _mm512_add_epi32(_mm512_loadu_si512(to + 16), high));
    }
}

/* Places of the bytes of one row that are 1, or -1 if one is more than that. */
static ptrdiff_t list_ones(const uint8_t *x, ptrdiff_t many, uint16_t *to)
{
    ptrdiff_t found = 0;
    for (ptrdiff_t i = 0; i < many; i += 64) {
        const __mmask64 in = many - i >= 64 ? ~0ull : (1ull << (many - i)) - 1;
        const __m512i bytes = _mm512_maskz_loadu_epi8(in, x + i);
        if (_mm512_cmpgt_epu8_mask(bytes, _mm512_set1_epi8(1))) return -1;
        for (uint64_t live = _mm512_test_epi8_mask(bytes, bytes); live; live &= live - 1)
            to[found++] = (uint16_t)(i + __builtin_ctzll(live));
    }
    return found;
}
#endif

/* out[p][o] = gain[o] * the sum of codes over the bytes that are 1, rows p0 .. p1 of x [rows][Cp]; codes are bytes
 * [Co/LINE][Cp][LINE].  Returns the first row that it did not do: one with another byte, or wider than its lists. */
ptrdiff_t sq_linear_events(const uint8_t *x, ptrdiff_t Cp, const int8_t *w, const float *gain, ptrdiff_t Co, float *out,
                           ptrdiff_t p0, ptrdiff_t p1)
{
#if VNNI
    uint16_t where[LISTED];
    ptrdiff_t first[65];
    int32_t sum[LINE];
    while (p0 < p1 && Cp <= LISTED) {
        ptrdiff_t rows = 0, end = 0;
        first[0] = 0;
        for (; rows < 64 && p0 + rows < p1 && first[rows] + Cp <= LISTED; ++rows) {
            end = list_ones(x + (p0 + rows) * Cp, Cp, where + first[rows]);
            if (end < 0) break;
            first[rows + 1] = first[rows] + end;
        }
        for (ptrdiff_t b = 0; b < Co; b += LINE, w += Cp * LINE) {
            const ptrdiff_t here = Co - b < LINE ? Co - b : LINE;
            for (ptrdiff_t r = 0; r < rows; ++r) {
                memset(sum, 0, sizeof sum);
                for (ptrdiff_t e = first[r]; e < first[r + 1]; e += MOST_ADDED)
                    add_rows(w, where + e, first[r + 1] - e < MOST_ADDED ? first[r + 1] - e : MOST_ADDED, sum);
                float *const to = out + (p0 + r) * Co + b;
                for (ptrdiff_t o = 0; o < here; ++o) to[o] = gain[b + o] * (float)sum[o];
            }
        }
        w -= (Co + LINE - 1) / LINE * Cp * LINE;
        p0 += rows;
        if (end < 0) break;
    }
#else
    (void)x, (void)Cp, (void)w, (void)gain, (void)Co, (void)out, (void)p1;
#endif
    return p0;
}

/* The same for all rows, which hold nothing but 0 and 1, on several threads. */
void sq_rows(const uint8_t *x, ptrdiff_t rows, ptrdiff_t Cp, const int8_t *w, const float *gain, ptrdiff_t Co, float *out,
             int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (ptrdiff_t p = 0; p < rows; p += 64) sq_linear_events(x, Cp, w, gain, Co, out, p, rows - p < 64 ? rows : p + 64);
}

/* Codes [Co][Ci] (floats) as the bytes [Co/128][Cp][128] of `sq_rows`, which are all 0; 1 if one is no int8. */
int sq_pack_rows(const float *w, ptrdiff_t Co, ptrdiff_t Ci, ptrdiff_t Cp, int8_t *out, int threads)
{
    int bad = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : bad) if (threads > 1)
    for (ptrdiff_t o = 0; o < Co; o += 16) {
        const ptrdiff_t wide = Co - o < 16 ? Co - o : 16;
        int8_t *const to = out + o / 128 * Cp * 128 + o % 128;
        ptrdiff_t i = 0;
#if VNNI
        for (; wide == 16 && i + 16 <= Ci; i += 16) {
            __m128i r[16], s[16];
            for (int j = 0; j < 16; ++j) {
                const __m512 v = _mm512_loadu_ps(w + (o + j) * Ci + i);
                const __m512i c = _mm512_cvttps_epi32(
                    _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(-128.0f)), _mm512_set1_ps(127.0f)));
                bad |= _mm512_cmp_ps_mask(_mm512_cvtepi32_ps(c), v, _CMP_NEQ_UQ) != 0;
                r[j] = _mm512_cvtepi32_epi8(c);
            }
            for (int round = 0; round < 4; ++round) { /* four perfect shuffles turn the square around */
                for (int j = 0; j < 8; ++j) {
                    s[2 * j] = _mm_unpacklo_epi8(r[j], r[j + 8]);
                    s[2 * j + 1] = _mm_unpackhi_epi8(r[j], r[j + 8]);
                }
                memcpy(r, s, sizeof r);
            }
            for (int j = 0; j < 16; ++j) _mm_storeu_si128((__m128i *)(void *)(to + (i + j) * 128), r[j]);
        }
#endif
        for (; i < Ci; ++i)
            for (ptrdiff_t j = 0; j < wide; ++j) {
                const float v = w[(o + j) * Ci + i];
                const int32_t c = (int32_t)(v < -128.0f ? -128.0f : (v > 127.0f ? 127.0f : v));
                bad |= (float)c != v;
                to[i * 128 + j] = (int8_t)c;
            }
    }
    return bad;
}

/* Events of rows r0 .. r1 of the tall picture [N*Hp][Wp][Cp], sorted by channel, then place: first[c] .. first[c+1].
 * Returns how many; `where` is row * Wp + column. */
ptrdiff_t sq_list(const uint8_t *x, ptrdiff_t places, ptrdiff_t Cp, int32_t *where, uint8_t *value, ptrdiff_t *first)
{
    memset(first, 0, (size_t)(Cp + 2) * sizeof *first);
    for (ptrdiff_t p = 0; p < places; ++p)
        for (ptrdiff_t c = 0; c < Cp; c += 4) {
            uint32_t four;
            memcpy(&four, x + p * Cp + c, 4);
            if (four == 0) continue;
            for (ptrdiff_t j = c; j < c + 4; ++j) first[j + 2] += x[p * Cp + j] != 0;
        }
    for (ptrdiff_t c = 0; c < Cp; ++c) first[c + 2] += first[c + 1];
    for (ptrdiff_t p = 0; p < places; ++p)
        for (ptrdiff_t c = 0; c < Cp; c += 4) {
            uint32_t four;
            memcpy(&four, x + p * Cp + c, 4);
            if (four == 0) continue;
            for (ptrdiff_t j = c; j < c + 4; ++j) {
                const uint8_t v = x[p * Cp + j];
                if (v == 0) continue;
                where[first[j + 1]] = (int32_t)p;
                value[first[j + 1]++] = v;
            }
        }
    return first[Cp];
}

#define WIDE 64
/* Adds to grad[k][c][o], o in one block of WIDE, the sum over events of channel c of the gradient `off[k]` places
 * before; `g` are the gradients of the same places, WIDE floats each, 0 where there is no output. */
static void gather(const float *g, const int32_t *where, const uint8_t *value, ptrdiff_t many, ptrdiff_t off,
                   int binary, float *sum)
{
#if VNNI
    __m512 a0 = _mm512_loadu_ps(sum), a1 = _mm512_loadu_ps(sum + 16);
    __m512 a2 = _mm512_loadu_ps(sum + 32), a3 = _mm512_loadu_ps(sum + 48);
    __m512 b0 = _mm512_setzero_ps(), b1 = b0, b2 = b0, b3 = b0; /* two chains: an addition takes four cycles */
    ptrdiff_t e = 0;
    for (; binary && e + 1 < many; e += 2) {
        const float *one = g + (where[e] - off) * WIDE, *two = g + (where[e + 1] - off) * WIDE;
        a0 = _mm512_add_ps(a0, _mm512_loadu_ps(one));
        b0 = _mm512_add_ps(b0, _mm512_loadu_ps(two));
        a1 = _mm512_add_ps(a1, _mm512_loadu_ps(one + 16));
        b1 = _mm512_add_ps(b1, _mm512_loadu_ps(two + 16));
        a2 = _mm512_add_ps(a2, _mm512_loadu_ps(one + 32));
        b2 = _mm512_add_ps(b2, _mm512_loadu_ps(two + 32));
        a3 = _mm512_add_ps(a3, _mm512_loadu_ps(one + 48));
        b3 = _mm512_add_ps(b3, _mm512_loadu_ps(two + 48));
    }
    a0 = _mm512_add_ps(a0, b0);
    a1 = _mm512_add_ps(a1, b1);
    a2 = _mm512_add_ps(a2, b2);
    a3 = _mm512_add_ps(a3, b3);
    for (; e < many; ++e) {
        const float *at = g + (where[e] - off) * WIDE;
        if (binary) {
            a0 = _mm512_add_ps(a0, _mm512_loadu_ps(at));
            a1 = _mm512_add_ps(a1, _mm512_loadu_ps(at + 16));
            a2 = _mm512_add_ps(a2, _mm512_loadu_ps(at + 32));
            a3 = _mm512_add_ps(a3, _mm512_loadu_ps(at + 48));
        } else {
            const __m512 v = _mm512_set1_ps((float)value[e]);
            a0 = _mm512_fmadd_ps(v, _mm512_loadu_ps(at), a0);
            a1 = _mm512_fmadd_ps(v, _mm512_loadu_ps(at + 16), a1);
            a2 = _mm512_fmadd_ps(v, _mm512_loadu_ps(at + 32), a2);
            a3 = _mm512_fmadd_ps(v, _mm512_loadu_ps(at + 48), a3);
        }
    }
    _mm512_storeu_ps(sum, a0);
    _mm512_storeu_ps(sum + 16, a1);
    _mm512_storeu_ps(sum + 32, a2);
    _mm512_storeu_ps(sum + 48, a3);
#else
    for (ptrdiff_t e = 0; e < many; ++e) {
        const float v = binary ? 1.0f : (float)value[e];
        const float *at = g + (where[e] - off) * WIDE;
        for (int o = 0; o < WIDE; ++o) sum[o] += v * at[o];
    }
#endif
}

/* Weight gradient grad[o/64][k][c][64] of images n0 .. n1 (stride 1): bytes x, gradients [N][OH][OW][Co].
 * `chunk` rows of the tall picture at a time; scratch: (lead + chunk*Wp)*64 floats, lists for one slab of images. */
void sq_weight_gradient(const uint8_t *x, const ptrdiff_t *size, const ptrdiff_t *taps, ptrdiff_t K, const float *grad_out,
                        int binary, ptrdiff_t n0, ptrdiff_t n1, ptrdiff_t b0, ptrdiff_t b1, ptrdiff_t slab,
                        ptrdiff_t images, float *scratch, ptrdiff_t lead, int32_t *where, uint8_t *value,
                        ptrdiff_t *first, ptrdiff_t *cursor, float *grad)
{
    const ptrdiff_t Hp = size[0], Wp = size[1], Cp = size[2], OH = size[3], OW = size[4], Co = size[5];
    float *g = scratch + lead * WIDE;
    memset(scratch, 0, (size_t)((lead + images * Hp * Wp) * WIDE) * sizeof *scratch);
    for (ptrdiff_t n = n0; n < n1; n += slab) {
        const ptrdiff_t here = n1 - n < slab ? n1 - n : slab;
        sq_list(x + n * Hp * Wp * Cp, here * Hp * Wp, Cp, where, value, first);
        for (ptrdiff_t b = b0; b < b1; ++b) {
            const ptrdiff_t wide = Co - b * WIDE < WIDE ? Co - b * WIDE : WIDE;
            for (ptrdiff_t c = 0; c < Cp; ++c) cursor[c] = first[c];
            for (ptrdiff_t m = 0; m < here; m += images) {
                const ptrdiff_t now = here - m < images ? here - m : images;
                for (ptrdiff_t i = 0; i < now; ++i)
                    for (ptrdiff_t h = 0; h < OH; ++h)
                        for (ptrdiff_t w = 0; w < OW; ++w)
                            memcpy(g + ((i * Hp + h) * Wp + w) * WIDE,
                                   grad_out + (((n + m + i) * OH + h) * OW + w) * Co + b * WIDE,
                                   (size_t)wide * sizeof *g);
                const int32_t end = (int32_t)((m + now) * Hp * Wp);
                for (ptrdiff_t c = 0; c < Cp; ++c) {
                    ptrdiff_t stop = cursor[c];
                    while (stop < first[c + 1] && where[stop] < end) ++stop;
                    if (stop == cursor[c]) continue;
                    for (ptrdiff_t k = 0; k < K; ++k)
                        gather(g, where + cursor[c], value + cursor[c], stop - cursor[c],
                               taps[k] / Cp + m * Hp * Wp, binary, grad + ((b * K + k) * Cp + c) * WIDE);
                    cursor[c] = stop;
                }
            }
        }
    }
}
