//! The report as Markdown: figures, then tables, then how it was measured.

use super::Report;
use super::method::{DEFECTS, METHOD};
use crate::number::count;
use crate::tables::markdown as markdown_table;

pub(super) fn markdown(report: &Report) -> String {
    let Report { summary, tables, charts } = report;
    let samples = summary.timings.iter().map(|timing| timing.count).sum();
    let counted = [
        count(summary.cells.len(), "cell"),
        count(summary.series.len(), "engine"),
        count(samples, "sample"),
        count(summary.failures.len(), "failure"),
    ];
    let machines = crate::tables::inline(&summary.machines().join("; "));
    let mut out = format!("# Benchmark study\n\n{machines}: {}.\n", counted.join(", "));
    for chart in charts {
        let title = crate::tables::inline(&chart.title);
        out += &format!("\n## {title}\n\n![{title}](figures/{}.svg)\n\n{}\n", chart.id, chart.note);
    }
    for table in tables {
        let (id, title) = (&table.id, &table.title);
        out += &match table.long {
            true => format!("\n## {title}\n\n{} In [{id}.csv]({id}.csv).\n", table.note),
            false => format!("\n{}", markdown_table(table)),
        };
    }
    out += "\n## How it was measured\n\n";
    out += &METHOD.iter().map(|(rule, why)| format!("- **{rule}** {why}\n")).collect::<String>();
    out +=
        "\n## Defects of the public code, and why they cannot be here\n\n| | what was wrong | here |\n|:--|:--|:--|\n";
    out + &DEFECTS
        .iter()
        .map(|defect| format!("| {} | {} | {} |\n", defect.id, defect.what, defect.here))
        .collect::<String>()
}
