//! Results as the rows of a table: what CSV and Parquet share. A record is one row or several, each with a value for
//! every column.

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: &'static str,
    /// What is in it.
    pub(crate) kind: Kind,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whole numbers from 0 on.
    Integer,
    /// Numbers of 32 bits.
    Float,
    /// Strings.
    Text,
    /// Numbers of 32 bits, `width` of them; in CSV columns of their own, a letter and a number from 0 on.
    Vector {
        /// The letter.
        letter: char,
        /// How many.
        width: usize,
    },
    /// Lists of whole numbers.
    Integers,
    /// Lists of strings.
    Texts,
}

/// What one row has in a column.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Integer(u64),
    Float(f32),
    Text(&'a str),
    Vector(&'a [f32]),
    Integers(&'a [u32]),
    Texts(&'a [String]),
}

impl Column {
    /// A column `name` of `kind`.
    pub(crate) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }
}

impl From<u64> for Value<'_> {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Self::Integer(u64::from(value))
    }
}

impl From<usize> for Value<'_> {
    fn from(value: usize) -> Self {
        Self::Integer(value as u64)
    }
}

impl From<f32> for Value<'_> {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [f32]> for Value<'a> {
    fn from(value: &'a [f32]) -> Self {
        Self::Vector(value)
    }
}

impl<'a> From<&'a [u32]> for Value<'a> {
    fn from(value: &'a [u32]) -> Self {
        Self::Integers(value)
    }
}

impl<'a> From<&'a [String]> for Value<'a> {
    fn from(value: &'a [String]) -> Self {
        Self::Texts(value)
    }
}
