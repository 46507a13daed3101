//! ModernBERT: layers that normalise what they read, rotary positions, gated feed-forward networks, and windows on most
//! layers. Settings are read as `transformers` 5 writes them and as 4 did.

use mlxt_backend::Mask;
use serde_json::Value;

use super::attention::{Attending, Sight};
use super::bert::BERT;
use super::{
    Architecture, HeadActivation, HeadDense, HeadNames, Heads, Names, Order, Setting, Settings, Shape, Up, Widen,
    no_rope_scaling,
};
use crate::Result;
use crate::config::Reader;

pub(super) const MODERNBERT: Architecture = Architecture {
    model_type: "modernbert",
    prefixes: &["model"],
    settings: Settings {
        vocab_size: Setting { names: &["vocab_size"], default: 50_368 },
        positions: Setting { names: &["max_position_embeddings"], default: 8192 },
        position_table: Setting::fixed(false),
        token_types: Setting::fixed(0),
        layers: Setting { names: &["num_hidden_layers"], default: 22 },
        intermediate_size: Setting { names: &["intermediate_size"], default: 1152 },
        activation: Setting { names: &["hidden_activation"], default: "gelu" },
        eps: Setting { names: &["norm_eps"], default: 1e-5 },
        pad_token_id: Setting { names: &["pad_token_id"], default: 50_283 },
        attention_bias: Setting { names: &["attention_bias"], default: false },
        feed_forward_bias: Setting { names: &["mlp_bias"], default: false },
        norm_bias: Setting { names: &["norm_bias"], default: false },
        head_bias: Setting { names: &["classifier_bias"], default: false },
        decoder_bias: Setting { names: &["decoder_bias"], default: true },
        head_activation: Setting { names: &["classifier_activation"], default: "gelu" },
        classifier_pooling: Setting { names: &["classifier_pooling"], default: "cls" },
        ..BERT.settings
    },
    names: Names {
        words: "embeddings.tok_embeddings",
        embedding_norm: "embeddings.norm",
        widen: Widen::Never,
        layers: "layers",
        qkv: &["attn.Wqkv"],
        attention_out: "attn.Wo",
        attention_norm: "mlp_norm",
        up: Up::Gated(&["mlp.Wi"]),
        down: "mlp.Wo",
        out_norm: "attn_norm",
    },
    order: Order::NormFirst { last_norm: "final_norm" },
    attention,
    refused: &[no_rope_scaling()],
    pooler: false,
    heads: Heads {
        fill_mask: &[HeadNames { out: Some("decoder"), biases: &["decoder.bias"], ..CLASSIFIER }],
        classify: CLASSIFIER,
        tag: CLASSIFIER,
        span: CLASSIFIER,
    },
    ..BERT
};

const CLASSIFIER: HeadNames = HeadNames {
    dense: Some(HeadDense::Own("head.dense", HeadActivation::Head)),
    norm: Some("head.norm"),
    out: Some("classifier"),
    biases: &["classifier.bias"],
};

fn attention(reader: &Reader<'_>, shape: &Shape) -> Result<Attending> {
    // The half of it that either side has is a setting, too, and wins.
    let window = reader.size(&Setting { names: &["local_attention"], default: 128 }, super::MOST_ENTRIES)?;
    let half = reader.size(&Setting { names: &["sliding_window"], default: 0 }, super::MOST_ENTRIES)?;
    let radius = if half > 0 { half } else { window / 2 };
    let everything = Sight {
        mask: Mask::Full,
        theta: Some(reader.theta(Some("full_attention"), &["global_rope_theta"], 160_000.0)?),
    };
    let nearby = Sight {
        mask: Mask::Window { radius },
        theta: Some(reader.theta(Some("sliding_attention"), &["local_rope_theta"], 10_000.0)?),
    };
    let layers = match reader.raw.get("layer_types") {
        None | Some(Value::Null) => {
            let every = Setting { names: &["global_attn_every_n_layers"], default: 3 };
            let every = reader.size(&every, super::MOST_ENTRIES)?;
            (0..shape.layers).map(|i| if i % every == 0 { everything } else { nearby }).collect()
        }
        Some(found) => {
            let sight = |kind: &Value| match kind.as_str() {
                Some("full_attention") => Some(everything),
                Some("sliding_attention") => Some(nearby),
                _ => None,
            };
            let kinds = found.as_array().map(Vec::as_slice).unwrap_or_default();
            let sights: Option<Vec<Sight>> = kinds.iter().map(sight).collect();
            sights.filter(|sights| sights.len() == shape.layers).ok_or_else(|| {
                let expected = format!("full_attention or sliding_attention for each of {} layers", shape.layers);
                reader.error("layer_types", found, expected)
            })?
        }
    };
    shape.even_heads(reader, &MODERNBERT.settings.heads)?;
    Ok(Attending { layers, ..Attending::plain(shape.layers, shape.head_size()) })
}
