//! `modules.json`: the modules of a sentence-transformers model in order, and where each lies.
//!
//! What modules there may be, and what they do, is in `sentence/`; which of their files a hub is asked for in `hub/files.rs`.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::json::read_optional;
use crate::{Error, Result};

/// The file's name.
pub(crate) const MODULES: &str = "modules.json";

/// The package whose classes are modules.
const PACKAGE: &str = "sentence_transformers.";

/// One module.
#[derive(Deserialize)]
pub(crate) struct Module {
    /// Its folder within the model's; the model's own if empty.
    #[serde(default)]
    pub(crate) path: String,
    /// Its class, a path of Python's.
    pub(crate) r#type: String,
}

impl Module {
    /// The name of its class; `None` if it is not sentence-transformers' own: another's of that name may do anything.
    pub(crate) fn kind(&self) -> Option<&str> {
        self.r#type.strip_prefix(PACKAGE)?.rsplit('.').next()
    }

    /// Its folder within the model's, or nothing for that itself; `None` if it is elsewhere.
    pub(crate) fn place(&self) -> Option<PathBuf> {
        let parts = Path::new(&self.path).components().filter(|part| *part != Component::CurDir);
        parts.map(|part| matches!(part, Component::Normal(_)).then(|| part.as_os_str())).collect()
    }
}

/// The modules of the model in `folder`; `None` if it is not one of sentence-transformers.
///
/// # Errors
/// [`Error::Io`] and [`Error::Json`] for a list that cannot be read.
pub(crate) fn read(folder: &Path) -> Result<Option<Vec<Module>>> {
    read_optional(&folder.join(MODULES))
}

/// Where the transformer of the model in `folder` lies within it: nothing for that itself, as nearly all have it, and where
/// the list cannot be read, which making embeddings tells.
pub(crate) fn transformer(folder: &Path) -> PathBuf {
    let modules = read(folder).ok().flatten().unwrap_or_default();
    let first = modules.first().filter(|module| module.kind() == Some("Transformer"));
    first.and_then(Module::place).unwrap_or_default()
}

/// The settings of the module in `folder`.
///
/// # Errors
/// [`Error::MissingFile`] if there are none; [`Error::Io`] and [`Error::Json`].
pub(crate) fn config<T: DeserializeOwned>(folder: &Path) -> Result<T> {
    read_optional(&folder.join("config.json"))?.ok_or_else(|| Error::MissingFile {
        folder: folder.into(),
        file: "config.json",
        advice: "modules.json names this folder; download it too",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, class: &str) -> Module {
        Module { path: path.into(), r#type: class.into() }
    }

    #[test]
    fn a_module_is_a_class_of_the_library() {
        let kind = |class| module("", class).kind().map(str::to_owned);
        assert_eq!(kind("sentence_transformers.models.Pooling").as_deref(), Some("Pooling"));
        assert_eq!(kind("sentence_transformers.base.modules.dense.Dense").as_deref(), Some("Dense"));
        assert_eq!(kind("custom_st.Transformer"), None);
        assert_eq!(kind("Pooling"), None);
    }

    #[test]
    fn a_module_lies_within_the_model() {
        let place = |path| module(path, "").place();
        for inside in ["", ".", "./"] {
            assert_eq!(place(inside), Some(PathBuf::new()), "{inside:?}");
        }
        assert_eq!(place("./0_BERT"), Some("0_BERT".into()));
        for outside in ["..", "a/../..", "/etc"] {
            assert_eq!(place(outside), None, "{outside}");
        }
    }

    #[test]
    fn a_transformer_is_found_where_the_list_says() {
        let folder = tempfile::tempdir().unwrap();
        let place = |text: &str| {
            std::fs::write(folder.path().join(MODULES), text).unwrap();
            transformer(folder.path())
        };
        let class = "sentence_transformers.models";
        assert_eq!(transformer(folder.path()), Path::new(""), "no list");
        assert_eq!(place(&format!(r#"[{{"path": "0_BERT", "type": "{class}.Transformer"}}]"#)), Path::new("0_BERT"));
        assert_eq!(place(&format!(r#"[{{"path": "..", "type": "{class}.Transformer"}}]"#)), Path::new(""));
        assert_eq!(place(&format!(r#"[{{"path": "0_BoW", "type": "{class}.BoW"}}]"#)), Path::new(""));
        assert_eq!(place("["), Path::new(""));
    }
}
