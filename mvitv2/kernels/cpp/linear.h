// Linear layers by the matrix units, with the layer norm before them, and with bias, GELU and a residual in the same pass
// over the result.
#pragma once

#include <functional>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "gelu.h"
#include "rows.h"

namespace mvitv2 {

#ifdef __AMX_BF16__

// What becomes of a sum before it is written; `rows` lie one below the other, `columns` side by side.
template <typename T>
struct Finish {
  T* out;
  int64_t rows, columns;
  const float* bias;  // (columns), or null
  const T* residual;  // as the result, or null
  bool activated;
  T* kept = nullptr;           // where sums go before they are activated, as the result, or null
  const T* sloped = nullptr;   // what the slope of GELU there multiplies sums by, as the result, or null

  // Lines `from` to `to` of a block.
  void operator()(const float* block, int64_t stride, int64_t row, int64_t column, int64_t from, int64_t to) const {
    to = std::min(to, rows - row);
    if (sloped) return write<false, false, false, true>(block, stride, row, column, from, to);
    if (activated && kept) return write<true, false, true, false>(block, stride, row, column, from, to);
    if (activated && residual) return write<true, true, false, false>(block, stride, row, column, from, to);
    if (activated) return write<true, false, false, false>(block, stride, row, column, from, to);
    if (residual) return write<false, true, false, false>(block, stride, row, column, from, to);
    write<false, false, false, false>(block, stride, row, column, from, to);
  }

  template <bool curved, bool added, bool keeps, bool slopes>
  void write(const float* block, int64_t stride, int64_t row, int64_t column, int64_t from, int64_t to) const {
    constexpr bool shorter = std::is_same_v<T, BF16>;
    for (int64_t j = 0; j < BLOCK && column + j < columns; j += W) {
      const __mmask16 mask = first(columns - column - j);
      const __m512 shift = bias ? numbers(bias + column + j, mask) : _mm512_setzero_ps();
      int64_t place = (row + from) * columns + column + j;
      for (int64_t i = from; i < to; i++, place += columns) {
        __m512 y = _mm512_add_ps(_mm512_load_ps(block + i * stride + j), shift);
        if (keeps) put(kept + place, mask, y);
        if (curved) y = gelu<shorter>(y);
        if (slopes) y = _mm512_mul_ps(y, gelu_slope<shorter>(numbers(sloped + place, mask)));
        if (added) y = _mm512_add_ps(y, numbers(residual + place, mask));
        put(out + place, mask, y);
      }
    }
  }

  // What will be written and read then is asked for before.
  void ask(int64_t row, int64_t column, int64_t from, int64_t to) const {
    to = std::min(to, rows - row);
    for (int64_t i = from; i < to; i++) {
      const int64_t place = (row + i) * columns + column;
      __builtin_prefetch(out + place, 1);
      if (residual) __builtin_prefetch(residual + place);
      if (kept) __builtin_prefetch(kept + place, 1);
      if (sloped) __builtin_prefetch(sloped + place);
    }
  }
};

// A block whose sums are whole and not finished yet; its lines are, while the units work on the next one.
template <typename Done>
struct Pending {
  const Done& done;
  const float* block = nullptr;
  int64_t stride = 0, row = 0, column = 0;

  void operator()(int64_t step, int64_t steps) const {
    if (block) done(block, stride, row, column, step * BLOCK / steps, (step + 1) * BLOCK / steps);
  }
  void next(const float* b, int64_t s, int64_t r, int64_t c) { block = b, stride = s, row = r, column = c; }
  void end() {
    (*this)(0, 1);
    block = nullptr;
  }
};

// Ask for some of the numbers ahead, part number `part` of `parts`; weights come from far away.
inline void fetch(const BF16* from, int64_t n, int64_t part, int64_t parts) {
  constexpr int64_t LINE_OF_CACHE = 32;
  const int64_t lines = n / LINE_OF_CACHE, each = (lines + parts - 1) / parts;
  for (int64_t i = part * each; i < std::min(lines, (part + 1) * each); i++)
    _mm_prefetch(reinterpret_cast<const char*>(from + i * LINE_OF_CACHE), _MM_HINT_T1);
}

// Packs block number `block` of columns, so many steps of depth from `step` on.
using Packing = std::function<void(int64_t block, int64_t step, int64_t steps, BF16* to)>;

// The right side of products, or a slice of its depth, a block of 32 columns at a time: packed before, or when asked for.
struct Columns {
  const BF16* tiles;   // of all columns, or room for one block
  int64_t next, size;  // from 16 columns to the next, in numbers; what of that is read
  const Packing* packing = nullptr;
  int64_t step = 0, steps = 0;

