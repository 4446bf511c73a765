// Softmax attention with a position bias that is a sum of one term per axis; no matrix of all queries by all keys.
//
// q (B, h, P + N', d), k and v (B, h, P + N'', d), a term (B, h, N', size) per axis -> (B, P + N', h, d). A tile of
// queries meets all keys at once; everything is summed in float32. Where the processor multiplies pairs of bfloat16,
// weights are rounded to it before they meet the values, as PyTorch's attention does.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <array>
#include <cmath>

#include "dots.h"
#include "tiles.h"
#include "vectors.h"

namespace mvitv2 {

constexpr int64_t TILE = 32;  // queries
#ifdef __AMX_BF16__
constexpr int64_t LINE = BLOCK;  // what lines of numbers are filled up to
#else
constexpr int64_t LINE = W;
#endif

struct Attention {
  int64_t batch, heads, queries, keys, channels;
  int64_t prefix, residual_from;  // queries from this one on are added to the result
  std::array<int64_t, 3> sizes;   // of the key grid; no terms if the first is 0
  float scale;

  bool biased() const { return sizes[0] > 0; }
  int64_t width() const { return padded(channels, LINE); }
  int64_t columns() const { return padded(keys, LINE); }
};

// A tensor (B, h, rows, d) of any strides but the last.
template <typename T>
struct Heads {
  T* data;
  int64_t sample, head, row;

  explicit Heads(const at::Tensor& x) : sample(x.stride(0)), head(x.stride(1)), row(x.stride(2)) {
    data = static_cast<T*>(const_cast<void*>(x.const_data_ptr()));
  }
  T* at(int64_t b, int64_t h) const { return data + b * sample + h * head; }
};

// The terms of one query, as floats with room for a vector beyond each.
struct Terms {
  Floats buffer;
  std::array<float*, 3> axis;

  explicit Terms(const Attention& a) {
    int64_t room = 0;
    for (const auto size : a.sizes) room += padded(size) + W;
    buffer.resize(room);
    float* next = buffer.data();
    for (int i = 0; i < 3; i++) axis[i] = next, next += padded(a.sizes[i]) + W;
  }

  template <typename T>
  void read(const Attention& a, const std::array<Heads<T>, 3>& from, int64_t b, int64_t h, int64_t query) {
    for (int i = 0; i < 3; i++) widen(from[i].at(b, h) + query * from[i].row, axis[i], a.sizes[i]);
  }

  // The bias of all keys: 0 for prefix tokens, the sum of terms for the grid. Vectors overlap the next line of keys,
  // which is then written over.
  void sums(const Attention& a, float* to) const {
    const auto [times, lines, places] = a.sizes;
    std::fill(to, to + a.prefix, 0.0f);
    to += a.prefix;
    for (int64_t t = 0; t < times; t++)
      for (int64_t y = 0; y < lines; y++, to += places) {
        const Vec here(axis[0][t] + axis[1][y]);
        for (int64_t x = 0; x < places; x += W) (here + load(axis[2] + x)).store(to + x);
      }
  }

  // The gradient of each term: that of the logits, summed over the other axes.
  void sum_of(const Attention& a, const float* dlogits) {
    buffer.clear();
    const auto [times, lines, places] = a.sizes;
    const float* from = dlogits + a.prefix;
    for (int64_t t = 0; t < times; t++)
      for (int64_t y = 0; y < lines; y++, from += places) {
        Vec line(0.0f);
        for (int64_t x = 0; x < places; x += W) {
          const Vec part = load(from + x, std::min(W, places - x));
          line = line + part;
          (load(axis[2] + x) + part).store(axis[2] + x);
        }
        const float total = sum(line);
        axis[0][t] += total;
        axis[1][y] += total;
      }
  }

