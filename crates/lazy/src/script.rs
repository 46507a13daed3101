//! What was asked for, step by step, whatever the number of rows. A model asks for the same with every batch.

use std::ops::Range;

use crate::Device;
use crate::asked::Asked;
use crate::plan::{Operation, Rows, Step, ValueId};

/// Steps in the order in which they were noted, and the sizes of their results.
pub(crate) struct Script<D: Device> {
    pub(crate) steps: Vec<Step<D>>,
    /// By number.
    pub(crate) sizes: Vec<Size>,
}

/// The size of a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: Rows,
    pub(crate) cols: usize,
}

impl<D: Device> Script<D> {
    pub(crate) fn new() -> Self {
        Self { steps: vec![], sizes: vec![] }
    }

    /// Adds a step; gives its first result.
    pub(crate) fn push(&mut self, operation: Operation<D>, cols: usize) -> ValueId {
        let result = ValueId(self.sizes.len());
        let size = Size { rows: operation.rows(|x| self.sizes[x.0].rows), cols };
        self.sizes.extend(std::iter::repeat_n(size, operation.results()));
        self.steps.push(Step { operation, result });
        result
    }

    /// Whether what is asked for is that step.
    pub(crate) fn has(&self, step: usize, asked: &Asked<'_, D>, cols: usize) -> bool {
        let same = |step: &Step<D>| self.sizes[step.result.0].cols == cols && asked.is(&step.operation);
        self.steps.get(step).is_some_and(same)
    }

    /// Whether it begins with the first steps of another one.
    pub(crate) fn begins_with(&self, other: &Self, steps: usize) -> bool {
        let mut others = other.steps[..steps].iter().enumerate();
        others.all(|(i, step)| self.has(i, &asked(step), other.sizes[step.result.0].cols))
    }

    /// Its first steps.
    pub(crate) fn beginning(&self, steps: usize) -> Self {
        let mut beginning = Self::new();
        for step in &self.steps[..steps] {
            beginning.push(asked(step).kept(), self.sizes[step.result.0].cols);
        }
        beginning
    }
}

impl<D: Device> Step<D> {
    /// The numbers of its results.
    pub(crate) fn results(&self) -> Range<usize> {
        self.result.0..self.result.0 + self.operation.results()
    }
}

fn asked<D: Device>(step: &Step<D>) -> Asked<'_, D> {
    Asked::again(&step.operation, |value| value, |input| input)
}
