/* adaptive_lif: decay_threshold, leak, integrate, fire, reset, raise_threshold; reset zero */
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

const int32_t old_v = v[n];
const int32_t t2 = old_v * 230;
const int32_t old_r = r[n];
const int32_t t5 = (0 >= old_r);
const int32_t x0 = x0[n];
const int32_t t8 = x0 * 16;
const int32_t t10 = t8 + 3;
const int32_t t11 = t5 ? t10 : 0;
const int32_t t12 = t2 + t11;
const int32_t theta_int = theta[n];
const int32_t old_a = a[n];
const int32_t t16 = old_a * 250;
const int32_t t18 = t16 >> 8;
const int32_t t20 = t18 >> 2;
const int32_t t21 = theta_int + t20;
const int32_t t22 = (t12 >= t21);
const int32_t t23 = t22 ? 0 : t12;
const int32_t t24 = snn_shr_half_even32(t23, 8);
const int32_t t26 = t22 * 40;
const int32_t t27 = t18 + t26;
const int32_t t30 = old_r - 1;
const int32_t t31 = t30 > 0 ? t30 : 0;
const int32_t t32 = t22 ? 5 : t31;
v[n] = t24;
a[n] = t27;
r[n] = t32;
out[n] = t22;
