// The study's operations, in the order of Operation::ALL. Operands have been checked; study/OPERATIONS.md says what each is.
#pragma once

#include "plan.hpp"

namespace mlxt {

enum class Operation {
  argmax, bce, concat, conv1d, conv2d, gather, scatter, scatter_sum, scatter_max, layer_norm, leaky_relu, linear, mat_mul,
  prelu, relu, causal_attention, selu, sigmoid, softplus, softmax, sort, sum, sum_all, gelu, gelu_tanh, embedding,
  add_layer_norm, rms_norm, rope, linear_gelu, packed_qkv, self_attention, ragged_attention, linear_int8, linear_q4,
  mean_pool_normalize, host_to_device, device_to_host
};

// The rows of sources as updates of a scatter.
inline array updates(const std::vector<array> &in) { return mx::expand_dims(mx::take(in[0], in[1], 0), 1); }

// The last row copied to a target stays: found first, for a device copies in no order.
inline array last_scattered(const std::vector<array> &in) {
  int edges = in[1].shape(0);
  array none = mx::full({in[0].shape(0)}, -1, mx::int32);
  array numbers = mx::reshape(mx::arange(edges), {edges, 1});
  array last = mx::scatter_max(none, {in[2]}, numbers, std::vector<int>{0});
  array source = mx::take(in[1], mx::maximum(last, array(0)), 0);
  array hit = mx::expand_dims(mx::greater_equal(last, array(0)), 1);
  return mx::where(hit, mx::take(in[0], source, 0), array(0.0f));
}

inline array cross_entropy(const array &p, const array &y) {
  auto log = [](const array &x) { return mx::maximum(mx::log(x), array(-100.0f)); };
  array one = array(1.0f);
  return mx::reshape(-mx::mean(y * log(p) + (one - y) * log(one - p)), {1});
}

// Of [batch, heads, positions, size].
inline array rope(const array &x) {
  int length = x.shape(2), size = x.shape(3), half = size / 2;
  std::vector<float> cosines(static_cast<size_t>(length) * half), sines(cosines.size());
  for (int t = 0; t < length; ++t)
    for (int j = 0; j < half; ++j) {
      double angle = t * std::pow(10000.0, -2.0 * j / size);
      cosines[static_cast<size_t>(t) * half + j] = static_cast<float>(std::cos(angle));
      sines[static_cast<size_t>(t) * half + j] = static_cast<float>(std::sin(angle));
    }
  array cos(cosines.begin(), {length, half}), sin(sines.begin(), {length, half});
  auto halves = mx::split(x, 2, 3);
  return mx::concatenate({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, 3);
}

inline array padded_attention(const std::vector<array> &in) {
  array lengths = mx::reshape(in[3], {in[3].shape(0), 1, 1, 1});
  array steps = mx::arange(in[0].shape(2));
  array keys = mx::less(mx::reshape(steps, {1, 1, 1, -1}), lengths);
  array queries = mx::less(mx::reshape(steps, {1, 1, -1, 1}), lengths);
  float scale = 1 / std::sqrt(static_cast<float>(in[0].shape(3)));
  array out = mx::fast::scaled_dot_product_attention(in[0], in[1], in[2], scale, "", keys);
  return mx::where(queries, out, array(0.0f));
}

// A layout of sequences that are given as lengths and, behind them, where they begin and the three arrays of ragged rows.
inline Places ragged(const std::vector<array> &in) {
  mlxt_layout layout{1, in[0].shape(0), in[1].shape(0), in[3].shape(0) / in[1].shape(0), 0, 0};
  return Places(layout, in);
}

inline array quantised_linear(const std::vector<array> &in, int bits) {
  int per_word = 32 / bits, inputs = in[1].shape(1) * per_word;
  Matrix m{in[1], in[4], in[2], in[3], bits, inputs / in[2].shape(1), inputs};
  array rows = mx::reshape(in[0], {-1, in[0].shape(-1)});
  mx::Shape shape = in[0].shape();
  shape.back() = in[1].shape(0);
  return mx::reshape(linear(rows, m), shape);
}

inline array plain_linear(const std::vector<array> &in) {
  bool line = in[0].ndim() == 1;
  array x = line ? mx::expand_dims(in[0], 0) : in[0];
  array y = mx::addmm(in[2], x, in[1]);
  return line ? mx::squeeze(y, 0) : y;
}

inline array compute(Operation operation, int setting, const std::vector<array> &in) {
  const array &x = in.at(0);
  auto n = [](double value) { return array(static_cast<float>(value)); };
  switch (operation) {
    case Operation::argmax: return as(mx::argmax(x, setting), mx::int32);
    case Operation::bce: return cross_entropy(x, in.at(1));
    case Operation::concat: return mx::concatenate({x, in.at(1)}, setting);
    case Operation::conv1d: return mx::conv1d(x, in.at(1));
    case Operation::conv2d: return mx::conv2d(x, in.at(1));
    case Operation::gather:
    case Operation::embedding: return mx::take(x, in.at(1), 0);
    case Operation::scatter: return last_scattered(in);
    case Operation::scatter_sum: return mx::scatter_add(mx::zeros_like(x), {in.at(2)}, updates(in), std::vector<int>{0});
    case Operation::scatter_max: return mx::scatter_max(mx::zeros_like(x), {in.at(2)}, updates(in), std::vector<int>{0});
    case Operation::layer_norm: return mx::fast::layer_norm(x, std::nullopt, std::nullopt, 1e-5f);
    case Operation::leaky_relu: return activate(x, MLXT_LEAKY_RELU);
    case Operation::linear:
    case Operation::packed_qkv: return plain_linear(in);
    case Operation::linear_gelu: return activate(plain_linear(in), MLXT_GELU);
    case Operation::mat_mul: return mx::matmul(x, in.at(1));
    case Operation::prelu: return mx::maximum(x, n(0)) + in.at(1) * mx::minimum(x, n(0));
    case Operation::relu: return activate(x, MLXT_RELU);
    case Operation::causal_attention: {
      array keys = mx::expand_dims(mx::arange(in.at(1).shape(2)), 0);
      array seen = mx::less_equal(keys, mx::expand_dims(mx::arange(x.shape(2)), 1));
      float scale = 1 / std::sqrt(static_cast<float>(x.shape(3)));
      return mx::fast::scaled_dot_product_attention(x, in.at(1), in.at(2), scale, "", seen);
    }
    case Operation::selu: {
      array below = n(1.6732632423543772) * mx::expm1(mx::minimum(x, n(0)));
      return n(1.0507009873554805) * (mx::maximum(x, n(0)) + below);
    }
    case Operation::sigmoid: return activate(x, MLXT_SIGMOID);
    case Operation::softplus: return softplus(x);
    case Operation::softmax: return mx::softmax(x, setting, true);
    case Operation::sort: return mx::sort(x, setting);
    case Operation::sum: return mx::sum(x, setting);
    case Operation::sum_all: return mx::reshape(mx::sum(x), {1});
    case Operation::gelu: return activate(x, MLXT_GELU);
    case Operation::gelu_tanh: return activate(x, MLXT_GELU_TANH);
    case Operation::add_layer_norm: return mx::fast::layer_norm(x + in.at(1), in.at(2), in.at(3), 1e-12f);
    case Operation::rms_norm: return mx::fast::rms_norm(x, in.at(1), 1e-6f);
    case Operation::rope: return rope(x);
    case Operation::self_attention: return padded_attention(in);
    case Operation::ragged_attention: {
      Places places = ragged(in);
      mlxt_step s{};
      s.heads = setting;
      s.head_size = x.shape(1) / 3 / setting;
      s.scale = 1 / std::sqrt(static_cast<float>(s.head_size));
      return attend(places, x, s, nullptr);
    }
    case Operation::linear_int8: return quantised_linear(in, 8);
    case Operation::linear_q4: return quantised_linear(in, 4);
    case Operation::mean_pool_normalize: {
      array means = ragged(in).reduce(x, MLXT_MEAN);
      array length = mx::sqrt(mx::sum(mx::square(means), 1, true));
      return means / mx::maximum(length, n(1e-12));
    }
    case Operation::host_to_device:
    case Operation::device_to_host: return mx::copy(x);
  }
  throw std::invalid_argument("an operation this bridge has not");
}

}  // namespace mlxt
