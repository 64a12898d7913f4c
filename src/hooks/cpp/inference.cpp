// What a file has built in for its training or for another machine: training mode, devices,
// number formats. A file traced in training mode has its switches as constants.

#include "internal.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>

namespace prism {
namespace {

// The position of an argument that the node passes.
std::optional<size_t> argument_at(const Node *node, const char *name) {
  const auto *schema = node->maybeSchema();
  const auto index = schema ? schema->argumentIndexWithName(name) : std::nullopt;
  if (!index || static_cast<size_t>(*index) >= node->inputs().size())
    return std::nullopt;
  return static_cast<size_t>(*index);
}

void replace_by_constant(Graph &graph, Node *node, size_t at, const IValue &value) {
  torch::jit::WithInsertPoint here(node);
  node->replaceInput(at, graph.insertConstant(value));
}

bool contains(const Node *node, const char *part) {
  return std::string(node->kind().toQualString()).find(part) != std::string::npos;
}

// The position of an operator's switch for training, unless it is off.
std::optional<size_t> training_switch(const Node *node) {
  for (const char *name : {"train", "training", "use_input_stats"})
    if (const auto at = argument_at(node, name)) {
      const auto value = torch::jit::toIValue(node->input(*at));
      const bool off = value && value->isBool() && !value->toBool();
      return off ? std::nullopt : at;
    }
  return std::nullopt;
}

bool has_running_statistics(const Node *node) {
  const auto is_there = [&](const char *name) {
    const auto at = argument_at(node, name);
    return at && is_tensor(node->input(*at));
  };
  return is_there("running_mean") && is_there("running_var");
}

// The operator in inference mode, if it has one.
bool switch_off(Graph &graph, Node *node) {
  if (const auto at = training_switch(node)) {
    if (contains(node, "norm") && !has_running_statistics(node))
      return false;
    replace_by_constant(graph, node, *at, false);
    return true;
  }
  const auto at = argument_at(node, "dropout_p"); // attention
  const auto rate = at ? torch::jit::toIValue(node->input(*at)) : std::nullopt;
  if (!rate || !rate->isDouble() || rate->toDouble() == 0)
    return false;
  replace_by_constant(graph, node, *at, 0.0);
  return true;
}

std::optional<double> constant_number(const Value *value) {
  const auto constant = torch::jit::toIValue(value);
  if (constant && constant->isTensor() && constant->toTensor().numel() == 1)
    return constant->toTensor().item<double>();
  if (constant && (constant->isDouble() || constant->isInt()))
    return constant->toScalar().toDouble();
  return std::nullopt;
}

// Stochastic depth keeps a branch with probability p and divides by p. Its mean, which
// inference takes, is p / p.
bool keep_every_branch(Graph &graph, Node *node) {
  if (node->kind() != c10::Symbol::aten("bernoulli_"))
    return false;
  const auto at = argument_at(node, "p");
  const auto p = at ? constant_number(node->input(*at)) : std::nullopt;
  const auto divides = [&](const torch::jit::Use &use) {
    return contains(use.user, "aten::div") && use.offset == 0 &&
           constant_number(use.user->input(1)) == p;
  };
  const auto &uses = node->output()->uses();
  if (!p || std::none_of(uses.begin(), uses.end(), divides))
    return false;
  torch::jit::WithInsertPoint here(node);
  Value *kept = graph.insert(c10::aten::full_like, {node->input(0), *p});
  kept->node()->copyMetadata(node);
  node->output()->replaceAllUsesWith(kept);
  node->destroy();
  return true;
}

bool is_wider_or_narrower(at::ScalarType kind) {
  return kind == at::kHalf || kind == at::kBFloat16 || kind == at::kDouble;
}

// Asks for float32 in place of another floating-point format.
void ask_for_float(Graph &graph, Node *node) {
  const auto at = argument_at(node, "dtype");
  const auto kind = at ? torch::jit::toIValue(node->input(*at)) : std::nullopt;
  if (kind && kind->isInt() && is_wider_or_narrower(static_cast<at::ScalarType>(kind->toInt())))
    replace_by_constant(graph, node, *at, static_cast<int64_t>(at::kFloat));
}

// Traced convolutions have cuDNN's switch for TF32 as a constant (see device.cpp).
void ask_for_full_float(Graph &graph, Node *node) {
  if (const auto at = argument_at(node, "allow_tf32"))
    replace_by_constant(graph, node, *at, false);
}

// An operator that makes a tensor from none, such as arange, takes the CPU if no device is named.
void name_device(Graph &graph, Node *node, at::Device device) {
  const auto at = argument_at(node, "device");
  const auto inputs = node->inputs();
  if (at && node->input(*at)->mustBeNone() && std::none_of(inputs.begin(), inputs.end(), is_tensor))
    replace_by_constant(graph, node, *at, device);
}

// Replaces a device, and a move to one, by `device`.
void move_to(Graph &graph, Node *node, at::Device device) {
  if (node->outputs().size() != 1)
    return;
  const auto constant = torch::jit::toIValue(node->output());
  const bool is_device = constant && constant->isDevice() && !constant->toDevice().is_meta();
  torch::jit::WithInsertPoint here(node);
  if (is_device || node->kind() == c10::Symbol::aten("device"))
    node->output()->replaceAllUsesWith(graph.insertConstant(device));
  else if (node->kind() == c10::Symbol::aten("cuda") || node->kind() == c10::Symbol::aten("cpu"))
    node->output()->replaceAllUsesWith(node->input(0));
}

bool is_counter(const Value *value) {
  return value->node()->kind() == c10::prim::GetAttr &&
         value->node()->s(c10::attr::name) == "num_batches_tracked";
}

// A batch-norm counts the batches of its training.
void stop_counting(Node *node) {
  if (!is_in_place(node) || !is_counter(node->input(0)))
    return;
  node->output(0)->replaceAllUsesWith(node->input(0));
  node->destroy();
}

bool is_quantised(const Node *node) {
  if (!contains(node, "quantized::"))
    return false;
  // These take and give floating-point numbers; only their weights are integers.
  return !contains(node, "quantized::linear_dynamic") &&
         !contains(node, "quantized::linear_relu_dynamic") &&
         !contains(node, "quantized::linear_prepack");
}

} // namespace

bool uses_batch_statistics(const Node *node) {
  return contains(node, "batch_norm") && training_switch(node).has_value();
}

bool may_vary(const Node *node) {
  // Memory that is not set may hold anything.
  static const std::vector<std::string> others{
      "aten::empty",      "aten::empty_like",  "aten::new_empty",   "aten::exponential_",
      "aten::cauchy_",    "aten::geometric_",  "aten::log_normal_", "aten::multinomial",
      "aten::poisson"};
  const std::string name = node->kind().toQualString();
  return node->isNondeterministic() || contains(node, "aten::rand") ||
         contains(node, "aten::bernoulli") || contains(node, "aten::normal") ||
         contains(node, "aten::uniform") ||
         std::find(others.begin(), others.end(), name) != others.end();
}

void to_this_machine(Graph &graph, at::Device device) {
  for (Node *node : all_nodes(graph.block())) {
    TORCH_CHECK(!is_quantised(node), "quantised operator ", node->kind().toQualString());
    name_device(graph, node, device);
    move_to(graph, node, device);
    ask_for_float(graph, node);
    ask_for_full_float(graph, node);
    stop_counting(node);
  }
}

void to_float(Graph &graph) {
  for (Node *node : all_nodes(graph.block())) {
    if (node->kind() != c10::prim::Constant || node->outputs().empty())
      continue;
    const at::Tensor tensor = constant_tensor(node->output());
    // A single double does not widen what it is combined with.
    const bool is_scalar = tensor.defined() && tensor.dim() == 0 && tensor.scalar_type() == at::kDouble;
    if (!tensor.defined() || is_scalar || !is_wider_or_narrower(tensor.scalar_type()))
      continue;
    torch::jit::WithInsertPoint here(node);
    node->output()->replaceAllUsesWith(graph.insertConstant(tensor.to(at::kFloat)));
  }
}

std::vector<std::string> to_inference(Graph &graph) {
  std::vector<std::string> changed;
  for (Node *node : all_nodes(graph.block())) {
    if (!node->kind().is_aten())
      continue;
    std::string name = node->kind().toUnqualString();
    name.erase(name.find_last_not_of('_') + 1);
    if (switch_off(graph, node))
      changed.push_back(name);
    else if (keep_every_branch(graph, node))
      changed.push_back("stochastic depth");
  }
  return changed;
}

std::vector<int64_t> built_in_batches(Graph &graph) {
  std::vector<int64_t> found;
  for (Node *node : all_nodes(graph.block()))
    for (const char *name : {"size", "shape"}) {
      const auto at = argument_at(node, name);
      if (!at)
        continue;
      std::optional<IValue> first;
      const Value *sizes = node->input(*at);
      if (const auto constant = torch::jit::toIValue(sizes);
          constant && constant->isIntList() && !constant->toIntVector().empty())
        first = constant->toIntVector()[0];
      else if (sizes->node()->kind() == c10::prim::ListConstruct && !sizes->node()->inputs().empty())
        first = torch::jit::toIValue(sizes->node()->input(0));
      if (first && first->isInt() && first->toInt() > 1 &&
          std::find(found.begin(), found.end(), first->toInt()) == found.end())
        found.push_back(first->toInt());
    }
  return found;
}

} // namespace prism
