// Excitation backpropagation (Zhang et al., "Top-down neural attention by excitation
// backprop", ECCV 2016) as gradients: operators are rewritten so that autograd propagates
// winning probabilities in place of gradients. What they compute stays the same.
//
// The z-plus rule (equations 1 and 5 there): an input a_j of a layer with weights w_ij
// receives from the outputs i
//   P(a_j) = sum_i a_j w_ij+ / (sum_k a_k w_ik+) P(a_i),   w+ = max(w, 0).

#include "internal.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

namespace prism {
namespace {

// Makes a quotient of two zeros zero.
constexpr double EPSILON = 1e-20;

// The values of y, without its history.
at::Tensor without_history(const at::Tensor &y) { return y.variable_data(); }

// Forward x+. Backward x+ p: the factor a_j of the z-plus rule.
struct Positive : Function<Positive> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &x) {
    at::Tensor positive = x.clamp_min(0);
    context->save_for_backward({positive});
    return positive;
  }
  static tensor_list backward(AutogradContext *context, const tensor_list &p) {
    return {context->get_saved_variables()[0] * p[0]};
  }
};

// Forward y. Backward sign p / excitation, to the excitation: the same layer on positive
// inputs and weights, which is the denominator of the z-plus rule.
struct Winner : Function<Winner> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &y,
                            const at::Tensor &excitation, double sign) {
    context->save_for_backward({excitation});
    context->saved_data["sign"] = sign;
    return without_history(y);
  }
  static tensor_list backward(AutogradContext *context, const tensor_list &p) {
    const at::Tensor share = p[0] / (context->get_saved_variables()[0] + EPSILON);
    return {p[0], share * context->saved_data["sign"].toDouble(), at::Tensor()};
  }
};

// Forward y. Backward p, to x.
struct Pass : Function<Pass> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &y) {
    context->saved_data["sizes"] = x.sizes().vec();
    return without_history(y);
  }
  static tensor_list backward(AutogradContext *context, const tensor_list &p) {
    return {at::sum_to(p[0], context->saved_data["sizes"].toIntVector()), at::Tensor()};
  }
};

// Forward y, the sum of a and b. Backward share_a p to a and share_b p to b.
struct Split : Function<Split> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &a, const at::Tensor &b,
                            const at::Tensor &share_a, const at::Tensor &share_b,
                            const at::Tensor &y) {
    context->save_for_backward({share_a, share_b});
    context->saved_data["sizes_a"] = a.sizes().vec();
    context->saved_data["sizes_b"] = b.sizes().vec();
    return without_history(y);
  }
  static tensor_list backward(AutogradContext *context, const tensor_list &p) {
    const auto shares = context->get_saved_variables();
    const auto part = [&](const at::Tensor &share, const char *sizes) {
      return at::sum_to(share * p[0], context->saved_data[sizes].toIntVector());
    };
    return {part(shares[0], "sizes_a"), part(shares[1], "sizes_b"), at::Tensor(), at::Tensor(),
            at::Tensor()};
  }
};

// a+ / (a+ + b+) of the weighted terms of a sum.
at::Tensor positive_share(const at::Tensor &a, const at::Tensor &b, const at::Scalar &weight_a,
                          const at::Scalar &weight_b) {
  const at::Tensor first = (a.detach() * weight_a).clamp_min(0);
  return first / (first + (b.detach() * weight_b).clamp_min(0) + EPSILON);
}

TORCH_LIBRARY_FRAGMENT(prism, library) {
  using at::Tensor;
  library.def("positive(Tensor x) -> Tensor", [](const Tensor &x) { return Positive::apply(x); });
  library.def("winner(Tensor y, Tensor excitation, float sign) -> Tensor",
              [](const Tensor &y, const Tensor &excitation, double sign) {
                return Winner::apply(y, excitation, sign);
              });
  library.def("pass_to(Tensor x, Tensor y) -> Tensor",
              [](const Tensor &x, const Tensor &y) { return Pass::apply(x, y); });
  library.def("positive_share(Tensor a, Tensor b, Scalar weight_a, Scalar weight_b) -> Tensor",
              &positive_share);
  library.def("split(Tensor a, Tensor b, Tensor share_a, Tensor share_b, Tensor y) -> Tensor",
              [](const Tensor &a, const Tensor &b, const Tensor &share_a, const Tensor &share_b,
                 const Tensor &y) { return Split::apply(a, b, share_a, share_b, y); });
}

bool is_transposed(const Node *node) {
  const std::string name = node->kind().toUnqualString();
  if (name.rfind("conv_transpose", 0) == 0)
    return true;
  if (name != "_convolution" && name != "convolution")
    return false;
  const auto transposed = torch::jit::toIValue(node->namedInput("transposed"));
  return transposed && transposed->toBool();
}

