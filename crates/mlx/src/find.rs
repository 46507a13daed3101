//! Where MLX is on this machine: a folder with its library and its headers, as wheels and Homebrew lay them out.
//!
//! Nothing is loaded here and no Python module of MLX is imported (that of a CUDA build would start CUDA); whether what is
//! found works is not known yet. Places are looked at in an order in which what was said outright comes first: `MLX_DIR`,
//! the active environments, what `mlxt setup mlx` put in place, the `python3` of the path, Homebrew.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::compiler::{SUFFIX, headers_version, packages};
use crate::{LoadError, ffi};

/// Where Homebrew keeps a package: on Apple silicon, on Intel, on Linux.
const HOMEBREW: [&str; 3] = ["/opt/homebrew/opt/mlx", "/usr/local/opt/mlx", "/home/linuxbrew/.linuxbrew/opt/mlx"];

/// Says where the package `mlx` would be imported from, without importing it: one folder a line.
const ASK_PYTHON: &str = "import importlib.util as u; s = u.find_spec('mlx'); \
                          print('\\n'.join(s.submodule_search_locations or []) if s else '')";

/// An MLX on this machine, laid out as its wheels are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Holds `lib` with libmlx and `include` with its headers. It must stay as it is: the library finds others by their
    /// place beside it.
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
        look(folder, why).map_err(|missing| missing.incomplete(folder, why))
    }

    /// libmlx itself.
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

    /// What it was built for: as the wheel's metadata say; without these the library itself is asked, which takes a
    /// while where it is large.
    ///
    /// # Errors
    /// [`LoadError::Library`] if it cannot be read.
    pub fn variant(&self) -> Result<Variant, LoadError> {
        match wheel_of(&self.folder).as_deref() {
            Some("mlx_metal") => Ok(Variant::Metal),
            Some("mlx_cpu") => Ok(Variant::Cpu),
            Some(_) => Ok(Variant::Cuda),
            None if self.library().with_file_name("mlx.metallib").is_file() => Ok(Variant::Metal),
            None => Ok(if ffi::needs_nvidia(&self.library())? { Variant::Cuda } else { Variant::Cpu }),
        }
    }
}

/// What a build of MLX computes on, besides the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Nothing.
    Cpu,
    /// NVIDIA's GPUs.
    Cuda,
    /// Apple's GPUs.
    Metal,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
        })
    }
}

/// What names a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The variable `MLX_DIR`. Where it is set nothing else counts.
    MlxDir,
    /// `VIRTUAL_ENV`: the active virtual environment.
    VirtualEnv,
    /// `CONDA_PREFIX`: the active environment of conda.
    Conda,
    /// `mlxt setup mlx`.
    Setup,
    /// The first `python3` of the path.
    Python,
    /// Homebrew.
    Homebrew,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MlxDir => "MLX_DIR",
            Self::VirtualEnv => "VIRTUAL_ENV",
            Self::Conda => "CONDA_PREFIX",
            Self::Setup => "mlxt setup mlx",
            Self::Python => "python3",
            Self::Homebrew => "Homebrew",
        })
    }
}

/// A place that was looked at in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What named it.
    pub source: Source,
    /// The folder, or the program that was asked; `None` where nothing was named.
    pub path: Option<PathBuf>,
    /// Why it was not that.
    pub why: Why,
}

/// Why a place has no MLX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The variable is not set.
    Unset,
    /// There is no such folder.
    NoFolder,
    /// There is no package `mlx` in it.
    NoPackage,
    /// There is no library in it: what pip's `mlx` alone is on Linux.
    NoLibrary,
    /// There are no headers in it, which say which version it is.
    NoHeaders,
    /// There is no `python3`.
    NoPython,
}

