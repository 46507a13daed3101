//! The table: every operation on sizes with tails, on one token and one sequence, on 512 tokens, with every activation,
//! mask and reduction.

use std::fmt;

use crate::quantised::{AFFINE_BITS, AFFINE_GROUPS};
use crate::{Activation, DType, Mask, NormKind, Reduction, Scheme};

/// An operation and the sizes it runs on.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// [`crate::Backend::linear`]
    Linear {
        /// Rows of the input.
        rows: usize,
        /// Its columns.
        inputs: usize,
        /// Outputs of each stacked part.
        outputs: Vec<usize>,
        /// Whether there are biases.
        bias: bool,
        /// Applied to the sums.
        activation: Activation,
        /// How the weights are stored.
        stored: DType,
    },
    /// [`crate::Backend::linear`] with packed weights.
    PackedLinear {
        /// Rows of the input.
        rows: usize,
        /// Inputs.
        inputs: usize,
        /// Outputs of each stacked part.
        outputs: Vec<usize>,
        /// How the weights are packed.
        scheme: Scheme,
        /// How their scales are stored, and the biases of the layer.
        stored: DType,
    },
    /// [`crate::Backend::norm`]
    Norm {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Which.
        kind: NormKind,
        /// Whether a residual is added first.
        residual: bool,
        /// Whether there is a shift.
        shift: bool,
        /// Epsilon.
        eps: f32,
        /// Is added to every input: far from 0, a one-pass variance loses its digits.
        offset: f32,
    },
    /// [`crate::Backend::add_norm`]; the result is sums and normalised rows, one after the other.
    AddNorm {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Which.
        kind: NormKind,
    },
    /// [`crate::Backend::linear`], and its result by [`crate::Backend::norm`] or [`crate::Backend::add_norm`]: backends may make one
    /// operation of both.
    NormedLinear {
        /// Rows of the input.
        rows: usize,
        /// Its columns.
        inputs: usize,
        /// Columns of the result.
        cols: usize,
        /// Which norm; LayerNorm has a shift.
        kind: NormKind,
        /// Whether a residual is added before it.
        residual: bool,
        /// Whether the sum is wanted, too; it comes first.
        sum: bool,
    },
    /// Two norms with products before, between and behind them, as in a layer of an encoder. The second adds what the first made. Backends
    /// may leave norms to what reads them.
    NormedLayers {
        /// Rows of the input.
        rows: usize,
        /// Its columns.
        inputs: usize,
        /// Columns of what is normalised, and of the result.
        cols: usize,
        /// Columns between the norms.
        wide: usize,
        /// Which norms; LayerNorm has a shift.
        kind: NormKind,
        /// Whether the second norm adds what the first added up, before it was normalised. The second's sum then comes first.
        sum: bool,
    },
    /// [`crate::Backend::gate`]
    Gate {
        /// Rows.
        rows: usize,
        /// Columns of the result.
        cols: usize,
        /// Applied to the left half.
        activation: Activation,
    },
    /// [`crate::Backend::rotate`]
    Rotate {
        /// Length of each sequence.
        lengths: Vec<usize>,
        /// Heads.
        heads: usize,
        /// Columns of one head.
        head_size: usize,
        /// The base of the frequencies.
        theta: f32,
    },
    /// [`crate::Backend::attention`]
    Attention {
        /// Length of each sequence.
        lengths: Vec<usize>,
        /// Heads.
        heads: usize,
        /// Columns of one head.
        head_size: usize,
        /// Which keys are seen.
        mask: Mask,
        /// Deviation of queries and keys: large ones saturate the softmax.
        spread: f32,
        /// What scores gain by distance.
        relative: Option<RelativeTerm>,
    },
    /// [`crate::Backend::embed`]
    Embed {
        /// Tokens.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Entries of each table.
        entries: Vec<usize>,
        /// How the tables are stored.
        stored: DType,
    },
    /// [`crate::Backend::take_rows`]
    TakeRows {
        /// Rows to take from.
        rows: usize,
        /// Columns.
        cols: usize,
        /// How many to take.
        count: usize,
    },
    /// [`crate::Backend::reduce_rows`]
    ReduceRows {
        /// Length of each sequence.
        lengths: Vec<usize>,
        /// Columns.
        cols: usize,
        /// How.
        reduction: Reduction,
    },
}

