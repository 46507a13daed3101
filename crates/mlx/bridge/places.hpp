// Ragged rows and the padded places attention needs: how rows get there and back, and which places are seen.
//
// Rows are [rows, cols], sequences end to end. Places are [sequences, longest]. Spare places hold a copy of the first row,
// so that nothing in them is infinite that was not before, and see at least one key, so that no softmax is empty.
#pragma once

#include <tuple>

#include "cuda.hpp"

namespace mlxt {

// The first `rows` rows, or zeros behind them.
inline array fit(const array &x, int rows) {
  if (x.shape(0) > rows) return mx::slice(x, mx::Shape{0, 0}, mx::Shape{rows, x.shape(1)}, mx::Shape{1, 1});
  if (x.shape(0) < rows) return mx::pad(x, std::vector<int>{0}, {0}, {rows - x.shape(0)}, array(0.0f, x.dtype()));
  return x;
}

// The rows of [rows, cols] that `places` name.
inline array rows_at(const array &x, const array &places) {
  return cuda::takes(places.shape(0), x.shape(1)) ? cuda::rows(x, places) : mx::take(x, places, 0);
}

// Sequences within one call: what attention and pooling derive from them is made once and shared by all layers.
class Places {
 public:
  Places(const mlxt_layout &layout, const std::vector<array> &inputs)
      : shape_(layout), lengths_(inputs.at(layout.first)), offsets_(inputs.at(layout.first + 1)) {
    if (!layout.packed) moves_.assign(inputs.begin() + layout.first + 2, inputs.begin() + layout.first + 5);
  }

  int rows() const { return shape_.rows; }
  int sequences() const { return shape_.sequences; }
  int longest() const { return shape_.longest; }
  // The first row of each sequence, and the end of the last one: [sequences + 1].
  const array &offsets() const { return offsets_; }

  // [rows, cols] to [sequences, longest, cols]
  array spread(const array &x) const {
    int count = sequences() * longest();
    array placed = shape_.packed ? fit(x, count) : rows_at(x, moves_.at(0));
    return mx::reshape(placed, {sequences(), longest(), x.shape(1)});
  }

  // [sequences, longest, ..] to [rows, cols]
  array collect(const array &x) const {
    array flat = mx::reshape(x, {sequences() * longest(), -1});
    return shape_.packed ? fit(flat, shape_.rows) : rows_at(flat, moves_.at(1));
  }

  // A table's line for each row's position: [longest, n] to [rows, n].
  array by_position(const array &table) const {
    if (!shape_.packed) return mx::take(table, moves_.at(2), 0);
    array every = mx::broadcast_to(mx::expand_dims(table, 0), {sequences(), longest(), table.shape(1)});
    return collect(every);
  }

  // Whether a place holds a row: [sequences, longest].
  array real() const { return mx::less(mx::expand_dims(steps(), 0), mx::expand_dims(lengths_, 1)); }

  // Which keys queries see, [.., longest or 1, longest] of bool; nothing where they see all.
  std::optional<array> seen(int mask, int radius) {
    auto key = std::make_tuple(mask, radius);
    if (auto found = seen_.find(key); found != seen_.end()) return found->second;
    std::optional<array> seen;
    auto also = [&](const array &more) { seen = seen ? mx::logical_and(*seen, more) : more; };
    array distance = mx::expand_dims(steps(), 1) - mx::expand_dims(steps(), 0);
    // Keys behind the end are behind every real query too.
    if (mask == MLXT_CAUSAL) also(mx::greater_equal(distance, array(0)));
    if (mask == MLXT_WINDOW && radius < longest()) also(mx::less_equal(mx::abs(distance), array(radius)));
    if (mask != MLXT_CAUSAL && !shape_.full) also(mx::expand_dims(real(), {1, 2}));
    // The others see at least themselves or the first.
    if (seen && mask == MLXT_WINDOW) seen = mx::logical_or(*seen, mx::equal(distance, array(0)));
    return seen_.emplace(key, seen).first->second;
  }

  // The same as what scores gain. MLX makes this of a mask of bool in every layer.
  std::optional<array> hidden(int mask, int radius, mx::Dtype type) {
    auto key = std::make_tuple(mask, radius, type.val());
    if (auto found = hidden_.find(key); found != hidden_.end()) return found->second;
    auto seen = this->seen(mask, radius);
    std::optional<array> hidden;
    if (seen) hidden = mx::where(*seen, array(0.0f, type), array(mx::finfo(type).min, type));
    return hidden_.emplace(key, hidden).first->second;
  }

  // One row for each sequence, [sequences, cols], in f32.
  array reduce(const array &x, int reduction) const {
    array rows = as(spread(x), mx::float32);
    auto others = [&](float value) {
      return shape_.full ? rows : mx::where(mx::expand_dims(real(), 2), rows, array(value));
    };
    array count = as(mx::expand_dims(lengths_, 1), mx::float32);
    switch (reduction) {
      case MLXT_MEAN: return mx::sum(others(0), 1) / count;
      case MLXT_MAX: return mx::max(others(-INFINITY), 1);
      case MLXT_MEAN_SQRT_LENGTH: return mx::sum(others(0), 1) / mx::sqrt(count);
      case MLXT_WEIGHTED_MEAN: {
        array weights = mx::reshape(as(steps(), mx::float32) + array(1.0f), {1, longest(), 1});
        return mx::sum(others(0) * weights, 1) / (count * (count + array(1.0f)) * array(0.5f));
      }
      default: throw std::invalid_argument("a reduction this bridge has not");
    }
  }

 private:
  // 0, 1, 2 ..: [longest]
  array steps() const { return mx::arange(longest()); }

  mlxt_layout shape_;
  array lengths_, offsets_;
  std::vector<array> moves_;
  std::map<std::tuple<int, int>, std::optional<array>> seen_;
  std::map<std::tuple<int, int, mx::Dtype::Val>, std::optional<array>> hidden_;
};

}  // namespace mlxt