  const BF16* block(int64_t j) const {
    if (!packing) return tiles + 2 * j * next;
    (*packing)(j, step, steps, const_cast<BF16*>(tiles));
    return tiles;
  }
  // What will be read for a block is asked for before.
  void ask(int64_t j, int64_t part, int64_t parts) const {
    for (int half = 0; !packing && half < 2; half++) fetch(tiles + (2 * j + half) * next, size, part, parts);
  }
};

// Packed rows, so many blocks of them that lie together, times columns.
struct Sides {
  const BF16* left;
  int64_t left_next;  // from 16 lines to the next, in numbers
  Columns right;
  int64_t steps;
  int64_t blocks;  // of rows
};

// Blocks of columns `from` to `to` of rows that begin with number `row`; whole sums, in turns in two places.
template <int P, typename Done>
void whole_sums(const Sides& sides, int64_t row, int64_t from, int64_t to, float* sums, const Done& done) {
  Pending<Done> pending{done};
  int turn = 0;
  for (int64_t j = from; j < to; j++) {
    const BF16* columns = sides.right.block(j);
    for (int64_t i = 0; i < sides.blocks; i++, turn ^= 1) {
      if (j + 1 < to) sides.right.ask(j + 1, i, sides.blocks);
      float* block = sums + turn * BLOCK * BLOCK;
      const int64_t first = row + i * BLOCK;
      block_product<P>(sides.left + 2 * i * sides.left_next, sides.left_next, columns, sides.right.next, sides.steps, block,
                       BLOCK, [&](int64_t s) {
                         pending(s, sides.steps);
                         done.ask(first, j * BLOCK, s * BLOCK / sides.steps, (s + 1) * BLOCK / sides.steps);
                       });
      pending.next(block, BLOCK, first, j * BLOCK);
    }
  }
  pending.end();
}

// The same over a slice of the depth, into sums (rows, columns) that are kept; the last slice finishes them.
template <int P, typename Done>
void sliced_sums(const Sides& sides, int64_t row, int64_t from, int64_t to, float* sums, bool starts, bool ends, const Done& done) {
  Pending<Done> pending{done};
  const int64_t stride = (to - from) * BLOCK;
  for (int64_t j = from; j < to; j++) {
    const BF16* columns = sides.right.block(j);
    const int64_t right_next = sides.right.next;
    for (int64_t i = 0; i < sides.blocks; i++) {
      if (j + 1 < to) sides.right.ask(j + 1, i, sides.blocks);
      float* block = sums + i * BLOCK * stride + (j - from) * BLOCK;
      const BF16* lines = sides.left + 2 * i * sides.left_next;
      const auto meanwhile = [&](int64_t s) { pending(s, sides.steps); };
      if (starts) block_product<P>(lines, sides.left_next, columns, right_next, sides.steps, block, stride, meanwhile);
      else block_product<P, true>(lines, sides.left_next, columns, right_next, sides.steps, block, stride, meanwhile);
      if (ends) pending.next(block, stride, row + i * BLOCK, j * BLOCK);
    }
  }
  pending.end();
}

constexpr int64_t LEFT_BYTES = 3 << 18;   // of rows that are packed at once: a part of the second-level cache
constexpr int64_t FEW_BYTES = 1 << 16;    // of them where the weights stay there: results are written line by line
constexpr int64_t RIGHT_BYTES = 1 << 19;  // of weights that stay
constexpr int64_t MOST_STEPS = 48;        // of depth, times parts, that are summed at once

// What rows are multiplied with: tiles, or what packs them when they are needed, for columns that are too many to stay.
struct Right {
  const BF16* tiles = nullptr;
  Packing packing;
};

// rows (M, K) times a right side, for rows of blocks `first` to `last` and columns of blocks `from` to `to`. A
// long depth is summed slice by slice, so that many rows fit where they are read from again and again.
template <int P, typename S, typename T>
struct TileProduct {
  const Matrix<S>& rows;
  const Norm& norm;
  const Right& right;
  const Finish<T>& finish;
  const int64_t deep, slice;  // steps, all of them and at once
  TileBuffer left, room;
  Floats sums;
  Units units;

