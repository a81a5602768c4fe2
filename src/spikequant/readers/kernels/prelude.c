/* Words of a step, for one lane.  `real` and BLOCK are defined in front of this text. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NUM(v) ((real)(v))
#define GE(a, b) ((a) >= (b) ? NUM(1) : NUM(0))
#define SELECT(c, a, b) ((c) != NUM(0) ? (a) : (b))
#define MAX(a, b) (((a) > (b) || (a) != (a)) ? (a) : (b))
#define CLIP(a, low, high) ((a) < (low) ? (low) : ((a) > (high) ? (high) : (a)))
#define SAME(a, b, g) ((a) == (b) ? (g) : NUM(0))
#define LARGER(a, b) ((a) > (b) ? NUM(1) : ((a) == (b) ? NUM(0.5) : NUM(0)))
#define LOW(word, mask) ((real)((word) & (mask)))
#if SINGLE
#define FLOOR floorf
#define TRUNC truncf
#define ROUND rintf
#define ABS fabsf
#define SIGNED copysignf
#else
#define FLOOR floor
#define TRUNC trunc
#define ROUND rint
#define ABS fabs
#define SIGNED copysign
#endif
#define FACTOR(n) ((real)power_of_two(-(double)(n)))
#define HALF(n) ((n) > NUM(0) ? (real)power_of_two((double)(n) - 1.0) : NUM(0))
#define MASK(n) ((uint32_t)((((uint64_t)1) << (int)(n)) - 1u))

/* 2^n; of a whole number without a call, since a layer asks for every channel. */
static inline double power_of_two(const double n)
{
    if (n >= -1022.0 && n <= 1023.0 && (double)(int64_t)n == n) {
        const uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
        double made;
        memcpy(&made, &bits, sizeof made);
        return made;
    }
    return exp2(n);
}

#define HALF_PI NUM(1.5707963267948966)

/* law/noise.py */
static inline uint32_t mixed(uint32_t h, const uint32_t word)
{
    h ^= word * 0x9E3779B1u + 0x7F4A7C15u;
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    return h ^ (h >> 16);
}
#define WORD(key, sample, neuron) mixed(mixed(key, sample), neuron)

/* e^x for x <= 0, as arithmetic that compilers turn into vector instructions: x = n ln 2 + r, Taylor in r. */
static inline real falling_exp(real x)
{
#if SINGLE
    x = x < -87.0f ? -87.0f : x;
    const float n = rintf(x * 1.4426950408889634f);
    const float r = (x - n * 0.693145751953125f) - n * 1.428606765330187e-06f;
    const float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)))))));
    const int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
#else
    return exp(x);
#endif
}

/* A parameter of one value, or of one per channel, laid out over a block of places. */
#define SPREAD(NAME, TYPE)                                                                                             \
    static void NAME(TYPE *const to, const TYPE *const from, const int64_t many, const int64_t first,                  \
                     const int64_t size, const int64_t inner, const int64_t channels)                                  \
    {                                                                                                                  \
        if (!many) {                                                                                                   \
            const TYPE value = from[0];                                                                                \
            for (int64_t j = 0; j < size; ++j) to[j] = value;                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        int64_t channel = (first / inner) % channels, left = inner - first % inner;                                    \
        for (int64_t j = 0; j < size;) {                                                                               \
            int64_t run = inner == 1 ? channels - channel : left;                                                      \
            run = run < size - j ? run : size - j;                                                                     \
            if (inner == 1) {                                                                                          \
                memcpy(to + j, from + channel, (size_t)run * sizeof(TYPE));                                            \
                channel = 0;                                                                                           \
            } else {                                                                                                   \
                const TYPE value = from[channel];                                                                      \
                for (int64_t k = 0; k < run; ++k) to[j + k] = value;                                                   \
                channel = channel + 1 == channels ? 0 : channel + 1;                                                   \
            }                                                                                                          \
            j += run;                                                                                                  \
            left = inner;                                                                                              \
        }                                                                                                              \
    }
SPREAD(spread, real)
SPREAD(spread_mask, uint32_t)

/* The other way round: sums over a block, added to the sum of their channel in double. */
static void gather(double *const to, const real *const from, const int64_t first, const int64_t size,
                   const int64_t inner, const int64_t channels)
{
    int64_t channel = (first / inner) % channels, left = inner - first % inner;
    for (int64_t j = 0; j < size;) {
        int64_t run = inner == 1 ? channels - channel : left;
        run = run < size - j ? run : size - j;
        if (inner == 1) {
            for (int64_t k = 0; k < run; ++k) to[channel + k] += (double)from[j + k];
            channel = 0;
        } else {
            double sum = 0;
            for (int64_t k = 0; k < run; ++k) sum += (double)from[j + k];
            to[channel] += sum;
            channel = channel + 1 == channels ? 0 : channel + 1;
        }
        j += run;
        left = inner;
    }
}
