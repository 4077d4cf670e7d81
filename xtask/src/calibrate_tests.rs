//! The noise of boots whose noise is known.

use super::{merged, noise, of, path, summary};
use crate::compare::schema::Measure;
use crate::compare::side::{Series, Side};
use crate::compare::stats::tests::normal;
use crate::compare::testing::{row, run, side};
use perf::prng::Prng;
use std::collections::BTreeMap;

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "made to be a figure")]
fn boots(count: u32, sigma: f64, drift: f64) -> Side {
    let mut random = Prng::new(9);
    let rows = (0..count).map(|boot| {
        let late = if boot >= count / 2 { drift } else { 0.0 };
        row("a", boot, (1e6 * (late + sigma * normal(&mut random)).exp()) as u64)
    });
    side(vec![run("r", "tcg", count, rows.collect())])
}

fn p50(series: &Series) -> (f64, f64) {
    let noise = of(series)[&Measure::P50];
    (noise.sigma, noise.drift)
}

/// Planted: the drift between odd and even boots.
#[test]
fn known_noise_is_measured() {
    let (sigma, drift) = p50(&boots(400, 0.02, 0.0).series["a"]);
    assert!((0.017..0.023).contains(&sigma) && drift < 0.006, "{sigma} {drift}");
    let (_, drift) = p50(&boots(400, 0.001, 0.05).series["a"]);
    assert!((0.049..0.051).contains(&drift), "{drift}");
}

#[test]
fn only_many_boots_of_one_build_are_noise() {
    assert!(noise(&boots(7, 0.02, 0.0)).unwrap_err().to_string().contains("--boots 8"));
    let file = noise(&boots(8, 0.02, 0.0)).unwrap();
    assert_eq!(file.cases["a"][&Measure::P50].boots, 8);
    assert!(summary(&file)[0].contains("1 cases"));
    let mut other = run("s", "tcg", 8, Vec::new());
    other.env.git.commit = Some("1".repeat(40));
    let two = side(vec![run("r", "tcg", 8, Vec::new()), other]);
    assert!(noise(&two).unwrap_err().to_string().contains("different builds"));
    assert!(noise(&side(vec![run("r", "icount", 8, Vec::new())])).unwrap_err().to_string().contains("exact"));
}

/// Planted: the file is written anew, so that calibrating one case forgets all others.
#[test]
fn a_calibration_of_some_cases_keeps_what_is_known_of_others() {
    let known = |id: &str, sigma: f64| {
        let file = noise(&boots(8, sigma, 0.0)).unwrap();
        let of = file.cases["a"].clone();
        (
            of[&Measure::P50].sigma,
            crate::compare::schema::NoiseFile { cases: BTreeMap::from([(id.to_owned(), of)]), ..file },
        )
    };
    let ((first, mut old), (_, again), (second, new)) =
        (known("a", 0.02), known("b", 0.01), known("b", 0.05));
    old.cases.extend(again.cases);
    old.runs = vec!["q".to_owned(), "r".to_owned()];
    let all = merged(old, new);
    let sigma = |id: &str| all.cases[id][&Measure::P50].sigma;
    assert_eq!((sigma("a"), sigma("b")), (first, second));
    assert_eq!((all.runs, all.commits.len()), (vec!["q".to_owned(), "r".to_owned()], 1));
}

/// Planted: one file for all numbers of samples.
#[test]
fn other_numbers_of_samples_have_a_noise_of_their_own() {
    let mut identity = boots(8, 0.02, 0.0).identity;
    let profile = path(&identity);
    identity.samples = Some(50);
    let fifty = path(&identity);
    assert!(profile.ends_with(format!("tcg/{}.quick.json", identity.machine)), "{profile:?}");
    assert!(fifty.ends_with(format!("tcg/{}.quick.50.json", identity.machine)), "{fifty:?}");
}
