// Questions to a graph, and small edits of it.

#include "internal.h"

#include <torch/csrc/jit/ir/constants.h>

namespace prism {

std::vector<Value *> numbered_values(Graph &graph) {
  std::vector<Value *> values(graph.inputs().begin(), graph.inputs().end());
  for (Node *node : graph.nodes())
    values.insert(values.end(), node->outputs().begin(), node->outputs().end());
  return values;
}

std::vector<Node *> all_nodes(Block *block) {
  std::vector<Node *> nodes;
  for (Node *node : block->nodes()) {
    nodes.push_back(node);
    for (Block *inner : node->blocks()) {
      const auto nested = all_nodes(inner);
      nodes.insert(nodes.end(), nested.begin(), nested.end());
    }
  }
  return nodes;
}

Node *after(Graph &graph, const Value *value) {
  Node *maker = const_cast<Node *>(value->node());
  return maker->kind() == c10::prim::Param ? *graph.nodes().begin() : maker->next();
}

// A number, a flag, or a list of numbers.
std::optional<std::vector<int64_t>> constant_integers(const Value *value) {
  std::vector<int64_t> numbers;
  const auto append = [&](const std::optional<IValue> &constant) {
    if (!constant || !(constant->isInt() || constant->isBool()))
      return false;
    numbers.push_back(constant->isInt() ? constant->toInt() : constant->toBool());
    return true;
  };
  if (const auto constant = torch::jit::toIValue(value)) {
    if (constant->isIntList())
      return constant->toIntVector();
    return append(constant) ? std::optional(numbers) : std::nullopt;
  }
  if (value->node()->kind() != c10::prim::ListConstruct)
    return std::nullopt;
  for (const Value *item : value->node()->inputs())
    if (!append(torch::jit::toIValue(item)))
      return std::nullopt;
  return numbers;
}

at::Tensor constant_tensor(const Value *value) {
  const auto constant = torch::jit::toIValue(value);
  return constant && constant->isTensor() ? constant->toTensor() : at::Tensor();
}

Value *insert(Graph &graph, const char *name, at::ArrayRef<torch::jit::NamedValue> arguments) {
  return graph.insert(c10::Symbol::fromQualString(name), arguments);
}

void erase_outputs(Graph &graph) {
  for (size_t i = graph.outputs().size(); i-- > 0;)
    graph.eraseOutput(i);
}

Stack stack_for(const std::vector<IValue> &fixed_inputs, size_t batch_input, const at::Tensor &batch,
                bool own_state) {
  Stack stack(fixed_inputs.begin(), fixed_inputs.end());
  if (own_state)
    for (IValue &value : stack)
      value = value.isObject() ? value.deepcopy() : value;
  stack.at(batch_input) = batch;
  return stack;
}

} // namespace prism
