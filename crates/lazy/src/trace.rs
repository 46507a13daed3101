//! From a value that somebody wants back to everything that has to run for it.

use std::iter;
use std::sync::Arc;

use crate::Device;
use crate::asked::Asked;
use crate::device::Input;
use crate::plan::{InputId, InputKind, Operation, Plan, Rows, Value, ValueId};
use crate::programs::Programs;
use crate::recording::{Given, State, Tensor};
use crate::script::Script;

/// What a run has to do with a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing.
    Unneeded,
    /// It is computed on the way.
    Passing,
    /// It is computed, and kept: somebody holds it, and would ask for it to be computed again otherwise.
    Output,
    /// It was computed before.
    Earlier,
}

/// Where an input of a run comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feed {
    Given(InputId),
    /// A result that was computed before.
    Earlier(ValueId),
}

/// An input's sizes, rounded up: all that programs of the same steps differ in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) kind: InputKind,
    /// Room for a row of each sequence.
    sequences: usize,
}

/// The steps that have to run, by themselves.
pub(crate) struct Part<D: Device> {
    script: Script<D>,
    /// Its inputs.
    pub(crate) feeds: Vec<Feed>,
    /// Its number of each of the recording's results.
    numbers: Vec<ValueId>,
}

impl<D: Device> State<D> {
    /// What a run for `wanted` has to do with each result up to that.
    pub(crate) fn roles(&self, wanted: ValueId) -> Vec<Role> {
        let steps = &self.script().steps;
        let steps = &steps[..steps.partition_point(|step| step.result <= wanted)];
        let mut roles = vec![Role::Unneeded; steps.last().map_or(0, |step| step.results().end)];
        let needed = |value: ValueId| if self.is_computed(value) { Role::Earlier } else { Role::Passing };
        roles[wanted.0] = needed(wanted);
        for step in steps.iter().rev() {
            let results = step.results();
            if !roles[results.clone()].contains(&Role::Passing) {
                continue;
            }
            // A second result comes with the first. One that is there from an earlier run is computed again.
            for (role, outcome) in roles[results.clone()].iter_mut().zip(&self.outcomes[results]) {
                if *role != Role::Earlier {
                    let output = outcome.held && outcome.buffer.is_none();
                    *role = if output { Role::Output } else { Role::Passing };
                }
            }
            for operand in step.operation.operands() {
                if roles[operand.0] == Role::Unneeded {
                    roles[operand.0] = needed(operand);
                }
            }
        }
        roles
    }

    /// The steps that have to run.
    pub(crate) fn part(&self, roles: &[Role]) -> Part<D> {
        let (mut script, mut feeds) = (Script::new(), vec![]);
        let (mut numbers, mut inputs) = (vec![ValueId(0); roles.len()], vec![None; self.given.0.len()]);
        let mut feed = |feed| {
            feeds.push(feed);
            InputId(feeds.len() - 1)
        };
        for step in self.script().steps.iter().take_while(|step| step.result.0 < roles.len()) {
            let cols = self.script().sizes[step.result.0].cols;
            let earlier = |result: &usize| roles[*result] == Role::Earlier;
            for result in step.results().filter(earlier) {
                numbers[result] = script.push(Operation::Input(feed(Feed::Earlier(ValueId(result)))), cols);
            }
            if step.results().any(|result| matches!(roles[result], Role::Passing | Role::Output)) {
                let input = |id: InputId| *inputs[id.0].get_or_insert_with(|| feed(Feed::Given(id)));
                let first = script.push(Asked::again(&step.operation, |x| numbers[x.0], input).kept(), cols);
                let computed = step.results().zip(first.0..).filter(|(result, _)| !earlier(result));
                computed.for_each(|(result, number)| numbers[result] = ValueId(number));
            }
        }
        Part { script, feeds, numbers }
    }

    /// As a device is given them.
    pub(crate) fn plan(&self, device: &D, roles: &[Role], part: Part<D>) -> Plan<D> {
        let Part { script, feeds, numbers } = part;
        let room = |rows: Rows| match rows {
            Rows::Of(input) => device.room(self.rows(feeds[input.0])),
            Rows::SequencesOf(input) => self.room(device, feeds[input.0]).sequences,
        };
        Plan {
            inputs: feeds.iter().map(|&feed| self.room(device, feed).kind).collect(),
            values: script
                .sizes
                .iter()
                .map(|size| Value { rows: size.rows, room: room(size.rows), cols: size.cols })
                .collect(),
            steps: script.steps,
            outputs: outputs(roles).map(|output| numbers[output.0]).collect(),
        }
    }

