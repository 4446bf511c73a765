// Products of matrices by the processor's matrix units (AMX): tiles of 16 lines by 32 bfloat16, summed in float32.
//
// A float is the sum of three bfloat16, and a product of floats that of the six products of their parts which float32
// can tell from nothing: as exact as vectors of floats, and faster. What is not finite becomes NaN on the way.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "vectors.h"

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mvitv2 {

constexpr int64_t SIDE = 16, DEPTH = 32, TILE_SIZE = SIDE * DEPTH;
constexpr int64_t BLOCK = 2 * SIDE;  // lines of what is multiplied at once: two tiles by two

inline int64_t blocks(int64_t lines) { return (lines + BLOCK - 1) / BLOCK; }
inline int64_t steps(int64_t depth) { return (depth + DEPTH - 1) / DEPTH; }

template <typename T>
constexpr int PARTS = std::is_same_v<T, float> ? 3 : 1;

// A matrix of lines by depth, where products sum over depth; one of the two strides is 1.
template <typename T>
struct Matrix {
  const T* data;
  int64_t line, deep, lines, depth;
};

// Numbers in one matrix's tiles: [tile of lines][step of depth][part].
inline int64_t tiled_size(int64_t lines, int64_t depth, int parts) {
  return blocks(lines) * 2 * steps(depth) * parts * TILE_SIZE;
}

enum class Side { left, right };

// Room for tiles, not filled; they begin where the processor likes to load.
class TileBuffer {
  std::unique_ptr<void, decltype(&std::free)> memory;

 public:
  explicit TileBuffer(int64_t n) : memory(std::aligned_alloc(64, std::max<int64_t>(1, (n + 31) / 32) * 64), &std::free) {
    if (!memory) throw std::bad_alloc();
  }
  BF16* data() { return static_cast<BF16*>(memory.get()); }
};

#ifdef __AMX_BF16__

// Whether the system lets this process use the units; asked once.
inline bool tiles_work() {
  constexpr int REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM
  static const bool allowed = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
  return allowed;
}

// How the units see a tile: eight of 16 lines of 64 bytes.
struct alignas(64) Shape {
  uint8_t palette = 1, start = 0, zeros[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t lines[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// What was written before lies in memory: compilers do not know that the units read from there.
inline void settle() { __asm__ volatile("" ::: "memory"); }

// The units of a thread, ready for all products here, until the end of a scope.
class Units {
 public:
  Units() {
    const Shape shape;
    const void* place = &shape;
    __asm__ volatile("" : "+r"(place) : : "memory");  // all of it is read, not the first word alone
    _tile_loadconfig(place);
  }
  ~Units() { _tile_release(); }
  Units(const Units&) = delete;
  Units& operator=(const Units&) = delete;
};

inline __mmask16 first(int64_t n) { return n >= W ? 0xffff : n <= 0 ? 0 : (1u << n) - 1; }

// The parts of sixteen numbers, largest first; the last is rounded.
template <int P>
void split(__m512 v, __m256i* parts) {
  for (int p = 0; p < P; p++) {
    parts[p] = (__m256i)_mm512_cvtneps_pbh(v);
    if (p + 1 < P) v = _mm512_sub_ps(v, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(parts[p]), 16)));
  }
}

template <int P>
void split(const float* p, __mmask16 mask, __m256i* parts) {
  split<P>(_mm512_maskz_loadu_ps(mask, p), parts);
}

template <int P>
void split(const BF16* p, __mmask16 mask, __m256i* parts) {
  static_assert(P == 1);
  parts[0] = _mm256_maskz_loadu_epi16(mask, p);
}

// Sixteen lines of 32 numbers that lie side by side, one below the other; P tiles.
template <int P, typename T>
void tiles_of_lines(const T* from, int64_t stride, int64_t lines, int64_t depth, BF16* to) {
  __m256i parts[P];
  for (int64_t r = 0; r < SIDE; r++)
    for (int64_t half = 0; half < 2; half++) {
      const int64_t k = half * W;
      const __mmask16 mask = r < lines ? first(depth - k) : 0;
      split<P>(from + (mask ? r * stride + k : 0), mask, parts);
      for (int p = 0; p < P; p++) _mm256_store_si256((__m256i*)(to + p * TILE_SIZE + r * DEPTH + k), parts[p]);
    }
}

// Thirty-two rows of 16 numbers that lie side by side, two rows in turns; P tiles.
template <int P, typename T>
void tiles_of_pairs(const T* from, int64_t stride, int64_t lines, int64_t depth, BF16* to) {
  __m256i even[P], odd[P];
  const __mmask16 mask = first(lines);
  for (int64_t pair = 0; pair < SIDE; pair++) {
    const int64_t k = 2 * pair;
    const __mmask16 upper = k < depth ? mask : 0, lower = k + 1 < depth ? mask : 0;
    split<P>(from + (upper ? k * stride : 0), upper, even);
    split<P>(from + (lower ? (k + 1) * stride : 0), lower, odd);
    for (int p = 0; p < P; p++)
      _mm512_store_si512(to + p * TILE_SIZE + pair * DEPTH,
                         _mm512_or_si512(_mm512_cvtepu16_epi32(even[p]),
                                         _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd[p]), 16)));
  }
}

