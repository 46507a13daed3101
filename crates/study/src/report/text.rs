//! The report as Markdown: figures, then tables, then how it was measured.

use super::Report;
use super::method::{DEFECTS, Defect, METHOD};
use crate::figures::Chart;
use crate::number::count;
use crate::tables::{self, Table, inline};

pub(super) fn markdown(report: &Report) -> String {
    let Report { summary, tables, charts } = report;
    let samples = summary.timings.iter().map(|timing| timing.count).sum();
    let counted = [
        count(summary.cells.len(), "cell"),
        count(summary.series.len(), "engine"),
        count(samples, "sample"),
        count(summary.failures.len(), "failure"),
    ];
    let figure = |chart: &Chart| {
        let title = inline(&chart.title);
        format!("## {title}\n\n![{title}](figures/{}.svg)\n\n{}\n", chart.id, chart.note)
    };
    let table = |table: &Table| {
        let (id, title) = (&table.id, &table.title);
        let elsewhere = || format!("## {title}\n\n{} In [{id}.csv]({id}.csv).\n", table.note);
        if table.long { elsewhere() } else { tables::markdown(table) }
    };
    let rules: Vec<String> = METHOD.iter().map(|(rule, why)| format!("- **{rule}** {why}")).collect();
    let defect = |defect: &Defect| format!("| {} | {} | {} |", defect.id, defect.what, defect.here);
    let defects: Vec<String> = DEFECTS.iter().map(defect).collect();
    let machines = inline(&summary.machines().join("; "));
    let head = format!("# Benchmark study\n\n{machines}: {}.\n", counted.join(", "));
    let method = format!("## How it was measured\n\n{}\n", rules.join("\n"));
    let impossible = format!(
        "## Defects of the public code, and why they cannot be here\n\n| | what was wrong | here |\n|:--|:--|:--|\n{}\n",
        defects.join("\n")
    );
    let sections = charts.iter().map(figure).chain(tables.iter().map(table)).chain([method, impossible]);
    [head].into_iter().chain(sections).collect::<Vec<_>>().join("\n")
}