impl Why {
    /// The same of a folder that somebody named.
    fn incomplete(self, folder: &Path, why: &str) -> LoadError {
        let missing = if self == Self::NoHeaders { "include/mlx/version.h" } else { "lib/libmlx" };
        LoadError::Incomplete { folder: folder.to_owned(), why: why.to_owned(), missing }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, path, why } = self;
        write!(f, "{source}")?;
        if let Some(path) = path {
            write!(f, " ({})", path.display())?;
        }
        f.write_str(match why {
            Why::Unset => " is not set",
            Why::NoFolder => " has no such folder",
            Why::NoPackage => " has no mlx",
            Why::NoLibrary => " has no library of MLX (on Linux pip's mlx needs one of [cpu], [cuda12], [cuda13])",
            Why::NoHeaders => " has an MLX without headers",
            Why::NoPython => " is not there",
        })
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The first MLX.
    pub installation: Option<Installation>,
    /// The places before it.
    pub places: Vec<Place>,
}

/// The MLX to use; `own` is the folder of the package that this program put in place, if it did. May start a `python3`, which
/// takes some milliseconds.
///
/// # Errors
/// [`LoadError::Incomplete`] if `MLX_DIR` names a folder without MLX, [`LoadError::NotFound`] if there is none anywhere.
pub fn find(own: Option<&Path>) -> Result<Installation, LoadError> {
    let Found { installation, places } = search(own);
    installation.ok_or_else(|| match &places[..] {
        [Place { source, path: Some(folder), why }] => why.incomplete(folder, &source.to_string()),
        places => LoadError::NotFound { looked: told(places) },
    })
}

/// The places that tell something: not the variables that nobody has set, nor a Homebrew that is not there.
fn told(places: &[Place]) -> String {
    let tells = |place: &&Place| match place.why {
        Why::Unset => false,
        Why::NoFolder => place.source != Source::Homebrew,
        _ => true,
    };
    places.iter().filter(tells).map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// As [`find()`], with the places that were looked at in vain.
#[must_use]
pub fn search(own: Option<&Path>) -> Found {
    let surroundings = Surroundings {
        variable: &|name| std::env::var_os(name),
        own,
        python: "python3".as_ref(),
        homebrew: &HOMEBREW.map(PathBuf::from),
    };
    surroundings.find()
}

/// What the search depends on.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    own: Option<&'a Path>,
    python: &'a Path,
    homebrew: &'a [PathBuf],
}

