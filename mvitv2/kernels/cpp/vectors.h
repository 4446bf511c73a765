// Vectors of floats, whatever the numbers in memory are, and the one small matrix product everything is made of.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mvitv2 {

using Vec = at::vec::Vectorized<float>;
using BF16 = at::BFloat16;
constexpr int64_t W = Vec::size();

inline int64_t padded(int64_t n, int64_t to = W) { return (n + to - 1) / to * to; }

// Floats whose first one lies where a vector likes to start; 0 at first.
class Floats {
  std::vector<Vec> vectors;

 public:
  explicit Floats(int64_t n = 0) : vectors(padded(n) / W, Vec(0.0f)) {}
  void resize(int64_t n) { vectors.resize(padded(n) / W, Vec(0.0f)); }
  void clear() { std::fill(vectors.begin(), vectors.end(), Vec(0.0f)); }
  float* data() { return reinterpret_cast<float*>(vectors.data()); }
  float& operator[](int64_t i) { return data()[i]; }
};

inline Vec load(const float* p) { return Vec::loadu(p); }
inline Vec load(const float* p, int64_t n) { return Vec::loadu(p, n); }
inline Vec load(const BF16* p) {
  Vec v;
  at::vec::load_fp32_from_bf16(p, v);
  return v;
}
inline Vec load(const BF16* p, int64_t n) {
  return std::get<0>(at::vec::convert_bfloat16_float(at::vec::Vectorized<BF16>::loadu(p, n)));
}
inline void store(float* p, const Vec& v, int64_t n = W) { v.store(p, n); }
#if defined(CPU_CAPABILITY_AVX512) && defined(__AVX512BF16__)
// PyTorch's own rounding is a dozen instructions; subnormal numbers become 0.
inline void store(BF16* p, const Vec& v, int64_t n = W) {
  const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(v);
  if (n >= W) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded);
  else _mm256_mask_storeu_epi16(p, (1u << n) - 1, rounded);
}
#else
inline void store(BF16* p, const Vec& v, int64_t n = W) { at::vec::convert_float_bfloat16(v, v).store(p, n); }
#endif

inline float sum(const Vec& v) {
  return at::vec::vec_reduce_all<float>([](const Vec& a, const Vec& b) { return a + b; }, v);
}
inline float largest(const Vec& v) {
  return at::vec::vec_reduce_all<float>([](const Vec& a, const Vec& b) { return at::vec::maximum(a, b); }, v);
}

// n numbers as floats; what lies between n and the next multiple of a vector becomes 0.
template <typename T>
void widen(const T* from, float* to, int64_t n, float scale = 1.0f) {
  const Vec factor(scale);
  for (int64_t c = 0; c < n; c += W) (load(from + c, std::min(W, n - c)) * factor).store(to + c);
}

template <typename T>
void narrow(const float* from, T* to, int64_t n) {
  for (int64_t c = 0; c < n; c += W) store(to + c, load(from + c), std::min(W, n - c));
}

// to[c, r] = from[r, c] as floats; columns beyond the rows there are become 0.
template <typename T>
void transpose(const T* from, int64_t stride, int64_t rows, int64_t columns, float* to, int64_t to_stride) {
  constexpr int64_t block = 16;
  const int64_t width = padded(columns);
  Floats wide(block * width);
  for (int64_t r0 = 0; r0 < rows; r0 += block) {
    const int64_t some = std::min(block, rows - r0);
    for (int64_t r = 0; r < some; r++) widen(from + (r0 + r) * stride, &wide[r * width], columns);
    at::vec::transpose_mxn<float>(
        wide.data(), width, to + r0, to_stride, static_cast<int>(some), static_cast<int>(columns));
  }
  for (int64_t c = 0; c < columns; c++) std::fill(to + c * to_stride + rows, to + (c + 1) * to_stride, 0.0f);
}

// A matrix read element by element: a row-major one, or the transpose of one.
struct Strided {
  const float* data;
  int64_t row, column;
};

// A tile of c = a b (or c += a b), M rows by N vectors, kept in registers.
template <int M, int N, bool adds>
void product_tile(Strided a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t depth) {
  Vec total[M][N];
  #pragma GCC unroll 8
  for (int m = 0; m < M; m++)
    #pragma GCC unroll 8
    for (int n = 0; n < N; n++) total[m][n] = adds ? load(c + m * c_row + n * W) : Vec(0.0f);
  for (int64_t k = 0; k < depth; k++) {
    Vec right[N];
    #pragma GCC unroll 8
    for (int n = 0; n < N; n++) right[n] = load(b + k * b_row + n * W);
    #pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      const Vec left(a.data[m * a.row + k * a.column]);
      #pragma GCC unroll 8
      for (int n = 0; n < N; n++) total[m][n] = at::vec::fmadd(left, right[n], total[m][n]);
    }
  }
  #pragma GCC unroll 8
  for (int m = 0; m < M; m++)
    #pragma GCC unroll 8
    for (int n = 0; n < N; n++) total[m][n].store(c + m * c_row + n * W);
}

constexpr int ROWS = W >= 16 ? 8 : 4;  // of a tile: with 3 vectors beside them, what the registers hold

template <int N, bool adds>
void product_columns(Strided a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t rows, int64_t depth) {
  int64_t m = 0;
  for (; m + ROWS <= rows; m += ROWS)
    product_tile<ROWS, N, adds>({a.data + m * a.row, a.row, a.column}, b, b_row, c + m * c_row, c_row, depth);
  for (; m < rows; m++)
    product_tile<1, N, adds>({a.data + m * a.row, a.row, a.column}, b, b_row, c + m * c_row, c_row, depth);
}

// c = a b, or c += a b. Columns are a multiple of a vector: b and c are padded to it.
template <bool adds>
void product(
    Strided a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t rows, int64_t columns, int64_t depth) {
  int64_t n = 0;
  for (; n + 3 * W <= columns; n += 3 * W) product_columns<3, adds>(a, b + n, b_row, c + n, c_row, rows, depth);
  if (columns - n == 2 * W) product_columns<2, adds>(a, b + n, b_row, c + n, c_row, rows, depth);
  if (columns - n == W) product_columns<1, adds>(a, b + n, b_row, c + n, c_row, rows, depth);
}

}  // namespace mvitv2
