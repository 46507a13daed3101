//! The checks of operands that every backend makes, so that all refuse the same things with the same words.

use crate::convert::infinite_from;
use crate::{
    Attention, Error, HostTensor, Lookup, MatrixSource, NormSource, Precision, RelativeShape, RelativeSource, Result,
    Rotation, Segments, Shaped,
};

/// That `found` is the size `expected`.
///
/// # Errors
/// [`Error::Shape`] if it is not.
pub fn size(op: &'static str, what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Shape { op, what, expected, found }) }
}

/// Operands of [`crate::Backend::matrix`]; gives all outputs and the inputs they share.
///
/// # Errors
/// As the operation's.
pub fn matrix(source: &MatrixSource) -> Result<(usize, usize)> {
    let op = "matrix";
    let mut shape: Option<(usize, usize)> = None;
    for part in &source.parts {
        let (outputs, inputs) = two_dimensions(op, "dimensions of a weight", part.weight.shape())?;
        if let Some(bias) = &part.bias {
            size(op, "dimensions of a bias", 1, bias.shape().len())?;
            size(op, "elements of a bias", outputs, bias.len())?;
        }
        let (total, shared) = shape.unwrap_or((0, inputs));
        size(op, "inputs of every part", shared, inputs)?;
        shape = Some((total + outputs, shared));
    }
    let (outputs, inputs) =
        shape.ok_or_else(|| Error::Setting { op, what: "a matrix needs at least one part".into() })?;
    if let Some(squares) = &source.input_squares {
        size(op, "expected squares of inputs", inputs, squares.len())?;
        if let Some(wrong) = squares.iter().find(|&&square| !(square.is_finite() && square > 0.0)) {
            return Err(Error::Setting {
                op,
                what: format!("the square of an input cannot be expected to be {wrong}"),
            });
        }
    }
    Ok((outputs, inputs))
}

/// That no weight is infinite once it is rounded to `precision`.
///
/// # Errors
/// [`Error::WeightRange`] for the first that is.
pub fn weight_range(source: &MatrixSource, precision: Precision) -> Result<()> {
    source.parts.iter().try_for_each(|part| range(&part.weight.full(), precision))
}

/// That no element is infinite once it is rounded to `precision`.
///
/// # Errors
/// [`Error::WeightRange`] for the first that is.
pub fn range(tensor: &HostTensor, precision: Precision) -> Result<()> {
    let Some(limit) = precision.element().map(infinite_from) else { return Ok(()) };
    let beyond = |value: &f32| value.abs() >= limit;
    let mut block = [0.0; 1024];
    for first in (0..tensor.len()).step_by(block.len()) {
        let values = &mut block[..(tensor.len() - first).min(1024)];
        tensor.decode(first, values);
        // Looked at to its end: a compiler takes many values at a time then.
        if values.iter().fold(false, |any, value| any | beyond(value))
            && let Some(at) = values.iter().position(beyond)
        {
            let (found, tensor) = (values[at], tensor.name().to_owned());
            return Err(Error::WeightRange { tensor, at: first + at, found, precision });
        }
    }
    Ok(())
}

/// Operands of [`crate::Backend::table`]; gives entries and columns.
///
/// # Errors
/// As the operation's.
pub fn table(tensor: &HostTensor) -> Result<(usize, usize)> {
    two_dimensions("table", "dimensions", tensor.shape())
}

/// Operands of [`crate::Backend::norm_weights`]; gives the columns.
///
/// # Errors
/// As the operation's.
pub fn norm_weights(source: &NormSource) -> Result<usize> {
    let op = "norm weights";
    let cols = source.gain.len();
    if cols == 0 {
        return Err(Error::Setting { op, what: "a norm needs at least one column".into() });
    }
    if let Some(shift) = &source.shift {
        size(op, "elements of the shift", cols, shift.len())?;
    }
    if !(source.eps >= 0.0 && source.eps.is_finite()) {
        return Err(Error::Setting {
            op,
            what: format!("epsilon must be finite and at least 0, found {}", source.eps),
        });
    }
    Ok(cols)
}

/// Operands of [`crate::Backend::relative`]; gives the columns of its parts.
///
/// # Errors
/// As the operation's.
pub fn relative<T: Shaped>(source: &RelativeSource<T>) -> Result<RelativeShape> {
    let op = "relative";
    if source.buckets.len().is_multiple_of(2) {
        let what = format!("the number of buckets must be odd, 2 * reach + 1; found {}", source.buckets.len());
        return Err(Error::Setting { op, what });
    }
    let parts = [&source.keys, &source.queries, &source.bias];
    if parts.iter().all(|part| part.is_none()) {
        return Err(Error::Setting { op, what: "keys, queries or bias are needed, found none of them".into() });
    }
    for part in parts.into_iter().flatten() {
        indices(op, &source.buckets, part.rows())?;
    }
    Ok(source.into())
}

/// Operands of [`crate::Backend::write`].
///
/// # Errors
/// As the operation's.
pub fn write(rows: usize, cols: usize, values: &[f32]) -> Result<()> {
    if rows == 0 || cols == 0 {
        return Err(Error::Empty { found: format!("a tensor of {rows} by {cols}") });
    }
    size("write", "values", rows.saturating_mul(cols), values.len())
}

