//! Why MLX cannot be used here: each variant is one way, with what to do about it.

use std::path::PathBuf;

/// The oldest MLX the bridge is written for.
pub const OLDEST: [u32; 3] = [0, 32, 0];

/// Why there is no MLX backend. [`LoadError::advice`] says what mends it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No MLX anywhere.
    #[error("MLX was not found: {looked}")]
    NotFound {
        /// Each place that was looked at, with why it was not that.
        looked: String,
    },
    /// A folder that was named has no MLX in it.
    #[error("{why} names {}, which has no {missing}", folder.display())]
    Incomplete {
        /// The folder.
        folder: PathBuf,
        /// Who named it.
        why: String,
        /// What is not there.
        missing: &'static str,
    },
    /// A library that does not load, or is not what it should be.
    #[error("{}: {message}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// An MLX older than the bridge.
    #[error("{} is MLX {found}, older than 0.32.0", path.display())]
    TooOld {
        /// The library.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// A bridge for another version: nothing of it may be called.
    #[error("the bridge to MLX is built for {built}, and MLX {found} is loaded")]
    Version {
        /// What the bridge is built for.
        built: String,
        /// What is loaded.
        found: String,
    },
    /// A CUDA build of MLX where there is no GPU. It cannot even use the CPU.
    #[error("{} is a CUDA build of MLX, and there is no NVIDIA GPU to run it on ({reason})", path.display())]
    NoGpu {
        /// The library.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// This MLX has no GPU.
    #[error("MLX {version} at {} is a build without a GPU", folder.display())]
    CpuOnly {
        /// Its folder.
        folder: PathBuf,
        /// Its version.
        version: String,
    },
    /// No compiler for the bridge.
    #[error("the bridge to MLX {version} has to be compiled, and there is no {program:?}")]
    NoCompiler {
        /// The version it is for.
        version: String,
        /// The program that was looked for.
        program: String,
    },
    /// The bridge does not compile.
    #[error("the bridge to MLX {version} does not compile: {message}")]
    Compile {
        /// The version it is for.
        version: String,
        /// The compiler's first error.
        message: String,
    },
    /// The folder for compiled bridges cannot be used.
    #[error("{}: {message}", folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Another MLX is in this process already. Two have the same symbols.
    #[error("MLX of {} is loaded already; {} cannot be loaded beside it", loaded.display(), asked.display())]
    OtherLoaded {
        /// The folder of the one that is.
        loaded: PathBuf,
        /// The folder of the one that was asked for.
        asked: PathBuf,
    },
    /// MLX itself failed.
    #[error(transparent)]
    Backend(#[from] mlxt_backend::Error),
}

impl LoadError {
    /// What to do.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotFound { .. } if cfg!(windows) => {
                "MLX runs on Linux and on Macs with Apple silicon; use another device"
            }
            Self::NotFound { .. } | Self::Incomplete { .. } => {
                "run `mlxt setup mlx`, or set MLX_DIR to the folder that holds MLX's lib and include"
            }
            Self::Library { .. } | Self::Backend(_) => "run `mlxt setup mlx` to get an MLX that fits this machine",
            Self::TooOld { .. } => "run `mlxt setup mlx`, or update MLX with pip",
            Self::Version { .. } => "delete the cached bridge: it is compiled anew",
            Self::NoGpu { .. } => "run `mlxt setup mlx` to get a build for the CPU, or install NVIDIA's driver",
            Self::CpuOnly { .. } => "use mlx:cpu, or run `mlxt setup mlx` on a machine with a GPU",
            Self::NoCompiler { .. } => {
                "install a C++ compiler (Debian: apt install g++; macOS: xcode-select --install)"
            }
            Self::Compile { .. } => "a compiler with C++20 is needed: gcc 11 or clang 14, or newer",
            Self::Cache { .. } => "set XDG_CACHE_HOME to a folder of your own",
            Self::OtherLoaded { .. } => "start the program anew with the other MLX",
        }
    }
}
