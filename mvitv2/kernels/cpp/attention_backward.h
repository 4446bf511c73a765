// The backward pass of attention.h: weights are computed again, tile by tile, from the sums that the forward pass kept.
#pragma once

#include "attention.h"

namespace mvitv2 {

template <typename T>
struct AttentionBackward {
  const Attention& a;
  Heads<const T> dy, q, k, v;
  std::array<Heads<const T>, 3> terms;
  const float* lse;
  Heads<T> dq, dk, dv;
  std::array<Heads<T>, 3> dterms;

  Packed packed;
  Terms term;
  Floats query, gradient, weights, dweights, bias, dquery, dkeys, dvalues;

  AttentionBackward(const Attention& attention, const at::Tensor& upstream, const std::array<at::Tensor, 6>& in,
                    const at::Tensor& sums, const std::array<at::Tensor, 6>& to)
      : a(attention), dy(upstream), q(in[0]), k(in[1]), v(in[2]),
        terms{Heads<const T>(in[3]), Heads<const T>(in[4]), Heads<const T>(in[5])}, lse(sums.const_data_ptr<float>()),
        dq(to[0]), dk(to[1]), dv(to[2]), dterms{Heads<T>(to[3]), Heads<T>(to[4]), Heads<T>(to[5])}, term(attention),
        query(TILE * a.width()), gradient(TILE * a.width()), weights(TILE * a.columns()), dweights(TILE * a.columns()),
        bias(a.columns() + 2 * W), dquery(TILE * a.width()), dkeys(a.keys * a.width()), dvalues(a.keys * a.width()) {}

  void run(int64_t b, int64_t h) {
    packed.pack(a, k.at(b, h), k.row, v.at(b, h), v.row, true);
    dkeys.clear();
    dvalues.clear();
    for (int64_t first = 0; first < a.queries; first += TILE) tile(b, h, first);
    for (int64_t j = 0; j < a.keys; j++) {
      narrow(&dkeys[j * a.width()], dk.at(b, h) + j * dk.row, a.channels);
      narrow(&dvalues[j * a.width()], dv.at(b, h) + j * dv.row, a.channels);
    }
  }

  void tile(int64_t b, int64_t h, int64_t first) {
    const int64_t rows = std::min(TILE, a.queries - first), width = a.width(), columns = a.columns();
    for (int64_t i = 0; i < rows; i++) {
      widen(q.at(b, h) + (first + i) * q.row, &query[i * width], a.channels, a.scale);
      widen(dy.at(b, h) + (first + i) * dy.row, &gradient[i * width], a.channels);
    }
    product<false>({query.data(), width, 1}, packed.keys_across.data(), columns, weights.data(), columns, rows, columns,
                   a.channels);
    product<false>({gradient.data(), width, 1}, packed.values_across.data(), columns, dweights.data(), columns, rows,
                   columns, a.channels);
    for (int64_t i = 0; i < rows; i++) through_softmax(b, h, first + i, &weights[i * columns], &dweights[i * columns]);
    product<true>({weights.data(), 1, columns}, gradient.data(), width, dvalues.data(), width, a.keys, width, rows);
    product<true>({dweights.data(), 1, columns}, query.data(), width, dkeys.data(), width, a.keys, width, rows);
    product<false>({dweights.data(), columns, 1}, packed.keys.data(), width, dquery.data(), width, rows, width, a.keys);
    for (int64_t i = 0; i < rows; i++) write(b, h, first + i, &dquery[i * width], &gradient[i * width]);
  }

  // Logits and gradients of weights, to weights and gradients of logits; those of the terms on the way.
  void through_softmax(int64_t b, int64_t h, int64_t row, float* logits, float* dlogits) {
    const bool biased = a.biased() && row >= a.prefix;
    if (biased) {
      term.read(a, terms, b, h, row - a.prefix);
      term.add_to(a, logits, bias.data());
    }
    const Vec shift(lse[(b * a.heads + h) * a.queries + row]);
    Vec along(0.0f);
    for (int64_t j = 0; j < a.keys; j += W) {
      Vec weight = (load(logits + j) - shift).exp();
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

  void write(int64_t b, int64_t h, int64_t row, const float* gradient_of_scaled, const float* residual) {
    T* to = dq.at(b, h) + row * dq.row;
    const Vec scale(a.scale), added(row >= a.residual_from ? 1.0f : 0.0f);
    for (int64_t c = 0; c < a.channels; c += W) {
      const Vec g = load(gradient_of_scaled + c) * scale;
      store(to + c, at::vec::fmadd(added, load(residual + c), g), std::min(W, a.channels - c));
    }
  }
};

template <typename T>
void attention_backward(const Attention& a, const at::Tensor& dy, const std::array<at::Tensor, 6>& in,
                        const at::Tensor& lse, const std::array<at::Tensor, 6>& to) {
  at::parallel_for(0, a.batch * a.heads, 1, [&](int64_t begin, int64_t end) {
    AttentionBackward<T> pass(a, dy, in, lse, to);
    for (int64_t i = begin; i < end; i++) pass.run(i / a.heads, i % a.heads);
  });
}

}  // namespace mvitv2
