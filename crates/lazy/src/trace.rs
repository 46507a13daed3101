//! From a value that somebody wants back to everything that has to run for it.
//!
//! Mostly that has run before, with other ids: a trace is compared with the plans there are, and becomes a plan of its own
//! only if it is none of them. It refers to nodes and keeps none.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::Device;
use crate::device::Input;
use crate::node::{Given, MOST, Node, Operand, Outcome};
use crate::plan::{InputId, InputKind, Operation, Plan, Rows, Step, Value, ValueId};

/// Room to begin with: enough for 24 layers of eight operations.
const STEPS: usize = 224;

/// What has to run, in an order in which it can.
pub(crate) struct Trace<'a, D: Device> {
    device: &'a D,
    visits: Vec<Visit<'a, D>>,
    kinds: Vec<InputKind>,
    values: Vec<Value>,
    results: Vec<ValueId>,
    /// The number of each result, by where its outcome is.
    numbers: Numbers<ValueId>,
    /// The number of each input from the host, by [`Given::address`].
    given: Numbers<InputId>,
    /// What this run gives the plan's inputs.
    pub(crate) inputs: Vec<Input<'a, D::Buffer>>,
    /// Where the plan's outputs go.
    pub(crate) outputs: Vec<&'a Outcome<D::Buffer>>,
}

/// A step of the plan to be.
struct Visit<'a, D: Device> {
    what: What<'a, D>,
    result: ValueId,
}

enum What<'a, D: Device> {
    /// A result of an earlier plan.
    Earlier(InputId),
    /// What is computed, and the numbers of its operands.
    Computed(&'a Node<D>, [ValueId; MOST]),
}

impl<'a, D: Device> Trace<'a, D> {
    /// What has to run for `wanted`. Values that others still hold become outputs too: they would be computed again
    /// otherwise.
    pub(crate) fn new(device: &'a D, wanted: &'a Operand<D>) -> Self {
        let mut trace = Self {
            device,
            visits: Vec::with_capacity(STEPS),
            kinds: vec![],
            values: Vec::with_capacity(STEPS),
            results: vec![],
            numbers: Numbers::with_capacity_and_hasher(STEPS, BuildHasherDefault::default()),
            given: Numbers::default(),
            inputs: vec![],
            outputs: vec![],
        };
        trace.order(wanted);
        trace
    }

    /// Whether this is a run of that plan.
    pub(crate) fn is(&self, plan: &Plan<D>) -> bool {
        let same = |(visit, step): (&Visit<'_, D>, &Step<D>)| {
            visit.result == step.result
                && match (&visit.what, &step.operation) {
                    (What::Earlier(input), Operation::Input(other)) => input == other,
                    (What::Earlier(_), _) => false,
                    (What::Computed(node, operands), other) => {
                        node.operation.is(other, |&place| operands[place], |given| self.given[&given.address()])
                    }
                }
        };
        self.visits.len() == plan.steps.len()
            && self.kinds == plan.inputs
            && self.results == plan.outputs
            && self.values == plan.values
            && self.visits.iter().zip(&plan.steps).all(same)
    }

