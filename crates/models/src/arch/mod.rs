//! What tells one architecture from another: a row of names, settings and switches per `model_type`.
//!
//! All of them are embeddings, then layers of attention and feed-forward, each with a residual and a norm; `layers/`
//! computes that. What only some have (rotary positions, windows, terms by distance) is read from `config.json` in the
//! architecture's own file and described in `attention.rs`. To add one: a file here and a row in [`ALL`].

pub(crate) mod attention;
mod bert;
mod deberta;
mod distilbert;
mod electra;
mod modernbert;
mod mpnet;
mod nomic;
mod roberta;

use mlxt_backend::Activation;
use serde_json::Value;

use crate::Result;
use crate::config::Reader;
use attention::Attending;

/// The numbers below are limited only so that arithmetic on them cannot overflow and a damaged file cannot make a list
/// endless. Each is 30 times or more above the largest encoder known. Entries of a table:
pub(crate) const MOST_ENTRIES: usize = 1 << 28;
/// Buckets of distances.
const MOST_BUCKETS: usize = 1 << 20;

/// Every architecture, in the order in which error messages list them.
pub(crate) const ALL: [&Architecture; 10] = [
    &bert::BERT,
    &roberta::ROBERTA,
    &roberta::XLM_ROBERTA,
    &roberta::CAMEMBERT,
    &distilbert::DISTILBERT,
    &electra::ELECTRA,
    &mpnet::MPNET,
    &deberta::DEBERTA_V2,
    &modernbert::MODERNBERT,
    &nomic::NOMIC_BERT,
];

/// A row: how a checkpoint of one `model_type` is read.
pub(crate) struct Architecture {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// What precedes the names of the base model's tensors when a checkpoint has task heads too, the usual one first.
    pub prefixes: &'static [&'static str],
    /// Where its settings are in `config.json`.
    pub settings: Settings,
    /// How its tensors are called.
    pub names: Names,
    /// How tokens get their positions.
    pub positions: Positions,
    /// Where a layer's norms stand.
    pub order: Order,
    /// Reads how its layers attend.
    pub attention: fn(&Reader<'_>, &Shape) -> Result<Attending>,
    /// Settings of its own that change the computation into one that is not here.
    pub refused: &'static [Refused],
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

impl<T> Setting<T> {
    /// No setting at all.
    pub(crate) const fn fixed(default: T) -> Self {
        Self { names: &[], default }
    }
}

/// The settings that shape an encoder.
pub(crate) struct Settings {
    pub vocab_size: Setting<usize>,
    pub positions: Setting<usize>,
    /// Whether positions are embedded, in a table.
    pub position_table: Setting<bool>,
    /// Default 0: there may be none.
    pub token_types: Setting<usize>,
    /// `None`: always the hidden size; default 0: that, unless the file says otherwise.
    pub embedding_size: Option<Setting<usize>>,
    pub hidden_size: Setting<usize>,
    pub layers: Setting<usize>,
    pub heads: Setting<usize>,
    pub intermediate_size: Setting<usize>,
    pub activation: Setting<&'static str>,
    pub eps: Setting<f64>,
    pub pad_token_id: Setting<u32>,
    /// Whether the products of attention have biases ..
    pub attention_bias: Setting<bool>,
    /// .. those of the feed-forward networks ..
    pub feed_forward_bias: Setting<bool>,
    /// .. all norms ..
    pub norm_bias: Setting<bool>,
    /// .. the dense layer of heads ..
    pub head_bias: Setting<bool>,
    /// .. and the last product of the head for masked tokens.
    pub decoder_bias: Setting<bool>,
    /// The activation of [`HeadActivation::Head`].
    pub head_activation: Setting<&'static str>,
    /// How classifiers make one row of a sequence: `cls` or `mean`.
    pub classifier_pooling: Setting<&'static str>,
}

/// The sizes that a model's attention depends on, all within range.
pub(crate) struct Shape {
    pub hidden_size: usize,
    /// A divisor of that.
    pub heads: usize,
    pub layers: usize,
    pub positions: usize,
}

impl Shape {
    pub(crate) fn head_size(&self) -> usize {
        self.hidden_size / self.heads
    }

    /// That heads can be turned; `setting` is their number.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] if their columns are odd.
    fn even_heads(&self, reader: &Reader<'_>, setting: &Setting<usize>) -> Result<()> {
        if self.head_size().is_multiple_of(2) {
            return Ok(());
        }
        let expected = format!("such that {} hidden columns make heads of an even size", self.hidden_size);
        Err(reader.error(reader.name(setting), &self.heads, expected))
    }
}

/// A setting that must have a neutral value. Absent and null always are.
pub(crate) struct Refused {
    pub name: &'static str,
    /// What is expected, for the error.
    pub expected: &'static str,
    /// Whether a value is that.
    pub neutral: fn(&Value) -> bool,
}

/// Positions scaled beyond those of the training, as `transformers` 4 wrote it.
const fn no_rope_scaling() -> Refused {
    let names_default = |value: &Value| {
        let settings = value.as_object().filter(|settings| !settings.is_empty());
        settings.is_some_and(|all| all.iter().all(|(name, kind)| name.ends_with("type") && kind == "default"))
    };
    Refused { name: "rope_scaling", expected: "null", neutral: names_default }
}

/// Names of tensors that differ between architectures.
pub(crate) struct Names {
    /// The word table. By its presence a checkpoint's prefix is known.
    pub words: &'static str,
    pub embedding_norm: &'static str,
    pub widen: Widen,
    /// The stack of layers; `.{i}.` and one of the following come after it.
    pub layers: &'static str,
    /// Query, key and value: a tensor for each, or one for all.
    pub qkv: &'static [&'static str],
    pub attention_out: &'static str,
    /// The norm after attention.
    pub attention_norm: &'static str,
    pub up: Up,
    pub down: &'static str,
    /// The norm after the feed-forward network.
    pub out_norm: &'static str,
}

