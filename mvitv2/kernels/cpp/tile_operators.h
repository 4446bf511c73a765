// The operators of products by the matrix units, as PyTorch knows them; a part of operators.cpp.
#pragma once

#include "mlp.h"
#include "registered.h"
#include "terms.h"

namespace mvitv2 {
namespace {

void check_tiles() { TORCH_CHECK(tiles_work(), "mvitv2: this processor has no matrix units (AMX) that this process may use"); }

#ifdef __AMX_BF16__

template <typename T>
Matrix<T> matrix(const Tensor& x) {
  return {x.const_data_ptr<T>(), x.stride(0), x.stride(1), x.size(0), x.size(1)};
}

// One of the strides is 1, as tiles are packed from.
Tensor packable(const Tensor& x) { return x.stride(0) == 1 || x.stride(1) == 1 ? x : x.contiguous(); }

// The right side of products: (N, K), where products sum over K, as tiles.
template <typename T>
Tensor packed_right(const Tensor& given, int parts) {
  const Tensor from = packable(given);
  Tensor to = at::empty({tiled_size(from.size(0), from.size(1), parts)}, from.options().dtype(at::kBFloat16));
  BF16* tiles = to.data_ptr<BF16>();
  if constexpr (std::is_same_v<T, float>)
    if (parts == 3) return pack_in_parallel<Side::right, 3>(matrix<T>(from), tiles), to;
  return pack_in_parallel<Side::right, 1>(matrix<T>(from), tiles), to;
}

Tensor tile_pack(const Tensor& weight) {
  check_tiles();
  Tensor to;
  dispatch(weight, [&](auto zero) { to = packed_right<decltype(zero)>(weight, PARTS<decltype(zero)>); });
  return to;
}

// Rows (M, K) times tiles of (N, K), to rows (M, N).
template <typename T>
void multiply_rows(const Tensor& given, const Norm& norm, const Right& right, int parts, const Finish<T>& finish) {
  const Tensor rows = packable(given);
  dispatch(rows, [&](auto zero) {
    using S = decltype(zero);
    if constexpr (std::is_same_v<S, float>)
      if (parts == 3) return tile_product<3>(matrix<float>(rows), norm, right, finish);
    tile_product<1>(matrix<S>(rows), norm, right, finish);
  });
}

Tensor floats(const Maybe& x) { return x ? x->to(at::kFloat).contiguous() : Tensor(); }
const float* pointer(const Tensor& x) { return x.defined() ? x.const_data_ptr<float>() : nullptr; }

Tensor tile_linear(const Tensor& x, const Tensor& packed, const Maybe& bias, int64_t features, bool activated,
                   const Maybe& residual, const Maybe& gamma, const Maybe& beta, double eps) {
  check_tiles();
  const int64_t depth = x.size(-1);
  // a norm reads channels side by side
  const Tensor rows = gamma ? dense_channels(x.reshape({-1, depth})) : x.reshape({-1, depth}), shift = floats(bias), scale = floats(gamma), offset = floats(beta);
  const Tensor added = residual ? residual->contiguous() : Tensor();
  auto sizes = x.sizes().vec();
  sizes.back() = features;
  Tensor out = at::empty(sizes, x.options());
  TORCH_CHECK(!gamma == !beta && (!gamma || gamma->numel() == depth), "mvitv2: a norm of ", depth, " channels needs both of its vectors");
  TORCH_CHECK(!residual || (added.scalar_type() == x.scalar_type() && added.numel() == out.numel()),
              "mvitv2: the residual is not of the result's type and size");
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    TORCH_CHECK(packed.numel() == tiled_size(features, depth, PARTS<T>), "mvitv2: ", packed.numel(),
                " packed numbers are no weight (", features, ", ", depth, ") in ", x.scalar_type());
    const T* plus = residual ? added.const_data_ptr<T>() : nullptr;
    const Finish<T> finish{out.data_ptr<T>(), rows.size(0), features, pointer(shift), plus, activated};
    multiply_rows<T>(rows, Norm{pointer(scale), pointer(offset), eps}, Right{packed.const_data_ptr<BF16>(), {}}, PARTS<T>, finish);
  });
  return out;
}

