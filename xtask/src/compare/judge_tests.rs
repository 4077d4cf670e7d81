//! Synthetic boots with known truth: how often the rules accuse the innocent, and how often they find the guilty.

use super::{Finding, judge};
use crate::compare::schema::{Measure, Noise, NoiseFile, Verdict};
use crate::compare::side::Side;
use crate::compare::stats::tests::normal;
use crate::compare::testing::{row, run, side};
use crate::results::schema::{CaseStatus, Direction, Metric};
use perf::prng::Prng;
use std::collections::BTreeMap;

/// Boots of cases `c0`, `c1`, …, one for each factor: medians around 100 ticks with so much noise from boot to boot.
fn boots(count: u32, sigma: f64, factors: &[f64], random: &mut Prng) -> Side {
    let rows = (0..count).flat_map(|boot| {
        let figures: Vec<f64> =
            factors.iter().map(|factor| 100_000.0 * factor * (sigma * normal(random)).exp()).collect();
        figures.into_iter().enumerate().map(move |(case, p50)| row(&format!("c{case}"), boot, whole(p50)))
    });
    side(vec![run("r", "tcg", count, rows.collect())])
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "made to be a figure")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

fn verdicts(base: &Side, new: &Side) -> Vec<Verdict> {
    judge(base, new, None).0.iter().map(|finding| finding.verdict).collect()
}

