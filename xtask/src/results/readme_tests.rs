//! The examples of `results/README.md` run, and say what is true.

use crate::report;
use crate::results::disk::FileSystem;
use crate::results::testing::{self, TempDir};
use crate::results::writer::RunWriter;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const README: &str = include_str!("../../../results/README.md");

/// The code blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

fn sample(dir: &TempDir) -> PathBuf {
    let mut writer =
        RunWriter::create(FileSystem, dir.path(), testing::run_file("r"), testing::env_file()).unwrap();
    writer.case(testing::finished("a.b/x=1")).unwrap();
    let mut other = testing::finished("a.b/x=1");
    other.row.repeat = 1;
    if let Some(hist) = &mut other.hist {
        hist.counts = vec![(0, 1), (2_046, 2), (2_050, 300), (1 << 40, 70_000)];
    }
    writer.case(other).unwrap();
    writer.complete("2026-01-02T03:05:00Z".to_owned(), report::render).unwrap();
    writer.dir().to_owned()
}

/// Runs code in an interpreter; `None`, with a line about it, where there is none.
fn interpret(program: &str, flag: &str, code: &str, run: &Path) -> Option<String> {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        // Past the output that libtest keeps of passed tests: `cargo xtask test` counts these lines. A closed pipe
        // leaves nobody to tell.
        let _ = writeln!(io::stderr(), "skipped: an example of results/README.md: no {program}");
        return None;
    }
    let shell = if program == "jq" { "bash" } else { program };
    let Output { status, stdout, stderr } =
        Command::new(shell).arg(flag).arg(code).env("RUN", run).output().unwrap();
    assert!(status.success(), "{code}\n{}", String::from_utf8_lossy(&stderr));
    Some(String::from_utf8(stdout).unwrap())
}

#[test]
fn the_shell_examples_work() {
    let dir = TempDir::new("readme-sh");
    let run = sample(&dir);
    let examples = blocks("sh");
    assert_eq!(examples.len(), 3);
    let said: Vec<Option<String>> = examples.iter().map(|code| interpret("jq", "-c", code, &run)).collect();
    let Some(medians) = &said[0] else { return };
    assert_eq!(medians, "a.b/x=1\tmilliticks\t250\na.b/x=1\tmilliticks\t250\n");
    assert_eq!((said[1].as_deref(), said[2].as_deref()), (Some(""), Some("")));
    std::fs::write(run.join("serial.log"), "grown").unwrap();
    let damaged = interpret("jq", "-c", examples[2], &run);
    assert_eq!(damaged.as_deref(), Some("damaged: serial.log\n"));
}

#[test]
fn the_python_example_decodes_every_count() {
    let dir = TempDir::new("readme-py");
    let run = sample(&dir);
    let code = blocks("python")[0];
    let dump =
        "\nprint([sorted(counts.items()) for counts in histograms(f\"{run}/{row['hist']['file']}\")][1])\n";
    let Some(said) = interpret("python3", "-c", &format!("{code}{dump}"), &run) else { return };
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "a.b/x=1 n = 1500 lowest bucket = 1");
    assert_eq!(lines[1], "a.b/x=1 source × target 2 by 2");
    assert_eq!(lines[2], "a.b/x=1 n = 70303 lowest bucket = 0");
    assert_eq!(lines[4], "[(0, 1), (2046, 2), (2050, 300), (1099511627776, 70000)]");
}
