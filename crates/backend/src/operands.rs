//! What the operations take besides activations: weights as they are loaded, and the settings of each operation.

use std::fmt;
use std::str::FromStr;

use crate::{DType, HostTensor, Quantised, Shaped};

/// How a backend keeps and multiplies weights. A property of a matrix, never of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// 32-bit floats, 32-bit arithmetic.
    #[default]
    F32,
    /// 32-bit floats that tensor cores round to 19 bits where they multiply: [`Arithmetic::Tf32`]. GPUs of NVIDIA only.
    Tf32,
    /// Weights rounded to bfloat16. What activations are kept in is the backend's affair: [`Arithmetic`].
    Bf16,
    /// Weights rounded to 16-bit IEEE floats; activations as for [`Precision::Bf16`].
    F16,
    /// 8-bit integer weights with a scale for each output, or for some of its inputs. A backend may round activations to 8 bits
    /// too, with a scale for each row or some of its columns, never for several rows.
    Int8,
    /// 4-bit weights with a scale for each output and some of its inputs; activations as for [`Precision::Int8`].
    Q4,
    /// Weights and activations in floats of 8 bits (4 of the exponent, 3 of the fraction: e4m3), with a scale for each output and
    /// each row. GPUs of NVIDIA only.
    Fp8,
}

impl Precision {
    /// Every precision, with the name the command line gives it.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::F32, "f32"),
        (Self::Tf32, "tf32"),
        (Self::Bf16, "bf16"),
        (Self::F16, "f16"),
        (Self::Int8, "int8"),
        (Self::Q4, "q4"),
        (Self::Fp8, "fp8"),
    ];

    /// The type of a weight's own number, where it is one number kept by itself.
    #[must_use]
    pub const fn element(self) -> Option<DType> {
        match self {
            Self::F32 | Self::Tf32 => Some(DType::F32),
            Self::Bf16 => Some(DType::Bf16),
            Self::F16 => Some(DType::F16),
            Self::Int8 | Self::Q4 | Self::Fp8 => None,
        }
    }

    /// The name the command line gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == s);
        found
            .map(|(p, _)| p)
            .ok_or_else(|| format!("unknown precision {s:?}: one of f32, tf32, bf16, f16, int8, q4, fp8"))
    }
}

/// How a backend keeps activations and multiplies them. Sums are in f32 in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Arithmetic {
    /// 32-bit floats throughout.
    #[default]
    F32,
    /// Activations of 32 bits, of which products take the upper 19 (8 of the exponent, 10 of the fraction).
    Tf32,
    /// Activations of 16 bits, IEEE.
    F16,
    /// Activations in bfloat16, where they are multiplied at least.
    Bf16,
}

impl Arithmetic {
    /// What an activation is kept in.
    #[must_use]
    pub const fn activations(self) -> DType {
        match self {
            Self::F32 | Self::Tf32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::Bf16,
        }
    }

    /// By how much rounding to it changes a number at most, in proportion to the number.
    #[must_use]
    pub const fn unit(self) -> f64 {
        match self {
            Self::F32 => 1.0 / (1 << 24) as f64,
            Self::Tf32 | Self::F16 => 1.0 / (1 << 11) as f64,
            Self::Bf16 => 1.0 / (1 << 8) as f64,
        }
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// A function of one number, applied to every element. Each has the definition its name has in PyTorch.
///
/// The two GELUs are different functions and never stand in for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// `x`
    #[default]
    Identity,
    /// `x Φ(x) = x (1 + erf(x / √2)) / 2`
    Gelu,
    /// `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`
    GeluTanh,
    /// [`Activation::Gelu`] clipped to −10..10 (`gelu_10`)
    GeluClipped10,
    /// `x sigmoid(1.702 x)`
    QuickGelu,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `max(x, 0)²`
    ReluSquared,
    /// `x` above zero, `0.01 x` below
    LeakyRelu,
    /// `x sigmoid(x)`, also called swish
    Silu,
    /// `1 / (1 + e⁻ˣ)`
    Sigmoid,
    /// `tanh(x)`
    Tanh,
    /// `x tanh(ln(1 + eˣ))`
    Mish,
    /// `(1 + erf((x − 0.707107) / (0.282095 √2))) / 2`
    Laplace,
    /// `x min(max(x + 3, 0), 6) / 6`
    HardSwish,
    /// `√ln(1 + eˣ)`
    SqrtSoftplus,
}

impl Activation {
    /// Every activation, in the order of the enum.
    pub const ALL: [Self; 16] = [
        Self::Identity,
        Self::Gelu,
        Self::GeluTanh,
        Self::GeluClipped10,
        Self::QuickGelu,
        Self::Relu,
        Self::Relu6,
        Self::ReluSquared,
        Self::LeakyRelu,
        Self::Silu,
        Self::Sigmoid,
        Self::Tanh,
        Self::Mish,
        Self::Laplace,
        Self::HardSwish,
        Self::SqrtSoftplus,
    ];
}

/// Which keys a query may see. Positions count from the start of a sequence; sequences never see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mask {
    /// Every key of the sequence.
    #[default]
    Full,
    /// Keys `0..=i` for query `i`.
    Causal,
    /// Keys at a distance of at most `radius` on either side.
    Window {
        /// Largest distance that is seen.
        radius: usize,
    },
}

