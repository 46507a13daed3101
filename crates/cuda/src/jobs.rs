//! A plan's steps as what kernels do: embeddings are summed where they are normalised, and products may leave it to the
//! norm behind them to add up their parts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mlxt_backend::{Activation, Attention, Reduction, Rotation};
use mlxt_lazy::Plan;
use mlxt_lazy::plan::{InputId, Operation, ValueId};

use crate::CudaDevice;
use crate::gemm::{Size, Way};
use crate::operand::Operand;
use crate::weights::{Matrix, Norm, Relative, Table};

/// Work for one kernel, or for few.
pub(crate) enum Job {
    /// As [`Operation::Linear`].
    Linear {
        x: ValueId,
        w: Arc<Matrix>,
        activation: Activation,
        out: ValueId,
        /// Whether the only reader is a norm, which can add up parts of the sum.
        parts: bool,
        /// Whether that norm does nothing but that which a product can do with it.
        normed: bool,
    },
    /// A value's rows in 8 bits, for products that multiply such.
    Round { x: ValueId, operand: Operand, out: ValueId },
    /// Rows made, summed and normalised.
    Norm {
        source: Source,
        residual: Option<ValueId>,
        /// What was summed, where somebody wants it.
        sum: Option<ValueId>,
        normed: Option<(Arc<Norm>, ValueId)>,
        /// The same in 8 bits, as [`Job::Round`] makes it.
        rounded: Option<(Operand, ValueId)>,
    },
    /// As [`Operation::Gate`].
    Gate { x: ValueId, activation: Activation, out: ValueId },
    /// As [`Operation::Rotate`].
    Rotate { qkv: ValueId, layout: InputId, rotation: Rotation, out: ValueId },
    /// As [`Operation::Attention`].
    Attention { qkv: ValueId, layout: InputId, attention: Attention, relative: Option<Arc<Relative>>, out: ValueId },
    /// As [`Operation::TakeRows`].
    Take { x: ValueId, indices: InputId, out: ValueId },
    /// As [`Operation::ReduceRows`].
    Reduce { x: ValueId, layout: InputId, reduction: Reduction, out: ValueId },
}

/// Where the rows of a norm come from.
pub(crate) enum Source {
    /// A value, or parts of one that its product left.
    Value(ValueId),
    /// A product that is one with the norm: what is multiplied, by what, and how.
    Product { x: ValueId, w: Arc<Matrix>, size: Size, way: Arc<Way> },
    /// Tables, and what is looked up in each.
    Lookups(Vec<(Arc<Table>, InputId)>),
}

impl Job {
    /// The values it reads.
    pub(crate) fn reads(&self) -> Vec<ValueId> {
        match self {
            Self::Norm { source, residual, .. } => {
                let source = match source {
                    Source::Value(x) | Source::Product { x, .. } => Some(*x),
                    Source::Lookups(_) => None,
                };
                source.into_iter().chain(*residual).collect()
            }
            Self::Linear { x, .. }
            | Self::Round { x, .. }
            | Self::Gate { x, .. }
            | Self::Rotate { qkv: x, .. }
            | Self::Attention { qkv: x, .. }
            | Self::Take { x, .. }
            | Self::Reduce { x, .. } => vec![*x],
        }
    }

    /// The size of a product.
    pub(crate) fn size(&self, plan: &Plan<CudaDevice>) -> Option<Size> {
        let Self::Linear { w, activation, out, parts, normed, .. } = self else { return None };
        let room = plan.values[out.0].room;
        let (outputs, inputs, activation) = (w.outputs, w.inputs, *activation);
        Some(Size { room, outputs, inputs, activation, parts: *parts, normed: *normed, operand: w.operand })
    }

    /// The values it makes.
    pub(crate) fn writes(&self) -> Vec<ValueId> {
        match self {
            Self::Norm { sum, normed, rounded, .. } => {
                let made = [*sum, normed.as_ref().map(|(_, out)| *out), rounded.map(|(_, out)| out)];
                made.into_iter().flatten().collect()
            }
            Self::Linear { out, .. }
            | Self::Round { out, .. }
            | Self::Gate { out, .. }
            | Self::Rotate { out, .. }
            | Self::Attention { out, .. }
            | Self::Take { out, .. }
            | Self::Reduce { out, .. } => vec![*out],
        }
    }
}

