// Both layers of an MLP in one pass, by the matrix units: what lies between them never leaves the caches.
#pragma once

#include "linear.h"

namespace mvitv2 {

#ifdef __AMX_BF16__

// Sums of the first layer on their way to the second: bias, GELU, and the tiles that its products read.
template <int P, bool shorter>
struct Between {
  BF16* tiles;       // [block of rows][tile of lines][step][part]
  int64_t steps;     // of a row of tiles
  const float* bias;  // (columns), or null
  int64_t columns, row, column;  // of the whole layer; where these tiles begin

  void operator()(const float* block, int64_t stride, int64_t r, int64_t c, int64_t from, int64_t to) const {
    BF16* start = tiles + ((r - row) / SIDE * steps + (c - column) / DEPTH) * P * TILE_SIZE;
    for (int64_t j = 0; j < BLOCK; j += W) {
      const __mmask16 mask = first(columns - c - j);
      const __m512 shift = bias && mask ? numbers(bias + c + j, mask) : _mm512_setzero_ps();
      for (int64_t i = from; i < to; i++) {
        const __m512 y = gelu<shorter>(_mm512_add_ps(_mm512_load_ps(block + i * stride + j), shift));
        put_parts<P>(start + i / SIDE * steps * P * TILE_SIZE + i % SIDE * DEPTH + j, y);
      }
    }
  }
  void ask(int64_t, int64_t, int64_t, int64_t) const {}
};

struct Layer {
  const BF16* weight;  // packed
  const float* bias;   // or null
  int64_t columns;
};

constexpr int64_t MLP_BYTES = 3 << 20;   // of both weights, where one pass is faster than two: they stay in the caches
constexpr int64_t ROWS_BYTES = 5 << 16;  // of packed rows and of sums at once, where weights stay in the caches
constexpr int64_t MANY_BYTES = 1 << 20;  // where they do not, and are read once for all of these
constexpr int64_t HIDDEN_STEPS = 24;     // of what lies between, times parts, at once

// y = layer2(gelu(layer1(norm(x)))) + residual for some blocks of rows: slice by slice of what lies between.
template <int P, typename S>
struct MLPTask {
  const Matrix<S>& rows;
  const Norm& norm;
  const Layer &one, &two;
  const Finish<S>& finish;
  const int64_t deep, hidden, slice, width;  // steps of x, of what lies between, of a slice of it; blocks of columns
  TileBuffer left, middle;
  Floats pair, sums;
  Units units;

  MLPTask(const Matrix<S>& x, const Norm& n, const Layer& first, const Layer& second, const Finish<S>& f, int64_t height)
      : rows(x), norm(n), one(first), two(second), finish(f), deep(steps(x.depth)), hidden(steps(first.columns)),
        slice(at_once(first)), width(blocks(second.columns)), left(height * 2 * deep * P * TILE_SIZE),
        middle(height * 2 * slice * P * TILE_SIZE), pair(2 * BLOCK * BLOCK), sums(height * width * BLOCK * BLOCK) {}

  static int64_t at_once(const Layer& one) { return std::min(steps(one.columns), std::max<int64_t>(1, HIDDEN_STEPS / P)); }
  // Blocks of rows at once.
  static int64_t most(const Matrix<S>& rows, const Layer& one, const Layer& two) {
    const int64_t weights = tiled_size(one.columns, rows.depth, P) + tiled_size(two.columns, one.columns, P);
    const int64_t room = weights * static_cast<int64_t>(sizeof(BF16)) > 2 * RIGHT_BYTES ? MANY_BYTES : ROWS_BYTES;
    const int64_t bytes = BLOCK * (steps(rows.depth) * DEPTH * P * 2 + blocks(two.columns) * BLOCK * 4);
    return std::max<int64_t>(1, room / bytes);
  }

  void run(int64_t first, int64_t last) {
    pack_rows<P>(rows, norm, first, last, left.data());
    const int64_t row = first * BLOCK, height = last - first, tiles = P * TILE_SIZE;
    for (int64_t s = 0; s < hidden; s += slice) {
      const int64_t some = std::min(slice, hidden - s);
      const Between<P, std::is_same_v<S, BF16>> between{middle.data(), some, one.bias, one.columns, row, s * DEPTH};
      const Columns first_layer{one.weight, deep * tiles, deep * tiles}, second_layer{two.weight + s * tiles, hidden * tiles, some * tiles};
      whole_sums<P>({left.data(), deep * tiles, first_layer, deep, height}, row, s, s + some, pair.data(), between);
      const Sides sides{middle.data(), some * tiles, second_layer, some, height};
      sliced_sums<P>(sides, row, 0, width, sums.data(), s == 0, s + slice >= hidden, finish);
    }
  }
};

// All of it; threads share rows, which must be as many blocks as there are threads.
template <int P, typename S>
void mlp_product(const Matrix<S>& rows, const Norm& norm, const Layer& one, const Layer& two, const Finish<S>& finish) {
  using Task = MLPTask<P, S>;
  const int64_t height = blocks(rows.lines), most = Task::most(rows, one, two);
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t chunks = std::max((height + most - 1) / most, std::min(threads, height));
  const int64_t chunk = (height + chunks - 1) / chunks;
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    Task task(rows, norm, one, two, finish, chunk);
    for (int64_t i = begin; i < end; i++)
      if (i * chunk < height) task.run(i * chunk, std::min(height, (i + 1) * chunk));
  });
}

#endif

}  // namespace mvitv2
