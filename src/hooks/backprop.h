// Excitation backpropagation (Zhang et al. 2016) as gradients: operators are
// rewritten so that autograd sends winning probabilities where it would send
// gradients, while what they compute stays the same.
#pragma once
#include "shim.h"

#include <torch/csrc/jit/ir/ir.h>

namespace prism {

inline bool is_tensor(const torch::jit::Value *value) {
  return value->type()->isSubtypeOf(*c10::TensorType::get());
}

// Makes the gradient of an operator what `rule` says; `values` are the graph's as
// the rule numbers them.
void redirect(torch::jit::Graph &graph, const std::vector<torch::jit::Value *> &values,
              const prism_rule &rule);

} // namespace prism
