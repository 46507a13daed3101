//! What each operation takes and gives: the checks every implementation makes, so that all refuse the same operands
//! with the same words, and the sizes they compute with.

use super::{Element, Form, Operation};
use crate::{Error, Result, Segments};

impl Operation {
    /// The shape of the result for inputs of these forms.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Element`] or [`Error::Setting`] for operands that do not fit.
    #[allow(clippy::too_many_lines)] // an arm for each operation
    pub fn shape(&self, inputs: &[Form<'_>]) -> Result<Vec<usize>> {
        let o = Operands { op: self.name(), inputs };
        let shape = match self {
            Self::Argmax(axis) | Self::Sum(axis) => {
                let x = o.floats::<1>()?[0];
                let mut shape = x.to_vec();
                shape.remove(position(o.op, *axis, x.len())?);
                shape
            }
            Self::Softmax(axis) | Self::Sort(axis) => {
                let x = o.floats::<1>()?[0];
                position(o.op, *axis, x.len())?;
                x.to_vec()
            }
            Self::LayerNorm => {
                let x = o.floats::<1>()?[0];
                last(o.op, x)?;
                x.to_vec()
            }
            Self::LeakyRelu
            | Self::Relu
            | Self::Selu
            | Self::Sigmoid
            | Self::Softplus
            | Self::Gelu
            | Self::GeluTanh
            | Self::HostToDevice
            | Self::DeviceToHost => o.floats::<1>()?[0].to_vec(),
            Self::Prelu => {
                let [x, a] = o.floats()?;
                o.same("shape of the slope", &[1], a)?;
                x.to_vec()
            }
            Self::Bce => {
                let [p, y] = o.floats()?;
                o.same("shape of the targets", p, y)?;
                vec![1]
            }
            Self::SumAll => {
                o.floats::<1>()?;
                vec![1]
            }
            Self::Concat(axis) => concat(&o, *axis)?,
            Self::Conv1d => convolution::<1>(&o)?,
            Self::Conv2d => convolution::<2>(&o)?,
            Self::Gather | Self::Embedding => {
                let [x, index] = o.elements([Element::F32, Element::I32])?;
                let ([_, cols], [count]) = (o.dims("dimensions of x", x)?, o.dims("dimensions of the index", index)?);
                vec![count, cols]
            }
            Self::Scatter | Self::ScatterSum | Self::ScatterMax => {
                let [x, source, target] = o.elements([Element::F32, Element::I32, Element::I32])?;
                let [rows, cols] = o.dims("dimensions of x", x)?;
                o.dims::<1>("dimensions of the sources", source)?;
                o.same("shape of the targets", source, target)?;
                vec![rows, cols]
            }
            Self::Linear | Self::LinearGelu | Self::PackedQkv | Self::LinearInt8 | Self::LinearQ4 => {
                let [x, w, b] = o.floats()?;
                let [inputs, outputs] = o.dims("dimensions of the weights", w)?;
                o.size("inputs", inputs, last(o.op, x)?)?;
                o.same("shape of the bias", &[outputs], b)?;
                [&x[..x.len() - 1], &[outputs]].concat()
            }
            Self::MatMul => {
                let [a, b] = o.floats()?;
                let (Some((lead, [rows, inner])), Some((b_lead, [b_inner, cols]))) = (split(a), split(b)) else {
                    return Err(o.setting(format!("needs matrices, found shapes {a:?} and {b:?}")));
                };
                o.size("rows of b", *inner, *b_inner)?;
                if !b_lead.is_empty() {
                    o.same("leading dimensions of b", lead, b_lead)?;
                }
                [lead, &[*rows, *cols]].concat()
            }
            Self::ScaledDotProductAttention => {
                let [q, k, v] = o.floats()?;
                let [batch, heads, _, size] = o.dims("dimensions of the queries", q)?;
                let [_, _, keys, _] = o.dims("dimensions of the keys", k)?;
                o.same("shape of the keys", &[batch, heads, keys, size], k)?;
                o.same("shape of the values", k, v)?;
                q.to_vec()
            }
            Self::SelfAttention => {
                let [q, k, v, lengths] = o.elements([Element::F32, Element::F32, Element::F32, Element::I32])?;
                let [batch, _, _, _] = o.dims("dimensions of the queries", q)?;
                o.same("shape of the keys", q, k)?;
                o.same("shape of the values", q, v)?;
                o.same("shape of the lengths", &[batch], lengths)?;
                q.to_vec()
            }
            Self::RaggedAttention(heads) => {
                let [qkv, lengths] = o.elements([Element::F32, Element::I32])?;
                let [rows, cols] = o.dims("dimensions of x", qkv)?;
                o.dims::<1>("dimensions of the lengths", lengths)?;
                if *heads == 0 || cols % heads.saturating_mul(3) != 0 {
                    return Err(o.setting(format!("{cols} columns cannot be cut into 3 times {heads} heads")));
                }
                vec![rows, cols / 3]
            }
            Self::AddLayerNorm => {
                let [x, r, gain, shift] = o.floats()?;
                let [_, cols] = o.dims("dimensions of x", x)?;
                o.same("shape of the residual", x, r)?;
                o.same("shape of the gain", &[cols], gain)?;
                o.same("shape of the shift", &[cols], shift)?;
                x.to_vec()
            }
            Self::RmsNorm => {
                let [x, gain] = o.floats()?;
                let [_, cols] = o.dims("dimensions of x", x)?;
                o.same("shape of the gain", &[cols], gain)?;
                x.to_vec()
            }
            Self::Rope => {
                let x = o.floats::<1>()?[0];
                let [_, _, _, size] = o.dims("dimensions of x", x)?;
                if size % 2 != 0 {
                    return Err(o.setting(format!("a head of {size} columns has no halves")));
                }
                x.to_vec()
            }
            Self::MeanPoolNormalize => {
                let [x, lengths] = o.elements([Element::F32, Element::I32])?;
                let [_, cols] = o.dims("dimensions of x", x)?;
                let [count] = o.dims("dimensions of the lengths", lengths)?;
                vec![count, cols]
            }
        };
        let bytes = shape.iter().try_fold(size_of::<f32>(), |n, &d| n.checked_mul(d));
        match bytes {
            Some(bytes) if isize::try_from(bytes).is_ok() => Ok(shape),
            _ => Err(o.setting(format!("a result of shape {shape:?} has more values than memory has addresses"))),
        }
    }
}

/// The operands of one operation.
struct Operands<'a> {
    op: &'static str,
    inputs: &'a [Form<'a>],
}

