// The operators as PyTorch knows them: names and checks.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "attention_backward.h"
#include "attention_units.h"
#include "column_sums.h"
#include "max_pool.h"
#include "pooling_lines.h"
#include "tile_operators.h"

namespace mvitv2 {
namespace {

Pooling pooling(const Tensor& x, const Tensor& weight, Ints grid, Ints kernel, Ints stride, Ints padding, double eps) {
  Pooling p;
  int64_t tokens = 1;
  for (int a = 0; a < 3; a++) {
    p.grid[a] = grid[a], p.kernel[a] = kernel[a], p.stride[a] = stride[a], p.padding[a] = padding[a];
    p.pooled[a] = (grid[a] + 2 * padding[a] - kernel[a]) / stride[a] + 1;
    TORCH_CHECK(p.pooled[a] > 0, "mvitv2: a grid of ", grid, " is too small for a kernel of ", kernel);
    tokens *= grid[a];
  }
  p.prefix = x.size(1) - tokens, p.channels = x.size(3), p.eps = eps;
  TORCH_CHECK(p.prefix >= 0, "mvitv2: ", x.size(1), " tokens are fewer than a grid of ", grid, " has");
  TORCH_CHECK(weight.size(0) == p.taps() && weight.size(1) == p.channels, "mvitv2: the kernel's weights are ",
              weight.sizes(), ", expected (", p.taps(), ", ", p.channels, ")");
  return p;
}

Tensor pool_norm(const Tensor& x, const Tensor& weight, const Tensor& gamma, const Tensor& beta, Ints grid, Ints kernel,
                 Ints stride, Ints padding, double eps) {
  const Tensor from = dense_channels(x);
  const Pooling p = pooling(from, weight, grid, kernel, stride, padding, eps);
  Tensor out = at::empty({x.size(0), p.tokens(), x.size(2), x.size(3)}, x.options());
  const Affine affine(p, weight.contiguous(), gamma.contiguous(), beta.contiguous());
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    by_lines(p) ? pool_lines<T>(p, from, affine, out) : pool_forward<T>(p, from, affine, out);
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> pool_norm_backward(
    const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& gamma, Ints grid, Ints kernel, Ints stride,
    Ints padding, double eps) {
  const Tensor from = dense_channels(x);
  const Pooling p = pooling(from, weight, grid, kernel, stride, padding, eps);
  const Affine affine(p, weight.contiguous(), gamma.contiguous(), gamma.contiguous());
  Tensor dx = at::empty(x.sizes(), x.options());
  Tensor sums = at::zeros({x.size(0) * x.size(2), p.taps() + 3, padded(p.channels)}, weight.options());
  const Tensor upstream = dy.contiguous();
  dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    by_lines(p) ? pool_backward<LineBackward, T>(p, upstream, from, affine, dx, sums)
                : pool_backward<PoolBackward, T>(p, upstream, from, affine, dx, sums);
  });
  const Tensor total = sums.sum(0).narrow(1, 0, p.channels);
  return {dx, total.narrow(0, 0, p.taps()).contiguous(), total[p.taps() + 1].clone(), total[p.taps() + 2].clone()};
}

// A pooling without weights of tokens (B, N, C).
Pooling unweighted(const Tensor& x, Ints grid, Ints kernel, Ints stride, Ints padding) {
  const int64_t taps = kernel[0] * kernel[1] * kernel[2];
  const Pooling p = pooling(x.unsqueeze(2), at::empty({taps, x.size(2)}, x.options()), grid, kernel, stride, padding, 0);
  TORCH_CHECK(p.prefix == 0, "mvitv2: ", x.size(1), " tokens are no grid of ", grid);
  return p;
}

Tensor pooled_maxima(const Tensor& x, Ints grid, Ints kernel, Ints stride, Ints padding) {
  const Tensor from = dense_channels(x);
  const Pooling p = unweighted(from, grid, kernel, stride, padding);
  Tensor out = at::empty({x.size(0), p.tokens(), x.size(2)}, x.options());
  dispatch(x, [&](auto zero) { max_pool_forward<decltype(zero)>(p, from, out); });
  return out;
}

Tensor pooled_maxima_backward(const Tensor& dy, const Tensor& x, Ints grid, Ints kernel, Ints stride, Ints padding) {
  const Tensor from = dense_channels(x);
  const Pooling p = unweighted(from, grid, kernel, stride, padding);
  Tensor dx = at::empty(x.sizes(), x.options());
  dispatch(x, [&](auto zero) { max_pool_backward<decltype(zero)>(p, dy.contiguous(), from, dx); });
  return dx;
}

Tensor summed_columns(const Tensor& x) {
  TORCH_CHECK(x.dim() == 2, "mvitv2: column_sums takes a matrix, got ", x.sizes());
  Tensor sums = at::zeros({x.size(1)}, x.options().dtype(at::kFloat));
  const Tensor from = dense_channels(x);
  dispatch(x, [&](auto zero) { column_sums<decltype(zero)>(from, sums.data_ptr<float>()); });
  return sums;
}

// Terms as they are, or empty stand-ins where there are none.
std::array<Tensor, 6> inputs(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<Tensor>& terms) {
  const Tensor none = at::empty({q.size(0), q.size(1), 0, 0}, q.options());
  std::array<Tensor, 6> in = {dense_channels(q), dense_channels(k), dense_channels(v), none, none, none};
  for (size_t i = 0; i < terms.size(); i++) in[3 + i] = dense_channels(terms[i]);
  return in;
}

Attention attention(const Tensor& q, const Tensor& k, const std::vector<Tensor>& terms, int64_t residual_from) {
  Attention a;
  a.batch = q.size(0), a.heads = q.size(1), a.queries = q.size(2), a.keys = k.size(2), a.channels = q.size(3);
  a.prefix = terms.empty() ? 0 : a.queries - terms[0].size(2);
  a.residual_from = residual_from < 0 ? a.queries : residual_from;
  int64_t places = terms.empty() ? a.keys : a.prefix;
  for (int i = 0; i < 3; i++) a.sizes[i] = terms.empty() ? 0 : terms[i].size(3);
  if (!terms.empty()) places += a.sizes[0] * a.sizes[1] * a.sizes[2];
  TORCH_CHECK(places == a.keys, "mvitv2: terms are for ", places, " keys, there are ", a.keys);
  a.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(a.channels)));
  return a;
}

