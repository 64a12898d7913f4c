// The shape of every tensor of a graph and the value of every integer, found on libtorch's meta
// device, which has shapes and no values. A forward pass on zeros would take as long as one image.

#include "internal.h"

#include <ATen/core/grad_mode.h>
#include <ATen/native/utils/ParamUtils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/runtime/custom_operator.h>
#include <torch/library.h>

namespace prism {
namespace {

using MaybeTensor = const std::optional<at::Tensor> &;

// libtorch has no meta kernels for the operators below; PyTorch has them in Python.

at::Tensor meta_convolution(const at::Tensor &input, const at::Tensor &weight, MaybeTensor,
                            at::IntArrayRef strides, at::IntArrayRef paddings,
                            at::IntArrayRef dilations, bool transposed,
                            at::IntArrayRef output_paddings, int64_t groups, bool, bool, bool, bool) {
  const int64_t dimensions = weight.dim() - 2;
  const int64_t channels = transposed ? weight.size(0) : weight.size(1) * groups;
  TORCH_CHECK(input.dim() == weight.dim() && input.size(1) == channels, "a convolution with weights ",
              weight.sizes(), " cannot take ", input.sizes());
  const auto expand = [&](at::IntArrayRef values, const char *name) {
    return at::native::expand_param_if_needed(values, name, dimensions);
  };
  const auto stride = expand(strides, "stride"), padding = expand(paddings, "padding"),
             dilation = expand(dilations, "dilation");
  std::vector<int64_t> size{input.size(0), transposed ? weight.size(1) * groups : weight.size(0)};
  for (size_t i = 0; i < stride.size(); i++) {
    const auto axis = static_cast<int64_t>(i) + 2;
    const int64_t window = dilation[i] * (weight.size(axis) - 1) + 1;
    const int64_t room = input.size(axis) + 2 * padding[i] - window;
    TORCH_CHECK(stride[i] > 0 && (transposed || room >= 0), "a convolution with weights ",
                weight.sizes(), " and stride ", strides, " cannot take ", input.sizes());
    size.push_back(transposed ? (input.size(axis) - 1) * stride[i] - 2 * padding[i] + window +
                                    expand(output_paddings, "output_padding")[i]
                              : room / stride[i] + 1);
  }
  return at::empty(size, input.options());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> meta_batch_norm(const at::Tensor &input, MaybeTensor,
                                                               MaybeTensor, MaybeTensor mean,
                                                               MaybeTensor, bool, double, double) {
  const bool fits = !mean || !mean->defined() || mean->numel() == input.size(1);
  TORCH_CHECK(fits, "a batch-norm of ", mean->numel(), " channels cannot take ", input.sizes());
  const at::Tensor none = at::empty({0}, input.options());
  return {at::empty_like(input), none, none};
}

at::Tensor meta_adaptive_pooling(const at::Tensor &input, at::IntArrayRef size) {
  TORCH_CHECK(input.dim() > 2 && size.size() == 2, "a pooling to ", size, " cannot take ",
              input.sizes());
  auto sizes = input.sizes().vec();
  std::copy(size.begin(), size.end(), sizes.end() - 2);
  return at::empty(sizes, input.options());
}

TORCH_LIBRARY_IMPL(aten, Meta, library) {
  library.impl("_convolution", &meta_convolution);
  library.impl("native_batch_norm", &meta_batch_norm);
  library.impl("_adaptive_avg_pool2d", &meta_adaptive_pooling);
  const auto same_size = [](const at::Tensor &input) { return at::empty_like(input); };
  library.impl("relu", same_size);
  library.impl("hardswish", same_size);
  library.impl("hardtanh", [](const at::Tensor &input, const at::Scalar &, const at::Scalar &) {
    return at::empty_like(input);
  });
}

// The sizes of a value, or [-1] if it holds no tensor, such as the result of a branch that
// was not taken (prim::Uninitialized).
const torch::jit::RegisterOperators sizes_or_none({torch::jit::Operator(
    "prism::sizes(Any value) -> int[]",
    [](Stack &stack) {
      const IValue value = torch::jit::pop(stack);
      const bool tensor = value.isTensor() && value.toTensor().defined();
      torch::jit::push(stack, tensor ? value.toTensor().sizes().vec() : std::vector<int64_t>{-1});
    },
    c10::AliasAnalysisKind::FROM_SCHEMA)});

Stack run_on(const std::shared_ptr<Graph> &graph, const prism_graph &source, at::IntArrayRef shape,
             at::Device device) {
  at::NoGradGuard no_grad;
  Stack stack = stack_for(source.fixed_inputs, source.batch_input,
                          at::zeros(shape, at::TensorOptions().device(device)), true);
  torch::jit::InterpreterState(torch::jit::Code(graph, "prism_sizes")).run(stack);
  return stack;
}

// Moves a graph's weights to the meta device. Single numbers go to the CPU, as their value may be
// asked for; there they may be combined with tensors of any device.
void to_meta(Graph &graph) {
  for (Node *node : all_nodes(graph.block())) {
    // Attributes that a run sets would be found by the next one.
    TORCH_CHECK(node->kind() != c10::prim::SetAttr && node->kind() != c10::prim::GetAttr);
    if (node->kind() == c10::prim::Constant && node->hasAttribute(c10::attr::value) &&
        node->kindOf(c10::attr::value) == torch::jit::AttributeKind::t) {
      const at::Tensor &tensor = node->t(c10::attr::value);
      node->t_(c10::attr::value, tensor.to(tensor.dim() > 0 ? c10::kMeta : c10::kCPU));
    }
  }
}

} // namespace

std::vector<Facts> facts_of_values(const prism_graph &source, at::IntArrayRef shape,
                                   at::Device device) {
  auto graph = source.graph->copy();
  const auto values = numbered_values(*graph);
  erase_outputs(*graph);
  std::vector<size_t> read;
  std::vector<Value *> facts;
  for (size_t i = 0; i < values.size(); i++) {
    const bool integer = values[i]->type()->isSubtypeOf(*c10::IntType::get());
    if (!(is_tensor(values[i]) || integer) || values[i]->node()->kind() == c10::prim::Constant)
      continue;
    torch::jit::WithInsertPoint here(after(*graph, values[i]));
    read.push_back(i);
    facts.push_back(integer ? values[i] : insert(*graph, "prism::sizes", {values[i]}));
  }
  for (Value *fact : facts)
    graph->registerOutput(fact);
  torch::jit::EliminateDeadCode(graph);

  Stack stack;
  try {
    auto on_meta = graph->copy();
    to_meta(*on_meta);
    stack = run_on(on_meta, source, shape, c10::kMeta);
  } catch (const std::exception &) { // an operator needs values, or the network refuses the shape
    stack = run_on(graph, source, shape, device);
  }
  std::vector<Facts> result(values.size());
  for (size_t i = 0; i < read.size(); i++) {
    if (stack.at(i).isInt())
      result[read[i]].integer = stack.at(i).toInt();
    else if (!stack.at(i).isIntList())
      continue; // a branch that was not taken makes no number
    else if (auto size = stack.at(i).toIntVector(); size != std::vector<int64_t>{-1})
      result[read[i]].sizes = std::move(size);
  }
  return result;
}

} // namespace prism
