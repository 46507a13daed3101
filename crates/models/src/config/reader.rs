//! One setting of `config.json` at a time: typed, within range, and every failure naming it and its value.

use std::fmt;
use std::path::Path;

use mlxt_backend::Activation;
use serde_json::{Map, Value};

use crate::arch::{self, Architecture, Refused, Setting};
use crate::{Error, Pooling, Result};

/// Every `hidden_act` of `transformers` that has no learned parameters. The tanh approximations of GELU differ there
/// only in how they are rounded.
const ACTIVATIONS: [(&str, Activation); 22] = [
    ("gelu", Activation::Gelu),
    ("gelu_10", Activation::GeluClipped10),
    ("gelu_accurate", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_python", Activation::Gelu),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("hardswish", Activation::HardSwish),
    ("laplace", Activation::Laplace),
    ("leaky_relu", Activation::LeakyRelu),
    ("linear", Activation::Identity),
    ("mish", Activation::Mish),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("relu2", Activation::ReluSquared),
    ("relu6", Activation::Relu6),
    ("sigmoid", Activation::Sigmoid),
    ("silu", Activation::Silu),
    ("sqrtsoftplus", Activation::SqrtSoftplus),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
];

/// Characters of a value that an error quotes: a value can be a whole object.
const LONGEST_FOUND: usize = 80;

/// Layers that may have rotary frequencies of their own in `rope_parameters`.
const LAYER_KINDS: [&str; 2] = ["full_attention", "sliding_attention"];

/// Settings of any architecture that change the computation into one that is not here.
const REFUSED: [Refused; 5] = [
    Refused { name: "position_embedding_type", expected: "\"absolute\"", neutral: |v| v == "absolute" },
    Refused { name: "is_decoder", expected: "false (encoders only)", neutral: |v| v == false },
    Refused { name: "is_encoder_decoder", expected: "false (encoders only)", neutral: |v| v == false },
    Refused { name: "add_cross_attention", expected: "false (encoders only)", neutral: |v| v == false },
    Refused {
        name: "pruned_heads",
        expected: "empty (pruned attention heads are not supported)",
        neutral: |v| v.as_object().is_some_and(Map::is_empty) || v.as_array().is_some_and(Vec::is_empty),
    },
];

/// The settings of a file.
pub(crate) struct Reader<'a> {
    pub file: &'a Path,
    pub raw: &'a Map<String, Value>,
}