// To out (B, N', h, d); the logarithms of sums of exponentials (B, h, N').
Tensor attend_to(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<Tensor>& terms, int64_t residual_from,
                 Tensor& out) {
  const Attention a = attention(q, k, terms, residual_from);
  Tensor to = out.transpose(1, 2), lse = at::empty({a.batch, a.heads, a.queries}, q.options().dtype(at::kFloat));
  dispatch(q, [&](auto zero) { attention_forward<decltype(zero)>(a, inputs(q, k, v, terms), to, lse); });
  return lse;
}

std::tuple<Tensor, Tensor> attend(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<Tensor>& terms,
                                  int64_t residual_from) {
  Tensor out = at::empty({q.size(0), q.size(2), q.size(1), q.size(3)}, q.options());
  const Tensor lse = attend_to(q, k, v, terms, residual_from, out);
  return {out, lse};
}

std::vector<Tensor> attend_backward(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                                    const std::vector<Tensor>& terms, const Tensor& lse, int64_t residual_from) {
  const Attention a = attention(q, k, terms, residual_from);
  const auto in = inputs(q, k, v, terms);
  std::array<Tensor, 6> to;
  // queries, keys and values in the layout of tokens, as they came from the pooling
  for (size_t i = 0; i < 3; i++) to[i] = at::empty(in[i].transpose(1, 2).sizes(), q.options()).transpose(1, 2);
  for (size_t i = 3; i < in.size(); i++) to[i] = at::empty(in[i].sizes(), q.options());
  const Tensor upstream = dense_channels(dy).transpose(1, 2);
  dispatch(q, [&](auto zero) { attention_backward<decltype(zero)>(a, upstream, in, lse, to); });
  return {to.begin(), to.begin() + 3 + static_cast<int64_t>(terms.size())};
}

