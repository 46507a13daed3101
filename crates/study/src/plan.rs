//! A plan: which cells, which variants, how often. A TOML file; those of `study/plans/` are part of the program.
//!
//! It holds no measurement and starts nothing: `runner/` does.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::models::{Batch, MODELS, Model};
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

/// What a plan may ask for at most: far more than anybody waits for, and little enough to be counted and held in memory.
const MOST_PROCESSES: usize = 1000;
const MOST_TEXTS: usize = 4096;
const MOST_ITERATIONS: usize = 1_000_000;
const MOST_ROUNDS: usize = 10_000;

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
        plan.within_limits().map_err(fault)?;
        plan.all_once().map_err(fault)?;
        if plan.models.is_none() && plan.operations.is_none() {
            return Err(fault("there is nothing to measure in it: [models], [operations] or both are needed".into()));
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
                let of = group.model.map_or("operations", |model| model.name);
                return Err(fault(format!("there is no cell of {of} in it")));
            }
        }
        Ok(plan)
    }

    /// Refuses numbers whose cells could not be held or counted, before any cell is made.
    fn within_limits(&self) -> Result<(), String> {
        let mut all = vec![("processes", self.processes, 1, MOST_PROCESSES)];
        let efforts = [self.models.as_ref().map(|m| m.effort), self.operations.as_ref().map(|o| o.effort)];
        for effort in efforts.into_iter().flatten() {
            all.push(("warmup", effort.warmup, 0, MOST_ITERATIONS));
            all.push(("iterations", effort.iterations, 1, MOST_ITERATIONS));
            all.push(("rounds", effort.rounds, 1, MOST_ROUNDS));
        }
        let batches = self.models.iter().flat_map(|models| &models.batch);
        all.extend(batches.map(|&batch| ("batch", batch, 1, MOST_TEXTS)));
        let wrong = all.into_iter().find(|(_, number, least, most)| !(least..=most).contains(&number));
        match wrong {
            Some((key, number, least, most)) => Err(format!("{key} = {number}: from {least} to {most}")),
            None => Ok(()),
        }
    }

    /// Refuses lists that have an entry twice: its cells would be measured twice under one name, or it stands for another.
    fn all_once(&self) -> Result<(), String> {
        once("variants", &self.variants)?;
        once("golden", &self.golden)?;
        if let Some(models) = &self.models {
            once("names", &models.names)?;
            once("characters", &models.characters)?;
            once("tokens", &models.tokens)?;
            once("batch", &models.batch)?;
        }
        if let Some(operations) = &self.operations {
            once("sets", &operations.sets)?;
            once("only", &operations.only)?;
        }
        Ok(())
    }

    /// The cells, by what is loaded for them.
    ///
    /// # Errors
    /// Models and workloads there are not.
    pub fn groups(&self) -> Result<Vec<Group>> {
        let mut groups = Vec::new();
        if let Some(plan) = &self.operations {
            let cases = operations::cases()?;
            let known: BTreeSet<_> = cases.iter().map(|case| case.set.as_str()).collect();
            self.only_known("sets", &plan.sets, &known)?;
            let cases = cases.into_iter().filter(|case| plan.has(case));
            let task = |case: Case| Ok(Task { cell: case.cell()?, given: Given::Case(case) });
            let mut tasks = cases.map(task).collect::<Result<Vec<_>>>()?;
            tasks.retain(|task| plan.at_most_values.is_none_or(|most| task.cell.bytes / 4 <= most));
            groups.push(Group { model: None, effort: plan.effort, tasks });
        }
        if let Some(plan) = &self.models {
            let lengths = plan.characters.iter().map(|&n| Length::Characters(n));
            let lengths: Vec<_> = lengths.chain(plan.tokens.iter().map(|&n| Length::Tokens(n))).collect();
            self.only_known("names", &plan.names, &MODELS.iter().map(|model| model.name).collect())?;
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

    /// Refuses a list that is empty or names what there is not.
    fn only_known(&self, key: &str, asked: &[String], known: &BTreeSet<&str>) -> Result<()> {
        let wrong = match asked.iter().find(|name| !known.contains(name.as_str())) {
            Some(unknown) => format!("there is no {unknown:?}"),
            None if asked.is_empty() => "it is empty".into(),
            None => return Ok(()),
        };
        let known = known.iter().copied().collect::<Vec<_>>().join(", ");
        Err(Error::Plan { name: self.name.clone(), what: format!("{key}: {wrong}: there are {known}") })
    }
}

impl OperationsPlan {
    fn has(&self, case: &Case) -> bool {
        self.sets.contains(&case.set) && (self.only.is_empty() || self.only.contains(&case.operation))
    }
}

/// Refuses a list that has an entry twice.
pub(crate) fn once(key: &str, entries: &[impl PartialEq + fmt::Display]) -> Result<(), String> {
    let Some((first, second)) = twice(entries) else { return Ok(()) };
    let (entry, first, second) = (&entries[first], first + 1, second + 1);
    Err(format!("{key}: {entry} is there twice, as entry {first} and as entry {second}: leave one out"))
}

/// The places of the first two entries that are the same.
pub(crate) fn twice(entries: &[impl PartialEq]) -> Option<(usize, usize)> {
    let before = |place: usize| entries[..place].iter().position(|other| *other == entries[place]);
    (0..entries.len()).find_map(|place| Some((before(place)?, place)))
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

    fn refused(text: &str) -> String {
        Plan::parse("x", text).unwrap_err().to_string()
    }

    #[test]
    fn numbers_beyond_all_measure_are_refused_by_their_key() {
        let quick = BUILT_IN[0].1;
        for (key, limits) in [
            ("processes", "1 to 1000"),
            ("warmup", "0 to 1000000"),
            ("iterations", "1 to 1000000"),
            ("rounds", "1 to 10000"),
        ] {
            let huge = quick.replacen(&format!("{key} = "), &format!("{key} = {} #", i64::MAX), 1);
            let expected = format!("x: {key} = {}: from {limits}", i64::MAX);
            assert_eq!(refused(&huge), expected);
        }
        assert!(quick.contains("batch = [1, 8]"));
        for batch in ["9223372036854775807", "0"] {
            let error = refused(&quick.replacen("batch = [1, 8]", &format!("batch = [1, {batch}]"), 1));
            assert_eq!(error, format!("x: batch = {batch}: from 1 to 4096"));
        }
        let characters = refused(&quick.replacen("characters = [", "characters = [9223372036854775807, ", 1));
        assert!(characters.contains("9223372036854775807") && characters.contains("50, 100, 200, 500"), "{characters}");
    }

    #[test]
    fn what_is_in_a_list_twice_is_refused_by_its_key() {
        let quick = BUILT_IN[0].1;
        for (list, twice, expected) in [
            ("batch = [1, 8]", "batch = [1, 8, 1]", "batch: 1 is there twice, as entry 1 and as entry 3"),
            ("[50, 100, 200]", "[50, 100, 100]", "characters: 100 is there twice, as entry 2 and as entry 3"),
            ("[50, 100, 200]", "[50]\ntokens = [8, 8]", "tokens: 8 is there twice"),
            ("[\"minilm-l6\"]", "[\"minilm-l6\", \"minilm-l6\"]", "names: minilm-l6 is there twice"),
            ("[\"published\"]", "[\"published\", \"published\"]", "sets: published is there twice"),
            ("[\"published\"]", "[\"published\"]\nonly = [\"ReLU\", \"ReLU\"]", "only: ReLU is there twice"),
            ("golden = [", "golden = [\"a/b/c/d\", \"a/b/c/d\", ", "golden: a/b/c/d is there twice"),
            ("variants = [", "variants = [\"a/*/c/d\", \"a/*/c/d\", ", "variants: a/*/c/d is there twice"),
        ] {
            assert!(quick.contains(list), "{list}");
            let error = refused(&quick.replacen(list, twice, 1));
            assert!(error.starts_with(&format!("x: {expected}")) && error.ends_with("leave one out"), "{error}");
        }
    }

    #[test]
    fn what_a_plan_could_have_named_is_listed() {
        let quick = BUILT_IN[0].1;
        let error = refused(&quick.replacen("\"published\"", "\"publish\"", 1));
        assert_eq!(error, "x: sets: there is no \"publish\": there are encoder, published");
        let error = refused(&quick.replacen("\"minilm-l6\"", "\"minilm\"", 1));
        assert!(error.starts_with("x: names: there is no \"minilm\"") && error.contains("bert-base"), "{error}");
        let error = refused(&quick.replacen("[\"minilm-l6\"]", "[]", 1));
        assert!(error.starts_with("x: names: it is empty") && error.contains("bert-base"), "{error}");
        let nothing = quick.split("[operations]").next().unwrap();
        assert!(refused(nothing).contains("[models], [operations] or both are needed"));
    }
}
