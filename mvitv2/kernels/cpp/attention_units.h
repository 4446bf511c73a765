// Attention by the matrix units: the bias is a part of the product, and weights go from their sum straight into tiles.
//
// A term per axis rides behind the channels of a query, against keys that are 1 / scale at their place along that axis
// and 0 elsewhere. In bfloat16 that number is kept as the sum of two, each with a copy of the terms.
#pragma once

#include "attention.h"
#include "gelu.h"
#include "rows.h"

namespace mvitv2 {

#ifdef __AMX_BF16__

template <typename T>
struct UnitsForward {
  static constexpr int P = PARTS<T>, COPIES = P == 1 ? 2 : 1;
  static constexpr bool SHORTER = P == 1;
  const Attention& a;
  Heads<const T> q, k, v;
  std::array<Heads<const T>, 3> terms;
  Heads<T> out;
  float* lse;

  const int64_t wide, places, extra, deep;  // steps of channels; sizes of all axes; steps of terms, and of keys
  Units units;
  TileBuffer keys, values, queries, weights;
  Floats logits, mixed;
  TileBuffer beside;  // rows of terms, as they ride
  float inverse[TILE];

  UnitsForward(const Attention& attention, const std::array<at::Tensor, 6>& in, at::Tensor& to, at::Tensor& sums)
      : a(attention), q(in[0]), k(in[1]), v(in[2]),
        terms{Heads<const T>(in[3]), Heads<const T>(in[4]), Heads<const T>(in[5])}, out(to), lse(sums.data_ptr<float>()),
        wide(steps(a.channels)), places(a.sizes[0] + a.sizes[1] + a.sizes[2]), extra(steps(places * COPIES)),
        deep(steps(a.keys)), keys(2 * blocks(a.keys) * across()), values(tiled_size(a.channels, a.keys, P)),
        queries(2 * across()), weights(2 * deep * P * TILE_SIZE), logits(TILE * a.columns()), mixed(TILE * a.width()),
        beside(TILE * extra * DEPTH * static_cast<int64_t>(sizeof(T) / sizeof(BF16))) {
    if (a.biased()) pack_places();
  }

  // Numbers in a row of tiles of queries or of keys.
  int64_t across() const { return (wide + extra) * P * TILE_SIZE; }

  // Tiles number `step` and following of every row of tiles of a matrix.
  template <Side side>
  void pack_from(const Matrix<T>& m, int64_t step, BF16* to) const {
    for (int64_t i = 0; i < 2 * blocks(m.lines); i++) pack<side, P>(m, i, i + 1, to + i * across() + step * P * TILE_SIZE);
  }

  // Where keys lie: the same for all samples and heads.
  void pack_places() {
    const float whole = 1.0f / a.scale;
    const T first(whole), second(whole - static_cast<float>(first));
    const int64_t width = extra * DEPTH;
    std::vector<T> rows(a.keys * width, T(0.0f));
    const auto [times, lines, columns] = a.sizes;
    for (int64_t key = 0; key < times * lines * columns; key++) {
      T* row = rows.data() + (a.prefix + key) * width;
      const int64_t at[3] = {key / (lines * columns), times + key / columns % lines, times + lines + key % columns};
      for (const int64_t place : at) {
        row[place] = first;
        if (COPIES == 2) row[places + place] = second;
      }
    }
    pack_from<Side::right>(Matrix<T>{rows.data(), width, 1, a.keys, width}, wide, keys.data());
  }

  void enter(int64_t b, int64_t h) {
    pack_from<Side::right>(Matrix<T>{k.at(b, h), k.row, 1, a.keys, a.channels}, 0, keys.data());
    pack<Side::right, P>(Matrix<T>{v.at(b, h), 1, v.row, a.channels, a.keys}, values.data());
  }

  // The terms of some queries, as lines of a matrix; what hides a key may be infinite, and must not meet a 0 so.
  void pack_terms(int64_t b, int64_t h, int64_t first_query, int64_t rows) {
    const int64_t width = extra * DEPTH;
    T* all = reinterpret_cast<T*>(beside.data());
    const __m512 most = _mm512_set1_ps(1e30f), least = _mm512_set1_ps(-1e30f);
    for (int64_t i = 0; i < rows; i++) {
      T* to = all + i * width;
      std::fill(to, to + width, T(0.0f));
      const int64_t query = first_query + i - a.prefix;
      if (query < 0) continue;
      for (int axis = 0; axis < 3; to += a.sizes[axis++])
        for (int64_t c = 0; c < a.sizes[axis]; c += W) {
          const __mmask16 mask = first(a.sizes[axis] - c);
          const __m512 x = numbers(terms[axis].at(b, h) + query * terms[axis].row + c, mask);
          const __m512 finite = _mm512_max_ps(least, _mm512_min_ps(most, x));
          put(to + c, mask, finite);
          if (COPIES == 2) put(to + places + c, mask, finite);
        }
    }
    pack_from<Side::left>(Matrix<T>{all, width, 1, rows, width}, wide, queries.data());
  }

