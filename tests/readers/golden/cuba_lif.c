/* cuba_lif: decay_current, add_current, leak, integrate, fire, reset; reset zero */
/* floor(a / 2^n) without shifting a negative number */
static inline int32_t snn_shr_floor32(int32_t a, int32_t n)
{
    return a < 0 ? ~(~a >> n) : a >> n;
}

/* a - floor(a / 2^n) * 2^n: the bits that are cut off */
static inline uint32_t snn_cut32(int32_t a, int32_t n)
{
    return (uint32_t)a & (((uint32_t)1 << n) - 1u);
}

/* half of 2^n; for n = 0 nothing is cut off, so never a half */
static inline uint32_t snn_half32(int32_t n)
{
    return n > 0 ? (uint32_t)1 << (n - 1) : 1u;
}

static inline int32_t snn_shr_half_even32(int32_t a, int32_t n)
{
    const int32_t q = snn_shr_floor32(a, n);
    const uint32_t cut = snn_cut32(a, n);
    return q + (cut > snn_half32(n) || (cut == snn_half32(n) && (q & 1) != 0));
}

/* the lowest n bits of the noise word are added below the cut, n <= 32 */
static inline int32_t snn_shr_stochastic32(int32_t a, int32_t n, uint32_t noise)
{
    const uint64_t low = (uint64_t)noise & ((UINT64_C(1) << n) - 1u);
    return snn_shr_floor32(a, n) + ((uint64_t)snn_cut32(a, n) + low >= (UINT64_C(1) << n));
}

static inline int32_t snn_shr_toward_zero32(int32_t a, int32_t n)
{
    return snn_shr_floor32(a, n) + (a < 0 && snn_cut32(a, n) != 0);
}

const int32_t old_v = v[n];
const int32_t t2 = old_v * 230;
const int32_t old_i = i[n];
const int32_t leak_i_int = leak_i[n];
const int32_t t5 = old_i * leak_i_int;
const int32_t t7 = snn_shr_toward_zero32(t5, 4);
const int32_t t9 = t7 * 256;
const int32_t x0 = x0[n];
const int32_t t12 = x0 * 16;
const int32_t t14 = t12 + 3;
const int32_t t15 = t9 + t14;
const int32_t t16 = t2 + t15;
const int32_t theta_int = theta[n];
const int32_t t18 = (t16 >= theta_int);
const int32_t t20 = t18 ? 0 : t16;
const int32_t t22 = snn_shr_half_even32(t20, 8);
const int32_t t23 = t22 < -128 ? -128 : t22;
const uint32_t noise_i = noise_i[n];
const int32_t t25 = snn_shr_stochastic32(t15, 8, noise_i);
const int32_t t26 = (int32_t)(((uint32_t)t25 - (uint32_t)(-512)) & UINT32_C(1023)) - 512;
v[n] = t23;
i[n] = t26;
out[n] = t18;
