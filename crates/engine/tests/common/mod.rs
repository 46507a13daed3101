//! The fixture folders and their golden outputs.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)] // each test binary uses its own part

pub mod server;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mlx_transformers::Device;
use safetensors::SafeTensors;
use serde::Deserialize;

/// One text and what `transformers` makes of it.
#[derive(Deserialize)]
pub struct Case {
    pub text: String,
    pub pair: Option<String>,
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    pub tokens: Vec<String>,
    pub embedding_tokens: usize,
}

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

/// A folder with a model and its golden outputs.
pub struct Golden {
    pub folder: PathBuf,
    pub cases: Vec<Case>,
    tensors: HashMap<String, Vec<f32>>,
}

impl Golden {
    pub fn name(&self) -> String {
        self.folder.display().to_string()
    }

    /// Values of `what.i`.
    pub fn get(&self, what: &str, case: usize) -> Option<&[f32]> {
        self.tensors.get(&format!("{what}.{case}")).map(Vec::as_slice)
    }
}

/// Where the fixtures are; `MLXT_TEST_FIXTURES` says so where the tests run on another machine than they were built on.
pub fn fixtures() -> PathBuf {
    match std::env::var_os("MLXT_TEST_FIXTURES") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures"),
    }
}

/// The device that golden outputs are compared on: the CPU unless `MLXT_TEST_DEVICE` names another.
pub fn device() -> Device {
    std::env::var("MLXT_TEST_DEVICE").map_or(Device::Cpu, |name| name.parse().unwrap())
}

/// What golden outputs may be off by on that device, given what they may on the CPU: the order of sums is a device's own, and
/// a GPU's `exp` and `erf` are good to some units in the last place.
pub fn allowed(on_cpu: f32) -> f32 {
    if device() == Device::Cpu { on_cpu } else { 10.0 * on_cpu }
}

/// Every fixture that has a tokenizer, in order of name.
pub fn goldens() -> Vec<Golden> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(fixtures()).unwrap().map(|e| e.unwrap().path()).collect();
    folders.retain(|folder| folder.join("tokenizer.json").is_file());
    folders.sort();
    assert!(folders.len() >= 10, "only {} fixtures", folders.len());
    folders.into_iter().map(golden).collect()
}

pub fn golden(folder: PathBuf) -> Golden {
    let text = std::fs::read(folder.join("golden.json")).unwrap();
    let file: File = serde_json::from_slice(&text).unwrap();
    let tensors = tensors(&folder);
    Golden { folder, cases: file.cases, tensors }
}

/// The values of a folder's `golden.safetensors`, by name.
pub fn tensors(folder: &Path) -> HashMap<String, Vec<f32>> {
    let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    tensors.iter().map(|(name, view)| (name.to_owned(), floats(view.data()))).collect()
}

/// The largest difference of two lists of one length.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A copy of a fixture's folder that a test may damage.
pub fn copy(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_into(&fixtures().join(name), copy.path());
    copy
}

fn copy_into(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_into(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