/// The relative term of an attention: buckets in no order, and any of the three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativeTerm {
    /// The largest distance with a bucket of its own.
    pub reach: usize,
    /// Number of buckets.
    pub buckets: usize,
    /// Whether queries are multiplied by something.
    pub keys: bool,
    /// Whether keys are.
    pub queries: bool,
    /// Whether something is added as it is.
    pub bias: bool,
}

impl Operation {
    /// A plain linear layer with a bias.
    #[must_use]
    pub fn linear(rows: usize, inputs: usize, outputs: usize) -> Self {
        Self::Linear {
            rows,
            inputs,
            outputs: vec![outputs],
            bias: true,
            activation: Activation::Identity,
            stored: DType::F32,
        }
    }

    /// The operation's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::PackedLinear { .. } => "packed linear",
            Self::Norm { .. } => "norm",
            Self::AddNorm { .. } => "add norm",
            Self::NormedLinear { .. } => "normed linear",
            Self::NormedLayers { .. } => "normed layers",
            Self::Gate { .. } => "gate",
            Self::Rotate { .. } => "rotate",
            Self::Attention { relative: None, .. } => "attention",
            Self::Attention { .. } => "relative attention",
            Self::Embed { .. } => "embed",
            Self::TakeRows { .. } => "take rows",
            Self::ReduceRows { .. } => "reduce rows",
        }
    }

    /// Floating point operations of its products, a multiply-add counted as two; 0 for operations that only move data.
    #[must_use]
    pub fn flops(&self) -> u64 {
        match self {
            Self::Linear { rows, inputs, outputs, .. } | Self::PackedLinear { rows, inputs, outputs, .. } => {
                2 * (rows * inputs * outputs.iter().sum::<usize>()) as u64
            }
            Self::NormedLinear { rows, inputs, cols, .. } => 2 * (rows * inputs * cols) as u64,
            Self::NormedLayers { rows, inputs, cols, wide, .. } => {
                2 * (rows * cols * (inputs + 2 * wide + cols)) as u64
            }
            Self::Attention { lengths, heads, head_size, mask, relative, .. } => {
                let seen = |&n: &usize| (0..n).map(|i| mask.visible(i, n).len()).sum::<usize>();
                let products = 2 + relative.map_or(0, |r| usize::from(r.keys) + usize::from(r.queries));
                2 * (products * lengths.iter().map(seen).sum::<usize>() * heads * head_size) as u64
            }
            Self::Norm { .. }
            | Self::AddNorm { .. }
            | Self::Gate { .. }
            | Self::Rotate { .. }
            | Self::Embed { .. }
            | Self::TakeRows { .. }
            | Self::ReduceRows { .. } => 0,
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What runs.
    pub operation: Operation,
    /// Whether its time says something: sizes of real models.
    pub timed: bool,
}

impl Case {
    /// A case that is checked and not timed.
    #[must_use]
    pub fn new(operation: Operation) -> Self {
        Self { operation, timed: false }
    }

    fn timed(operation: Operation) -> Self {
        Self { operation, timed: true }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.operation)
    }
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    linear(&mut all);
    norm(&mut all);
    normed_linear(&mut all);
    normed_layers(&mut all);
    between(&mut all);
    attention(&mut all);
    relative(&mut all);
    rows(&mut all);
    all
}

fn linear(all: &mut Vec<Case>) {
    // Every number of rows around and between the register tiles kernels use (4, 6, 8, 14, 16), on sizes with tails.
    for rows in (1..=17).chain([23, 28, 29, 33, 50, 64, 65]) {
        all.push(Case::new(Operation::linear(rows, 37, 67)));
    }
    // Columns around vector and panel widths.
    for outputs in (1..=9).chain([15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 97, 127, 129]) {
        all.push(Case::new(Operation::linear(3, 5, outputs)));
    }
    // Lengths of the sum: one, tails, beyond any block a kernel cuts it into.
    for inputs in [1, 2, 3, 7, 8, 9, 31, 255, 256, 257, 511, 513, 1023, 1025, 2049, 4096] {
        all.push(Case::new(Operation::linear(5, inputs, 19)));
    }
    for activation in Activation::ALL {
        for bias in [true, false] {
            let outputs = vec![33];
            let stored = DType::F32;
            all.push(Case::new(Operation::Linear { rows: 7, inputs: 20, outputs, bias, activation, stored }));
        }
    }
    // Stacked parts whose borders lie inside a panel, and every stored type.
    for stored in [DType::F32, DType::F16, DType::Bf16] {
        let (outputs, activation) = (vec![5, 40, 1], Activation::Identity);
        all.push(Case::new(Operation::Linear { rows: 9, inputs: 24, outputs, bias: true, activation, stored }));
    }
    packed(all);
    // Real layers: MiniLM's and BERT-base's.
    for rows in [1, 14, 50, 122] {
        for (inputs, outputs) in [(384, 1152), (384, 1536), (1536, 384), (768, 768)] {
            all.push(Case::timed(Operation::linear(rows, inputs, outputs)));
        }
    }
    all.push(Case::timed(Operation::linear(14, 768, 3072)));
    all.push(Case::timed(Operation::linear(14, 3072, 768)));
    all.push(Case::timed(Operation::linear(200, 768, 768)));
}

