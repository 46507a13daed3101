//! Gets MLX: its library and headers, out of its wheels, into this program's data folder, by pip.
//!
//! The folder appears when it is whole, and an interrupted download is gone on with. What finds it there is
//! `crates/mlx/src/find.rs`. The wheels hold no Python: that of the machine, whichever version, only brings them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use mlxt_python::{PYTHON, pip};

use crate::folder::Partial;

/// The release that this program was tested with. Any from 0.32.0 on works, where it is found.
pub(crate) const RELEASE: &str = "0.32.4";

/// The Python whose wheels are asked for, so that it does not matter which one asks.
const WHEELS_OF: [&str; 4] = ["--only-binary", ":all:", "--python-version", "3.12"];

/// The oldest drivers of NVIDIA, by MLX's own documentation.
const CUDA12_DRIVER: [u32; 3] = [550, 54, 14];
const CUDA13_DRIVER: [u32; 3] = [580, 0, 0];

/// A build of MLX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// Linux, no GPU
    Cpu,
    /// Linux, NVIDIA's GPUs, driver 550.54.14 or newer
    Cuda12,
    /// Linux, NVIDIA's GPUs, driver 580 or newer
    Cuda13,
    /// Macs with Apple silicon, macOS 14 or newer
    Metal,
}

impl Variant {
    /// Its wheel.
    fn wheel(self) -> &'static str {
        match self {
            Self::Cpu => "mlx-cpu",
            Self::Cuda12 => "mlx-cuda-12",
            Self::Cuda13 => "mlx-cuda-13",
            Self::Metal => "mlx-metal",
        }
    }

    /// What its wheel needs and does not ask for. It compiles kernels against CUDA's headers, which it looks for in
    /// `nvidia/cuda_runtime` beside it with CUDA 12, where none of its packages puts them; with CUDA 13 only what some kernels for
    /// quantised weights include is missing, which NVIDIA ships by itself.
    fn companions(self) -> &'static [&'static str] {
        match self {
            Self::Cuda12 => &["nvidia-cuda-runtime-cu12==12.9.*"],
            Self::Cuda13 => &["nvidia-cuda-crt==13.*"],
            Self::Cpu | Self::Metal => &[],
        }
    }

    /// The one for this machine, and why.
    pub(crate) fn of_this_machine() -> Result<(Self, String)> {
        Self::of(std::env::consts::OS, std::env::consts::ARCH, driver())
    }

    fn of(os: &str, arch: &str, driver: Option<[u32; 3]>) -> Result<(Self, String)> {
        let named = |[major, minor, patch]: [u32; 3]| format!("driver {major}.{minor}.{patch} of NVIDIA");
        match (os, arch, driver) {
            ("macos", "aarch64", _) => Ok((Self::Metal, "Apple silicon".into())),
            ("linux", _, Some(found)) if found >= CUDA13_DRIVER => Ok((Self::Cuda13, named(found))),
            ("linux", _, Some(found)) if found >= CUDA12_DRIVER => Ok((Self::Cuda12, named(found))),
            ("linux", _, Some(found)) => {
                let needed = named(CUDA12_DRIVER);
                Ok((Self::Cpu, format!("{} is older than the {needed} that MLX needs", named(found))))
            }
            ("linux", _, None) => Ok((Self::Cpu, "no driver of NVIDIA".into())),
            _ => bail!("MLX has no wheels for {os} on {arch}: it runs on Linux and on Macs with Apple silicon"),
        }
    }
}

/// The version of NVIDIA's driver, if there is one.
fn driver() -> Option<[u32; 3]> {
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok().or_else(|| {
        let asked = Command::new("nvidia-smi").args(["--query-gpu=driver_version", "--format=csv,noheader"]).output();
        asked.ok().filter(|output| output.status.success()).map(|output| String::from_utf8_lossy(&output.stdout).into())
    });
    driver_in(&text?)
}