  void tile(int64_t b, int64_t h, int64_t first_query) {
    const int64_t rows = std::min(TILE, a.queries - first_query), columns = a.columns(), depth = wide + extra;
    const T* from = q.at(b, h) + first_query * q.row;
    pack_from<Side::left>(Matrix<T>{from, q.row, 1, rows, a.channels}, 0, queries.data());
    if (a.biased()) pack_terms(b, h, first_query, rows);
    for (int64_t j = 0; j < columns; j += BLOCK)
      block_product<P>(queries.data(), keys.data() + j / SIDE * across(), depth, &logits[j], columns);
    for (int64_t i = 0; i < TILE; i++) {
      const float sum = exponentials(&logits[i * columns], i < rows, weights.data() + i / SIDE * deep * P * TILE_SIZE + i % SIDE * DEPTH,
                                     &lse[(b * a.heads + h) * a.queries + std::min(first_query + i, a.queries - 1)]);
      inverse[i] = 1.0f / sum;
    }
    for (int64_t j = 0; j < a.width(); j += BLOCK)
      block_product<P>(weights.data(), values.data() + j / SIDE * deep * P * TILE_SIZE, deep, &mixed[j], a.width());
    for (int64_t i = 0; i < rows; i++) write(from + i * q.row, &mixed[i * a.width()], inverse[i], b, h, first_query + i);
  }

  // exp(scale (logit - largest)) of a row, as a line of tiles; their sum is given, its logarithm kept.
  float exponentials(const float* row, bool there, BF16* to, float* log_sum) const {
    const int64_t end = deep * DEPTH;
    if (!there) {
      for (int64_t c = 0; c < end; c += W) put_parts<P>(to + c / DEPTH * P * TILE_SIZE + c % DEPTH, _mm512_setzero_ps());
      return 1.0f;
    }
    const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    __m512 tops[2] = {lowest, lowest};
    for (int64_t c = 0; c < a.keys; c += W) {
      __m512& top = tops[c / W % 2];
      top = _mm512_mask_max_ps(top, first(a.keys - c), top, _mm512_load_ps(row + c));
    }
    const float top = _mm512_reduce_max_ps(_mm512_max_ps(tops[0], tops[1]));
    // below 2^-100 a weight is nothing, and subnormal numbers would take long
    const __m512 peak = _mm512_set1_ps(top), factor = _mm512_set1_ps(a.scale * 1.44269504f), least = _mm512_set1_ps(-100.0f);
    __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t c = 0; c < end; c += W) {
      const __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(row + c), peak), factor);
      const __m512 e = _mm512_maskz_mov_ps(first(a.keys - c), power_of_two<SHORTER>(_mm512_max_ps(least, x)));
      sums[c / W % 2] = _mm512_add_ps(sums[c / W % 2], e);
      put_parts<P>(to + c / DEPTH * P * TILE_SIZE + c % DEPTH, e);
    }
    const float all = _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
    *log_sum = top * a.scale + std::log(all);
    return all;
  }

  void write(const T* residual, const float* mix, float factor, int64_t b, int64_t h, int64_t row) {
    T* to = out.at(b, h) + row * out.row;
    const __m512 scale = _mm512_set1_ps(factor);
    for (int64_t c = 0; c < a.channels; c += W) {
      const __mmask16 mask = first(a.channels - c);
      const __m512 y = _mm512_mul_ps(_mm512_load_ps(mix + c), scale);
      put(to + c, mask, row >= a.residual_from ? _mm512_add_ps(y, numbers(residual + c, mask)) : y);
    }
  }
};

#endif

// By what multiplies fastest here.
template <typename T>
void attention_forward(const Attention& a, const std::array<at::Tensor, 6>& in, at::Tensor& out, at::Tensor& lse) {
#ifdef __AMX_BF16__
  if (tiles_work()) return attention_tiles<UnitsForward<T>>(a, in, out, lse);
#endif
  attention_by_vectors<T>(a, in, out, lse);
}

}  // namespace mvitv2
