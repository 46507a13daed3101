//! What tells a model from another, or from itself after a change: its files.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use mlx_transformers::Hub;

use crate::input::Identity;
use crate::output::Files;

/// What a model's files are called; others in its folder may be anybody's.
const KINDS: [&str; 5] = ["json", "txt", "safetensors", "bin", "model"];

/// Where a model's files are found, once it is loaded.
#[derive(Debug, Clone)]
pub(crate) struct ModelSource {
    name: String,
    revision: Option<String>,
}

impl ModelSource {
    /// Of a folder or a hub id.
    pub(crate) fn new(name: String, revision: Option<String>) -> Self {
        Self { name, revision }
    }

    /// The files in its folder, and in the folders in that.
    pub(crate) fn files(&self) -> Result<Files> {
        let hub = Hub { offline: true, ..Hub::from_env() };
        let folder = hub.find(&self.name, self.revision.as_deref())?;
        let mut files = Files::new();
        add(folder.path(), "", &mut files).with_context(|| format!("cannot read {}", folder.path().display()))?;
        Ok(files)
    }
}

/// Adds those in `folder`, whose names begin with `prefix`.
fn add(folder: &Path, prefix: &str, files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() && prefix.is_empty() {
            add(&path, &format!("{name}/"), files)?;
        } else if path.extension().is_some_and(|kind| KINDS.iter().any(|known| kind == *known)) {
            files.extend(Identity::of(&path).map(|identity| (name, identity)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_model_are_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("1_Pooling/deeper")).unwrap();
        for name in
            ["config.json", "model.safetensors", "x.jsonl.partial", "1_Pooling/config.json", "1_Pooling/deeper/a.json"]
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let model = ModelSource::new(folder.path().to_str().unwrap().to_owned(), None);
        let before = model.files().unwrap();
        assert_eq!(before.keys().collect::<Vec<_>>(), ["1_Pooling/config.json", "config.json", "model.safetensors"]);
        fs::write(folder.path().join("model.safetensors"), "longer").unwrap();
        assert_ne!(model.files().unwrap(), before);
    }
}
