//! Operations as they are noted: one after the other, none has run.
//!
//! A recording begins with an operation without operands, and follows a [`Script`] as long as what is asked for is what
//! was asked for then: nothing is kept of an operation but that it was the next one. Noting and finding BERT-base's 87
//! operations takes 11 us with cold caches, where a node for each took 27: counts of weights alone are 75 lines of memory.
//!
//! No recording keeps another one. An operation on two of them goes on in the longer one, with a copy of what leads to its
//! operand in the shorter one, or with its values if they were computed. No model of ours has two, so that what such a
//! copy computes twice costs nobody.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mlxt_backend::{Segments, Shaped};

use crate::Device;
use crate::asked::Asked;
use crate::plan::{InputId, ValueId};
use crate::programs::Programs;
use crate::script::Script;

/// The most operands an operation has, and the most results.
pub(crate) const MOST: usize = 2;

/// What was noted, for all tensors that came of it.
pub(crate) struct Recording<D: Device> {
    state: Mutex<State<D>>,
}

pub(crate) struct State<D: Device> {
    noted: Noted<D>,
    /// What this run's inputs are, by number.
    pub(crate) given: Inputs<D::Buffer>,
    /// Of every result, by number.
    pub(crate) outcomes: Vec<Outcome<D::Buffer>>,
    /// Results of other recordings, and their numbers here.
    pub(crate) copies: Vec<(Weak<Recording<D>>, ValueId, ValueId)>,
}

/// The steps so far.
enum Noted<D: Device> {
    /// The first ones of a script.
    Known(Arc<Script<D>>, usize),
    /// Steps that nobody asked for before.
    Own(Script<D>),
}

/// What is known of one result.
pub(crate) struct Outcome<T> {
    /// Whether there is a [`Tensor`] of it.
    pub(crate) held: bool,
    /// The values, once it was computed as an output.
    pub(crate) buffer: Option<Arc<T>>,
}

/// What operations were given from outside.
pub(crate) struct Inputs<T>(pub(crate) Vec<Given<T>>);

/// One of them.
pub(crate) enum Given<T> {
    Ids(Vec<u32>),
    Segments(Segments),
    /// Values and their columns.
    Values(Vec<f32>, usize),
    /// A result of another recording.
    Computed {
        buffer: Arc<T>,
        rows: usize,
        cols: usize,
    },
}

impl<T> Inputs<T> {
    /// The number of an input. The same batch is the same input.
    pub(crate) fn add(&mut self, given: Given<T>) -> InputId {
        if let Given::Segments(segments) = &given {
            return self.segments(segments);
        }
        self.0.push(given);
        InputId(self.0.len() - 1)
    }

    pub(crate) fn ids(&mut self, ids: &[u32]) -> InputId {
        self.add(Given::Ids(ids.to_vec()))
    }

    pub(crate) fn segments(&mut self, segments: &Segments) -> InputId {
        let place = segments.offsets().as_ptr();
        let same = |given: &Given<T>| matches!(given, Given::Segments(known) if known.offsets().as_ptr() == place);
        let known = self.0.iter().rposition(same);
        InputId(known.unwrap_or_else(|| {
            self.0.push(Given::Segments(segments.clone()));
            self.0.len() - 1
        }))
    }
}

impl<T> Clone for Given<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Ids(ids) => Self::Ids(ids.clone()),
            Self::Segments(segments) => Self::Segments(segments.clone()),
            Self::Values(values, cols) => Self::Values(values.clone(), *cols),
            Self::Computed { buffer, rows, cols } => {
                Self::Computed { buffer: Arc::clone(buffer), rows: *rows, cols: *cols }
            }
        }
    }
}

impl<D: Device> Recording<D> {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { noted: Noted::Own(Script::new()), given: Inputs(vec![]), outcomes: vec![], copies: vec![] };
        Arc::new(Self { state: Mutex::new(state) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Device> State<D> {
    /// The steps so far are its first ones.
    pub(crate) fn script(&self) -> &Script<D> {
        match &self.noted {
            Noted::Known(script, _) => script,
            Noted::Own(script) => script,
        }
    }

    /// How many steps were noted.
    pub(crate) fn steps(&self) -> usize {
        match &self.noted {
            Noted::Known(_, steps) => *steps,
            Noted::Own(script) => script.steps.len(),
        }
    }

    /// The script, for others to follow: `known` tells whether there is one already.
    pub(crate) fn publish(&mut self, known: impl FnOnce(&Script<D>) -> Option<Arc<Script<D>>>) -> Arc<Script<D>> {
        let (script, steps) = match std::mem::replace(&mut self.noted, Noted::Own(Script::new())) {
            Noted::Known(script, steps) => (script, steps),
            Noted::Own(own) => {
                let steps = own.steps.len();
                (known(&own).unwrap_or_else(|| Arc::new(own)), steps)
            }
        };
        self.noted = Noted::Known(Arc::clone(&script), steps);
        script
    }

    pub(crate) fn is_computed(&self, value: ValueId) -> bool {
        self.outcomes[value.0].buffer.is_some()
    }

    /// The number here of another recording's tensor, if there is a copy of it.
    pub(crate) fn copied(&self, x: &Tensor<D>) -> Option<ValueId> {
        let from = Arc::as_ptr(&x.recording);
        let copy = self.copies.iter().find(|(recording, value, _)| recording.as_ptr() == from && *value == x.value);
        copy.map(|&(_, _, number)| number)
    }

    /// Notes an operation whose operands and inputs are of this recording; gives its first result.
    pub(crate) fn note(
        &mut self,
        programs: &Programs<D>,
        asked: &Asked<'_, D>,
        cols: usize,
        (results, held): (usize, bool),
    ) -> ValueId {
        match &mut self.noted {
            Noted::Known(script, steps) if script.has(*steps, asked, cols) => *steps += 1,
            Noted::Own(script) if !script.steps.is_empty() => {
                script.push(asked.kept(), cols);
            }
            _ => self.turn(programs, asked, cols),
        }
        let result = ValueId(self.outcomes.len());
        self.outcomes.extend((0..results).map(|_| Outcome { held, buffer: None }));
        result
    }

    /// Follows another script, or none.
    fn turn(&mut self, programs: &Programs<D>, asked: &Asked<'_, D>, cols: usize) {
        let (script, steps) = (self.script(), self.steps());
        if let Some(other) = programs.continued(script, steps, asked, cols) {
            self.outcomes.reserve(other.sizes.len() - self.outcomes.len());
            self.noted = Noted::Known(other, steps + 1);
        } else {
            let mut own = script.beginning(steps);
            own.push(asked.kept(), cols);
            self.noted = Noted::Own(own);
        }
    }
}

/// Activations that may still have to be computed, `[rows, cols]`.
pub struct Tensor<D: Device> {
    pub(crate) recording: Arc<Recording<D>>,
    pub(crate) value: ValueId,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl<D: Device> Drop for Tensor<D> {
    fn drop(&mut self) {
        self.recording.lock().outcomes[self.value.0].held = false;
    }
}

impl<D: Device> Shaped for Tensor<D> {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
}
