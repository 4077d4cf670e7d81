//! The noise of boots whose noise is known.

use super::{noise, of, summary};
use crate::compare::schema::Measure;
use crate::compare::side::{Series, Side};
use crate::compare::stats::tests::normal;
use crate::compare::testing::{row, run, side};
use perf::prng::Prng;

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