/// Operands of [`crate::Backend::embed`]; gives rows and columns.
///
/// # Errors
/// As the operation's.
pub fn embed<T: Shaped>(lookups: &[Lookup<'_, T>]) -> Result<(usize, usize)> {
    let op = "embed";
    let Some(first) = lookups.first() else {
        return Err(Error::Setting { op, what: "at least one lookup is needed".into() });
    };
    let (rows, cols) = (first.ids.len(), first.table.cols());
    if rows == 0 {
        return Err(Error::Empty { found: "no id to embed".into() });
    }
    for lookup in lookups {
        size(op, "ids of every lookup", rows, lookup.ids.len())?;
        size(op, "columns of every table", cols, lookup.table.cols())?;
        indices(op, lookup.ids, lookup.table.rows())?;
    }
    Ok((rows, cols))
}

/// Operands of [`crate::Backend::norm`]; `cols` are the norm's own.
///
/// # Errors
/// As the operation's.
pub fn norm<T: Shaped>(x: &T, residual: Option<&T>, cols: usize) -> Result<()> {
    size("norm", "columns", cols, x.cols())?;
    if let Some(r) = residual {
        size("norm", "rows of the residual", x.rows(), r.rows())?;
        size("norm", "columns of the residual", cols, r.cols())?;
    }
    Ok(())
}

/// Operands of [`crate::Backend::gate`]; gives the columns of the result.
///
/// # Errors
/// As the operation's.
pub fn gate<T: Shaped>(x: &T) -> Result<usize> {
    let half = x.cols() / 2;
    size("gate", "columns (two halves)", 2 * half, x.cols())?;
    Ok(half)
}

/// Operands of [`crate::Backend::rotate`].
///
/// # Errors
/// As the operation's.
pub fn rotate<T: Shaped>(qkv: &T, segments: &Segments, r: &Rotation) -> Result<()> {
    let op = "rotate";
    packed(op, qkv, segments, r.heads, r.head_size)?;
    if !r.head_size.is_multiple_of(2) {
        return Err(Error::Setting { op, what: format!("the head size must be even, found {}", r.head_size) });
    }
    if !(r.theta >= 1.0 && r.theta.is_finite()) {
        return Err(Error::Setting { op, what: format!("the base must be finite and at least 1, found {}", r.theta) });
    }
    Ok(())
}

/// Operands of [`crate::Backend::attention`]; gives the columns of the result.
///
/// # Errors
/// As the operation's.
pub fn attention<T: Shaped>(
    qkv: &T,
    segments: &Segments,
    a: &Attention,
    relative: Option<RelativeShape>,
) -> Result<usize> {
    let op = "attention";
    let hidden = packed(op, qkv, segments, a.heads, a.head_size)?;
    let parts = relative.map(|r| {
        [
            ("columns of the relative keys", r.keys, hidden),
            ("columns of the relative queries", r.queries, hidden),
            ("columns of the relative bias", r.bias, a.heads),
        ]
    });
    for (what, found, expected) in parts.into_iter().flatten() {
        size(op, what, expected, found.unwrap_or(expected))?;
    }
    Ok(hidden)
}

/// Queries, keys and values side by side; gives the columns of one of them.
fn packed<T: Shaped>(op: &'static str, qkv: &T, segments: &Segments, heads: usize, head_size: usize) -> Result<usize> {
    if heads == 0 || head_size == 0 {
        let what = format!("heads and head size must be at least 1, found {heads} and {head_size}");
        return Err(Error::Setting { op, what });
    }
    let hidden = heads.saturating_mul(head_size);
    size(op, "columns (3 * heads * head size)", hidden.saturating_mul(3), qkv.cols())?;
    size(op, "rows of the layout", segments.rows(), qkv.rows())?;
    Ok(hidden)
}

/// Operands of [`crate::Backend::take_rows`].
///
/// # Errors
/// As the operation's.
pub fn take_rows<T: Shaped>(x: &T, rows: &[u32]) -> Result<()> {
    if rows.is_empty() {
        return Err(Error::Empty { found: "no row to take".into() });
    }
    indices("take rows", rows, x.rows())
}

fn indices(op: &'static str, indices: &[u32], limit: usize) -> Result<()> {
    match first_beyond(indices, limit) {
        None => Ok(()),
        Some(position) => Err(Error::Index { op, index: indices[position].into(), position, limit }),
    }
}

/// Where the first of `indices` is that is not below `limit`. They are looked at several at a time, since mostly there is
/// none.
#[must_use]
pub fn first_beyond(indices: &[u32], limit: usize) -> Option<usize> {
    let largest = indices.iter().fold(0, |largest, &i| i.max(largest));
    if (largest as usize) < limit { None } else { indices.iter().position(|&i| i as usize >= limit) }
}

/// Rows and columns of something that must have both.
pub(crate) fn two_dimensions(op: &'static str, what: &'static str, shape: &[usize]) -> Result<(usize, usize)> {
    let &[rows, cols] = shape else {
        return Err(Error::Shape { op, what, expected: 2, found: shape.len() });
    };
    if rows == 0 || cols == 0 {
        return Err(Error::Empty { found: format!("a tensor of {rows} by {cols}") });
    }
    Ok((rows, cols))
}