/// The jobs of a plan, and the values that they have between them besides the plan's.
pub(crate) struct Jobs {
    /// In an order in which they can run. Values that are inputs as they are have none.
    pub(crate) list: Vec<Job>,
    /// Which value each of those behind the plan's is in 8 bits.
    pub(crate) rounded: Vec<ValueId>,
}

impl Jobs {
    /// Those of a plan.
    pub(crate) fn of(plan: &Plan<CudaDevice>) -> Self {
        let mut this = Self { list: Vec::new(), rounded: Vec::new() };
        let mut known: HashMap<(ValueId, Operand), ValueId> = HashMap::new();
        for mut job in jobs(plan) {
            if let Job::Linear { x, w, .. } = &mut job
                && w.operand != Operand::Kept
            {
                let (value, operand) = (*x, w.operand);
                *x = *known.entry((value, operand)).or_insert_with(|| this.round(plan, value, operand));
            }
            this.list.push(job);
        }
        this.find_normed();
        this
    }

    /// Marks products that may be one with the norms that read them.
    fn find_normed(&mut self) {
        let simple = self.list.iter().filter_map(|job| match job {
            Job::Norm { source: Source::Value(x), normed: Some(_), rounded: None, .. } => Some(*x),
            _ => None,
        });
        let simple: HashSet<ValueId> = simple.collect();
        for job in &mut self.list {
            if let Job::Linear { out, parts, normed, .. } = job {
                *normed = *parts && simple.contains(out);
            }
        }
    }

    /// Puts products into the norms that read them, where their way is to be one with it; `ways` are those of all jobs, and then
    /// those of the jobs that are left.
    pub(crate) fn join(&mut self, plan: &Plan<CudaDevice>, ways: &mut Vec<Option<Arc<Way>>>) {
        let mut joined: HashMap<ValueId, Source> = HashMap::new();
        let kept = self.list.iter().zip(&*ways).map(|(job, way)| match (job, job.size(plan), way) {
            (Job::Linear { x, w, out, .. }, Some(size), Some(way)) if way.is_normed() => {
                joined.insert(*out, Source::Product { x: *x, w: Arc::clone(w), size, way: Arc::clone(way) });
                false
            }
            _ => true,
        });
        let kept: Vec<bool> = kept.collect();
        let (mut of_jobs, mut of_ways) = (kept.iter(), kept.iter());
        self.list.retain(|_| of_jobs.next().is_none_or(|kept| *kept));
        ways.retain(|_| of_ways.next().is_none_or(|kept| *kept));
        for job in &mut self.list {
            if let Job::Norm { source, .. } = job
                && let Source::Value(x) = source
                && let Some(product) = joined.remove(x)
            {
                *source = product;
            }
        }
    }

    /// A value in 8 bits: made by the norm that makes the value, where one does, or by a job of its own.
    fn round(&mut self, plan: &Plan<CudaDevice>, value: ValueId, operand: Operand) -> ValueId {
        let out = ValueId(plan.values.len() + self.rounded.len());
        self.rounded.push(value);
        let made = |job: &&mut Job| matches!(job, Job::Norm { normed: Some((_, made)), .. } if *made == value);
        match self.list.iter_mut().rev().find(made) {
            Some(Job::Norm { rounded: rounded @ None, .. }) => *rounded = Some((operand, out)),
            _ => self.list.push(Job::Round { x: value, operand, out }),
        }
        out
    }
}