  template <typename T>
  void write(const Attention& a, const std::array<Heads<T>, 3>& to, int64_t b, int64_t h, int64_t query) const {
    for (int i = 0; i < 3; i++) narrow(axis[i], to[i].at(b, h) + query * to[i].row, a.sizes[i]);
  }
};

// The weights of a query before they are divided by their sum, and that sum.
struct Softmax {
  float sum, log_sum;  // log_sum: of exp(logits)
};

// Logits to exp(scale * logits + bias - largest), in place. bfloat16 keeps 8 bits of them, for which a shorter exp will
// do. Columns beyond the keys, up to the next vector, become 0.
template <bool shorter>
Softmax softmax(float* row, int64_t keys, float scale, const float* bias) {
  const int64_t whole = keys / W * W, rest = keys - whole;
  const Vec factor(scale), nothing(-std::numeric_limits<float>::infinity());
  Vec peak = nothing;
  for (int64_t j = 0; j < keys; j += W) {
    const Vec logit = bias ? at::vec::fmadd(load(row + j), factor, load(bias + j)) : load(row + j) * factor;
    logit.store(row + j);
    peak = at::vec::maximum(peak, j == whole ? Vec::set(nothing, logit, rest) : logit);
  }
  const float top = largest(peak);
  const Vec shift(top);
  Vec total(0.0f);
  for (int64_t j = 0; j < keys; j += W) {
    const Vec x = load(row + j) - shift;
    Vec e = shorter ? x.exp_u20() : x.exp();
    if (j == whole) e = Vec::set(Vec(0.0f), e, rest);
    e.store(row + j);
    total = total + e;
  }
  const float all = sum(total);
  return {all, top + std::log(all)};
}

// Keys and values of one (sample, head) in the form that tiles read.
struct Packed {
  Floats keys_across, keys, values_across, values;

  template <typename T>
  void pack(const Attention& a, const T* k, int64_t k_row, const T* v, int64_t v_row, bool for_backward) {
    const int64_t columns = a.columns(), width = a.width();
    keys_across.resize(a.channels * columns);
    transpose(k, k_row, a.keys, a.channels, keys_across.data(), columns);
    if (for_backward) {
      values_across.resize(a.channels * columns);
      transpose(v, v_row, a.keys, a.channels, values_across.data(), columns);
      keys.resize(a.keys * width);
      for (int64_t j = 0; j < a.keys; j++) widen(k + j * k_row, &keys[j * width], a.channels);
      return;
    }
    values.resize(a.keys * width);
    for (int64_t j = 0; j < a.keys; j++) widen(v + j * v_row, &values[j * width], a.channels);
  }
};

// The products of a tile: queries times keys, and weights times values.
template <typename T>
struct Products {
  const Attention& a;
  Packed packed;
  Floats query;

  explicit Products(const Attention& attention) : a(attention), query(TILE * a.width()) {}
  void enter(const T* k, int64_t k_row, const T* v, int64_t v_row) { packed.pack(a, k, k_row, v, v_row, false); }

  void logits(const T* q, int64_t q_row, int64_t rows, float* to) {
    const int64_t width = a.width(), columns = a.columns();
    for (int64_t i = 0; i < rows; i++) widen(q + i * q_row, &query[i * width], a.channels);
    product<false>({query.data(), width, 1}, packed.keys_across.data(), columns, to, columns, rows, columns, a.channels);
  }

  void mix(const float* weights, int64_t rows, float* to) {
    const int64_t width = a.width(), columns = a.columns();
    product<false>({weights, columns, 1}, packed.values.data(), width, to, width, rows, width, a.keys);
  }
};

// The same in pairs of bfloat16.
struct PairProducts {
  const Attention& a;
  Floats keys, values, weights;  // two bfloat16 in the place of a float

  explicit PairProducts(const Attention& attention)
      : a(attention), keys(a.channels / 2 * a.columns()), values((a.keys + 1) / 2 * a.width()),
        weights(TILE * a.columns() / 2) {}

  static bool suits(const Attention& a, int64_t k_row) { return DOTS && a.channels % 2 == 0 && k_row % 2 == 0; }

  void enter(const BF16* k, int64_t k_row, const BF16* v, int64_t v_row) {
    pair_channels(k, k_row, a.keys, a.channels, reinterpret_cast<BF16*>(keys.data()), a.columns());
    pair_rows(v, v_row, a.keys, a.channels, reinterpret_cast<BF16*>(values.data()), a.width());
  }

