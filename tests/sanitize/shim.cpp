// The shim under AddressSanitizer and LeakSanitizer: networks are loaded, traced, built, described,
// compiled, run, differentiated and refused, over and over. `make sanitize` builds and runs it.
//
//     shim ROUNDS FILE.pt...

#include "../../src/hooks/cpp/shim.h"

#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <string>
#include <vector>

namespace {

[[noreturn]] void give_up(const std::string &what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

// Ends the program if a call failed.
void good(char *message) {
  if (message != nullptr)
    give_up(std::string("unexpected: ") + message);
}

// Ends the program if a call succeeded or gave no reason.
void bad(char *message, const char *what) {
  if (message == nullptr || *message == '\0')
    give_up(std::string("no message from ") + what);
  prism_message_free(message);
}

void count_drop(void *owner) { ++*static_cast<int *>(owner); }

void free_all(std::vector<void *> &tensors) {
  for (void *tensor : tensors)
    delete static_cast<at::Tensor *>(tensor);
}

// The last value of the graph that a program can return: the scores, or close to them.
int64_t last_value(prism_graph *graph) {
  constexpr int64_t MOST = 300; // more than any of the tiny networks has
  for (int64_t value = MOST; value > 0; --value) {
    const prism_output output{value, PRISM_WHOLE};
    prism_program *program = nullptr;
    char *message = prism_program_new(graph, &output, 1, -1, nullptr, 0, PRISM_PLAIN, &program);
    if (message == nullptr) {
      prism_program_free(program);
      return value;
    }
    prism_message_free(message);
  }
  give_up("no value can be returned");
}

void run(prism_graph *graph, const std::vector<prism_output> &outputs, int64_t tap, int32_t execution,
         const at::Tensor &input, int64_t *ran) {
  prism_node_rule rule{tap < 0 ? 0 : tap, PRISM_Z_PLUS, 0, -1};
  prism_program *program = nullptr;
  char *message = prism_program_new(graph, outputs.data(), outputs.size(), tap, &rule, tap < 0 ? 0 : 1,
                                    execution, &program);
  if (message != nullptr) {
    prism_message_free(message);
    return;
  }
  const size_t count = outputs.size() + (tap >= 0);
  std::vector<void *> results(count, nullptr);
  message = prism_program_run(program, &input, results.data());
  if (message == nullptr) {
    ++*ran;
    if (tap >= 0) {
      const at::Tensor &scores = *static_cast<at::Tensor *>(results.front());
      const at::Tensor &leaf = *static_cast<at::Tensor *>(results.back());
      if (scores.requires_grad() && leaf.requires_grad())
        torch::autograd::grad({scores.sum()}, {leaf}, {}, false, false, true);
    }
    free_all(results);
  } else {
    prism_message_free(message);
  }
  // A batch of another shape fails inside the interpreter.
  const at::Tensor odd = torch::zeros({1, 7, 3, 5});
  std::vector<void *> none(count, nullptr);
  message = prism_program_run(program, &odd, none.data());
  if (message != nullptr)
    prism_message_free(message);
  else
    free_all(none);
  prism_program_free(program);
}

// What follows `value`, on the value itself.
void run_head(prism_graph *graph, int64_t last, int64_t value, const at::Tensor &input, int64_t *ran) {
  const prism_output scores{last, PRISM_WHOLE}, own{value, PRISM_WHOLE};
  const prism_layout layout{0, -1};
  prism_program *head = nullptr, *whole = nullptr;
  char *message = prism_head_new(graph, &scores, 1, value, &layout, &head);
  if (message != nullptr) {
    prism_message_free(message);
    return;
  }
  message = prism_program_new(graph, &own, 1, -1, nullptr, 0, PRISM_PLAIN, &whole);
  void *made = nullptr, *result = nullptr;
  if (message == nullptr)
    message = prism_program_run(whole, &input, &made);
  if (message == nullptr)
    message = prism_program_run(head, made, &result);
  if (message == nullptr)
    ++*ran;
  else
    prism_message_free(message);
  delete static_cast<at::Tensor *>(made);
  delete static_cast<at::Tensor *>(result);
  prism_program_free(head);
  if (whole != nullptr)
    prism_program_free(whole);
}

void of_file(const char *file, int64_t *ran) {
  prism_graph *graph = nullptr;
  char *message = prism_graph_load(file, -1, &graph);
  if (message != nullptr) { // among the files are some that are no networks
    prism_message_free(message);
    return;
  }
  const int64_t shape[4] = {1, 3, 64, 64};
  char *json = nullptr;
  message = prism_graph_describe(graph, shape, -1, &json);
  if (message != nullptr) {
    prism_message_free(message);
    prism_graph_free(graph);
    return;
  }
  prism_message_free(json);
  const int64_t last = last_value(graph);
  const at::Tensor input = torch::rand({2, 3, 64, 64});
  for (int64_t value = last % 3; value <= last; value += 3) {
    for (const int32_t reading : {PRISM_WHOLE, PRISM_CHANNEL_MEAN, PRISM_SIGNED_SUMS}) {
      if (reading != PRISM_WHOLE && value % 4 != 0)
        continue;
      run(graph, {{value, reading}}, -1, value % 2 ? PRISM_PLAIN : PRISM_OPTIMISED, input, ran);
    }
    if (value % 2 == 0)
      run(graph, {{last, PRISM_WHOLE}, {value, PRISM_WHOLE}}, value, PRISM_PLAIN, input, ran);
    if (value % 6 == 0)
      run_head(graph, last, value, input, ran);
  }
  run(graph, {{last, PRISM_WHOLE}}, -1, PRISM_BF16, input, ran);
  run(graph, {{1 << 20, PRISM_WHOLE}}, -1, PRISM_PLAIN, input, ran);
  run(graph, {{0, 99}}, -1, PRISM_PLAIN, input, ran);
  prism_graph_free(graph);
}

void tracing() {
  torch::nn::Sequential network(torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 4, 3)), torch::nn::ReLU(),
                                torch::nn::Conv2d(torch::nn::Conv2dOptions(4, 5, 3)));
  network->eval();
  for (at::Tensor &weights : network->parameters())
    weights.set_requires_grad(false);
  const at::Tensor input = torch::rand({1, 3, 16, 16});
  torch::NoGradGuard plain;
  const auto begin = [&] {
    void *made = nullptr;
    good(prism_trace_begin(&input, &made));
    const at::Tensor traced = *static_cast<at::Tensor *>(made);
    delete static_cast<at::Tensor *>(made);
    return traced;
  };
  prism_graph *graph = nullptr;
  begin();
  bad(prism_trace_end(nullptr, 1, &graph), "a failed forward pass");
  const at::Tensor output = network->forward(begin());
  good(prism_trace_end(&output, 1, &graph));
  good(prism_trace_finish(graph));
  const int64_t shape[4] = {1, 3, 16, 16};
  char *json = nullptr;
  good(prism_graph_describe(graph, shape, -1, &json));
  prism_message_free(json);
  good(prism_graph_describe(graph, nullptr, -1, &json));
  prism_message_free(json);
  const int64_t wrong[4] = {1, 5, 16, 16};
  bad(prism_graph_describe(graph, wrong, -1, &json), "a wrong shape");
  prism_graph_free(graph);
}

