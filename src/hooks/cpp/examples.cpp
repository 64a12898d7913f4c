// What is known of a graph while it is built: the shapes of its values for two example batches, found
// on libtorch's meta device, and the values of constants, which are computed at once.

#include "internal.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>

namespace prism {
namespace {

using Known = std::optional<IValue>;

// A list of constants is made of what it holds.
template <typename Item> Known listed(const Node *node, const Item &item) {
  c10::impl::GenericList list(node->output()->type()->expectRef<c10::ListType>().getElementType());
  for (const Value *input : node->inputs()) {
    const Known value = item(input);
    if (!value)
      return std::nullopt;
    list.push_back(*value);
  }
  return IValue(list);
}

bool is_on_meta(const IValue &value) {
  if (value.isTensorList())
    for (const at::Tensor &tensor : value.toTensorVector())
      if (tensor.is_meta())
        return true;
  return value.isTensor() && value.toTensor().defined() && value.toTensor().is_meta();
}

// Tensors of a value, each as `other` makes it.
template <typename Other> IValue replaced(const IValue &value, const Other &other) {
  if (value.isTensor() && value.toTensor().defined())
    return other(value.toTensor());
  if (!value.isTensorList())
    return value;
  c10::List<at::Tensor> list;
  for (const at::Tensor &tensor : value.toTensorVector())
    list.push_back(other(tensor));
  return list;
}

// Single numbers stay on the CPU, as they may be combined with tensors of any device.
IValue on_meta(const IValue &value) {
  if (value.isDevice())
    return c10::Device(c10::kMeta);
  return replaced(value, [](const at::Tensor &tensor) {
    return tensor.dim() > 0 || tensor.is_meta() ? tensor.to(c10::kMeta) : tensor.to(at::kCPU);
  });
}

// Shapes without values as zeros.
IValue as_zeros(const IValue &value) {
  return replaced(value, [](const at::Tensor &tensor) {
    return tensor.is_meta() ? at::zeros(tensor.sizes(), tensor.options().device(at::kCPU)) : tensor;
  });
}

// Sizes that were computed as tensors keep their values.
IValue without_values(const IValue &value) {
  constexpr int64_t FEW = 64;
  return replaced(value, [](const at::Tensor &tensor) {
    return tensor.numel() <= FEW ? tensor.to(at::kCPU) : tensor.to(c10::kMeta);
  });
}

bool makes_list(const Node *node) { return node->kind() == c10::prim::ListConstruct; }

// A constant, or a list of such.
Known constant_of(const Value *value) {
  if (const auto constant = torch::jit::toIValue(value))
    return constant;
  return makes_list(value->node()) ? listed(value->node(), constant_of) : std::nullopt;
}

// What an operator makes of its inputs, each as `change` makes it; nothing, and the reason, if it cannot.
template <typename Change>
std::optional<Stack> results_of(const Node *node, const Stack &inputs, std::string &reason,
                                const Change &change) {
  try {
    at::NoGradGuard no_grad;
    Stack stack;
    std::transform(inputs.begin(), inputs.end(), std::back_inserter(stack), change);
    node->getOperation()(stack);
    return stack;
  } catch (const std::exception &error) {
    reason = error.what();
    return std::nullopt;
  }
}

IValue as_it_is(const IValue &value) { return value; }

int64_t count_of(const IValue &value) {
  int64_t count = 0;
  if (value.isTensor() && value.toTensor().defined())
    return value.toTensor().numel();
  if (value.isTensorList())
    for (const at::Tensor &tensor : value.toTensorVector())
      count += tensor.numel();
  return count;
}

Known seen(prism_builder &builder, const Value *value, size_t example) {
  auto &known = builder.seen[example];
  if (const auto found = known.find(value); found != known.end())
    return found->second;
  if (const auto constant = torch::jit::toIValue(value))
    return without_values(*constant);
  const auto item = [&](const Value *input) { return seen(builder, input, example); };
  return makes_list(value->node()) ? listed(value->node(), item) : std::nullopt;
}

// What an operator makes of examples. A few operators have no form for the meta device: they get
// zeros, and only the shape of what they make is taken.
std::optional<Stack> example_of(const Node *node, const Stack &inputs, std::string &reason) {
  // A single number has its value; other tensors that are made of none may have any size.
  const auto is_shape = [&](const IValue &input) {
    return is_on_meta(input) || (input.isDevice() && node->kind() != c10::Symbol::aten("scalar_tensor"));
  };
  if (std::none_of(inputs.begin(), inputs.end(), is_shape))
    return results_of(node, inputs, reason, as_it_is);
  if (auto made = results_of(node, inputs, reason, on_meta))
    return made;
  auto made = results_of(node, inputs, reason, as_zeros);
  const auto has_shape = [](const IValue &value) { return value.isTensor() || value.isTensorList(); };
  if (!made || !std::all_of(made->begin(), made->end(), has_shape))
    return std::nullopt;
  for (IValue &value : *made)
    value = replaced(value, [](const at::Tensor &tensor) { return tensor.to(c10::kMeta); });
  return made;
}

} // namespace

void set_examples(prism_builder &builder, at::ArrayRef<std::vector<int64_t>> shapes, int64_t most) {
  TORCH_CHECK(shapes.size() == builder.seen.size() && builder.graph->inputs().size() == 1);
  builder.folds = true;
  builder.left = most;
  for (size_t i = 0; i < shapes.size(); i++)
    builder.seen[i][builder.graph->inputs()[0]] =
        at::empty(shapes[i], at::TensorOptions(at::kFloat).device(c10::kMeta));
}

std::optional<std::vector<IValue>> folded(prism_builder &builder, const Node *node) {
  if (!builder.folds)
    return std::nullopt;
  Stack inputs, shapes;
  for (const Value *input : node->inputs()) {
    const Known constant = constant_of(input);
    if (!constant)
      return std::nullopt;
    inputs.push_back(*constant);
    shapes.push_back(on_meta(*constant));
  }
  // A few bytes can ask for any number of values.
  std::string reason;
  if (const auto made = results_of(node, shapes, reason, as_it_is)) {
    for (const IValue &value : *made)
      builder.left -= count_of(value);
  } else {
    for (const IValue &value : shapes)
      TORCH_CHECK(count_of(value) <= 1'000'000, "makes constants of an unknown size");
  }
  TORCH_CHECK(builder.left >= 0, "makes constants that take far more memory than the file");
  at::NoGradGuard no_grad;
  node->getOperation()(inputs);
  return inputs;
}

void see(prism_builder &builder, const Node *node) {
  if (!builder.folds)
    return;
  for (size_t example = 0; example < builder.seen.size(); example++) {
    Stack inputs;
    for (const Value *input : node->inputs())
      if (const Known value = seen(builder, input, example))
        inputs.push_back(*value);
    if (inputs.size() != node->inputs().size())
      continue;
    if (node->kind() == c10::prim::ListUnpack) {
      if (!inputs[0].isList() || inputs[0].toListRef().size() < node->outputs().size())
        continue;
      inputs = inputs[0].toListRef().vec();
    } else {
      std::string reason;
      auto made = example_of(node, inputs, reason);
      if (!made) {
        if (example == 0 && builder.failure.empty())
          builder.failure = reason;
        continue;
      }
      inputs = std::move(*made);
    }
    for (size_t i = 0; i < node->outputs().size() && i < inputs.size(); i++)
      builder.seen[example][node->output(i)] = inputs[i];
  }
}

bool shape_of(prism_builder &builder, int64_t index, size_t example, prism_shape &shape) {
  const Value *value = builder.values.at(static_cast<size_t>(index)).value;
  const Known known = value ? seen(builder, value, example) : std::nullopt;
  if (!known || !known->isTensor() || !known->toTensor().defined())
    return false;
  const at::Tensor tensor = known->toTensor();
  if (tensor.dim() > PRISM_MOST_DIMENSIONS)
    return false;
  shape.kind = static_cast<int32_t>(tensor.scalar_type());
  shape.dimensions = static_cast<int32_t>(tensor.dim());
  std::copy(tensor.sizes().begin(), tensor.sizes().end(), shape.sizes);
  return true;
}

at::Tensor known_tensor(const prism_builder &builder, int64_t index) {
  const Value *value = builder.values.at(static_cast<size_t>(index)).value;
  const auto constant = value ? torch::jit::toIValue(value) : std::nullopt;
  return constant && constant->isTensor() ? constant->toTensor().to(at::kCPU) : at::Tensor();
}

} // namespace prism
