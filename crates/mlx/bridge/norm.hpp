// Normalisation of rows, and of their sum with others.
#pragma once

#include "cuda.hpp"

namespace mlxt {

struct Norm {
  bool root_mean_square;
  // As f32 and in the other types activations have.
  std::map<mx::Dtype::Val, array> gain, shift;
  float eps;
};

struct Normalised {
  array out;
  array sum;  // of the rows and their residual; nothing to rely on if it was not asked for
};

inline Normalised normalise(const array &given, const std::optional<array> &residual, const Norm &n, bool keep) {
  auto shift = [&](mx::Dtype type) {
    auto found = n.shift.find(type.val());
    return found == n.shift.end() ? std::nullopt : std::optional<array>(found->second);
  };
  if (cuda::takes(given.shape(0), given.shape(1))) {
    cuda::Norm norm{!n.root_mean_square, n.eps, n.gain.at(mx::float32.val()), shift(mx::float32)};
    auto made = cuda::norm(given, residual, norm, keep);
    return {made.front(), made.back()};
  }
  // On the CPU rows are brought around 0 first, for MLX's sums there are plain loops, and lose four digits of a deviation that is
  // a hundredth of the mean; and 16 bits are made 32, for it rounds to 16 after each of its steps.
  bool cpu = kind() == Kind::cpu;
  auto taken = [&](const array &part) { return cpu ? as(part, mx::float32) : part; };
  array x = residual ? taken(given) + taken(*residual) : taken(given);
  const array &gain = n.gain.at(x.dtype().val());
  if (!n.root_mean_square)
    return {mx::fast::layer_norm(cpu ? x - mx::mean(x, -1, true) : x, gain, shift(x.dtype()), n.eps), x};
  array y = mx::fast::rms_norm(x, gain, n.eps);
  return {shift(x.dtype()) ? y + *shift(x.dtype()) : y, x};
}

}  // namespace mlxt