// Both layers of an MLP: norm, first layer, GELU, second layer, residual.
Tensor tile_mlp(const Tensor& x, const Tensor& packed1, const Maybe& bias1, int64_t hidden, const Tensor& packed2,
                const Maybe& bias2, int64_t features, const Maybe& residual, const Maybe& gamma, const Maybe& beta, double eps) {
  check_tiles();
  const int64_t bytes = 2 * (packed1.numel() + packed2.numel()), depth = x.size(-1), height = blocks(x.numel() / depth);
  if (bytes > MLP_BYTES || !gamma || height < at::get_num_threads()) {
    const Tensor between = tile_linear(x, packed1, bias1, hidden, true, {}, gamma, beta, eps);
    return tile_linear(between, packed2, bias2, features, false, residual, {}, {}, 0);
  }
  const Tensor rows = dense_channels(x.reshape({-1, depth})), shift1 = floats(bias1), shift2 = floats(bias2);
  const Tensor scale = floats(gamma), offset = floats(beta), added = residual ? residual->contiguous() : Tensor();
  auto sizes = x.sizes().vec();
  sizes.back() = features;
  Tensor out = at::empty(sizes, x.options());
  TORCH_CHECK(beta && gamma->numel() == depth && beta->numel() == depth, "mvitv2: a norm of ", depth, " channels needs both of its vectors");
  TORCH_CHECK(!residual || (added.scalar_type() == x.scalar_type() && added.numel() == out.numel()),
              "mvitv2: the residual is not of the result's type and size");
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    constexpr int P = PARTS<T>;
    TORCH_CHECK(packed1.numel() == tiled_size(hidden, depth, P) && packed2.numel() == tiled_size(features, hidden, P),
                "mvitv2: packed numbers are no weights of an MLP of ", depth, ", ", hidden, " and ", features, " channels");
    const Finish<T> finish{out.data_ptr<T>(), rows.size(0), features, pointer(shift2),
                           residual ? added.const_data_ptr<T>() : nullptr, false};
    const Layer one{packed1.const_data_ptr<BF16>(), pointer(shift1), hidden};
    const Layer two{packed2.const_data_ptr<BF16>(), pointer(shift2), features};
    mlp_product<P>(matrix<T>(rows), Norm{pointer(scale), pointer(offset), eps}, one, two, finish);
  });
  return out;
}

// What is too much for the caches is packed when it is needed, if that is not too often.
constexpr int64_t PACKED_BYTES = 1 << 20, MOST_TIMES = 3;

// The right side of a product of `height` rows that is made once; `tiles` and `from` keep what it points to.
template <typename T>
Right right_side(const Tensor& given, int parts, int64_t height, Tensor& from, Tensor& tiles) {
  from = packable(given);
  const int64_t bytes = tiled_size(from.size(0), from.size(1), parts) * static_cast<int64_t>(sizeof(BF16));
  const int64_t rows = tiled_size(height, std::min(from.size(1), MOST_STEPS / parts * DEPTH), parts) * static_cast<int64_t>(sizeof(BF16));
  if (bytes <= PACKED_BYTES || rows > MOST_TIMES * LEFT_BYTES)
    return tiles = packed_right<T>(from, parts), Right{tiles.const_data_ptr<BF16>(), {}};
  if constexpr (std::is_same_v<T, float>)
    if (parts == 3) return {nullptr, packed_later<3>(matrix<T>(from))};
  return {nullptr, packed_later<1>(matrix<T>(from))};
}

// a (M, K) times b (K, N), to what `finish` says of (M, N).
template <typename T>
void matmul_to(const Tensor& a, const Tensor& b, const Finish<T>& finish) {
  check_tiles();
  TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0), "mvitv2: no product of ", a.sizes(), " and ", b.sizes());
  const int parts = a.scalar_type() == at::kFloat && b.scalar_type() == at::kFloat ? 3 : 1;
  Tensor from, tiles;
  Right right;
  dispatch(b, [&](auto zero) { right = right_side<decltype(zero)>(b.t(), parts, a.size(0), from, tiles); });
  multiply_rows<T>(a, Norm(), right, parts, finish);
}

