//! JSON: an object per line, or one array of the same objects. An f32 is written with the fewest digits that read back
//! as the same f32.

use anyhow::{Context, Result};
use serde::Serialize;

/// An object and the end of its line.
pub(super) fn line(record: &impl Serialize, out: &mut Vec<u8>) -> Result<()> {
    serde_json::to_writer(&mut *out, record).context("cannot write a result as JSON")?;
    out.push(b'\n');
    Ok(())
}

/// One object, on its line.
pub(super) fn single(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    line(value, &mut out)?;
    Ok(out)
}

/// An object over several lines.
pub(super) fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut out = serde_json::to_vec_pretty(value).context("cannot write the answer as JSON")?;
    out.push(b'\n');
    Ok(out)
}

/// An element of an array, on a line of its own.
pub(super) fn element(record: &impl Serialize, first: bool, out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(if first { b"\n" } else { b",\n" });
    serde_json::to_writer(out, record).context("cannot write a result as JSON")
}
