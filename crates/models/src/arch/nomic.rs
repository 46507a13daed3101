//! `NomicBERT`: BERT with rotary positions and gated feed-forward networks. Tensors have the names of the authors'
//! checkpoints, which `transformers` keeps; settings those of either.

use mlxt_backend::Mask;
use serde_json::Value;

use super::attention::{Attending, Sight};
use super::bert::BERT;
use super::{
    Architecture, HeadActivation, HeadDense, HeadNames, Heads, Names, Refused, Setting, Settings, Shape, Up, Widen,
    no_rope_scaling,
};
use crate::Result;
use crate::config::Reader;

pub(super) const NOMIC_BERT: Architecture = Architecture {
    model_type: "nomic_bert",
    prefixes: &["nomic_bert", "bert"],
    settings: Settings {
        vocab_size: Setting { names: &["vocab_size"], default: 30_528 },
        positions: Setting { names: &["max_position_embeddings", "n_positions"], default: 2048 },
        position_table: Setting::fixed(false),
        hidden_size: Setting { names: &["hidden_size", "n_embd"], default: 768 },
        layers: Setting { names: &["num_hidden_layers", "n_layer"], default: 12 },
        heads: Setting { names: &["num_attention_heads", "n_head"], default: 12 },
        intermediate_size: Setting { names: &["intermediate_size", "n_inner"], default: 3072 },
        activation: Setting { names: &["hidden_act"], default: "silu" },
        eps: Setting { names: &["layer_norm_eps", "layer_norm_epsilon"], default: 1e-12 },
        attention_bias: Setting { names: &["qkv_proj_bias"], default: false },
        feed_forward_bias: Setting { names: &["mlp_fc1_bias", "mlp_fc2_bias"], default: false },
        ..BERT.settings
    },
    names: Names {
        embedding_norm: "emb_ln",
        widen: Widen::Never,
        layers: "encoder.layers",
        qkv: &["attn.Wqkv"],
        attention_out: "attn.out_proj",
        attention_norm: "norm1",
        up: Up::Gated(&["mlp.fc12", "mlp.fc11"]),
        down: "mlp.fc2",
        out_norm: "norm2",
        ..BERT.names
    },
    attention,
    refused: &[
        no_rope_scaling(),
        is("activation_function", "\"swiglu\"", |v| v == "swiglu"),
        is("prenorm", "false", |v| v == false),
        is("parallel_block", "false", |v| v == false),
        is("causal", "false", |v| v == false),
        is("use_rms_norm", "false", |v| v == false),
        is("rotary_emb_fraction", "1", |v| v.as_f64() == Some(1.0)),
        is("rotary_emb_interleaved", "false", |v| v == false),
        is("rotary_emb_scale_base", "null", |_| false),
        is("rotary_scaling_factor", "null (positions that change with a text's length are not supported)", |_| false),
        is("scale_attn_weights", "true", |v| v == true),
        is("scale_attn_by_inverse_layer_idx", "false", |v| v == false),
        is("moe_every_n_layers", "0 (mixtures of experts are not supported)", |v| v.as_u64() == Some(0)),
    ],
    heads: Heads {
        fill_mask: &[HeadNames {
            dense: Some(HeadDense::Own("cls.predictions.transform.dense", HeadActivation::Hidden)),
            norm: Some("cls.predictions.transform.layer_norm"),
            out: Some("cls.predictions.decoder"),
            biases: &["cls.predictions.decoder.bias", "cls.predictions.bias"],
        }],
        ..BERT.heads
    },
    ..BERT
};

const fn is(name: &'static str, expected: &'static str, neutral: fn(&Value) -> bool) -> Refused {
    Refused { name, expected, neutral }
}

fn attention(reader: &Reader<'_>, shape: &Shape) -> Result<Attending> {
    reader.equal("head_dim", shape.head_size())?;
    shape.even_heads(reader, &NOMIC_BERT.settings.heads)?;
    let theta = Some(reader.theta(None, &["rope_theta", "rotary_emb_base"], 1000.0)?);
    let layers = vec![Sight { mask: Mask::Full, theta }; shape.layers];
    Ok(Attending { layers, ..Attending::plain(shape.layers, shape.head_size()) })
}