fn jobs(plan: &Plan<CudaDevice>) -> Vec<Job> {
    let readers = Readers::of(plan);
    let mut jobs = Vec::new();
    for step in &plan.steps {
        let out = step.result;
        jobs.push(match &step.operation {
            Operation::Input(_) => continue,
            Operation::Embed(lookups) => {
                if readers.only_a_norm(out) && readers.norm_without_residual(out) {
                    continue;
                }
                Job::Norm {
                    source: Source::Lookups(lookups.clone()),
                    residual: None,
                    sum: Some(out),
                    normed: None,
                    rounded: None,
                }
            }
            Operation::Linear { x, w, activation } => {
                let parts = *activation == Activation::Identity && readers.only_a_norm(out);
                Job::Linear { x: *x, w: Arc::clone(w), activation: *activation, out, parts, normed: false }
            }
            Operation::Gate { x, activation } => Job::Gate { x: *x, activation: *activation, out },
            Operation::Norm { x, residual, n } => Job::Norm {
                source: readers.source(*x),
                residual: *residual,
                sum: None,
                normed: Some((Arc::clone(n), out)),
                rounded: None,
            },
            Operation::AddNorm { x, residual, n } => Job::Norm {
                source: readers.source(*x),
                residual: Some(*residual),
                sum: Some(out),
                normed: Some((Arc::clone(n), ValueId(out.0 + 1))),
                rounded: None,
            },
            Operation::Rotate { qkv, layout, rotation } => {
                Job::Rotate { qkv: *qkv, layout: *layout, rotation: *rotation, out }
            }
            Operation::Attention { qkv, layout, attention, relative } => {
                let relative = relative.clone();
                Job::Attention { qkv: *qkv, layout: *layout, attention: *attention, relative, out }
            }
            Operation::TakeRows { x, indices } => Job::Take { x: *x, indices: *indices, out },
            Operation::ReduceRows { x, layout, reduction } => {
                Job::Reduce { x: *x, layout: *layout, reduction: *reduction, out }
            }
        });
    }
    jobs
}

/// Who reads what.
struct Readers<'a> {
    plan: &'a Plan<CudaDevice>,
    /// How many operands each value is, and whether it is wanted as an output.
    uses: Vec<usize>,
    /// The step whose first operand it is, of the last such step.
    reader: Vec<Option<usize>>,
    /// The step that makes it.
    maker: Vec<Option<usize>>,
}

impl<'a> Readers<'a> {
    fn of(plan: &'a Plan<CudaDevice>) -> Self {
        let none = vec![None; plan.values.len()];
        let mut this = Self { plan, uses: vec![0; plan.values.len()], reader: none.clone(), maker: none };
        for output in &plan.outputs {
            this.uses[output.0] += 1;
        }
        for (i, step) in plan.steps.iter().enumerate() {
            this.maker[step.result.0] = Some(i);
            let residual = match &step.operation {
                Operation::Norm { residual, .. } => *residual,
                Operation::AddNorm { residual, .. } => Some(*residual),
                _ => None,
            };
            if let Some(residual) = residual {
                this.uses[residual.0] += 1;
            }
            if let Some(x) = first_operand(&step.operation) {
                this.uses[x.0] += 1;
                this.reader[x.0] = Some(i);
            }
        }
        this
    }

    /// Whether nobody wants a value but a norm, to normalise it.
    fn only_a_norm(&self, value: ValueId) -> bool {
        let reader = self.reader[value.0].map(|i| &self.plan.steps[i].operation);
        self.uses[value.0] == 1 && matches!(reader, Some(Operation::Norm { .. } | Operation::AddNorm { .. }))
    }

    fn norm_without_residual(&self, value: ValueId) -> bool {
        let reader = self.reader[value.0].map(|i| &self.plan.steps[i].operation);
        matches!(reader, Some(Operation::Norm { residual: None, .. }))
    }

    /// Where a norm finds `x`.
    fn source(&self, x: ValueId) -> Source {
        match self.maker[x.0].map(|i| &self.plan.steps[i].operation) {
            Some(Operation::Embed(lookups)) if self.only_a_norm(x) && self.norm_without_residual(x) => {
                Source::Lookups(lookups.clone())
            }
            _ => Source::Value(x),
        }
    }
}

fn first_operand(operation: &Operation<CudaDevice>) -> Option<ValueId> {
    match operation {
        Operation::Input(_) | Operation::Embed(_) => None,
        Operation::Linear { x, .. }
        | Operation::Gate { x, .. }
        | Operation::Norm { x, .. }
        | Operation::AddNorm { x, .. }
        | Operation::Rotate { qkv: x, .. }
        | Operation::Attention { qkv: x, .. }
        | Operation::TakeRows { x, .. }
        | Operation::ReduceRows { x, .. } => Some(*x),
    }
}
