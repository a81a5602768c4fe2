
/* Pointers: x, out, keys, parameters, old states, new states. */
int forward(const int64_t *const n, void *const *const q)
{
    const sizes_t z = read_sizes(n);
    void *const *const params = q + 3, *const *const old = params + GIVEN, *const *const new = old + STATES;
    const int64_t blocks = (z.places + BLOCK - 1) / BLOCK;
    const uint32_t *const keys = q[2];
    real *const reals = fixed_reals(&z, params);
    uint32_t *const masks = fixed_masks(&z, params);
    if (!reals || !masks) return 1;
#pragma omp parallel num_threads((int)z.threads) if (z.threads > 1)
    {
        tile_t tile;
        real s[STATES][BLOCK];
        tile.phase = tile.size = -1;
#pragma omp for schedule(static)
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t first = b * BLOCK, size = z.places - first < BLOCK ? z.places - first : BLOCK;
            lay_out(&tile, &z, params, reals, masks, first, size);
            load_states(s, old, first, size);
            if (SUMMED) memset((out_t *)q[1] + first, 0, (size_t)size * sizeof(out_t));
            for (int64_t t = 0; t < z.steps; ++t) {
                if (t + 1 < z.steps) {
                    fetch((const real *)q[0] + (t + 1) * z.x_step + first, size);
                    if (!SUMMED) fetch_to_write((out_t *)q[1] + (t + 1) * z.places + first, size);
                }
                step_forward(&tile, s, (const real *)q[0] + t * z.x_step + first,
                             (out_t *)q[1] + (SUMMED ? 0 : t * z.places) + first, size, tick_at(&z, t), keys + t * NOISES);
            }
            store_states(new, s, first, size);
        }
    }
    free(reals);
    free(masks);
    return 0;
}
