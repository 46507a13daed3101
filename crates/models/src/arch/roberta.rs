//! RoBERTa and the models that are RoBERTa by another name: BERT with positions that begin after the padding id.

use mlxt_backend::Activation;

use super::bert::BERT;
use super::{Architecture, HeadActivation, HeadDense, HeadNames, Heads, Positions, Setting, Settings};

pub(super) const ROBERTA: Architecture = Architecture {
    model_type: "roberta",
    prefixes: &["roberta"],
    settings: Settings {
        vocab_size: Setting { names: &["vocab_size"], default: 50_265 },
        pad_token_id: Setting { names: &["pad_token_id"], default: 1 },
        ..BERT.settings
    },
    positions: Positions::AfterPadding,
    heads: Heads {
        fill_mask: &[HeadNames {
            dense: Some(HeadDense::Own("lm_head.dense", HeadActivation::Is(Activation::Gelu))),
            norm: Some("lm_head.layer_norm"),
            out: Some("lm_head.decoder"),
            biases: &["lm_head.decoder.bias", "lm_head.bias"],
        }],
        classify: HeadNames {
            dense: Some(HeadDense::Own("classifier.dense", HeadActivation::Is(Activation::Tanh))),
            norm: None,
            out: Some("classifier.out_proj"),
            biases: &["classifier.out_proj.bias"],
        },
        ..BERT.heads
    },
    ..BERT
};

/// As all aliases, it keeps BERT's vocabulary size as the default, and `roberta.` before its tensors.
pub(super) const XLM_ROBERTA: Architecture = Architecture {
    model_type: "xlm-roberta",
    settings: Settings { vocab_size: BERT.settings.vocab_size, ..ROBERTA.settings },
    ..ROBERTA
};

pub(super) const CAMEMBERT: Architecture = Architecture { model_type: "camembert", ..XLM_ROBERTA };
