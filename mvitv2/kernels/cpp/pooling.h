// Depthwise pooling of tokens and the layer norm after it, forward and backward, in the layout of the projection.
//
// x (B, P + N, h, d) with channels side by side -> (B, P + N', h, d). The kernel is shared by heads. Prefix tokens are
// not pooled, but normed. Grids have three axes; an image is a clip of one frame.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <array>
#include <cmath>

#include "vectors.h"

namespace mvitv2 {

using Axes = std::array<int64_t, 3>;

struct Pooling {
  Axes grid, kernel, stride, padding, pooled;
  int64_t prefix, channels;
  double eps;

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t tokens() const { return prefix + pooled[0] * pooled[1] * pooled[2]; }
};

struct Tap {
  int64_t token, index;  // what is read, and with which weight
};

// A pooled token (prefix not counted), and the next one in turn.
struct Place {
  Axes at;

  Place(const Pooling& p, int64_t out) : at{out / (p.pooled[1] * p.pooled[2]), out / p.pooled[2] % p.pooled[1],
                                            out % p.pooled[2]} {}

  void advance(const Pooling& p) {
    if (++at[2] < p.pooled[2]) return;
    at[2] = 0;
    if (++at[1] < p.pooled[1]) return;
    at[1] = 0, ++at[0];
  }

  // The first token under the kernel, if all of it lies on the grid; else -1.
  int64_t inside(const Pooling& p) const {
    int64_t token = 0;
    for (int a = 0; a < 3; a++) {
      const int64_t first = at[a] * p.stride[a] - p.padding[a];
      if (first < 0 || first + p.kernel[a] > p.grid[a]) return -1;
      token = token * p.grid[a] + first;
    }
    return p.prefix + token;
  }

  // The places of the kernel that lie on the grid.
  int64_t taps(const Pooling& p, Tap* taps) const {
    Axes first, low, high;
    for (int a = 0; a < 3; a++) {
      first[a] = at[a] * p.stride[a] - p.padding[a];
      low[a] = std::max<int64_t>(0, -first[a]);
      high[a] = std::min(p.kernel[a], p.grid[a] - first[a]);
    }
    int64_t found = 0;
    for (int64_t t = low[0]; t < high[0]; t++)
      for (int64_t y = low[1]; y < high[1]; y++) {
        const int64_t line = p.prefix + ((first[0] + t) * p.grid[1] + first[1] + y) * p.grid[2] + first[2];
        for (int64_t x = low[2]; x < high[2]; x++) taps[found++] = {line + x, (t * p.kernel[1] + y) * p.kernel[2] + x};
      }
    return found;
  }
};

// z[c ...] = sum over taps of x * w, N vectors of channels at once; the last has `rest` channels.
template <int N, bool whole, typename T>
void convolve(
    const T* x, int64_t row, const float* w, int64_t width, const Tap* taps, int64_t count, int64_t rest, float* z) {
  Vec total[N];
  #pragma GCC unroll 8
  for (int n = 0; n < N; n++) total[n] = Vec(0.0f);
  for (int64_t i = 0; i < count; i++) {
    const T* from = x + taps[i].token * row;
    const float* weight = w + taps[i].index * width;
    #pragma GCC unroll 8
    for (int n = 0; n < N; n++) {
      const Vec value = whole || n < N - 1 ? load(from + n * W) : load(from + n * W, rest);
      total[n] = at::vec::fmadd(value, load(weight + n * W), total[n]);
    }
  }
  #pragma GCC unroll 8
  for (int n = 0; n < N; n++) total[n].store(z + n * W);
}

// One pooled token, not yet normed; a prefix token is its own only tap, with weight 1.
template <typename T>
void pool_token(const Pooling& p, const T* x, int64_t row, const float* w, const Tap* taps, int64_t count, float* z) {
  const int64_t d = p.channels, width = padded(d);
  int64_t c = 0;
  for (; c + 6 * W <= d; c += 6 * W) convolve<6, true>(x + c, row, w + c, width, taps, count, W, z + c);
  for (; c + 2 * W <= d; c += 2 * W) convolve<2, true>(x + c, row, w + c, width, taps, count, W, z + c);
  for (; c < d; c += W) convolve<1, false>(x + c, row, w + c, width, taps, count, std::min(W, d - c), z + c);
}

struct Moments {
  float mean, rstd;
};

inline Moments moments(const float* z, int64_t d, double eps) {
  Vec total(0.0f), squares(0.0f);
  for (int64_t c = 0; c < d; c += W) total = total + load(z + c);
  const float mean = sum(total) / static_cast<float>(d);
  int64_t c = 0;
  for (; c + W <= d; c += W) {
    const Vec v = load(z + c) - Vec(mean);
    squares = at::vec::fmadd(v, v, squares);
  }
  if (c < d) {
    const Vec v = Vec::set(Vec(0.0f), load(z + c) - Vec(mean), d - c);
    squares = at::vec::fmadd(v, v, squares);
  }
  return {mean, 1.0f / std::sqrt(sum(squares) / static_cast<float>(d) + static_cast<float>(eps))};
}

// weights (taps, d) and below them a row of ones for prefix tokens, gamma (d), beta (d); all in whole vectors.
struct Affine {
  Floats rows;
  const float *weights, *gamma, *beta;