  TileProduct(const Matrix<S>& x, const Norm& n, const Right& r, const Finish<T>& f, int64_t height, int64_t width)
      : rows(x), norm(n), right(r), finish(f), deep(steps(x.depth)), slice(at_once(x, n)), left(height * left_size(x, n)),
        room(right.tiles ? 0 : 2 * slice * P * TILE_SIZE), sums((slice < deep ? height * width : 2) * BLOCK * BLOCK) {}

  static int64_t at_once(const Matrix<S>& rows, const Norm& norm) {
    return norm.gamma ? steps(rows.depth) : std::min(steps(rows.depth), MOST_STEPS / P);
  }
  // Numbers in a block of packed rows.
  static int64_t left_size(const Matrix<S>& rows, const Norm& norm) { return 2 * at_once(rows, norm) * P * TILE_SIZE; }
  // Blocks of rows at once.
  static int64_t most(const Matrix<S>& rows, const Norm& norm, int64_t columns) {
    const int64_t weights = tiled_size(columns, rows.depth, P) * static_cast<int64_t>(sizeof(BF16));
    const int64_t bytes = left_size(rows, norm) * static_cast<int64_t>(sizeof(BF16));
    return std::max<int64_t>(1, (weights <= RIGHT_BYTES ? FEW_BYTES : LEFT_BYTES) / bytes);
  }

  Columns columns(int64_t step, int64_t some) {
    const int64_t size = some * P * TILE_SIZE;
    if (right.tiles) return {right.tiles + step * P * TILE_SIZE, deep * P * TILE_SIZE, size};
    return {room.data(), size, size, &right.packing, step, some};
  }

  void run(int64_t first, int64_t last, int64_t from, int64_t to) {
    for (int64_t s = 0; s < deep; s += slice) {
      const int64_t some = std::min(slice, deep - s), next = some * P * TILE_SIZE;
      Matrix<S> part = rows;
      part.data += s * DEPTH * rows.deep, part.depth = std::min(some * DEPTH, rows.depth - s * DEPTH);
      pack_rows<P>(part, norm, first, last, left.data());
      const Sides sides{left.data(), next, columns(s, some), some, last - first};
      if (slice == deep) whole_sums<P>(sides, first * BLOCK, from, to, sums.data(), finish);
      else sliced_sums<P>(sides, first * BLOCK, from, to, sums.data(), s == 0, s + slice >= deep, finish);
    }
  }
};

// All of it; threads share rows, and columns where rows are few.
template <int P, typename S, typename T>
void tile_product(const Matrix<S>& rows, const Norm& norm, const Right& right, const Finish<T>& finish) {
  using Task = TileProduct<P, S, T>;
  const int64_t height = blocks(rows.lines), most = Task::most(rows, norm, finish.columns);
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t chunks = std::max((height + most - 1) / most, std::min(threads, height));
  const int64_t chunk = (height + chunks - 1) / chunks, width = blocks(finish.columns);
  const int64_t groups = std::min(width, (threads + chunks - 1) / chunks), group = (width + groups - 1) / groups;
  at::parallel_for(0, chunks * groups, 1, [&](int64_t begin, int64_t end) {
    Task task(rows, norm, right, finish, chunk, group);
    for (int64_t i = begin; i < end; i++) {
      const int64_t first = i / groups * chunk, from = i % groups * group;
      if (first < height && from < width) task.run(first, std::min(height, first + chunk), from, std::min(width, from + group));
    }
  });
}

// A right side (N, K) that is packed block by block.
template <int P, typename T>
Packing packed_later(const Matrix<T>& m) {
  return [m](int64_t block, int64_t step, int64_t some, BF16* to) {
    Matrix<T> part = m;
    part.data += step * DEPTH * m.deep, part.depth = std::min(some * DEPTH, m.depth - step * DEPTH);
    pack<Side::right, P>(part, 2 * block, 2 * block + 2, to);
  };
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
