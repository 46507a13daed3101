//! From a value that somebody wants back to everything that has to run for it, as a plan.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Device;
use crate::device::Input;
use crate::node::{Given, Node, Operand};
use crate::plan::{InputId, InputKind, Operation, Plan, Rows, Step, Value, ValueId};

/// What one run gives a plan's inputs, and whose values its outputs are.
pub(crate) struct Trace<D: Device> {
    sources: Vec<Source<D>>,
    pub(crate) outputs: Vec<Operand<D>>,
}

/// Where an input comes from.
enum Source<D: Device> {
    Host(Arc<Given>),
    Earlier(Operand<D>, Arc<D::Buffer>),
}

impl<D: Device> Trace<D> {
    /// What has to run for `wanted`. Values that others still hold become outputs too: they would be computed again
    /// otherwise.
    pub(crate) fn new(device: &D, wanted: &Operand<D>) -> (Plan<D>, Self) {
        let mut tracer = Tracer {
            device,
            plan: Plan { inputs: vec![], steps: vec![], values: vec![], outputs: vec![] },
            trace: Self { sources: vec![], outputs: vec![] },
            values: HashMap::new(),
            inputs: HashMap::new(),
        };
        tracer.order(wanted);
        (tracer.plan, tracer.trace)
    }

    pub(crate) fn inputs(&self) -> Vec<Input<'_, D::Buffer>> {
        self.sources.iter().map(Source::input).collect()
    }
}

impl<D: Device> Source<D> {
    fn input(&self) -> Input<'_, D::Buffer> {
        match self {
            Self::Host(given) => given.input(),
            Self::Earlier(operand, buffer) => Input::Buffer(buffer, operand.node.rows),
        }
    }
}

struct Tracer<'a, D: Device> {
    device: &'a D,
    plan: Plan<D>,
    trace: Trace<D>,
    /// The number of each result, by its node and its place among the node's results.
    values: HashMap<(*const Node<D>, usize), ValueId>,
    /// The number of each input from the host.
    inputs: HashMap<*const Given, InputId>,
}

impl<D: Device> Tracer<'_, D> {
    /// Operands before what is computed from them, with a stack of its own.
    fn order(&mut self, wanted: &Operand<D>) {
        let mut stack = vec![(wanted.clone(), false)];
        while let Some((operand, operands_done)) = stack.pop() {
            if self.values.contains_key(&key(&operand)) {
                continue;
            }
            if let Some(buffer) = operand.outcome().buffer.get() {
                self.earlier(&operand, buffer);
            } else if operands_done {
                self.step(&operand.node);
            } else {
                let operands = operand.node.operands.clone();
                stack.push((operand, true));
                stack.extend(operands.into_iter().rev().map(|operand| (operand, false)));
            }
        }
    }

    fn earlier(&mut self, operand: &Operand<D>, buffer: &Arc<D::Buffer>) {
        let Node { rows, cols, .. } = *operand.node;
        let room = self.device.room(rows);
        let input = self.input(InputKind::Buffer { room, cols }, Source::Earlier(operand.clone(), Arc::clone(buffer)));
        let result = self.value(operand, Value { rows: Rows::Of(input), room, cols });
        self.plan.steps.push(Step { operation: Operation::Input(input), result });
    }

    fn step(&mut self, node: &Arc<Node<D>>) {
        let operands: Vec<ValueId> = node.operands.iter().map(|operand| self.values[&key(operand)]).collect();
        let operation = node.operation.map(|&place| operands[place], |given| self.given(given));
        let value = Value { rows: self.rows(&operation), room: self.device.room(node.rows), cols: node.cols };
        let first = ValueId(self.plan.values.len());
        for result in 0..node.results.len() {
            let operand = Operand { node: Arc::clone(node), result };
            if operand.outcome().buffer.get().is_some() {
                // Held from an earlier run and not needed by it: this one computes it again, beside what it is asked for.
                self.plan.values.push(value);
                continue;
            }
            let id = self.value(&operand, value);
            if operand.outcome().is_wanted() {
                self.plan.outputs.push(id);
                self.trace.outputs.push(operand);
            }
        }
        self.plan.steps.push(Step { operation, result: first });
    }

    fn rows(&self, operation: &Operation<D>) -> Rows {
        match operation {
            Operation::Input(input) | Operation::TakeRows { indices: input, .. } => Rows::Of(*input),
            Operation::Embed(lookups) => Rows::Of(lookups.first().map_or(InputId(0), |&(_, ids)| ids)),
            Operation::ReduceRows { layout, .. } => Rows::SequencesOf(*layout),
            Operation::Linear { x, .. }
            | Operation::Gate { x, .. }
            | Operation::Norm { x, .. }
            | Operation::AddNorm { x, .. }
            | Operation::Rotate { qkv: x, .. }
            | Operation::Attention { qkv: x, .. } => self.plan.values[x.0].rows,
        }
    }

    fn value(&mut self, operand: &Operand<D>, value: Value) -> ValueId {
        let id = ValueId(self.plan.values.len());
        self.plan.values.push(value);
        self.values.insert(key(operand), id);
        id
    }

    fn given(&mut self, given: &Arc<Given>) -> InputId {
        if let Some(&id) = self.inputs.get(&Arc::as_ptr(given)) {
            return id;
        }
        let id = self.input(given.kind(self.device), Source::Host(Arc::clone(given)));
        self.inputs.insert(Arc::as_ptr(given), id);
        id
    }

    fn input(&mut self, kind: InputKind, source: Source<D>) -> InputId {
        let id = InputId(self.plan.inputs.len());
        self.plan.inputs.push(kind);
        self.trace.sources.push(source);
        id
    }
}

fn key<D: Device>(operand: &Operand<D>) -> (*const Node<D>, usize) {
    (Arc::as_ptr(&operand.node), operand.result)
}
