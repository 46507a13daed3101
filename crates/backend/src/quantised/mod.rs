//! Weights packed as small codes with a scale for each group of them, as MLX writes them into checkpoints.
//!
//! A group is a run of inputs of one output. Its codes stand for `scale * code + bias` ([`Scheme::Affine`]), or are floats
//! of 4 or 8 bits that stand for `scale * float`. The codes of a row are one stream of bits: code `i` has the bits from
//! `i * bits` on, of bytes counted from the row's first, the lowest bit first (an MLX array of u32 holds them in just
//! this order, little-endian, for every width).
//!
//! No product is here: what a backend makes of packed weights is its own matter, as long as it is the product with
//! [`Quantised::to_f32`]. How numbers become codes is in `quantise.rs`.

mod quantise;

use std::fmt;

use bytes::Bytes;
use half::f16;

use crate::{Error, HostTensor, LinearWeight, Result, check};

/// The values of a 4-bit float (E2M1) without its sign, which is the fourth bit.
const FLOAT4: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// Bits of a code that [`Scheme::Affine`] may have.
pub const AFFINE_BITS: [usize; 7] = [1, 2, 3, 4, 5, 6, 8];
/// Codes of a group that [`Scheme::Affine`] may have.
pub const AFFINE_GROUPS: [usize; 3] = [32, 64, 128];

/// What codes and scales are: MLX's modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `affine`: whole numbers from 0, with a scale and a bias for each group.
    Affine {
        /// Of a code: one of [`AFFINE_BITS`].
        bits: usize,
        /// Codes of a group: one of [`AFFINE_GROUPS`].
        group: usize,
    },
    /// `mxfp4`: 4-bit floats (E2M1) in groups of 32, with a power of two for each (E8M0).
    Mxfp4,
    /// `nvfp4`: 4-bit floats (E2M1) in groups of 16, with an 8-bit float for each (E4M3).
    Nvfp4,
    /// `mxfp8`: 8-bit floats (E4M3) in groups of 32, with a power of two for each (E8M0).
    Mxfp8,
}

impl Scheme {
    /// Bits of a code.
    #[must_use]
    pub const fn bits(self) -> usize {
        match self {
            Self::Affine { bits, .. } => bits,
            Self::Mxfp4 | Self::Nvfp4 => 4,
            Self::Mxfp8 => 8,
        }
    }

    /// Codes of a group.
    #[must_use]
    pub const fn group(self) -> usize {
        match self {
            Self::Affine { group, .. } => group,
            Self::Nvfp4 => 16,
            Self::Mxfp4 | Self::Mxfp8 => 32,
        }
    }

    /// MLX's name of the mode.
    #[must_use]
    pub const fn mode(self) -> &'static str {
        match self {
            Self::Affine { .. } => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Nvfp4 => "nvfp4",
            Self::Mxfp8 => "mxfp8",
        }
    }

    /// That bits and group are among those there are.
    ///
    /// # Errors
    /// [`Error::Setting`] if they are not.
    pub fn check(self) -> Result<()> {
        let known = match self {
            Self::Affine { bits, group } => AFFINE_BITS.contains(&bits) && AFFINE_GROUPS.contains(&group),
            Self::Mxfp4 | Self::Nvfp4 | Self::Mxfp8 => true,
        };
        let wrong = || Error::Setting {
            op: "quantised",
            what: format!("bits must be one of {AFFINE_BITS:?} and groups of {AFFINE_GROUPS:?}, found {self}"),
        };
        if known { Ok(()) } else { Err(wrong()) }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} bits, groups of {}", self.mode(), self.bits(), self.group())
    }
}

/// What the codes of each group are multiplied by, `[outputs, inputs / group]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Scales {
    /// Of [`Scheme::Affine`].
    Affine {
        /// Multiplies a code.
        scales: HostTensor,
        /// Is added to that.
        biases: HostTensor,
    },
    /// Of the other schemes: a byte each.
    Bytes(Bytes),
}

/// A linear layer's weights, `[outputs, inputs]`, packed.
#[derive(Clone, PartialEq)]
pub struct Quantised {
    scheme: Scheme,
    shape: [usize; 2],
    codes: Bytes,
    scales: Scales,
    name: String,
}

