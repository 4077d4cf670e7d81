//! Each format is read back by what it is made for: a schema, a parser, or the structure of the tool that reads it.

use super::{Format, hgrm, render};
use crate::report;
use crate::results::disk::FileSystem;
use crate::results::reader::Run;
use crate::results::schema::{CaseStatus, Direction};
use crate::results::testing::{self, TempDir};
use crate::results::writer::{Finished, RunWriter};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

/// Two boots of three cases: one that should be small, one that should be great, one that failed and says why at length.
fn run(dir: &TempDir, complete: bool) -> Run {
    let mut file = testing::run_file("r");
    file.repeats = 2;
    let mut writer = RunWriter::create(FileSystem, dir.path(), file, testing::env_file()).unwrap();
    for (repeat, median) in [(0, 250), (1, 270)] {
        let mut small = testing::finished("a.b/x=1");
        (small.row.repeat, small.row.boot, small.row.p50) = (repeat, repeat, Some(median));
        writer.case(small).unwrap();
        let mut great = testing::finished("a.rate/x=1,y=\"quoted\\\"");
        (great.row.repeat, great.row.boot, great.row.direction) = (repeat, repeat, Some(Direction::Greater));
        great.row.unit = Some("millionths".to_owned());
        writer.case(great).unwrap();
        let mut row = testing::row("b");
        (row.repeat, row.status, row.unit) = (repeat, CaseStatus::Failed, None);
        row.reason = Some("it said \"no\",\nand meant it".to_owned());
        writer
            .case(Finished { row, hist: None, interval: Default::default(), matrices: Vec::new() })
            .unwrap();
    }
    if complete {
        writer.complete("2026-01-02T03:05:00Z".to_owned(), report::render).unwrap();
    }
    Run::open(writer.dir()).unwrap()
}

fn value(run: &Run, format: Format) -> Value {
    serde_json::from_str(&render(run, format).unwrap()).unwrap()
}

#[test]
fn every_word_is_a_format() {
    assert!(Format::WORDS.iter().all(|word| Format::parse(word).is_some()));
    assert_eq!(Format::parse("xml"), None);
}

#[test]
fn csv_reads_back_cell_by_cell() {
    let dir = TempDir::new("export-csv");
    let text = render(&run(&dir, true), Format::Csv).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 6);
    let cell = |row: usize, column: &str| rows[row][column].as_str();
    assert_eq!((cell(0, "id"), cell(0, "unit"), cell(0, "p50")), ("a.b/x=1", "milliticks", "250"));
    assert_eq!((cell(3, "p50"), cell(3, "boot"), cell(3, "complete")), ("270", "1", "true"));
    assert_eq!((cell(2, "status"), cell(2, "reason")), ("failed", "it said \"no\",\nand meant it"));
    assert_eq!((cell(2, "p50"), cell(0, "lane"), cell(0, "p99.9")), ("", "tcg", ""));
}

/// The schema that Bencher publishes as bencher.dev/bmf.json.
fn bmf_schema() -> Value {
    let number = json!({ "type": "number" });
    json!({
        "$schema": "http://json-schema.org/draft-07/schema",
        "type": "object",
        "patternProperties": { ".+": { "type": "object", "patternProperties": { ".+": {
            "type": "object",
            "properties": { "value": number, "lower_value": number, "upper_value": number },
            "required": ["value"],
        }}}},
    })
}

#[test]
fn bmf_satisfies_its_schema() {
    let dir = TempDir::new("export-bmf");
    let value = value(&run(&dir, true), Format::Bmf);
    let validator = jsonschema::draft7::new(&bmf_schema()).unwrap();
    assert!(validator.is_valid(&value), "{value}");
    assert!(!validator.is_valid(&json!({ "a": { "b": { "lower_value": 1 } } })), "the schema checks nothing");
    let p50 = &value["tcg/qemu-q35-8c2n/a.b/x=1/v1"]["p50-ticks"];
    assert_eq!(*p50, json!({ "value": 0.27, "lower_value": 0.25, "upper_value": 0.27 }));
    // Limits of Bencher: 1,024 characters for a benchmark, 64 for a measure.
    let names = value.as_object().unwrap();
    assert!(names.keys().all(|name| name.len() <= 1024) && names.len() == 2);
    assert!(names.values().all(|of| of.as_object().unwrap().keys().all(|name| name.len() <= 64)));
}

/// What JMH's `JSONResultFormat` writes, and its readers ask for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JmhEntry {
    benchmark: String,
    mode: String,
    threads: u32,
    forks: u32,
    warmup_iterations: u32,
    warmup_time: String,
    warmup_batch_size: u32,
    measurement_iterations: u32,
    measurement_time: String,
    measurement_batch_size: u32,
    params: BTreeMap<String, String>,
    primary_metric: JmhMetric,
    secondary_metrics: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JmhMetric {
    score: f64,
    score_error: Value,
    score_confidence: [Value; 2],
    score_percentiles: BTreeMap<String, f64>,
    score_unit: String,
    raw_data_histogram: Vec<Vec<Vec<(f64, u64)>>>,
}