// A value of a graph that is being built.
int64_t constant(prism_builder *builder, prism_constant_kind kind, int64_t integer, double number = 0,
                 const void *tensor = nullptr) {
  const prism_constant given{kind, integer, number, "mean", tensor};
  int64_t value = -1;
  good(prism_builder_constant(builder, &given, &value));
  return value;
}

int64_t list(prism_builder *builder, std::initializer_list<int64_t> items) {
  int64_t value = -1;
  good(prism_builder_list(builder, items.begin(), items.size(), &value));
  return value;
}

// The first result of a call, or -1 if it fails, as `works` says that it does.
int64_t called(prism_builder *builder, const char *name, const char *overload,
               std::initializer_list<prism_argument> arguments, bool works = true, size_t results = 1) {
  std::vector<int64_t> made(results + 1, -1);
  char *message = prism_builder_call(builder, name, overload, "features.0", arguments.begin(),
                                     arguments.size(), made.data(), results);
  works ? good(message) : bad(message, name);
  return made.front();
}

// A network operator by operator, with calls that are refused between them.
prism_graph *built(const at::Tensor &weight, const at::Tensor &buffer) {
  prism_builder *builder = nullptr;
  good(prism_builder_new(-1, &builder));
  int64_t images = -1;
  good(prism_builder_input(builder, &images));
  const int64_t kernel = constant(builder, PRISM_TENSOR, 0, 0, &weight);
  const int64_t counted = constant(builder, PRISM_TENSOR, 0, 0, &buffer);
  const int64_t one = constant(builder, PRISM_INTEGER, 1), two = constant(builder, PRISM_INTEGER, 2);
  const int64_t none = constant(builder, PRISM_NONE, 0), half = constant(builder, PRISM_FLOAT, 0, 0.5);
  const int64_t flag = constant(builder, PRISM_BOOL, 1), word = constant(builder, PRISM_TEXT, 0);
  const int64_t where = constant(builder, PRISM_DEVICE, 0);
  called(builder, "add_", "Tensor", {{"self", counted}, {"other", one}});
  int64_t made = called(builder, "conv2d", "",
                        {{nullptr, images}, {"weight", kernel}, {"bias", none}, {"stride", two}});
  made = called(builder, "relu_", "", {{"self", made}});
  made = called(builder, "mul", "Tensor", {{"self", made}, {"other", half}});
  made = called(builder, "clamp", "", {{"self", made}, {"min", one}});
  called(builder, "split", "Tensor", {{"self", made}, {"split_size", two}, {"dim", one}}, true, 2);
  const int64_t side = called(builder, "size", "int", {{"self", made}, {"dim", two}});
  called(builder, "mul", PRISM_OF_NUMBERS, {{nullptr, side}, {nullptr, two}});
  called(builder, "max", PRISM_OF_NUMBERS, {{nullptr, side}, {nullptr, two}});
  // Refused, each for its own reason.
  called(builder, "no_such", "", {}, false);
  called(builder, "from_file", "", {{"filename", word}}, false);
  called(builder, "rand", "", {{"size", list(builder, {two})}}, false);
  called(builder, "relu", "", {}, false);
  called(builder, "relu", "", {{"self", word}}, false);
  called(builder, "relu", "", {{"self", list(builder, {one, half})}}, false);
  called(builder, "relu", "", {{"self", made}, {"other", where}}, false);
  called(builder, "relu", "", {{"self", int64_t{1} << 40}}, false);
  called(builder, "relu", "", {{"self", made}}, false, 3);
  called(builder, "mul", PRISM_OF_NUMBERS, {{nullptr, made}, {nullptr, flag}}, false);
  int64_t mean = called(builder, "mean", "dim", {{"self", made}, {"dim", list(builder, {two, constant(builder, PRISM_INTEGER, 3)})}});
  mean = called(builder, "add", "Tensor", {{"self", mean}, {"other", counted}});
  const prism_result outputs[2] = {{"scores", mean}, {"features", made}};
  prism_graph *graph = nullptr;
  good(prism_builder_finish(builder, outputs, 2, &graph));
  prism_builder_free(builder);
  return graph;
}

