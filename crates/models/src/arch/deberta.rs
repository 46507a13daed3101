//! DeBERTa-v2 and v3: BERT whose scores gain products of queries and keys with embedded distances.
//!
//! One `model_type`, and a setting for everything in which the versions differ. The convolution of some v2 checkpoints
//! is not here, and DeBERTa 1 is another architecture.

use serde_json::Value;

use super::attention::{Attending, BucketTable, Distance, Projected, Projection};
use super::bert::BERT;
use super::{
    Architecture, HeadActivation, HeadDense, HeadNames, Heads, MOST_BUCKETS, Names, Refused, Setting, Settings, Shape,
    Widen,
};
use crate::Result;
use crate::config::Reader;

pub(super) const DEBERTA_V2: Architecture = Architecture {
    model_type: "deberta-v2",
    prefixes: &["deberta"],
    settings: Settings {
        vocab_size: Setting { names: &["vocab_size"], default: 128_100 },
        position_table: Setting { names: &["position_biased_input"], default: true },
        token_types: Setting { names: &["type_vocab_size"], default: 0 },
        embedding_size: Some(Setting { names: &["embedding_size"], default: 0 }),
        hidden_size: Setting { names: &["hidden_size"], default: 1536 },
        layers: Setting { names: &["num_hidden_layers"], default: 24 },
        heads: Setting { names: &["num_attention_heads"], default: 24 },
        intermediate_size: Setting { names: &["intermediate_size"], default: 6144 },
        eps: Setting { names: &["layer_norm_eps"], default: 1e-7 },
        head_activation: Setting { names: &["pooler_hidden_act"], default: "gelu" },
        ..BERT.settings
    },
    names: Names {
        widen: Widen::BeforeNorm("embeddings.embed_proj"),
        qkv: &["attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"],
        ..BERT.names
    },
    attention,
    refused: &[Refused {
        name: "conv_kernel_size",
        expected: "0 (a convolution after the first layer is not supported)",
        neutral: |v| v.as_i64().is_some_and(|n| n <= 0),
    }],
    pooler: false,
    heads: Heads {
        // The second are those of v3, which `transformers` reads where `legacy` is false.
        fill_mask: &[
            HeadNames {
                dense: Some(HeadDense::Own("cls.predictions.transform.dense", HeadActivation::Hidden)),
                norm: Some("cls.predictions.transform.LayerNorm"),
                out: Some("cls.predictions.decoder"),
                biases: &["cls.predictions.decoder.bias", "cls.predictions.bias"],
            },
            HeadNames {
                dense: Some(HeadDense::Own("lm_predictions.lm_head.dense", HeadActivation::Hidden)),
                norm: Some("lm_predictions.lm_head.LayerNorm"),
                out: None,
                biases: &["lm_predictions.lm_head.bias"],
            },
        ],
        classify: HeadNames {
            // Named as a pooler, but outside the base model.
            dense: Some(HeadDense::Own("pooler.dense", HeadActivation::Head)),
            ..BERT.heads.classify
        },
        ..BERT.heads
    },
    ..BERT
};

fn attention(reader: &Reader<'_>, shape: &Shape) -> Result<Attending> {
    reader.equal("attention_head_size", shape.head_size())?;
    reader.equal("pooler_hidden_size", shape.hidden_size)?;
    let (keys, queries) = parts(reader)?;
    let terms = 1 + usize::from(keys) + usize::from(queries);
    let plain = Attending::plain(shape.layers, shape.head_size());
    let scale = ((shape.head_size() * terms) as f32).sqrt().recip();
    if !reader.flag(&Setting { names: &["relative_attention"], default: false })? {
        return Ok(Attending { scale, ..plain });
    }

    let far = match reader.whole("max_relative_positions", -1, MOST_BUCKETS as i64)? {
        far if far < 1 => shape.positions.min(MOST_BUCKETS) as i64,
        far => far,
    };
    let near = reader.whole("position_buckets", -1, MOST_BUCKETS as i64)?;
    let span = if near > 0 { near } else { far };
    if near > 0 && far - 1 <= near / 2 {
        let expected = format!("below twice max_relative_positions, {far}, less 2");
        return Err(reader.error("position_buckets", &near, expected));
    }
    let own = !reader.flag(&Setting { names: &["share_att_key"], default: false })?;
    let projection = |name, tokens| Some(if own { Projection::Own(name) } else { Projection::Tokens(tokens) });
    let bucket = |distance: i64| {
        let distance = if near > 0 { logarithmic(distance, near, far) } else { distance };
        (distance + span).clamp(0, 2 * span - 1) as u32
    };
    // From the largest distance on, all are in the last bucket, but for an odd number of them: as far as there are positions.
    let reach = far.max(shape.positions.min(MOST_BUCKETS) as i64);
    let table = BucketTable {
        name: "encoder.rel_embeddings",
        entries: 2 * span as usize,
        buckets: (-reach..=reach).map(bucket).collect(),
    };
    let projected = Projected {
        table,
        norm: normalises(reader)?.then_some("encoder.LayerNorm"),
        keys: keys.then(|| projection("attention.self.pos_key_proj", 1)).flatten(),
        queries: queries.then(|| projection("attention.self.pos_query_proj", 0)).flatten(),
    };
    Ok(Attending { scale, distance: Distance::Projected(projected), ..plain })
}

/// `pos_att_type`: whether queries meet embedded distances (`c2p`), and whether keys do (`p2c`). A list, or a text with
/// `|` between; other entries are left alone, as in `transformers`.
fn parts(reader: &Reader<'_>) -> Result<(bool, bool)> {
    let entries: Vec<String> = match reader.raw.get("pos_att_type") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.to_lowercase().split('|').map(|part| part.trim().to_owned()).collect(),
        Some(found) => {
            let list = found.as_array().map(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
            list.flatten().ok_or_else(|| reader.error("pos_att_type", found, "a list such as [\"c2p\"]".into()))?
        }
    };
    let has = |name: &str| entries.iter().any(|entry| entry == name);
    Ok((has("c2p"), has("p2c")))
}

/// `norm_rel_ebd`: whether embedded distances are normalised.
fn normalises(reader: &Reader<'_>) -> Result<bool> {
    match reader.raw.get("norm_rel_ebd") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::String(text)) => Ok(text.to_lowercase().split('|').any(|part| part.trim() == "layer_norm")),
        Some(found) => Err(reader.error("norm_rel_ebd", found, "\"none\" or \"layer_norm\"".into())),
    }
}

/// Near distances as they are, far ones on a logarithmic scale that reaches `near` at `far`. Rounded as `transformers`
/// rounds.
fn logarithmic(distance: i64, near: i64, far: i64) -> i64 {
    let middle = near / 2;
    let size = distance.abs();
    if size <= middle {
        return distance;
    }
    let times = |x: i64| (x as f64 / middle as f64) as f32;
    let step = (times(size).ln() / times(far - 1).ln() * (middle - 1) as f32).ceil() as i64;
    distance.signum() * (step + middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums over what `make_log_bucket_position` of transformers 5.23 gives for 0 to `far` + 2.
    #[test]
    fn buckets_are_transformers() {
        for (near, far, sum, squares) in [(256, 512, 88_065, 17_683_003), (8, 20, 130, 844), (32, 128, 3170, 83_998)] {
            let all: Vec<i64> = (0..far + 3).map(|d| logarithmic(d, near, far)).collect();
            assert_eq!((all.iter().sum::<i64>(), all.iter().map(|b| b * b).sum::<i64>()), (sum, squares), "{near}");
            assert!((0..far).all(|d| logarithmic(-d, near, far) == -all[d as usize]));
        }
    }
}
