// Sums over the rows of a matrix, in float32: the gradient of a bias, in one pass and with no copy in float32.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "vectors.h"

namespace mvitv2 {

// x (M, N) with columns side by side, to sums (N), which are 0 before. Eight rows are added up before a sum is touched,
// and blocks of rows apart, so that rounding stays small; the order does not depend on threads.
template <typename T>
void column_sums(const at::Tensor& x, float* sums) {
  constexpr int64_t ROWS_AT_ONCE = 8, ROWS_OF_A_BLOCK = 256, COLUMNS_OF_A_THREAD = 256;
  const int64_t rows = x.size(0), row = x.stride(0);
  const T* from = x.const_data_ptr<T>();
  at::parallel_for(0, x.size(1), COLUMNS_OF_A_THREAD, [&](int64_t begin, int64_t end) {
    Floats block(end - begin);
    for (int64_t r = 0; r < rows; r += ROWS_AT_ONCE) {
      const int64_t some = std::min(ROWS_AT_ONCE, rows - r);
      for (int64_t c = begin; c < end; c += W) {
        const int64_t n = std::min(W, end - c);
        const T* place = from + r * row + c;
        Vec total(0.0f);
        for (int64_t i = 0; i < some; i++) total = total + (n == W ? load(place + i * row) : load(place + i * row, n));
        (load(&block[c - begin]) + total).store(&block[c - begin]);
      }
      if ((r + ROWS_AT_ONCE) % ROWS_OF_A_BLOCK && r + ROWS_AT_ONCE < rows) continue;
      for (int64_t c = begin; c < end; c++) sums[c] += block[c - begin];
      block.clear();
    }
  });
}

}  // namespace mvitv2