// Tiles of lines as tiles of pairs, or the other way round: pairs of bfloat16 move like floats.
inline void turn(const BF16* from, BF16* to) {
  at::vec::transpose_mxn<float, 16, 16>(
      reinterpret_cast<const float*>(from), SIDE, reinterpret_cast<float*>(to), SIDE);
}

// Tiles number `begin` to `end` of lines; the left side of products wants lines of depth, the right side pairs.
template <Side side, int P, typename T>
void pack(const Matrix<T>& m, int64_t begin, int64_t end, BF16* to) {
  alignas(64) BF16 scratch[P * TILE_SIZE];
  const bool by_lines = m.deep == 1, turned = by_lines != (side == Side::left);
  for (int64_t i = begin; i < end; i++)
    for (int64_t s = 0; s < steps(m.depth); s++, to += P * TILE_SIZE) {
      const T* from = m.data + i * SIDE * m.line + s * DEPTH * m.deep;
      const int64_t lines = m.lines - i * SIDE, depth = m.depth - s * DEPTH;
      BF16* first = turned ? scratch : to;
      if (by_lines) tiles_of_lines<P>(lines > 0 ? from : m.data, m.line, lines, depth, first);
      else tiles_of_pairs<P>(lines > 0 ? from : m.data, m.deep, lines, depth, first);
      for (int p = 0; turned && p < P; p++) turn(scratch + p * TILE_SIZE, to + p * TILE_SIZE);
    }
}

template <Side side, int P, typename T>
void pack(const Matrix<T>& m, BF16* to) {
  pack<side, P>(m, 0, 2 * blocks(m.lines), to);
}

inline void load_left(const BF16* a, int64_t next) {
  _tile_loadd(4, a, 64);
  _tile_loadd(5, a + next, 64);
}
inline void load_right(const BF16* b, int64_t next) {
  _tile_loadd(6, b, 64);
  _tile_loadd(7, b + next, 64);
}
inline void multiply() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

struct Nothing {
  void operator()(int64_t) const {}
};

// A block c (32, 32) = a b, or c += a b, over some steps; tiles of the next 16 lines lie `next` numbers further. What
// vectors have to do meanwhile is asked for after every step: the units work on their own.
template <int P, bool adds = false, typename Meanwhile = Nothing>
void block_product(const BF16* a, int64_t a_next, const BF16* b, int64_t b_next, int64_t steps, float* c, int64_t c_row,
                   Meanwhile meanwhile = {}) {
  const int64_t stride = c_row * static_cast<int64_t>(sizeof(float));
  float* below = c + SIDE * c_row;
  settle();
  if (adds) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + SIDE, stride);
    _tile_loadd(2, below, stride);
    _tile_loadd(3, below + SIDE, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t s = 0; s < steps; s++, a += P * TILE_SIZE, b += P * TILE_SIZE) {
    if constexpr (P == 1) {
      load_left(a, a_next), load_right(b, b_next), multiply();
    } else {  // the parts that multiply to the least first; what is loaded is used twice where it can be
      const BF16 *a1 = a + TILE_SIZE, *a2 = a + 2 * TILE_SIZE, *b1 = b + TILE_SIZE, *b2 = b + 2 * TILE_SIZE;
      load_left(a, a_next), load_right(b2, b_next), multiply();
      load_right(b1, b_next), multiply();
      load_left(a1, a_next), multiply();
      load_right(b, b_next), multiply();
      load_left(a2, a_next), multiply();
      load_left(a, a_next), multiply();
    }
    meanwhile(s);
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + SIDE, stride);
  _tile_stored(2, below, stride);
  _tile_stored(3, below + SIDE, stride);
}

// The same over all the depth that both sides have.
template <int P, bool adds = false>
void block_product(const BF16* a, const BF16* b, int64_t steps, float* c, int64_t c_row) {
  block_product<P, adds>(a, steps * P * TILE_SIZE, b, steps * P * TILE_SIZE, steps, c, c_row);
}

#else

inline bool tiles_work() { return false; }

#endif

}  // namespace mvitv2
