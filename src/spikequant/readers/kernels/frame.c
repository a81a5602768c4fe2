/* What surrounds the generated steps: blocks of places, time inside a block.  Behind `prelude.c` and the steps. */

typedef struct {
    int64_t steps, places, channels, inner, x_step, grad_step, first_step, every, threads, per_sample, first_sample,
        channels_last, chunks, segment, still;
    const int64_t *many;
} sizes_t;

static sizes_t read_sizes(const int64_t *const n)
{
    const sizes_t s = {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13], n[14], n + 15};
    return s;
}

/* Arrays that follow from parameters, one value per channel: once per call. */
static real *fixed_reals(const sizes_t *const z, void *const *const params)
{
    real *const made = malloc(((size_t)z->channels * FIXED + 1) * sizeof(real));
    for (int64_t c = 0; made && c < z->channels; ++c) {
        fill_reals(made + c, z->channels, c, z->many, params);
    }
    return made;
}

static uint32_t *fixed_masks(const sizes_t *const z, void *const *const params)
{
    uint32_t *const made = malloc(((size_t)z->channels * MASKS + 1) * sizeof(uint32_t));
    for (int64_t c = 0; made && c < z->channels; ++c) {
        fill_masks(made + c, z->channels, c, z->many, params);
    }
    return made;
}

/* Lay the parameters of a block out; kept from the block before where they repeat. */
static void lay_out(tile_t *const tile, const sizes_t *const z, void *const *const params, const real *const reals,
                    const uint32_t *const masks, const int64_t first, const int64_t size)
{
    const int64_t phase = first % (z->inner * z->channels);
    const int same = z->channels == 1 ? tile->phase >= 0 : tile->phase == phase;
    if (!same || tile->size < size) {
        for (int k = 0; k < PARAMS; ++k) {
            spread(tile->p[k], params[WHICH[k]], z->many[WHICH[k]], first, size, z->inner, z->channels);
        }
        for (int k = 0; k < FIXED; ++k) {
            spread(tile->f[k], reals + k * z->channels, 1, first, size, z->inner, z->channels);
        }
        for (int k = 0; k < MASKS; ++k) {
            spread_mask(tile->m[k], masks + k * z->channels, 1, first, size, z->inner, z->channels);
        }
        tile->phase = phase;
        tile->size = size;
    }
#if NOISES
    const int64_t space = z->per_sample / z->channels;
    for (int64_t j = 0; j < size; ++j) {
        const int64_t place = (first + j) % z->per_sample;
        tile->sample[j] = (uint32_t)(z->first_sample + (first + j) / z->per_sample);
        tile->neuron[j] = (uint32_t)(z->channels_last ? place % z->channels * space + place / z->channels : place);
    }
#endif
}

/* Ask for a row that is read next: rows of one block lie a whole step apart, further than the processor looks. */
static inline void fetch(const real *const row, const int64_t size)
{
    for (int64_t j = 0; j < size; j += 64 / (int64_t)sizeof(real)) __builtin_prefetch(row + j, 0);
}

#define fetch_to_write(row, size) \
    for (int64_t j_ = 0; j_ < (size); j_ += 64 / (int64_t)sizeof *(row)) __builtin_prefetch((row) + j_, 1)

static inline real tick_at(const sizes_t *const z, const int64_t t)
{
    return (z->first_step + t + 1) % z->every == 0 ? NUM(1) : NUM(0);
}

static void load_states(real (*const to)[BLOCK], void *const *const from, const int64_t first, const int64_t size)
{
    for (int k = 0; k < STATES; ++k) {
        if (from[k]) {
            memcpy(to[k], (const real *)from[k] + first, (size_t)size * sizeof(real));
        } else {
            memset(to[k], 0, (size_t)size * sizeof(real));
        }
    }
}

static void store_states(void *const *const to, real (*const from)[BLOCK], const int64_t first, const int64_t size)
{
    for (int k = 0; k < STATES; ++k) {
        if (to[k]) {
            memcpy((real *)to[k] + first, from[k], (size_t)size * sizeof(real));
        }
    }
}