/// Where embeddings that are narrower than the layers are widened.
pub(crate) enum Widen {
    /// They are never narrower.
    Never,
    /// After their norm, with a bias.
    AfterNorm(&'static str),
    /// Before it, without.
    BeforeNorm(&'static str),
}

/// The first product of a feed-forward network.
pub(crate) enum Up {
    /// Activated.
    Plain(&'static str),
    /// One half activated, times the other: a tensor for each, the activated one first, or one for both.
    Gated(&'static [&'static str]),
}

/// Where a layer's norms stand. In either order a sum and a norm follow attention and the feed-forward network.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    /// The norm of the sum is what is carried on.
    NormLast,
    /// The sum is carried on, and its norm only read by what comes next. So the norm after a layer is the first of the
    /// next layer (the first layer reads the embeddings as they are), and after the last layer one more, of this name.
    NormFirst { last_norm: &'static str },
}

/// Names of the task heads.
pub(crate) struct Heads {
    /// Guesses masked tokens: `..ForMaskedLM`. The first of these that a checkpoint has.
    pub fill_mask: &'static [HeadNames],
    /// Classifies sequences: `..ForSequenceClassification`.
    pub classify: HeadNames,
    /// Classifies tokens: `..ForTokenClassification`.
    pub tag: HeadNames,
    /// Finds where an answer starts and ends: `..ForQuestionAnswering`.
    pub span: HeadNames,
}

/// Names of a head's tensors. Every head is one path: a dense layer and a norm where it has them, then a last product.
pub(crate) struct HeadNames {
    pub dense: Option<HeadDense>,
    pub norm: Option<&'static str>,
    /// The last product; `.weight` comes after it. None is the word table, whatever else a checkpoint has.
    pub out: Option<&'static str>,
    /// Where the last product's bias may be, the first that a checkpoint has.
    pub biases: &'static [&'static str],
}

/// The dense layer of a head.
pub(crate) enum HeadDense {
    /// One of its own, outside the base model's names.
    Own(&'static str, HeadActivation),
    /// The base model's pooler.
    Pooler,
}

/// The activation after a head's dense layer.
#[derive(Clone, Copy)]
pub(crate) enum HeadActivation {
    /// The one between the layers.
    Hidden,
    /// [`Settings::head_activation`].
    Head,
    /// Always this one.
    Is(Activation),
}

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
        for model_type in ["xlm-roberta-xl", "roberta-prelayernorm", "deberta", "xmod", "mobilebert", "albert", ""] {
            assert!(find(model_type).is_none(), "{model_type}");
        }
    }
}
