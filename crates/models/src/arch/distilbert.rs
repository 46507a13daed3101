//! DistilBERT: BERT without token types and pooler, with names and settings of its own.
//!
//! `sinusoidal_pos_embds` only says how positions were initialised before training; the checkpoint holds them.

use mlxt_backend::Activation;

use super::bert::BERT;
use super::{Architecture, HeadActivation, HeadDense, HeadNames, Heads, Names, Setting, Settings, Up};

pub(super) const DISTILBERT: Architecture = Architecture {
    model_type: "distilbert",
    prefixes: &["distilbert"],
    settings: Settings {
        token_types: Setting::fixed(0),
        hidden_size: Setting { names: &["dim", "hidden_size"], default: 768 },
        layers: Setting { names: &["n_layers", "num_hidden_layers"], default: 6 },
        heads: Setting { names: &["n_heads", "num_attention_heads"], default: 12 },
        intermediate_size: Setting { names: &["hidden_dim"], default: 3072 },
        activation: Setting { names: &["activation"], default: "gelu" },
        eps: Setting::fixed(1e-12),
        ..BERT.settings
    },
    names: Names {
        layers: "transformer.layer",
        qkv: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
        attention_out: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        up: Up::Plain("ffn.lin1"),
        down: "ffn.lin2",
        out_norm: "output_layer_norm",
        ..BERT.names
    },
    pooler: false,
    heads: Heads {
        fill_mask: &[HeadNames {
            dense: Some(HeadDense::Own("vocab_transform", HeadActivation::Hidden)),
            norm: Some("vocab_layer_norm"),
            out: Some("vocab_projector"),
            biases: &["vocab_projector.bias"],
        }],
        classify: HeadNames {
            dense: Some(HeadDense::Own("pre_classifier", HeadActivation::Is(Activation::Relu))),
            ..BERT.heads.classify
        },
        ..BERT.heads
    },
    ..BERT
};
