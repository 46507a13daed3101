//! The machine's Python and its package manager, for what only they bring: engines that the study compares with, MLX.
//!
//! It runs programs and passes on what they say. What is installed, and where, is the caller's.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// The name of the interpreter in the path.
pub const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };

/// Lines of what a program said last that an error repeats.
const LAST_LINES: usize = 3;

/// What pip says that has a simple cause, in small letters, and what mends it.
const CAUSES: [(&str, &str); 9] = [
    ("no module named pip", "install pip: `python3 -m ensurepip`, or the package python3-pip"),
    ("no module named venv", "install the package python3-venv"),
    ("ensurepip is not available", "install the package python3-venv"),
    ("no space left on device", "the disk is full: make room and run it again"),
    ("newconnectionerror", "there is no network: run it again when there is, or set PIP_INDEX_URL"),
    ("name resolution", "there is no network: run it again when there is, or set PIP_INDEX_URL"),
    ("connection broken", "the connection was lost: run it again, what is there is kept"),
    ("read timed out", "the connection was lost: run it again, what is there is kept"),
    ("no matching distribution", "there is nothing for this system; on Linux glibc 2.35 is needed, on a Mac macOS 14"),
];

/// How running a program went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there, or cannot be run.
    #[error("{program} cannot be started: {source} (Python 3 with venv and pip is needed)")]
    Start {
        /// The program.
        program: String,
        /// The system's word.
        source: io::Error,
    },
    /// It failed.
    #[error("{program} ended with {status}: {said}{}", advice(.said))]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        said: String,
    },
    /// The system took away what it said or how it ended.
    #[error("{program} cannot be followed: {source}")]
    Follow {
        /// The program.
        program: String,
        /// The system's word.
        source: io::Error,
    },
}

/// Runs a program to its end; `hear` gets the lines that it says meanwhile.
///
/// # Errors
/// No such program; one that fails, with the end of what it said of that.
pub fn run(command: &mut Command, hear: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let follow = |source| Error::Follow { program: program.clone(), source };
    // Both streams in one pipe would need a shell: errors go to a file that is read if the program fails.
    let errors = tempfile::NamedTempFile::new().map_err(follow)?;
    let file = errors.reopen().map_err(follow)?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn();
    let mut child = child.map_err(|source| Error::Start { program: program.clone(), source })?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            hear(line.trim());
        }
    }
    let status = child.wait().map_err(follow)?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read(errors.path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("[notice]"));
    let mut last: Vec<&str> = lines.rev().take(LAST_LINES).collect();
    last.reverse();
    Err(Error::Failed { program, status, said: last.join("; ") })
}

/// pip of an interpreter, doing `what` (`install`, `download`) and asking nothing.
pub fn pip(python: &Path, what: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", what, "--disable-pip-version-check", "--progress-bar", "off", "--no-input"]);
    command
}

/// What mends it, in words that follow an error.
fn advice(said: &str) -> String {
    let said = said.to_lowercase();
    let known = CAUSES.iter().find(|(cause, _)| said.contains(cause));
    known.map_or_else(String::new, |(_, advice)| format!(" ({advice})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn shell(script: &str) -> (Result<(), Error>, Vec<String>) {
        let mut heard = Vec::new();
        let outcome = run(Command::new("sh").args(["-c", script]), &mut |line| heard.push(line.to_owned()));
        (outcome, heard)
    }

    #[test]
    #[cfg(unix)]
    fn what_a_program_says_is_heard_and_its_last_words_are_the_error() {
        let (outcome, heard) = shell("echo one; echo '  two '; echo aside >&2");
        assert!(outcome.is_ok());
        assert_eq!(heard, ["one", "two"]);
        let (outcome, heard) = shell("echo one; printf 'a\\nb\\n\\nc\\nERROR: d\\n[notice] new pip\\n' >&2; exit 7");
        assert_eq!(
            (outcome.unwrap_err().to_string(), heard.len()),
            ("sh ended with exit status: 7: b; c; ERROR: d".into(), 1)
        );
        let (outcome, _) = shell("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1");
        let error = outcome.unwrap_err().to_string();
        assert!(error.ends_with("(the disk is full: make room and run it again)"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(&mut Command::new("no-such-python"), &mut |_| {}).unwrap_err();
        assert!(matches!(&error, Error::Start { program, .. } if program == "no-such-python"), "{error:?}");
        assert!(error.to_string().contains("Python 3 with venv and pip is needed"), "{error}");
    }

    #[test]
    fn causes_are_found_whatever_their_case() {
        assert!(advice("ERROR: No matching distribution found for mlx-cpu==0.32.4").contains("glibc 2.35"));
        assert!(advice("/usr/bin/python3: No module named pip").contains("python3-pip"));
        assert_eq!(advice("something else"), "");
        assert!(CAUSES.iter().all(|(cause, _)| *cause == cause.to_lowercase()));
    }
}