fn packed(all: &mut Vec<Case>) {
    let mut add = |rows, inputs, outputs: &[usize], scheme, stored| {
        all.push(Case::new(Operation::PackedLinear { rows, inputs, outputs: outputs.to_vec(), scheme, stored }));
    };
    for bits in AFFINE_BITS {
        for group in AFFINE_GROUPS {
            add(9, 128, &[8, 40], Scheme::Affine { bits, group }, DType::F32);
        }
    }
    for scheme in [Scheme::Mxfp4, Scheme::Nvfp4, Scheme::Mxfp8] {
        add(9, 64, &[8, 40], scheme, DType::F32);
    }
    // One row is often a kernel of its own, and so are stored halves. MiniLM's layers.
    for bits in [4, 8] {
        for (rows, inputs) in [(1, 384), (14, 384), (64, 1536)] {
            for stored in [DType::F32, DType::F16, DType::Bf16] {
                add(rows, inputs, &[96], Scheme::Affine { bits, group: 64 }, stored);
            }
        }
    }
}

/// Few rows and many, in the widths of encoders, which kernels that have whole rows take in tiles of 96 to 192 columns.
fn normed_linear(all: &mut Vec<Case>) {
    let sizes =
        [(1, 37, 23), (7, 32, 64), (18, 64, 96), (130, 96, 384), (200, 64, 768), (257, 40, 1024), (300, 768, 512)];
    for (rows, inputs, cols) in sizes {
        for (kind, residual, sum) in [
            (NormKind::LayerNorm, true, false),
            (NormKind::LayerNorm, false, false),
            (NormKind::RmsNorm, true, true),
            (NormKind::LayerNorm, true, true),
        ] {
            all.push(Case::new(Operation::NormedLinear { rows, inputs, cols, kind, residual, sum }));
        }
    }
}

/// As for one, and with more rows than a tile has.
fn normed_layers(all: &mut Vec<Case>) {
    let sizes = [
        (5, 32, 64, 96),
        (40, 64, 96, 200),
        (70, 136, 384, 64),
        (130, 96, 768, 136),
        (257, 40, 192, 72),
        (140, 392, 512, 64),
    ];
    for (rows, inputs, cols, wide) in sizes {
        for kind in [NormKind::LayerNorm, NormKind::RmsNorm] {
            for sum in [false, true] {
                all.push(Case::new(Operation::NormedLayers { rows, inputs, cols, wide, kind, sum }));
            }
        }
    }
}

fn norm(all: &mut Vec<Case>) {
    for kind in [NormKind::LayerNorm, NormKind::RmsNorm] {
        for cols in (1..=9).chain([15, 16, 17, 31, 33, 63, 65, 384, 768, 1000]) {
            for residual in [false, true] {
                let shift = kind == NormKind::LayerNorm;
                all.push(Case::new(Operation::Norm { rows: 5, cols, kind, residual, shift, eps: 1e-5, offset: 0.0 }));
            }
        }
        for eps in [1e-12, 1e-3] {
            all.push(Case::new(Operation::Norm {
                rows: 70,
                cols: 40,
                kind,
                residual: true,
                shift: false,
                eps,
                offset: 0.0,
            }));
        }
    }
    // Inputs near 100: the deviation is a hundredth of the mean.
    all.push(Case::new(Operation::Norm {
        rows: 4,
        cols: 384,
        kind: NormKind::LayerNorm,
        residual: false,
        shift: true,
        eps: 1e-12,
        offset: 100.0,
    }));
    for rows in [14, 122, 512] {
        all.push(Case::timed(Operation::Norm {
            rows,
            cols: 768,
            kind: NormKind::LayerNorm,
            residual: true,
            shift: true,
            eps: 1e-12,
            offset: 0.0,
        }));
    }
}

