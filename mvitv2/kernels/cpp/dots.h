// Products of bfloat16 matrices where the processor multiplies pairs (AVX512-BF16), summed in float32.
//
// The right side is kept in pairs of rows: [depth / 2][columns][2].
#pragma once

#include "vectors.h"

namespace mvitv2 {

#ifdef __AVX512BF16__
constexpr bool DOTS = true;

template <int M, int N>
void dots_tile(const BF16* a, int64_t a_row, const BF16* b, int64_t b_row, float* c, int64_t c_row, int64_t pairs) {
  __m512 total[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) total[m][n] = _mm512_setzero_ps();
  for (int64_t k = 0; k < pairs; k++) {
    __m512bh right[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) right[n] = (__m512bh)_mm512_loadu_si512(b + k * b_row + n * 2 * W);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      int32_t pair;
      __builtin_memcpy(&pair, a + m * a_row + 2 * k, sizeof(pair));
      const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 8
      for (int n = 0; n < N; n++) total[m][n] = _mm512_dpbf16_ps(total[m][n], left, right[n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) _mm512_storeu_ps(c + m * c_row + n * W, total[m][n]);
}

template <int N>
void dots_columns(
    const BF16* a, int64_t a_row, const BF16* b, int64_t b_row, float* c, int64_t c_row, int64_t rows, int64_t pairs) {
  int64_t m = 0;
  for (; m + ROWS <= rows; m += ROWS) dots_tile<ROWS, N>(a + m * a_row, a_row, b, b_row, c + m * c_row, c_row, pairs);
  for (; m < rows; m++) dots_tile<1, N>(a + m * a_row, a_row, b, b_row, c + m * c_row, c_row, pairs);
}
#else
constexpr bool DOTS = false;

template <int N>
void dots_columns(const BF16*, int64_t, const BF16*, int64_t, float*, int64_t, int64_t, int64_t) {}
#endif

// c = a b; columns are a multiple of a vector, and `pairs` is half the depth.
inline void dots(const BF16* a, int64_t a_row, const BF16* b, float* c, int64_t rows, int64_t columns, int64_t pairs) {
  int64_t n = 0;
  const int64_t b_row = 2 * columns;
  for (; n + 3 * W <= columns; n += 3 * W) dots_columns<3>(a, a_row, b + 2 * n, b_row, c + n, columns, rows, pairs);
  if (columns - n == 2 * W) dots_columns<2>(a, a_row, b + 2 * n, b_row, c + n, columns, rows, pairs);
  if (columns - n == W) dots_columns<1>(a, a_row, b + 2 * n, b_row, c + n, columns, rows, pairs);
}

// Keys (rows, d), d even, as the right side of queries times keys: pairs of channels, turned as if they were floats.
inline void pair_channels(const BF16* from, int64_t stride, int64_t rows, int64_t channels, BF16* to, int64_t columns) {
  const int64_t words = channels / 2;
  float* turned = reinterpret_cast<float*>(to);
  at::vec::transpose_mxn<float>(reinterpret_cast<const float*>(from), stride / 2, turned, columns,
                                static_cast<int>(rows), static_cast<int>(words));
  for (int64_t c = 0; c < words; c++) std::fill(turned + c * columns + rows, turned + (c + 1) * columns, 0.0f);
}

// Values (rows, d) as the right side of weights times values: pairs of rows; what is missing is 0.
inline void pair_rows(const BF16* from, int64_t stride, int64_t rows, int64_t channels, BF16* to, int64_t columns) {
  const BF16 zero(0.0f);
  for (int64_t r = 0; r < rows; r += 2, to += 2 * columns) {
    const BF16 *first = from + r * stride, *second = first + stride;
    if (r + 1 < rows)
      for (int64_t c = 0; c < channels; c++) to[2 * c] = first[c], to[2 * c + 1] = second[c];
    else
      for (int64_t c = 0; c < channels; c++) to[2 * c] = first[c], to[2 * c + 1] = zero;
    std::fill(to + 2 * channels, to + 2 * columns, zero);
  }
}

}  // namespace mvitv2
