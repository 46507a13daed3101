//! What `config.json` says of a classifier's outputs: their names, and what their scores are.

use serde_json::{Map, Value};

use crate::{Config, Error, Result};

/// Labels where the file says nothing, as in `transformers`.
const DEFAULT_LABELS: u64 = 2;
/// Far above any classifier; keeps a damaged number from becoming a list of that length.
const MOST_LABELS: u64 = 1 << 20;

/// What a classifier was trained to do, which decides what its logits are made into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// One of several labels: softmax.
    SingleLabel,
    /// Each label for itself: sigmoid.
    MultiLabel,
    /// Numbers as they are.
    Regression,
}

impl Config {
    /// A classifier's labels in the order of its outputs: `id2label`, or `LABEL_0`, `LABEL_1` .. where it is absent or
    /// `num_labels` is another number (old files have both, and `transformers` goes by the number).
    ///
    /// # Errors
    /// [`Error::Setting`] if the ids are not 0, 1, 2 .., or `num_labels` is no number of labels.
    pub fn labels(&self) -> Result<Vec<String>> {
        let number = self.setting("num_labels").map(|found| {
            let number = found.as_u64().filter(|n| (1..=MOST_LABELS).contains(n));
            number.ok_or_else(|| self.refused("num_labels", found, "a number of labels"))
        });
        let number = number.transpose()?;
        if let Some(found) = self.setting("id2label") {
            let labels = found.as_object().and_then(in_order);
            let labels = labels.ok_or_else(|| self.refused("id2label", found, "labels of the ids \"0\", \"1\" .."))?;
            if number.is_none_or(|number| number == labels.len() as u64) {
                return Ok(labels);
            }
        }
        Ok((0..number.unwrap_or(DEFAULT_LABELS)).map(|i| format!("LABEL_{i}")).collect())
    }

    fn setting(&self, name: &str) -> Option<&Value> {
        self.raw(name).filter(|value| !value.is_null())
    }

    /// The output that says that one text follows from another: the label that begins with `entail`, in any case.
    ///
    /// Of several in `label2id` the first by name. `transformers` takes the first in the file, which is the same: it writes
    /// settings in the order of their names.
    pub fn entailment(&self) -> Option<usize> {
        let labels = self.labels().ok()?;
        let begins = |label: &str| label.to_lowercase().starts_with("entail");
        let ids = self.raw("label2id").and_then(Value::as_object);
        let id = ids.and_then(|ids| ids.iter().find(|(label, _)| begins(label))).and_then(|(_, id)| id.as_u64());
        match id {
            Some(id) => usize::try_from(id).ok().filter(|&id| id < labels.len()),
            None => labels.iter().position(|label| begins(label)),
        }
    }

    /// What a classifier was trained to do: `problem_type`, and where it is absent what `transformers` makes of the
    /// number of labels: one is a yes or no of its own.
    ///
    /// # Errors
    /// [`Error::Setting`] for another `problem_type`, and those of [`Config::labels`].
    pub fn problem(&self) -> Result<Problem> {
        let one = self.labels()?.len() == 1;
        match self.raw("problem_type") {
            Some(found) if found == "regression" => Ok(Problem::Regression),
            Some(found) if found == "multi_label_classification" => Ok(Problem::MultiLabel),
            None | Some(Value::Null) if one => Ok(Problem::MultiLabel),
            None | Some(Value::Null) => Ok(Problem::SingleLabel),
            Some(found) if found == "single_label_classification" && !one => Ok(Problem::SingleLabel),
            Some(found) => {
                let expected = "regression, multi_label_classification, or single_label_classification (with 2 labels \
                                or more)";
                Err(self.refused("problem_type", found, expected))
            }
        }
    }

    fn refused(&self, name: &str, found: &Value, expected: &str) -> Error {
        Error::Setting {
            file: self.file.clone(),
            name: name.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }
}

/// The labels of ids 0, 1, 2 .., at least one.
fn in_order(labels: &Map<String, Value>) -> Option<Vec<String>> {
    let name = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let labels: Option<Vec<String>> = (0..labels.len()).map(|id| labels.get(&id.to_string()).map(name)).collect();
    labels.filter(|labels| !labels.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &str) -> Config {
        Config::from_json(&format!(r#"{{"model_type": "bert", {settings}}}"#)).unwrap()
    }

    #[test]
    fn labels_are_in_the_order_of_their_ids() {
        let names: Vec<String> = (0..11).map(|i| format!(r#""{i}": "l{i}""#)).collect();
        let labels = config(&format!(r#""id2label": {{{}}}"#, names.join(","))).labels().unwrap();
        assert_eq!((labels.len(), labels[2].as_str(), labels[10].as_str()), (11, "l2", "l10"));
        assert_eq!(config(r#""id2label": null"#).labels().unwrap(), ["LABEL_0", "LABEL_1"]);
        assert_eq!(config(r#""num_labels": 1"#).labels().unwrap(), ["LABEL_0"]);
        let both = |number| {
            config(&format!(r#""id2label": {{"0": "a", "1": "b"}}, "num_labels": {number}"#)).labels().unwrap()
        };
        assert_eq!(both(2), ["a", "b"]);
        assert_eq!(both(3), ["LABEL_0", "LABEL_1", "LABEL_2"]);
        for wrong in [
            r#""id2label": {"1": "a"}"#,
            r#""id2label": {}"#,
            r#""id2label": ["a"]"#,
            r#""num_labels": 0"#,
            r#""num_labels": 99999999999"#,
        ] {
            assert!(matches!(config(wrong).labels(), Err(Error::Setting { .. })), "{wrong}");
        }
    }

    #[test]
    fn entailment_is_found_by_its_name() {
        let labels = r#""id2label": {"0": "CONTRADICTION", "1": "neutral", "2": "Entailment"}"#;
        assert_eq!(config(labels).entailment(), Some(2));
        assert_eq!(config(&format!(r#"{labels}, "label2id": {{"entailment": 1}}"#)).entailment(), Some(1));
        assert_eq!(config(&format!(r#"{labels}, "label2id": {{"entailment": 3}}"#)).entailment(), None);
        let several = r#""label2id": {"ENTAILED": 2, "entailment": 0, "neutral": 1}"#;
        assert_eq!(config(&format!("{labels}, {several}")).entailment(), Some(2));
        assert_eq!(config(r#""num_labels": 3"#).entailment(), None);
    }

    #[test]
    fn one_label_is_a_yes_or_no() {
        let problem = |settings| config(settings).problem();
        assert_eq!(problem(r#""num_labels": 1"#).unwrap(), Problem::MultiLabel);
        assert_eq!(problem(r#""num_labels": 2, "problem_type": null"#).unwrap(), Problem::SingleLabel);
        assert_eq!(problem(r#""num_labels": 1, "problem_type": "regression""#).unwrap(), Problem::Regression);
        assert_eq!(problem(r#""problem_type": "multi_label_classification""#).unwrap(), Problem::MultiLabel);
        for wrong in
            [r#""problem_type": "ranking""#, r#""num_labels": 1, "problem_type": "single_label_classification""#]
        {
            assert!(problem(wrong).is_err(), "{wrong}");
        }
    }
}
