//! The table: every operation on sizes with tails, along every axis, with ties, repeated targets and far values.

use std::fmt;

use super::{HostArray, Operation};
use crate::Result;
use crate::conformance::{Tolerance, random::Random};

/// How a case's values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draw {
    /// Standard normal; probabilities uniform in 0..1, indices uniform.
    Normal,
    /// Whole numbers from -2 to 2: many are equal.
    Ties,
    /// Normal, a hundred times as far out: a careless exponential overflows.
    Far,
    /// Probabilities of 0, 1 and next to them.
    Certain,
}

/// An operation and the operands it runs on.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What runs.
    pub operation: Operation,
    shapes: Vec<Vec<usize>>,
    draw: Draw,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?}, {:?}", self.operation, self.shapes, self.draw)
    }
}

impl Case {
    /// The operands, the same on every machine.
    ///
    /// # Errors
    /// None for a case of the table.
    pub fn inputs(&self) -> Result<Vec<HostArray>> {
        let random = &mut Random::new(self.to_string().bytes().fold(7, |h, b| h * 31 % 1_000_003 + u64::from(b)));
        let limit = self.shapes[0][0];
        let input = |(i, shape): (usize, &Vec<usize>)| {
            let len: usize = shape.iter().product();
            let index = |random: &mut Random| random.below(limit) as i32;
            match (&self.operation, i) {
                (Operation::Gather | Operation::Embedding, 1)
                | (Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax, 1 | 2) => {
                    HostArray::i32(shape, (0..len).map(|_| index(random)).collect())
                }
                (Operation::SelfAttention, 3) => {
                    let length = |_| 1 + random.below(self.shapes[0][2]) as i32;
                    HostArray::i32(shape, (0..len).map(length).collect())
                }
                (Operation::RaggedAttention(_) | Operation::MeanPoolNormalize, 1) => {
                    // One row for each sequence, and what is left for the middle one.
                    let mut lengths = vec![1; len];
                    lengths[len / 2] += (limit - len) as i32;
                    HostArray::i32(shape, lengths)
                }
                (Operation::Bce, i) => HostArray::f32(shape, (0..len).map(|_| self.probability(random, i)).collect()),
                _ => HostArray::f32(shape, (0..len).map(|_| self.value(random)).collect()),
            }
        };
        self.shapes.iter().enumerate().map(input).collect()
    }

    fn value(&self, random: &mut Random) -> f32 {
        match self.draw {
            Draw::Normal | Draw::Certain => random.normal(),
            Draw::Ties => random.below(5) as f32 - 2.0,
            Draw::Far => 100.0 * random.normal(),
        }
    }

    fn probability(&self, random: &mut Random, input: usize) -> f32 {
        const CERTAIN: [f32; 6] = [0.0, 1.0, 1e-40, 1e-30, 1.0 - 6e-8, 0.5];
        match (input, self.draw) {
            (0, Draw::Certain) => CERTAIN[random.below(CERTAIN.len())],
            (0, _) => (random.bits() >> 40) as f32 / (1_u32 << 24) as f32,
            _ => random.below(2) as f32,
        }
    }

