//! The study's cases of operations, with operands to time them on: what the backends' timing examples share. No values are
//! checked on these; the contract's own table has smaller cases, which are.

use mlxt_backend::Result;
use mlxt_backend::operations::{HostArray, Operation, Settings};
use serde_json::Value;

const CASES: &str = include_str!("../../../../study/operations.json");

/// An operation and the sizes it is timed on.
pub(crate) struct Case {
    pub(crate) operation: Operation,
    pub(crate) dims: Vec<Vec<usize>>,
}

/// The cases of a set: `published`, `encoder`.
pub(crate) fn cases(set: &str) -> Vec<Case> {
    let table: Value = serde_json::from_str(CASES).unwrap_or_default();
    let all = table["cases"].as_array().into_iter().flatten().filter(|c| c["set"] == set);
    let case = |c: &Value| {
        let heads = c["settings"]["heads"].as_u64().map(|h| h as usize);
        let operation = Operation::new(c["operation"].as_str()?, Settings { axis: c["axis"].as_i64(), heads }).ok()?;
        Some(Case { operation, dims: serde_json::from_value(c["dims"].clone()).ok()? })
    };
    all.filter_map(case).collect()
}

impl Case {
    /// The operation and its sizes.
    pub(crate) fn name(&self) -> String {
        format!("{} {:?}", self.operation, self.dims)
    }

    /// Operands: what a list of edges stands for are two.
    pub(crate) fn inputs(&self) -> Result<Vec<HostArray>> {
        let mut state = 1_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 40
        };
        let first = &self.dims[0];
        let mut shapes = self.dims.clone();
        if matches!(self.operation, Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax) {
            shapes.push(shapes[1].clone());
        }
        let mut input = |(i, shape): (usize, &Vec<usize>)| {
            let len: usize = shape.iter().product();
            match (self.operation, i) {
                (Operation::Gather | Operation::Embedding, 1)
                | (Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax, 1 | 2) => {
                    HostArray::i32(shape, (0..len).map(|_| (next() % first[0] as u64) as i32).collect())
                }
                (Operation::RaggedAttention(_) | Operation::MeanPoolNormalize, 1) => {
                    HostArray::i32(shape, vec![(first[0] / len) as i32; len])
                }
                (Operation::SelfAttention, 3) => HostArray::i32(shape, vec![first[2] as i32; len]),
                (Operation::Bce, 0) => {
                    HostArray::f32(shape, (0..len).map(|_| next() as f32 / (1 << 24) as f32).collect())
                }
                (Operation::Bce, 1) => HostArray::f32(shape, (0..len).map(|_| (next() & 1) as f32).collect()),
                // The sum of two: not flat, though not normal either.
                _ => {
                    let value = |_| (next() + next()) as f32 / (1 << 23) as f32 - 2.0;
                    HostArray::f32(shape, (0..len).map(value).collect())
                }
            }
        };
        shapes.iter().enumerate().map(&mut input).collect()
    }
}
