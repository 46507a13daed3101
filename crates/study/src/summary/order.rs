//! The order of cells: models before operations, then by name and size. Records are in the shuffled order of measuring.

use std::cmp::Ordering;

use crate::record::{Cell, Length, Work};

/// Cells that belong into one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Models on texts of so many characters: the paper's grid.
    Characters,
    /// Models on exactly so many tokens.
    Tokens,
    /// Models on real sentences of many lengths.
    Ragged,
    /// Models, all of the above.
    Models,
    /// The operations of a set: `published`, `encoder`.
    Operations(String),
}

impl Kind {
    /// Whether `work` is of this kind.
    #[must_use]
    pub fn holds(&self, work: &Work) -> bool {
        match (self, work) {
            (Self::Models, Work::Model { .. })
            | (Self::Characters, Work::Model { length: Length::Characters(_), .. })
            | (Self::Tokens, Work::Model { length: Length::Tokens(_), .. })
            | (Self::Ragged, Work::Model { length: Length::Ragged, .. }) => true,
            (Self::Operations(of), Work::Operation { set, .. }) => of == set,
            _ => false,
        }
    }
}

/// Each cell once, in the order of tables.
pub(super) fn cells<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<Cell> {
    let mut unique: Vec<Cell> = Vec::new();
    for cell in cells {
        if !unique.iter().any(|known| known.id == cell.id) {
            unique.push(cell.clone());
        }
    }
    unique.sort_by(|a, b| compare(&a.work, &b.work).then_with(|| a.id.cmp(&b.id)));
    unique
}

fn compare(a: &Work, b: &Work) -> Ordering {
    match (a, b) {
        (Work::Model { .. }, Work::Operation { .. }) => Ordering::Less,
        (Work::Operation { .. }, Work::Model { .. }) => Ordering::Greater,
        (
            Work::Model { model, length, batch, .. },
            Work::Model { model: other_model, length: other_length, batch: other_batch, .. },
        ) => (model, length, batch).cmp(&(other_model, other_length, other_batch)),
        (
            Work::Operation { set, operation, dims, axis },
            Work::Operation { set: other_set, operation: other_operation, dims: other_dims, axis: other_axis },
        ) => {
            let published = (set != "published").cmp(&(other_set != "published"));
            let case = (set, operation, dims, axis).cmp(&(other_set, other_operation, other_dims, other_axis));
            published.then(case)
        }
    }
}
