//! Compiles the bridge where MLX's headers are at hand, and embeds it. Where they are not, or nothing compiles, the build
//! goes on: the program then compiles it at first use.

#[path = "src/compiler.rs"]
mod compiler;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/compiler.rs");
    println!("cargo::rerun-if-changed=bridge");
    for variable in ["MLX_DIR", "VIRTUAL_ENV", "CONDA_PREFIX", "CC", "CXX"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let (Some(out), Some(here)) = (env::var_os("OUT_DIR"), env::var_os("CARGO_MANIFEST_DIR")) else { return };
    let (out, sources) = (PathBuf::from(out), Path::new(&here).join("bridge"));
    let bridge = named_folders().into_iter().find_map(|folder| {
        let include = folder.join("include");
        let version = compiler::headers_version(&include)?;
        let library = made(&sources, compiler::BRIDGE[0].0, Some(&include), &out)?;
        Some(format!("(\"{version}\", {})", included(&library)))
    });
    let linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    let blas = linux.then(|| made(&sources, compiler::BLAS[0].0, None, &out)).flatten();
    let blas = blas.map(|library| included(&library));
    let constant = |name: &str, what: &str, kind: &str, value: Option<String>| {
        let value = value.map_or_else(|| "None".to_owned(), |v| format!("Some({v})"));
        format!("/// {what}\npub(crate) const {name}: Option<{kind}> = {value};\n")
    };
    let text = constant("BRIDGE", "The version it was built for, and the bridge.", "(&str, &[u8])", bridge)
        + &constant("BLAS", "What stands in for the wheel's BLAS.", "&[u8]", blas);
    if let Err(error) = fs::write(out.join("embedded.rs"), text) {
        println!("cargo::error=embedded.rs: {error}");
    }
}

fn included(library: &Path) -> String {
    format!("include_bytes!(r#\"{}\"#)", library.display())
}

/// The library of one source, if it compiles.
fn made(sources: &Path, source: &str, include: Option<&Path>, out: &Path) -> Option<PathBuf> {
    let library = out.join(source).with_extension(compiler::SUFFIX);
    // A library is for this machine; what is built for another is compiled there.
    if env::var("HOST") != env::var("TARGET") {
        return None;
    }
    match compiler::compile(&sources.join(source), include, &library) {
        Ok(()) => Some(library),
        Err(compiler::Failure::Missing(program)) => {
            println!("cargo::warning=mlxt-mlx: no {}: {source} is compiled at first use", program.display());
            None
        }
        Err(compiler::Failure::Failed(message)) => {
            let first = message.lines().find(|line| line.contains("error")).unwrap_or("the compiler failed");
            println!("cargo::warning=mlxt-mlx: {source} is compiled at first use: {first}");
            None
        }
    }
}

/// Folders that environment variables and Homebrew name: what has MLX's `include` may be among them. Where MLX is at run time
/// is for `find.rs` to say.
fn named_folders() -> Vec<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(set);
    let packages = environments.flat_map(|environment| compiler::packages(&environment));
    set("MLX_DIR").into_iter().chain(packages).chain(["/opt/homebrew/opt/mlx".into()]).collect()
}
