// In-place operators (relu_, add_, ...) become operators that return a new tensor, so
// that every value of the graph is what its operator made.
//
// Unlike libtorch's RemoveTensorMutation this moves no operator: PRISM reads activations
// in execution order. Writes through views, in branches or loops, or into containers stay.

#include "internal.h"

#include <torch/csrc/jit/ir/alias_analysis.h>

#include <algorithm>

namespace prism {

// Whether the operator is one like relu_, which returns its first input, changed.
bool is_in_place(const Node *node) {
  const auto *schema = node->maybeSchema();
  if (!schema || schema->returns().size() != 1 || node->inputs().empty())
    return false;
  const auto *returned = schema->returns()[0].alias_info();
  const auto *first = schema->arguments()[0].alias_info();
  return returned && returned->isWrite() && first && first->isWrite() &&
         is_tensor(node->output(0)) && node->kind().is_aten();
}

namespace {

// Whether an operator makes flags of numbers.
bool makes_flags(const std::string &name) {
  static const std::unordered_set<std::string> names{
      "eq",         "ne",      "lt",            "le",          "gt",          "ge",         "less",
      "less_equal", "greater", "greater_equal", "not_equal",   "logical_and", "logical_or", "logical_xor",
      "logical_not"};
  return names.contains(name);
}

// relu for relu_, inserted before it; nullptr if there is no such operator.
Node *out_of_place(Graph &graph, Node *node) {
  std::string name = node->kind().toUnqualString();
  if (name.back() != '_' || name == "set_" || name == "resize_")
    return nullptr;
  name.pop_back();
  Node *made = graph.create(c10::Symbol::aten(name), node->inputs(), 1);
  made->insertBefore(node);
  if (!made->maybeSchema()) {
    made->destroy();
    return nullptr;
  }
  made->output()->setType(node->output()->type());
  made->copyMetadata(node);
  if (!makes_flags(name))
    return made;
  // In place, a comparison keeps the number format of what it writes into.
  torch::jit::WithInsertPoint here(node);
  return graph.insert(c10::aten::type_as, {made->output(), node->input(0)})->node();
}

// The values of a graph that may share memory, and the operators that write to it.
struct AliasSet {
  std::vector<Node *> writers; // in execution order
  std::vector<Value *> values;
};

bool puts_into_container(const Node *node) {
  const auto kind = node->kind();
  if (kind == c10::aten::append || kind == c10::aten::_set_item || kind == c10::aten::insert)
    return true;
  const auto outputs = node->outputs();
  return std::any_of(outputs.begin(), outputs.end(), [](const Value *output) {
    return !is_tensor(output) && output->type()->containedTypes().size() > 0;
  });
}

// Whether the writers can become operators that make new tensors: all are plain in-place
// operators of the top level, and before the last of them the tensor has no view and is
// in no container.
bool is_replaceable(Graph &graph, const AliasSet &set) {
  const auto &writers = set.writers;
  const auto on_top = [&](const Node *node) { return node->owningBlock() == graph.block(); };
  if (!std::all_of(writers.begin(), writers.end(),
                   [&](const Node *writer) { return on_top(writer) && is_in_place(writer); }))
    return false;
  const auto is_later = [&](const Node *node) {
    return on_top(node) && node->isAfter(writers.back());
  };
  const auto writes = [&](const Node *node) {
    return std::find(writers.begin(), writers.end(), node) != writers.end();
  };
  // The alias analysis assumes that what is put into a container may alias the graph's
  // inputs. An operator's own result does not.
  const Node *first = writers.front()->input(0)->node();
  const bool own = first->maybeSchema() && !first->schema().returns().empty() &&
                   !first->schema().returns()[0].alias_info();
  size_t tensors = 0;
  for (const Value *value : set.values) {
    const Node *maker = value->node();
    const bool is_input = maker->kind() == c10::prim::Param;
    if (is_input && !on_top(maker))
      return false;
    if (is_input && own)
      continue;
    if (!writes(maker) && !is_later(maker))
      tensors++;
    for (const auto &use : value->uses())
      if (!writes(use.user) && puts_into_container(use.user) && !is_later(use.user))
        return false;
  }
  return tensors == 1;
}

std::vector<AliasSet> replaceable_sets(const std::shared_ptr<Graph> &graph) {
  torch::jit::AliasDb aliases(graph);
  const std::vector<Node *> nodes = all_nodes(graph->block());
  std::vector<Value *> tensors;
  const auto add_tensors = [&](at::ArrayRef<Value *> values) {
    std::copy_if(values.begin(), values.end(), std::back_inserter(tensors), is_tensor);
  };
  add_tensors(graph->inputs());
  for (Node *node : nodes)
    add_tensors(node->outputs());

  std::vector<AliasSet> sets;
  std::unordered_set<const Node *> seen;
  for (Node *writer : nodes) {
    if (!is_in_place(writer) || seen.count(writer))
      continue;
    AliasSet set;
    for (Value *value : tensors)
      if (aliases.mayAlias(value, writer->input(0)))
        set.values.push_back(value);
    for (Node *node : nodes)
      if (aliases.writesToAlias(node, {set.values.begin(), set.values.end()}))
        set.writers.push_back(node);
    seen.insert(set.writers.begin(), set.writers.end());
    if (!set.writers.empty() && is_replaceable(*graph, set))
      sets.push_back(std::move(set));
  }
  return sets;
}

} // namespace

void remove_in_place(std::shared_ptr<Graph> &graph) {
  for (const AliasSet &set : replaceable_sets(graph)) {
    // The tensor's names so far: it has no views before the last writer.
    std::vector<Value *> names{set.writers.front()->input(0)};
    for (Node *writer : set.writers) {
      Node *made = out_of_place(*graph, writer);
      if (!made)
        break; // the later ones then write to what this one returns
      for (Value *value : names)
        for (const auto &use : std::vector<torch::jit::Use>(value->uses()))
          if (use.user != writer && use.user->isAfter(writer))
            use.user->replaceInput(use.offset, made->output());
      names.push_back(made->output());
      writer->output(0)->replaceAllUsesWith(made->output());
      writer->destroy();
    }
  }
}

} // namespace prism
