//! Models as the paper's grid has them: model, length, batch, and a column for each series.

use super::{Best, Column, Field, Line, Table};
use crate::record::Work;
use crate::summary::{Kind, Summary};

/// The cells of one kind of length.
pub(super) fn table(summary: &Summary, kind: &Kind) -> Table {
    let (id, title, unit) = match kind {
        Kind::Tokens => ("models-tokens", "Models, texts of exactly so many tokens", "tokens each"),
        Kind::Ragged => ("models-ragged", "Models, real sentences of many lengths", "length"),
        _ => ("models-characters", "Models, texts of so many characters", "characters"),
    };
    let tried = summary.of(kind);
    let by = summary.tried(&tried);
    let mut columns =
        vec![Column::text("model"), Column::number(unit), Column::number("batch"), Column::number("tokens")];
    columns.extend(by.iter().map(|&series| Column::of(series, &summary.series[series])));
    let lines = tried.iter().filter_map(|&cell| {
        let Work::Model { model, length, batch, tokens, .. } = &summary.cells[cell].work else { return None };
        let length = length.size().map_or_else(|| Field::text(length.to_string()), Field::whole);
        let mut fields = vec![Field::text(model), length, Field::whole(*batch), Field::whole(*tokens)];
        fields.extend(by.iter().map(|&s| Field::timing(summary.timing(cell, s), summary.failure(cell, s))));
        Some(Line { subject: Some(model.clone()), series: None, total: false, fields })
    });
    Table {
        id: id.into(),
        title: title.into(),
        note: "Median milliseconds from ids on the host to the last hidden states on the host, without a head. Tokens are \
               counted over the batch, without padding."
            .into(),
        long: false,
        best: Best::Least,
        lines: lines.collect(),
        columns,
    }
}
