// Max pooling of tokens with channels side by side, forward and backward; no indices are kept.
//
// x (B, N, C) -> (B, N', C), on grids of three axes. A place outside the grid is no candidate. Of equal numbers the first
// one gets the gradient, and a NaN is larger than all others, as in PyTorch.
#pragma once

#include "pooling.h"

namespace mvitv2 {

template <typename T>
void max_pool_forward(const Pooling& p, const at::Tensor& x, at::Tensor& out) {
  const int64_t tokens = p.tokens(), chunk = std::min<int64_t>(tokens, 64), chunks = (tokens + chunk - 1) / chunk;
  const Vec least(-std::numeric_limits<float>::infinity());
  at::parallel_for(0, x.size(0) * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t b = i / chunks, first = i % chunks * chunk;
      const T* from = x.const_data_ptr<T>() + b * x.stride(0);
      each_token(p, first, std::min(tokens, first + chunk), [&](int64_t token, int64_t origin, const Tap* taps, int64_t count) {
        T* to = out.data_ptr<T>() + (b * tokens + token) * p.channels;
        for (int64_t c = 0; c < p.channels; c += W) {
          const int64_t n = std::min(W, p.channels - c);
          Vec best = least;
          for (int64_t t = 0; t < count; t++)
            best = at::vec::maximum(best, load(from + (origin + taps[t].token) * x.stride(1) + c, n));
          store(to + c, best, n);
        }
      });
    }
  });
}

// The gradient of one token's channels goes to the place that the largest number came from.
template <typename T>
void max_pool_backward(const Pooling& p, const at::Tensor& dy, const at::Tensor& x, at::Tensor& dx) {
  const int64_t before = x.size(1), tokens = p.tokens(), d = p.channels;
  const Vec least(-std::numeric_limits<float>::infinity());
  at::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    Floats sums(before * d);
    for (int64_t b = begin; b < end; b++) {
      const T *from = x.const_data_ptr<T>() + b * x.stride(0), *upstream = dy.const_data_ptr<T>() + b * tokens * d;
      sums.clear();
      each_token(p, 0, tokens, [&](int64_t token, int64_t origin, const Tap* taps, int64_t count) {
        for (int64_t c = 0; c < d; c += W) {
          const int64_t n = std::min(W, d - c);
          Vec best(0.0f), most = least;  // number of the tap that has the largest
          for (int64_t t = 0; t < count; t++) {
            const Vec value = load(from + (origin + taps[t].token) * x.stride(1) + c, n);
            const Vec larger = (value > most) | (value != value);
            most = Vec::blendv(most, value, larger), best = Vec::blendv(best, Vec(static_cast<float>(t)), larger);
          }
          const Vec gradient = load(upstream + token * d + c, n);
          for (int64_t t = 0; t < count; t++) {
            float* sum = &sums[(origin + taps[t].token) * d + c];
            store(sum, load(sum, n) + Vec::blendv(Vec(0.0f), gradient, best == Vec(static_cast<float>(t))), n);
          }
        }
      });
      narrow(sums.data(), dx.data_ptr<T>() + b * before * d, before * d);
    }
  });
}

}  // namespace mvitv2
