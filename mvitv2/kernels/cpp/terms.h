// The position terms of attention by the matrix units: queries times the rows of their place along each axis.
#pragma once

#include "attention.h"
#include "linear.h"

namespace mvitv2 {

#ifdef __AMX_BF16__

// Queries that share a place along an axis lie evenly: `lines` of them, `step` tokens apart, from `first` on.
struct Fellows {
  int64_t place, first, step, lines;
};

// All queries of a grid, by their place along an axis.
inline std::vector<Fellows> fellows(const std::array<int64_t, 3>& grid, int axis) {
  std::vector<Fellows> all;
  const int64_t times = grid[0], lines = grid[1], places = grid[2];
  if (axis == 2)
    for (int64_t x = 0; x < places; x++) all.push_back({x, x, places, times * lines});
  if (axis == 1)
    for (int64_t t = 0; t < times; t++)
      for (int64_t y = 0; y < lines; y++) all.push_back({y, (t * lines + y) * places, 1, places});
  if (axis == 0)
    for (int64_t t = 0; t < times; t++) all.push_back({t, t * lines * places, 1, lines * places});
  return all;
}

// q (B, h, N, d), rows (place, size, d) -> (B, h, N, size), dense.
template <typename T>
void axis_terms(const at::Tensor& q, const at::Tensor& rows, const std::array<int64_t, 3>& grid, int axis, at::Tensor& out) {
  constexpr int P = PARTS<T>;
  const int64_t d = q.size(3), n = q.size(2), size = rows.size(1), deep = steps(d);
  const int64_t line = 2 * deep * P * TILE_SIZE, table = blocks(size) * line;
  TileBuffer right(rows.size(0) * table);
  for (int64_t p = 0; p < rows.size(0); p++)
    pack<Side::right, P>(
        Matrix<T>{rows.const_data_ptr<T>() + p * size * d, d, 1, size, d}, right.data() + p * table);
  const std::vector<Fellows> groups = fellows(grid, axis);
  const Heads<const T> from(q);
  at::parallel_for(0, q.size(0) * q.size(1), 1, [&](int64_t begin, int64_t end) {
    const Units units;
    TileBuffer left(line);
    alignas(64) float sums[BLOCK * BLOCK];
    for (int64_t i = begin; i < end; i++)
      for (const Fellows& g : groups)
        for (int64_t r = 0; r < g.lines; r += BLOCK) {
          const int64_t lines = std::min(BLOCK, g.lines - r), first_query = g.first + r * g.step;
          const T* queries = from.at(i / q.size(1), i % q.size(1)) + first_query * from.row;
          pack<Side::left, P>(Matrix<T>{queries, g.step * from.row, 1, lines, d}, left.data());
          for (int64_t j = 0; j < size; j += BLOCK) {
            block_product<P>(left.data(), right.data() + g.place * table + j / BLOCK * line, deep, sums, BLOCK);
            for (int64_t l = 0; l < lines; l++)
              for (int64_t c = j; c < std::min(size, j + BLOCK); c += W)
                put(out.data_ptr<T>() + (i * n + first_query + l * g.step) * size + c, first(size - c),
                    _mm512_load_ps(sums + l * BLOCK + c - j));
          }
        }
  });
}

#endif

}  // namespace mvitv2