  void logits(const BF16* q, int64_t q_row, int64_t rows, float* to) {
    const int64_t columns = a.columns();
    dots(q, q_row, reinterpret_cast<const BF16*>(keys.data()), to, rows, columns, a.channels / 2);
  }

  void mix(const float* from, int64_t rows, float* to) {
    const int64_t columns = a.columns();
    BF16* rounded = reinterpret_cast<BF16*>(weights.data());
    narrow(from, rounded, rows * columns);
    dots(rounded, columns, reinterpret_cast<const BF16*>(values.data()), to, rows, a.width(), (a.keys + 1) / 2);
  }
};

template <typename T, typename Products>
struct AttentionForward {
  const Attention& a;
  Heads<const T> q, k, v;
  std::array<Heads<const T>, 3> terms;
  Heads<T> out;
  float* lse;

  Products products;
  Terms term;
  Floats logits, bias, mixed;
  float inverse[TILE];

  AttentionForward(const Attention& attention, const std::array<at::Tensor, 6>& in, at::Tensor& to, at::Tensor& sums)
      : a(attention), q(in[0]), k(in[1]), v(in[2]), terms{Heads<const T>(in[3]), Heads<const T>(in[4]),
        Heads<const T>(in[5])}, out(to), lse(sums.data_ptr<float>()), products(attention), term(attention),
        logits(TILE * a.columns()), bias(a.columns() + 2 * W), mixed(TILE * a.width()) {}

  void enter(int64_t b, int64_t h) { products.enter(k.at(b, h), k.row, v.at(b, h), v.row); }

  void tile(int64_t b, int64_t h, int64_t first) {
    const int64_t rows = std::min(TILE, a.queries - first), width = a.width(), columns = a.columns();
    const T* from = q.at(b, h) + first * q.row;
    products.logits(from, q.row, rows, logits.data());
    for (int64_t i = 0; i < rows; i++) {
      const bool biased = a.biased() && first + i >= a.prefix;
      if (biased) {
        term.read(a, terms, b, h, first + i - a.prefix);
        term.sums(a, bias.data());
      }
      const Softmax s = softmax<std::is_same_v<T, BF16>>(
          &logits[i * columns], a.keys, a.scale, biased ? bias.data() : nullptr);
      lse[(b * a.heads + h) * a.queries + first + i] = s.log_sum;
      inverse[i] = 1.0f / s.sum;
    }
    products.mix(logits.data(), rows, mixed.data());
    for (int64_t i = 0; i < rows; i++) write(from + i * q.row, &mixed[i * width], inverse[i], b, h, first + i);
  }

  void write(const T* residual, const float* mix, float factor, int64_t b, int64_t h, int64_t row) {
    T* to = out.at(b, h) + row * out.row;
    const Vec scale(factor);
    for (int64_t c = 0; c < a.channels; c += W) {
      const int64_t count = std::min(W, a.channels - c);
      const Vec y = load(mix + c) * scale;
      store(to + c, row >= a.residual_from ? y + load(residual + c, count) : y, count);
    }
  }
};

template <typename Pass>
void attention_tiles(const Attention& a, const std::array<at::Tensor, 6>& in, at::Tensor& out, at::Tensor& lse) {
  const int64_t pairs = a.batch * a.heads, tiles = (a.queries + TILE - 1) / TILE;
  at::parallel_for(0, pairs * tiles, std::max<int64_t>(1, tiles / 4), [&](int64_t begin, int64_t end) {
    Pass pass(a, in, out, lse);
    for (int64_t i = begin; i < end; i++) {
      const int64_t b = i / tiles / a.heads, h = i / tiles % a.heads;
      if (i == begin || i % tiles == 0) pass.enter(b, h);
      pass.tile(b, h, i % tiles * TILE);
    }
  });
}

template <typename T>
void attention_by_vectors(const Attention& a, const std::array<at::Tensor, 6>& in, at::Tensor& out, at::Tensor& lse) {
  if constexpr (std::is_same_v<T, BF16>)
    if (PairProducts::suits(a, in[1].stride(2))) return attention_tiles<AttentionForward<T, PairProducts>>(a, in, out, lse);
  attention_tiles<AttentionForward<T, Products<T>>>(a, in, out, lse);
}

}  // namespace mvitv2
