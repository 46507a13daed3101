//! The loop that commands over texts share: a chunk is read, computed and written, then the next. Memory is that of a chunk, however long the input.

use anyhow::Result;
use mlx_transformers::Error;

use crate::input::{Limit, Texts};
use crate::output::Sink;
use crate::progress::Progress;

/// Runs `work` on chunk after chunk, with the index of its first text, and completes `sink`.
pub(super) fn run(
    texts: Texts,
    limit: Limit,
    mut sink: Sink,
    progress: &Progress,
    mut work: impl FnMut(u64, &[String], &mut Sink) -> Result<()>,
) -> Result<()> {
    each(texts, limit, progress, |first, chunk| {
        work(first, chunk, &mut sink)?;
        sink.flush()
    })?;
    sink.finish()
}

/// The same for work that writes nothing before the end.
pub(super) fn each(
    mut texts: Texts,
    limit: Limit,
    progress: &Progress,
    mut work: impl FnMut(u64, &[String]) -> Result<()>,
) -> Result<()> {
    let mut first = 0;
    loop {
        let chunk = texts.chunk(limit)?;
        if chunk.is_empty() {
            break;
        }
        progress.chunk(chunk.len() as u64, texts.fraction());
        work(first, &chunk)?;
        first += chunk.len() as u64;
    }
    progress.clear();
    Ok(())
}

/// The error with its text's index counted from the start of the input, not of the chunk.
pub(super) fn from_start(mut error: Error, first: u64) -> Error {
    match &mut error {
        Error::TooLong { index, .. }
        | Error::NoTokens { index }
        | Error::NonFinite { index }
        | Error::NoMask { index, .. }
        | Error::Tokenise { index, .. }
        | Error::ForeignToken { index, .. } => *index += first as usize,
        _ => {}
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_count_from_the_start() {
        let error = from_start(Error::TooLong { index: 3, tokens: 9, limit: 8 }, 4096);
        assert!(error.to_string().starts_with("text 4099 has 9 tokens"), "{error}");
    }
}
