//! NumPy's array file, format 1.0: a header of fixed size that names type and shape, then the values row by row.
//!
//! The number of rows is known at the end only. In a file the header is written again then; on the way to a pipe the
//! values wait in memory, beyond [`SPOOL`] on disk.

use std::io::{Read, Seek, SeekFrom, Write};

use anyhow::{Context, Result};
use tempfile::SpooledTempFile;

use super::target::Target;

/// Bytes of values held in memory on the way to a pipe.
const SPOOL: usize = 1 << 26;

/// Bytes copied to a pipe at a time.
const COPY: usize = 1 << 16;

/// Bytes of the header: a multiple of 64 as the format asks, with room for the largest shape.
const HEADER: usize = 128;

/// An array that grows by rows.
pub(super) struct Array {
    width: usize,
    values: u64,
    spool: Option<SpooledTempFile>,
    bytes: Vec<u8>,
}

impl Array {
    /// Starts an array of `width` columns.
    pub(super) fn begin(width: usize, target: &mut Target) -> Result<Self> {
        let spool = if target.is_file() {
            target.write(&header(0, width))?;
            None
        } else {
            Some(SpooledTempFile::new(SPOOL))
        };
        Ok(Self { width, values: 0, spool, bytes: Vec::new() })
    }

    /// Goes on with an array of which a file of `bytes` holds the header and some rows.
    pub(super) fn resumed(width: usize, bytes: u64) -> Self {
        let values = bytes.saturating_sub(HEADER as u64) / size_of::<f32>() as u64;
        Self { width, values, spool: None, bytes: Vec::new() }
    }

    /// Adds whole rows.
    pub(super) fn extend(&mut self, values: &[f32], target: &mut Target) -> Result<()> {
        self.bytes.clear();
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self.values += values.len() as u64;
        match &mut self.spool {
            Some(spool) => spool.write_all(&self.bytes).context("cannot write a temporary file"),
            None => target.write(&self.bytes),
        }
    }

    /// Completes the array.
    pub(super) fn finish(self, target: &mut Target) -> Result<()> {
        let rows = self.values.checked_div(self.width as u64).unwrap_or(0);
        let header = header(rows, self.width);
        let Some(mut spool) = self.spool else { return target.rewrite_start(&header) };
        target.write(&header)?;
        spool.seek(SeekFrom::Start(0)).context("cannot read a temporary file")?;
        let mut buffer = vec![0; COPY];
        loop {
            match spool.read(&mut buffer).context("cannot read a temporary file")? {
                0 => return Ok(()),
                n => target.write(&buffer[..n])?,
            }
        }
    }
}

/// Magic, version 1.0, length, and a Python dictionary padded with spaces and ended by a line break.
fn header(rows: u64, width: usize) -> [u8; HEADER] {
    const PREFIX: usize = 10;
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let mut header = [b' '; HEADER];
    header[..8].copy_from_slice(b"\x93NUMPY\x01\x00");
    header[8..PREFIX].copy_from_slice(&((HEADER - PREFIX) as u16).to_le_bytes());
    // Two numbers of 20 digits make 97 characters of the 117 there are.
    header[PREFIX..PREFIX + dictionary.len()].copy_from_slice(dictionary.as_bytes());
    header[HEADER - 1] = b'\n';
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_shape_fits_the_header() {
        let header = header(u64::MAX, usize::MAX);
        assert!(header.ends_with(b" \n"));
        assert!(header.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', "));
    }
}
