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

// All channels of a line.
template <typename T>
void convolve_channels(const Pooling& p, const T* x, int64_t row, const float* w, int64_t width, const LineTap* taps,
                       int64_t count, float* z) {
  int64_t c = 0;
  for (; c + 2 * W <= p.channels; c += 2 * W) convolve_any<2, true>(p, x + c, row, w + c, width, taps, count, W, z + c);
  for (; c < p.channels; c += W)
    convolve_any<1, false>(p, x + c, row, w + c, width, taps, count, std::min(W, p.channels - c), z + c);
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
        convolve_channels(p, from, row, affine.weights, width, taps.data(), count, z.data());
        to += (p.prefix + line * places) * heads * d;
        for (int64_t place = 0; place < places; place++, to += heads * d)
          write_normed(p, affine, &z[place * width], to);
      }
    }
  });
}

// What a line of x adds to the gradients dw of the three weights by which it entered a pooled line; N vectors of channels.
template <int N, bool whole, typename T>
void weigh_line(const Pooling& p, const T* x, int64_t row, const float* dz, int64_t width, int64_t rest, float* dw) {
  Vec sums[3][N], before[N], here[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; n++) {
    for (int k = 0; k < 3; k++) sums[k][n] = load(dw + k * width + n * W);
    before[n] = Vec(0.0f), here[n] = load(dz + n * W);
  }
  for (int64_t place = 0; place < p.grid[2]; place++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      const Vec value = whole || n < N - 1 ? load(x + place * row + n * W) : load(x + place * row + n * W, rest);
      const Vec after = place + 1 < p.grid[2] ? load(dz + (place + 1) * width + n * W) : Vec(0.0f);
      sums[0][n] = at::vec::fmadd(value, after, sums[0][n]);
      sums[1][n] = at::vec::fmadd(value, here[n], sums[1][n]);
      sums[2][n] = at::vec::fmadd(value, before[n], sums[2][n]);
      before[n] = here[n], here[n] = after;
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; n++)
    for (int k = 0; k < 3; k++) sums[k][n].store(dw + k * width + n * W);
}

// The backward pass of a (sample, head), line by line: gradients of pooled tokens, of weights, and last of x, which is a
// convolution too, with weights turned round.
template <typename T>
struct LineBackward {
  const Pooling& p;
  const Affine& affine;
  const int64_t width, places;
  Floats z, dz, turned;
  std::vector<LineTap> taps;

  LineBackward(const Pooling& pooling, const Affine& a, int64_t)
      : p(pooling), affine(a), width(padded(p.channels)), places(p.grid[2]), z(std::max<int64_t>(1, places) * width),
        dz(p.tokens() * width), turned(p.taps() * width), taps(p.kernel[0] * p.kernel[1]) {
    for (int64_t t = 0; t < p.taps(); t++)
      std::copy_n(affine.weights + t * width, width, &turned[(t / 3 * 3 + 2 - t % 3) * width]);
  }

  // As `PoolBackward::run`.
  void run(const T* x, int64_t row, const T* dy, int64_t dy_row, float* sums, T* to) {
    float *dgamma = sums + (p.taps() + 1) * width, *dbeta = dgamma + width;
    for (int64_t token = 0; token < p.prefix; token++) {
      widen(x + token * row, z.data(), p.channels);
      through_norm(p, affine, z.data(), dy + token * dy_row, dz.data(), dgamma, dbeta);
      narrow(dz.data(), to + token * dy_row, p.channels);
    }
    const int64_t before = p.prefix * dy_row;
    for (int64_t line = 0; line < p.pooled[0] * p.pooled[1]; line++) pooled_line(line, x, row, dy + before, dy_row, sums);
    for (int64_t line = 0; line < p.grid[0] * p.grid[1]; line++) given_line(line, to + before, dy_row);
  }

  void pooled_line(int64_t line, const T* x, int64_t row, const T* dy, int64_t dy_row, float* sums) {
    float *dgamma = sums + (p.taps() + 1) * width, *dbeta = dgamma + width, *dz_line = &dz[line * places * width];
    const int64_t count = line_taps(p, line / p.pooled[1], line % p.pooled[1], taps.data());
    convolve_channels(p, x, row, affine.weights, width, taps.data(), count, z.data());
    for (int64_t place = 0; place < places; place++)
      through_norm(p, affine, &z[place * width], dy + (line * places + place) * dy_row, dz_line + place * width, dgamma, dbeta);
    for (int64_t i = 0; i < count; i++) {
      const T* from = x + taps[i].token * row;
      float* dw = sums + taps[i].index * width;
      int64_t c = 0;
      for (; c + 2 * W <= p.channels; c += 2 * W) weigh_line<2, true>(p, from + c, row, dz_line + c, width, W, dw + c);
      for (; c < p.channels; c += W)
        weigh_line<1, false>(p, from + c, row, dz_line + c, width, std::min(W, p.channels - c), dw + c);
    }
  }

  void given_line(int64_t line, T* to, int64_t to_row) {
    const int64_t count = seen_by(line / p.grid[1], line % p.grid[1]);
    convolve_channels(p, dz.data(), width, turned.data(), width, taps.data(), count, z.data());
    for (int64_t place = 0; place < places; place++) narrow(&z[place * width], to + (line * places + place) * to_row, p.channels);
  }

  // The pooled lines that saw line (t, y) of the grid, as lines of dz.
  int64_t seen_by(int64_t t, int64_t y) {
    int64_t found = 0;
    for (int64_t i = 0; i < p.kernel[0]; i++)
      for (int64_t j = 0; j < p.kernel[1]; j++) {
        const int64_t time = t + p.padding[0] - i, height = y + p.padding[1] - j;
        if (time < 0 || time % p.stride[0] || time / p.stride[0] >= p.pooled[0]) continue;
        if (height < 0 || height % p.stride[1] || height / p.stride[1] >= p.pooled[1]) continue;
        taps[found++] = {(time / p.stride[0] * p.pooled[1] + height / p.stride[1]) * places, (i * p.kernel[1] + j) * 3};
      }
    return found;
  }
};

}  // namespace mvitv2
