/* lif_delayed_reset: leak, integrate, reset_delayed, fire; reset subtract */
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

const int32_t old_s = s[n];
const int32_t old_v = v[n];
const int32_t t3 = old_v * 230;
const int32_t x0 = x0[n];
const int32_t t6 = x0 * 16;
const int32_t t8 = t6 + 3;
const int32_t t9 = t3 + t8;
const int32_t reset_int = reset[n];
const int32_t t11 = t9 - reset_int;
const int32_t t12 = old_s ? t11 : t9;
const int32_t t14 = snn_shr_half_even32(t12, 8);
const int32_t t15 = t14 > 127 ? 127 : t14;
const int32_t theta_int = theta[n];
const int32_t t17 = (t12 >= theta_int);
v[n] = t15;
s[n] = t17;
out[n] = t17;
