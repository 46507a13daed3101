// Attention over places, and what scores gain by distance.
#pragma once

#include "places.hpp"
#include "ragged.hpp"

namespace mlxt {

struct Relative {
  std::vector<int32_t> buckets;
  int reach;
  std::optional<array> keys, queries, bias;
};

// A relative term for sequences of one length. Parts are by distance, not by bucket: 2 * longest - 1 lines.
struct Distances {
  std::optional<array> keys;     // [heads, head_size, lines]: line d is of key - query = d - (longest - 1)
  std::optional<array> queries;  // likewise, of query - key
  std::optional<array> bias;     // [heads, longest, longest]
};

// out[.., i, j] = x[.., i, j - i + n - 1] for x of [.., n, 2n - 1]: each line starts one value earlier than the last.
inline array skew(const array &x) {
  int s = x.shape(0), h = x.shape(1), n = x.shape(2);
  int64_t line = 2 * n - 1;
  return mx::as_strided(x, {s, h, n, n}, {h * n * line, n * line, line - 1, 1}, n - 1);
}

// Made when a program is: nothing of it depends on the batch.
inline Distances by_distance(const Relative &r, int longest, int heads, int head_size) {
  int lines = 2 * longest - 1;
  auto bucket = [&](int distance) {
    return r.buckets.at(std::min(std::max(distance, -r.reach), r.reach) + r.reach);
  };
  // Distances are query - key.
  std::vector<int32_t> falling(lines), rising(lines);
  for (int d = 0; d < lines; ++d) {
    falling[d] = bucket(longest - 1 - d);
    rising[d] = bucket(d - (longest - 1));
  }
  auto lines_of = [&](const array &part, const std::vector<int32_t> &buckets) {
    array rows = mx::take(part, array(buckets.data(), {lines}), 0);
    return mx::contiguous(as(mx::transpose(mx::reshape(rows, {lines, heads, head_size}), {1, 2, 0}), mx::float32));
  };
  Distances out;
  if (r.keys) out.keys = lines_of(*r.keys, falling);
  if (r.queries) out.queries = lines_of(*r.queries, rising);
  if (r.bias) {
    std::vector<int32_t> pairs(static_cast<size_t>(longest) * longest);
    for (int i = 0; i < longest; ++i)
      for (int j = 0; j < longest; ++j) pairs[static_cast<size_t>(i) * longest + j] = bucket(i - j);
    array rows = mx::take(*r.bias, array(pairs.data(), {longest, longest}), 0);
    out.bias = mx::contiguous(as(mx::transpose(rows, {2, 0, 1}), mx::float32));
  }
  std::vector<array> made;
  for (auto &part : {out.keys, out.queries, out.bias})
    if (part) made.push_back(*part);
  mx::eval(made);
  return out;
}

// Whether cuDNN takes it: one kernel that keeps scores in f32. Everything else is a product, a softmax and a product, which
// round them to what activations are.
inline bool is_fused(const mlxt_step &s, const Distances *relative) {
  return kind() != Kind::cpu && !relative && s.head_size % 8 == 0 && s.head_size <= 128;
}

// [rows, 3 * heads * head_size] to [rows, heads * head_size], of activations or of f32
inline array attend(Places &places, const array &given, const mlxt_step &s, const Distances *relative) {
  if (kind() == Kind::cuda && !relative) {
    const int all = 1 << 29;
    int reach = s.mask == MLXT_WINDOW ? std::min(s.radius, all) : all;
    cuda::Heads heads{s.heads, s.head_size, s.scale, reach, s.mask == MLXT_CAUSAL ? 0 : reach};
    auto by = cuda::attention_for(heads, given.dtype(), given.shape(0));
    if (by) return cuda::attend(given, places.offsets(), places.longest(), heads, *by);
  }
  array packed = places.spread(is_fused(s, relative) ? given : as(given, mx::float32));
  auto heads = [&](const array &x) {
    return mx::transpose(mx::reshape(x, {places.sequences(), places.longest(), s.heads, s.head_size}), {0, 2, 1, 3});
  };
  auto parts = mx::split(packed, 3, 2);
  array q = heads(parts[0]), k = heads(parts[1]), v = heads(parts[2]);
  bool causal = s.mask == MLXT_CAUSAL && !relative;
  std::optional<array> mask;
  if (relative) {
    auto add = [&](const array &more) { mask = mask ? *mask + more : more; };
    array scale = number(s.scale, q);
    if (relative->keys) add(skew(mx::matmul(q * scale, *relative->keys)));
    if (relative->queries) add(mx::swapaxes(skew(mx::matmul(k * scale, *relative->queries)), 2, 3));
    if (relative->bias) add(mx::expand_dims(*relative->bias, 0));
  }
  if (mask) {
    auto seen = places.seen(s.mask, s.radius);
    if (seen) mask = mx::where(*seen, *mask, number(-INFINITY, *mask));
  } else if (!causal) {
    mask = places.hidden(s.mask, s.radius, q.dtype());
  }
  array out = mx::fast::scaled_dot_product_attention(
      q, k, v, s.scale, causal ? "causal" : "", mask);
  return places.collect(mx::transpose(out, {0, 2, 1, 3}));
}

// Queries and keys of [rows, 3 * heads * head_size] turned by [rows, head_size]: cosines, then sines.
inline array rotate(const array &qkv, const array &angles, int heads, int head_size) {
  int rows = qkv.shape(0), half = head_size / 2;
  array x = mx::reshape(qkv, {rows, 3 * heads, head_size});
  auto part = [&](int first_head, int last_head, int first, int last) {
    return mx::slice(x, mx::Shape{0, first_head, first}, mx::Shape{rows, last_head, last}, mx::Shape{1, 1, 1});
  };
  array a = as(part(0, 2 * heads, 0, half), mx::float32), b = as(part(0, 2 * heads, half, head_size), mx::float32);
  auto halves = mx::split(mx::expand_dims(angles, 1), 2, 2);
  array turned = mx::concatenate({a * halves[0] - b * halves[1], b * halves[0] + a * halves[1]}, 2);
  array all = mx::concatenate({as(turned, qkv.dtype()), part(2 * heads, 3 * heads, 0, head_size)}, 1);
  return mx::reshape(all, {rows, 3 * heads * head_size});
}

}  // namespace mlxt
