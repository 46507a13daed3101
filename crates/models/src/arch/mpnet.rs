//! `MPNet`: RoBERTa with a bias for each distance between tokens, which all layers share.

use super::attention::{Attending, BucketTable, Distance};
use super::roberta::ROBERTA;
use super::{Architecture, Names, Setting, Settings, Shape};
use crate::Result;
use crate::config::Reader;

/// Half of the buckets are for keys behind the query. `transformers` takes this number whatever the file says.
const BUCKETS: usize = 32;
/// From this distance on all are in the last bucket.
const FAR: usize = 128;

pub(super) const MPNET: Architecture = Architecture {
    model_type: "mpnet",
    prefixes: &["mpnet"],
    settings: Settings {
        vocab_size: Setting { names: &["vocab_size"], default: 30_527 },
        token_types: Setting::fixed(0),
        // Positions are counted from 2 on even where the file names another padding token.
        pad_token_id: Setting::fixed(1),
        ..ROBERTA.settings
    },
    names: Names {
        qkv: &["attention.attn.q", "attention.attn.k", "attention.attn.v"],
        attention_out: "attention.attn.o",
        attention_norm: "attention.LayerNorm",
        ..ROBERTA.names
    },
    attention,
    ..ROBERTA
};

fn attention(reader: &Reader<'_>, shape: &Shape) -> Result<Attending> {
    let setting = Setting { names: &["relative_attention_num_buckets"], default: BUCKETS };
    let entries = reader.size(&setting, super::MOST_BUCKETS)?;
    if entries < BUCKETS {
        return Err(reader.error(reader.name(&setting), &entries, format!("at least {BUCKETS}")));
    }
    let buckets = (0..=2 * FAR).map(|place| bucket(place as i32 - FAR as i32)).collect();
    let name = "encoder.relative_attention_bias";
    let plain = Attending::plain(shape.layers, shape.head_size());
    Ok(Attending { distance: Distance::Bias(BucketTable { name, entries, buckets }), ..plain })
}

/// The bucket of query position minus key position: near distances have their own, far ones share on a logarithmic
/// scale (Raffel and others, "Exploring the Limits of Transfer Learning", 2020). Rounded as `transformers` rounds.
fn bucket(distance: i32) -> u32 {
    let half = BUCKETS as u32 / 2;
    let exact = half / 2;
    let behind = if distance < 0 { half } else { 0 };
    let far = distance.unsigned_abs();
    if far < exact {
        return behind + far;
    }
    let scale = (FAR as f64 / f64::from(exact)).ln() as f32;
    let step = (far as f32 / exact as f32).ln() / scale * (half - exact) as f32;
    behind + (exact + step as u32).min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `MPNetEncoder.relative_position_bucket` of transformers 5.23 gives for the distances 0 to 130.
    #[test]
    fn buckets_are_transformers() {
        let begins = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        for distance in 0..131 {
            let want = begins.iter().filter(|&&begin| begin <= distance).count() as u32 - 1;
            assert_eq!(bucket(distance), want, "{distance}");
            assert_eq!(bucket(-distance), if distance == 0 { 0 } else { 16 + want }, "-{distance}");
        }
    }
}
