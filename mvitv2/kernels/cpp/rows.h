// Rows on their way into products by the matrix units: layer norm, and packing into tiles.
#pragma once

#include <cmath>

#include "tiles.h"

namespace mvitv2 {

#ifdef __AMX_BF16__

inline __m512 numbers(const float* p, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, p); }
inline __m512 numbers(const BF16* p, __mmask16 mask) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
}
inline __m512 numbers(const float* p) { return _mm512_loadu_ps(p); }
inline __m512 numbers(const BF16* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
inline void put(float* p, __mmask16 mask, __m512 v) { _mm512_mask_storeu_ps(p, mask, v); }
inline void put(BF16* p, __mmask16 mask, __m512 v) { _mm256_mask_storeu_epi16(p, mask, (__m256i)_mm512_cvtneps_pbh(v)); }
inline void put(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
inline void put(BF16* p, __m512 v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v)); }

// Sixteen numbers as tiles keep them: part after part, each a tile further.
template <int P>
void put_parts(BF16* to, __m512 v) {
  __m256i parts[P];
  split<P>(v, parts);
  for (int p = 0; p < P; p++) _mm256_store_si256((__m256i*)(to + p * TILE_SIZE), parts[p]);
}

// The sum of add(0, x) over n numbers; four sums at once, as an addition takes as long as four.
template <typename T, typename Add>
float total(const T* x, int64_t n, Add add) {
  constexpr int SUMS = 4;
  __m512 sums[SUMS] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  int64_t c = 0;
  for (; c + SUMS * W <= n; c += SUMS * W)
#pragma GCC unroll 4
    for (int i = 0; i < SUMS; i++) sums[i] = add(sums[i], numbers(x + c + i * W));
  for (; c < n; c += W) {
    const __mmask16 mask = first(n - c);
    sums[0] = _mm512_mask_mov_ps(sums[0], mask, add(sums[0], numbers(x + c, mask)));
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

// Layer norm of rows on their way to a product; no norm if gamma is null.
struct Norm {
  const float *gamma = nullptr, *beta = nullptr;
  double eps = 0;

  // A row of n channels as the line of tiles that begins at `to`.
  template <int P, typename T>
  void line(const T* row, int64_t n, BF16* to) const {
    const float mean = total(row, n, [](__m512 sum, __m512 x) { return _mm512_add_ps(sum, x); }) / static_cast<float>(n);
    const __m512 middle = _mm512_set1_ps(mean);
    const float squares = total(row, n, [&](__m512 sum, __m512 x) {
      const __m512 away = _mm512_sub_ps(x, middle);
      return _mm512_fmadd_ps(away, away, sum);
    });
    const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(squares / static_cast<float>(n) + static_cast<float>(eps)));
    for (int64_t c = 0; c < steps(n) * DEPTH; c += W) {
      const __mmask16 mask = first(n - c);
      const __m512 unit = _mm512_mul_ps(_mm512_sub_ps(numbers(row + (mask ? c : 0), mask), middle), scale);
      const __m512 y = _mm512_maskz_fmadd_ps(mask, unit, numbers(gamma + (mask ? c : 0), mask), numbers(beta + (mask ? c : 0), mask));
      put_parts<P>(to + c / DEPTH * P * TILE_SIZE + c % DEPTH, y);
    }
  }
};

// Blocks of rows `first` to `last` as tiles, normed before if that is asked for.
template <int P, typename S>
void pack_rows(const Matrix<S>& rows, const Norm& norm, int64_t first, int64_t last, BF16* to) {
  if (!norm.gamma) return pack<Side::left, P>(rows, 2 * first, 2 * last, to);
  const int64_t tiles = steps(rows.depth) * P * TILE_SIZE, end = std::min(rows.lines, last * BLOCK);
  for (int64_t r = first * BLOCK; r < last * BLOCK; r++) {
    BF16* line = to + (r / SIDE - 2 * first) * tiles + r % SIDE * DEPTH;
    if (r < end) norm.line<P>(rows.data + r * rows.line, rows.depth, line);
    else for (int64_t t = 0; t < tiles; t += TILE_SIZE) _mm512_store_si512(line + t, _mm512_setzero_si512());
  }
}

#endif

}  // namespace mvitv2
