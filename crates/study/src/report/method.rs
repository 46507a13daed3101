//! What the report says of how it was measured, and of the defects of the public code that the study repeats.

use serde::Serialize;

/// A defect of the public code, and what keeps it out of this study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Defect {
    pub(super) id: &'static str,
    /// What was wrong, and what came of it.
    pub(super) what: &'static str,
    /// Why it cannot be here.
    pub(super) here: &'static str,
}

/// How it was measured, a sentence or two for each rule.
pub(super) const METHOD: [(&str, &str); 7] = [
    (
        "Every value is checked before its time counts.",
        "An engine returns its output, which is compared with the golden values. What differs by more than its type allows has \
         no times, in any table or figure.",
    ),
    (
        "Every engine is a process of its own.",
        "All speak the same line protocol and time themselves with a monotonic clock: a model from ids on the host to the \
         result on the host, an operation from operands on the device to the result there, finished.",
    ),
    (
        "Everyone has the same work.",
        "The same weights from the same files, the same token ids, the same operands from one seeded generator, the same number \
         of threads. Models have no head.",
    ),
    (
        "Rounds are shuffled and interleaved over engines.",
        "What the machine does besides hits all alike. Several processes for each cell: one process has one memory layout, and \
         its luck.",
    ),
    (
        "Every sample is kept.",
        "Nothing is dropped, neither the first nor the slowest. Samples beyond Tukey's far fences are counted beside the median.",
    ),
    (
        "Medians come with an interval.",
        "95 %, from a bootstrap over processes, then samples within each. A mean over cells stands only where all of them were \
         measured.",
    ),
    (
        "A failure is a row.",
        "It has its stage and message, and the run goes on. No number stands for what did not happen.",
    ),
];

/// D1 to D11.
pub(super) const DEFECTS: [Defect; 11] = [
    Defect {
        id: "D1",
        what: "MLX's Softmax, Argmax, Sum and Sort dropped the axis: a softmax over 64 million values was compared with one over rows.",
        here: "The axis is part of the case and of its id, every worker is given it, and a result over another axis has other values: \
               it fails at verify.",
    },
    Defect {
        id: "D2",
        what: "Timings of models on CUDA never waited for the device: the time to launch was reported.",
        here: "A model's time ends when its result lies in host memory, an operation's when the device is idle. On a CPU, a time \
               that its measured peak cannot explain is a failure.",
    },
    Defect {
        id: "D3",
        what: "Lazy MLX graphs were timed without being evaluated: 0.4 ms whatever the size.",
        here: "The same: a result in host memory has been computed, and MLX's worker evaluates the result of an operation before \
               time ends.",
    },
    Defect {
        id: "D4",
        what: "Texts were padded with spaces to a number of characters, and a byte-level vocabulary makes a token of each space: \
               RoBERTa got up to four times BERT's tokens.",
        here: "Texts are cut from running prose, never padded; ids are made once and given to every engine; tokens stand beside \
               characters.",
    },
    Defect {
        id: "D5",
        what: "BERT was timed with its masked-LM head, RoBERTa and XLM-R without one.",
        here: "Every model ends at its last hidden states, which are what is compared: a head would give another shape.",
    },
    Defect {
        id: "D6",
        what: "The slowest (or the first) of 11 runs was dropped, and the mean of the rest given without a spread.",
        here: "Records hold every sample, and a checksum for each line; the report computes from all of them and prints intervals, \
               p90 and p99.",
    },
    Defect {
        id: "D7",
        what: "PyTorch was timed with gradients enabled, and its model loaded anew for each cell.",
        here: "Loading is a request of its own with a time of its own; PyTorch's worker runs without gradients and refuses a \
               result that has one.",
    },
    Defect {
        id: "D8",
        what: "BCE took logits on one side and probabilities on the other.",
        here: "Operands are files that everyone is given, and the two formulas give different values: one of them would fail at \
               verify.",
    },
    Defect {
        id: "D9",
        what: "MLX's ScatterSum and ScatterMax threw their result away: 0.03 ms.",
        here: "The result is what is compared; zeros would fail at verify.",
    },
    Defect {
        id: "D10",
        what: "The causal mask of attention ended as a constant, so nothing was masked, with heads of 1024.",
        here: "Attention without a mask has other values and fails at verify; an encoder's own attention, with heads of 64, is \
               among the operations.",
    },
    Defect {
        id: "D11",
        what: "Errors became NaN: holes that nobody saw.",
        here: "A failure is a row of the records with its stage and message, shown in the tables and listed in one of its own.",
    },
];
