// Graphs that are built operator by operator, for files that hold a network in another form than
// TorchScript.

#include "internal.h"

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <unordered_set>

namespace prism {
namespace {

using Builder = prism_builder;

int64_t add(Builder &builder, Value *value) {
  builder.values.push_back({value, {}});
  return static_cast<int64_t>(builder.values.size()) - 1;
}

// Operators whose names begin with '_' are libtorch's own, and many check nothing. These are
// what exporters write.
const std::unordered_set<std::string> INTERNAL{
    "_adaptive_avg_pool2d", "_convolution",      "_log_softmax", "_native_batch_norm_legit",
    "_softmax",             "_to_copy",          "_unsafe_view", "_native_batch_norm_legit_no_training",
    "_scaled_dot_product_flash_attention_for_cpu"};

// Operators that reach beyond the tensors that they are given: files, standard output, the
// memory behind a tensor, the recorded gradients.
const std::unordered_set<std::string> OUTSIDE{
    "save",       "from_file",         "print",         "warn",     "set_",        "set",
    "set_data",   "resize_",           "resize",        "resize_as_", "resize_as", "resize_as_sparse_",
    "backward",   "record_stream",     "manual_seed",   "seed",     "get_gradients", "hash",
    "retain_grad", "requires_grad_",   "pin_memory",    "sparse_resize_", "sparse_resize_and_clear_"};

// The beginnings of names of operators that draw random numbers.
const std::vector<std::string> DRAWING{"rand",     "normal",  "bernoulli",   "uniform",
                                       "binomial", "poisson", "multinomial", "exponential_"};

void require_allowed(const c10::FunctionSchema &schema) {
  const std::string full = schema.name();
  const std::string name = full.substr(full.find("::") + 2);
  const bool internal = name.front() == '_' && !INTERNAL.contains(name);
  TORCH_CHECK(!internal && !OUTSIDE.contains(name), "its operator ", full,
              " is not one that prism runs");
  const bool draws = std::any_of(DRAWING.begin(), DRAWING.end(), [&](const std::string &start) {
    return name.rfind(start, 0) == 0;
  });
  TORCH_CHECK(!draws, "its operator ", full, " draws random numbers");
  // Its training draws: those that have one are put into inference mode.
  const bool trains = schema.argumentIndexWithName("training").has_value();
  for (const c10::Argument &argument : schema.arguments()) {
    const std::string type = argument.type()->repr_str();
    TORCH_CHECK(!argument.is_out(), "its operator ", full, " writes into a given tensor");
    TORCH_CHECK(trains || type.find("Generator") == std::string::npos, "its operator ", full,
                " draws random numbers");
    TORCH_CHECK(type.find("Storage") == std::string::npos && type.find("Stream") == std::string::npos,
                "its operator ", full, " is not one that prism runs");
  }
}

const c10::FunctionSchema &schema_of(c10::Symbol name, const std::string &overload) {
  for (const auto &one : torch::jit::getAllOperatorsFor(name))
    if (one->schema().overload_name() == overload)
      return one->schema();
  TORCH_CHECK(false, "libtorch has no operator ", name.toQualString(),
              overload.empty() ? "" : ".", overload);
}

c10::TypePtr without_optional(const c10::TypePtr &type) {
  const auto optional = type->cast<c10::OptionalType>();
  return optional ? optional->getElementType() : type;
}

Value *as(Builder &builder, int64_t index, const c10::TypePtr &wanted);

// A list, of the type that is wanted.
Value *list_as(Builder &builder, const std::vector<int64_t> &items, const c10::TypePtr &wanted) {
  const auto type = without_optional(wanted)->cast<c10::ListType>();
  TORCH_CHECK(type, "a list, not ", wanted->repr_str());
  std::vector<Value *> values;
  for (const int64_t item : items)
    values.push_back(as(builder, item, type->getElementType()));
  return builder.graph->insertNode(builder.graph->createList(type->getElementType(), values))
      ->output();
}

// A constant as a floating-point number where one is wanted: files write 1 for 1.0.
Value *number_as(Graph &graph, Value *value, const c10::TypePtr &wanted) {
  const auto constant = torch::jit::toIValue(value);
  const bool is_wanted = without_optional(wanted)->kind() == c10::TypeKind::FloatType;
  if (is_wanted && constant && constant->isInt())
    return graph.insertConstant(static_cast<double>(constant->toInt()));
  return value;
}

Value *as(Builder &builder, int64_t index, const c10::TypePtr &wanted) {
  const prism_built &built = builder.values.at(static_cast<size_t>(index));
  if (!built.value)
    return list_as(builder, built.items, wanted);
  Value *value = number_as(*builder.graph, built.value, wanted);
  TORCH_CHECK(value->type()->isSubtypeOf(*wanted), value->type()->repr_str(), ", not ",
              wanted->repr_str());
  return value;
}

// The position of an argument among those that are given, or -1.
int64_t given(const c10::FunctionSchema &schema, size_t at, at::ArrayRef<prism_argument> arguments) {
  int64_t found = -1;
  for (size_t i = 0; i < arguments.size(); i++)
    if (arguments[i].name ? schema.arguments()[at].name() == arguments[i].name : i == at)
      found = static_cast<int64_t>(i);
  return found;
}

std::vector<Value *> inputs_of(Builder &builder, const c10::FunctionSchema &schema,
                               at::ArrayRef<prism_argument> arguments) {
  std::vector<Value *> inputs;
  size_t used = 0;
  for (size_t at = 0; at < schema.arguments().size(); at++) {
    const c10::Argument &argument = schema.arguments()[at];
    if (const int64_t position = given(schema, at, arguments); position >= 0) {
      used++;
      try {
        inputs.push_back(as(builder, arguments[static_cast<size_t>(position)].value, argument.type()));
      } catch (const c10::Error &error) {
        TORCH_CHECK(false, "its operator ", schema.name(), " has as '", argument.name(), "' ",
                    error.what_without_backtrace());
      }
      continue;
    }
    TORCH_CHECK(argument.default_value(), "its operator ", schema.name(), " lacks '",
                argument.name(), "'");
    inputs.push_back(builder.graph->insertConstant(*argument.default_value()));
  }
  TORCH_CHECK(used == arguments.size(), "its operator ", schema.name(),
              " has arguments that libtorch does not know");
  return inputs;
}

// x * 2 is written with the overload for two tensors.
const c10::FunctionSchema &fitting(Builder &builder, c10::Symbol name, const std::string &overload,
                                   at::ArrayRef<prism_argument> arguments) {
  if ((overload == "Tensor" || overload == "Tensor_mode") && arguments.size() > 1) {
    const Value *other = builder.values.at(static_cast<size_t>(arguments[1].value)).value;
    if (other && other->type()->isSubtypeOf(*c10::NumberType::get()))
      return schema_of(name, overload == "Tensor" ? "Scalar" : "Scalar_mode");
  }
  return schema_of(name, overload);
}

} // namespace

int64_t add_input(Builder &builder) {
  Value *input = builder.graph->addInput();
  input->setType(c10::TensorType::get());
  return add(builder, input);
}

int64_t add_constant(Builder &builder, const prism_constant &constant) {
  IValue value;
  switch (constant.kind) {
  case PRISM_NONE: break;
  case PRISM_BOOL: value = constant.integer != 0; break;
  case PRISM_INTEGER: value = constant.integer; break;
  case PRISM_FLOAT: value = constant.number; break;
  case PRISM_TEXT: value = std::string(constant.text); break;
  case PRISM_DEVICE: value = builder.device; break;
  case PRISM_TENSOR:
    value = static_cast<const at::Tensor *>(constant.tensor)->to(builder.device);
    break;
  default: TORCH_CHECK(false, "a constant of an unknown kind");
  }
  return add(builder, builder.graph->insertConstant(value));
}

int64_t add_list(Builder &builder, at::ArrayRef<int64_t> items) {
  builder.values.push_back({nullptr, items.vec()});
  return static_cast<int64_t>(builder.values.size()) - 1;
}

std::vector<int64_t> call(Builder &builder, const char *name, const char *overload, const char *path,
                          at::ArrayRef<prism_argument> arguments, size_t results) {
  Graph &graph = *builder.graph;
  const auto symbol = c10::Symbol::aten(name);
  const auto &schema = fitting(builder, symbol, overload, arguments);
  require_allowed(schema);
  Node *node = graph.create(symbol, inputs_of(builder, schema, arguments), schema.returns().size());
  for (size_t i = 0; i < node->outputs().size(); i++)
    node->output(i)->setType(schema.returns()[i].type());
  if (*path)
    node->setScope(graph.current_scope()->push(c10::Symbol::scope(path)));
  graph.insertNode(node);
  TORCH_CHECK(node->maybeSchema(), "its operator ", schema.name(), " does not fit its arguments");
  const bool makes_list =
      results > 0 && node->outputs().size() == 1 && node->output()->type()->cast<c10::ListType>();
  if (makes_list)
    node = graph.insertNode(graph.createListUnpack(node->output(), results));
  TORCH_CHECK(node->outputs().size() >= results, "its operator ", schema.name(), " makes ",
              node->outputs().size(), " values, not ", results);
  std::vector<int64_t> made;
  for (size_t i = 0; i < results; i++)
    made.push_back(add(builder, node->output(i)));
  return made;
}

std::unique_ptr<prism_graph> finish(Builder &builder, at::ArrayRef<int64_t> outputs) {
  auto result = std::make_unique<prism_graph>();
  Graph &graph = *builder.graph;
  std::vector<Value *> returned;
  for (const int64_t output : outputs)
    returned.push_back(as(builder, output, c10::TensorType::get()));
  TORCH_CHECK(!returned.empty(), "it returns no tensor");
  graph.registerOutput(returned.size() == 1 ? returned[0]
                                            : graph.insertNode(graph.createTuple(returned))->output());
  result->graph = builder.graph;
  result->on_cpu = builder.device.is_cpu();
  bind_inputs(*result, nullptr, nullptr);
  for (const Node *node : all_nodes(graph.block()))
    TORCH_CHECK(!is_in_place(node) || !constant_tensor(node->input(0)).defined(), "its operator ",
                node->kind().toQualString(),
                " writes into its weights; export it after model.eval()");
  to_this_machine(graph, builder.device);
  simplify(result->graph);
  to_float(*result->graph);
  TORCH_CHECK(to_inference(*result->graph).empty(),
              "it was exported in training mode; export it after model.eval()");
  settle_floating_point(result->graph, result->graph->inputs()[result->batch_input]);
  remove_in_place(result->graph);
  torch::jit::EliminateDeadCode(result->graph);
  return result;
}

} // namespace prism