impl Quantised {
    /// Weights of that shape over their codes and scales. Every later access is inside them.
    ///
    /// # Errors
    /// [`Error::Setting`] for a scheme that is not there, scales of another, or inputs that are no whole number of groups;
    /// [`Error::Empty`] for no output or input; [`Error::Shape`] for codes or scales that do not fit the shape.
    pub fn new(scheme: Scheme, shape: [usize; 2], codes: Bytes, scales: Scales) -> Result<Self> {
        let op = "quantised";
        scheme.check()?;
        let [outputs, inputs] = shape;
        if outputs == 0 || inputs == 0 {
            return Err(Error::Empty { found: format!("a tensor of {outputs} by {inputs}") });
        }
        if !inputs.is_multiple_of(scheme.group()) {
            let what = format!("{inputs} inputs are no whole number of groups ({scheme})");
            return Err(Error::Setting { op, what });
        }
        // Groups are of 16 codes or more, so a row is a whole number of bytes.
        let bytes = (inputs / 8).saturating_mul(scheme.bits()).saturating_mul(outputs);
        check::size(op, "bytes of the codes", bytes, codes.len())?;
        let groups = (inputs / scheme.group()).saturating_mul(outputs);
        match (&scales, scheme) {
            (Scales::Affine { scales, biases }, Scheme::Affine { .. }) => {
                check::size(op, "scales", groups, scales.len())?;
                check::size(op, "biases", groups, biases.len())?;
            }
            (Scales::Bytes(scales), Scheme::Mxfp4 | Scheme::Nvfp4 | Scheme::Mxfp8) => {
                check::size(op, "scales", groups, scales.len())?;
            }
            _ => {
                return Err(Error::Setting {
                    op,
                    what: format!("the scales are those of another scheme than {scheme}"),
                });
            }
        }
        Ok(Self { scheme, shape, codes, scales, name: String::new() })
    }

    /// The same weights, which errors call `name`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// What codes and scales are.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `[outputs, inputs]`
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The codes, row after row; as an MLX array u32 of `[outputs, inputs * bits / 32]`.
    #[must_use]
    pub fn codes(&self) -> &Bytes {
        &self.codes
    }

    /// What they are multiplied by.
    #[must_use]
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// The weights that the codes stand for, each rounded to f32 once.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let ([_, inputs], bits) = (self.shape, self.scheme.bits());
        let mut out = Vec::with_capacity(self.shape.iter().product());
        let (mut scales, mut biases) = (self.scales_to_f32().into_iter(), self.biases_to_f32().into_iter());
        for row in self.codes.chunks_exact(inputs / 8 * bits) {
            for first in (0..inputs).step_by(self.scheme.group()) {
                let (scale, bias) = (scales.next().unwrap_or(0.0), biases.next().unwrap_or(0.0));
                let weight = |code| (f64::from(scale) * f64::from(self.value(code)) + f64::from(bias)) as f32;
                out.extend((first..first + self.scheme.group()).map(|i| weight(code(row, i, bits))));
            }
        }
        out
    }

    /// The same as a tensor that is not packed.
    #[must_use]
    pub fn full(&self) -> HostTensor {
        HostTensor::f32(self.shape.to_vec(), &self.to_f32()).named(&self.name)
    }

    /// The number a code is before it is scaled.
    fn value(&self, code: u8) -> f32 {
        match self.scheme {
            Scheme::Affine { .. } => f32::from(code),
            Scheme::Mxfp4 | Scheme::Nvfp4 => {
                let value = FLOAT4[usize::from(code & 7)];
                if code & 8 == 0 { value } else { -value }
            }
            Scheme::Mxfp8 => float8(code),
        }
    }

    fn scales_to_f32(&self) -> Vec<f32> {
        match &self.scales {
            Scales::Affine { scales, .. } => scales.to_f32(),
            Scales::Bytes(bytes) if self.scheme == Scheme::Nvfp4 => bytes.iter().map(|&b| float8(b)).collect(),
            Scales::Bytes(bytes) => bytes.iter().map(|&b| power_of_two(b)).collect(),
        }
    }

    /// Nothing for a scheme without biases.
    fn biases_to_f32(&self) -> Vec<f32> {
        match &self.scales {
            Scales::Affine { biases, .. } => biases.to_f32(),
            Scales::Bytes(_) => Vec::new(),
        }
    }
}

impl fmt::Debug for Quantised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quantised({} {:?})", self.scheme, self.shape)
    }
}

impl From<Quantised> for LinearWeight {
    fn from(weight: Quantised) -> Self {
        Self::Quantised(weight)
    }
}

/// Code `index` of a row.
fn code(row: &[u8], index: usize, bits: usize) -> u8 {
    let (byte, bit) = (index * bits / 8, index * bits % 8);
    let low = u16::from(row[byte]);
    // The last code of a row ends in its last byte.
    let high = row.get(byte + 1).map_or(0, |&b| u16::from(b) << 8);
    ((low | high) >> bit & ((1 << bits) - 1)) as u8
}

/// An 8-bit float: a sign, 4 bits of exponent, 3 of mantissa, no infinity, NaN where all seven are set (E4M3; Micikevicius
/// et al., "FP8 Formats for Deep Learning", 2022).
fn float8(byte: u8) -> f32 {
    if byte & 0x7f == 0x7f {
        return f32::NAN;
    }
    // As the exponent of an f16 the same bits are 2^(15 - 7) too small, of subnormal numbers too.
    let half = u16::from(byte & 0x80) << 8 | u16::from(byte & 0x7f) << 7;
    f16::from_bits(half).to_f32() * 256.0
}

/// `2^(byte - 127)`, NaN for 255 (E8M0 of the OCP Microscaling Formats, 1.0, section 5.4.1).
fn power_of_two(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

#[cfg(test)]
mod tests;
