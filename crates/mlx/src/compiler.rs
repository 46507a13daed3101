//! The bridge's sources and how the system's compiler makes a library of them. Shared by build.rs, which embeds the result
//! where MLX's headers are at hand, and by `bridge.rs`, which does the same at first use where they were not.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bridge's files, the one that is compiled first.
pub(crate) const BRIDGE: [(&str, &str); 10] = [
    ("bridge.cpp", include_str!("../bridge/bridge.cpp")),
    ("bridge.h", include_str!("../bridge/bridge.h")),
    ("arithmetic.hpp", include_str!("../bridge/arithmetic.hpp")),
    ("cuda.hpp", include_str!("../bridge/cuda.hpp")),
    ("ragged.hpp", include_str!("../bridge/ragged.hpp")),
    ("norm.hpp", include_str!("../bridge/norm.hpp")),
    ("places.hpp", include_str!("../bridge/places.hpp")),
    ("attention.hpp", include_str!("../bridge/attention.hpp")),
    ("plan.hpp", include_str!("../bridge/plan.hpp")),
    ("operations.hpp", include_str!("../bridge/operations.hpp")),
];

/// What stands in for the wheel's BLAS on Linux.
pub(crate) const BLAS: [(&str, &str); 1] = [("blas.c", include_str!("../bridge/blas.c"))];

/// Symbols of MLX are left open: they are bound when the bridge is loaded, after MLX.
const SHARED: &[&str] = if cfg!(target_os = "macos") {
    &["-dynamiclib", "-undefined", "dynamic_lookup", "-mmacosx-version-min=14.0"]
} else {
    &["-shared", "-Wl,-z,now"]
};

/// A shared library's file name.
pub(crate) const SUFFIX: &str = if cfg!(target_os = "macos") { "dylib" } else { "so" };

/// Why there is no library.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No such program.
    Missing(OsString),
    /// What it wrote.
    Failed(String),
}

/// Compiles `source`, in the folder of the others, to `library`. `include` is the folder that holds `mlx/mlx.h`.
pub(crate) fn compile(source: &Path, include: Option<&Path>, library: &Path) -> Result<(), Failure> {
    let is_c = source.extension().is_some_and(|e| e == "c");
    let program = if is_c {
        env::var_os("CC").unwrap_or_else(|| "cc".into())
    } else {
        env::var_os("CXX").unwrap_or_else(|| "c++".into())
    };
    let mut command = Command::new(&program);
    if !is_c {
        command.arg("-std=c++20");
    }
    command.args(["-O2", "-fPIC", "-fvisibility=hidden"]).args(SHARED);
    if let Some(include) = include {
        command.arg("-isystem").arg(include);
    }
    command.arg(source).arg("-o").arg(library);
    match command.output() {
        Err(_) => Err(Failure::Missing(program)),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Failure::Failed(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// The version of the headers in `include`, if there are any.
pub(crate) fn headers_version(include: &Path) -> Option<String> {
    let text = std::fs::read_to_string(include.join("mlx/version.h")).ok()?;
    let part = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(name))?;
        line.split_whitespace().nth(2)?.parse::<u32>().ok()
    };
    let [major, minor, patch] = ["MLX_VERSION_MAJOR", "MLX_VERSION_MINOR", "MLX_VERSION_PATCH"].map(part);
    Some(format!("{}.{}.{}", major?, minor?, patch?))
}

/// The packages `mlx` of an environment of Python: one for each of its versions, if it has any.
pub(crate) fn packages(environment: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    let versions = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
    let packages = versions.map(|entry| entry.path().join("site-packages/mlx"));
    packages.filter(|folder| folder.is_dir()).collect()
}