impl Mask {
    /// The keys that query `i` of a sequence of `length` sees: one unbroken, never empty range.
    #[must_use]
    pub fn visible(self, i: usize, length: usize) -> std::ops::Range<usize> {
        match self {
            Self::Full => 0..length,
            Self::Causal => 0..i + 1,
            Self::Window { radius } => i.saturating_sub(radius)..length.min(i.saturating_add(radius).saturating_add(1)),
        }
    }
}

/// The settings of multi-head scaled dot-product attention over packed `[rows, 3 * heads * head_size]`:
/// all queries, then all keys, then all values, each with its heads side by side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Number of heads.
    pub heads: usize,
    /// Columns of one head.
    pub head_size: usize,
    /// What the scores are multiplied by before the softmax, commonly `1 / √head_size`.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
}

/// What a backend makes an attention's relative term from: what the scores gain by how far query and key are apart.
///
/// Distances are put in buckets: query `i` and key `j` of a sequence are in bucket
/// `b = buckets[clamp(i - j, -reach, reach) + reach]`, where `buckets` has `2 reach + 1` entries. The score is then
/// `scale (q_i · k_j + q_i · keys[b] + k_j · queries[b]) + bias[b, head]`, each of the three only where it is there.
#[derive(Debug, Clone)]
pub struct RelativeSource<T> {
    /// The bucket of every distance from `-reach` to `reach`: an odd number of entries.
    pub buckets: Vec<u32>,
    /// What queries are multiplied by, `[buckets, heads * head_size]`.
    pub keys: Option<T>,
    /// What keys are multiplied by, `[buckets, heads * head_size]`.
    pub queries: Option<T>,
    /// What is added as it is, `[buckets, heads]`.
    pub bias: Option<T>,
}

impl<T> RelativeSource<T> {
    /// The largest distance that has a bucket of its own.
    #[must_use]
    pub fn reach(&self) -> usize {
        self.buckets.len() / 2
    }
}

/// The columns of a relative term's parts, which have to fit the attention's heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativeShape {
    /// Of [`RelativeSource::keys`].
    pub keys: Option<usize>,
    /// Of [`RelativeSource::queries`].
    pub queries: Option<usize>,
    /// Of [`RelativeSource::bias`].
    pub bias: Option<usize>,
}

impl<T: Shaped> From<&RelativeSource<T>> for RelativeShape {
    fn from(source: &RelativeSource<T>) -> Self {
        let cols = |part: &Option<T>| part.as_ref().map(Shaped::cols);
        Self { keys: cols(&source.keys), queries: cols(&source.queries), bias: cols(&source.bias) }
    }
}

/// The settings of a rotary position embedding of the queries and keys in packed `[rows, 3 * heads * head_size]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    /// Number of heads.
    pub heads: usize,
    /// Columns of one head, an even number.
    pub head_size: usize,
    /// The base of the frequencies, at least 1.
    pub theta: f32,
}

impl Rotation {
    /// By how much each pair of columns turns from one position to the next, in radians: `theta^(-2t / head_size)` for
    /// `t < head_size / 2`, rounded where `transformers` rounds. At position 8000 these roundings are worth 5e-4
    /// radians, so all backends take the same.
    #[must_use]
    pub fn frequencies(&self) -> Vec<f32> {
        let exponent = |t: usize| (2 * t) as f32 / self.head_size as f32;
        (0..self.head_size / 2).map(|t| 1.0 / self.theta.powf(exponent(t))).collect()
    }
}

