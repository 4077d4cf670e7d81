//! Renders reports in headless Chromium, wide and narrow: no console error, every chart drawn with a size and usable by keyboard,
//! colours with contrast in both themes, nothing from the network. `probe.js` looks, and every check of it is seen to fail here.
//!
//! Without Chromium the tests say so and pass; `apt-get install chromium-headless-shell` makes them run.

use crate::cli::ReportArgs;
use crate::report::{self, html};
use crate::results::disk::FileSystem;
use crate::results::hlog::{Interval, Sparse};
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus, Metric, Placement};
use crate::results::testing::{self, TempDir};
use crate::results::writer::{Finished, Matrix, RunWriter};
use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What looks at the page from inside.
const PROBE: &str = include_str!("assets/probe.js");
/// Windows in which pages are looked at.
const WIDTHS: [u32; 2] = [1280, 390];

const NAMES: [&str; 5] =
    ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

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

/// What a made-up run is like.
struct Made<'a> {
    name: &'a str,
    lane: &'a str,
    /// Cores of its matrix.
    side: u64,
    boots: u32,
    /// What some of its medians are multiplied with, in percent.
    factor: u64,
}

impl Made<'_> {
    const PLAIN: Self = Made { name: "rich", lane: "tcg", side: 8, boots: 1, factor: 100 };

    /// Writes a run with every kind of section and chart.
    fn write(&self, root: &Path) -> PathBuf {
        let mut env = testing::env_file();
        let mut run = testing::run_file(self.name);
        (env.lane, run.lane) = (self.lane.to_owned(), self.lane.to_owned());
        (run.repeats, run.boots) = (self.boots, self.boots);
        env.git.commit = Some(format!("{:040}", self.factor));
        if let Some(target) = &mut env.target {
            target.cores.iter_mut().for_each(|core| core.node = core.id % 2);
        }
        let mut writer = RunWriter::create(FileSystem, root, run, env).unwrap();
        for boot in 0..self.boots {
            for mut finished in self.cases() {
                (finished.row.repeat, finished.row.boot) = (boot, boot);
                finished.row.lane = self.lane.to_owned();
                writer.case(finished).unwrap();
            }
        }
        writer.complete("2026-01-02T03:05:00Z".to_owned(), report::render).unwrap();
        writer.dir().to_owned()
    }

    fn cases(&self) -> Vec<Finished> {
        let mut cases = Vec::new();
        for (order, middle) in [(0, 40_000), (3, 52_000), (9, 90_000), (18, 640_000)] {
            for mem in ["local", "remote"] {
                cases.push(spread(
                    &format!("frame.alloc/order={order},mem={mem}"),
                    middle * self.factor / 100,
                    20_000,
                ));
            }
        }
        for (cores, middle) in [(1, 40_000), (2, 41_000), (4, 43_000), (8, 60_000)] {
            let mut finished = spread(&format!("frame.pair/order=0,cores={cores}"), middle, 3_000);
            let scaling = Placement { class: "scaling".to_owned(), cores, source: None, target: None };
            finished.row.placement = Some(scaling);
            cases.push(finished);
        }
        for (peer, middle) in [("", 3_000), (",peer=llfree", 38_000), (",peer=bitmap-allocator", 16_000)] {
            cases.push(spread(&format!("frame.peer/order=0{peer}"), middle, 3_000));
        }
        let mut finished = spread("c2c.cas/home=0", 200_000, 1_500);
        finished.row.metrics.push(Metric { name: "free".to_owned(), value: 9, unit: "count".to_owned() });
        finished.matrices.push(matrix(self.side));
        cases.push(finished);
        let mut failed = testing::row("ipi.bcast/cores=8");
        (failed.status, failed.reason) = (CaseStatus::Failed, Some("the kernel panicked".to_owned()));
        failed.log_tail =
            vec!["PANIC: M3: frame is free <script>".to_owned(), "  at mm/src/frames.rs:10".to_owned()];
        cases.push(Finished { row: failed, hist: None, interval: Interval::default(), matrices: Vec::new() });
        cases
    }
}

/// A page with everything: verdicts of an exact lane, curves of two sides, differences of matrices, history.
fn everything(root: &Path) -> String {
    let made = |name, factor| Made { name, lane: "icount", side: 8, boots: 2, factor }.write(root);
    let (base, new) = (made("20260102T030405Z-a", 100), made("20260103T030405Z-b", 130));
    let args = ReportArgs {
        runs: vec![new.display().to_string()],
        base: Some(base.display().to_string()),
        history: Some(Some(root.to_owned())),
        output: None,
        markdown: false,
        update_readme: false,
    };
    let sides = vec![report::open(&args.runs[0]).unwrap()];
    html::page(&report::page(&args, sides).unwrap()).unwrap()
}

