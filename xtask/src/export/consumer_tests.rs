//! Each format is read back as what it is made for reads it: by its schema, a parser, or the fields and types that its reader asks for.
//! Readers that are programs of others: `reader_tests.rs`. Bencher, github-action-benchmark and JMH Visualizer are in no registry.

use super::{Format, hgrm, lacking, render};
use crate::report;
use crate::results::disk::FileSystem;
use crate::results::reader::Run;
use crate::results::schema::{CaseStatus, Direction};
use crate::results::testing::{self, TempDir};
use crate::results::writer::{Finished, RunWriter};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Two boots of three cases: one that should be small, one that should be great, one that failed and says why at length.
pub(super) fn run(dir: &TempDir, complete: bool) -> Run {
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

/// JMH Visualizer (`parse.js`, `parseBenchmarkBundles`) makes `method key=value …` of an entry and takes that apart again at spaces and `=`; two
/// entries of one such name are two runs to it. What stands before the last dot is the class. github-action-benchmark makes one point of
/// `benchmark` and `params`, and the last of equal ones wins.
///
/// Planted: no parameter `boot`; a parameter with a space.
#[test]
fn what_reads_jmh_can_tell_entries_apart() {
    let dir = TempDir::new("export-jmh-names");
    let entries: Vec<JmhEntry> =
        serde_json::from_str(&render(&run(&dir, true), Format::Jmh).unwrap()).unwrap();
    let mut names = BTreeSet::new();
    for entry in &entries {
        let (class, method) = entry.benchmark.rsplit_once('.').unwrap();
        assert!(!class.is_empty() && !method.is_empty() && !entry.benchmark.contains(' '));
        for (key, value) in &entry.params {
            assert!(!key.contains([' ', '=']) && !value.contains([' ', '=']), "{key}={value}");
        }
        assert!(names.insert((&entry.benchmark, &entry.params)), "twice: {}", entry.benchmark);
    }
}

/// `BenchmarkResult` of github-action-benchmark's `extract.ts`, with its types.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GhaEntry {
    name: String,
    value: f64,
    range: Option<String>,
    unit: String,
    extra: Option<String>,
}

/// It finds an entry of an earlier commit by its name, and refuses a file without entries.
///
/// Planted: `value` is a string; two entries of one name.
#[test]
fn github_action_benchmark_finds_the_types_it_asks_for() {
    let dir = TempDir::new("export-gha-types");
    let run = run(&dir, true);
    for format in [Format::Gha, Format::GhaBigger] {
        let text = render(&run, format).unwrap();
        let entries: Vec<GhaEntry> = serde_json::from_str(&text).unwrap();
        assert!(
            lacking(&text, format).is_none() && lacking(&super::pretty(&[(); 0]).unwrap(), format).is_some()
        );
        let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert!(!entries.is_empty() && names.len() == entries.len(), "{names:?}");
        for entry in &entries {
            assert!(entry.value.is_finite() && entry.value >= 0.0 && !entry.unit.is_empty());
            assert!(entry.range.as_deref() != Some("") && entry.extra.is_some());
        }
    }
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
