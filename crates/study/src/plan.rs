//! A plan: which cells, which variants, how often. A TOML file; those of `study/plans/` are part of the program.
//!
//! It holds no measurement and starts nothing: `runner/` does.

use std::path::Path;

use serde::Deserialize;

use crate::models::{Batch, Model};
use crate::operations::{self, Case};
use crate::peers::Pattern;
use crate::record::{Cell, Length};
use crate::{Error, Result};

/// The plans that are part of the program, by name.
const BUILT_IN: [(&str, &str); 8] = [
    ("quick", include_str!("../../../study/plans/quick.toml")),
    ("paper", include_str!("../../../study/plans/paper.toml")),
    ("precision", include_str!("../../../study/plans/precision.toml")),
    ("cpu", include_str!("../../../study/plans/cpu.toml")),
    ("ragged", include_str!("../../../study/plans/ragged.toml")),
    ("gpu", include_str!("../../../study/plans/gpu.toml")),
    ("gpu-models", include_str!("../../../study/plans/gpu-models.toml")),
    ("full", include_str!("../../../study/plans/full.toml")),
];

/// A plan, checked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its name: of the built-in plan, or of the file.
    #[serde(skip)]
    pub name: String,
    /// What it is for, in a sentence.
    pub about: String,
    /// Who runs, as patterns of variants.
    pub variants: Vec<Pattern>,
    /// Whose results are golden: the first of these that can run.
    pub golden: Vec<Pattern>,
    /// How many processes of each variant measure each cell.
    pub processes: usize,
    /// A worker that is silent for so long is ended.
    pub timeout_seconds: f64,
    /// The encoders, if any.
    pub models: Option<ModelsPlan>,
    /// The operations, if any.
    pub operations: Option<OperationsPlan>,
}

/// The encoders of a plan and how often they run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelsPlan {
    names: Vec<String>,
    /// Texts of exactly so many characters.
    #[serde(default)]
    characters: Vec<usize>,
    /// Texts of exactly so many tokens.
    #[serde(default)]
    tokens: Vec<usize>,
    /// The corpus of real sentences, all of them at once.
    #[serde(default)]
    ragged: bool,
    #[serde(default)]
    batch: Vec<usize>,
    /// How often.
    #[serde(flatten)]
    pub effort: Effort,
}

/// The operations of a plan and how often they run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationsPlan {
    sets: Vec<String>,
    /// Only these; all of the sets without it.
    #[serde(default)]
    only: Vec<String>,
    /// Leave out cases whose operands and result have more values than this.
    #[serde(default)]
    at_most_values: Option<u64>,
    /// How often.
    #[serde(flatten)]
    pub effort: Effort,
}

/// How often a row is measured.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Effort {
    /// Iterations before any counts.
    pub warmup: usize,
    /// Iterations that count, in all rounds together.
    pub iterations: usize,
    /// In how many rounds, between which the other variants have their turns.
    pub rounds: usize,
    /// More iterations than that, as long as they take less than this together ..
    pub at_least_seconds: f64,
    /// .. and fewer, but one at least, where they would take more.
    pub at_most_seconds: f64,
    /// Leave a variant out of a cell where one iteration would take longer than this, going by its smaller cells.
    #[serde(default)]
    pub at_most_seconds_each: Option<f64>,
}

/// How often a variant runs in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Iterations of each of its rounds.
    pub iterations: usize,
    /// In how many of the rounds it takes part.
    pub rounds: usize,
}

impl Effort {
    /// What is done when one iteration takes `seconds`.
    pub fn schedule(&self, seconds: f64) -> Schedule {
        let seconds = seconds.max(1e-9);
        // A million iterations are enough for anybody's clock.
        let wanted = (self.iterations as f64).max(self.at_least_seconds / seconds).min(1e6);
        let total = wanted.min(self.at_most_seconds / seconds).max(1.0) as usize;
        let rounds = self.rounds.min(total);
        Schedule { iterations: total.div_ceil(rounds), rounds }
    }
}

/// A cell and what its workers are given.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The cell.
    pub cell: Cell,
    /// What is given.
    pub given: Given,
}

/// What workers are given to compute on.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// Token ids.
    Texts(Batch),
    /// An operation's case.
    Case(Case),
}

/// Cells that share what is loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The model; `None` for operations.
    pub model: Option<&'static Model>,
    /// How often its rows are measured.
    pub effort: Effort,
    /// The cells.
    pub tasks: Vec<Task>,
}

impl Plan {
    /// Names and purposes of the built-in plans.
    ///
    /// # Errors
    /// None with the files this program is built with.
    pub fn built_in() -> Result<Vec<Self>> {
        BUILT_IN.iter().map(|(name, text)| Self::parse(name, text)).collect()
    }

