// What all operators share: types, and the choice between float32 and bfloat16.
#pragma once

#include <ATen/ATen.h>

#include "vectors.h"

namespace mvitv2 {
namespace {

using at::Tensor;
using Ints = at::IntArrayRef;
using Maybe = std::optional<Tensor>;

template <typename Launch>
void dispatch(const Tensor& x, Launch launch) {
  TORCH_CHECK(x.device().is_cpu(), "mvitv2: the C++ operators are for the CPU, got a tensor on ", x.device());
  if (x.scalar_type() == at::kFloat) return launch(float());
  TORCH_CHECK(x.scalar_type() == at::kBFloat16, "mvitv2: the C++ operators take float32 and bfloat16, got ",
              x.scalar_type());
  launch(BF16());
}

// Channels side by side, which is all that the kernels ask.
Tensor dense_channels(const Tensor& x) { return x.stride(-1) == 1 && !x.is_conj() ? x : x.contiguous(); }

}  // namespace
}  // namespace mvitv2