void building(int64_t *ran) {
  prism_builder *unfinished = nullptr;
  good(prism_builder_new(-1, &unfinished));
  prism_graph *nothing = nullptr;
  bad(prism_builder_finish(unfinished, nullptr, 0, &nothing), "a graph without outputs");
  prism_builder_free(unfinished);
  const at::Tensor weight = torch::rand({4, 3, 3, 3}), buffer = torch::zeros({4});
  prism_graph *graph = built(weight, buffer);
  const int64_t last = last_value(graph);
  const at::Tensor input = torch::rand({2, 3, 16, 16});
  for (const int32_t execution : {PRISM_PLAIN, PRISM_OPTIMISED, PRISM_BF16})
    run(graph, {{last, PRISM_WHOLE}}, -1, execution, input, ran);
  run(graph, {{last, PRISM_WHOLE}}, last / 2, PRISM_PLAIN, input, ran);
  prism_graph_free(graph);
  if (buffer.sum().item<float>() != 0.f)
    give_up("a run wrote into a buffer");
}

void borrowed() {
  int dropped = 0;
  {
    std::vector<float> values(12, 1.f);
    const int64_t shape[2] = {3, 4};
    void *tensor = nullptr;
    good(prism_tensor_of_floats(values.data(), shape, 2, count_drop, &dropped, &tensor));
    auto *whole = static_cast<at::Tensor *>(tensor);
    const at::Tensor part = whole->narrow(0, 1, 2);
    delete whole;
    if (dropped != 0 || part.sum().item<float>() != 8.f)
      give_up("the values were released while a tensor used them");
  }
  if (dropped != 1)
    give_up("the values were released " + std::to_string(dropped) + " times");
}

void failing() {
  prism_graph *graph = nullptr;
  bad(prism_graph_load("no such file", -1, &graph), "a missing file");
  bad(prism_graph_load("/", -1, &graph), "a folder");
  const std::string file = std::string(std::getenv("TMPDIR") ? std::getenv("TMPDIR") : "/tmp") + "/prism-sanitize.pt";
  std::ofstream(file) << "no network";
  bad(prism_graph_load(file.c_str(), -1, &graph), "a text");
  std::remove(file.c_str());
}

void skipping() {
  prism_skip_init(1);
  const at::Tensor size = torch::zeros({1 << 20, 1 << 20}); // 4 TB with memory
  try {
    size.data_ptr<float>();
    give_up("a tensor without values gave them to be written");
  } catch (const c10::Error &) {
  }
  prism_skip_init(0);
  if (torch::ones({3}).sum().item<float>() != 3.f)
    give_up("values are still skipped");
}

} // namespace

int main(int count, char **words) {
  if (count < 3)
    give_up("shim ROUNDS FILE.pt...");
  int64_t ran = 0;
  for (int round = 0; round < std::atoi(words[1]); ++round) {
    failing();
    borrowed();
    tracing();
    building(&ran);
    skipping();
    for (int word = 2; word < count; ++word)
      of_file(words[word], &ran);
  }
  std::printf("%lld programs ran\n", static_cast<long long>(ran));
  return ran > 0 ? 0 : 1;
}