impl<'a> Operands<'a> {
    /// The shapes of as many arrays of floats.
    fn floats<const N: usize>(&self) -> Result<[&'a [usize]; N]> {
        self.elements([Element::F32; N])
    }

    /// The shapes of arrays that hold what is expected.
    fn elements<const N: usize>(&self, expected: [Element; N]) -> Result<[&'a [usize]; N]> {
        const NAMES: [&str; 4] = ["input 0", "input 1", "input 2", "input 3"];
        let mut shapes: [&[usize]; N] = [&[]; N];
        self.size("number of inputs", N, self.inputs.len())?;
        for (i, (form, expected)) in self.inputs.iter().zip(expected).enumerate() {
            if form.element != expected {
                let what = NAMES.get(i).copied().unwrap_or("an input");
                return Err(Error::Element { op: self.op, what, expected, found: form.element });
            }
            if form.shape.contains(&0) {
                return Err(self.setting(format!("an input of shape {:?} holds no value", form.shape)));
            }
            shapes[i] = form.shape;
        }
        Ok(shapes)
    }

    fn size(&self, what: &'static str, expected: usize, found: usize) -> Result<()> {
        crate::check::size(self.op, what, expected, found)
    }

    /// The dimensions of an array that has `N` of them.
    fn dims<const N: usize>(&self, what: &'static str, shape: &[usize]) -> Result<[usize; N]> {
        shape.try_into().map_err(|_| Error::Shape { op: self.op, what, expected: N, found: shape.len() })
    }

    fn same(&self, what: &'static str, expected: &[usize], found: &[usize]) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        Err(self.setting(format!("{what} must be {expected:?}, found {found:?}")))
    }

    fn setting(&self, what: String) -> Error {
        Error::Setting { op: self.op, what }
    }
}