/// What stands between products and attention in models after BERT.
fn between(all: &mut Vec<Case>) {
    for kind in [NormKind::LayerNorm, NormKind::RmsNorm] {
        for cols in (1..=9).chain([15, 16, 17, 31, 33, 384]) {
            all.push(Case::new(Operation::AddNorm { rows: 5, cols, kind }));
        }
    }
    all.push(Case::timed(Operation::AddNorm { rows: 122, cols: 768, kind: NormKind::LayerNorm }));
    for activation in Activation::ALL {
        all.push(Case::new(Operation::Gate { rows: 7, cols: 20, activation }));
    }
    for cols in (1..=19).chain([31, 32, 33, 64, 65, 384]) {
        all.push(Case::new(Operation::Gate { rows: 3, cols, activation: Activation::Gelu }));
    }
    all.push(Case::timed(Operation::Gate { rows: 122, cols: 1152, activation: Activation::Gelu }));
    for (heads, head_size) in [(1, 2), (3, 4), (2, 6), (1, 16), (2, 20), (1, 34), (2, 64), (1, 128)] {
        for theta in [1.0, 160_000.0] {
            all.push(Case::new(Operation::Rotate { lengths: vec![1, 2, 17, 5, 33], heads, head_size, theta }));
        }
    }
    // Far out, where the rounding of an angle shows.
    all.push(Case::new(Operation::Rotate { lengths: vec![9000], heads: 1, head_size: 8, theta: 10_000.0 }));
    all.push(Case::timed(Operation::Rotate { lengths: vec![122; 4], heads: 12, head_size: 64, theta: 10_000.0 }));
}

fn attention(all: &mut Vec<Case>) {
    let masks = [Mask::Full, Mask::Causal, Mask::Window { radius: 0 }, Mask::Window { radius: 3 }];
    let shapes = [(1, 1), (2, 3), (3, 7), (2, 8), (1, 16), (2, 20), (1, 33), (2, 64), (1, 128)];
    for (heads, head_size) in shapes {
        for mask in masks {
            let lengths = vec![1, 2, 17, 5, 33];
            all.push(Case::new(Operation::Attention { lengths, heads, head_size, mask, spread: 1.0, relative: None }));
        }
    }
    // Every length around query and key blocks, in one ragged batch.
    all.push(Case::new(Operation::Attention {
        lengths: (1..=70).collect(),
        heads: 2,
        head_size: 12,
        mask: Mask::Full,
        spread: 1.0,
        relative: None,
    }));
    // Scores in the hundreds: the softmax becomes a choice, and a careless exp overflows.
    for mask in masks {
        let lengths = vec![40, 3];
        all.push(Case::new(Operation::Attention {
            lengths,
            heads: 2,
            head_size: 16,
            mask,
            spread: 12.0,
            relative: None,
        }));
    }
    for lengths in [vec![1], vec![14], vec![50], vec![122], vec![512], vec![14; 16], vec![5, 122, 31, 1, 64]] {
        for head_size in [32, 64] {
            let lengths = lengths.clone();
            let (heads, mask) = (4, Mask::Full);
            all.push(Case::timed(Operation::Attention {
                lengths,
                heads,
                head_size,
                mask,
                spread: 1.0,
                relative: None,
            }));
        }
    }
    // Many rows, of short sequences and of longer ones: other kernels than for few, which end in the middle of blocks of queries and keys.
    let short = vec![1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300];
    let long = [vec![1, 64, 201], vec![139; 13]].concat();
    for lengths in [short, long] {
        for (head_size, mask) in [
            (64, Mask::Full),
            (64, Mask::Causal),
            (64, Mask::Window { radius: 64 }),
            (40, Mask::Window { radius: 3 }),
            (32, Mask::Full),
            (24, Mask::Causal),
        ] {
            let (lengths, heads) = (lengths.clone(), 1);
            all.push(Case::new(Operation::Attention { lengths, heads, head_size, mask, spread: 1.0, relative: None }));
        }
    }
    let lengths = vec![512, 200];
    let mask = Mask::Window { radius: 64 };
    all.push(Case::timed(Operation::Attention { lengths, heads: 2, head_size: 64, mask, spread: 1.0, relative: None }));
}