#[test]
fn jmh_has_the_structure_of_jmh() {
    let dir = TempDir::new("export-jmh");
    let text = render(&run(&dir, true), Format::Jmh).unwrap();
    let entries: Vec<JmhEntry> = serde_json::from_str(&text).unwrap();
    assert_eq!(entries.len(), 4);
    let first = &entries[0];
    assert_eq!(
        (first.benchmark.as_str(), first.mode.as_str(), first.threads),
        ("nearfield.tcg.a.b", "sample", 1)
    );
    assert_eq!((first.params["x"].as_str(), first.params["boot"].as_str()), ("1", "0"));
    assert_eq!((first.forks, first.measurement_iterations, first.warmup_iterations), (1, 1, 100));
    assert_eq!((first.warmup_batch_size, first.measurement_batch_size), (1, 1));
    assert_eq!(first.warmup_time, first.measurement_time);
    assert!(first.secondary_metrics.is_empty());
    let metric = &first.primary_metric;
    assert_eq!((metric.score, metric.score_unit.as_str()), (0.25, "ticks/op"));
    assert_eq!((metric.score_percentiles["50.0"], metric.score_percentiles["100.0"]), (0.25, 0.5));
    assert!(!metric.score_percentiles.contains_key("99.9"), "too few samples for it");
    assert_eq!(metric.score_error, metric.score_confidence[0]);
    let counts: u64 = metric.raw_data_histogram.iter().flatten().flatten().map(|(_, count)| count).sum();
    assert_eq!(counts, 1500);
    assert_eq!(metric.raw_data_histogram[0][0][0], (0.001, 3));
}

#[test]
fn github_action_benchmark_finds_its_fields_and_no_direction_is_mixed() {
    let dir = TempDir::new("export-gha");
    let run = run(&dir, true);
    let small = value(&run, Format::Gha);
    assert_eq!(small.as_array().unwrap().len(), 1);
    let entry = &small[0];
    assert_eq!((&entry["name"], &entry["unit"]), (&json!("tcg/qemu-q35-8c2n/a.b/x=1/v1"), &json!("ticks")));
    assert_eq!((&entry["value"], &entry["range"]), (&json!(0.27), &json!("0.25 to 0.27")));
    let great = value(&run, Format::GhaBigger);
    assert_eq!((great.as_array().unwrap().len(), &great[0]["unit"]), (1, &json!("percent")));
}

/// Planted: the names of incomplete runs equal those of complete ones; CSV says `true` always.
#[test]
fn an_incomplete_run_says_so_in_every_format() {
    let dirs = [TempDir::new("export-whole"), TempDir::new("export-part")];
    let (whole, part) = (run(&dirs[0], true), run(&dirs[1], false));
    for format in [Format::Bmf, Format::Jmh, Format::Gha, Format::GhaBigger] {
        let (whole, part) = (render(&whole, format).unwrap(), render(&part, format).unwrap());
        let marked = |text: &str| {
            text.matches("\"incomplete/").count() + text.matches("nearfield.incomplete.").count()
        };
        assert!(marked(&part) > 0 && marked(&whole) == 0, "{format:?}");
        assert_eq!(
            marked(&part),
            part.matches("tcg/qemu").count() + part.matches("tcg.a").count(),
            "{format:?}"
        );
    }
    assert!(!render(&part, Format::Csv).unwrap().contains(",true,"));
    assert!(render(&part, Format::Markdown).unwrap().contains("incomplete"));
    let metrics = render(&part, Format::OpenMetrics).unwrap();
    assert!(metrics.contains("nearfield_run_complete{run=\"r\",lane=\"tcg\",machine=\"qemu-q35-8c2n\"} 0\n"));
    assert!(!metrics.contains("complete=\"true\""));
    assert!(hgrm::files(&part).unwrap().iter().all(|(_, text)| text.contains("INCOMPLETE")));
    assert!(hgrm::files(&whole).unwrap().iter().all(|(_, text)| !text.contains("INCOMPLETE")));
}

#[test]
fn distributions_end_at_the_maximum_and_count_everything() {
    let dir = TempDir::new("export-hgrm");
    let files = hgrm::files(&run(&dir, true)).unwrap();
    assert_eq!(files.iter().map(|(name, _)| name.as_str()).next(), Some("a.b~x=1+boot0.hgrm"));
    // As HdrHistogram's plotter reads it: lines that do not begin with `#` and have four columns, behind the head.
    let lines: Vec<Vec<f64>> = files[0]
        .1
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        .collect();
    let points: Vec<&Vec<f64>> = lines.iter().filter(|columns| columns.len() >= 3).collect();
    assert!(points.is_sorted_by(|a, b| a[1] <= b[1] && a[0] <= b[0] && a[2] <= b[2]));
    let last = points.last().unwrap();
    assert_eq!((last[0], last[1], last[2]), (0.5, 1.0, 1500.0));
    assert!(points.iter().any(|point| point.len() == 4 && point[1] == 0.5 && point[0] == 0.25));
}

/// Runs a Python program if that has the modules it needs; `NEARFIELD_PYTHON` names another interpreter.
fn python(modules: &str, program: &str, path: &Path) -> Option<String> {
    let python = std::env::var_os("NEARFIELD_PYTHON").unwrap_or_else(|| "python3".into());
    let probe = Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        // Past the output that libtest keeps of passed tests: `cargo xtask test` counts these lines.
        let _ = writeln!(
            io::stderr(),
            "skipped: an export read by its reference reader: no python3 with {modules}"
        );
        return None;
    }
    let output = Command::new(&python).arg("-c").arg(program).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
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

/// The interval log, and with `hdrh` the distribution that it makes of it beside ours.
#[test]
fn the_reference_reader_opens_histogram_logs() {
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