    /// As a plan of its own.
    pub(crate) fn plan(&self) -> Plan<D> {
        let step = |&Visit { ref what, result }: &Visit<'_, D>| {
            let operation = match what {
                What::Earlier(input) => Operation::Input(*input),
                What::Computed(node, operands) => {
                    node.operation.map(|&place| operands[place], |given| self.given[&given.address()])
                }
            };
            Step { operation, result }
        };
        Plan {
            inputs: self.kinds.clone(),
            steps: self.visits.iter().map(step).collect(),
            values: self.values.clone(),
            outputs: self.results.clone(),
        }
    }

    /// Operands before what is computed from them, with a stack of its own.
    fn order(&mut self, wanted: &'a Operand<D>) {
        let mut stack = vec![(wanted, false)];
        while let Some((operand, operands_done)) = stack.pop() {
            if operands_done {
                self.computed(&operand.node);
                continue;
            }
            let outcome = operand.outcome();
            if self.numbers.contains_key(&address(outcome)) {
                continue;
            }
            if let Some(buffer) = outcome.buffer.get() {
                self.earlier(operand, buffer);
            } else {
                stack.push((operand, true));
                stack.extend(operand.node.operands.iter().rev().flatten().map(|operand| (operand, false)));
            }
        }
    }

    fn earlier(&mut self, operand: &'a Operand<D>, buffer: &'a D::Buffer) {
        let Node { rows, cols, .. } = *operand.node;
        let room = self.device.room(rows);
        let input = self.input(InputKind::Buffer { room, cols }, Input::Buffer(buffer, rows));
        let result = self.value(operand.outcome(), Value { rows: Rows::Of(input), room, cols });
        self.visits.push(Visit { what: What::Earlier(input), result });
    }

    fn computed(&mut self, node: &'a Node<D>) {
        let number = |operand: &Option<Operand<D>>| {
            operand.as_ref().map_or(ValueId(0), |operand| self.numbers[&address(operand.outcome())])
        };
        let operands = [number(&node.operands[0]), number(&node.operands[1])];
        let value = Value { rows: self.rows(node, operands), room: self.device.room(node.rows), cols: node.cols };
        let result = ValueId(self.values.len());
        for outcome in node.outcomes() {
            let id = self.value(outcome, value);
            // One that is held from an earlier run is computed again, beside what this run is asked for.
            if outcome.is_wanted() {
                self.results.push(id);
                self.outputs.push(outcome);
            }
        }
        self.visits.push(Visit { what: What::Computed(node, operands), result });
    }

    /// Which number of a run says how many rows of the result are real. Numbers the inputs of the operation.
    fn rows(&mut self, node: &'a Node<D>, operands: [ValueId; MOST]) -> Rows {
        match &node.operation {
            Operation::Input(given) | Operation::TakeRows { indices: given, .. } => Rows::Of(self.given(given)),
            Operation::Embed(lookups) => {
                let mut first = None;
                for (_, ids) in lookups {
                    let ids = self.given(ids);
                    first.get_or_insert(ids);
                }
                Rows::Of(first.unwrap_or(InputId(0)))
            }
            Operation::ReduceRows { layout, .. } => Rows::SequencesOf(self.given(layout)),
            Operation::Rotate { qkv: x, layout, .. } | Operation::Attention { qkv: x, layout, .. } => {
                self.given(layout);
                self.values[operands[*x].0].rows
            }
            Operation::Linear { x, .. }
            | Operation::Gate { x, .. }
            | Operation::Norm { x, .. }
            | Operation::AddNorm { x, .. } => self.values[operands[*x].0].rows,
        }
    }

    /// The next value. A result that has a number keeps it.
    fn value(&mut self, outcome: &Outcome<D::Buffer>, value: Value) -> ValueId {
        let id = ValueId(self.values.len());
        self.values.push(value);
        self.numbers.entry(address(outcome)).or_insert(id);
        id
    }

    fn given(&mut self, given: &'a Given) -> InputId {
        if let Some(&id) = self.given.get(&given.address()) {
            return id;
        }
        let id = self.input(given.kind(self.device), given.input());
        self.given.insert(given.address(), id);
        id
    }

    fn input(&mut self, kind: InputKind, input: Input<'a, D::Buffer>) -> InputId {
        let id = InputId(self.kinds.len());
        self.kinds.push(kind);
        self.inputs.push(input);
        id
    }
}

fn address<T>(outcome: &Outcome<T>) -> usize {
    std::ptr::from_ref(outcome).addr()
}

/// Numbers by addresses of things that stay where they are.
type Numbers<V> = HashMap<usize, V, BuildHasherDefault<Address>>;

/// A hash of one address. Nobody outside chooses them, so one multiplication is good enough.
#[derive(Default)]
struct Address(u64);

impl Hasher for Address {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_usize(byte.into());
        }
    }

    fn write_usize(&mut self, address: usize) {
        // The golden ratio's bits; the upper half of the product depends on all of the address.
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