// Pooling attention up to its last projection, where no gradients are asked for.
struct PooledAttention {
  int64_t heads;
  const std::vector<Tensor>&pools, &rows;  // a kernel's weights and a norm's two vectors, three times; as in `tile_terms`
  Ints grid, sizes;                        // a kernel, its stride and its padding, of queries and of keys
  at::ArrayRef<double> eps;
  int64_t residual_from;

  Ints size(int i, int which) const { return sizes.slice((i ? 9 : 0) + 3 * which, 3); }

  // Queries, keys and values (b, L, 3 h d) to (b, L', h, d).
  void operator()(const Tensor& qkv, Tensor out) const {
    const Tensor parts = qkv.unflatten(2, {3, heads, -1});
    std::array<Tensor, 3> pooled;
    for (int i = 0; i < 3; i++)
      pooled[i] = pool_norm(parts.select(2, i), pools[3 * i], pools[3 * i + 1], pools[3 * i + 2], grid, size(i, 0), size(i, 1),
                            size(i, 2), eps[i]).transpose(1, 2);
    const Tensor& q = pooled[0];
    std::vector<Tensor> terms;
    if (!rows.empty()) {
      const Pooling p = of_queries(qkv);
      const Tensor on_grid = q.narrow(2, p.prefix, q.size(2) - p.prefix);
      terms = tile_terms(on_grid, rows, p.pooled);
      const Tensor nothing = at::zeros({q.size(0), heads, on_grid.size(2), 1}, q.options());
      terms.insert(terms.begin(), 3 - rows.size(), nothing);  // an image is a clip of one frame
    }
    attend_to(q, pooled[1], pooled[2], terms, residual_from, out);
  }

  Pooling of_queries(const Tensor& x) const {
    const Tensor heads_apart = x.select(2, 0).unsqueeze(2).unsqueeze(3).expand({-1, -1, heads, pools[0].size(1)});
    return pooling(heads_apart, pools[0], grid, size(0, 0), size(0, 1), size(0, 2), eps[0]);
  }
};

// Of what is projected, so much lies in memory at a time: it is read soon, while it is in the caches.
constexpr int64_t PROJECTED_BYTES = 4 << 20;

// Norm, projection and pooling attention of (B, L, C) in one call, some samples after others: (B, L', h d).
Tensor attention_at_once(const Tensor& x, const Tensor& packed, const Maybe& bias, const Maybe& gamma, const Maybe& beta,
                         double norm_eps, int64_t heads, const std::vector<Tensor>& pools, const std::vector<Tensor>& rows,
                         Ints grid, Ints sizes, at::ArrayRef<double> eps, int64_t residual_from) {
  TORCH_CHECK(x.dim() == 3 && x.size(0) > 0 && pools.size() == 9 && sizes.size() == 18 && eps.size() == 3, "mvitv2: ", x.sizes(),
              " are no tokens of samples, or there are not three poolings");
  const PooledAttention attend{heads, pools, rows, grid, sizes, eps, residual_from};
  const int64_t channels = heads * pools[0].size(1), samples = x.size(0);
  Tensor out = at::empty({samples, attend.of_queries(x).tokens(), heads, pools[0].size(1)}, x.options());
  const int64_t bytes = x.size(1) * 3 * channels * x.element_size(), some = std::max<int64_t>(1, PROJECTED_BYTES / bytes);
  for (int64_t first = 0; first < samples; first += some) {
    const int64_t n = std::min(some, samples - first);
    attend(tile_linear(x.narrow(0, first, n), packed, bias, 3 * channels, false, {}, gamma, beta, norm_eps), out.narrow(0, first, n));
  }
  return out.flatten(2);
}

