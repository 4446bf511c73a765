// Linear layers by the matrix units, with the layer norm before them, and with bias, GELU and a residual in the same pass
// over the result.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "pooling.h"
#include "tiles.h"

namespace mvitv2 {

#ifdef __AMX_BF16__

inline __m512 numbers(const float* p, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, p); }
inline __m512 numbers(const BF16* p, __mmask16 mask) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
}
inline void put(float* p, __mmask16 mask, __m512 v) { _mm512_mask_storeu_ps(p, mask, v); }
inline void put(BF16* p, __mmask16 mask, __m512 v) { _mm256_mask_storeu_epi16(p, mask, (__m256i)_mm512_cvtneps_pbh(v)); }

// x Phi(x), with the erf of Abramowitz and Stegun 7.1.26, exact to 1.5e-7.
inline __m512 gelu(__m512 x) {
  const auto constant = [](float c) { return _mm512_set1_ps(c); };
  const __m512 z = _mm512_mul_ps(x, constant(0.70710678f)), size = _mm512_abs_ps(z);
  const __m512 one_more = _mm512_fmadd_ps(size, constant(0.3275911f), constant(1.0f));
  __m512 t = _mm512_rcp14_ps(one_more);  // 14 bits, and all of them after a step of Newton's
  t = _mm512_mul_ps(t, _mm512_fnmadd_ps(one_more, t, constant(2.0f)));
  __m512 r = _mm512_fmadd_ps(constant(1.061405429f), t, constant(-1.453152027f));
  r = _mm512_fmadd_ps(r, t, constant(1.421413741f));
  r = _mm512_fmadd_ps(r, t, constant(-0.284496736f));
  r = _mm512_mul_ps(_mm512_fmadd_ps(r, t, constant(0.254829592f)), t);
  const __m512 tail = _mm512_mul_ps(r, Vec(_mm512_mul_ps(_mm512_sub_ps(_mm512_setzero_ps(), z), z)).exp_u20());
  const __m512 half = _mm512_mul_ps(x, constant(0.5f));  // 0.5 |x| (1 - tail) + 0.5 x
  return _mm512_fmadd_ps(_mm512_abs_ps(half), _mm512_sub_ps(constant(1.0f), tail), half);
}

// What becomes of a sum before it is written; `rows` lie one below the other, `columns` side by side.
template <typename T>
struct Finish {
  T* out;
  int64_t rows, columns;
  const float* bias;  // (columns), or null
  const T* residual;  // as the result, or null
  bool activated;

  void operator()(const float* block, int64_t stride, int64_t row, int64_t column) const {
    if (activated && residual) return write<true, true>(block, stride, row, column);
    if (activated) return write<true, false>(block, stride, row, column);
    if (residual) return write<false, true>(block, stride, row, column);
    write<false, false>(block, stride, row, column);
  }

  template <bool curved, bool added>
  void write(const float* block, int64_t stride, int64_t row, int64_t column) const {
    const int64_t height = std::min(BLOCK, rows - row);
    for (int64_t j = 0; j < BLOCK && column + j < columns; j += W) {
      const __mmask16 mask = first(columns - column - j);
      const __m512 shift = bias ? numbers(bias + column + j, mask) : _mm512_setzero_ps();
      int64_t place = row * columns + column + j;
      for (int64_t i = 0; i < height; i++, place += columns) {
        __m512 y = _mm512_add_ps(_mm512_load_ps(block + i * stride + j), shift);
        if (curved) y = gelu(y);
        if (added) y = _mm512_add_ps(y, numbers(residual + place, mask));
        put(out + place, mask, y);
      }
    }
  }
};

// Layer norm of rows on their way to a product; no norm if gamma is null.
struct Norm {
  const float *gamma = nullptr, *beta = nullptr;
  double eps = 0;

  // to (lines, depth) as floats.
  template <typename T>
  void rows(const Matrix<T>& from, int64_t lines, float* to) const {
    Floats z(from.depth);
    for (int64_t r = 0; r < lines; r++, to += from.depth) {
      widen(from.data + r * from.line, z.data(), from.depth);
      const Moments m = moments(z.data(), from.depth, eps);
      for (int64_t c = 0; c < from.depth; c += W) {
        const int64_t n = std::min(W, from.depth - c);
        const Vec unit = (load(&z[c]) - Vec(m.mean)) * Vec(m.rstd);
        store(to + c, at::vec::fmadd(unit, load(gamma + c, n), load(beta + c, n)), n);
      }
    }
  }
};

// Blocks of rows `first` to `last` as tiles, normed before if that is asked for.
template <int P, typename S>
void pack_rows(const Matrix<S>& rows, const Norm& norm, int64_t first, int64_t last, BF16* to) {
  if (!norm.gamma) return pack<Side::left, P>(rows, 2 * first, 2 * last, to);
  Floats normed(BLOCK * rows.depth);
  for (int64_t i = first; i < last; i++, to += tiled_size(BLOCK, rows.depth, P)) {
    const int64_t lines = std::min(BLOCK, rows.lines - i * BLOCK);
    norm.rows(Matrix<S>{rows.data + i * BLOCK * rows.line, rows.line, 1, lines, rows.depth}, lines, normed.data());
    pack<Side::left, P>(Matrix<float>{normed.data(), rows.depth, 1, lines, rows.depth}, to);
  }
}

