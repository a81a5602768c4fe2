/* single_state: leak, integrate, fire, reset; reset zero */
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
const int32_t x0 = x0[n];
const int32_t t5 = x0 * 16;
const int32_t t7 = t5 + 3;
const int32_t t8 = t2 + t7;
const int32_t theta_int = theta[n];
const int32_t t10 = (t8 >= theta_int);
const int32_t t12 = t10 ? 0 : t8;
const int32_t t14 = snn_shr_half_even32(t12, 8);
v[n] = t14;
out[n] = t10;
