// Files of older versions ask before each division whether its tensors hold floating-point
// numbers. The answer is known here, so the branch goes, and with it what hides the division
// from the analysis of the graph. The bounds of a clamp become floating-point numbers like what
// it clamps: libtorch's pass for oneDNN takes no others.

#include "internal.h"

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>

#include <algorithm>
#include <unordered_set>

namespace prism {
namespace {

using Floating = std::unordered_set<const Value *>;

// Operators whose result has floating-point numbers if one of their inputs has.
bool keeps_kind(const Node *node) {
  static const std::unordered_set<std::string> kinds{
      "add", "sub", "mul", "div", "pow", "sqrt", "exp", "log", "neg", "abs", "sum", "mean", "amax",
      "relu", "sigmoid", "tanh", "softmax", "log_softmax", "clamp", "clamp_min", "linear", "matmul",
      "bmm", "conv2d", "_convolution", "batch_norm", "layer_norm", "dropout", "avg_pool2d",
      "adaptive_avg_pool2d", "max_pool2d", "adaptive_max_pool2d", "view", "reshape", "flatten",
      "permute", "transpose", "unsqueeze", "squeeze", "select", "slice", "expand", "contiguous",
      "linalg_vector_norm", "gelu", "silu", "hardswish", "hardtanh", "upsample_bilinear2d",
      "upsample_nearest2d", "flip", "rot90"};
  std::string name = node->kind().toUnqualString();
  if (name.size() > 1 && name.back() == '_')
    name.pop_back();
  return node->kind().is_aten() && kinds.contains(name);
}

void add_if_floating(const Node *node, Floating &floating) {
  if (const at::Tensor constant = node->outputs().size() == 1 ? constant_tensor(node->output()) : at::Tensor();
      constant.defined() && constant.is_floating_point())
    floating.insert(node->output());
  const auto has = [&](const Value *value) { return floating.contains(value); };
  const auto inputs = node->inputs();
  if (keeps_kind(node) && std::any_of(inputs.begin(), inputs.end(), has))
    for (const Value *output : node->outputs())
      floating.insert(output);
  if (node->kind() == c10::prim::If)
    for (size_t i = 0; i < node->outputs().size(); i++)
      if (has(node->blocks()[0]->outputs()[i]) && has(node->blocks()[1]->outputs()[i]))
        floating.insert(node->outputs()[i]);
}

bool is_clamp(const Node *node) {
  static const std::unordered_set<std::string> names{"clamp",    "clamp_",    "clip",     "clip_",
                                                     "hardtanh", "hardtanh_"};
  return node->kind().is_aten() && names.contains(node->kind().toUnqualString());
}

// torch.clamp(x, 0, 6) becomes torch.clamp(x, 0.0, 6.0).
void make_bounds_floating(Graph &graph, Node *node) {
  torch::jit::WithInsertPoint here(node);
  for (size_t at = 1; at < node->inputs().size(); at++)
    if (const auto bound = torch::jit::toIValue(node->input(at)); bound && bound->isInt())
      node->replaceInput(at, graph.insertConstant(static_cast<double>(bound->toInt())));
}

void visit(Graph &graph, Block *block, Floating &floating) {
  for (Node *node : block->nodes()) {
    for (Block *inner : node->blocks())
      visit(graph, inner, floating);
    add_if_floating(node, floating);
    if (node->kind() == c10::aten::is_floating_point && floating.contains(node->input(0))) {
      torch::jit::WithInsertPoint here(node);
      node->output()->replaceAllUsesWith(graph.insertConstant(true));
    }
    if (is_clamp(node) && floating.contains(node->input(0)))
      make_bounds_floating(graph, node);
  }
}

} // namespace

void settle_floating_point(std::shared_ptr<Graph> &graph, const Value *images) {
  Floating floating{images};
  visit(*graph, graph->block(), floating);
  torch::jit::ConstantPropagation(graph);
  torch::jit::EliminateDeadCode(graph);
}

} // namespace prism
