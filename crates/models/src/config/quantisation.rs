//! `quantization` of `config.json`, as MLX's converters write it: how the weights of a checkpoint are packed.
//!
//! `{"group_size": 64, "bits": 4, "mode": "affine"}` is how all are that are packed; beside these, the name of a module has
//! settings of its own, or `false` where that module is not packed. MLX's converters write the same once more as
//! `quantization_config`; what other tools write there is refused.

use std::collections::BTreeMap;
use std::fmt;

use mlxt_backend::Scheme;
use serde_json::{Map, Value};

use super::Reader;
use crate::Result;

/// The settings, in the order in which they are looked for.
const NAMES: [&str; 2] = ["quantization", "quantization_config"];
/// What says how all modules are packed.
const SETTINGS: [&str; 4] = ["group_size", "bits", "mode", "quantize_input"];
const EXPECTED: &str = "MLX's group_size, bits and mode (affine, mxfp4, nvfp4, mxfp8), for all modules or by their names \
                        (of other formats, load the checkpoint that was not quantised)";

/// How the weights of a checkpoint are packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantisation {
    scheme: Scheme,
    /// Modules that differ; `None` for those that are not packed.
    others: BTreeMap<String, Option<Scheme>>,
}

impl Quantisation {
    /// Reads it; `None` for a file without.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for anything that is not MLX's.
    pub(crate) fn read(reader: &Reader<'_>) -> Result<Option<Self>> {
        let mut present = NAMES.iter().filter_map(|name| Some((*name, reader.raw.get(*name)?)));
        let mut present = present.by_ref().filter(|(_, value)| !value.is_null());
        let Some((name, value)) = present.next() else { return Ok(None) };
        if let Some((other, differs)) = present.find(|(_, other)| *other != value) {
            return Err(reader.error(other, differs, format!("the same as {name}")));
        }
        let quantisation = value.as_object().and_then(Self::of);
        quantisation.map(Some).ok_or_else(|| reader.error(name, value, EXPECTED.into()))
    }

    fn of(settings: &Map<String, Value>) -> Option<Self> {
        let scheme = scheme(settings)?;
        let modules = settings.iter().filter(|(name, _)| !SETTINGS.contains(&name.as_str()));
        let other = |(name, value): (&String, &Value)| {
            let own = match value {
                Value::Bool(packed) => packed.then_some(scheme),
                Value::Object(settings) => Some(self::scheme(settings)?),
                _ => return None,
            };
            Some((name.clone(), own))
        };
        Some(Self { scheme, others: modules.map(other).collect::<Option<_>>()? })
    }

    /// How `module` is packed, by its name in the file without `.weight`, if it is packed at all; `None` if it must not
    /// be.
    pub fn scheme_of(&self, module: &str) -> Option<Scheme> {
        self.others.get(module).copied().unwrap_or(Some(self.scheme))
    }
}

impl fmt::Display for Quantisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.scheme)?;
        match self.others.len() {
            0 => Ok(()),
            1 => f.write_str(" (1 module otherwise)"),
            n => write!(f, " ({n} modules otherwise)"),
        }
    }
}

/// `group_size`, `bits` and `mode`, if they are those of something there is.
fn scheme(settings: &Map<String, Value>) -> Option<Scheme> {
    if settings.get("quantize_input").is_some_and(|rounded| *rounded != false) {
        return None; // Other products than these are.
    }
    let size = |name: &str| settings.get(name).map(|value| value.as_u64().and_then(|n| usize::try_from(n).ok()));
    let scheme = match settings.get("mode").map_or(Some("affine"), Value::as_str)? {
        "affine" => Scheme::Affine { bits: size("bits")??, group: size("group_size")?? },
        "mxfp4" => Scheme::Mxfp4,
        "nvfp4" => Scheme::Nvfp4,
        "mxfp8" => Scheme::Mxfp8,
        _ => return None,
    };
    let same = |name, own| size(name).is_none_or(|found| found == Some(own));
    (scheme.check().is_ok() && same("bits", scheme.bits()) && same("group_size", scheme.group())).then_some(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Error};

    fn read(settings: &str) -> Result<Option<Quantisation>> {
        let config = Config::from_json(&format!(r#"{{"model_type": "bert", {settings}}}"#))?;
        Ok(config.quantisation().cloned())
    }

    #[test]
    fn modules_may_have_settings_of_their_own() {
        let all = r#"{"group_size": 64, "bits": 4, "a.b": {"group_size": 32, "bits": 8}, "c": false, "d": true, "quantize_input": false,
            "e": {"mode": "nvfp4", "group_size": 16, "bits": 4}}"#;
        let found = read(&format!(r#""quantization": {all}, "quantization_config": {all}"#)).unwrap().unwrap();
        let four = Scheme::Affine { bits: 4, group: 64 };
        assert_eq!(found.scheme_of("anything"), Some(four));
        assert_eq!(found.scheme_of("a.b"), Some(Scheme::Affine { bits: 8, group: 32 }));
        assert_eq!(["c", "d", "e"].map(|m| found.scheme_of(m)), [None, Some(four), Some(Scheme::Nvfp4)]);
        assert_eq!(found.to_string(), "affine, 4 bits, groups of 64 (4 modules otherwise)");
    }

    #[test]
    fn what_is_not_quantised_has_none() {
        assert_eq!(read(r#""vocab_size": 9"#).unwrap(), None);
        assert_eq!(read(r#""quantization": null, "quantization_config": null"#).unwrap(), None);
        assert!(read(r#""quantization_config": {"bits": 4, "mode": "mxfp4"}"#).unwrap().is_some());
    }

    #[test]
    fn hostile_settings_are_named() {
        for settings in [
            "{}",
            "[]",
            "4",
            "false",
            r#"{"bits": 4}"#,
            r#"{"group_size": 64}"#,
            r#"{"bits": 0, "group_size": 64}"#,
            r#"{"bits": 7, "group_size": 64}"#,
            r#"{"bits": 4, "group_size": 0}"#,
            r#"{"bits": -4, "group_size": 64}"#,
            r#"{"bits": 4.5, "group_size": 64}"#,
            r#"{"bits": 18446744073709551615, "group_size": 64}"#,
            r#"{"bits": 4, "group_size": 64, "mode": "awq"}"#,
            r#"{"bits": 4, "group_size": 64, "mode": 4}"#,
            r#"{"bits": 8, "group_size": 32, "mode": "mxfp4"}"#,
            r#"{"bits": 4, "group_size": 32, "mode": "nvfp4"}"#,
            r#"{"bits": 4, "group_size": 64, "quant_method": "gptq"}"#,
            r#"{"bits": 4, "group_size": 16, "mode": "nvfp4", "quantize_input": true}"#,
            r#"{"bits": 4, "group_size": 64, "module": {"bits": 4}}"#,
            r#"{"bits": 4, "group_size": 64, "module": null}"#,
        ] {
            match read(&format!(r#""quantization_config": {settings}"#)) {
                Err(Error::Setting { name, .. }) => assert_eq!(name, "quantization_config", "{settings}"),
                other => panic!("{settings} gives {other:?}"),
            }
        }
        let two =
            r#""quantization": {"bits": 4, "group_size": 64}, "quantization_config": {"bits": 8, "group_size": 64}"#;
        assert!(read(two).unwrap_err().to_string().contains("the same as quantization"));
    }
}
