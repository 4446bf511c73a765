// Depthwise pooling line by line, where kernels are three wide and take every place of a line: what is read is used for
// three results at once.
#pragma once

#include "pooling.h"

namespace mvitv2 {

// A line of tokens under a line of the kernel: the first token, and the first of three weights.
struct LineTap {
  int64_t token, index;
};

inline bool by_lines(const Pooling& p) { return p.kernel[2] == 3 && p.stride[2] == 1 && p.padding[2] == 1; }

// The lines of the grid that pooled line (t, y) sees.
inline int64_t line_taps(const Pooling& p, int64_t t, int64_t y, LineTap* taps) {
  int64_t found = 0;
  for (int64_t i = 0; i < p.kernel[0]; i++)
    for (int64_t j = 0; j < p.kernel[1]; j++) {
      const int64_t time = t * p.stride[0] - p.padding[0] + i, line = y * p.stride[1] - p.padding[1] + j;
      if (time < 0 || time >= p.grid[0] || line < 0 || line >= p.grid[1]) continue;
      taps[found++] = {p.prefix + (time * p.grid[1] + line) * p.grid[2], (i * p.kernel[1] + j) * 3};
    }
  return found;
}

// z[place, c ...] = sums over the lines, N vectors of channels at once, the last with `rest` of them. At every place
// the results before, at and after it are added to. LINES lines, or `count` of them if that is 0.
template <int N, int LINES, bool whole, typename T>
void convolve_line(const Pooling& p, const T* x, int64_t row, const float* w, int64_t width, const LineTap* taps,
                   int64_t count, int64_t rest, float* z) {
  const int64_t lines = LINES ? LINES : count;
  Vec before[N], here[N], after[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; n++) before[n] = here[n] = Vec(0.0f);
  for (int64_t place = 0; place < p.grid[2]; place++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) after[n] = Vec(0.0f);
#pragma GCC unroll 4
    for (int64_t i = 0; i < lines; i++) {
      const T* from = x + (taps[i].token + place) * row;
      const float* weight = w + taps[i].index * width;
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) {
        const Vec value = whole || n < N - 1 ? load(from + n * W) : load(from + n * W, rest);
        after[n] = at::vec::fmadd(value, load(weight + n * W), after[n]);
        here[n] = at::vec::fmadd(value, load(weight + width + n * W), here[n]);
        before[n] = at::vec::fmadd(value, load(weight + 2 * width + n * W), before[n]);
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      if (place) before[n].store(z + (place - 1) * width + n * W);
      before[n] = here[n], here[n] = after[n];
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; n++) before[n].store(z + (p.grid[2] - 1) * width + n * W);
}

template <int N, bool whole, typename T>
void convolve_any(const Pooling& p, const T* x, int64_t row, const float* w, int64_t width, const LineTap* taps,
                  int64_t count, int64_t rest, float* z) {
  if (count == 3) return convolve_line<N, 3, whole>(p, x, row, w, width, taps, count, rest, z);
  if (count == 2) return convolve_line<N, 2, whole>(p, x, row, w, width, taps, count, rest, z);
  convolve_line<N, 0, whole>(p, x, row, w, width, taps, count, rest, z);
}

template <typename T>
void pool_lines(const Pooling& p, const at::Tensor& x, const Affine& affine, at::Tensor& out) {
  const int64_t heads = x.size(2), d = p.channels, width = padded(d), tokens = p.tokens(), row = x.stride(1);
  const int64_t lines = p.pooled[0] * p.pooled[1], places = p.grid[2];
  at::parallel_for(0, x.size(0) * lines, 1, [&](int64_t begin, int64_t end) {
    Floats z(std::max<int64_t>(1, places) * width);
    std::vector<LineTap> taps(p.kernel[0] * p.kernel[1]);
    for (int64_t i = begin; i < end; i++) {
      const int64_t b = i / lines, line = i % lines;
      const int64_t count = line_taps(p, line / p.pooled[1], line % p.pooled[1], taps.data());
      for (int64_t h = 0; h < heads; h++) {
        const T* from = x.const_data_ptr<T>() + b * x.stride(0) + h * x.stride(2);
        T* to = out.data_ptr<T>() + (b * tokens * heads + h) * d;
        for (int64_t token = 0; line == 0 && token < p.prefix; token++) {
          widen(from + token * row, z.data(), d);
          write_normed(p, affine, z.data(), to + token * heads * d);
        }
        int64_t c = 0;
        for (; c + 2 * W <= d; c += 2 * W)
          convolve_any<2, true>(p, from + c, row, affine.weights + c, width, taps.data(), count, W, &z[c]);
        for (; c < d; c += W)
          convolve_any<1, false>(p, from + c, row, affine.weights + c, width, taps.data(), count, std::min(W, d - c), &z[c]);
        to += (p.prefix + line * places) * heads * d;
        for (int64_t place = 0; place < places; place++, to += heads * d)
          write_normed(p, affine, &z[place * width], to);
      }
    }
  });
}

}  // namespace mvitv2
