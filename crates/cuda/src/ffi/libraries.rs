//! Finds the libraries of CUDA and keeps them loaded, so that what loads them by name later finds them.
//!
//! They may be where the system looks, in a CUDA toolkit, or in pip's nvidia packages. `cudarc` panics when a library is
//! missing or lacks a function, so both are looked at here first.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use libloading::Library;
use mlxt_backend::{Error, Result};

use crate::ffi::failure;

/// The functions this crate calls of the driver that older drivers have not.
const DRIVER_FUNCTIONS: [&str; 5] = [
    "cuLaunchKernelEx",
    "cuGraphInstantiateWithFlags",
    "cuMemAllocAsync",
    "cuTensorMapEncodeTiled",
    "cuEventElapsedTime_v2",
];
/// Versions of a library that have the functions called here, newest first. On Windows the names of older ones are not among
/// those that `cudarc` tries.
const MAJORS: &[u32] = if cfg!(windows) { &[13] } else { &[13, 12] };
/// The driver.
const DRIVER: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
/// Where a toolkit and pip's packages have their libraries.
const LIBRARIES: [&str; 2] = if cfg!(windows) { ["bin/x64", "bin"] } else { ["lib64", "lib"] };

/// A library of CUDA.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// What its files are called after.
    name: &'static str,
    /// What its file is called on Windows.
    windows: &'static str,
    /// What people call it.
    title: &'static str,
    /// Pip's package of it.
    package: &'static str,
    /// How files beside it begin that it opens by name when it is first used.
    companions: Option<&'static str>,
}

const NVRTC: Wanted = Wanted {
    name: "nvrtc",
    windows: "nvrtc64_130_0.dll",
    title: "NVRTC",
    package: "nvidia-cuda-nvrtc",
    companions: Some(if cfg!(windows) { "nvrtc-builtins64_" } else { "libnvrtc-builtins.so" }),
};
const CUBLASLT: Wanted = Wanted {
    name: "cublasLt",
    windows: "cublasLt64_13.dll",
    title: "cuBLASLt",
    package: "nvidia-cublas",
    companions: None,
};

/// Loads the driver.
///
/// # Errors
/// [`Error::Device`] with what to do.
pub(crate) fn driver() -> Result<()> {
    static FOUND: OnceLock<Result<()>> = OnceLock::new();
    let find = || {
        let library = load(Path::new(DRIVER)).ok_or_else(|| {
            failure(format!("no NVIDIA driver was found ({DRIVER}); install one, or use another device"))
        })?;
        for function in DRIVER_FUNCTIONS {
            // SAFETY: the symbol is looked up, not called.
            if unsafe { library.get::<*const ()>(function.as_bytes()) }.is_err() {
                return Err(failure(format!("the NVIDIA driver has no {function}: update it to version 570 or newer")));
            }
        }
        Ok(())
    };
    FOUND.get_or_init(find).clone()
}

/// Loads NVRTC, which compiles kernels; the first time from `folder` if it is there.
///
/// # Errors
/// [`Error::Device`] with what to do.
pub(crate) fn nvrtc(folder: Option<&Path>) -> Result<()> {
    static FOUND: OnceLock<Result<()>> = OnceLock::new();
    FOUND.get_or_init(|| NVRTC.find(folder)).clone()
}

/// Loads cuBLASLt, which multiplies matrices.
///
/// # Errors
/// [`Error::Device`] with what to do.
pub(crate) fn cublaslt() -> Result<()> {
    static FOUND: OnceLock<Result<()>> = OnceLock::new();
    FOUND.get_or_init(|| CUBLASLT.find(None)).clone()
}

impl Wanted {
    /// Its files, newest first.
    fn files(self) -> Vec<String> {
        let file =
            |major: &u32| if cfg!(windows) { self.windows.into() } else { format!("lib{}.so.{major}", self.name) };
        MAJORS.iter().map(file).collect()
    }

    /// Loads it, from `first` if it is there, or from where else it may be. The system's own places are asked last, by name alone.
    fn find(self, first: Option<&Path>) -> Result<()> {
        let folders: Vec<PathBuf> = first.map(Path::to_owned).into_iter().chain(folders()).collect();
        let files = self.files();
        if folders.iter().any(|folder| self.found_in(folder))
            || files.iter().any(|file| load(Path::new(file)).is_some())
        {
            return Ok(());
        }
        let versions = MAJORS.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ");
        let Self { title, package, .. } = self;
        Err(failure(format!(
            "{title} {versions} was not found ({}): install the CUDA toolkit, or `pip install {package}` for the python3 or \
             VIRTUAL_ENV in use",
            files.join(", ")
        )))
    }

    fn found_in(self, folder: &Path) -> bool {
        let files = self.files().into_iter().map(|file| folder.join(file));
        files.filter(|path| path.is_file()).any(|path| {
            // What it opens by name itself has to be there before it asks.
            for path in self.companions_in(folder) {
                load(&path);
            }
            load(&path).is_some()
        })
    }

    fn companions_in(self, folder: &Path) -> Vec<PathBuf> {
        let Some(begin) = self.companions else { return Vec::new() };
        let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(begin))).collect()
    }
}

/// Where the libraries may be: in toolkits and in pip's packages.
fn folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    for toolkit in toolkits.chain(["/usr/local/cuda".into()]) {
        folders.extend(LIBRARIES.map(|libraries| toolkit.join(libraries)));
    }
    for site in site_packages() {
        // nvidia/cu13/lib, nvidia/cuda_nvrtc/lib, nvidia\cu13\bin\x86_64, ..
        let packages = fs::read_dir(site.join("nvidia")).into_iter().flatten().flatten();
        let libraries = if cfg!(windows) { "bin/x86_64" } else { "lib" };
        folders.extend(packages.map(|package| package.path().join(libraries)));
    }
    folders
}

/// The folders from which the Python in use imports packages.
fn site_packages() -> Vec<PathBuf> {
    if let Some(environment) = env::var_os("VIRTUAL_ENV") {
        let library = Path::new(&environment).join("lib");
        if cfg!(windows) {
            return vec![library.join("site-packages")];
        }
        let versions = fs::read_dir(library).into_iter().flatten().flatten();
        return versions.map(|version| version.path().join("site-packages")).collect();
    }
    let script = "import site; print('\\n'.join(site.getsitepackages() + [site.getusersitepackages()]))";
    let said = Command::new(if cfg!(windows) { "python" } else { "python3" }).args(["-c", script]).output();
    let said = said.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    said.lines().map(PathBuf::from).collect()
}

/// Loads a library for as long as the program runs.
fn load(path: &Path) -> Option<&'static Library> {
    // SAFETY: NVIDIA's libraries do nothing when they are loaded but set themselves up.
    unsafe { Library::new(path) }.ok().map(|library| &*Box::leak(Box::new(library)))
}

/// The error where there is no device by that number.
pub(crate) fn no_device(ordinal: usize, count: usize) -> Error {
    let plural = if count == 1 { "" } else { "s" };
    failure(format!("there is no cuda:{ordinal}; the driver shows {count} device{plural} (see CUDA_VISIBLE_DEVICES)"))
}
