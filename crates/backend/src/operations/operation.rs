//! The operations, by the names the study gives them.

use std::fmt;

use super::Element;
use crate::{Error, Result};

/// An operation of the study: 23 that the published suite has, and those of an encoder that it lacks.
///
/// `study/OPERATIONS.md` says in words what each computes, and [`crate::Reference`] in code. Axes count from the end
/// where they are negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Where along the axis the largest value is, the first of several.
    Argmax(i64),
    /// Binary cross entropy of probabilities and targets, the mean over all.
    Bce,
    /// Two arrays joined along the axis.
    Concat(i64),
    /// Cross-correlation along one dimension, stride 1, no padding, channels last.
    Conv1d,
    /// Cross-correlation along two dimensions, likewise.
    Conv2d,
    /// Rows by their indices.
    Gather,
    /// Rows copied to indices; the last copied to an index stays.
    Scatter,
    /// Rows added to indices.
    ScatterSum,
    /// The largest of 0 and the rows that come to an index.
    ScatterMax,
    /// LayerNorm over the last axis, without weights.
    LayerNorm,
    /// `x` above zero, `0.01 x` below.
    LeakyRelu,
    /// `x w + b`
    Linear,
    /// Products of matrices.
    MatMul,
    /// `max(0, x) + a min(0, x)`
    Prelu,
    /// `max(0, x)`
    Relu,
    /// `softmax(q kᵀ / √D) v`, query `i` seeing keys `0..=i`.
    ScaledDotProductAttention,
    /// Scaled exponential linear unit.
    Selu,
    /// `1 / (1 + e⁻ˣ)`
    Sigmoid,
    /// `ln(1 + eˣ)`
    Softplus,
    /// Softmax along the axis.
    Softmax(i64),
    /// Ascending along the axis; what is not a number comes last.
    Sort(i64),
    /// The sum along the axis.
    Sum(i64),
    /// The sum of all.
    SumAll,
    /// `x Φ(x)`
    Gelu,
    /// Its approximation with tanh.
    GeluTanh,
    /// Rows of a table by their indices.
    Embedding,
    /// LayerNorm of a sum, with gain and shift.
    AddLayerNorm,
    /// Rows over their root mean square, with gain.
    RmsNorm,
    /// Rotary position embedding, halves rotated.
    Rope,
    /// GELU of a linear layer.
    LinearGelu,
    /// Query, key and value projections as one linear layer.
    PackedQkv,
    /// Bidirectional attention over padded sequences.
    SelfAttention,
    /// Bidirectional attention over sequences end to end, in this many heads.
    RaggedAttention(usize),
    /// A linear layer with weights of 8 bits, one scale for each output.
    LinearInt8,
    /// A linear layer with weights of 4 bits, one scale for each 64 inputs.
    LinearQ4,
    /// The mean of each sequence's rows, scaled to length 1.
    MeanPoolNormalize,
    /// `x` copied. What is timed for it is [`super::Operations::upload`].
    HostToDevice,
    /// `x` copied. What is timed for it is [`super::Operations::download`].
    DeviceToHost,
}

/// What an operation may need to know besides its name and its axis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// The axis.
    pub axis: Option<i64>,
    /// Heads of an attention whose operands do not show them.
    pub heads: Option<usize>,
}

impl Operation {
    /// The operation of that name in the study.
    ///
    /// # Errors
    /// [`Error::UnknownOperation`]; [`Error::Setting`] where it needs an axis or heads and has none, or has an axis and
    /// takes none.
    pub fn new(name: &str, settings: Settings) -> Result<Self> {
        let Some(found) = Self::ALL.into_iter().find(|o| o.name() == name) else {
            return Err(Error::UnknownOperation { name: name.into() });
        };
        let op = found.name();
        let lacking = |what: &str| Error::Setting { op, what: format!("{what} needed") };
        let axis = || settings.axis.ok_or_else(|| lacking("an axis is"));
        Ok(match found {
            Self::Argmax(_) => Self::Argmax(axis()?),
            Self::Concat(_) => Self::Concat(axis()?),
            Self::Softmax(_) => Self::Softmax(axis()?),
            Self::Sort(_) => Self::Sort(axis()?),
            Self::Sum(_) => Self::Sum(axis()?),
            other => {
                if let Some(axis) = settings.axis {
                    return Err(Error::Setting { op, what: format!("takes no axis, found {axis}") });
                }
                match other {
                    Self::RaggedAttention(_) => {
                        Self::RaggedAttention(settings.heads.ok_or_else(|| lacking("heads are"))?)
                    }
                    other => other,
                }
            }
        })
    }

