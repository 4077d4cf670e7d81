//! Renders a report in headless Chromium: no console error, every chart drawn with a size.
//!
//! Without Chromium the test says so and passes; `apt-get install chromium` makes it run.

use crate::report;
use crate::results::disk::FileSystem;
use crate::results::hlog::{Interval, Sparse};
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus, Placement};
use crate::results::testing::{self, TempDir};
use crate::results::writer::{Finished, Matrix, RunWriter};
use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const NAMES: [&str; 5] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

fn browser() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    NAMES.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// Says so past the output that libtest keeps of passed tests; `cargo xtask test` counts these lines.
fn skipped(test: &str) {
    // A closed pipe leaves nobody to tell.
    let _ = writeln!(io::stderr(), "skipped: {test}: no Chromium in PATH");
}

/// A row whose samples spread around `middle` with a tail.
fn spread(id: &str, middle: u64, n: u64) -> Finished {
    let mut counts = std::collections::BTreeMap::new();
    for sample in 0..n {
        // A fixed sequence with a long tail: 1/u for u evenly spread.
        let tail = n / (sample + 1);
        *counts.entry(middle + middle * tail.min(400) / 40 + (sample * 7919) % (middle / 8)).or_insert(0) +=
            1;
    }
    let hist = Sparse { digits: 3, counts: counts.into_iter().collect() };
    let known = hist.histogram().unwrap();
    let at = |share: f64| Some(known.value_at_quantile(share));
    let row = CaseRow {
        n,
        min: Some(known.min()),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        max: Some(known.max()),
        mean: Some(middle + middle / 10),
        ..testing::row(id)
    };
    Finished { row, hist: Some(hist), interval: Interval::default(), matrices: Vec::new() }
}

fn matrix(side: u64) -> Matrix {
    let cell = |row: u64, col: u64| {
        let far = u64::from(row % 2 != col % 2);
        (row != col).then_some(180_000 + 260_000 * far + 3_000 * ((row * 7 + col * 3) % 11))
    };
    Matrix {
        name: "round trip".to_owned(),
        unit: "milliticks".to_owned(),
        row_axis: "source core".to_owned(),
        col_axis: "target core".to_owned(),
        rows: (0..side).collect(),
        cols: (0..side).collect(),
        cells: (0..side).flat_map(|row| (0..side).map(move |col| cell(row, col))).collect(),
    }
}

/// A run with every kind of section and chart.
fn rich(root: &Path, side: u64) -> PathBuf {
    let mut env = testing::env_file();
    if let Some(target) = &mut env.target {
        target.cores.iter_mut().for_each(|core| core.node = core.id % 2);
    }
    let mut writer = RunWriter::create(FileSystem, root, testing::run_file("rich"), env).unwrap();
    for (order, middle) in [(0, 40_000), (3, 52_000), (9, 90_000), (18, 640_000)] {
        for mem in ["local", "remote"] {
            writer.case(spread(&format!("frame.alloc/order={order},mem={mem}"), middle, 20_000)).unwrap();
        }
    }
    for (cores, middle) in [(1, 40_000), (2, 41_000), (4, 43_000), (8, 60_000)] {
        let mut finished = spread(&format!("frame.pair/order=0,cores={cores}"), middle, 3_000);
        let scaling = Placement { class: "scaling".to_owned(), cores, source: None, target: None };
        finished.row.placement = Some(scaling);
        writer.case(finished).unwrap();
    }
    for (peer, middle) in [("", 3_000), (",peer=llfree", 38_000), (",peer=bitmap-allocator", 16_000)] {
        writer.case(spread(&format!("frame.peer/order=0{peer}"), middle, 3_000)).unwrap();
    }
    let mut finished = spread("c2c.cas/home=0", 200_000, 1_500);
    finished.matrices.push(matrix(side));
    writer.case(finished).unwrap();
    let mut failed = testing::row("ipi.bcast/cores=8");
    (failed.status, failed.reason) = (CaseStatus::Failed, Some("the kernel panicked".to_owned()));
    failed.log_tail =
        vec!["PANIC: M3: frame is free <script>".to_owned(), "  at mm/src/frames.rs:10".to_owned()];
    writer
        .case(Finished { row: failed, hist: None, interval: Interval::default(), matrices: Vec::new() })
        .unwrap();
    writer.complete("2026-01-02T03:05:00Z".to_owned(), report::render).unwrap();
    writer.dir().to_owned()
}

/// The page after its scripts ran, and what the console said.
fn rendered(browser: &Path, page: &Path, profile: &Path) -> (String, String) {
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
        ])
        .args(["--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stderr = text(&output.stderr);
    let console = stderr.lines().filter(|line| line.contains("CONSOLE")).collect::<Vec<_>>().join("\n");
    (text(&output.stdout), console)
}

/// Sizes of the canvases in a page.
fn canvases(dom: &str) -> Vec<(u32, u32)> {
    let attribute = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
        rest.split('"').next()?.parse::<f64>().ok().map(|value| value.round() as u32)
    };
    dom.split("<canvas")
        .skip(1)
        .map(|rest| {
            let tag = rest.split('>').next().unwrap_or_default();
            (attribute(tag, "width").unwrap_or(0), attribute(tag, "height").unwrap_or(0))
        })
        .collect()
}

#[test]
fn the_report_renders_without_errors() {
    let Some(browser) = browser() else {
        skipped("the_report_renders_without_errors");
        return;
    };
    let dir = TempDir::new("browser");
    let page = report::write(&Run::open(&rich(dir.path(), 8)).unwrap()).unwrap();
    let (dom, console) = rendered(&browser, &page, &dir.path().join("profile"));
    assert_eq!(console, "", "the console must stay empty");
    assert!(dom.contains("data-ready=\"yes\""), "the script did not reach its end");
    let sizes = canvases(&dom);
    // Four benchmarks with percentile curves, one scaling curve, one matrix.
    assert_eq!(sizes.len(), 6, "{sizes:?}");
    assert!(sizes.iter().all(|&(width, height)| width > 200 && height > 200), "{sizes:?}");
}

/// The check above must be able to fail: a broken page is noticed.
#[test]
fn a_broken_page_is_noticed() {
    let Some(browser) = browser() else {
        skipped("a_broken_page_is_noticed");
        return;
    };
    let dir = TempDir::new("broken");
    let page = report::write(&Run::open(&rich(dir.path(), 8)).unwrap()).unwrap();
    let text = std::fs::read_to_string(&page).unwrap().replace("\"scaling\":[{", "\"scaling\":[{\"x\":1},{");
    std::fs::write(&page, text).unwrap();
    let (dom, console) = rendered(&browser, &page, &dir.path().join("profile"));
    assert!(console.contains("TypeError"), "{console}");
    assert!(!dom.contains("data-ready=\"yes\""));
}

#[test]
fn the_largest_machine_stays_below_the_size_limit() {
    let dir = TempDir::new("large");
    let page = report::write(&Run::open(&rich(dir.path(), 288)).unwrap()).unwrap();
    let size = std::fs::metadata(&page).unwrap().len();
    assert!(size < 2 << 20, "{size}");
    if let Some(keep) = env::var_os("KEEP_REPORT") {
        std::fs::copy(&page, Path::new(&keep).join("large.html")).unwrap();
        let small = report::write(&Run::open(&rich(&dir.path().join("small"), 8)).unwrap()).unwrap();
        std::fs::copy(&small, Path::new(&keep).join("small.html")).unwrap();
    }
}