  Affine(const Pooling& p, const at::Tensor& w, const at::Tensor& g, const at::Tensor& b) {
    const int64_t width = padded(p.channels), taps = p.taps();
    rows.resize((taps + 3) * width);
    for (int64_t t = 0; t < taps; t++) widen(w.const_data_ptr<float>() + t * p.channels, &rows[t * width], p.channels);
    std::fill_n(&rows[taps * width], p.channels, 1.0f);
    widen(g.const_data_ptr<float>(), &rows[(taps + 1) * width], p.channels);
    widen(b.const_data_ptr<float>(), &rows[(taps + 2) * width], p.channels);
    weights = rows.data(), gamma = weights + (taps + 1) * width, beta = gamma + width;
  }
};

// The whole kernel, as seen from the first token under it.
inline std::vector<Tap> whole_kernel(const Pooling& p) {
  std::vector<Tap> taps;
  for (int64_t t = 0; t < p.kernel[0]; t++)
    for (int64_t y = 0; y < p.kernel[1]; y++)
      for (int64_t x = 0; x < p.kernel[2]; x++)
        taps.push_back({(t * p.grid[1] + y) * p.grid[2] + x, static_cast<int64_t>(taps.size())});
  return taps;
}

// Pooled tokens from `begin` to `end` of one sample, prefix first: visit(token, origin, taps, count), where taps count
// tokens from the origin.
template <typename Visit>
void each_token(const Pooling& p, int64_t begin, int64_t end, Visit visit) {
  const std::vector<Tap> whole = whole_kernel(p);
  std::vector<Tap> taps(p.taps());
  Place place(p, std::max<int64_t>(0, begin - p.prefix));
  for (int64_t token = begin; token < end; token++) {
    if (token < p.prefix) {
      taps[0] = {token, p.taps()};
      visit(token, 0, taps.data(), 1);
      continue;
    }
    const int64_t origin = place.inside(p);
    if (origin >= 0) visit(token, origin, whole.data(), p.taps());
    else visit(token, 0, taps.data(), place.taps(p, taps.data()));
    place.advance(p);
  }
}

// A pooled token z, normed, to where it belongs.
template <typename T>
void write_normed(const Pooling& p, const Affine& affine, const float* z, T* to) {
  const Moments m = moments(z, p.channels, p.eps);
  for (int64_t c = 0; c < p.channels; c += W) {
    const Vec unit = (load(z + c) - Vec(m.mean)) * Vec(m.rstd);
    const Vec y = at::vec::fmadd(unit, load(affine.gamma + c), load(affine.beta + c));
    c + W <= p.channels ? store(to + c, y) : store(to + c, y, p.channels - c);
  }
}

template <typename T>
void pool_forward(const Pooling& p, const at::Tensor& x, const Affine& affine, at::Tensor& out) {
  const int64_t heads = x.size(2), d = p.channels, tokens = p.tokens(), chunk = std::min<int64_t>(tokens, 64);
  const int64_t chunks = (tokens + chunk - 1) / chunk;
  at::parallel_for(0, x.size(0) * chunks, 1, [&](int64_t begin, int64_t end) {
    Floats z(d);
    for (int64_t i = begin; i < end; i++) {
      const int64_t b = i / chunks, first = i % chunks * chunk;
      const T* from = x.const_data_ptr<T>() + b * x.stride(0);
      each_token(p, first, std::min(tokens, first + chunk), [&](int64_t token, int64_t origin, const Tap* taps, int64_t count) {
        const T* slice = from + origin * x.stride(1);
        T* to = out.data_ptr<T>() + (b * tokens + token) * heads * d;
        for (int64_t h = 0; h < heads; h++, to += d) {
          pool_token(p, slice + h * x.stride(2), x.stride(1), affine.weights, taps, count, z.data());
          write_normed(p, affine, z.data(), to);
        }
      });
    }
  });
}

// From the gradient dy of a normed token to that of the pooled one, dz; z becomes what was scaled by gamma. Sums of gamma
// and beta on the way.
template <typename T>
void through_norm(const Pooling& p, const Affine& affine, float* z, const T* dy, float* dz, float* dgamma, float* dbeta) {
  Vec first(0.0f), second(0.0f);
  const int64_t d = p.channels;
  const Moments m = moments(z, d, p.eps);
  for (int64_t c = 0; c < d; c += W) {
    const Vec g = c + W <= d ? load(dy + c) : load(dy + c, d - c), unit = (load(z + c) - Vec(m.mean)) * Vec(m.rstd);
    const Vec scaled = g * load(affine.gamma + c);
    at::vec::fmadd(g, unit, load(dgamma + c)).store(dgamma + c);
    (load(dbeta + c) + g).store(dbeta + c);
    unit.store(z + c);
    scaled.store(dz + c);
    first = first + scaled;
    second = at::vec::fmadd(scaled, unit, second);
  }
  const Vec mean(sum(first) / static_cast<float>(d)), along(sum(second) / static_cast<float>(d)), scale(m.rstd);
  for (int64_t c = 0; c < d; c += W) ((load(dz + c) - mean - load(z + c) * along) * scale).store(dz + c);
}

// What a (sample, head) adds to the gradients of weights, gamma and beta, and its part of the gradient of x.
template <typename T>
struct PoolBackward {
  const Pooling& p;
  const Affine& affine;
  int64_t width;
  Floats z, dz, dx;

