//! Exports and interval logs read by programs of others: `prometheus_client`, and HdrHistogram in Python and in Java.
//!
//! `cargo xtask setup --readers` gets them. A test whose reader is not here is skipped, and says so.

use super::consumer_tests::run;
use super::{Format, hgrm, render};
use crate::results::testing::TempDir;
use crate::setup::readers;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

/// The line goes past the output that libtest keeps of passed tests: `cargo xtask test` counts these lines.
fn skipped(lacking: &str) {
    // A closed pipe leaves nobody to tell.
    let _ = writeln!(
        io::stderr(),
        "skipped: an export read by its reference reader: no {lacking}; `{}` gets it",
        readers::COMMAND
    );
}

/// Runs a Python program where there are the modules it needs: as `NEARFIELD_PYTHON` names, or as installed, or the system's.
fn python(modules: &str, program: &str, path: &Path) -> Option<String> {
    let named = std::env::var_os("NEARFIELD_PYTHON");
    let installed = readers::program("python").map(OsString::from);
    let able = |python: &OsString| {
        let probe = Command::new(python).args(["-c", &format!("import {modules}")]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    let candidates = match named {
        Some(named) => vec![named],
        None => installed.into_iter().chain([OsString::from("python3")]).collect(),
    };
    let Some(python) = candidates.into_iter().find(able) else {
        skipped(&format!("python3 with {modules}"));
        return None;
    };
    Some(said_by(Command::new(&python).arg("-c").arg(program).arg(path)))
}

fn said_by(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Planted: a quote in a label is not escaped; a family is named without its unit.
#[test]
fn the_reference_parser_of_openmetrics_reads_every_sample() {
    let dir = TempDir::new("export-openmetrics");
    let path = dir.path().join("run.txt");
    std::fs::write(&path, render(&run(&dir, true), Format::OpenMetrics).unwrap()).unwrap();
    let program = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
for family in parse(open(sys.argv[1]).read()):
    for sample in family.samples:
        labels = sample.labels
        print(family.type, family.unit, sample.name, labels.get('case'), labels.get('quantile'), labels.get('repeat'), sample.value)
";
    let Some(said) = python("prometheus_client.openmetrics.parser", program, &path) else { return };
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.contains(&"summary ticks nearfield_case_ticks a.b/x=1 0.5 1 0.27"), "{said}");
    assert!(lines.contains(&"summary ticks nearfield_case_ticks_count a.b/x=1 None 0 1500"), "{said}");
    assert!(
        lines.iter().any(|line| line.contains("nearfield_case_ratio a.rate/x=1,y=\"quoted\\\" 1.0 0 0.0005")),
        "{said}"
    );
    assert_eq!(lines.iter().filter(|line| line.contains("nearfield_case_ok b ")).count(), 2);
}

#[test]
fn hdrhistogram_in_python_opens_interval_logs() {
    let dir = TempDir::new("export-hlog");
    let run = run(&dir, true);
    let program = "
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 2 ** 40, 3))
while True:
    one = reader.get_next_interval_histogram()
    if one is None:
        break
    print(one.get_total_count(), one.get_value_at_percentile(50), one.get_value_at_percentile(99), one.get_max_value())
";
    let log = run.dir.join("hist/a.b~x=1.hlog");
    let Some(said) = python("hdrh.log", program, &log) else { return };
    assert_eq!(said, "1500 250 495 500\n1500 250 495 500\n");
}

/// The lines of a percentile distribution: value, percentile, count.
fn distribution(text: &str) -> Vec<(f64, f64, f64)> {
    let numbers = |line: &str| -> Option<(f64, f64, f64)> {
        let mut words = line.split_whitespace().map(str::parse::<f64>);
        Some((words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?))
    };
    text.lines().filter_map(numbers).collect()
}

/// The reference implementation makes of a log what we write as `hgrm`, line by line; it adds the two equal intervals up.
///
/// Planted: `hgrm` divides by another unit; it has six points for each halving.
#[test]
fn hdrhistogram_in_java_makes_our_distribution_of_our_log() {
    let dir = TempDir::new("export-hlog-java");
    let run = run(&dir, true);
    let Some(archive) = readers::java_archive() else { return skipped("java with HdrHistogram's archive") };
    let mut java = Command::new("java");
    java.arg("-cp").arg(archive).arg("org.HdrHistogram.HistogramLogProcessor");
    java.args(["-outputValueUnitRatio", "1000", "-i"]).arg(run.dir.join("hist/a.b~x=1.hlog"));
    let (theirs, ours) = (distribution(&said_by(&mut java)), hgrm::files(&run).unwrap());
    let ours = distribution(&ours.iter().find(|(name, _)| name == "a.b~x=1+boot0.hgrm").unwrap().1);
    let doubled: Vec<_> = ours.iter().map(|&(value, share, count)| (value, share, 2.0 * count)).collect();
    assert!(theirs.len() > 40);
    assert_eq!(theirs, doubled);
}