fn relative(all: &mut Vec<Case>) {
    let mut push = |lengths: Vec<usize>, heads, head_size, mask, relative| {
        let relative = Some(relative);
        all.push(Case::new(Operation::Attention { lengths, heads, head_size, mask, spread: 1.0, relative }));
    };
    let terms = |reach: usize, buckets: usize| {
        [(true, true, true), (true, false, false), (false, true, false), (false, false, true), (true, true, false)]
            .map(|(keys, queries, bias)| RelativeTerm { reach, buckets, keys, queries, bias })
    };
    // Every combination of parts, on sequences shorter and longer than the reach and than a block of queries.
    for term in terms(6, 9).into_iter().chain(terms(40, 17)).chain(terms(0, 1)) {
        push(vec![1, 2, 17, 5, 33, 100], 2, 12, Mask::Full, term);
    }
    for (heads, head_size) in [(1, 1), (2, 3), (3, 7), (2, 8), (1, 16), (2, 20), (1, 33), (2, 64), (1, 128)] {
        push(vec![30, 3], heads, head_size, Mask::Full, terms(11, 23)[0]);
    }
    for mask in [Mask::Causal, Mask::Window { radius: 0 }, Mask::Window { radius: 3 }] {
        push(vec![1, 17, 150], 2, 8, mask, terms(9, 12)[0]);
        push(vec![70], 1, 8, mask, terms(200, 30)[0]);
    }
    push((1..=70).collect(), 1, 12, Mask::Full, terms(25, 31)[0]);
    let timed = |lengths, relative| {
        let (heads, head_size, mask) = (4, 64, Mask::Full);
        Operation::Attention { lengths, heads, head_size, mask, spread: 1.0, relative: Some(relative) }
    };
    for lengths in [vec![14; 16], vec![122], vec![512]] {
        // MPNet's and DeBERTa's.
        all.push(Case::timed(timed(lengths.clone(), terms(128, 32)[3])));
        all.push(Case::timed(timed(lengths, terms(511, 512)[4])));
    }
}

fn rows(all: &mut Vec<Case>) {
    for stored in [DType::F32, DType::F16, DType::Bf16] {
        for cols in [1, 3, 8, 17, 33, 384] {
            all.push(Case::new(Operation::Embed { rows: 6, cols, entries: vec![50, 9, 2], stored }));
        }
        all.push(Case::new(Operation::Embed { rows: 1, cols: 5, entries: vec![1], stored }));
    }
    all.push(Case::timed(Operation::Embed { rows: 512, cols: 768, entries: vec![5000, 512, 2], stored: DType::F32 }));
    for (rows, cols, count) in [(1, 1, 1), (9, 5, 3), (30, 33, 40), (128, 768, 16)] {
        all.push(Case::new(Operation::TakeRows { rows, cols, count }));
    }
    for reduction in Reduction::ALL {
        for cols in [1, 7, 16, 33, 384] {
            all.push(Case::new(Operation::ReduceRows { lengths: vec![1, 2, 9, 64], cols, reduction }));
        }
        all.push(Case::new(Operation::ReduceRows { lengths: vec![512], cols: 40, reduction }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_covers_what_it_promises() {
        let all = cases();
        let has = |f: &dyn Fn(&Operation) -> bool| all.iter().any(|c| f(&c.operation));
        for a in Activation::ALL {
            assert!(has(&|o| matches!(o, Operation::Linear { activation, .. } if *activation == a)), "{a:?}");
        }
        for r in Reduction::ALL {
            assert!(has(&|o| matches!(o, Operation::ReduceRows { reduction, .. } if *reduction == r)), "{r:?}");
        }
        assert!(has(&|o| matches!(o, Operation::Attention { lengths, .. } if lengths == &[512])));
        assert!(has(&|o| matches!(o, Operation::Attention { lengths, .. } if lengths == &[1])));
        assert!(has(&|o| matches!(o, Operation::Attention { mask: Mask::Causal, .. })));
        let mut names: Vec<String> = all.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len(), "a case stands in the table twice");
    }

    #[test]
    fn attention_counts_only_what_the_mask_shows() {
        let of = |mask| {
            Operation::Attention { lengths: vec![4, 1], heads: 2, head_size: 3, mask, spread: 1.0, relative: None }
                .flops()
        };
        assert_eq!(of(Mask::Full), 4 * 17 * 6);
        assert_eq!(of(Mask::Causal), 4 * 11 * 6);
    }
}
