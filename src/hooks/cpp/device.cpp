// A device before its first use.

#include "internal.h"

#include <ATen/Context.h>
#include <ATen/ops/ones.h>

namespace prism {

void prepare(at::Device device) {
  if (device.is_cpu())
    return;
  // By default cuDNN rounds the float32 inputs of convolutions to 10 bits of mantissa (TF32):
  // errors of 1e-3 that nobody asked for.
  at::globalContext().setAllowTF32CuDNN(false);
  // The first kernel shows whether this libtorch has code for the GPU, and whether it has memory.
  const double two = at::ones({1}, at::TensorOptions().device(device)).add(1).item<double>();
  TORCH_CHECK(two == 2, "it computes 1 + 1 = ", two);
}

} // namespace prism