    /// How far a result may lie from the reference. A sum of n terms of size 1 grows to `√n`, and adding them one by one
    /// rounds n times by up to 3e-8 of that: at random, and four deviations out, `n · 1.2e-7` in all. Sums in several
    /// parts, as most fast ones are, round less.
    #[must_use]
    pub fn tolerance(&self) -> Tolerance {
        let of = |absolute, relative| Tolerance { absolute, relative };
        let terms = |n: usize| of(1e-6 + 1.2e-7 * n as f64, 2e-6);
        let dim = |input: usize, from_end: usize| self.shapes[input].iter().rev().nth(from_end).copied().unwrap_or(1);
        let all = |input: usize| self.shapes[input].iter().product();
        match self.operation {
            Operation::Argmax(_)
            | Operation::Concat(_)
            | Operation::Gather
            | Operation::Embedding
            | Operation::Scatter
            | Operation::ScatterMax
            | Operation::Relu
            | Operation::Sort(_)
            | Operation::HostToDevice
            | Operation::DeviceToHost => of(0.0, 0.0),
            Operation::LeakyRelu
            | Operation::Prelu
            | Operation::Selu
            | Operation::Sigmoid
            | Operation::Softplus
            | Operation::Gelu
            | Operation::GeluTanh => of(1e-6, 1e-6),
            Operation::Softmax(_) | Operation::Bce => of(1e-6, 4e-6),
            Operation::LayerNorm | Operation::AddLayerNorm | Operation::RmsNorm | Operation::MeanPoolNormalize => {
                of(4e-6, 2e-6)
            }
            // Angles of up to 100 radians, in f32.
            Operation::Rope => of(2e-5, 2e-6),
            Operation::ScaledDotProductAttention | Operation::SelfAttention | Operation::RaggedAttention(_) => {
                of(1e-5, 2e-6)
            }
            Operation::Sum(axis) => {
                let from_start = self.shapes[0].get(usize::try_from(axis).unwrap_or(usize::MAX));
                terms(from_start.copied().unwrap_or(dim(0, 0)))
            }
            Operation::SumAll => terms(all(0)),
            Operation::ScatterSum => terms(1 + all(1) / self.shapes[0][0]),
            Operation::Conv1d | Operation::Conv2d => terms(all(1) / self.shapes[1][0]),
            Operation::MatMul | Operation::Linear | Operation::PackedQkv | Operation::LinearGelu => terms(dim(0, 0)),
            // 127 and 7 steps on each side, over about 4 and 2.5 deviations.
            Operation::LinearInt8 => of(3e-2 * (dim(0, 0) as f64).sqrt(), 2e-2),
            Operation::LinearQ4 => of(6e-1 * (dim(0, 0) as f64).sqrt(), 1e-1),
        }
    }
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut table = Table(Vec::new());
    elementwise(&mut table);
    along_axes(&mut table);
    rows(&mut table);
    products(&mut table);
    attention(&mut table);
    table.0
}

struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, operation: Operation, shapes: &[&[usize]]) {
        self.draw(operation, shapes, Draw::Normal);
    }

    fn draw(&mut self, operation: Operation, shapes: &[&[usize]], draw: Draw) {
        self.0.push(Case { operation, shapes: shapes.iter().map(|s| s.to_vec()).collect(), draw });
    }
}

fn elementwise(t: &mut Table) {
    let maps = [
        Operation::LeakyRelu,
        Operation::Relu,
        Operation::Selu,
        Operation::Sigmoid,
        Operation::Softplus,
        Operation::Gelu,
        Operation::GeluTanh,
        Operation::HostToDevice,
        Operation::DeviceToHost,
    ];
    for operation in maps {
        for len in [1, 3, 16, 33, 70_001] {
            t.add(operation, &[&[len]]);
        }
        t.draw(operation, &[&[7, 11, 13]], Draw::Far);
    }
    for len in [1, 5, 31, 70_001] {
        t.add(Operation::Prelu, &[&[len], &[1]]);
        t.add(Operation::Bce, &[&[len], &[len]]);
        t.add(Operation::SumAll, &[&[len]]);
    }
    t.draw(Operation::Bce, &[&[41, 3], &[41, 3]], Draw::Certain);
    t.add(Operation::SumAll, &[&[3, 5, 70_001]]);
}

fn along_axes(t: &mut Table) {
    let shapes: [&[usize]; 7] =
        [&[1, 1, 1], &[5, 7, 3], &[3, 20, 33], &[2, 64, 128], &[17, 1, 64], &[4, 3, 1025], &[6, 130, 8]];
    for shape in shapes {
        for axis in 0..3 {
            for operation in
                [Operation::Argmax(axis), Operation::Sum(axis), Operation::Softmax(axis), Operation::Sort(axis)]
            {
                t.add(operation, &[shape]);
            }
            for operation in [Operation::Argmax(axis), Operation::Sort(axis)] {
                t.draw(operation, &[shape], Draw::Ties);
            }
            t.draw(Operation::Softmax(axis), &[shape], Draw::Far);
        }
    }
    for operation in [Operation::Argmax(-1), Operation::Sum(-1), Operation::Softmax(-1), Operation::Sort(-1)] {
        for len in (1..=9).chain([15, 16, 17, 31, 33, 63, 65, 1000, 5000]) {
            t.add(operation, &[&[3, len]]);
        }
        t.add(operation, &[&[70_001]]);
    }
    for cols in [1, 8, 17, 64] {
        t.add(Operation::Softmax(-1), &[&[1003, cols]]);
    }
    for (a, b, axis) in [(1, 1, 0), (3, 5, 0), (4, 2, 1), (1, 9, 2), (64, 32, 2), (5, 7, -1)] {
        let mut shapes = [[6, 5, 17]; 2];
        let at = usize::try_from(axis).unwrap_or(2);
        (shapes[0][at], shapes[1][at]) = (a, b);
        t.add(Operation::Concat(axis), &[&shapes[0], &shapes[1]]);
    }
}

