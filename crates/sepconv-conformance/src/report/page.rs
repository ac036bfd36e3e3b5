//! The page: plain HTML, its pictures inline.

use std::fmt::Write;

use super::Report;
use crate::cases::KINDS;
use crate::difference::Map;
use crate::run::{Record, Verdict};
use crate::tally::Counts;

const STYLE: &str = "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}\
    table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #bbb;padding:.2em .6em;text-align:right}\
    td:first-child,th:first-child{text-align:left}code{font-size:.9em;overflow-wrap:anywhere}\
    figure{display:inline-block;margin:0 2em 1em 0}svg{border:1px solid #888;background:#eef}\
    .failed{color:#b00}section{border-top:1px solid #bbb}";
/// Longest side of a picture, in pixels.
const SIDE: usize = 320;

pub fn page(report: &Report) -> String {
    let Report { tensorflow, mode, implementation, seed, records, .. } = report;
    let counts = Counts::of(*records);
    let summary = counts.summary();
    let title = escape(&format!("{implementation} against TensorFlow {tensorflow}"));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         </head>\n<body><h1>{title}</h1>\n<p>{}, seed {seed}: {summary}.</p>\n",
        escape(mode)
    );
    page += &table("mode", &[(mode.clone(), records.iter().collect())]);
    let by = |key: &dyn Fn(&Record) -> String| {
        let mut groups: Vec<(String, Vec<&Record>)> = Vec::new();
        for record in *records {
            let key = key(record);
            match groups.iter_mut().find(|(name, _)| *name == key) {
                Some((_, group)) => group.push(record),
                None => groups.push((key, vec![record])),
            }
        }
        groups
    };
    page += &table("dtype", &by(&|record| record.case.element.to_string()));
    let kinds =
        KINDS.iter().map(|(name, is)| (name.to_string(), records.iter().filter(|record| is(&record.case)).collect()));
    page += &table("kind of geometry", &kinds.collect::<Vec<_>>());
    page += "<p>A case can be of several kinds. What goes to TensorFlow has an order of sums that cannot be followed, for \
             the reason given.</p>\n";
    let failing = records.iter().filter(|record| matches!(record.outcome, Verdict::Failed { .. }));
    for (record, repeat) in failing.zip(&report.repeats) {
        page += &failure(record, repeat);
    }
    page + "</body></html>\n"
}

fn table(head: &str, groups: &[(String, Vec<&Record>)]) -> String {
    let mut table = format!(
        "<table><tr><th>{head}</th><th>cases</th><th>through the implementation</th><th>to TensorFlow</th><th>failed</th>\
         <th>why to TensorFlow</th></tr>\n"
    );
    for (name, records) in groups {
        let counts = Counts::of(records.iter().copied());
        let reasons: Vec<_> = counts.tensorflow.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td{}>{}</td><td>{}</td></tr>",
            escape(name),
            counts.all(),
            counts.passed,
            counts.left(),
            if counts.failed > 0 { " class=\"failed\"" } else { "" },
            counts.failed,
            escape(&reasons.join(", "))
        );
    }
    table + "</table>\n"
}

fn failure(record: &Record, repeat: &str) -> String {
    let Verdict::Failed { case, numerics, told } = &record.outcome else { return String::new() };
    let mut section = format!(
        "<section><h2 class=\"failed\">Failed</h2>\n<p><code>{}</code></p>\n<p>{}</p>\n",
        escape(&case.to_string()),
        escape(&told.why)
    );
    if let Some(numerics) = numerics {
        let _ = writeln!(section, "<p>Numerics: <code>{}</code></p>", escape(numerics));
    }
    if **case != record.case {
        let _ = writeln!(section, "<p>Found as <code>{}</code></p>", escape(&record.case.to_string()));
    }
    let _ = writeln!(section, "<p>Repeat it: <code>{}</code></p>", escape(repeat));
    if let Some(difference) = &told.difference {
        section += &picture(&difference.image, "image: height by width, over all images and channels");
        section += &picture(&difference.product, "product: output pixels of the whole batch by channels");
    }
    section + "</section>\n"
}

/// Redder cells have a larger share of elements that differ; even a small share is seen.
fn picture(map: &Map, caption: &str) -> String {
    let [rows, columns] = [map.cells.len(), map.cells.first().map_or(0, Vec::len)];
    let side = (SIDE / rows.max(columns).max(1)).max(2);
    let [width, height] = [columns * side, rows * side];
    let mut svg = format!("<svg width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{caption}\">");
    for (row, cells) in map.cells.iter().enumerate() {
        for (column, share) in cells.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            let _ = write!(
                svg,
                "<rect x=\"{}\" y=\"{}\" width=\"{side}\" height=\"{side}\" fill=\"#c00\" fill-opacity=\"{:.2}\"/>",
                column * side,
                row * side,
                0.25 + 0.75 * share
            );
        }
    }
    let [rows, columns] = map.extent;
    format!("<figure>{svg}</svg><figcaption>{caption} ({rows} by {columns})</figcaption></figure>\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use crate::cases::Case;
    use crate::compare::Told;
    use crate::difference::Difference;

    use super::*;

    #[test]
    fn a_failing_case_has_its_pictures_and_its_command() {
        let case = Case::given("f32 input 1,4,4,2 kernel 1,1 multiplier 1 columns 2 strides 1,1 padding same rate 1,1");
        let case = case.unwrap();
        let difference = Difference::between([1, 4, 4, 2], &[0.0; 32], &[[0.0; 30].as_slice(), &[1.0; 2]].concat());
        let told = Told { why: "a < b".into(), difference: difference.err() };
        let outcome = Verdict::Failed { case: Box::new(case.clone()), numerics: None, told };
        let records = [Record { index: 0, case, numerics: None, reason: None, outcome }];
        let report = Report {
            tensorflow: "2.21.0".into(),
            onednn: true,
            threads: 1,
            mode: "oneDNN on, 1 intra-op thread".into(),
            implementation: "crate".into(),
            seed: 1,
            records: &records,
            repeats: vec!["repeat 'this'".into()],
        };
        let page = page(&report);
        assert!(page.contains("0 passed, 1 failed") && page.contains("a &lt; b") && page.contains("repeat 'this'"));
        // The last pixel of sixteen, both of its channels.
        assert!(page.contains("<rect x=\"240\" y=\"240\" width=\"80\""), "{page}");
        assert_eq!(page.matches("<rect").count(), 3);
        assert!(!page.contains("http"), "nothing from elsewhere");
    }
}