    /// The built-in plan of that name, or the one in that file.
    ///
    /// # Errors
    /// No such plan; a file that is none.
    pub fn open(name: &str) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let path = Path::new(name);
        if !path.is_file() {
            let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            let what = format!("there is no such plan or file: {} are built in", names.join(", "));
            return Err(Error::Plan { name: name.into(), what });
        }
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let stem = path.file_stem().map_or_else(|| name.into(), |stem| stem.to_string_lossy());
        Self::parse(&stem, &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let fault = |what: String| Error::Plan { name: name.into(), what };
        let plan: Self = toml::from_str(text).map_err(|e| fault(e.to_string()))?;
        let plan = Self { name: name.into(), ..plan };
        if plan.processes == 0 || plan.timeout_seconds.is_nan() || plan.timeout_seconds <= 0.0 {
            return Err(fault("processes and timeout_seconds have to be above 0".into()));
        }
        for group in plan.groups()? {
            let Effort { iterations, rounds, at_least_seconds, at_most_seconds, at_most_seconds_each, .. } =
                group.effort;
            let limits = [Some(at_most_seconds), at_most_seconds_each];
            let limited = limits.into_iter().flatten().all(|limit| limit > 0.0 && limit.is_finite());
            let seconds = at_least_seconds >= 0.0 && limited;
            if iterations == 0 || rounds == 0 || !seconds || at_least_seconds.is_infinite() {
                return Err(fault("iterations, rounds and the seconds at most have to be above 0 and finite".into()));
            }
            if group.tasks.is_empty() {
                return Err(fault("there is no cell in it".into()));
            }
        }
        Ok(plan)
    }

    /// The cells, by what is loaded for them.
    ///
    /// # Errors
    /// Models and workloads there are not.
    pub fn groups(&self) -> Result<Vec<Group>> {
        let mut groups = Vec::new();
        if let Some(plan) = &self.operations {
            let cases = operations::cases()?.into_iter().filter(|case| plan.has(case));
            let task = |case: Case| Ok(Task { cell: case.cell()?, given: Given::Case(case) });
            let mut tasks = cases.map(task).collect::<Result<Vec<_>>>()?;
            tasks.retain(|task| plan.at_most_values.is_none_or(|most| task.cell.bytes / 4 <= most));
            groups.push(Group { model: None, effort: plan.effort, tasks });
        }
        if let Some(plan) = &self.models {
            let lengths = plan.characters.iter().map(|&n| Length::Characters(n));
            let lengths: Vec<_> = lengths.chain(plan.tokens.iter().map(|&n| Length::Tokens(n))).collect();
            for name in &plan.names {
                let model = Model::find(name)?;
                let grid = lengths.iter().flat_map(|&length| plan.batch.iter().map(move |&batch| (length, batch)));
                // The ragged corpus comes as it is, in one batch.
                let grid = grid.chain(plan.ragged.then_some((Length::Ragged, 1)));
                let task = |(length, batch)| {
                    let (cell, texts) = model.cell(length, batch)?;
                    Ok(Task { cell, given: Given::Texts(texts) })
                };
                let tasks = grid.map(task).collect::<Result<Vec<_>>>()?;
                groups.push(Group { model: Some(model), effort: plan.effort, tasks });
            }
        }
        Ok(groups)
    }
}

impl OperationsPlan {
    fn has(&self, case: &Case) -> bool {
        self.sets.contains(&case.set) && (self.only.is_empty() || self.only.contains(&case.operation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_plans_are_whole() {
        let plans = Plan::built_in().unwrap();
        assert_eq!(plans.len(), BUILT_IN.len());
        let paper = Plan::open("paper").unwrap();
        let groups = paper.groups().unwrap();
        let cells =
            |name| groups.iter().find(|g| g.model.map_or("operations", |m| m.name) == name).unwrap().tasks.len();
        assert!(cells("operations") >= 91);
        for model in ["bert-base", "bert-large", "roberta-base", "xlm-roberta-base"] {
            // 50, 100, 200, 500 characters by 1, 16, 32 texts.
            assert!(cells(model) >= 12);
        }
        let effort = groups[0].effort;
        assert_eq!((effort.iterations, groups[1].effort.iterations), (5, 10));
    }

    #[test]
    fn effort_follows_the_clock() {
        let effort = Effort {
            warmup: 1,
            iterations: 10,
            rounds: 5,
            at_least_seconds: 1.0,
            at_most_seconds: 20.0,
            at_most_seconds_each: None,
        };
        let schedule = |seconds| {
            let Schedule { iterations, rounds } = effort.schedule(seconds);
            (iterations, rounds)
        };
        assert_eq!(schedule(0.1), (2, 5));
        assert_eq!(schedule(0.01), (20, 5));
        assert_eq!(schedule(4.0), (1, 5));
        assert_eq!(schedule(7.0), (1, 2));
        assert_eq!(schedule(1000.0), (1, 1));
        assert_eq!(schedule(0.0), (200_000, 5));
    }

    #[test]
    fn plans_that_ask_for_what_there_is_not_are_refused() {
        assert!(
            Plan::open("nightly")
                .unwrap_err()
                .to_string()
                .contains("quick, paper, precision, cpu, ragged, gpu, gpu-models, full")
        );
        let quick = BUILT_IN[0].1;
        for (from, to) in [("about", "abuot"), ("processes = ", "processes = -"), ("rounds = ", "rounds = 0 #")] {
            assert!(quick.contains(from));
            assert!(Plan::parse("x", &quick.replacen(from, to, 1)).is_err(), "{from}");
        }
    }
}
