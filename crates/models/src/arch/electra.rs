//! ELECTRA, generators and discriminators: BERT without pooler, with embeddings that may be narrower than the layers.

use mlxt_backend::Activation;

use super::bert::BERT;
use super::{Architecture, HeadActivation, HeadDense, HeadNames, Heads, Names, Setting, Settings, Widen};

pub(super) const ELECTRA: Architecture = Architecture {
    model_type: "electra",
    prefixes: &["electra"],
    settings: Settings {
        embedding_size: Some(Setting { names: &["embedding_size"], default: 128 }),
        hidden_size: Setting { names: &["hidden_size"], default: 256 },
        heads: Setting { names: &["num_attention_heads"], default: 4 },
        intermediate_size: Setting { names: &["intermediate_size"], default: 1024 },
        ..BERT.settings
    },
    names: Names { widen: Widen::AfterNorm("embeddings_project"), ..BERT.names },
    pooler: false,
    heads: Heads {
        fill_mask: &[HeadNames {
            dense: Some(HeadDense::Own("generator_predictions.dense", HeadActivation::Is(Activation::Gelu))),
            norm: Some("generator_predictions.LayerNorm"),
            out: Some("generator_lm_head"),
            biases: &["generator_lm_head.bias"],
        }],
        classify: HeadNames {
            dense: Some(HeadDense::Own("classifier.dense", HeadActivation::Is(Activation::Gelu))),
            norm: None,
            out: Some("classifier.out_proj"),
            biases: &["classifier.out_proj.bias"],
        },
        ..BERT.heads
    },
    ..BERT
};
