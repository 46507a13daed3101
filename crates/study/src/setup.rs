//! Makes the virtual environment that a foreign engine runs in, with pip and pinned versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlxt_python::{PYTHON, pip};

use crate::peers::{Environment, Home};
use crate::{Error, Result};

/// Makes an environment and gives its folder; one that is there already is left as it is. `hear` gets the lines pip says.
///
/// # Errors
/// No Python 3 with venv, a failed installation with the end of what pip said; the disk's own.
pub fn setup(home: &Home, environment: &Environment, hear: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let folder = home.environment(environment);
    let complete = folder.join("complete");
    if complete.is_file() {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let fault =
        |e: mlxt_python::Error| Error::Plan { name: format!("environment {}", environment.id), what: e.to_string() };
    hear("making a virtual environment");
    mlxt_python::run(Command::new(PYTHON).args(["-m", "venv"]).arg(&folder), hear).map_err(fault)?;
    let mut install = pip(&home_python(&folder), "install");
    mlxt_python::run(install.args(&environment.packages), hear).map_err(fault)?;
    fs::write(&complete, "").map_err(Error::io("write", &complete))?;
    Ok(folder)
}

/// The interpreter in an environment's folder.
pub(crate) fn home_python(folder: &Path) -> PathBuf {
    folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_installation_says_what_pip_said_and_leaves_nothing_complete() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { folder: folder.path().into(), program: "mlxt".into() };
        // A local path that is not there: pip refuses it without a network.
        let packages = vec!["./no-such-package-here".to_owned()];
        let environment = Environment { id: "none".into(), packages };
        let error = setup(&home, &environment, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("environment none") && error.contains("no-such-package-here"), "{error}");
        assert!(home.python(&environment).is_err());
    }
}