// Multiplies the weights of each output channel by its sign.
Value *with_signs(Graph &graph, const Node *node, Value *weight, const at::Tensor &signs) {
  const at::Tensor values = constant_tensor(weight);
  TORCH_CHECK(values.defined(), "a batch-norm follows a layer whose weights are computed");
  const int64_t channels = signs.numel();
  at::Tensor signed_weight;
  if (is_transposed(node)) { // [in, out / groups, ...]
    const int64_t groups = torch::jit::toIValue(node->namedInput("groups"))->toInt();
    signed_weight =
        (values.reshape({groups, values.size(0) / groups, channels / groups, -1}) *
         signs.view({groups, 1, channels / groups, 1}))
            .reshape(values.sizes());
  } else if (values.size(0) == channels && node->hasNamedInput("weight")) { // [out, ...]
    std::vector<int64_t> shape(static_cast<size_t>(values.dim()), 1);
    shape[0] = channels;
    signed_weight = values * signs.view(shape);
  } else { // of a matrix product, [in, out]
    signed_weight = values * signs;
  }
  return graph.insertConstant(signed_weight);
}

// `node` on the positive part of its input and of its weights (of the negated weights, if
// `sign` is -1), without its bias.
Value *excitatory_twin(Graph &graph, Node *node, size_t input, Value *positive_input,
                       const at::Tensor &signs, int64_t sign) {
  Node *twin = graph.createClone(node, [](Value *value) { return value; });
  graph.insertNode(twin);
  torch::jit::WithInsertPoint before(twin);
  const auto &arguments = node->schema().arguments();
  for (size_t i = 0; i < node->inputs().size(); i++) {
    const std::string &name = arguments.at(i).name();
    if (i == input) {
      twin->replaceInput(i, positive_input);
    } else if (name == "bias") {
      twin->replaceInput(i, graph.insertConstant(c10::IValue()));
    } else if (name == "beta") { // of addmm, whose first input is the bias
      twin->replaceInput(i, graph.insertConstant(0));
    } else if (is_tensor(node->input(i)) && !(node->kind() == c10::aten::addmm && i == 0)) {
      Value *weight = node->input(i);
      if (signs.defined())
        weight = with_signs(graph, node, weight, signs);
      if (sign < 0)
        weight = graph.insert(c10::aten::neg, {weight});
      twin->replaceInput(i, graph.insert(c10::aten::clamp_min, {weight, 0}));
    }
  }
  return twin->output();
}

// The signs of a batch-norm's scale, [C], undefined if it has none. Folded into the layer
// before it, a batch-norm scales each output channel's weights; the z-plus rule depends on
// the sign alone.
at::Tensor batch_norm_signs(const Node *batch_norm) {
  const at::Tensor scale = constant_tensor(batch_norm->namedInput("weight"));
  return scale.defined() ? scale.detach().sign() : scale;
}

} // namespace

void apply_rule(Graph &graph, const std::vector<Value *> &values, const prism_node_rule &rule) {
  Node *node = values.at(static_cast<size_t>(rule.value))->node();
  const auto input = static_cast<size_t>(rule.input);
  TORCH_CHECK(input < node->inputs().size(), "an operator has no input ", rule.input);
  Value *y = node->output(0);
  Value *x = node->input(input);
  at::Tensor signs;
  if (rule.batch_norm >= 0)
    signs = batch_norm_signs(values.at(static_cast<size_t>(rule.batch_norm))->node());

  // Before the operator, which may work in place.
  torch::jit::WithInsertPoint before(node);
  const bool contrastive = rule.rule == PRISM_Z_PLUS_CONTRASTIVE;
  Value *positive = nullptr, *other = nullptr, *share_x = nullptr, *share_other = nullptr;
  if (rule.rule == PRISM_Z_PLUS || contrastive) {
    positive = insert(graph, "prism::positive", {x});
  } else if (rule.rule == PRISM_SPLIT_POSITIVE) {
    other = node->input(1);
    Value *one = graph.insertConstant(1);
    Value *alpha = node->inputs().size() > 2 ? node->input(2) : one;
    share_x = insert(graph, "prism::positive_share", {x, other, one, alpha});
    share_other = insert(graph, "prism::positive_share", {other, x, alpha, one});
  }
  // No gradient goes through the operator itself.
  for (size_t i = 0; i < node->inputs().size(); i++)
    if (is_tensor(node->input(i)) && node->input(i)->node()->kind() != c10::prim::Constant)
      node->replaceInput(i, graph.insert(c10::aten::detach, {node->input(i)}));

  torch::jit::WithInsertPoint behind(node->next());
  const std::vector<torch::jit::Use> uses = y->uses();
  Value *result = y;
  if (positive)
    result = insert(graph, "prism::winner",
                    {y, excitatory_twin(graph, node, input, positive, signs, 1), 1.0});
  if (contrastive)
    result = insert(graph, "prism::winner",
                    {result, excitatory_twin(graph, node, input, positive, signs, -1), -1.0});
  if (rule.rule == PRISM_PASS)
    result = insert(graph, "prism::pass_to", {x, y});
  if (rule.rule == PRISM_SPLIT_POSITIVE)
    result = insert(graph, "prism::split", {x, other, share_x, share_other, y});
  TORCH_CHECK(result != y, "there is no backpropagation rule ", rule.rule);
  for (const auto &use : uses)
    use.user->replaceInput(use.offset, result);
}

} // namespace prism
