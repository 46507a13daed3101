//! What the `config.json` of a `Pooling` says: how rows become one, and whether those of the prompt count.

use std::path::Path;

use mlxt_models::Pooling;
use serde::Deserialize;

use crate::{Error, Result, modules};

/// As the file has it.
#[derive(Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools)] // the file's own
struct PoolingConfig {
    pooling_mode: Option<Modes>,
    pooling_mode_cls_token: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
    include_prompt: bool,
}

impl Default for PoolingConfig {
    fn default() -> Self {
        Self {
            pooling_mode: None,
            pooling_mode_cls_token: false,
            pooling_mode_max_tokens: false,
            pooling_mode_mean_tokens: false,
            pooling_mode_mean_sqrt_len_tokens: false,
            pooling_mode_weightedmean_tokens: false,
            pooling_mode_lasttoken: false,
            include_prompt: true,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Modes {
    One(String),
    Several(Vec<String>),
}

/// The poolings that stand side by side, and whether the prompt's rows are among those pooled, from the settings in `folder`.
///
/// # Errors
/// [`Error::MissingFile`], [`Error::Json`], [`Error::Io`]; [`Error::UnsupportedSetting`] for a pooling that is none.
pub(super) fn read(folder: &Path) -> Result<(Vec<Pooling>, bool)> {
    let config: PoolingConfig = modules::config(folder)?;
    let include_prompt = config.include_prompt;
    let names = match config.pooling_mode {
        Some(Modes::One(name)) => vec![name],
        Some(Modes::Several(names)) => names,
        None => return Ok((legacy_modes(&config), include_prompt)),
    };
    let unknown = |found: String| Error::UnsupportedSetting {
        path: folder.join("config.json"),
        setting: "pooling_mode",
        found,
        supported: "cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken",
    };
    if names.is_empty() {
        return Err(unknown("empty".into()));
    }
    let modes = names.into_iter().map(|name| mode(&name).ok_or_else(|| unknown(name)));
    Ok((modes.collect::<Result<_>>()?, include_prompt))
}

fn mode(name: &str) -> Option<Pooling> {
    Some(match name {
        "cls" => Pooling::Cls,
        "max" => Pooling::Max,
        "mean" => Pooling::Mean,
        "mean_sqrt_len_tokens" => Pooling::MeanSqrtLength,
        "weightedmean" => Pooling::WeightedMean,
        "lasttoken" => Pooling::Last,
        _ => return None,
    })
}

/// Several at once stand in this order, whatever their order in the file; none means the mean.
fn legacy_modes(config: &PoolingConfig) -> Vec<Pooling> {
    let modes = [
        (config.pooling_mode_cls_token, Pooling::Cls),
        (config.pooling_mode_max_tokens, Pooling::Max),
        (config.pooling_mode_mean_tokens, Pooling::Mean),
        (config.pooling_mode_mean_sqrt_len_tokens, Pooling::MeanSqrtLength),
        (config.pooling_mode_weightedmean_tokens, Pooling::WeightedMean),
        (config.pooling_mode_lasttoken, Pooling::Last),
    ];
    let mut active: Vec<Pooling> = modes.into_iter().filter(|(on, _)| *on).map(|(_, pooling)| pooling).collect();
    if active.is_empty() {
        active.push(Pooling::Mean);
    }
    active
}
