//! What a command tells people at its end, on standard output, where it has no results in a format of their own.
//!
//! `println!` panics if the stream is closed or full. Here the first ends the program quietly and the second is an error,
//! as for results (`output/`). What is said on standard error is nobody's to miss: see `progress.rs`.

use std::fmt::Display;

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