    /// What a run gives an input.
    pub(crate) fn input(&self, feed: Feed) -> Option<Input<'_, D::Buffer>> {
        Some(match feed {
            Feed::Given(id) => match &self.given.0[id.0] {
                Given::Ids(ids) => Input::Ids(ids),
                Given::Segments(segments) => Input::Segments(segments),
                Given::Values(values, _) => Input::Values(values),
                Given::Computed { buffer, rows, .. } => Input::Buffer(buffer, *rows),
            },
            Feed::Earlier(value) => Input::Buffer(self.outcomes[value.0].buffer.as_ref()?, self.rows(feed)),
        })
    }

    pub(crate) fn room(&self, device: &D, feed: Feed) -> Room {
        let (room, mut sequences) = (device.room(self.rows(feed)), 0);
        let kind = match feed {
            Feed::Earlier(value) => InputKind::Buffer { room, cols: self.script().sizes[value.0].cols },
            Feed::Given(id) => match &self.given.0[id.0] {
                Given::Ids(_) => InputKind::Ids { room },
                Given::Segments(segments) => {
                    sequences = device.room(segments.count());
                    InputKind::Segments(device.segments_room(segments))
                }
                Given::Values(_, cols) => InputKind::Values { room, cols: *cols },
                Given::Computed { cols, .. } => InputKind::Buffer { room, cols: *cols },
            },
        };
        Room { kind, sequences }
    }

    fn rows(&self, feed: Feed) -> usize {
        let rows = match feed {
            Feed::Given(id) => Rows::Of(id),
            Feed::Earlier(value) => self.script().sizes[value.0].rows,
        };
        match rows {
            Rows::Of(id) => self.given.0[id.0].rows(),
            Rows::SequencesOf(id) => self.given.0[id.0].sequences(),
        }
    }

    /// What leads to a value, to be noted elsewhere.
    pub(crate) fn excerpt(&self, wanted: ValueId) -> Excerpt<D> {
        let roles = self.roles(wanted);
        let Part { script, feeds, numbers } = self.part(&roles);
        let given = feeds.iter().filter_map(|&feed| match feed {
            Feed::Given(id) => Some(self.given.0[id.0].clone()),
            Feed::Earlier(value) => {
                let buffer = Arc::clone(self.outcomes[value.0].buffer.as_ref()?);
                Some(Given::Computed { buffer, rows: self.rows(feed), cols: self.script().sizes[value.0].cols })
            }
        });
        Excerpt { given: given.collect(), script, wanted: numbers[wanted.0] }
    }

    /// Notes what another recording said of a tensor; gives its number here.
    pub(crate) fn append(&mut self, programs: &Programs<D>, x: &Tensor<D>, excerpt: Excerpt<D>) -> ValueId {
        let inputs: Vec<InputId> = excerpt.given.into_iter().map(|given| self.given.add(given)).collect();
        let mut numbers = Vec::with_capacity(excerpt.script.sizes.len());
        for step in &excerpt.script.steps {
            let asked = Asked::again(&step.operation, |x| numbers[x.0], |id| inputs[id.0]);
            let (results, cols) = (step.operation.results(), excerpt.script.sizes[step.result.0].cols);
            let first = self.note(programs, &asked, cols, (results, false));
            numbers.extend(iter::successors(Some(first), |last| Some(ValueId(last.0 + 1))).take(results));
        }
        let number = numbers[excerpt.wanted.0];
        self.copies.push((Arc::downgrade(&x.recording), x.value, number));
        number
    }
}

/// Steps that lead to a value, and what they were given.
pub(crate) struct Excerpt<D: Device> {
    script: Script<D>,
    given: Vec<Given<D::Buffer>>,
    wanted: ValueId,
}

impl<T> Given<T> {
    fn rows(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Segments(segments) => segments.rows(),
            Self::Values(values, cols) => values.len() / cols,
            Self::Computed { rows, .. } => *rows,
        }
    }

    /// None but of a batch.
    fn sequences(&self) -> usize {
        if let Self::Segments(segments) = self { segments.count() } else { 0 }
    }
}

/// Where a run's results go, in the order of its plan.
pub(crate) fn outputs(roles: &[Role]) -> impl Iterator<Item = ValueId> {
    roles.iter().enumerate().filter(|(_, role)| **role == Role::Output).map(|(value, _)| ValueId(value))
}