// What products are made of here.
std::string instructions() {
  if (tiles_work()) return "AMX";
  if (DOTS) return "AVX512-BF16";
  return W == 16 ? "AVX512" : W == 8 ? "AVX2" : "no vectors";
}

}  // namespace

TORCH_LIBRARY(mvitv2_cpu, m) {
  m.def("max_pool(Tensor x, int[] grid, int[] kernel, int[] stride, int[] padding) -> Tensor");
  m.def("max_pool_backward(Tensor dy, Tensor x, int[] grid, int[] kernel, int[] stride, int[] padding) -> Tensor");
  m.def("column_sums(Tensor x) -> Tensor");
  m.def("instructions() -> str", &instructions);
  m.def("tile_terms(Tensor q, Tensor[] rows, int[] grid) -> Tensor[]");
  m.def("tile_pack(Tensor weight) -> Tensor");
  m.def("tile_linear(Tensor x, Tensor packed, Tensor? bias, int features, bool gelu, Tensor? residual, "
        "Tensor? gamma, Tensor? beta, float eps) -> Tensor");
  m.def("tile_mlp(Tensor x, Tensor packed1, Tensor? bias1, int hidden, Tensor packed2, Tensor? bias2, int features, "
        "Tensor? residual, Tensor? gamma, Tensor? beta, float eps) -> Tensor");
  m.def("tile_matmul(Tensor a, Tensor b, Tensor? bias, ScalarType dtype) -> Tensor");
  m.def("tile_gelu_matmul(Tensor a, Tensor b, Tensor? bias) -> (Tensor, Tensor)");
  m.def("tile_slope_matmul(Tensor a, Tensor b, Tensor before) -> Tensor");
  m.def("pool_norm(Tensor x, Tensor weight, Tensor gamma, Tensor beta, int[] grid, int[] kernel, int[] stride, "
        "int[] padding, float eps) -> Tensor");
  m.def("pool_norm_backward(Tensor dy, Tensor x, Tensor weight, Tensor gamma, int[] grid, int[] kernel, int[] stride, "
        "int[] padding, float eps) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("attention_at_once(Tensor x, Tensor packed, Tensor? bias, Tensor? gamma, Tensor? beta, float norm_eps, int heads, "
        "Tensor[] pools, Tensor[] rows, int[] grid, int[] sizes, float[] eps, int residual_from) -> Tensor");
  m.def("attend(Tensor q, Tensor k, Tensor v, Tensor[] terms, int residual_from) -> (Tensor, Tensor)");
  m.def("attend_backward(Tensor dy, Tensor q, Tensor k, Tensor v, Tensor[] terms, Tensor lse, int residual_from) "
        "-> Tensor[]");
}

TORCH_LIBRARY_IMPL(mvitv2_cpu, CPU, m) {
  m.impl("pool_norm", &pool_norm);
  m.impl("pool_norm_backward", &pool_norm_backward);
  m.impl("attention_at_once", &attention_at_once);
  m.impl("attend", &attend);
  m.impl("attend_backward", &attend_backward);
  m.impl("max_pool", &pooled_maxima);
  m.impl("max_pool_backward", &pooled_maxima_backward);
  m.impl("column_sums", &summed_columns);
  m.impl("tile_terms", &tile_terms);
  m.impl("tile_pack", &tile_pack);
  m.impl("tile_linear", &tile_linear);
  m.impl("tile_mlp", &tile_mlp);
  m.impl("tile_matmul", &tile_matmul);
  m.impl("tile_gelu_matmul", &tile_gelu_matmul);
  m.impl("tile_slope_matmul", &tile_slope_matmul);
}

}  // namespace mvitv2