/// The first word that is a version of two or three numbers.
fn driver_in(text: &str) -> Option<[u32; 3]> {
    text.split_whitespace().find_map(|word| {
        let numbers = word.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>().ok()?;
        match numbers[..] {
            [major, minor] => Some([major, minor, 0]),
            [major, minor, patch] => Some([major, minor, patch]),
            _ => None,
        }
    })
}

/// Whether a folder holds `variant`: it got its name when it was whole.
pub(crate) fn holds(folder: &Path, variant: Variant) -> bool {
    let wheel = variant.wheel().replace('-', "_");
    folder.join(format!("{wheel}-{RELEASE}.dist-info")).is_dir()
}

/// Makes `folder` hold `variant` and nothing else. `hear` gets the lines that pip says.
///
/// # Errors
/// No Python, no pip, no network, no room; another run of this.
pub(crate) fn install(folder: &Path, variant: Variant, hear: &mut dyn FnMut(&str)) -> Result<()> {
    let partial = Partial::open(folder)?;
    let python = python_with_pip(&partial.path("python"), hear)?;
    let wanted = format!("{}=={RELEASE}", variant.wheel());
    let packages = [&[wanted.as_str()], variant.companions()].concat();
    let wheels = partial.path("wheels");

    // Wheels that are there whole are not fetched again.
    let mut download = pip_of(&python, "download");
    download.args(WHEELS_OF).arg("--no-cache-dir").arg("--dest").arg(&wheels).args(&packages);
    mlxt_python::run(&mut download, hear).context("cannot get MLX")?;

    let new = partial.begin()?;
    let mut install = pip_of(&python, "install");
    install.args(WHEELS_OF).args(["--no-index", "--no-compile", "--find-links"]).arg(&wheels);
    install.arg("--target").arg(&new).args(&packages);
    mlxt_python::run(&mut install, hear).context("cannot unpack MLX")?;
    if !holds(&new, variant) {
        bail!("pip installed {wanted} without error, but it is not in {}", new.display());
    }

    partial.finish(folder)
}

/// The machine's Python if it has pip, else that of a virtual environment made for this, which brings its own.
fn python_with_pip(environment: &Path, hear: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let has_pip = |python: &Path| mlxt_python::run(Command::new(python).args(["-m", "pip", "--version"]), &mut |_| {});
    let Err(error) = has_pip(PYTHON.as_ref()) else { return Ok(PYTHON.into()) };
    if matches!(error, mlxt_python::Error::Start { .. }) {
        return Err(error).context("getting MLX takes Python");
    }
    let made = mlxt_python::run(Command::new(PYTHON).args(["-m", "venv"]).arg(environment), hear);
    // What pip's absence says is how to get it, which is simpler than what the environment lacks.
    made.or(Err(error)).context("getting MLX takes pip")?;
    Ok(environment.join("bin/python"))
}

fn pip_of(python: &Path, what: &str) -> Command {
    let mut command = pip(python, what);
    // With `user = true` in its settings pip would refuse a target.
    command.env("PIP_USER", "0");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_is_that_of_system_and_driver() {
        let of = |os, arch, driver: &str| Variant::of(os, arch, driver_in(driver)).map(|(variant, _)| variant);
        for (driver, variant) in [
            ("", Variant::Cpu),
            ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", Variant::Cpu),
            ("550.54.13", Variant::Cpu),
            ("550.54.14", Variant::Cuda12),
            ("575.99", Variant::Cuda12),
            ("NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x) Sun Jul 27", Variant::Cuda13),
            ("610.1", Variant::Cuda13),
        ] {
            assert_eq!(of("linux", "x86_64", driver).unwrap(), variant, "{driver}");
        }
        assert_eq!(of("macos", "aarch64", "").unwrap(), Variant::Metal);
        assert!(of("macos", "x86_64", "").unwrap_err().to_string().contains("no wheels for macos on x86_64"));
        assert!(of("windows", "x86_64", "580.1").is_err());
    }
}
