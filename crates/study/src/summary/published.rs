//! Numbers that others published, to stand beside the reader's own: never joined with them, always marked, with their defects.

use serde::Deserialize;

/// A source: who published, and what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Published {
    /// Where it was published.
    pub source: String,
    /// What is wrong with it, or missing.
    pub note: String,
    /// Operations by device and runner.
    pub operations: Vec<Operations>,
    /// Models by device and runner.
    #[serde(default)]
    pub models: Vec<Line>,
}

/// What one runner on one device needs for operations: mean over an operation's cases, milliseconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Operations {
    /// The machine, as published.
    pub device: String,
    /// `mlx_gpu`, `mlx_gpu_compile`, `mlx_cpu`, `mps`, `cpu`, `cuda`, `torch`.
    pub runner: String,
    /// By operation.
    pub values: std::collections::BTreeMap<String, f64>,
}

/// A model's mean time against the length or the batch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Line {
    /// The machine, as published.
    pub device: String,
    /// As in [`Operations`].
    pub runner: String,
    /// The model.
    pub model: String,
    /// What changes.
    pub axis: Axis,
    /// Its value, and milliseconds.
    pub points: Vec<(usize, f64)>,
}

/// What changes along a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Characters of each text; the mean is over batch sizes.
    Characters,
    /// Sequences at once; the mean is over lengths.
    Batch,
}

/// The paper, then the suite whose operations it took.
///
/// # Errors
/// None with the files this program is built with.
pub fn published() -> crate::Result<Vec<Published>> {
    let files = [
        ("paper.json", include_str!("../../../../study/published/paper.json")),
        ("mlx-benchmark.json", include_str!("../../../../study/published/mlx-benchmark.json")),
    ];
    let parse = |(name, text): (&str, &str)| {
        serde_json::from_str(text)
            .map_err(|e| crate::Error::Plan { name: format!("published/{name}"), what: e.to_string() })
    };
    files.into_iter().map(parse).collect()
}

impl Operations {
    /// The defect (of `report/defects.rs`) that makes this runner's number of `operation` incomparable.
    #[must_use]
    pub fn defect(&self, operation: &str) -> Option<&'static str> {
        if operation == "BCE" {
            return Some("D8");
        }
        let defect = match operation {
            "Softmax" | "Argmax" | "Sum" | "Sort" => "D1",
            "ScatterSum" | "ScatterMax" => "D9",
            "ScaledDotProductAttention" => return Some("D10"),
            _ => return None,
        };
        self.runner.starts_with("mlx").then_some(defect)
    }
}

impl Line {
    /// The defect that makes it incomparable: RoBERTa's texts were padded with spaces that became tokens, and BERT was timed
    /// with a head that the others lack.
    #[must_use]
    pub fn defect(&self) -> &'static str {
        if self.model.starts_with("roberta") { "D4" } else { "D5" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_files_are_read_and_hold_what_was_published() {
        let published = published().unwrap();
        let [paper, suite] = &published[..] else { panic!("{}", published.len()) };
        assert_eq!(paper.operations[0].values["MatMul"], 3.96);
        assert_eq!(paper.models[0].points, [(50, 16.93), (500, 76.4)]);
        assert_eq!(suite.operations.len(), 89);
        assert!(suite.operations.iter().all(|of| (17..=23).contains(&of.values.len())));
    }

    #[test]
    fn what_is_known_to_be_wrong_is_marked() {
        let of = |runner: &str| Operations { device: String::new(), runner: runner.into(), values: [].into() };
        assert_eq!(of("mlx_gpu").defect("Softmax"), Some("D1"));
        assert_eq!(of("cuda").defect("Softmax"), None);
        assert_eq!(of("cpu").defect("BCE"), Some("D8"));
        assert_eq!(of("mlx_cpu").defect("MatMul"), None);
    }
}
