//! Arrays in host memory, and what is known of an array without its values.

use std::fmt;

use crate::{Error, Result};

/// What an array holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// 32-bit integers: indices and lengths.
    I32,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::I32 => "i32",
        })
    }
}

/// An array's shape and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form<'a> {
    /// What it holds.
    pub element: Element,
    /// Its dimensions, the outermost first.
    pub shape: &'a [usize],
}

/// An array's values, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 32-bit integers.
    I32(Vec<i32>),
}

/// An array in host memory. It has at least one value.
#[derive(Debug, Clone, PartialEq)]
pub struct HostArray {
    shape: Vec<usize>,
    values: Values,
}

impl HostArray {
    /// An array of that shape.
    ///
    /// # Errors
    /// [`Error::Setting`] for a dimension of 0, [`Error::Shape`] for a number of values that does not fit.
    pub fn new(shape: Vec<usize>, values: Values) -> Result<Self> {
        if shape.contains(&0) {
            return Err(Error::Setting { op: "array", what: format!("shape {shape:?} holds no value") });
        }
        let expected = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
        let found = match &values {
            Values::F32(v) => v.len(),
            Values::I32(v) => v.len(),
        };
        if expected != found {
            return Err(Error::Shape { op: "array", what: "values", expected, found });
        }
        Ok(Self { shape, values })
    }

    /// An array of floats.
    ///
    /// # Errors
    /// As [`HostArray::new`].
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Result<Self> {
        Self::new(shape.to_vec(), Values::F32(values))
    }

    /// An array of integers.
    ///
    /// # Errors
    /// As [`HostArray::new`].
    pub fn i32(shape: &[usize], values: Vec<i32>) -> Result<Self> {
        Self::new(shape.to_vec(), Values::I32(values))
    }

    /// Its shape and what it holds.
    #[must_use]
    pub fn form(&self) -> Form<'_> {
        let element = match self.values {
            Values::F32(_) => Element::F32,
            Values::I32(_) => Element::I32,
        };
        Form { element, shape: &self.shape }
    }

    /// Its values.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Its values, if they are floats; nothing else.
    #[must_use]
    pub fn floats(&self) -> &[f32] {
        match &self.values {
            Values::F32(v) => v,
            Values::I32(_) => &[],
        }
    }

    /// Its values, if they are integers; nothing else.
    #[must_use]
    pub fn integers(&self) -> &[i32] {
        match &self.values {
            Values::I32(v) => v,
            Values::F32(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_must_fit_the_shape() {
        assert!(HostArray::f32(&[2, 3], vec![0.0; 6]).is_ok());
        assert!(HostArray::i32(&[], vec![7]).is_ok());
        assert!(matches!(HostArray::f32(&[2, 3], vec![0.0; 5]), Err(Error::Shape { expected: 6, found: 5, .. })));
        assert!(matches!(HostArray::f32(&[usize::MAX, 2], vec![]), Err(Error::Shape { expected: usize::MAX, .. })));
        assert!(matches!(HostArray::f32(&[2, 0], vec![]), Err(Error::Setting { .. })));
    }
}
