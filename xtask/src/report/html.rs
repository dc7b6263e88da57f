//! The report for a browser: one file, no script, nothing fetched.

use super::facts::{Report, Table};
use super::pci::ALL_OF_MEMORY;
use std::fmt::Write;

const STYLE: &str = "body{font:16px/1.45 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #ccc;\
vertical-align:top;white-space:nowrap}td:last-child{white-space:normal;overflow-wrap:anywhere;min-width:14rem}.wide{overflow-x:auto}h1{overflow-wrap:anywhere}dd,li{overflow-wrap:anywhere}td{font-family:ui-monospace,monospace;font-size:.85rem}dt{font-weight:600}dd{margin:0 0 .4rem 1rem}\
.alarm{color:#b00020;font-weight:600}";

/// A whole page.
pub(super) fn render(report: &Report) -> String {
    let title = escape(&report.layout);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>Plan of {title}</title>\n<style>{STYLE}</style>\n<h1>Plan of {title}</h1>\n"
    );
    says(&mut out, &report.says);
    tables(&mut out, &report.tables);
    for domain in &report.domains {
        let _ = writeln!(out, "<h2>Domain {}</h2>", escape(&domain.name));
        for alarm in &domain.alarms {
            let _ = writeln!(out, "<p class=\"alarm\">{}</p>", escape(alarm));
        }
        says(&mut out, &domain.says);
        tables(&mut out, &domain.tables);
    }
    out += "<h2>What remains open</h2>\n<ul>\n";
    for text in &report.open {
        let _ = writeln!(out, "<li>{}</li>", escape(text));
    }
    out + "</ul>\n</html>\n"
}

fn says(out: &mut String, says: &[(&str, String)]) {
    *out += "<dl>\n";
    for (name, text) in says {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(text));
    }
    *out += "</dl>\n";
}

fn tables(out: &mut String, tables: &[Table]) {
    for table in tables.iter().filter(|table| !table.rows.is_empty()) {
        let _ = writeln!(out, "<h3>{}</h3>\n<div class=\"wide\">\n<table>", escape(&table.title));
        let row = |cells: Vec<String>, tag: &str| {
            let cell = |text: &String| {
                let class = if text == ALL_OF_MEMORY { " class=\"alarm\"" } else { "" };
                format!("<{tag}{class}>{}</{tag}>", escape(text))
            };
            let cells: Vec<_> = cells.iter().map(cell).collect();
            format!("<tr>{}</tr>\n", cells.concat())
        };
        *out += &row(table.heads.iter().map(|head| head.to_string()).collect(), "th");
        for cells in &table.rows {
            *out += &row(cells.clone(), "td");
        }
        *out += "</table>\n</div>\n";
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_marked_and_tables_scroll() {
        let page = render(&crate::report::tests::trusted());
        assert!(page.contains("<p class=\"alarm\">nic0 &lt;reads&gt; all</p>"), "{page}");
        assert!(page.contains(&format!("<td class=\"alarm\">{ALL_OF_MEMORY}</td>")), "{page}");
        assert!(page.contains("<td>nic0</td>") && page.contains("<li>nothing holds it</li>"), "{page}");
        assert_eq!(page.matches("<div class=\"wide\">").count(), page.matches("<table>").count());
        assert_eq!(page.matches("</table>\n</div>").count(), page.matches("<table>").count());
    }
}
