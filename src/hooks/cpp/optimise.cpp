// Faster graphs: batch-norms, sums and products folded into convolutions, oneDNN's memory
// layouts on the CPU, bfloat16 and float16.

#include "internal.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/frozen_graph_optimizations.h>
#include <torch/csrc/jit/passes/frozen_ops_to_mkldnn.h>
#include <torch/csrc/jit/passes/remove_mutation.h>
#include <torch/library.h>

#include <algorithm>

namespace prism {
namespace {

// A fully connected layer by oneDNN. MKL, libtorch's choice, first copies the weights on one
// core: 51 instead of 19 ms for 4 images through vgg16.
at::Tensor linear(const at::Tensor &input, const at::Tensor &weight,
                  const std::optional<at::Tensor> &bias) {
  using Linear = at::Tensor(const at::Tensor &, const at::Tensor &,
                            const std::optional<at::Tensor> &, std::string_view,
                            c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto onednn =
      c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  const auto is_dense = [](const at::Tensor &tensor) {
    return tensor.is_cpu() && tensor.layout() == at::kStrided && tensor.scalar_type() == at::kFloat;
  };
  const bool takes = onednn && is_dense(input) && is_dense(weight) && weight.is_contiguous() &&
                     weight.dim() == 2 && input.dim() > 1 && input.numel() > 0 &&
                     input.size(-1) == weight.size(1);
  if (!takes)
    return at::linear(input, weight, bias);
  return onednn->typed<Linear>().call(input, weight, bias, "none",
                                     c10::List<std::optional<at::Scalar>>(), "");
}

TORCH_LIBRARY_FRAGMENT(prism, library) {
  // With a schema, libtorch's passes know that an operator writes nothing and aliases nothing.
  library.def("linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", &linear);
  library.def("adaptive_avg_pool2d(Tensor input, int[2] size) -> Tensor",
              &at::adaptive_avg_pool2d);
  library.def("avg_pool2d(Tensor input, int[2] kernel, int[2] stride, int[2] padding, "
              "bool ceil, bool count_padding, int? divisor) -> Tensor",
              &at::avg_pool2d);
  library.def("max_pool2d(Tensor input, int[2] kernel, int[2] stride, int[2] padding, "
              "int[2] dilation, bool ceil) -> Tensor",
              &at::max_pool2d);
  library.def("clamp(Tensor input, Scalar? min=None, Scalar? max=None) -> Tensor",
              [](const at::Tensor &input, const std::optional<at::Scalar> &min,
                 const std::optional<at::Scalar> &max) { return at::clamp(input, min, max); });
}

// An operator that asks for float32 by name (mean(dtype), to) asks for `wanted`.
void ask_for(Graph &graph, Node *node, at::ScalarType wanted) {
  const auto *schema = node->maybeSchema();
  if (!schema || !node->hasNamedInput("dtype"))
    return;
  const auto at = static_cast<size_t>(*schema->argumentIndexWithName("dtype"));
  const auto kind = torch::jit::toIValue(node->input(at));
  if (kind && kind->isInt() && kind->toInt() == static_cast<int64_t>(at::kFloat)) {
    torch::jit::WithInsertPoint here(node);
    node->replaceInput(at, graph.insertConstant(wanted));
  }
}

// Rounds the weights and the images.
void round_to(Graph &graph, size_t batch_input, at::ScalarType wanted) {
  for (Node *node : all_nodes(graph.block())) {
    ask_for(graph, node, wanted);
    if (node->kind() != c10::prim::Constant)
      continue;
    const at::Tensor weights = constant_tensor(node->output());
    if (!weights.defined() || weights.scalar_type() != at::kFloat)
      continue;
    torch::jit::WithInsertPoint here(node);
    node->output()->replaceAllUsesWith(graph.insertConstant(weights.to(wanted)));
  }
  Value *images = graph.inputs()[batch_input];
  torch::jit::WithInsertPoint here(*graph.nodes().begin());
  Value *rounded = graph.insert(c10::aten::to, {images, wanted});
  images->replaceAllUsesAfterNodeWith(rounded->node(), rounded);
}

// Whether every number of a constant argument is `wanted`.
bool all_are(const Value *value, int64_t wanted) {
  const auto numbers = constant_integers(value);
  return numbers && std::all_of(numbers->begin(), numbers->end(),
                                [&](int64_t number) { return number == wanted; });
}

// Whether oneDNN computes a pooling as libtorch does. libtorch's pass gives it all poolings.
// It refuses most of the others at run time, but where windows reach beyond the padded edge
// it divides by another area.
bool pools_as_onednn(const Node *node) {
  if (node->kind() == c10::aten::adaptive_avg_pool2d) // other sizes depend on the input's
    return all_are(node->input(1), 1);
  if (node->kind() == c10::aten::max_pool2d)
    return all_are(node->namedInput("dilation"), 1);
  const bool divides = node->namedInput("divisor_override")->mustBeNone();
  return divides && (all_are(node->namedInput("ceil_mode"), 0) ||
                     all_are(node->namedInput("count_include_pad"), 0));
}

// Computes a node's output by our operator of the same name.
void replace_by_own(Graph &graph, Node *node) {
  torch::jit::WithInsertPoint here(node);
  const std::vector<torch::jit::NamedValue> inputs(node->inputs().begin(), node->inputs().end());
  const std::string name = std::string("prism::") + node->kind().toUnqualString();
  node->output()->replaceAllUsesWith(insert(graph, name.c_str(), inputs));
  node->destroy(); // the pass would take it although nothing reads it
}

// libtorch's pass refuses a whole graph for a clamp with one bound, or with integers as bounds.
bool onednn_refuses(const Node *node) {
  if (!node->matches("aten::clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor"))
    return false;
  const auto inputs = node->inputs();
  return std::any_of(inputs.begin() + 1, inputs.end(), [](const Value *bound) {
    const auto number = torch::jit::toIValue(bound);
    return !number || !number->isDouble();
  });
}

// Hides the other poolings, and some clamps, from the pass, behind names that it does not know.
void hide_from_onednn(Graph &graph) {
  for (Node *node : all_nodes(graph.block())) {
    const auto kind = node->kind();
    const bool pools = kind == c10::aten::adaptive_avg_pool2d || kind == c10::aten::avg_pool2d ||
                       kind == c10::aten::max_pool2d;
    if ((pools && node->outputs().size() == 1 && !pools_as_onednn(node)) || onednn_refuses(node))
      replace_by_own(graph, node);
  }
}

} // namespace

// libtorch's passes throw at some graphs (padding given as a word, for example). Such a
// graph runs as it is.
Optimised optimised(const std::shared_ptr<Graph> &plain, size_t batch_input, bool on_cpu,
                    std::optional<at::ScalarType> rounding) {
  std::string failure;
  auto graph = plain->copy();
  const bool onednn = on_cpu && !rounding;
  try {
    torch::jit::RemoveTensorMutation(graph);
    torch::jit::OptimizeFrozenGraph(graph, true);
    if (onednn) {
      hide_from_onednn(*graph);
      torch::jit::ConvertFrozenOpsToMKLDNN(graph);
    }
  } catch (const c10::Error &error) {
    failure = error.what_without_backtrace();
    graph = plain->copy();
  } catch (const std::exception &error) {
    failure = error.what();
    graph = plain->copy();
  }
  if (onednn)
    for (Node *node : all_nodes(graph->block()))
      if (node->matches("aten::linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"))
        replace_by_own(*graph, node);
  if (rounding)
    round_to(*graph, batch_input, *rounding);
  torch::jit::EliminateDeadCode(graph);
  return {graph, failure};
}

} // namespace prism
