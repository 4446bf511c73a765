// The backward pass of attention.h: weights are computed again, tile by tile, from the sums that the forward pass kept.
#pragma once

#include "attention.h"

namespace mvitv2 {

constexpr int64_t BACKWARD_TILE = 64;  // queries

// The five products of a tile, by vectors.
template <typename T>
struct BackwardProducts {
  const Attention& a;
  Packed packed;
  Floats query, gradient;
  int64_t rows = 0;

  explicit BackwardProducts(const Attention& attention)
      : a(attention), query(BACKWARD_TILE * a.width()), gradient(BACKWARD_TILE * a.width()) {}

  void enter(const T* k, int64_t k_row, const T* v, int64_t v_row) { packed.pack(a, k, k_row, v, v_row, true); }

  // Logits, not scaled, and the gradients of weights.
  void forward(const T* q, int64_t q_row, const T* dy, int64_t dy_row, int64_t some, float* logits, float* dweights) {
    const int64_t width = a.width(), columns = a.columns();
    rows = some;
    for (int64_t i = 0; i < rows; i++) {
      widen(q + i * q_row, &query[i * width], a.channels);
      widen(dy + i * dy_row, &gradient[i * width], a.channels);
    }
    product<false>({query.data(), width, 1}, packed.keys_across.data(), columns, logits, columns, rows, columns, a.channels);
    product<false>(
        {gradient.data(), width, 1}, packed.values_across.data(), columns, dweights, columns, rows, columns, a.channels);
  }

  // dvalues += weights^T dy, dkeys += dlogits^T q, and dquery = dlogits k; the scale is left to the caller.
  void backward(const float* weights, const float* dlogits, float* dquery, float* dkeys, float* dvalues) {
    const int64_t width = a.width(), columns = a.columns();
    product<true>({weights, 1, columns}, gradient.data(), width, dvalues, width, a.keys, width, rows);
    product<true>({dlogits, 1, columns}, query.data(), width, dkeys, width, a.keys, width, rows);
    product<false>({dlogits, columns, 1}, packed.keys.data(), width, dquery, width, rows, width, a.keys);
  }
};

#ifdef __AMX_BF16__

// The same by the matrix units.
template <typename T>
struct BackwardTileProducts {
  static constexpr int P = PARTS<T>;
  const Attention& a;
  const int64_t wide, deep, tall;  // steps of channels, of keys and of queries
  Units units;
  TileBuffer keys_across, values_across, keys, left, queries, gradients;
  int64_t rows = 0;

  explicit BackwardTileProducts(const Attention& attention)
      : a(attention), wide(steps(a.channels)), deep(steps(a.keys)), tall(steps(BACKWARD_TILE)),
        keys_across(tiled_size(a.keys, a.channels, P)), values_across(tiled_size(a.keys, a.channels, P)),
        keys(tiled_size(a.channels, a.keys, P)),
        left(std::max({tiled_size(BACKWARD_TILE, a.channels, P), tiled_size(BACKWARD_TILE, a.keys, P),
                       tiled_size(a.keys, BACKWARD_TILE, P)})),
        queries(tiled_size(a.channels, BACKWARD_TILE, P)), gradients(tiled_size(a.channels, BACKWARD_TILE, P)) {}

  void enter(const T* k, int64_t k_row, const T* v, int64_t v_row) {
    pack<Side::right, P>(Matrix<T>{k, k_row, 1, a.keys, a.channels}, keys_across.data());
    pack<Side::right, P>(Matrix<T>{v, v_row, 1, a.keys, a.channels}, values_across.data());
    pack<Side::right, P>(Matrix<T>{k, 1, k_row, a.channels, a.keys}, keys.data());
  }

  void forward(const T* q, int64_t q_row, const T* dy, int64_t dy_row, int64_t some, float* logits, float* dweights) {
    rows = some;
    pack<Side::right, P>(Matrix<T>{q, 1, q_row, a.channels, rows}, queries.data());
    pack<Side::right, P>(Matrix<T>{dy, 1, dy_row, a.channels, rows}, gradients.data());
    pack<Side::left, P>(Matrix<T>{q, q_row, 1, rows, a.channels}, left.data());
    multiplied<false>(rows, keys_across.data(), wide, a.columns(), logits);
    pack<Side::left, P>(Matrix<T>{dy, dy_row, 1, rows, a.channels}, left.data());
    multiplied<false>(rows, values_across.data(), wide, a.columns(), dweights);
  }

  void backward(const float* weights, const float* dlogits, float* dquery, float* dkeys, float* dvalues) {
    pack<Side::left, P>(Matrix<float>{weights, 1, a.columns(), a.keys, rows}, left.data());
    multiplied<true>(a.keys, gradients.data(), steps(rows), a.width(), dvalues);
    pack<Side::left, P>(Matrix<float>{dlogits, 1, a.columns(), a.keys, rows}, left.data());
    multiplied<true>(a.keys, queries.data(), steps(rows), a.width(), dkeys);
    pack<Side::left, P>(Matrix<float>{dlogits, a.columns(), 1, rows, a.keys}, left.data());
    multiplied<false>(rows, keys.data(), deep, a.width(), dquery);
  }

  template <bool adds>
  void multiplied(int64_t lines, const BF16* right, int64_t depth, int64_t columns, float* to) {
    const int64_t line = 2 * depth * P * TILE_SIZE;
    for (int64_t j = 0; j < columns / BLOCK; j++)
      for (int64_t i = 0; i < blocks(lines); i++)
        block_product<P, adds>(left.data() + i * line, right + j * line, depth, to + i * BLOCK * columns + j * BLOCK, columns);
  }
};

#endif

template <typename T, typename Products>
struct AttentionBackward {
  const Attention& a;
  Heads<const T> dy, q, k, v;
  std::array<Heads<const T>, 3> terms;
  const float* lse;
  Heads<T> dq, dk, dv;
  std::array<Heads<T>, 3> dterms;

