//! BERT, and everything trained or distilled with its classes (MiniLM, BGE, E5, GTE ..).

use super::attention::Attending;
use super::{
    Architecture, HeadActivation, HeadDense, HeadNames, Heads, Names, Order, Positions, Setting, Settings, Up, Widen,
};

pub(super) const BERT: Architecture = Architecture {
    model_type: "bert",
    prefixes: &["bert"],
    settings: Settings {
        vocab_size: Setting { names: &["vocab_size"], default: 30_522 },
        positions: Setting { names: &["max_position_embeddings"], default: 512 },
        position_table: Setting::fixed(true),
        token_types: Setting { names: &["type_vocab_size"], default: 2 },
        embedding_size: None,
        hidden_size: Setting { names: &["hidden_size"], default: 768 },
        layers: Setting { names: &["num_hidden_layers"], default: 12 },
        heads: Setting { names: &["num_attention_heads"], default: 12 },
        intermediate_size: Setting { names: &["intermediate_size"], default: 3072 },
        activation: Setting { names: &["hidden_act"], default: "gelu" },
        eps: Setting { names: &["layer_norm_eps"], default: 1e-12 },
        pad_token_id: Setting { names: &["pad_token_id"], default: 0 },
        attention_bias: Setting::fixed(true),
        feed_forward_bias: Setting::fixed(true),
        norm_bias: Setting::fixed(true),
        head_bias: Setting::fixed(true),
        decoder_bias: Setting::fixed(true),
        head_activation: Setting::fixed("tanh"),
        classifier_pooling: Setting::fixed("cls"),
    },
    names: Names {
        words: "embeddings.word_embeddings",
        embedding_norm: "embeddings.LayerNorm",
        widen: Widen::Never,
        layers: "encoder.layer",
        qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
        attention_out: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        up: Up::Plain("intermediate.dense"),
        down: "output.dense",
        out_norm: "output.LayerNorm",
    },
    positions: Positions::FromZero,
    order: Order::NormLast,
    attention: |_, shape| Ok(Attending::plain(shape.layers, shape.head_size())),
    refused: &[],
    pooler: true,
    heads: Heads {
        fill_mask: &[HeadNames {
            dense: Some(HeadDense::Own("cls.predictions.transform.dense", HeadActivation::Hidden)),
            norm: Some("cls.predictions.transform.LayerNorm"),
            out: Some("cls.predictions.decoder"),
            // `transformers` has saved the second, both, or (some versions) the first alone.
            biases: &["cls.predictions.decoder.bias", "cls.predictions.bias"],
        }],
        classify: HeadNames {
            dense: Some(HeadDense::Pooler),
            norm: None,
            out: Some("classifier"),
            biases: &["classifier.bias"],
        },
        tag: HeadNames { dense: None, norm: None, out: Some("classifier"), biases: &["classifier.bias"] },
        span: HeadNames { dense: None, norm: None, out: Some("qa_outputs"), biases: &["qa_outputs.bias"] },
    },
};
