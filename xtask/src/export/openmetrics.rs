//! OpenMetrics text 1.0: a summary for each unit, whose name ends with it as the specification asks, and gauges about the run.
//!
//! Time is in seconds and a share in ratios, the base units of the specification; instructions, ticks and bytes are what they are.

use crate::report::float;
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus};
use std::collections::BTreeMap;

/// The whole file.
pub(super) fn render(run: &Run) -> String {
    let mut text = String::new();
    about(run, &mut text);
    let mut families: BTreeMap<&str, Vec<&CaseRow>> = BTreeMap::new();
    for row in run.rows.iter().filter(|row| row.status == CaseStatus::Ok) {
        families.entry(family(row.unit.as_deref().unwrap_or_default()).0).or_default().push(row);
    }
    for (unit, rows) in families {
        let name = format!("nearfield_case_{unit}");
        text.push_str(&format!(
            "# TYPE {name} summary\n# UNIT {name} {unit}\n# HELP {name} Cost of one operation.\n"
        ));
        rows.iter().for_each(|row| summary(run, &name, row, &mut text));
    }
    text.push_str("# EOF\n");
    text
}

fn about(run: &Run, text: &mut String) {
    let file = &run.run;
    let commit = run.env.git.commit.as_deref().unwrap_or("none");
    let facts = [
        ("run", file.id.as_str()),
        ("lane", &file.lane),
        ("machine", &file.machine),
        ("commit", commit),
        ("profile", &file.profile),
        ("started", &file.started),
    ];
    text.push_str("# TYPE nearfield_run info\n# HELP nearfield_run What was run.\n");
    text.push_str(&format!("nearfield_run_info{} 1\n", labels(&facts)));
    text.push_str(
        "# TYPE nearfield_run_complete gauge\n# HELP nearfield_run_complete 0 if the run is incomplete.\n",
    );
    text.push_str(&format!(
        "nearfield_run_complete{} {}\n",
        labels(&facts[..3]),
        u8::from(run.is_complete())
    ));
    text.push_str("# TYPE nearfield_case_ok gauge\n# HELP nearfield_case_ok 0 if the case has no figures.\n");
    for row in &run.rows {
        let ok = u8::from(row.status == CaseStatus::Ok);
        text.push_str(&format!("nearfield_case_ok{} {ok}\n", case(run, row, &[])));
    }
}

fn summary(run: &Run, name: &str, row: &CaseRow, text: &mut String) {
    let unit = row.unit.as_deref().unwrap_or_default();
    let quantiles = [
        ("0.0", row.min),
        ("0.5", row.p50),
        ("0.9", row.p90),
        ("0.99", row.p99),
        ("0.999", row.p999),
        ("0.9999", row.p9999),
        ("1.0", row.max),
    ];
    for (quantile, value) in quantiles {
        let Some(value) = value else { continue };
        let value = float(value) / family(unit).1;
        text.push_str(&format!("{name}{} {value:?}\n", case(run, row, &[("quantile", quantile)])));
    }
    text.push_str(&format!("{name}_count{} {}\n", case(run, row, &[]), row.n));
}

/// The unit as it ends a name, and how many recorded ones make one of it.
fn family(unit: &str) -> (&'static str, f64) {
    match unit {
        "ps" => ("seconds", 1e12),
        "milliticks" => ("ticks", 1e3),
        "milliinstructions" => ("instructions", 1e3),
        "bytes" => ("bytes", 1.0),
        "millionths" => ("ratio", 1e6),
        _ => ("things", 1.0),
    }
}

fn case(run: &Run, row: &CaseRow, more: &[(&str, &str)]) -> String {
    let (version, repeat) = (row.version.to_string(), row.repeat.to_string());
    let complete = run.is_complete().to_string();
    let mut facts = vec![
        ("case", row.id.as_str()),
        ("version", &version),
        ("lane", &row.lane),
        ("machine", &run.run.machine),
        ("complete", &complete),
        ("repeat", &repeat),
    ];
    facts.extend(more);
    labels(&facts)
}

fn labels(facts: &[(&str, &str)]) -> String {
    let one = |&(name, value): &(&str, &str)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    format!("{{{}}}", facts.iter().map(one).collect::<Vec<_>>().join(","))
}
