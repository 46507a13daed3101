//! The loop that commands over rows share: a chunk is read, computed and written, then the next. Memory is that of a
//! chunk, however long the input.

use anyhow::{Result, anyhow};
use mlx_transformers::Error;

use crate::args::Usage;
use crate::input::{Limit, Row, Rows};
use crate::output::{Record, Sink};
use crate::progress::Progress;

/// Writes a record of what `answer` gives for each row, and completes `sink`.
pub(super) fn run<A, R: Record>(
    mut rows: Rows,
    limit: Limit,
    mut sink: Sink,
    progress: &Progress,
    answer: impl Fn(&[Row]) -> mlx_transformers::Result<Vec<A>>,
    record: impl Fn(&Row, A) -> Result<R>,
) -> Result<()> {
    let result = chunks(&mut rows, limit, progress, answer, |rows, chunk| {
        for (row, answer) in chunk {
            sink.push(&record(row, answer)?)?;
        }
        sink.flush()?;
        sink.note(rows.read(), rows.skipped())
    });
    match (result, sink.kept()) {
        (Ok(()), _) => sink.finish(),
        (Err(error), Some(kept)) if !error.is::<Usage>() => {
            let kept = kept.display();
            Err(anyhow!("{}; what is done is in {kept}: the same command with --resume goes on", crate::chain(&error)))
        }
        (Err(error), _) => Err(error),
    }
}

/// Calls `take` with what `answer` gives for each row, in order.
pub(super) fn each<A>(
    mut rows: Rows,
    limit: Limit,
    progress: &Progress,
    answer: impl Fn(&[Row]) -> mlx_transformers::Result<Vec<A>>,
    mut take: impl FnMut(&Row, A),
) -> Result<()> {
    chunks(&mut rows, limit, progress, answer, |_, chunk| {
        for (row, answer) in chunk {
            take(row, answer);
        }
        Ok(())
    })
}

/// Calls `done` with the rows of chunk after chunk that have an answer.
fn chunks<A>(
    rows: &mut Rows,
    limit: Limit,
    progress: &Progress,
    answer: impl Fn(&[Row]) -> mlx_transformers::Result<Vec<A>>,
    mut done: impl FnMut(&Rows, Vec<(&Row, A)>) -> Result<()>,
) -> Result<()> {
    loop {
        let chunk = rows.chunk(limit)?;
        if chunk.is_empty() {
            break;
        }
        progress.chunk(chunk.len() as u64, rows.fraction());
        let mut answered = Vec::with_capacity(chunk.len());
        answer_all(rows, &chunk, &answer, &mut answered)?;
        done(rows, answered)?;
    }
    progress.clear();
    rows.summary();
    Ok(())
}

/// Answers all rows. Where some cannot be answered and are to be skipped, each half is tried by itself, down to single
/// rows: finding a few among thousands costs a few times the work of one try, and most of it only tokenising.
fn answer_all<'a, A>(
    rows: &mut Rows,
    chunk: &'a [Row],
    answer: &impl Fn(&[Row]) -> mlx_transformers::Result<Vec<A>>,
    answered: &mut Vec<(&'a Row, A)>,
) -> Result<()> {
    match answer(chunk) {
        Ok(answers) => answered.extend(chunk.iter().zip(answers)),
        Err(error) if rows.skips() && is_of_one_row(&error) => {
            if let [row] = chunk {
                rows.skip(row, from_start(error, chunk).into());
            } else {
                let (first, second) = chunk.split_at(chunk.len() / 2);
                answer_all(rows, first, answer, answered)?;
                answer_all(rows, second, answer, answered)?;
            }
        }
        Err(mut error) => {
            let row = index(&mut error).and_then(|index| chunk.get(*index));
            let error = from_start(error, chunk).into();
            return Err(match row {
                Some(row) => rows.placed(row, error),
                None => error,
            });
        }
    }
    Ok(())
}

/// Whether it is the fault of one row alone, and the others may do.
fn is_of_one_row(error: &Error) -> bool {
    matches!(
        error,
        Error::TooLong { .. }
            | Error::NoTokens { .. }
            | Error::OnlyPrompt { .. }
            | Error::NoMask { .. }
            | Error::MaskCut { .. }
            | Error::Tokenise { .. }
            | Error::Empty { .. }
            | Error::NoRoom { .. }
    )
}

/// The place of an error's text in the call.
fn index(error: &mut Error) -> Option<&mut usize> {
    match error {
        Error::TooLong { index, .. }
        | Error::NoTokens { index }
        | Error::OnlyPrompt { index, .. }
        | Error::NonFinite { index }
        | Error::NoMask { index, .. }
        | Error::MaskCut { index, .. }
        | Error::NoRoomForText { index, .. }
        | Error::Tokenise { index, .. }
        | Error::Empty { index, .. }
        | Error::NoRoom { index, .. }
        | Error::ForeignToken { index, .. } => Some(index),
        _ => None,
    }
}

/// The error with its text's index counted from the start of the input, not of the chunk.
fn from_start(mut error: Error, chunk: &[Row]) -> Error {
    if let Some(index) = index(&mut error)
        && let Some(row) = chunk.get(*index)
    {
        *index = row.index as usize;
    }
    error
}