fn only(base: &Side, new: &Side) -> Finding {
    let (mut findings, _) = judge(base, new, None);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

/// How many of `trials` comparisons of one case give this verdict.
fn rate(trials: u32, count: u32, sigma: f64, factor: f64, wanted: Verdict) -> u32 {
    let mut random = Prng::new(2026);
    let hits = (0..trials).filter(|_| {
        let (base, new) =
            (boots(count, sigma, &[1.0], &mut random), boots(count, sigma, &[factor], &mut random));
        verdicts(&base, &new) == [wanted]
    });
    u32::try_from(hits.count()).unwrap()
}

/// 300 comparisons of a build with itself, 8 boots with 2 % noise: at most 1 % regressed.
///
/// Planted: significance alone decides (3 % regressed).
#[test]
fn the_innocent_are_not_accused() {
    let regressed = rate(300, 8, 0.02, 1.0, Verdict::Regressed);
    println!("{regressed} of 300 accused");
    assert!(regressed <= 3, "{regressed} of 300");
}

/// 5 % more, 8 boots with 2 % noise: found in at least 85 %.
#[test]
fn five_percent_are_found() {
    let found = rate(300, 8, 0.02, 1.05, Verdict::Regressed);
    println!("{found} of 300 found");
    assert!(found >= 255, "{found} of 300");
    let praised = rate(300, 8, 0.02, 1.0 / 1.05, Verdict::Improved);
    assert!(praised >= 255, "{praised} of 300");
}

/// A family of 40 cases of which three got slower: these are found, and hardly anything else.
///
/// Planted: the adjustment counts ranks from the other end.
#[test]
fn a_family_is_judged_as_one() {
    let mut random = Prng::new(7);
    let (mut found, mut accused) = (0, 0);
    for _ in 0..20 {
        let base = boots(8, 0.02, &[1.0; 40], &mut random);
        let mut factors = [1.0; 40];
        factors[..3].fill(1.12);
        for finding in judge(&base, &boots(8, 0.02, &factors, &mut random), None).0 {
            let guilty = ["c0", "c1", "c2"].contains(&finding.id.as_str());
            let regressed = u32::from(finding.verdict == Verdict::Regressed);
            *(if guilty { &mut found } else { &mut accused }) += regressed;
        }
    }
    println!("{found} of 60 found, {accused} of 740 accused");
    assert!(found >= 54, "{found} of 60");
    assert!(accused <= 2, "{accused} of 740");
}

/// Planted: `least_p` is not looked at.
#[test]
fn few_boots_decide_nothing() {
    for count in 1..=3 {
        assert_eq!(rate(20, count, 0.0001, 2.0, Verdict::Inconclusive), 20, "{count}");
    }
    assert_eq!(rate(20, 4, 0.0001, 2.0, Verdict::Regressed), 20);
    let mut random = Prng::new(1);
    let (base, new) = (boots(2, 0.01, &[1.0], &mut random), boots(2, 0.01, &[1.5], &mut random));
    assert!(only(&base, &new).reason.contains("4 on each side"));
    // Four boots on each side can show one test, and not one among many.
    let factors: Vec<f64> = (0..30).map(|case| if case == 0 { 1.5 } else { 1.0 }).collect();
    let (base, new) = (boots(4, 0.001, &[1.0; 30], &mut random), boots(4, 0.001, &factors, &mut random));
    let (findings, _) = judge(&base, &new, None);
    let lone = findings.iter().find(|finding| finding.id == "c0").unwrap();
    assert_eq!(lone.verdict, Verdict::Inconclusive);
    assert!(lone.reason.contains("needs 7 boots"), "{}", lone.reason);
}

#[test]
fn quiet_and_equal_is_unchanged_and_loud_is_noisy() {
    assert!(rate(50, 8, 0.005, 1.0, Verdict::Unchanged) >= 49);
    let noisy = rate(50, 8, 0.30, 1.0, Verdict::Noisy);
    assert!(noisy >= 45, "{noisy} of 50");
}

/// Planted: the clock's resolution left out of the rule.
#[test]
fn what_the_clock_does_not_resolve_is_unchanged() {
    let figures = |p50: u64, batch: u32| {
        let rows = (0..8).map(|boot| {
            let mut row = row("a", boot, p50 + u64::from(boot));
            row.batch = Some(batch);
            row
        });
        side(vec![run("r", "tcg", 8, rows.collect())])
    };
    let below = only(&figures(10_000, 1), &figures(11_900, 1));
    assert_eq!((below.verdict, below.reason.contains("two ticks")), (Verdict::Unchanged, true));
    assert_eq!(only(&figures(10_000, 1), &figures(12_100, 1)).verdict, Verdict::Regressed);
    // In a window of ten operations a tick is a tenth of one for each.
    assert_eq!(only(&figures(10_000, 10), &figures(11_900, 10)).verdict, Verdict::Regressed);
}

/// Planted: the noise is left out.
#[test]
fn the_machine_s_own_noise_raises_the_bar() {
    let mut random = Prng::new(5);
    let (base, new) = (boots(8, 0.01, &[1.0], &mut random), boots(8, 0.01, &[1.06], &mut random));
    let with = |sigma: f64, drift: f64| {
        let of = BTreeMap::from([(Measure::P50, Noise { boots: 16, sigma, drift })]);
        let noise = NoiseFile {
            schema: 1,
            lane: String::new(),
            machine: String::new(),
            profile: String::new(),
            host: String::new(),
            runs: Vec::new(),
            commits: Vec::new(),
            cases: BTreeMap::from([("c0".to_owned(), of)]),
        };
        judge(&base, &new, Some(&noise)).0.remove(0)
    };
    assert_eq!(with(0.01, 0.0).verdict, Verdict::Regressed);
    // Two standard errors of 8 v 8 boots are just sigma.
    let raised = with(0.10, 0.0);
    assert_ne!(raised.verdict, Verdict::Regressed);
    assert!((raised.test.unwrap().threshold.ln() - 0.10).abs() < 1e-9);
    assert_ne!(with(0.01, 0.2).verdict, Verdict::Regressed);
}

/// Planted: more is always worse.
#[test]
fn greater_may_be_better() {
    let shares = |p50: u64, direction: Direction| {
        let rows = (0..8).map(|boot| {
            let mut row = row("a", boot, p50 + u64::from(boot));
            (row.unit, row.direction) = (Some("millionths".to_owned()), Some(direction));
            row
        });
        side(vec![run("r", "tcg", 8, rows.collect())])
    };
    let found = |direction| verdicts(&shares(900_000, direction), &shares(800_000, direction));
    assert_eq!(found(Direction::Greater), [Verdict::Regressed]);
    assert_eq!(found(Direction::Smaller), [Verdict::Improved]);
    assert_eq!(found(Direction::Neutral), []);
}

#[test]
fn tails_need_samples_and_rates_have_their_own_direction() {
    let figures = |n: u64, tail: u64, rate: u64| {
        let rows = (0..8).map(|boot| {
            let mut row = row("a", boot, 100_000);
            (row.n, row.p99) = (n, Some(tail + u64::from(boot)));
            row.metrics = vec![Metric {
                name: "messages.per.second".to_owned(),
                value: rate + u64::from(boot),
                unit: "count".to_owned(),
            }];
            row
        });
        side(vec![run("r", "tcg", 8, rows.collect())])
    };
    let found = |n| {
        let (base, new) = (figures(n, 200_000, 1_000_000), figures(n, 230_000, 900_000));
        judge(&base, &new, None).0.iter().map(|found| (found.measure, found.verdict)).collect::<Vec<_>>()
    };
    let (same, slower) = ((Measure::P50, Verdict::Unchanged), (Measure::Throughput, Verdict::Regressed));
    assert_eq!(found(9_999), [same, slower]);
    assert_eq!(found(10_000), [same, (Measure::P99, Verdict::Regressed), slower]);
    // A tail that was there and no longer is does not pass.
    let (findings, _) = judge(&figures(10_000, 200_000, 9), &figures(9_999, 200_000, 9), None);
    assert!(findings.iter().any(|found| (found.measure, found.verdict) == (Measure::P99, Verdict::Missing)));
}

/// Planted: failed rows left out before anything is compared.
#[test]
fn what_failed_or_is_gone_is_missing() {
    let case = |id: &str, boot| row(id, boot, 100_000);
    let eight = |ids: &[&str]| -> Vec<_> {
        (0..8).flat_map(|boot| ids.iter().map(move |id| case(id, boot))).collect()
    };
    let base = side(vec![run("r", "tcg", 8, eight(&["a", "b", "c"]))]);
    let mut rows = eight(&["a", "b", "d"]);
    (rows[4].status, rows[4].reason) = (CaseStatus::Failed, Some("the kernel panicked".to_owned()));
    let new = side(vec![run("r", "tcg", 8, rows)]);
    let (findings, added) = judge(&base, &new, None);
    let found: Vec<(&str, Verdict)> = findings.iter().map(|one| (one.id.as_str(), one.verdict)).collect();
    assert_eq!(found, [("b", Verdict::Missing), ("c", Verdict::Missing), ("a", Verdict::Unchanged)]);
    assert!(findings[0].reason.contains("failed in 1 of 8 boots: the kernel panicked"));
    assert_eq!(added, ["d"]);
    // In the other direction, and with a boot too few.
    let (findings, _) = judge(&new, &base, None);
    assert!(findings.iter().any(|one| one.id == "b" && one.reason.starts_with("in the base: failed")));
    let mut rows = eight(&["a"]);
    rows.pop();
    assert_eq!(verdicts(&base, &side(vec![run("r", "tcg", 8, rows)])), [Verdict::Missing; 3]);
}

#[test]
fn another_version_begins_a_new_series() {
    let of = |version: u32| {
        let rows = (0..8).map(|boot| {
            let mut row = row("a", boot, 100_000);
            row.version = version;
            row
        });
        side(vec![run("r", "tcg", 8, rows.collect())])
    };
    let (findings, added) = judge(&of(1), &of(2), None);
    assert_eq!((findings.len(), added), (0, vec!["a".to_owned()]));
}