fn rows(t: &mut Table) {
    for cols in [1, 3, 16, 32, 37, 256] {
        for (rows, count) in [(1, 1), (64, 10), (9, 1000), (300, 77), (40, 9000)] {
            for operation in [Operation::Gather, Operation::Embedding] {
                t.add(operation, &[&[rows, cols], &[count]]);
            }
            for operation in [Operation::Scatter, Operation::ScatterSum, Operation::ScatterMax] {
                t.add(operation, &[&[rows, cols], &[count], &[count]]);
            }
        }
    }
    for cols in [1, 2, 7, 16, 33, 384, 1000] {
        t.add(Operation::LayerNorm, &[&[3, 3, cols]]);
        t.add(Operation::AddLayerNorm, &[&[9, cols], &[9, cols], &[cols], &[cols]]);
        t.add(Operation::RmsNorm, &[&[9, cols], &[cols]]);
        t.add(Operation::MeanPoolNormalize, &[&[90, cols], &[4]]);
    }
    t.add(Operation::MeanPoolNormalize, &[&[1, 5], &[1]]);
    for (length, size) in [(1, 2), (9, 6), (100, 64)] {
        t.add(Operation::Rope, &[&[2, 3, length, size]]);
    }
}

fn products(t: &mut Table) {
    // Rows, terms and columns around the register tiles and vectors of kernels; single ones; long sums.
    for (rows, inner, cols) in [
        (1, 1, 1),
        (1, 9, 5),
        (5, 1, 9),
        (17, 33, 70),
        (14, 64, 32),
        (31, 40, 65),
        (2, 300, 129),
        (100, 20, 17),
        (1, 1000, 128),
        (3, 2000, 1),
        (40, 3000, 31),
        (64, 9000, 32),
        (600, 64, 64),
    ] {
        t.add(Operation::MatMul, &[&[rows, inner], &[inner, cols]]);
        t.add(Operation::MatMul, &[&[3, rows, inner], &[3, inner, cols]]);
        t.add(Operation::MatMul, &[&[2, 2, rows, inner], &[inner, cols]]);
        for operation in [Operation::Linear, Operation::LinearGelu, Operation::PackedQkv] {
            t.add(operation, &[&[2, rows, inner], &[inner, cols], &[cols]]);
        }
    }
    for operation in [Operation::LinearInt8, Operation::LinearQ4] {
        t.add(operation, &[&[5, 128], &[128, 70], &[70]]);
    }
    t.add(Operation::Linear, &[&[40], &[40, 3], &[3]]);
    for (length, channels, window, outputs) in
        [(1, 1, 1, 1), (9, 3, 9, 2), (40, 3, 3, 8), (50, 16, 3, 8), (70, 20, 11, 128), (33, 1, 2, 17), (300, 5, 1, 31)]
    {
        t.add(Operation::Conv1d, &[&[3, length, channels], &[outputs, window, channels]]);
        let (x, w) = ([2, 7, length, channels], [outputs, 2.min(window), window, channels]);
        t.add(Operation::Conv2d, &[&x, &w]);
    }
    t.add(Operation::Conv2d, &[&[2, 9, 8, 3], &[4, 9, 8, 3]]);
}

fn attention(t: &mut Table) {
    for (queries, keys, size) in [(1, 1, 1), (16, 16, 40), (16, 64, 33), (9, 4, 64), (70, 70, 16), (5, 130, 8)] {
        let (q, k) = ([2, 3, queries, size], [2, 3, keys, size]);
        t.add(Operation::ScaledDotProductAttention, &[&q, &k, &k]);
        t.add(Operation::SelfAttention, &[&q, &q, &q, &[2]]);
        t.add(Operation::RaggedAttention(3), &[&[queries + 2, 9 * size], &[2]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_in_the_table_once_each_way() {
        let all = cases();
        for operation in Operation::ALL {
            assert!(all.iter().any(|c| c.operation.name() == operation.name()), "{operation}");
        }
        let mut names: Vec<String> = all.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len(), "a case stands in the table twice");
    }
}