fn one(root: &Path, made: &Made<'_>) -> String {
    report::render(&Run::open(&made.write(root)).unwrap()).unwrap().1
}

/// What is wrong with a page in a window of this width: what its console says, and what the probe found.
fn wrong(browser: &Path, dir: &Path, page: &str, width: u32) -> Vec<String> {
    let file = dir.join("probed.html");
    std::fs::write(&file, page.replace("</body>", &format!("<script>\n{PROBE}</script>\n</body>"))).unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("--window-size={width},900"))
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (dom, stderr) = (text(&output.stdout), text(&output.stderr));
    let mut wrong: Vec<String> =
        stderr.lines().filter(|line| line.contains("CONSOLE")).map(ToOwned::to_owned).collect();
    match dom.split_once("<pre id=\"probe\">").and_then(|(_, rest)| rest.split_once("</pre>")) {
        Some((found, _)) => {
            wrong.extend(found.lines().filter(|line| !line.is_empty()).map(ToOwned::to_owned));
        }
        None => wrong.push("the script did not reach its end".to_owned()),
    }
    wrong
}

#[test]
fn reports_render_without_errors() {
    let Some(browser) = browser() else {
        skipped("reports_render_without_errors");
        return;
    };
    let dir = TempDir::new("browser");
    let pages = [one(dir.path(), &Made::PLAIN), everything(&dir.path().join("sides"))];
    for (number, page) in pages.iter().enumerate() {
        keep(page, if number == 0 { "one" } else { "everything" });
        for width in WIDTHS {
            let wrong = wrong(&browser, dir.path(), page, width);
            assert!(wrong.is_empty(), "page {number}, {width} wide: {wrong:#?}");
        }
    }
    // Four benchmarks with percentile curves, one scaling curve, one matrix.
    assert_eq!(pages[0].matches("data-chart=").count(), 6);
    // A panel of curves for each of 16 cases, scaling, two matrices and their difference, and histories of what changed.
    assert_eq!(pages[1].matches("data-chart=").count(), 16 + 1 + 3 + 8);
}

/// The checks above must be able to fail: each of these pages is broken in one way.
#[test]
fn broken_pages_are_noticed() {
    let Some(browser) = browser() else {
        skipped("broken_pages_are_noticed");
        return;
    };
    let dir = TempDir::new("broken");
    let page = one(dir.path(), &Made::PLAIN);
    let breaks = [
        ("\"kind\":\"scaling\",\"series\":[{", "\"kind\":\"scaling\",\"series\":[{\"x\":1},{", "TypeError"),
        ("</main>", "<img src=\"http://127.0.0.1:9/x.png\" alt=\"\"></main>", "Content Security Policy"),
        ("</main>", "<p style=\"width: 5000px\">wide</p></main>", "wider than the window"),
        (".heat { display: block;", ".heat { display: none;", "has no size"),
        ("--soft: #545b66;", "--soft: #b5bcc6;", "contrast"),
        ("host.setAttribute(\"tabindex\", \"0\")", "host.dataset.not = \"0\"", "keyboard"),
        ("<summary>", "<summary tabindex=\"-1\">", "keyboard"),
        ("class=\"cmd\"", "class=\"gone\"", "no command"),
    ];
    for (from, to, says) in breaks {
        assert!(page.contains(from), "{from} is not in the page");
        let wrong = wrong(&browser, dir.path(), &page.replacen(from, to, usize::MAX), 1280);
        assert!(wrong.iter().any(|line| line.contains(says)), "{from}: {wrong:#?}");
    }
}

#[test]
fn the_largest_machine_stays_below_the_size_limit() {
    let dir = TempDir::new("large");
    let large = Made { side: 288, ..Made::PLAIN };
    let page = one(dir.path(), &large);
    assert!(page.len() < html::LIMIT && page.contains("data-chart=\"5\""), "{}", page.len());
    keep(&page, "large");
    // Two sides of it and the difference are shown, too: the page computes the difference.
    let other = Made { name: "other", side: 288, ..Made::PLAIN };
    let sides = [large.write(&dir.path().join("two")), other.write(&dir.path().join("two"))];
    let args = ReportArgs {
        runs: sides.iter().map(|dir| dir.display().to_string()).collect(),
        base: None,
        history: None,
        output: None,
        markdown: false,
        update_readme: false,
    };
    let sides = args.runs.iter().map(|names| report::open(names).unwrap()).collect();
    let page = html::page(&report::page(&args, sides).unwrap()).unwrap();
    assert!(page.len() < html::LIMIT && page.contains("difference"), "{}", page.len());
    keep(&page, "large-two");
}

/// Leaves a page where `KEEP_REPORT` says, for eyes.
fn keep(page: &str, name: &str) {
    if let Some(folder) = env::var_os("KEEP_REPORT") {
        std::fs::write(Path::new(&folder).join(format!("{name}.html")), page).unwrap();
    }
}