impl Reader<'_> {
    pub(crate) fn error(&self, name: &str, found: &dyn fmt::Display, expected: String) -> Error {
        let mut found = found.to_string();
        if let Some((cut, _)) = found.char_indices().nth(LONGEST_FOUND) {
            found.truncate(cut);
            found.push_str("..");
        }
        Error::Setting { file: self.file.to_owned(), name: name.to_owned(), expected, found }
    }

    /// The name under which the file has a setting, or would have it.
    pub(crate) fn name<T>(&self, setting: &Setting<T>) -> &'static str {
        let present = setting.names.iter().find(|name| self.raw.contains_key(**name));
        present.or(setting.names.first()).copied().unwrap_or("")
    }

    pub(crate) fn architecture(&self) -> Result<&'static Architecture> {
        let known: Vec<&str> = arch::ALL.iter().map(|a| a.model_type).collect();
        let found = self.raw.get("model_type").unwrap_or(&Value::Null);
        let architecture = found.as_str().and_then(arch::find);
        architecture.ok_or_else(|| self.error("model_type", found, format!("one of {}", known.join(", "))))
    }

    /// That the settings of any architecture, and those `of_its_own`, are what is supported.
    pub(crate) fn refuse_unsupported(&self, of_its_own: &[Refused]) -> Result<()> {
        for Refused { name, expected, neutral } in REFUSED.iter().chain(of_its_own) {
            match self.raw.get(*name) {
                None | Some(Value::Null) => {}
                Some(value) if neutral(value) => {}
                Some(value) => return Err(self.error(name, value, (*expected).to_owned())),
            }
        }
        Ok(())
    }

    /// That a setting, where it is, is a number that others already tell.
    pub(crate) fn equal(&self, name: &str, expected: usize) -> Result<()> {
        match self.raw.get(name) {
            None | Some(Value::Null) => Ok(()),
            Some(found) if found.as_u64() == Some(expected as u64) => Ok(()),
            Some(found) => Err(self.error(name, found, expected.to_string())),
        }
    }

    /// A setting's value, or `None` where the file does not have it. Aliases must agree.
    fn value<T>(&self, setting: &Setting<T>) -> Result<Option<(&'static str, &Value)>> {
        let mut present = setting.names.iter().filter_map(|name| self.raw.get(*name).map(|value| (*name, value)));
        let Some((name, value)) = present.next() else { return Ok(None) };
        match present.find(|(_, other)| *other != value) {
            Some((alias, other)) => Err(self.error(alias, other, format!("the same as {name}, {value}"))),
            None => Ok(Some((name, value))),
        }
    }

    /// A number of things, `1..=most`, or none where that is the default.
    pub(crate) fn size(&self, setting: &Setting<usize>, most: usize) -> Result<usize> {
        let Some((name, value)) = self.value(setting)? else { return Ok(setting.default) };
        let least = usize::from(setting.default > 0);
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (least..=most).contains(n));
        size.ok_or_else(|| self.error(name, value, format!("a whole number from {least} to {most}")))
    }

    /// A whole number up to `most`.
    pub(crate) fn whole(&self, name: &'static str, default: i64, most: i64) -> Result<i64> {
        let found = self.raw.get(name).map(|value| (value, value.as_i64().filter(|n| *n <= most)));
        match found {
            None => Ok(default),
            Some((_, Some(number))) => Ok(number),
            Some((value, None)) => Err(self.error(name, value, format!("a whole number up to {most}"))),
        }
    }

    pub(crate) fn flag(&self, setting: &Setting<bool>) -> Result<bool> {
        let Some((name, value)) = self.value(setting)? else { return Ok(setting.default) };
        value.as_bool().ok_or_else(|| self.error(name, value, "true or false".into()))
    }

    pub(crate) fn classifier_pooling(&self, setting: &Setting<&'static str>) -> Result<Pooling> {
        let found = self.value(setting)?.map(|(_, value)| value);
        match found.map_or(Some(setting.default), Value::as_str) {
            Some("cls") => Ok(Pooling::Cls),
            Some("mean") => Ok(Pooling::Mean),
            _ => Err(self.error(self.name(setting), found.unwrap_or(&Value::Null), "\"cls\" or \"mean\"".into())),
        }
    }

    /// The base of rotary frequencies: `rope_theta` in `rope_parameters`, or in its part for layers of a kind; before
    /// `transformers` 5, one of the settings `old`.
    pub(crate) fn theta(&self, kind: Option<&str>, old: &[&'static str], default: f32) -> Result<f32> {
        let all = self.raw.get("rope_parameters").filter(|all| !all.is_null());
        let parts = |all: &Map<String, Value>| {
            all.iter().all(|(name, part)| LAYER_KINDS.contains(&name.as_str()) && (part.is_null() || part.is_object()))
        };
        if let Some(found) = all.filter(|all| !all.as_object().is_some_and(|all| kind.is_none() || parts(all))) {
            let form =
                if kind.is_some() { "by kind of layer (full_attention, sliding_attention)" } else { "an object" };
            return Err(self.error("rope_parameters", found, form.into()));
        }
        let own = kind.map_or(all, |kind| all.and_then(|all| all.get(kind)));
        if let Some(found) = own.and_then(|own| own.get("rope_type")).filter(|found| **found != "default") {
            let expected = format!("of rope_type \"default\", not {found}");
            return Err(self.error("rope_parameters", all.unwrap_or(found), expected));
        }
        let new = own.and_then(|own| own.get("rope_theta")).map(|value| ("rope_parameters", value));
        let old = old.iter().find_map(|name| self.raw.get(*name).map(|value| (*name, value)));
        let Some((name, value)) = new.or(old) else { return Ok(default) };
        let theta = value.as_f64().map(|theta| theta as f32).filter(|theta| *theta >= 1.0 && theta.is_finite());
        theta.ok_or_else(|| self.error(name, value, "a base of at least 1 (rope_theta)".into()))
    }

    pub(crate) fn pad_token_id(&self, setting: &Setting<u32>, vocab_size: usize) -> Result<Option<u32>> {
        let (name, id) = match self.value(setting)? {
            None => ("pad_token_id", Some(u64::from(setting.default))),
            Some((_, Value::Null)) => return Ok(None),
            Some((name, value)) => (name, value.as_u64()),
        };
        let id = id.filter(|&id| id < vocab_size as u64).and_then(|id| u32::try_from(id).ok());
        let found = self.raw.get(name).map_or_else(|| setting.default.to_string(), Value::to_string);
        id.map(Some).ok_or_else(|| self.error(name, &found, format!("null or a token id below {vocab_size}")))
    }

    pub(crate) fn activation(&self, setting: &Setting<&'static str>) -> Result<Activation> {
        let (name, value) = match self.value(setting)? {
            None => (setting.default, &Value::Null),
            Some((_, value)) => (value.as_str().unwrap_or_default(), value),
        };
        let known = ACTIVATIONS.iter().find(|(known, _)| *known == name);
        known.map(|(_, activation)| *activation).ok_or_else(|| {
            let names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
            self.error(self.name(setting), value, format!("one of {}", names.join(", ")))
        })
    }

    pub(crate) fn eps(&self, setting: &Setting<f64>) -> Result<f32> {
        let Some((name, value)) = self.value(setting)? else { return Ok(setting.default as f32) };
        let eps = value.as_f64().map(|eps| eps as f32).filter(|eps| *eps >= 0.0 && eps.is_finite());
        eps.ok_or_else(|| self.error(name, value, "a number of at least 0".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Quantisation;

    #[test]
    fn errors_quote_the_beginning_of_long_values() {
        let raw = serde_json::json!({ "quantization_config": { "method": "é".repeat(500) } });
        let reader = Reader { file: Path::new("config.json"), raw: raw.as_object().unwrap() };
        let message = Quantisation::read(&reader).unwrap_err().to_string();
        assert!(message.starts_with("config.json: quantization_config is {\"method\":\"éé"), "{message}");
        assert!(message.len() < 400 && message.contains("é.., but must be"), "{message}");
    }

    #[test]
    fn each_activation_is_mapped_once() {
        let mut names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
        names.dedup();
        assert_eq!(names.len(), ACTIVATIONS.len());
        assert!(names.is_sorted());
        for activation in Activation::ALL {
            assert!(ACTIVATIONS.iter().any(|(_, a)| *a == activation), "{activation:?} is never used");
        }
    }
}
