//! Where MLX is on this machine. It is not opened here: a CUDA build must not be where there is no GPU.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::LoadError;
use crate::compiler::{SUFFIX, headers_version, named_folders};

/// An MLX on this machine, laid out as its wheels are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Holds `lib` with libmlx and `include` with its headers.
    pub folder: PathBuf,
    /// How it was found, the name of a variable, say.
    pub why: String,
}

impl Installation {
    /// The MLX in a folder that somebody named.
    ///
    /// # Errors
    /// [`LoadError::Incomplete`] if there is none.
    pub fn at(folder: &Path, why: &str) -> Result<Self, LoadError> {
        let found = Self { folder: folder.to_owned(), why: why.to_owned() };
        let incomplete = |missing| LoadError::Incomplete { folder: folder.to_owned(), why: why.to_owned(), missing };
        if !found.library().is_file() {
            return Err(incomplete("lib/libmlx"));
        }
        if found.version().is_none() {
            return Err(incomplete("include/mlx/version.h"));
        }
        Ok(found)
    }

    /// libmlx itself. It stays where it is: what it needs is found from there.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.folder.join("lib").join(format!("libmlx.{SUFFIX}"))
    }

    /// The folder of headers.
    #[must_use]
    pub fn include(&self) -> PathBuf {
        self.folder.join("include")
    }

    /// The version its headers name.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        headers_version(&self.include())
    }
}

/// Says where the package would be imported from, without importing it: that of a CUDA build would start CUDA.
const ASK_PYTHON: &str = "import importlib.util as u; s = u.find_spec('mlx'); \
                          print('\\n'.join(s.submodule_search_locations or []) if s else '')";

/// The MLX to use: `MLX_DIR`, the active Python environment, Homebrew, the folder `own` that this program put one into, the
/// package that `python3` knows. The last starts a Python, if it comes to that.
///
/// # Errors
/// [`LoadError::Incomplete`] if `MLX_DIR` names a folder without MLX, [`LoadError::NotFound`] if there is none anywhere.
pub fn find(own: Option<&Path>) -> Result<Installation, LoadError> {
    if let Some(folder) = env::var_os("MLX_DIR") {
        return Installation::at(Path::new(&folder), "MLX_DIR");
    }
    let named = named_folders().into_iter();
    let own = own.map(|folder| (folder.to_owned(), "mlxt setup mlx".to_owned()));
    let python = std::iter::once_with(packages_of_python).flatten().map(|folder| (folder, "python3".to_owned()));
    let found = named.chain(own).chain(python).find_map(|(folder, why)| Installation::at(&folder, &why).ok());
    let looked = "MLX_DIR, VIRTUAL_ENV, CONDA_PREFIX, Homebrew, `mlxt setup mlx` and python3";
    found.ok_or_else(|| LoadError::NotFound { looked: looked.into() })
}

fn packages_of_python() -> Vec<PathBuf> {
    // -I leaves out the current folder, which may have one named mlx.
    let asked = Command::new("python3").args(["-I", "-c", ASK_PYTHON]).stdin(Stdio::null()).output();
    let said = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().map(str::trim).filter(|line| !line.is_empty()).map(PathBuf::from).collect()
}
