//! What tells one architecture from another: a row of names, settings and switches per `model_type`.
//!
//! All of them are the same computation (embeddings, then layers of attention and feed-forward, each followed by
//! residual and norm); `layers/` holds that. To add one: a file here and a row in [`ALL`].

mod bert;
mod distilbert;
mod electra;
mod roberta;

use mlxt_backend::Activation;

/// Every architecture, in the order in which error messages list them.
pub(crate) const ALL: [&Architecture; 6] = [
    &bert::BERT,
    &roberta::ROBERTA,
    &roberta::XLM_ROBERTA,
    &roberta::CAMEMBERT,
    &distilbert::DISTILBERT,
    &electra::ELECTRA,
];

/// A row: how a checkpoint of one `model_type` is read.
pub(crate) struct Architecture {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// What precedes the names of the base model's tensors when a checkpoint has task heads too.
    pub prefix: &'static str,
    /// Where its settings are in `config.json`.
    pub settings: Settings,
    /// How its tensors are called.
    pub names: Names,
    /// How tokens get their positions.
    pub positions: Positions,
    /// Whether there may be a pooler.
    pub pooler: bool,
    /// How the tensors of task heads are called.
    pub heads: Heads,
}

/// Where a setting is in `config.json` and what `transformers` takes when it is not there.
pub(crate) struct Setting<T> {
    /// Its names, aliases last. Without a name the setting is fixed at its default.
    pub names: &'static [&'static str],
    /// Its value where the file does not say.
    pub default: T,
}

/// The settings that shape an encoder.
pub(crate) struct Settings {
    pub vocab_size: Setting<usize>,
    pub positions: Setting<usize>,
    /// Default 0: no token types.
    pub token_types: Setting<usize>,
    /// `None`: always the hidden size.
    pub embedding_size: Option<Setting<usize>>,
    pub hidden_size: Setting<usize>,
    pub layers: Setting<usize>,
    pub heads: Setting<usize>,
    pub intermediate_size: Setting<usize>,
    pub activation: Setting<&'static str>,
    pub eps: Setting<f64>,
    pub pad_token_id: Setting<u32>,
}

/// Names of the tensors that differ between architectures. Those of the embeddings and the pooler do not.
pub(crate) struct Names {
    /// The stack of layers; `.{i}.` and one of the following come after it.
    pub layers: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_out: &'static str,
    pub attention_norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub out_norm: &'static str,
}

/// Names of the task heads that differ between architectures.
pub(crate) struct Heads {
    /// Guesses masked tokens: `..ForMaskedLM`.
    pub fill_mask: HeadNames,
    /// Classifies sequences: `..ForSequenceClassification`.
    pub classify: HeadNames,
}

/// Names of a head's tensors. Every head is one path: a dense layer and a norm where it has them, then a last product.
pub(crate) struct HeadNames {
    pub dense: Option<HeadDense>,
    pub norm: Option<&'static str>,
    /// The last product; `.weight` comes after it.
    pub out: &'static str,
    /// Where the last product's bias may be, the first that a checkpoint has.
    pub biases: &'static [&'static str],
}

/// The dense layer of a head.
pub(crate) enum HeadDense {
    /// One of its own, outside the base model's names; without an activation, the one between the layers (`hidden_act`).
    Own(&'static str, Option<Activation>),
    /// The base model's pooler.
    Pooler,
}

/// Classifies tokens, under one name everywhere: `..ForTokenClassification`.
pub(crate) const TAG: HeadNames =
    HeadNames { dense: None, norm: None, out: "classifier", biases: &["classifier.bias"] };

/// Finds where an answer starts and ends, under one name everywhere: `..ForQuestionAnswering`.
pub(crate) const SPAN: HeadNames =
    HeadNames { dense: None, norm: None, out: "qa_outputs", biases: &["qa_outputs.bias"] };

/// How the tokens of a sequence are numbered.
#[derive(Clone, Copy)]
pub(crate) enum Positions {
    /// 0, 1, 2 ..
    FromZero,
    /// From the padding id + 1 on. A padding token in the text stays at the padding id and is not counted.
    AfterPadding,
}

/// The architecture of a `model_type`.
pub(crate) fn find(model_type: &str) -> Option<&'static Architecture> {
    ALL.into_iter().find(|a| a.model_type == model_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relatives_that_compute_something_else_are_not_aliases() {
        for model_type in ["xlm-roberta-xl", "roberta-prelayernorm", "deberta-v2", "xmod", "mobilebert", "albert", ""] {
            assert!(find(model_type).is_none(), "{model_type}");
        }
    }
}
