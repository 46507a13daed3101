// A plan as a function of arrays: its steps over the values they make.
#pragma once

#include "attention.hpp"
#include "norm.hpp"

namespace mlxt {

array uploaded(const mlxt_host &host);
mx::Dtype type_of(int element);

class Plan {
 public:
  explicit Plan(const mlxt_plan &plan)
      : activations_(type_of(plan.activations)),
        values_(plan.values),
        layouts_(plan.layout, plan.layout + plan.layouts),
        outputs_(plan.output, plan.output + plan.outputs) {
    std::map<const mlxt_host *, array> angles;
    for (int i = 0; i < plan.steps; ++i) steps_.emplace_back(plan.step[i], angles);
  }

  std::vector<array> operator()(const std::vector<array> &inputs) {
    Run run{inputs, {}, std::vector<std::optional<array>>(values_), {}};
    for (const auto &layout : layouts_) run.places.emplace_back(layout, inputs);
    for (auto &step : steps_) apply(step, run);
    std::vector<array> outputs;
    for (int id : outputs_) outputs.push_back(run.values.at(id).value());
    return outputs;
  }

 private:
  // What one step keeps of the weights it was given.
  struct Step {
    mlxt_step settings;  // its pointers are not to be followed any more
    std::vector<array> tables;
    std::vector<int32_t> ids;
    std::optional<Matrix> matrix;
    std::optional<Norm> norm;
    std::optional<Relative> relative;
    std::optional<array> angles;
    std::optional<Distances> distances;

    Step(const mlxt_step &given, std::map<const mlxt_host *, array> &known);
  };

  // What one call makes.
  struct Run {
    const std::vector<array> &inputs;
    std::vector<Places> places;
    std::vector<std::optional<array>> values;
    std::map<std::pair<int, std::uintptr_t>, array> turns;  // angles of rows, by layout and table
  };

  void apply(Step &step, Run &run) const;
  const Distances *distances(Step &step, int longest) const;

  mx::Dtype activations_;
  int values_;
  std::vector<mlxt_layout> layouts_;
  std::vector<int> outputs_;
  std::vector<Step> steps_;
};

}  // namespace mlxt

// The handles' contents.
struct mlxt_array {
  mlxt::array value;
};
struct mlxt_matrix {
  mlxt::Matrix value;
};
struct mlxt_norm {
  mlxt::Norm value;
};
struct mlxt_relative {
  mlxt::Relative value;
};

namespace mlxt {

inline Plan::Step::Step(const mlxt_step &given, std::map<const mlxt_host *, array> &known) : settings(given) {
  for (int i = 0; i < given.lookups; ++i) {
    tables.push_back(given.tables[i]->value);
    ids.push_back(given.ids[i]);
  }
  if (given.matrix) matrix = given.matrix->value;
  if (given.norm) norm = given.norm->value;
  if (given.relative) relative = given.relative->value;
  if (given.angles) {
    auto found = known.find(given.angles);
    if (found == known.end()) found = known.emplace(given.angles, uploaded(*given.angles)).first;
    angles = found->second;
  }
}

inline const Distances *Plan::distances(Step &step, int longest) const {
  const mlxt_step &s = step.settings;
  if (step.relative && !step.distances)
    step.distances = by_distance(*step.relative, longest, s.heads, s.head_size);
  return step.distances ? &*step.distances : nullptr;
}

// A row of each table, summed up in f32.
inline array embed(const std::vector<array> &tables, const std::vector<array> &ids, mx::Dtype type) {
  if (cuda::takes(ids.at(0).shape(0), tables.at(0).shape(1))) return cuda::embed(tables, ids, type);
  std::optional<array> sum;
  for (size_t i = 0; i < tables.size(); ++i) {
    array rows = as(mx::take(tables[i], ids[i], 0), mx::float32);
    sum = sum ? *sum + rows : rows;
  }
  return sum.value();
}

inline void Plan::apply(Step &step, Run &run) const {
  const mlxt_step &s = step.settings;
  auto value = [&](int id) -> const array & { return run.values.at(id).value(); };
  auto input = [&](int i) -> const array & { return run.inputs.at(i); };
  auto keep = [&](const array &made, int offset = 0) { run.values.at(s.result + offset) = as(made, activations_); };
  switch (s.kind) {
    case MLXT_INPUT: return keep(input(s.input));
    case MLXT_EMBED: {
      std::vector<array> ids;
      for (int id : step.ids) ids.push_back(input(id));
      return keep(embed(step.tables, ids, activations_));
    }
    case MLXT_LINEAR: return keep(activate(linear(value(s.x), *step.matrix), s.activation));
    case MLXT_GATE: {
      auto halves = mx::split(value(s.x), 2, 1);
      return keep(activate(halves[0], s.activation) * halves[1]);
    }
    case MLXT_NORM:
    case MLXT_ADD_NORM: {
      const array &x = value(s.x);
      std::optional<array> residual;
      if (s.residual >= 0) residual = fit(value(s.residual), x.shape(0));
      Normalised made = normalise(x, residual, *step.norm, s.kind == MLXT_ADD_NORM);
      if (s.kind == MLXT_NORM) return keep(made.out);
      keep(made.sum);
      return keep(made.out, 1);
    }
    case MLXT_ROTATE: {
      auto key = std::make_pair(s.layout, step.angles->id());
      auto found = run.turns.find(key);
      const array x = fit(value(s.x), run.places.at(s.layout).rows());
      if (found == run.turns.end())
        found = run.turns.emplace(key, run.places.at(s.layout).by_position(*step.angles)).first;
      return keep(rotate(x, found->second, s.heads, s.head_size));
    }
    case MLXT_ATTENTION: {
      Places &places = run.places.at(s.layout);
      return keep(attend(places, value(s.x), s, distances(step, places.longest())));
    }
    case MLXT_TAKE_ROWS: return keep(rows_at(value(s.x), input(s.input)));
    case MLXT_REDUCE_ROWS: return keep(run.places.at(s.layout).reduce(value(s.x), s.reduction));
    default: throw std::invalid_argument("a step this bridge has not");
  }
}

}  // namespace mlxt
