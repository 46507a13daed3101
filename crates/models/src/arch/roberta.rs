//! RoBERTa and the models that are RoBERTa by another name: BERT with positions that begin after the padding id.

use super::bert::BERT;
use super::{Architecture, Positions, Setting, Settings};

pub(super) const ROBERTA: Architecture = Architecture {
    model_type: "roberta",
    prefix: "roberta",
    settings: Settings {
        vocab_size: Setting { names: &["vocab_size"], default: 50_265 },
        pad_token_id: Setting { names: &["pad_token_id"], default: 1 },
        ..BERT.settings
    },
    positions: Positions::AfterPadding,
    ..BERT
};

/// As all aliases, it keeps BERT's vocabulary size as the default, and `roberta.` before its tensors.
pub(super) const XLM_ROBERTA: Architecture = Architecture {
    model_type: "xlm-roberta",
    settings: Settings { vocab_size: BERT.settings.vocab_size, ..ROBERTA.settings },
    ..ROBERTA
};

pub(super) const CAMEMBERT: Architecture = Architecture { model_type: "camembert", ..XLM_ROBERTA };