/// How the rows of one sequence become one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Their mean.
    Mean,
    /// The largest value of each column.
    Max,
    /// Their sum over the square root of their number.
    MeanSqrtLength,
    /// Their mean with weights 1, 2, 3 .. by position.
    WeightedMean,
}

impl Reduction {
    /// Every reduction.
    pub const ALL: [Self; 4] = [Self::Mean, Self::Max, Self::MeanSqrtLength, Self::WeightedMean];
}

/// One table to look rows up in, and which row for each token. `embed` sums several of these.
#[derive(Debug)]
pub struct Lookup<'a, T> {
    /// The table, `[entries, cols]`.
    pub table: &'a T,
    /// The entry of each row, `[rows]`.
    pub ids: &'a [u32],
}

/// The weights of a linear layer as a checkpoint stores them: `[outputs, inputs]`, as PyTorch keeps them.
#[derive(Debug, Clone)]
pub enum LinearWeight {
    /// A number for each.
    Full(HostTensor),
    /// Packed codes. A backend may compute with them as they are, or with the numbers they stand for, in the precision
    /// asked for.
    Quantised(Quantised),
}

impl LinearWeight {
    /// `[outputs, inputs]`, if it has two dimensions; packed weights always do.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Full(weight) => weight.shape(),
            Self::Quantised(weight) => weight.shape(),
        }
    }

    /// The numbers: shared where they are there, else made.
    #[must_use]
    pub fn full(&self) -> HostTensor {
        match self {
            Self::Full(weight) => weight.clone(),
            Self::Quantised(weight) => weight.full(),
        }
    }
}

impl From<HostTensor> for LinearWeight {
    fn from(weight: HostTensor) -> Self {
        Self::Full(weight)
    }
}

/// One linear layer as checkpoints store it; `W` is [`HostTensor`] where packed weights have been unpacked.
#[derive(Debug, Clone)]
pub struct LinearPart<W = LinearWeight> {
    /// `[outputs, inputs]`
    pub weight: W,
    /// `[outputs]`
    pub bias: Option<HostTensor>,
}

impl LinearPart {
    /// The same with [`LinearWeight::full`] weights.
    #[must_use]
    pub fn full(&self) -> LinearPart<HostTensor> {
        LinearPart { weight: self.weight.full(), bias: self.bias.clone() }
    }
}

/// What a backend makes a matrix from: layers of the same inputs, stacked along their outputs (query, key and value
/// become one product).
#[derive(Debug, Clone)]
pub struct MatrixSource {
    /// At least one.
    pub parts: Vec<LinearPart>,
    /// How to keep it.
    pub precision: Precision,
    /// What the squares of its inputs will be on average, up to a common factor, where the model can tell: finite and above 0. A
    /// backend that rounds weights may do so with smaller errors where inputs are larger; results do not depend on it otherwise.
    pub input_squares: Option<Vec<f32>>,
}

impl MatrixSource {
    /// Of inputs nothing is known about.
    #[must_use]
    pub fn new(parts: Vec<LinearPart>, precision: Precision) -> Self {
        Self { parts, precision, input_squares: None }
    }
}

/// Which normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `(x − mean) / √(variance + eps)`, variance over all `cols` (not `cols − 1`).
    LayerNorm,
    /// `x / √(mean of squares + eps)`
    RmsNorm,
}

/// What a backend makes a normalisation from.
#[derive(Debug, Clone)]
pub struct NormSource {
    /// Which.
    pub kind: NormKind,
    /// Multiplies each column, `[cols]`.
    pub gain: HostTensor,
    /// Is added to each column, `[cols]`.
    pub shift: Option<HostTensor>,
    /// Keeps the root away from zero; at least 0.
    pub eps: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_read_back_from_their_names() {
        for (precision, name) in Precision::ALL {
            assert_eq!(precision.name(), name);
            assert_eq!(name.parse(), Ok(precision));
        }
        assert!("fp32".parse::<Precision>().unwrap_err().contains("fp32"));
    }

    #[test]
    fn masks_are_never_empty_and_stay_inside() {
        for length in 1..20 {
            for mask in [Mask::Full, Mask::Causal, Mask::Window { radius: 0 }, Mask::Window { radius: usize::MAX }] {
                for i in 0..length {
                    let seen = mask.visible(i, length);
                    assert!(seen.contains(&i) && seen.end <= length, "{mask:?} {i} of {length}: {seen:?}");
                }
            }
        }
        assert_eq!(Mask::Window { radius: 2 }.visible(5, 7), 3..7);
    }
}
