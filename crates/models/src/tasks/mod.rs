//! What hidden states are made into. Each task gives tensors or typed values, never text.
//!
//! Where next: `embed.rs` for pooling, which every encoder can; `head.rs` for the heads of all other tasks; `labels.rs`
//! for what a classifier's outputs mean.

pub(crate) mod embed;
pub(crate) mod head;
pub(crate) mod labels;

use std::fmt;

use serde_json::Value;

use crate::arch::{HeadDense, HeadNames};
use crate::layers::POOLER;
use crate::{Config, Error, Result, Weights};

/// What a checkpoint with a head is for. Reads as the command line spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Guesses masked tokens.
    FillMask,
    /// Gives a sequence, or a pair of them, scores for labels.
    Classify,
    /// Scores how well a text answers a query: a classifier of one label.
    Rerank,
    /// Tells which of any labels a text is about: a classifier with the label `entailment`.
    ZeroShot,
    /// Gives each token a label: named entities, parts of speech.
    TokenClassify,
    /// Finds the part of a text that answers a question.
    Answer,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 6] =
        [Self::FillMask, Self::Classify, Self::Rerank, Self::ZeroShot, Self::TokenClassify, Self::Answer];

    /// The name the command line gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FillMask => "fill-mask",
            Self::Classify => "classify",
            Self::Rerank => "rerank",
            Self::ZeroShot => "zero-shot",
            Self::TokenClassify => "ner",
            Self::Answer => "answer",
        }
    }

    /// What `transformers` calls models with its head, after `BertFor`.
    fn class(self) -> &'static str {
        match self {
            Self::FillMask => "MaskedLM",
            Self::Classify | Self::Rerank | Self::ZeroShot => "SequenceClassification",
            Self::TokenClassify => "TokenClassification",
            Self::Answer => "QuestionAnswering",
        }
    }

    /// The names of its head's tensors: where there are several kinds of heads, those the checkpoint has.
    pub(crate) fn head(self, config: &Config, weights: &Weights) -> &'static HeadNames {
        let heads = &config.architecture.heads;
        match self {
            Self::FillMask => {
                let here = heads.fill_mask.iter().find(|head| has_tensors(head, weights));
                here.unwrap_or(&heads.fill_mask[0])
            }
            Self::Classify | Self::Rerank | Self::ZeroShot => &heads.classify,
            Self::TokenClassify => &heads.tag,
            Self::Answer => &heads.span,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a checkpoint can do, besides embeddings and features, which every encoder can.
///
/// The classes in `architectures` say so; where none of them has a head that is known here, the tensors that are there
/// do. A classifier can rerank if it has one label, and classify without examples if one of its labels is `entailment`.
#[must_use]
pub fn tasks_of(config: &Config, weights: &Weights) -> Vec<Task> {
    let named = |task: &Task| classes(config).any(|class| is_class_of(config, class, *task));
    let mut tasks: Vec<Task> = Task::ALL.into_iter().filter(named).collect();
    if tasks.is_empty() {
        tasks = Task::ALL.into_iter().filter(|task| has_tensors(task.head(config, weights), weights)).collect();
    }
    tasks.retain(|task| match task {
        Task::Rerank => config.labels().is_ok_and(|labels| labels.len() == 1),
        Task::ZeroShot => config.entailment().is_some(),
        _ => true,
    });
    tasks
}

/// # Errors
/// [`Error::NoSuchTask`] if the checkpoint cannot do `task`.
pub(crate) fn require(task: Task, config: &Config, weights: &Weights) -> Result<()> {
    let can = tasks_of(config, weights);
    if can.contains(&task) { Ok(()) } else { Err(Error::NoSuchTask { asked: task, can }) }
}

/// Names of tasks as an error message lists them.
pub(crate) fn listed(tasks: &[Task]) -> String {
    let names: Vec<&str> = tasks.iter().map(|task| task.name()).chain(["embed", "features"]).collect();
    names.join(", ")
}

fn classes(config: &Config) -> impl Iterator<Item = &str> {
    let listed = config.raw("architectures").and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(Value::as_str)
}

/// BERT's pretraining class has the head for masked tokens; ELECTRA's of that name is a discriminator.
fn is_class_of(config: &Config, class: &str, task: Task) -> bool {
    let head = class.split_once("For").map(|(_, head)| head);
    head == Some(task.class())
        || (task == Task::FillMask && class == "BertForPreTraining" && config.model_type() == "bert")
}

/// A tied decoder's weight may be absent.
fn has_tensors(head: &HeadNames, weights: &Weights) -> bool {
    let has = |name: &str| weights.has(&format!("{name}.weight"));
    let has_out = || head.out.is_some_and(has);
    match &head.dense {
        Some(HeadDense::Own(name, _)) if head.norm.is_some() => has(name),
        Some(HeadDense::Own(name, _)) => has(name) && has_out(),
        Some(HeadDense::Pooler) => has_out() && weights.names().any(|name| name.ends_with(&format!("{POOLER}.weight"))),
        None => has_out(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_json(text).unwrap()
    }

    #[test]
    fn classes_tell_tasks() {
        let bert = config(r#"{"model_type": "bert"}"#);
        let electra = config(r#"{"model_type": "electra"}"#);
        assert!(is_class_of(&bert, "BertForMaskedLM", Task::FillMask));
        assert!(is_class_of(&bert, "BertForPreTraining", Task::FillMask));
        assert!(!is_class_of(&electra, "ElectraForPreTraining", Task::FillMask));
        assert!(is_class_of(&electra, "ElectraForSequenceClassification", Task::Rerank));
        assert!(!is_class_of(&bert, "BertForTokenClassification", Task::Classify));
        assert!(!is_class_of(&bert, "BertModel", Task::Answer));
    }

    #[test]
    fn an_error_says_what_the_checkpoint_can_do() {
        let error = Error::NoSuchTask { asked: Task::FillMask, can: vec![Task::Classify, Task::Rerank] };
        let message = "this checkpoint cannot do fill-mask: it is made for classify, rerank, embed, features";
        assert_eq!(error.to_string(), message);
    }
}
