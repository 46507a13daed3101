//! What a command tells people, where it has no results in a format of their own: what they asked for on standard output, and
//! what is said beside that on standard error.
//!
//! `println!` and `eprintln!` panic if the stream is closed or full. Here a closed standard output ends the program quietly
//! and a full one is an error, as for results (`output/`); what is said on standard error is nobody's to miss.

use std::fmt::Display;
use std::io::Write;

use anyhow::Result;

use crate::output::Target;

/// Writes `lines` and a break to standard output.
///
/// # Errors
/// [`StdoutClosed`](crate::output::StdoutClosed), or what the system says of the stream.
pub(crate) fn say(lines: impl Display) -> Result<()> {
    let mut stdout = Target::open(None)?;
    stdout.write(format!("{lines}\n").as_bytes())?;
    stdout.finish()
}

/// Writes `line` and a break to standard error. It may be closed, or full: then there is no one to tell.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
