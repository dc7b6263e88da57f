//! The report for a terminal.

use super::facts::{Report, Table};
use std::fmt::Write;

/// Titles, sentences and columns; alarms in red where `colour` is shown.
pub(super) fn render(report: &Report, colour: bool) -> String {
    let (red, plain) = if colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let mut out = format!("Plan of {}\n", report.layout);
    says(&mut out, &report.says);
    tables(&mut out, &report.tables);
    for domain in &report.domains {
        let _ = write!(out, "\nDomain {}\n", domain.name);
        for alarm in &domain.alarms {
            let _ = writeln!(out, "  {red}! {alarm}{plain}");
        }
        says(&mut out, &domain.says);
        tables(&mut out, &domain.tables);
    }
    out += "\nWhat remains open\n";
    for text in &report.open {
        let _ = writeln!(out, "  - {text}");
    }
    out
}

fn says(out: &mut String, says: &[(&str, String)]) {
    for (name, text) in says {
        let _ = writeln!(out, "  {name:<20}{text}");
    }
}

fn tables(out: &mut String, tables: &[Table]) {
    for table in tables.iter().filter(|table| !table.rows.is_empty()) {
        let _ = writeln!(out, "\n  {}", table.title);
        let heads: Vec<String> = table.heads.iter().map(|head| head.to_string()).collect();
        let lines = || std::iter::once(&heads).chain(&table.rows);
        let width = |column: usize| {
            lines().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..heads.len()).map(width).collect();
        for row in lines() {
            let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let _ = writeln!(out, "    {}", cells.join("  ").trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_red_where_there_is_colour() {
        let report = crate::report::tests::trusted();
        let plain = render(&report, false);
        assert!(plain.contains("\nDomain a\n  ! nic0 <reads> all\n"), "{plain}");
        assert!(plain.ends_with("\nWhat remains open\n  - nothing holds it\n"), "{plain}");
        let coloured = render(&report, true);
        assert!(coloured.contains("\n  \x1b[1;31m! nic0 <reads> all\x1b[0m\n"), "{coloured}");
        assert_eq!(coloured.replace("\x1b[1;31m", "").replace("\x1b[0m", ""), plain);
    }
}
