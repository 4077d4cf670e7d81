//! The instruction gate: what it lets pass, what it refuses, and what it says.

use super::{bless, change, figures, judge};
use crate::compare::schema::{BaselineCase, Verdict};
use crate::compare::side::Side;
use crate::compare::testing::{row, run, side};
use crate::results::schema::{CaseRow, CaseStatus, Direction};

fn counted(id: &str, boot: u32, p50: u64) -> CaseRow {
    CaseRow { unit: Some("milliinstructions".to_owned()), ..row(id, boot, p50) }
}

/// Two boots of these cases.
fn two(cases: &[(&str, u64)]) -> Side {
    let rows = (0..2).flat_map(|boot| cases.iter().map(move |&(id, p50)| counted(id, boot, p50)));
    side(vec![run("r", "icount", 2, rows.collect())])
}

fn verdicts(base: &Side, new: &Side) -> Vec<(String, Verdict)> {
    let findings = judge(&figures(base).0, new).0;
    findings.into_iter().map(|finding| (finding.id, finding.verdict)).collect()
}

/// Planted: `<` for `<=`.
#[test]
fn half_a_percent_or_five_instructions_are_let_pass() {
    let instructions = |p50: u64| BaselineCase { version: 1, unit: "milliinstructions".to_owned(), p50 };
    let verdict = |from: u64, to: u64| change(&instructions(from), to, Direction::Smaller).0;
    assert_eq!(verdict(100_000, 105_000), Verdict::Unchanged);
    assert_eq!(verdict(100_000, 105_001), Verdict::Regressed);
    assert_eq!(verdict(100_000, 94_999), Verdict::Improved);
    assert_eq!(verdict(2_000_000, 2_010_000), Verdict::Unchanged);
    assert_eq!(verdict(2_000_000, 2_010_001), Verdict::Regressed);
    assert_eq!(verdict(0, 5_001), Verdict::Regressed);
    let (_, reason) = change(&instructions(210_000), 218_000, Direction::Smaller);
    assert_eq!(reason, "+8.00 instructions, 5.00 are let pass");
    let share = BaselineCase { version: 1, unit: "millionths".to_owned(), p50: 900_000 };
    assert_eq!(change(&share, 895_500, Direction::Greater).0, Verdict::Unchanged);
    assert_eq!(change(&share, 890_000, Direction::Greater).0, Verdict::Regressed);
}

/// Planted: only the medians of two boots are looked at.
#[test]
fn boots_must_agree_in_every_figure() {
    let base = two(&[("a", 100_000)]);
    assert_eq!(verdicts(&base, &two(&[("a", 100_000)])), [("a".to_owned(), Verdict::Unchanged)]);
    let mut rows = vec![counted("a", 0, 100_000), counted("a", 1, 100_000)];
    rows[1].max = Some(200_000);
    let differing = side(vec![run("r", "icount", 2, rows)]);
    assert_eq!(verdicts(&base, &differing), [("a".to_owned(), Verdict::Noisy)]);
    assert!(bless(&differing).unwrap_err().to_string().contains("boots differ"));
    assert_eq!(figures(&differing).1[0].verdict, Verdict::Missing);
}

#[test]
fn what_is_gone_or_failed_is_missing() {
    let base = two(&[("a", 1_000), ("b", 1_000), ("c", 1_000)]);
    let mut rows: Vec<CaseRow> =
        (0..2).flat_map(|boot| ["a", "b", "d"].map(|id| counted(id, boot, 1_000))).collect();
    rows[1].status = CaseStatus::Failed;
    let new = side(vec![run("r", "icount", 2, rows)]);
    let (findings, added) = judge(&figures(&base).0, &new);
    let found: Vec<Verdict> = findings.iter().map(|finding| finding.verdict).collect();
    assert_eq!(found, [Verdict::Unchanged, Verdict::Missing, Verdict::Missing]);
    assert_eq!(added, ["d"]);
    assert!(bless(&new).is_err());
}

#[test]
fn only_good_exact_runs_are_blessed() {
    let file = bless(&two(&[("a", 1_000), ("b", 2_000)])).unwrap();
    assert_eq!(
        file.cases["b"],
        BaselineCase { version: 1, unit: "milliinstructions".to_owned(), p50: 2_000 }
    );
    let one = side(vec![run("r", "icount", 1, vec![counted("a", 0, 1_000)])]);
    assert!(bless(&one).unwrap_err().to_string().contains("--boots 2"));
    let noisy = side(vec![run("r", "tcg", 2, vec![row("a", 0, 1), row("a", 1, 1)])]);
    assert!(bless(&noisy).unwrap_err().to_string().contains("not exact"));
}
