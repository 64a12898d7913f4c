// Graphs that are built operator by operator, for files that hold a network in another form than
// TorchScript.

#include "internal.h"

#include <ATen/ScalarOps.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/common_subexpression_elimination.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>

namespace prism {
namespace {

using Builder = prism_builder;

int64_t add(Builder &builder, Value *value) {
  builder.values.push_back({value, {}});
  return static_cast<int64_t>(builder.values.size()) - 1;
}

const c10::FunctionSchema &schema_of(c10::Symbol name, const std::string &overload) {
  for (const auto &one : torch::jit::getAllOperatorsFor(name))
    if (one->schema().overload_name() == overload)
      return one->schema();
  TORCH_CHECK(false, "libtorch has no operator ", name.toQualString(),
              overload.empty() ? "" : ".", overload);
}

bool is_tensor_type(const c10::TypePtr &type) { return type->isSubtypeOf(*c10::TensorType::get()); }

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

// A value of another kind than the one that is wanted, as files write it: 1 for 1.0, true for 1, one
// number for a list of one, a number for a tensor without dimensions.
Value *converted(Graph &graph, Value *value, const c10::TypePtr &wanted) {
  const auto constant = torch::jit::toIValue(value);
  const c10::TypeKind kind = without_optional(wanted)->kind();
  if (kind == c10::TypeKind::FloatType && constant && constant->isInt())
    return graph.insertConstant(static_cast<double>(constant->toInt()));
  if (kind == c10::TypeKind::FloatType && value->type()->kind() == c10::TypeKind::IntType)
    return graph.insert(c10::Symbol::aten("Float"), {value});
  if (kind == c10::TypeKind::NumberType && constant && constant->isBool())
    return graph.insertConstant(static_cast<int64_t>(constant->toBool()));
  if (kind == c10::TypeKind::ListType && value->type()->isSubtypeOf(*c10::NumberType::get())) {
    const auto item = without_optional(wanted)->expectRef<c10::ListType>().getElementType();
    return graph.insertNode(graph.createList(item, {converted(graph, value, item)}))->output();
  }
  if (kind == c10::TypeKind::TensorType && constant && constant->isScalar()) {
    const at::Tensor number = at::scalar_to_tensor(constant->toScalar());
    number.unsafeGetTensorImpl()->set_wrapped_number(true); // it decides no number format
    return graph.insertConstant(number);
  }
  return value;
}

Value *as(Builder &builder, int64_t index, const c10::TypePtr &wanted) {
  const prism_built &built = builder.values.at(static_cast<size_t>(index));
  if (!built.value)
    return list_as(builder, built.items, wanted);
  Value *value = built.value;
  if (!value->type()->isSubtypeOf(*wanted))
    value = converted(*builder.graph, value, wanted);
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

// An argument that is given, if it is no list.
const Value *value_of(const Builder &builder, const prism_argument &argument) {
  return builder.values.at(static_cast<size_t>(argument.value)).value;
}

c10::TypePtr type_of(const Builder &builder, const prism_argument &argument) {
  const Value *value = value_of(builder, argument);
  return value ? value->type() : nullptr;
}

// A list of 2^30 parts of a tensor would take all memory before anything is computed.
void require_few_parts(const Builder &builder, const c10::FunctionSchema &schema,
                       at::ArrayRef<prism_argument> arguments) {
  constexpr int64_t MOST_PARTS = 10'000;
  for (const char *name : {"sections", "chunks"}) {
    const auto at = schema.argumentIndexWithName(name);
    const int64_t position = at ? given(schema, static_cast<size_t>(*at), arguments) : -1;
    const Value *value =
        position < 0 ? nullptr : value_of(builder, arguments[static_cast<size_t>(position)]);
    const auto parts = value ? torch::jit::toIValue(value) : std::nullopt;
    TORCH_CHECK(!parts || !parts->isInt() || parts->toInt() <= MOST_PARTS, "its operator ",
                schema.name(), " makes more than ", MOST_PARTS, " parts");
  }
}

// The overload for tensors, if the file gives a flag as a number: TorchScript knows no such numbers,
// and 1 for `true` would make integers of flags.
const c10::FunctionSchema *for_flags(const Builder &builder, const c10::FunctionSchema &schema,
                                     at::ArrayRef<prism_argument> arguments) {
  bool has_flag = false;
  for (size_t at = 0; at < schema.arguments().size(); at++) {
    const int64_t position = given(schema, at, arguments);
    const auto type = position < 0 ? nullptr : type_of(builder, arguments[static_cast<size_t>(position)]);
    has_flag |= type && type->kind() == c10::TypeKind::BoolType &&
                without_optional(schema.arguments()[at].type())->kind() == c10::TypeKind::NumberType;
  }
  if (!has_flag)
    return nullptr;
  const auto name = c10::Symbol::fromQualString(schema.name());
  for (const auto &one : torch::jit::getAllOperatorsFor(name)) {
    const std::string &overload = one->schema().overload_name();
    if (overload == "Tensor" || (overload == "self" && one->schema().arguments().size() == 3))
      return &one->schema();
  }
  return nullptr;
}

// Whether an overload takes numbers of these kinds; an integer is also a floating-point number if
// `is_wide`.
bool takes_numbers(const Builder &builder, const c10::FunctionSchema &schema,
                   at::ArrayRef<prism_argument> arguments, bool is_wide) {
  const auto &wanted = schema.arguments();
  bool fits = wanted.size() == arguments.size();
  for (size_t i = 0; fits && i < wanted.size(); i++) {
    const auto type = type_of(builder, arguments[i]);
    fits = type && !is_tensor_type(type) &&
           (*type == *wanted[i].type() ||
            (is_wide && type->kind() == c10::TypeKind::IntType &&
             wanted[i].type()->kind() == c10::TypeKind::FloatType));
  }
  return fits;
}

// The overload of Python's arithmetic for the kinds of the numbers.
const c10::FunctionSchema &for_numbers(const Builder &builder, c10::Symbol name,
                                       at::ArrayRef<prism_argument> arguments) {
  for (const bool is_wide : {false, true})
    for (const auto &one : torch::jit::getAllOperatorsFor(name)) {
      const auto &schema = one->schema();
      if (takes_numbers(builder, schema, arguments, is_wide))
        return schema;
    }
  TORCH_CHECK(false, "its arithmetic of sizes (", name.toUnqualString(), ") is not one that prism runs");
}

// x * 2 is written with the overload for two tensors.
const c10::FunctionSchema &fitting(const Builder &builder, c10::Symbol name, const std::string &overload,
                                   at::ArrayRef<prism_argument> arguments) {
  if (overload == PRISM_OF_NUMBERS)
    return for_numbers(builder, name, arguments);
  const auto &schema = schema_of(name, overload);
  if (const auto *other = for_flags(builder, schema, arguments))
    return *other;
  if ((overload == "Tensor" || overload == "Tensor_mode") && arguments.size() > 1 &&
      is_tensor_type(schema.arguments().at(1).type())) {
    const auto other = type_of(builder, arguments[1]);
    if (other && other->isSubtypeOf(*c10::NumberType::get()))
      return schema_of(name, overload == "Tensor" ? "Scalar" : "Scalar_mode");
  }
  return schema;
}

// The largest and the smallest of two sizes are no operators of `aten`.
c10::Symbol symbol_of(const std::string &name, const std::string &overload) {
  const bool is_prim = overload == PRISM_OF_NUMBERS && (name == "max" || name == "min");
  return is_prim ? c10::Symbol::prim(name) : c10::Symbol::aten(name);
}

// The value whose memory a tensor shows, back through views and operators that write into it.
Value *owner(Value *value) {
  for (const Node *node = value->node();; node = value->node()) {
    const auto *schema = node->maybeSchema();
    const bool shares = schema && !schema->returns().empty() && schema->returns()[0].alias_info() &&
                        !node->inputs().empty() && is_tensor(node->input(0));
    if (!shares)
      return value;
    value = const_cast<Node *>(node)->input(0);
  }
}

// What the graph writes into is a copy, so that each run finds the buffers of the file.
void copy_written_constants(Graph &graph) {
  for (Node *node : all_nodes(graph.block())) {
    if (!is_in_place(node))
      continue;
    Value *written = owner(node->input(0));
    if (!constant_tensor(written).defined())
      continue;
    torch::jit::WithInsertPoint here(written->node()->next());
    Value *copy = graph.insert(c10::aten::clone, {written});
    written->replaceAllUsesAfterNodeWith(copy->node(), copy);
  }
}

// The tensors that are returned: one, a tuple, or a dict if they have names.
Value *returned(Graph &graph, const std::vector<Value *> &tensors, const std::vector<std::string> &names) {
  const auto is_named = [](const std::string &name) { return !name.empty(); };
  if (std::any_of(names.begin(), names.end(), is_named)) {
    std::vector<Value *> keys;
    for (const std::string &name : names)
      keys.push_back(graph.insertConstant(name));
    return graph
        .insertNode(graph.createDict(c10::StringType::get(), c10::TensorType::get(), keys, tensors))
        ->output();
  }
  return tensors.size() == 1 ? tensors[0] : graph.insertNode(graph.createTuple(tensors))->output();
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

namespace {

// The constants that an operator made, in its place. A list is given item by item.
std::vector<int64_t> add_constants(Builder &builder, std::vector<IValue> made, size_t results,
                                   const char *name) {
  if (results > 0 && made.size() == 1 && made[0].isList())
    made = made[0].toListRef().vec();
  TORCH_CHECK(made.size() >= results, "its operator ", name, " makes ", made.size(), " values, not ",
              results);
  std::vector<int64_t> values;
  for (size_t i = 0; i < results; i++)
    values.push_back(add(builder, builder.graph->insertConstant(made[i])));
  return values;
}

} // namespace

std::vector<int64_t> call(Builder &builder, const char *name, const char *overload, const char *path,
                          at::ArrayRef<prism_argument> arguments, size_t results) {
  Graph &graph = *builder.graph;
  const auto symbol = symbol_of(name, overload);
  const auto &schema = fitting(builder, symbol, overload, arguments);
  require_allowed(schema);
  require_few_parts(builder, schema, arguments);
  Node *node = graph.create(symbol, inputs_of(builder, schema, arguments), schema.returns().size());
  for (size_t i = 0; i < node->outputs().size(); i++)
    node->output(i)->setType(schema.returns()[i].type());
  if (*path)
    node->setScope(graph.current_scope()->push(c10::Symbol::scope(path)));
  graph.insertNode(node);
  TORCH_CHECK(node->maybeSchema(), "its operator ", schema.name(), " does not fit its arguments");
  if (auto made = folded(builder, node)) {
    node->destroy();
    return add_constants(builder, std::move(*made), results, name);
  }
  see(builder, node);
  const bool is_list =
      results > 0 && node->outputs().size() == 1 && node->output()->type()->cast<c10::ListType>();
  if (is_list) {
    node = graph.insertNode(graph.createListUnpack(node->output(), results));
    see(builder, node);
  }
  // Python's powers of integers are integers.
  if (symbol == c10::aten::pow && schema.overload_name() == "int")
    node = graph.insert(c10::Symbol::aten("Int"), {node->output()})->node();
  TORCH_CHECK(node->outputs().size() >= results, "its operator ", schema.name(), " makes ",
              node->outputs().size(), " values, not ", results);
  std::vector<int64_t> made;
  for (size_t i = 0; i < results; i++)
    made.push_back(add(builder, node->output(i)));
  return made;
}

std::unique_ptr<prism_graph> finish(Builder &builder, at::ArrayRef<prism_result> outputs) {
  auto result = std::make_unique<prism_graph>();
  Graph &graph = *builder.graph;
  std::vector<Value *> tensors;
  std::vector<std::string> names;
  for (const prism_result &output : outputs) {
    tensors.push_back(as(builder, output.value, c10::TensorType::get()));
    names.push_back(output.name);
  }
  TORCH_CHECK(!tensors.empty(), "it returns no tensor");
  graph.registerOutput(returned(graph, tensors, names));
  result->graph = builder.graph;
  result->on_cpu = builder.device.is_cpu();
  bind_inputs(*result, nullptr, nullptr);
  copy_written_constants(graph);
  to_this_machine(graph, builder.device);
  // As libtorch does to TorchScript: several branches may each begin with the ReLU of one tensor.
  torch::jit::EliminateCommonSubexpression(result->graph);
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