  Products products;
  Terms term;
  Floats weights, dweights, bias, dquery, dkeys, dvalues;

  AttentionBackward(const Attention& attention, const at::Tensor& upstream, const std::array<at::Tensor, 6>& in,
                    const at::Tensor& sums, const std::array<at::Tensor, 6>& to)
      : a(attention), dy(upstream), q(in[0]), k(in[1]), v(in[2]),
        terms{Heads<const T>(in[3]), Heads<const T>(in[4]), Heads<const T>(in[5])}, lse(sums.const_data_ptr<float>()),
        dq(to[0]), dk(to[1]), dv(to[2]), dterms{Heads<T>(to[3]), Heads<T>(to[4]), Heads<T>(to[5])},
        products(attention), term(attention), weights(BACKWARD_TILE * a.columns()),
        dweights(BACKWARD_TILE * a.columns()), bias(a.columns() + 2 * W), dquery(BACKWARD_TILE * a.width()),
        dkeys(padded(a.keys, LINE) * a.width()), dvalues(padded(a.keys, LINE) * a.width()) {}

  void run(int64_t b, int64_t h) {
    products.enter(k.at(b, h), k.row, v.at(b, h), v.row);
    dkeys.clear();
    dvalues.clear();
    for (int64_t first = 0; first < a.queries; first += BACKWARD_TILE) tile(b, h, first);
    for (int64_t j = 0; j < a.keys; j++) {
      float* key = &dkeys[j * a.width()];
      widen(key, key, a.channels, a.scale);
      narrow(key, dk.at(b, h) + j * dk.row, a.channels);
      narrow(&dvalues[j * a.width()], dv.at(b, h) + j * dv.row, a.channels);
    }
  }

  void tile(int64_t b, int64_t h, int64_t first) {
    const int64_t rows = std::min(BACKWARD_TILE, a.queries - first), width = a.width(), columns = a.columns();
    products.forward(q.at(b, h) + first * q.row, q.row, dy.at(b, h) + first * dy.row, dy.row, rows, weights.data(),
                     dweights.data());
    for (int64_t i = 0; i < rows; i++) through_softmax(b, h, first + i, &weights[i * columns], &dweights[i * columns]);
    products.backward(weights.data(), dweights.data(), dquery.data(), dkeys.data(), dvalues.data());
    for (int64_t i = 0; i < rows; i++) write(b, h, first + i, &dquery[i * width]);
  }

  // Logits and gradients of weights, to weights and gradients of logits; those of the terms on the way.
  void through_softmax(int64_t b, int64_t h, int64_t row, float* logits, float* dlogits) {
    const bool biased = a.biased() && row >= a.prefix;
    if (biased) {
      term.read(a, terms, b, h, row - a.prefix);
      term.sums(a, bias.data());
    }
    const Vec scale(a.scale), shift(lse[(b * a.heads + h) * a.queries + row]);
    Vec along(0.0f);
    for (int64_t j = 0; j < a.keys; j += W) {
      const Vec logit = biased ? at::vec::fmadd(load(logits + j), scale, load(&bias[j])) : load(logits + j) * scale;
      const Vec x = logit - shift;
      Vec weight = std::is_same_v<T, BF16> ? x.exp_u20() : x.exp();
      if (j + W > a.keys) weight = Vec::set(Vec(0.0f), weight, a.keys - j);
      weight.store(logits + j);
      along = at::vec::fmadd(weight, load(dlogits + j), along);
    }
    const Vec mean(sum(along));
    for (int64_t j = 0; j < a.keys; j += W) (load(logits + j) * (load(dlogits + j) - mean)).store(dlogits + j);
    if (!biased) return;
    term.sum_of(a, dlogits);
    term.write(a, dterms, b, h, row - a.prefix);
  }

  void write(int64_t b, int64_t h, int64_t row, const float* unscaled) {
    T* to = dq.at(b, h) + row * dq.row;
    const T* residual = dy.at(b, h) + row * dy.row;
    const Vec scale(a.scale);
    for (int64_t c = 0; c < a.channels; c += W) {
      const int64_t count = std::min(W, a.channels - c);
      const Vec g = load(unscaled + c) * scale;
      store(to + c, row >= a.residual_from ? g + load(residual + c, count) : g, count);
    }
  }
};

template <typename T, typename Products>
void attention_backward_by(const Attention& a, const at::Tensor& dy, const std::array<at::Tensor, 6>& in,
                           const at::Tensor& lse, const std::array<at::Tensor, 6>& to) {
  at::parallel_for(0, a.batch * a.heads, 1, [&](int64_t begin, int64_t end) {
    AttentionBackward<T, Products> pass(a, dy, in, lse, to);
    for (int64_t i = begin; i < end; i++) pass.run(i / a.heads, i % a.heads);
  });
}

template <typename T>
void attention_backward(const Attention& a, const at::Tensor& dy, const std::array<at::Tensor, 6>& in,
                        const at::Tensor& lse, const std::array<at::Tensor, 6>& to) {
#ifdef __AMX_BF16__
  if (tiles_work()) return attention_backward_by<T, BackwardTileProducts<T>>(a, dy, in, lse, to);
#endif
  attention_backward_by<T, BackwardProducts<T>>(a, dy, in, lse, to);
}

}  // namespace mvitv2
