
/* Pointers: x, gradient of the output, keys, slope, parameters, old states, gradients of the new states, gradients of
   the old states, gradient of x, sums [chunks][REDUCED][channels].  Absent ones are NULL.  A chunk of blocks has its
   own sums, so that a result does not depend on the number of threads. */
int backward(const int64_t *const n, void *const *const q)
{
    const sizes_t z = read_sizes(n);
    const real slope = (real) * (const double *)q[3];
    void *const *const params = q + 4, *const *const old = params + GIVEN, *const *const given = old + STATES,
                *const *const back = given + STATES;
    real *const dx = back[STATES];
    double *const sums = back[STATES + 1];
    const uint32_t *const keys = q[2];
    const int64_t blocks = (z.places + BLOCK - 1) / BLOCK, segments = (z.steps + z.segment - 1) / z.segment;
    real *const reals = fixed_reals(&z, params);
    uint32_t *const masks = fixed_masks(&z, params);
    int failed = !reals || !masks;
#pragma omp parallel for num_threads((int)z.threads) schedule(dynamic) if (z.threads > 1)
    for (int64_t chunk = 0; chunk < z.chunks; ++chunk) {
        const int64_t from = blocks * chunk / z.chunks, to = blocks * (chunk + 1) / z.chunks;
        const size_t states = sizeof(real) * STATES * BLOCK;
        char *const memory = malloc(states * (size_t)(segments + z.segment) + 64);
        if (failed || !memory) {
            failed = 1;
            free(memory);
            continue;
        }
        char *const aligned = memory + (64 - (uintptr_t)memory % 64) % 64;
        real (*const kept)[STATES][BLOCK] = (void *)aligned, (*const seen)[STATES][BLOCK] = kept + segments;
        tile_t tile;
        real g[STATES][BLOCK], sum[REDUCED + 1][BLOCK], still[BLOCK], one[BLOCK];
        tile.phase = tile.size = -1;
        for (int64_t b = from; b < to; ++b) {
            const int64_t first = b * BLOCK, size = z.places - first < BLOCK ? z.places - first : BLOCK;
            const real *const x = (const real *)q[0] + first, *const grad = (const real *)q[1] + first;
            lay_out(&tile, &z, params, reals, masks, first, size);
            load_states(g, given, first, size);
            load_states(kept[0], old, first, size);
            for (int64_t part = 1; part < segments; ++part) {
                memcpy(kept[part], kept[part - 1], states);
                for (int64_t t = (part - 1) * z.segment; t < part * z.segment; ++t) {
                    step_states(&tile, kept[part], kept[part], x + t * z.x_step, size, tick_at(&z, t), keys + t * NOISES);
                }
            }
            if (z.still) memset(still, 0, sizeof still);
            for (int64_t part = segments - 1; part >= 0; --part) {
                const int64_t begin = part * z.segment;
                const int64_t end = begin + z.segment < z.steps ? begin + z.segment : z.steps;
                memcpy(seen[0], kept[part], states);
                for (int64_t t = begin; t + 1 < end; ++t) {
                    fetch(x + (t + 1) * z.x_step, size);
                    step_states(&tile, seen[t - begin], seen[t + 1 - begin], x + t * z.x_step, size, tick_at(&z, t),
                                keys + t * NOISES);
                }
                memset(sum, 0, sizeof sum);
                for (int64_t t = end - 1; t >= begin; --t) {
                    if (t > begin) {
                        fetch(grad + (t - 1) * z.grad_step, size);
                        if (dx) fetch_to_write(dx + (z.still ? 0 : t - 1) * z.places + first, size);
                    }
                    real *const into = !z.still && dx ? dx + t * z.places + first : one;
                    step_backward(&tile, seen[t - begin], g, sum, x + t * z.x_step, grad + t * z.grad_step, into, size,
                                  slope, tick_at(&z, t), keys + t * NOISES);
                    for (int64_t j = 0; z.still && dx && j < size; ++j) still[j] += one[j];
                }
                for (int k = 0; k < REDUCED; ++k) {
                    gather(sums + (chunk * REDUCED + k) * z.channels, sum[k], first, size, z.inner, z.channels);
                }
            }
            if (z.still && dx) memcpy(dx + first, still, (size_t)size * sizeof(real));
            store_states(back, g, first, size);
        }
        free(memory);
    }
    free(reals);
    free(masks);
    return failed;
}
