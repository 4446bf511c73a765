// GELU of sixteen numbers at once: max(x, 0) - |x| Phi(-|x|), where log2 Phi(-t) is a polynomial for t in [0, 6].
//
// The tail of the normal distribution is so relatively exact, and nothing cancels. Beyond 6 what is taken off is below
// 6e-9, and falls. For float32: to 5e-8 and the rounding of a float. The shorter one, for results that become bfloat16:
// to 2^-11 of the result, an eighth of what rounding to bfloat16 is off at most. Coefficients: weighted minimax fits.
#pragma once

#include "vectors.h"

namespace mvitv2 {

#ifdef __AVX512DQ__

// c[0] x^(N - 1) + ... + c[N - 1].
template <size_t N>
inline __m512 polynomial(__m512 x, const float (&c)[N]) {
  __m512 y = _mm512_set1_ps(c[0]);
#pragma GCC unroll 16
  for (size_t i = 1; i < N; i++) y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(c[i]));
  return y;
}

// 2^x: a polynomial of what is left of x above the next whole number; to 8e-8 of the result, or to 8e-5.
template <bool shorter>
inline __m512 power_of_two(__m512 x) {
  constexpr float SHORT[] = {0.0780244619f, 0.226067245f, 0.695833504f, 0.999925196f};
  constexpr float LONG[] = {0.001877576f, 0.00898934156f, 0.0558263175f, 0.240153611f, 0.693153083f, 0.99999994f};
  const __m512 rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  if constexpr (shorter) return _mm512_scalef_ps(polynomial(rest, SHORT), x);
  else return _mm512_scalef_ps(polynomial(rest, LONG), x);
}

// Phi(-t) for t in [0, 10]: at 10 the tail is 1e-23, and no number on the way is subnormal, which would take long.
template <bool shorter>
inline __m512 lower_tail(__m512 t) {
  constexpr float SHORT[] = {-0.000201682356f, 0.00446757581f, -0.0428325795f, -0.472786009f, -1.14439952f, -1.00053179f};
  constexpr float LONG[] = {-3.23942345e-07f, 5.02781177e-06f, 3.86803504e-06f, -0.000684642873f, 0.0079474058f,
                            -0.0532962494f,   -0.458823919f,   -1.15119052f,    -0.999993801f};
  if constexpr (shorter) return power_of_two<true>(polynomial(t, SHORT));
  else return power_of_two<false>(polynomial(t, LONG));
}

template <bool shorter>
inline __m512 gelu(__m512 x) {
  // NaN stays NaN
  const __m512 size = _mm512_min_ps(_mm512_set1_ps(10.0f), _mm512_abs_ps(x));
  return _mm512_fnmadd_ps(size, lower_tail<shorter>(size), _mm512_max_ps(_mm512_setzero_ps(), x));
}

// Its derivative Phi(x) + x phi(x), where Phi(x) is 1 - Phi(-x) above 0. For float32: to 2e-7; here nothing makes up for
// what Phi is off near 0, so its polynomial is another, for [0, 6.5]. The shorter one: to 2e-4.
template <bool shorter>
inline __m512 gelu_slope(__m512 x) {
  constexpr float HALF_LOG2E = 0.72134752f, SCALE = 0.39894228f;  // log2(e) / 2 and 1 / sqrt(2 pi)
  constexpr float EVEN[] = {5.06844444e-07f, -9.47275454e-06f, 7.44527457e-05f, -0.000282698085f, 1.19800892e-05f,
                            0.00693433522f,  -0.052436713f,    -0.459220836f,   -1.15110435f,     -0.999999997f};
  const __m512 size = _mm512_min_ps(_mm512_set1_ps(10.0f), _mm512_abs_ps(x)), one = _mm512_set1_ps(1.0f);
  __m512 tail;
  if constexpr (shorter) tail = lower_tail<true>(size);
  else tail = power_of_two<false>(polynomial(_mm512_min_ps(_mm512_set1_ps(6.5f), size), EVEN));
  const __mmask16 near = _mm512_cmp_ps_mask(size, _mm512_set1_ps(10.0f), _CMP_LT_OQ);  // beyond, times any x it is 0
  const __m512 density = _mm512_maskz_mov_ps(near, power_of_two<shorter>(_mm512_mul_ps(_mm512_mul_ps(size, size), _mm512_set1_ps(-HALF_LOG2E))));
  const __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ);
  const __m512 below = _mm512_mask_sub_ps(tail, above, one, tail);
  return _mm512_fmadd_ps(_mm512_mul_ps(x, _mm512_set1_ps(SCALE)), density, below);
}

#endif

}  // namespace mvitv2