  PoolBackward(const Pooling& pooling, const Affine& a, int64_t tokens)
      : p(pooling), affine(a), width(padded(pooling.channels)), z(width), dz(width), dx(tokens * width) {}

  void through_tap(const T* x, const Tap& tap, float* dweights) {
    const float* w = affine.weights + tap.index * width;
    float *dw = dweights + tap.index * width, *to = &dx[tap.token * width];
    for (int64_t c = 0; c < p.channels; c += W) {
      const Vec g = load(&dz[c]), value = c + W <= p.channels ? load(x + c) : load(x + c, p.channels - c);
      at::vec::fmadd(g, load(w + c), load(to + c)).store(to + c);
      at::vec::fmadd(g, value, load(dw + c)).store(dw + c);
    }
  }

  // dx (tokens, d) goes to rows of `to`.
  void run(const T* x, int64_t row, const T* dy, int64_t dy_row, float* sums, T* to) {
    float *dgamma = sums + (p.taps() + 1) * width, *dbeta = dgamma + width;
    dx.clear();
    each_token(p, 0, p.tokens(), [&](int64_t token, int64_t origin, const Tap* taps, int64_t count) {
      pool_token(p, x + origin * row, row, affine.weights, taps, count, z.data());
      through_norm(p, affine, z.data(), dy + token * dy_row, dz.data(), dgamma, dbeta);
      for (int64_t i = 0; i < count; i++) {
        const Tap tap = {origin + taps[i].token, taps[i].index};
        through_tap(x + tap.token * row, tap, sums);
      }
    });
    const int64_t tokens = p.prefix + p.grid[0] * p.grid[1] * p.grid[2];
    for (int64_t token = 0; token < tokens; token++) narrow(&dx[token * width], to + token * dy_row, p.channels);
  }
};

// dx as x; sums (B * h, taps + 3, padded d) of which the caller makes the gradients of weights, gamma and beta.
template <template <typename> class Pass, typename T>
void pool_backward(
    const Pooling& p, const at::Tensor& dy, const at::Tensor& x, const Affine& affine, at::Tensor& dx, at::Tensor& sums) {
  const int64_t heads = x.size(2), tokens = x.size(1), d = p.channels, width = padded(d);
  at::parallel_for(0, x.size(0) * heads, 1, [&](int64_t begin, int64_t end) {
    Pass<T> pass(p, affine, tokens);
    for (int64_t i = begin; i < end; i++) {
      const int64_t b = i / heads, h = i % heads;
      const T* slice = x.const_data_ptr<T>() + b * x.stride(0) + h * x.stride(2);
      pass.run(slice, x.stride(1), dy.const_data_ptr<T>() + (b * p.tokens() * heads + h) * d, heads * d,
               sums.data_ptr<float>() + i * (p.taps() + 3) * width, dx.data_ptr<T>() + (b * tokens * heads + h) * d);
    }
  });
}

}  // namespace mvitv2