    /// Every operation; those that have a setting with axis 0 or 1 head.
    pub const ALL: [Self; 38] = [
        Self::Argmax(0),
        Self::Bce,
        Self::Concat(0),
        Self::Conv1d,
        Self::Conv2d,
        Self::Gather,
        Self::Scatter,
        Self::ScatterSum,
        Self::ScatterMax,
        Self::LayerNorm,
        Self::LeakyRelu,
        Self::Linear,
        Self::MatMul,
        Self::Prelu,
        Self::Relu,
        Self::ScaledDotProductAttention,
        Self::Selu,
        Self::Sigmoid,
        Self::Softplus,
        Self::Softmax(0),
        Self::Sort(0),
        Self::Sum(0),
        Self::SumAll,
        Self::Gelu,
        Self::GeluTanh,
        Self::Embedding,
        Self::AddLayerNorm,
        Self::RmsNorm,
        Self::Rope,
        Self::LinearGelu,
        Self::PackedQkv,
        Self::SelfAttention,
        Self::RaggedAttention(1),
        Self::LinearInt8,
        Self::LinearQ4,
        Self::MeanPoolNormalize,
        Self::HostToDevice,
        Self::DeviceToHost,
    ];

    /// The study's name of the operation.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Argmax(_) => "Argmax",
            Self::Bce => "BCE",
            Self::Concat(_) => "Concat",
            Self::Conv1d => "Conv1d",
            Self::Conv2d => "Conv2d",
            Self::Gather => "Gather",
            Self::Scatter => "Scatter",
            Self::ScatterSum => "ScatterSum",
            Self::ScatterMax => "ScatterMax",
            Self::LayerNorm => "LayerNorm",
            Self::LeakyRelu => "LeakyReLU",
            Self::Linear => "Linear",
            Self::MatMul => "MatMul",
            Self::Prelu => "PReLU",
            Self::Relu => "ReLU",
            Self::ScaledDotProductAttention => "ScaledDotProductAttention",
            Self::Selu => "SeLU",
            Self::Sigmoid => "Sigmoid",
            Self::Softplus => "Softplus",
            Self::Softmax(_) => "Softmax",
            Self::Sort(_) => "Sort",
            Self::Sum(_) => "Sum",
            Self::SumAll => "SumAll",
            Self::Gelu => "Gelu",
            Self::GeluTanh => "GeluTanh",
            Self::Embedding => "Embedding",
            Self::AddLayerNorm => "AddLayerNorm",
            Self::RmsNorm => "RMSNorm",
            Self::Rope => "RoPE",
            Self::LinearGelu => "LinearGelu",
            Self::PackedQkv => "PackedQKV",
            Self::SelfAttention => "SelfAttention",
            Self::RaggedAttention(_) => "RaggedAttention",
            Self::LinearInt8 => "LinearInt8",
            Self::LinearQ4 => "LinearQ4",
            Self::MeanPoolNormalize => "MeanPoolNormalize",
            Self::HostToDevice => "HostToDevice",
            Self::DeviceToHost => "DeviceToHost",
        }
    }

    /// What its result holds.
    #[must_use]
    pub const fn element(&self) -> Element {
        match self {
            Self::Argmax(_) => Element::I32,
            _ => Element::F32,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Argmax(axis) | Self::Concat(axis) | Self::Softmax(axis) | Self::Sort(axis) | Self::Sum(axis) => {
                write!(f, " along axis {axis}")
            }
            Self::RaggedAttention(heads) => write!(f, " of {heads} heads"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for operation in Operation::ALL {
            let settings =
                [Settings { axis: Some(0), heads: None }, Settings { axis: None, heads: Some(1) }, Settings::default()];
            assert!(settings.iter().any(|&s| Operation::new(operation.name(), s) == Ok(operation)), "{operation}");
        }
    }

    #[test]
    fn what_is_lacking_or_too_much_is_said() {
        let none = Settings::default();
        let message = |name, settings| Operation::new(name, settings).unwrap_err().to_string();
        assert_eq!(message("Sum", none), "Sum: an axis is needed");
        assert_eq!(message("RaggedAttention", none), "RaggedAttention: heads are needed");
        assert_eq!(message("ReLU", Settings { axis: Some(1), ..none }), "ReLU: takes no axis, found 1");
        assert_eq!(message("Fft", none), "there is no operation named \"Fft\"");
        assert_eq!(Operation::new("Sum", Settings { axis: Some(-2), ..none }), Ok(Operation::Sum(-2)));
    }
}