fn concat(o: &Operands<'_>, axis: i64) -> Result<Vec<usize>> {
    let [a, b] = o.floats()?;
    let axis = position(o.op, axis, a.len())?;
    let mut fitting = a.to_vec();
    if let Some(&len) = b.get(axis) {
        fitting[axis] = len;
    }
    o.same("shape of the second array", &fitting, b)?;
    fitting[axis] = a[axis].saturating_add(b[axis]);
    Ok(fitting)
}

/// A convolution over `N` dimensions.
fn convolution<const N: usize>(o: &Operands<'_>) -> Result<Vec<usize>> {
    let [x, w] = o.floats()?;
    o.size("dimensions of x", N + 2, x.len())?;
    o.size("dimensions of the weights", N + 2, w.len())?;
    o.size("channels of the weights", x[N + 1], w[N + 1])?;
    let mut shape = x.to_vec();
    for d in 1..=N {
        if w[d] > x[d] {
            return Err(o.setting(format!("weights of shape {w:?} are larger than x of shape {x:?}")));
        }
        shape[d] = x[d] - w[d] + 1;
    }
    shape[N + 1] = w[0];
    Ok(shape)
}

/// The leading dimensions of a matrix or of several.
fn split(shape: &[usize]) -> Option<(&[usize], &[usize; 2])> {
    shape.split_last_chunk::<2>()
}

/// The last dimension.
fn last(op: &'static str, shape: &[usize]) -> Result<usize> {
    shape.last().copied().ok_or_else(|| Error::Setting { op, what: "needs at least one dimension".into() })
}

/// An axis, counted from the start.
fn position(op: &'static str, axis: i64, dimensions: usize) -> Result<usize> {
    let count = i64::try_from(dimensions).unwrap_or(i64::MAX);
    let from_start = if axis < 0 { axis.saturating_add(count) } else { axis };
    match usize::try_from(from_start) {
        Ok(i) if i < dimensions => Ok(i),
        _ => Err(Error::Setting { op, what: format!("there is no axis {axis} in {dimensions} dimensions") }),
    }
}

/// An array seen from one of its axes: `[outer, len, inner]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// The dimensions before it, multiplied.
    pub outer: usize,
    /// Its own.
    pub len: usize,
    /// Those after it.
    pub inner: usize,
}

impl Axis {
    /// The axis of an operation that was checked.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no such axis.
    pub fn new(op: &Operation, axis: i64, shape: &[usize]) -> Result<Self> {
        let i = position(op.name(), axis, shape.len())?;
        Ok(Self { outer: shape[..i].iter().product(), len: shape[i], inner: shape[i + 1..].iter().product() })
    }
}

/// The sizes of a product: `batch` times `[rows, inner] [inner, cols]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// How many; 1 where one right side serves all rows.
    pub batch: usize,
    /// Rows of each result.
    pub rows: usize,
    /// Terms of each sum.
    pub inner: usize,
    /// Columns of each result.
    pub cols: usize,
}

impl Product {
    /// Of shapes that were checked, `[.., rows, inner]` and `[.., inner, cols]`, both of at least two dimensions or, if
    /// there is one right side, the left of at least one.
    #[must_use]
    pub fn new(a: &[usize], b: &[usize]) -> Self {
        let (inner, cols) = match b {
            [.., inner, cols] => (*inner, *cols),
            _ => (1, 1),
        };
        let rows: usize = a.iter().rev().skip(1).product();
        let batch: usize = b.iter().rev().skip(2).product();
        Self { batch, rows: rows / batch.max(1), inner, cols }
    }
}

/// The sizes of a convolution; of one over a line, heights are 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Images or lines.
    pub count: usize,
    /// Rows and columns of x.
    pub size: [usize; 2],
    /// Rows and columns of the weights.
    pub window: [usize; 2],
    /// Channels of x.
    pub channels: usize,
    /// Channels of the result.
    pub outputs: usize,
}

