//! A linear layer's weights, whichever way they are kept: as numbers of their own (`gemm/`) or as small integers with a
//! scale for each group of them (`integer/`).

use std::sync::Arc;

use mlxt_backend::{Activation, Error, LinearPart, MatrixSource, Precision, Result, Shaped, check};

use super::gemm::{self, Kept};
use super::integer::{self, Bits};
use super::next::Last;
use crate::arena::Arena;
use crate::simd::{PairToken, Token};
use crate::threads::Pool;

/// Stacked linear layers, packed for one instruction set.
#[derive(Debug)]
pub struct Matrix(Kind);

#[derive(Debug)]
enum Kind {
    Float(gemm::Matrix),
    Integer(integer::Matrix),
}

impl Matrix {
    /// Packs parts that have been checked and have `shape`, outputs and inputs, together. With `pairs` bf16 is multiplied as it is.
    ///
    /// # Errors
    /// [`mlxt_backend::Error::WeightRange`] for a weight that the precision cannot hold; out of memory.
    pub(crate) fn new(
        on: (Token, &Pool),
        pairs: Option<PairToken>,
        source: &MatrixSource,
        shape: (usize, usize),
    ) -> Result<Self> {
        // Packed weights of a checkpoint are unpacked here and kept as the precision says.
        let parts: Vec<_> = source.parts.iter().map(LinearPart::full).collect();
        let float = |kept| {
            let (matrix, fits) = gemm::Matrix::new(on, &parts, kept, shape)?;
            if !fits {
                check::weight_range(source, source.precision)?;
            }
            Ok(Self(Kind::Float(matrix)))
        };
        let integer = |bits| {
            let is_spread = integer::gains_by_spreading(bits, &source.parts);
            Ok(Self(Kind::Integer(integer::Matrix::new(
                on,
                &parts,
                (bits, is_spread, source.input_squares.as_deref()),
                shape,
            )?)))
        };
        match source.precision {
            Precision::F32 => float(Kept::F32),
            precision @ (Precision::Tf32 | Precision::Fp8) => {
                Err(Error::UnsupportedPrecision { backend: "cpu", precision, supported: "f32, bf16, f16, int8, q4" })
            }
            Precision::Bf16 => float(pairs.map_or(Kept::Bf16, Kept::Pairs)),
            Precision::F16 => float(Kept::F16),
            Precision::Int8 => integer(Bits::Eight),
            Precision::Q4 => integer(Bits::Four),
        }
    }
}

impl Shaped for Matrix {
    fn rows(&self) -> usize {
        match &self.0 {
            Kind::Float(w) => w.rows(),
            Kind::Integer(w) => w.rows(),
        }
    }
    fn cols(&self) -> usize {
        match &self.0 {
            Kind::Float(w) => w.cols(),
            Kind::Integer(w) => w.cols(),
        }
    }
}

/// `out = activation(x wᵀ + bias)`: `x` is `[rows, inputs]`, `out` `[rows, outputs]`.
///
/// # Errors
/// Out of memory for the packed rows.
pub(crate) fn linear(
    context: (Token, &Pool, &Arc<Arena>),
    last: &Last,
    x: &[f32],
    w: &Matrix,
    activation: Activation,
    out: &mut [f32],
) -> Result<()> {
    match &w.0 {
        Kind::Float(w) => {
            last.is(w.place(), w.next());
            gemm::linear(context, x, w, activation, out)
        }
        Kind::Integer(w) => {
            last.is(w.place(), w.next());
            integer::linear(context, x, w, None, activation, out)
        }
    }
}
