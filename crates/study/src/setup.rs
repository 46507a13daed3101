//! Makes the virtual environment that a foreign engine runs in, with pip and pinned versions.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
    let python = if cfg!(windows) { "python" } else { "python3" };
    hear("making a virtual environment");
    step(environment, Command::new(python).args(["-m", "venv"]).arg(&folder), hear)?;
    let pip = home_python(&folder);
    let mut install = Command::new(pip);
    install.args(["-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", "--no-input"]);
    step(environment, install.args(&environment.packages), hear)?;
    fs::write(&complete, "").map_err(Error::io("write", &complete))?;
    Ok(folder)
}

/// The interpreter in an environment's folder.
pub(crate) fn home_python(folder: &Path) -> PathBuf {
    folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

fn step(environment: &Environment, command: &mut Command, hear: &mut dyn FnMut(&str)) -> Result<()> {
    let fault = |what: String| Error::Plan { name: format!("environment {}", environment.id), what };
    let program = command.get_program().to_string_lossy().into_owned();
    // Both streams in one pipe would need a shell: errors go to a file that is read if the step fails.
    let errors = tempfile::NamedTempFile::new().map_err(Error::io("create", "a temporary file"))?;
    let file = errors.reopen().map_err(Error::io("open", errors.path()))?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn();
    let mut child = child.map_err(|e| fault(format!("{program}: {e} (Python 3 with venv and pip is needed)")))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            hear(line.trim());
        }
    }
    let status = child.wait().map_err(|e| fault(e.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read_to_string(errors.path()).unwrap_or_default();
    let end: Vec<&str> = said.lines().rev().filter(|l| !l.trim().is_empty()).take(3).collect();
    let end = end.into_iter().rev().collect::<Vec<_>>().join("; ");
    Err(fault(format!("{program} ended with {status}: {end}")))
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
