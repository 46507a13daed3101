//! What products multiply: numbers as they are kept, or both sides rounded to 8 bits. See `kernels/operand.cuh` and
//! `kernels/round.cuh`.

use mlxt_backend::{Arithmetic, DType, LinearWeight, MatrixSource, Precision};

use crate::room::ROWS;

/// The oldest compute capability that multiplies floats of 8 bits: Ada and Hopper, 2022.
pub(crate) const OLDEST_FOR_FP8: u32 = 89;

/// What lies behind a matrix of codes begins at a multiple of this.
const ALIGNMENT: usize = 256;

/// The numbers that a product multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operand {
    /// Activations as they are, and weights in the same type.
    Kept,
    /// Integers of 8 bits, of rows that were spread.
    Int8,
    /// Floats of 8 bits: 4 of the exponent, 3 of the fraction.
    Fp8,
}

impl Operand {
    /// What weights asked for in a precision are multiplied as. In 8 bits it is layers of whole tiles (32 inputs, 8
    /// outputs), which leaves out the last ones of most heads; nor is it weights that come packed in one bit: they are exact
    /// as they are, and spread they would not be.
    pub(crate) fn of(source: &MatrixSource, (outputs, inputs): (usize, usize)) -> Self {
        let of_one_bit = |weight: &LinearWeight| matches!(weight, LinearWeight::Quantised(w) if w.scheme().bits() == 1);
        let rounded = inputs.is_multiple_of(32)
            && inputs <= MOST_COLS
            && outputs.is_multiple_of(8)
            && !source.parts.iter().any(|part| of_one_bit(&part.weight));
        match source.precision {
            Precision::Int8 if rounded => Self::Int8,
            Precision::Fp8 if rounded => Self::Fp8,
            _ => Self::Kept,
        }
    }

    /// Bytes of one number, where activations are kept as these.
    pub(crate) const fn bytes(self, activations: DType) -> usize {
        match self {
            Self::Kept => activations.size(),
            Self::Int8 | Self::Fp8 => 1,
        }
    }

    /// What the compiler is told; nothing where numbers are as they are kept.
    pub(crate) fn definition(self) -> Option<&'static str> {
        match self {
            Self::Kept => None,
            Self::Int8 => Some("-DOPERAND=8"),
            Self::Fp8 => Some("-DOPERAND=9"),
        }
    }
}

/// The most columns that a row has where it is rounded.
const MOST_COLS: usize = 8 * 8 * 128;

/// The kernel that rounds rows of so many columns, [`MOST_COLS`] at most.
pub(crate) fn round_kernel(cols: usize) -> &'static str {
    // By how many times eight columns each of 128 threads holds.
    match cols.div_ceil(8 * 128) {
        0..=1 => "round_1",
        2 => "round_2",
        3..=4 => "round_4",
        _ => "round_8",
    }
}

/// Where codes and scales of a rounded matrix are, in one block of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where scales begin.
    pub(crate) scales: usize,
    /// All of it.
    pub(crate) bytes: usize,
}

impl Extent {
    /// Of so many rows and columns; rows are filled up to whole tiles of tensor cores.
    pub(crate) fn of(rows: usize, cols: usize) -> Self {
        let rows = rows.next_multiple_of(ROWS);
        let scales = (rows * cols).next_multiple_of(ALIGNMENT);
        Self { scales, bytes: scales + rows * size_of::<f32>() }
    }
}

/// The precisions whose weights an arithmetic takes.
pub(crate) const fn precisions(arithmetic: Arithmetic) -> &'static str {
    match arithmetic {
        Arithmetic::F16 => "f16, int8, fp8",
        Arithmetic::Bf16 => "bf16",
        Arithmetic::F32 => "f32, f16, bf16",
        Arithmetic::Tf32 => "tf32",
    }
}

#[cfg(test)]
mod tests {
    use mlxt_backend::{HostTensor, LinearPart};

    use super::*;

    #[test]
    fn layers_of_whole_tiles_are_multiplied_in_8_bits() {
        let of = |outputs: usize, inputs: usize, precision| {
            let weight = HostTensor::from_f32(&[outputs, inputs], &vec![0.5; outputs * inputs]).unwrap();
            let source = MatrixSource::new(vec![LinearPart { weight: weight.into(), bias: None }], precision);
            Operand::of(&source, (outputs, inputs))
        };
        assert_eq!(of(8, 32, Precision::Int8), Operand::Int8);
        assert_eq!(of(8, 32, Precision::Fp8), Operand::Fp8);
        assert_eq!(of(8, 32, Precision::F16), Operand::Kept);
        for (outputs, inputs) in [(2, 32), (9, 64), (8, 40), (8, MOST_COLS + 32)] {
            assert_eq!(of(outputs, inputs, Precision::Int8), Operand::Kept, "{outputs} {inputs}");
        }
    }

    #[test]
    fn scales_lie_behind_the_codes() {
        assert_eq!(Extent::of(1, 32), Extent { scales: 512, bytes: 512 + 64 });
        assert_eq!(Extent::of(17, 40), Extent { scales: 1280, bytes: 1280 + 128 });
    }

    #[test]
    fn every_row_that_may_be_rounded_has_a_kernel() {
        let of = [(32, 1), (1024, 1), (1056, 2), (3072, 4), (4096, 4), (MOST_COLS, 8)];
        for (cols, chunks) in of {
            let name = round_kernel(cols);
            assert_eq!(name, format!("round_{chunks}"));
            assert!(cols <= chunks * 1024);
        }
    }
}
