/* multi_spike_if: integrate, fire; reset subtract */
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
const int32_t t2 = old_v * 256;
const int32_t x0 = x0[n];
const int32_t t5 = x0 * 16;
const int32_t t7 = t5 + 3;
const int32_t t8 = t2 + t7;
const int32_t theta_int = theta[n];
const int32_t t10 = (t8 >= theta_int);
const int32_t reset_int = reset[n];
const int32_t t12 = t8 - reset_int;
const int32_t t13 = t10 ? t12 : t8;
const int32_t t14 = (t13 >= theta_int);
const int32_t t15 = t13 - reset_int;
const int32_t t16 = t14 ? t15 : t13;
const int32_t t17 = (t16 >= theta_int);
const int32_t t18 = t16 - reset_int;
const int32_t t19 = t17 ? t18 : t16;
const int32_t t20 = (t19 >= theta_int);
const int32_t t21 = t19 - reset_int;
const int32_t t22 = t20 ? t21 : t19;
const int32_t t23 = (t22 >= theta_int);
const int32_t t24 = t22 - reset_int;
const int32_t t25 = t23 ? t24 : t22;
const int32_t t26 = (t25 >= theta_int);
const int32_t t27 = t25 - reset_int;
const int32_t t28 = t26 ? t27 : t25;
const int32_t t29 = (t28 >= theta_int);
const int32_t t30 = t28 - reset_int;
const int32_t t31 = t29 ? t30 : t28;
const int32_t t32 = (t31 >= theta_int);
const int32_t t33 = t31 - reset_int;
const int32_t t34 = t32 ? t33 : t31;
const int32_t t35 = (t34 >= theta_int);
const int32_t t36 = t34 - reset_int;
const int32_t t37 = t35 ? t36 : t34;
const int32_t t38 = (t37 >= theta_int);
const int32_t t39 = t37 - reset_int;
const int32_t t40 = t38 ? t39 : t37;
const int32_t t41 = (t40 >= theta_int);
const int32_t t42 = t40 - reset_int;
const int32_t t43 = t41 ? t42 : t40;
const int32_t t44 = (t43 >= theta_int);
const int32_t t45 = t43 - reset_int;
const int32_t t46 = t44 ? t45 : t43;
const int32_t t47 = (t46 >= theta_int);
const int32_t t48 = t46 - reset_int;
const int32_t t49 = t47 ? t48 : t46;
const int32_t t50 = (t49 >= theta_int);
const int32_t t51 = t49 - reset_int;
const int32_t t52 = t50 ? t51 : t49;
const int32_t t53 = (t52 >= theta_int);
const int32_t t54 = t52 - reset_int;
const int32_t t55 = t53 ? t54 : t52;
const int32_t t57 = snn_shr_half_even32(t55, 8);
const int32_t t58 = t57 < -128 ? -128 : t57 > 127 ? 127 : t57;
const int32_t t59 = t10 + t14;
const int32_t t60 = t59 + t17;
const int32_t t61 = t60 + t20;
const int32_t t62 = t61 + t23;
const int32_t t63 = t62 + t26;
const int32_t t64 = t63 + t29;
const int32_t t65 = t64 + t32;
const int32_t t66 = t65 + t35;
const int32_t t67 = t66 + t38;
const int32_t t68 = t67 + t41;
const int32_t t69 = t68 + t44;
const int32_t t70 = t69 + t47;
const int32_t t71 = t70 + t50;
const int32_t t72 = t71 + t53;
v[n] = t58;
out[n] = t72;