impl Surroundings<'_> {
    fn find(&self) -> Found {
        let mut places = Vec::new();
        let mut note = |source, outcome: Result<Installation, Why>, path: Option<PathBuf>| match outcome {
            Ok(installation) => Some(installation),
            Err(why) => {
                places.push(Place { source, path, why });
                None
            }
        };
        let mut found = None;
        if let Some(folder) = self.named("MLX_DIR") {
            // CMake's convention for this variable is a folder within: share/cmake/MLX.
            let around = folder.ancestors().nth(3).filter(|_| folder.ends_with("share/cmake/MLX"));
            let outcome = look(around.unwrap_or(&folder), &Source::MlxDir.to_string());
            let installation = note(Source::MlxDir, outcome, Some(folder));
            return Found { installation, places };
        }
        note(Source::MlxDir, Err(Why::Unset), None);
        for (source, name) in [(Source::VirtualEnv, "VIRTUAL_ENV"), (Source::Conda, "CONDA_PREFIX")] {
            let folder = self.named(name);
            let look = || folder.as_deref().map_or(Err(Why::Unset), |folder| environment(source, folder));
            found = found.or_else(|| note(source, look(), folder.clone()));
        }
        if let Some(folder) = self.own {
            let outcome = || look(folder, &Source::Setup.to_string());
            found = found.or_else(|| note(Source::Setup, outcome(), Some(folder.to_owned())));
        }
        found = found.or_else(|| note(Source::Python, self.ask_python(), Some(self.python.to_owned())));
        for folder in self.homebrew {
            let outcome = || look(folder, &Source::Homebrew.to_string());
            found = found.or_else(|| note(Source::Homebrew, outcome(), Some(folder.clone())));
        }
        Found { installation: found, places }
    }

    fn named(&self, variable: &str) -> Option<PathBuf> {
        (self.variable)(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn ask_python(&self) -> Result<Installation, Why> {
        // -S would hide site-packages; -I leaves out the current folder, which may have a folder named mlx.
        let asked = Command::new(self.python).args(["-I", "-c", ASK_PYTHON]).stdin(Stdio::null()).output();
        let said = asked.map_err(|_| Why::NoPython)?.stdout;
        let said = String::from_utf8_lossy(&said);
        let folders = said.lines().map(str::trim).filter(|line| !line.is_empty());
        first(folders.map(|folder| look(Path::new(folder), &Source::Python.to_string())))
    }
}

/// The package `mlx` of an environment of Python.
fn environment(source: Source, folder: &Path) -> Result<Installation, Why> {
    if !folder.is_dir() {
        return Err(Why::NoFolder);
    }
    first(packages(folder).iter().map(|package| look(package, &source.to_string())))
}

/// The first that is there, or why the last is not.
fn first(outcomes: impl Iterator<Item = Result<Installation, Why>>) -> Result<Installation, Why> {
    let mut why = Why::NoPackage;
    for outcome in outcomes {
        match outcome {
            Ok(installation) => return Ok(installation),
            Err(other) => why = other,
        }
    }
    Err(why)
}

/// MLX in a folder that has `lib` and `include`.
fn look(folder: &Path, why: &str) -> Result<Installation, Why> {
    let found = Installation { folder: folder.to_owned(), why: why.to_owned() };
    if !folder.is_dir() {
        return Err(Why::NoFolder);
    }
    if !found.library().is_file() {
        return Err(Why::NoLibrary);
    }
    if found.version().is_none() { Err(Why::NoHeaders) } else { Ok(found) }
}

/// The wheel that the library is from, by its metadata beside the package: `mlx_cpu`, `mlx_cuda_12`, `mlx_cuda_13`,
/// `mlx_metal`. `None` where there are several: each has a library of that name, the last one stayed.
fn wheel_of(folder: &Path) -> Option<String> {
    let entries = fs::read_dir(folder.parent()?).ok()?.flatten();
    let mut wheels = entries.filter_map(|entry| wheel(&entry.file_name().to_string_lossy()));
    wheels.next().filter(|_| wheels.next().is_none())
}

/// The same, of the name of one such folder of metadata.
fn wheel(name: &str) -> Option<String> {
    let (name, _) = name.strip_suffix(".dist-info")?.split_once('-')?;
    let known = name == "mlx_cpu" || name == "mlx_metal" || name.starts_with("mlx_cuda");
    known.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "#pragma once\n#define MLX_VERSION_MAJOR 0\n#define MLX_VERSION_MINOR 32\n\
                          #define MLX_VERSION_PATCH 4\n#define MLX_VERSION_NUMERIC \\\n  (100000 * MLX_VERSION_MAJOR)\n";

    /// A package as a wheel lays it out, without the metadata beside it.
    fn install(folder: &Path, library: &[u8]) {
        fs::create_dir_all(folder.join("lib")).unwrap();
        fs::create_dir_all(folder.join("include/mlx")).unwrap();
        fs::write(folder.join("lib").join(format!("libmlx.{SUFFIX}")), library).unwrap();
        fs::write(folder.join("include/mlx/version.h"), HEADER).unwrap();
    }

    fn search(root: &Path, variables: &[(&str, PathBuf)], python: &Path) -> Found {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone().into_os_string());
        let homebrew = [root.join("brew")];
        Surroundings { variable: &variable, own: Some(&root.join("own")), python, homebrew: &homebrew }.find()
    }

    /// A program in place of `python3` that says `said`.
    #[cfg(unix)]
    fn python(root: &Path, said: &Path) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let program = root.join("python3");
        fs::write(&program, format!("#!/bin/sh\necho '{}'\n", said.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    #[test]
    #[cfg(unix)]
    fn places_are_looked_at_in_their_order() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let package = |environment: &str| root.join(environment).join("lib/python3.11/site-packages/mlx");
        let python = python(root, &root.join("asked/mlx"));
        let variables = [("VIRTUAL_ENV", root.join("venv")), ("CONDA_PREFIX", root.join("conda"))];
        let places = [
            (Source::Homebrew, root.join("brew")),
            (Source::Python, root.join("asked/mlx")),
            (Source::Setup, root.join("own")),
            (Source::Conda, package("conda")),
            (Source::VirtualEnv, package("venv")),
        ];
        assert_eq!(search(root, &variables, &python).installation, None);
        for (i, (source, folder)) in places.iter().enumerate() {
            install(folder, b"");
            let found = search(root, &variables, &python);
            let installation = found.installation.unwrap();
            assert_eq!((installation.why.clone(), &installation.folder), (source.to_string(), folder));
            assert_eq!(installation.version().as_deref(), Some("0.32.4"));
            assert_eq!(found.places.len(), 5 - i, "{:?}", found.places);
            assert!(found.places.iter().all(|place| place.source != *source));
        }
    }

    #[test]
    fn mlx_dir_is_the_only_place_where_it_is_set() {
        let root = tempfile::tempdir().unwrap();
        let (root, built) = (root.path(), root.path().join("built"));
        install(&root.join("brew"), b"");
        let none = Path::new("no-such-program");
        let found = search(root, &[("MLX_DIR", built.clone())], none);
        assert_eq!(found.installation, None);
        assert_eq!(found.places, [Place { source: Source::MlxDir, path: Some(built.clone()), why: Why::NoFolder }]);
        install(&built, b"");
        for folder in [built.clone(), built.join("share/cmake/MLX")] {
            assert_eq!(search(root, &[("MLX_DIR", folder)], none).installation.unwrap().folder, built);
        }
        // Set to nothing it is not set.
        let found = search(root, &[("MLX_DIR", PathBuf::new())], none);
        assert_eq!(found.installation.unwrap().why, "Homebrew");
        let said: Vec<String> = found.places.iter().map(ToString::to_string).collect();
        assert!(said.contains(&"MLX_DIR is not set".to_owned()), "{said:?}");
        assert!(said.contains(&"python3 (no-such-program) is not there".to_owned()), "{said:?}");
        let own = format!("mlxt setup mlx ({}) has no such folder", root.join("own").display());
        assert_eq!(told(&found.places), format!("{own}; python3 (no-such-program) is not there"));
    }

    #[test]
    fn the_variant_is_the_wheels() {
        let root = tempfile::tempdir().unwrap();
        let (root, folder) = (root.path(), root.path().join("mlx"));
        install(&folder, b"\x7fELF");
        let wheels = [("mlx_cpu", Variant::Cpu), ("mlx_cuda_13", Variant::Cuda), ("mlx_metal", Variant::Metal)];
        for (name, variant) in wheels {
            let metadata = root.join(format!("{name}-0.33.0.dist-info"));
            fs::create_dir(&metadata).unwrap();
            assert_eq!(look(&folder, "a test").unwrap().variant(), Ok(variant), "{name}");
            fs::remove_dir(&metadata).unwrap();
        }
        fs::remove_file(folder.join("include/mlx/version.h")).unwrap();
        assert_eq!(look(&folder, "a test"), Err(Why::NoHeaders));
        fs::remove_dir_all(folder.join("lib")).unwrap();
        assert_eq!(look(&folder, "a test"), Err(Why::NoLibrary));
        assert_eq!(wheel("mlx_cuda_12-0.32.4.dist-info").as_deref(), Some("mlx_cuda_12"));
        assert_eq!((wheel("mlx-0.32.4.dist-info"), wheel("mlx_lm-0.32.4.dist-info")), (None, None));
    }

    #[test]
    fn a_build_without_metadata_is_known_by_its_library() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("mlx");
        // Across the border of two pieces that are read.
        let mut library = vec![b'x'; (1 << 20) - 5];
        library.extend_from_slice(b"libcublasLt.so");
        for (library, variant) in [(&library[..], Variant::Cuda), (&library[..1 << 20], Variant::Cpu)] {
            install(&folder, library);
            assert_eq!(look(&folder, "a test").unwrap().variant(), Ok(variant));
        }
        fs::write(folder.join("lib/mlx.metallib"), "").unwrap();
        assert_eq!(look(&folder, "a test").unwrap().variant(), Ok(Variant::Metal));
        // Of two wheels in one place the last one's library stayed, and nothing says which that is.
        for name in ["mlx_cpu-0.32.4.dist-info", "mlx_cuda_12-0.32.4.dist-info"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        assert_eq!(wheel_of(&folder), None);
    }
}
