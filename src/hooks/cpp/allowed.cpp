// The operators that a file of another form than TorchScript may call. What is not listed is not
// called: libtorch also has operators that read and write files, print, draw random numbers or
// replace the memory behind a tensor, and a later version may have more of them.

#include "internal.h"

#include <sstream>
#include <unordered_set>

namespace prism {
namespace {

// Names in the namespace `aten`. An operator of the same name with '_' at its end, which writes into
// its first argument, may be called, too. All others compute new tensors, views or sizes from the
// tensors that they are given. as_strided is missing: what it reads depends on the order in memory.
constexpr const char *ALLOWED[] = {
    // element by element
    "abs absolute acos acosh add addcdiv addcmul angle arccos arccosh arcsin arcsinh arctan arctan2 "
    "arctanh asin asinh atan atan2 atanh ceil celu clamp clamp_max clamp_min clip conj "
    "conj_physical copysign cos cosh deg2rad digamma div divide elu erf erfc erfinv exp exp2 expm1 fix "
    "float_power floor floor_divide fmax fmin fmod frac gelu glu hardshrink hardsigmoid hardswish "
    "hardtanh heaviside hypot imag ldexp leaky_relu lerp lgamma log log10 log1p log2 log_sigmoid "
    "log_sigmoid_forward logaddexp logaddexp2 logit maximum minimum mish mul multiply nan_to_num neg "
    "negative polar positive pow prelu rad2deg real reciprocal relu relu6 remainder resolve_conj "
    "resolve_neg round rrelu rsqrt rsub selu sgn sigmoid sign silu sin sinc sinh softplus softshrink "
    "special_digamma special_entr special_erf special_erfc special_erfinv special_exp2 special_expit "
    "special_expm1 special_gammaln special_log1p special_log_ndtr special_logit special_ndtr special_ndtri "
    "special_round special_sinc special_xlog1py special_xlogy sqrt square sub subtract tan tanh threshold "
    "true_divide trunc xlogy",
    // comparisons
    "all any bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor eq "
    "ge greater greater_equal gt isclose isfinite isin isinf isnan isneginf isposinf le less less_equal "
    "logical_and logical_not logical_or logical_xor lt masked_fill ne not_equal signbit where "
    "__and__ __or__ __xor__ __lshift__ __rshift__ __iand__ __ior__ __ixor__ __ilshift__ __irshift__",
    // reductions
    "amax amin aminmax argmax argmin argsort count_nonzero cummax cummin cumprod cumsum diff dist "
    "frobenius_norm kthvalue linalg_matrix_norm linalg_norm linalg_vector_norm log_softmax "
    "logcumsumexp logsumexp max mean median min mode msort nanmean nanmedian nanquantile nansum norm "
    "nuclear_norm prod quantile renorm softmax sort special_log_softmax special_logsumexp "
    "special_softmax std std_mean sum sum_to_size topk trace var var_mean",
    // products
    "addbmm addmm addmv addr baddbmm bilinear bmm cdist chain_matmul cosine_similarity cross dot einsum "
    "ger inner kron linalg_cross linalg_matmul linalg_multi_dot linalg_vecdot linear matmul "
    "matrix_power mm mv outer pairwise_distance tensordot vdot",
    // convolutions, normalisation, pooling, attention
    "alpha_dropout batch_norm conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d "
    "conv_transpose3d convolution dropout feature_alpha_dropout feature_dropout group_norm "
    "instance_norm layer_norm native_batch_norm native_dropout native_group_norm native_layer_norm "
    "rms_norm adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d fractional_max_pool2d "
    "max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d "
    "max_pool3d_with_indices max_unpool2d embedding scaled_dot_product_attention",
    // sampling and padding
    "affine_grid_generator channel_shuffle col2im constant_pad_nd grid_sampler grid_sampler_2d im2col "
    "native_channel_shuffle pad pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d "
    "replication_pad1d replication_pad2d upsample_bicubic2d upsample_bilinear2d upsample_linear1d "
    "upsample_nearest1d upsample_nearest2d",
    // shapes, order and parts
    "adjoint alias atleast_1d atleast_2d atleast_3d block_diag "
    "broadcast_tensors broadcast_to bucketize cat chunk clone column_stack concat concatenate "
    "contiguous copy detach diag diag_embed diagonal diagonal_scatter dsplit dstack expand expand_as "
    "flatten flip fliplr flipud gather hsplit hstack index index_add index_copy index_fill index_put "
    "index_select masked_scatter masked_select meshgrid moveaxis movedim narrow numpy_T one_hot "
    "permute ravel repeat repeat_interleave reshape reshape_as roll rot90 row_stack scatter "
    "scatter_add scatter_reduce searchsorted select select_scatter slice slice_scatter split "
    "split_with_sizes squeeze stack swapaxes swapdims t take take_along_dim tensor_split tile "
    "transpose tril triu unbind unflatten unfold unsafe_chunk unsafe_split unsafe_split_with_sizes "
    "unsqueeze view view_as view_as_complex view_as_real vsplit vstack complex",
    // the same, as copies
    "alias_copy detach_copy diagonal_copy expand_copy narrow_copy permute_copy select_copy "
    "slice_copy split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy "
    "unfold_copy unsqueeze_copy view_as_complex_copy view_as_real_copy view_copy",
    // new tensors, number formats, sizes
    "arange bartlett_window blackman_window eye fill full full_like hamming_window hann_window "
    "kaiser_window lift lift_fresh lift_fresh_copy linspace logspace new_full new_ones new_zeros ones "
    "ones_like scalar_tensor tril_indices triu_indices zero zeros zeros_like to type_as dim numel size "
    "stride",
    // spectra
    "fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_ifft fft_ifft2 fft_ifftn fft_ifftshift "
    "fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn istft stft",
    // numbers that are sizes
    "Float Int __not__ floordiv",
    // what the exporters write of libtorch's own
    "_adaptive_avg_pool2d _adaptive_avg_pool3d _cdist_forward _conj _conj_physical _convolution _fft_c2c "
    "_fft_c2r _fft_r2c _log_softmax _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "_neg_view _prelu_kernel _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy _unsafe_index "
    "_unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d _weight_norm _weight_norm_interface",
};

const std::unordered_set<std::string> &allowed_names() {
  static const std::unordered_set<std::string> all = [] {
    std::unordered_set<std::string> found;
    for (const char *line : ALLOWED) {
      std::istringstream words(line);
      for (std::string word; words >> word;)
        found.insert(word);
    }
    return found;
  }();
  return all;
}

} // namespace

void require_allowed(const c10::FunctionSchema &schema) {
  const std::string full = schema.name();
  std::string name = full.substr(full.find("::") + 2);
  if (name.back() == '_' && !name.ends_with("__"))
    name.pop_back();
  const bool is_known = full.rfind("aten::", 0) == 0 || full == "prim::max" || full == "prim::min";
  TORCH_CHECK(is_known && allowed_names().contains(name), "its operator ", full,
              " is not one that prism runs");
  // In inference mode, into which these are put, they draw nothing.
  const bool trains = schema.argumentIndexWithName("training") || schema.argumentIndexWithName("train");
  for (const c10::Argument &argument : schema.arguments()) {
    TORCH_CHECK(!argument.is_out(), "its operator ", full, " writes into a given tensor");
    const std::string type = argument.type()->repr_str();
    TORCH_CHECK(trains || type.find("Generator") == std::string::npos, "its operator ", full,
                " draws random numbers");
  }
}

} // namespace prism