impl Convolution {
    /// Of shapes that were checked.
    #[must_use]
    pub fn new(x: &[usize], w: &[usize]) -> Self {
        match (x, w) {
            (&[count, height, width, channels], &[outputs, rows, cols, _]) => {
                Self { count, size: [height, width], window: [rows, cols], channels, outputs }
            }
            (&[count, width, channels], &[outputs, cols, _]) => {
                Self { count, size: [1, width], window: [1, cols], channels, outputs }
            }
            _ => Self { count: 0, size: [1, 1], window: [1, 1], channels: 1, outputs: 1 },
        }
    }

    /// Rows and columns of the result.
    #[must_use]
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|d| self.size[d] - self.window[d] + 1)
    }
}

/// That every index is in `0..limit`.
///
/// # Errors
/// [`Error::Index`] for the first that is not.
pub fn indices(op: &Operation, indices: &[i32], limit: usize) -> Result<()> {
    // Negative ones are large as unsigned numbers. One comparison for each block is vector code, a search is not.
    let outside = |i: i32| i as u32 as usize >= limit;
    for (block, part) in indices.chunks(1024).enumerate() {
        if part.iter().fold(0_u32, |largest, &i| largest.max(i as u32)) as usize >= limit {
            let at = part.iter().position(|&i| outside(i)).unwrap_or(0);
            let (index, position) = (i64::from(part[at]), block * 1024 + at);
            return Err(Error::Index { op: op.name(), index, position, limit });
        }
    }
    Ok(())
}

/// The sequences of these lengths, which lie end to end in `rows` rows.
///
/// # Errors
/// [`Error::Index`] for a length below 1, [`Error::Shape`] if they do not add up to the rows.
pub fn segments(op: &Operation, lengths: &[i32], rows: usize) -> Result<Segments> {
    let lengths = self::lengths(op, lengths, rows)?;
    let segments = Segments::from_lengths(&lengths)?;
    crate::check::size(op.name(), "sum of the lengths", rows, segments.rows())?;
    Ok(segments)
}

