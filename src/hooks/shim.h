/* The whole C++ surface of prism: TorchScript graphs that hand out the tensors
 * inside them. Every function that can fail returns NULL, or a message to be
 * released with prism_message_free; no C++ exception crosses this border.
 * Tensors cross it as `at::Tensor *`, which is what tch's C_tensor is. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A frozen, inlined forward graph. Its values are numbered: the inputs first,
 * then the outputs of every top-level node in execution order. */
typedef struct prism_graph prism_graph;

/* A graph compiled so that it returns chosen values. */
typedef struct prism_program prism_program;

/* What a program returns of a value. */
enum prism_reading {
  PRISM_WHOLE = 0,        /* the tensor itself */
  PRISM_CHANNEL_MEAN = 1, /* its mean over dimension 1, which is kept: [N,1,h,w] */
  PRISM_GROUP_MEANS = 2,  /* means of the positive parts of four runs of channels: [N,min(4,C),h,w] */
};

typedef struct prism_output {
  int64_t value;
  int32_t reading;
} prism_output;

/* How the winning probability of excitation backpropagation goes back through
 * one operator. Operators without a rule keep their gradient. */
enum prism_flow {
  PRISM_Z_PLUS = 0,   /* as through a layer with weights, or average pooling */
  PRISM_Z_PLUS_CONTRASTIVE = 1, /* as that, less what negated weights would send */
  PRISM_PASS = 2,  /* unchanged to one input */
  PRISM_SPLIT_POSITIVE = 3,    /* to inputs 0 and 1 in proportion to their positive parts */
};

typedef struct prism_rule {
  int64_t value; /* what the operator makes */
  int32_t flow;
  int32_t input; /* which of its inputs the probability goes to */
  /* What the batch-norm makes that is folded into the operator's weights, or
   * negative. */
  int64_t batch_norm;
} prism_rule;

/* How a program computes. */
enum prism_execution {
  PRISM_PLAIN = 0,     /* the operators of the graph, one by one */
  PRISM_OPTIMISED = 1, /* with libtorch's passes for frozen graphs */
  PRISM_BF16 = 2,      /* that, in bfloat16 */
};

/* Loads a TorchScript file; device is -1 for the CPU, else a CUDA index. */
char *prism_graph_load(const char *path, int device, prism_graph **out);

/* Records what is called with `input` on this thread until prism_trace_end or
 * prism_trace_abandon. Convolutions, products and normalisations are not computed:
 * their weights are not read. */
char *prism_trace_begin(const void *input);
char *prism_trace_end(const void *output, prism_graph **out);
void prism_trace_abandon(void);

/* Makes a graph of what prism_trace_end has made. From here on, its weights' values
 * must not change. */
char *prism_trace_finish(prism_graph *trace);

/* The graph as JSON, with the shape of every value for an input of `shape`
 * (four numbers) on `device`. */
char *prism_graph_describe(prism_graph *graph, const int64_t *shape, int device,
                           char **json);

/* Unless `watched` is negative, the program also returns, last, that value as a
 * leaf of autograd: what is computed from it can be differentiated, with
 * gradients as the rules (in execution order) say; it then computes plainly. */
char *prism_program_new(prism_graph *graph, const prism_output *outputs,
                        size_t count, int64_t watched, const prism_rule *rules,
                        size_t rule_count, int32_t execution, prism_program **out);
/* Writes `count` new tensors into `results`, one more where a value is watched. */
char *prism_program_run(prism_program *program, const void *input,
                        void **results);

/* A tensor of float32 on the CPU at `values`, which is not copied: `drop` is called
 * with `owner` when the last tensor that uses it is gone. On failure it is not. */
char *prism_tensor_of_floats(float *values, const int64_t *shape, size_t dimensions,
                             void (*drop)(void *), void *owner, void **out);

/* Whether tensors that this thread makes with zeros, ones, or uniform or normal values
 * have their size alone, and neither memory nor values. */
void prism_defer_values(int on);

/* Hands what the allocator keeps of freed memory back to the system, and sets whether it
 * is to keep what is freed from now on for the next tensors. */
void prism_reuse_freed_memory(int on);

void prism_graph_free(prism_graph *graph);
void prism_program_free(prism_program *program);
void prism_message_free(char *message);

#ifdef __cplusplus
}
#endif