// Ask for some of the numbers ahead, part number `part` of `parts`; weights come from far away.
inline void fetch(const BF16* from, int64_t n, int64_t part, int64_t parts) {
  constexpr int64_t LINE_OF_CACHE = 32;
  const int64_t lines = n / LINE_OF_CACHE, each = (lines + parts - 1) / parts;
  for (int64_t i = part * each; i < std::min(lines, (part + 1) * each); i++)
    _mm_prefetch(reinterpret_cast<const char*>(from + i * LINE_OF_CACHE), _MM_HINT_T1);
}

constexpr int64_t LEFT_BYTES = 3 << 18;  // of rows that are packed at once: a part of the second-level cache
constexpr int64_t MOST_STEPS = 48;       // of depth, times parts, that are summed at once

// rows (M, K) times a packed right side, for rows of blocks `first` to `last` and columns of blocks `from` to `to`. A
// long depth is summed slice by slice, so that many rows fit where they are read from again and again.
template <int P, typename S, typename T>
struct TileProduct {
  const Matrix<S>& rows;
  const Norm& norm;
  const BF16* right;
  const Finish<T>& finish;
  const int64_t deep, slice;  // steps, all of them and at once
  TileBuffer left;
  Floats sums;
  Units units;

  TileProduct(const Matrix<S>& x, const Norm& n, const BF16* packed, const Finish<T>& f, int64_t height, int64_t width)
      : rows(x), norm(n), right(packed), finish(f), deep(steps(x.depth)), slice(at_once(x, n)),
        left(height * left_size(x, n)), sums(slice < deep ? height * width * BLOCK * BLOCK : BLOCK * BLOCK) {}

  static int64_t at_once(const Matrix<S>& rows, const Norm& norm) {
    return norm.gamma ? steps(rows.depth) : std::min(steps(rows.depth), MOST_STEPS / P);
  }
  // Numbers in a block of packed rows.
  static int64_t left_size(const Matrix<S>& rows, const Norm& norm) { return 2 * at_once(rows, norm) * P * TILE_SIZE; }

  void run(int64_t first, int64_t last, int64_t from, int64_t to) {
    for (int64_t s = 0; s < deep; s += slice) {
      const int64_t some = std::min(slice, deep - s), next = some * P * TILE_SIZE, right_next = deep * P * TILE_SIZE;
      Matrix<S> part = rows;
      part.data += s * DEPTH * rows.deep, part.depth = std::min(some * DEPTH, rows.depth - s * DEPTH);
      pack_rows<P>(part, norm, first, last, left.data());
      for (int64_t j = from; j < to; j++) {
        const BF16* columns = right + 2 * j * right_next + s * P * TILE_SIZE;
        for (int64_t i = first; i < last; i++) {
          if (j + 1 < to)
            for (int half = 0; half < 2; half++)
              fetch(columns + (2 + half) * right_next, next, i - first, last - first);
          const bool whole = slice == deep;
          const int64_t stride = whole ? BLOCK : (to - from) * BLOCK;
          float* block = whole ? sums.data() : &sums[(i - first) * BLOCK * stride + (j - from) * BLOCK];
          const BF16* lines = left.data() + 2 * (i - first) * next;
          if (s) block_product<P, true>(lines, next, columns, right_next, some, block, stride);
          else block_product<P>(lines, next, columns, right_next, some, block, stride);
          if (s + slice >= deep) finish(block, stride, i * BLOCK, j * BLOCK);
        }
      }
    }
  }
};

// All of it; threads share rows, and columns where rows are few.
template <int P, typename S, typename T>
void tile_product(const Matrix<S>& rows, const Norm& norm, const BF16* right, const Finish<T>& finish) {
  using Task = TileProduct<P, S, T>;
  const int64_t bytes = Task::left_size(rows, norm) * static_cast<int64_t>(sizeof(BF16)), height = blocks(rows.lines);
  const int64_t most = std::max<int64_t>(1, LEFT_BYTES / bytes);
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t chunks = std::max((height + most - 1) / most, std::min(threads, height));
  const int64_t chunk = (height + chunks - 1) / chunks, width = blocks(finish.columns);
  const int64_t groups = std::min(width, (threads + chunks - 1) / chunks), group = (width + groups - 1) / groups;
  at::parallel_for(0, chunks * groups, 1, [&](int64_t begin, int64_t end) {
    Task task(rows, norm, right, finish, chunk, group);
    for (int64_t i = begin; i < end; i++) {
      const int64_t first = i / groups * chunk, from = i % groups * group;
      task.run(first, std::min(height, first + chunk), from, std::min(width, from + group));
    }
  });
}

template <Side side, int P, typename T>
void pack_in_parallel(const Matrix<T>& m, BF16* to) {
  const int64_t line = steps(m.depth) * P * TILE_SIZE;
  at::parallel_for(0, 2 * blocks(m.lines), 8, [&](int64_t begin, int64_t end) {
    pack<side, P>(m, begin, end, to + begin * line);
  });
}

#endif

}  // namespace mvitv2