Tensor tile_matmul(const Tensor& a, const Tensor& b, const Maybe& bias, at::ScalarType dtype) {
  Tensor out = at::empty({a.size(0), b.size(-1)}, a.options().dtype(dtype));
  const Tensor shift = floats(bias);
  dispatch(out, [&](auto zero) {
    using T = decltype(zero);
    matmul_to<T>(a, b, {out.data_ptr<T>(), out.size(0), out.size(1), pointer(shift), nullptr, false});
  });
  return out;
}

// The product with its bias, and GELU of it, both in a's type.
std::tuple<Tensor, Tensor> tile_gelu_matmul(const Tensor& a, const Tensor& b, const Maybe& bias) {
  Tensor before = at::empty({a.size(0), b.size(-1)}, a.options()), after = at::empty_like(before);
  const Tensor shift = floats(bias);
  dispatch(a, [&](auto zero) {
    using T = decltype(zero);
    matmul_to<T>(a, b, {after.data_ptr<T>(), after.size(0), after.size(1), pointer(shift), nullptr, true, before.data_ptr<T>()});
  });
  return {before, after};
}

// The product times the slope of GELU at `before`, of whose type and size it is.
Tensor tile_slope_matmul(const Tensor& a, const Tensor& b, const Tensor& before) {
  TORCH_CHECK(before.dim() == 2 && before.size(0) == a.size(0) && before.size(1) == b.size(-1), "mvitv2: ", before.sizes(),
              " is not the size of a product of ", a.sizes(), " and ", b.sizes());
  const Tensor at_places = before.contiguous();
  Tensor out = at::empty_like(at_places);
  dispatch(before, [&](auto zero) {
    using T = decltype(zero);
    matmul_to<T>(a, b, {out.data_ptr<T>(), out.size(0), out.size(1), nullptr, nullptr, false, nullptr, at_places.const_data_ptr<T>()});
  });
  return out;
}

// For every axis the terms (B, h, N, size) of queries (B, h, N, d) and their rows (place, size, d).
std::vector<Tensor> tile_terms(const Tensor& q, const std::vector<Tensor>& rows, Ints grid) {
  check_tiles();
  const Tensor from = dense_channels(q);
  TORCH_CHECK(rows.size() <= 3 && grid.size() == 3 && grid[0] * grid[1] * grid[2] == q.size(2), "mvitv2: ", q.size(2),
              " queries are no grid of ", grid);
  std::vector<Tensor> terms;
  for (size_t i = 0; i < rows.size(); i++) {
    const int axis = static_cast<int>(3 - rows.size() + i);
    TORCH_CHECK(rows[i].size(0) == grid[axis] && rows[i].size(2) == q.size(3), "mvitv2: rows ", rows[i].sizes(),
                " do not fit queries ", q.sizes(), " on a grid of ", grid);
    terms.push_back(at::empty({q.size(0), q.size(1), q.size(2), rows[i].size(1)}, q.options()));
    dispatch(q, [&](auto zero) {
      using T = decltype(zero);
      axis_terms<T>(from, rows[i].to(q.scalar_type()).contiguous(), {grid[0], grid[1], grid[2]}, axis, terms.back());
    });
  }
  return terms;
}

#else

std::vector<Tensor> tile_terms(const Tensor&, const std::vector<Tensor>&, Ints) { return check_tiles(), std::vector<Tensor>(); }
Tensor tile_pack(const Tensor&) { return check_tiles(), Tensor(); }
Tensor tile_linear(const Tensor&, const Tensor&, const Maybe&, int64_t, bool, const Maybe&, const Maybe&, const Maybe&, double) {
  return check_tiles(), Tensor();
}
Tensor tile_mlp(const Tensor&, const Tensor&, const Maybe&, int64_t, const Tensor&, const Maybe&, int64_t, const Maybe&,
                const Maybe&, const Maybe&, double) {
  return check_tiles(), Tensor();
}
Tensor tile_matmul(const Tensor&, const Tensor&, const Maybe&, at::ScalarType) { return check_tiles(), Tensor(); }
std::tuple<Tensor, Tensor> tile_gelu_matmul(const Tensor&, const Tensor&, const Maybe&) { return check_tiles(), std::tuple<Tensor, Tensor>(); }
Tensor tile_slope_matmul(const Tensor&, const Tensor&, const Tensor&) { return check_tiles(), Tensor(); }

#endif

}  // namespace
}  // namespace mvitv2