/// Lengths of `1..=limit`.
///
/// # Errors
/// [`Error::Index`] for the first that is not.
pub fn lengths(op: &Operation, lengths: &[i32], limit: usize) -> Result<Vec<usize>> {
    let checked = lengths.iter().enumerate().map(|(position, &length)| match usize::try_from(length) {
        Ok(n) if (1..=limit).contains(&n) => Ok(n),
        _ => Err(Error::Index { op: op.name(), index: length.into(), position, limit: limit.saturating_add(1) }),
    });
    checked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::Settings;
    use proptest::prelude::*;

    fn shape(operation: Operation, shapes: &[&[usize]]) -> Result<Vec<usize>> {
        let integers = match operation {
            Operation::Gather | Operation::Embedding | Operation::RaggedAttention(_) | Operation::MeanPoolNormalize => {
                1..2
            }
            Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax => 1..3,
            Operation::SelfAttention => 3..4,
            _ => 0..0,
        };
        let element = |i| if integers.contains(&i) { Element::I32 } else { Element::F32 };
        let forms: Vec<_> = shapes.iter().enumerate().map(|(i, shape)| Form { element: element(i), shape }).collect();
        operation.shape(&forms)
    }

    #[test]
    fn results_have_the_studys_shapes() {
        let of = |operation, shapes: &[&[usize]]| shape(operation, shapes).unwrap();
        assert_eq!(of(Operation::Argmax(1), &[&[64, 1024, 128]]), [64, 128]);
        assert_eq!(of(Operation::Sum(-1), &[&[7]]), [0; 0]);
        assert_eq!(of(Operation::Concat(1), &[&[10, 64], &[10, 32]]), [10, 96]);
        assert_eq!(of(Operation::Conv1d, &[&[100, 256, 3], &[8, 3, 3]]), [100, 254, 8]);
        assert_eq!(of(Operation::Conv2d, &[&[10, 256, 250, 12], &[8, 3, 1, 12]]), [10, 254, 250, 8]);
        assert_eq!(of(Operation::Gather, &[&[64, 256], &[10]]), [10, 256]);
        assert_eq!(of(Operation::ScatterMax, &[&[64, 16], &[10], &[10]]), [64, 16]);
        assert_eq!(of(Operation::Linear, &[&[100, 1024, 32], &[32, 70], &[70]]), [100, 1024, 70]);
        assert_eq!(of(Operation::MatMul, &[&[32, 1, 1000], &[32, 1000, 128]]), [32, 1, 128]);
        assert_eq!(of(Operation::MatMul, &[&[1000, 64, 256], &[256, 32]]), [1000, 64, 32]);
        let (q, k): (&[usize], &[usize]) = (&[2, 8, 16, 32], &[2, 8, 64, 32]);
        assert_eq!(of(Operation::ScaledDotProductAttention, &[q, k, k]), q);
        assert_eq!(of(Operation::RaggedAttention(12), &[&[16, 2304], &[1]]), [16, 768]);
        assert_eq!(of(Operation::MeanPoolNormalize, &[&[16, 768], &[3]]), [3, 768]);
    }

    #[test]
    fn operands_that_do_not_fit_are_refused_in_words() {
        let message = |operation, shapes: &[&[usize]]| shape(operation, shapes).unwrap_err().to_string();
        assert_eq!(message(Operation::Relu, &[]), "ReLU: number of inputs must be 1, found 0");
        assert_eq!(message(Operation::Sum(2), &[&[3, 4]]), "Sum: there is no axis 2 in 2 dimensions");
        assert_eq!(
            message(Operation::Sum(i64::MIN), &[&[3]]),
            format!("Sum: there is no axis {} in 1 dimensions", i64::MIN)
        );
        assert_eq!(message(Operation::Bce, &[&[3], &[4]]), "BCE: shape of the targets must be [3], found [4]");
        let kernel = "Conv1d: weights of shape [1, 3, 2] are larger than x of shape [1, 2, 2]";
        assert_eq!(message(Operation::Conv1d, &[&[1, 2, 2], &[1, 3, 2]]), kernel);
        assert_eq!(message(Operation::Relu, &[&[2, 0]]), "ReLU: an input of shape [2, 0] holds no value");
        assert!(message(Operation::MatMul, &[&[usize::MAX / 8, 1], &[1, 9]]).contains("more values than memory"));
        let forms = [Form { element: Element::I32, shape: &[3] }];
        assert_eq!(Operation::Relu.shape(&forms).unwrap_err().to_string(), "ReLU: input 0 must hold f32, found i32");
        assert_eq!(
            message(Operation::RaggedAttention(0), &[&[2, 6], &[1]]),
            "RaggedAttention: 6 columns cannot be cut into 3 times 0 heads"
        );
    }

    #[test]
    fn indices_and_lengths_outside_are_found() {
        let mut many = vec![4; 3000];
        assert_eq!(indices(&Operation::Gather, &many, 5), Ok(()));
        for bad in [-1, 5, i32::MIN] {
            many[2500] = bad;
            let want = Error::Index { op: "Gather", index: bad.into(), position: 2500, limit: 5 };
            assert_eq!(indices(&Operation::Gather, &many, 5), Err(want));
        }
        assert!(segments(&Operation::MeanPoolNormalize, &[1, 2], 3).is_ok());
        for bad in [&[1, 3][..], &[3, 0], &[-1, 4], &[1], &[i32::MAX, i32::MAX]] {
            assert!(segments(&Operation::MeanPoolNormalize, bad, 3).is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Whatever the shapes, there is an answer, and one with values in it.
        #[test]
        fn hostile_shapes_are_answered(
            which in 0..Operation::ALL.len(),
            axis in prop_oneof![Just(i64::MIN), -5..5_i64, Just(i64::MAX)],
            heads in prop_oneof![0..4_usize, Just(usize::MAX)],
            shapes in prop::collection::vec(
                prop::collection::vec(prop_oneof![0..4_usize, Just(1 << 33), Just(usize::MAX)], 0..5), 0..5),
        ) {
            let name = Operation::ALL[which].name();
            let settings = [Settings { axis: Some(axis), heads: None }, Settings { axis: None, heads: Some(heads) }];
            let operation = settings.iter().find_map(|&s| Operation::new(name, s).ok()).unwrap();
            let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            if let Ok(result) = shape(operation, &shapes) {
                prop_assert!(result.iter().try_fold(4_usize, |n, &d| n.checked_mul(d)).is_some_and(|n| n > 0));
            }
        }
    }
}
