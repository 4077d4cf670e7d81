//! The statistics against published tables, against counting by hand, and against each other.

use super::{
    adjusted, boots_for, cliff, counted, hodges_lehmann, interval, least_p, mann_whitney, median, shift,
    spread,
};
use perf::prng::Prng;

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

/// Two groups without ties in which `u` pairs have the new one below.
fn groups(base: usize, new: usize, u: usize) -> (Vec<f64>, Vec<f64>) {
    // Every base value stands at 10, 20, …; a new value between two of them is above as many as stand before it.
    let mut left = base * new - u;
    let mut values = Vec::new();
    for index in 0..new {
        let above = left.min(base);
        left -= above;
        values.push(10.0 * super::float(above) + 5.0 + super::float(index) / 100.0);
    }
    ((1..=base).map(|i| 10.0 * super::float(i)).collect(), values)
}

/// Critical values of U, two-sided at 0.05: Milton, J. Am. Stat. Assoc. 59 (1964), as every textbook prints them.
///
/// Planted: the distribution counted for one side only.
#[test]
fn critical_values_are_those_of_the_tables() {
    let table = [
        ((4, 4), 0),
        ((5, 5), 2),
        ((6, 6), 5),
        ((7, 7), 8),
        ((8, 8), 13),
        ((9, 9), 17),
        ((10, 10), 23),
        ((5, 8), 6),
        ((6, 10), 11),
        ((8, 12), 22),
        ((15, 15), 64),
        ((20, 20), 127),
    ];
    for ((base, new), critical) in table {
        let p = |u| {
            let (base, new) = groups(base, new, u);
            mann_whitney(&base, &new)
        };
        assert!(p(critical) <= 0.05, "{base} {new}: {}", p(critical));
        assert!(p(critical + 1) > 0.05, "{base} {new}: {}", p(critical + 1));
    }
}

#[test]
fn small_groups_are_counted_exactly() {
    let p = |base: usize, new: usize, u| {
        let (base, new) = groups(base, new, u);
        mann_whitney(&base, &new)
    };
    assert!(close(p(3, 3, 0), 2.0 / 20.0));
    assert!(close(p(3, 3, 1), 4.0 / 20.0));
    assert!(close(p(4, 4, 0), 2.0 / 70.0));
    assert!(close(p(8, 8, 0), 2.0 / 12_870.0));
    assert!(close(p(8, 8, 32), 1.0));
    assert!(close(mann_whitney(&[1.0], &[2.0]), 1.0));
}

/// Every deal of a pool with ties, one by one.
#[test]
fn ties_are_counted_as_dealt() {
    let pool = [1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0];
    let u = |mask: u32| {
        let (mut sum, chosen) = (0.0, |i: usize| mask & (1 << i) != 0);
        for i in (0..8).filter(|&i| chosen(i)) {
            for j in (0..8).filter(|&j| !chosen(j)) {
                sum += if pool[i] > pool[j] {
                    1.0
                } else if pool[i] == pool[j] {
                    0.5
                } else {
                    0.0
                };
            }
        }
        sum
    };
    let deals: Vec<u32> = (0..256_u32).filter(|mask| mask.count_ones() == 4).collect();
    for &deal in &deals {
        let far = (u(deal) - 8.0_f64).abs();
        let extreme = deals.iter().filter(|&&other| (u(other) - 8.0).abs() >= far - 1e-9).count();
        let of = |inside: bool| -> Vec<f64> {
            (0..8).filter(|i| (deal & (1 << i) != 0) == inside).map(|i| pool[i]).collect()
        };
        let p = mann_whitney(&of(false), &of(true));
        assert!(close(p, super::float(extreme) / super::float(deals.len())), "{deal:b}");
    }
    assert!(close(mann_whitney(&[5.0; 4], &[5.0; 4]), 1.0));
    assert!(close(mann_whitney(&[5.0; 30], &[5.0; 30]), 1.0));
}

/// Planted: the distribution counted for one side only.
#[test]
fn the_approximation_meets_the_counting() {
    let mut random = Prng::new(3);
    for _ in 0..20 {
        let mut group = |count: u32, shift: u64| -> Vec<f64> {
            (0..count).map(|_| super::float(usize::try_from(random.below(40) + shift).unwrap())).collect()
        };
        let (base, new) = (group(22, 0), group(22, 9));
        let ranks = super::double_midranks(&base, &new);
        let found: usize = ranks[22..].iter().sum();
        let far = found.abs_diff(22 * 45);
        let exact = counted(&ranks, 22, 22 * 45, far);
        let normal = mann_whitney(&base, &new);
        assert!((exact - normal).abs() < 0.01, "{exact} {normal}");
    }
}

#[test]
fn what_few_boots_can_show() {
    assert!(close(least_p(1, 1), 1.0) && close(least_p(3, 3), 0.1) && close(least_p(8, 8), 2.0 / 12_870.0));
    assert!(close(least_p(2, 6), least_p(6, 2)));
    assert_eq!((boots_for(0.05), boots_for(0.05 / 100.0), boots_for(0.05 / 1000.0)), (4, 8, 9));
}

#[test]
fn shifts_of_known_groups() {
    assert!(close(hodges_lehmann(&[1.0, 2.0, 3.0], &[4.0, 5.0, 60.0]), 3.0));
    assert!(close(cliff(&[1.0, 2.0], &[3.0, 4.0]), 1.0));
    assert!(close(cliff(&[1.0, 2.0], &[1.0, 2.0]), 0.0));
    assert!(close(cliff(&[2.0], &[1.0, 2.0, 2.0, 3.0]), 0.0));
    assert!(close(median(&mut [3.0, 1.0, 2.0, 9.0]), 2.5));
    assert!(close(spread(&[0.0, 1.0, 2.0, 3.0, 4.0]), 1.482_602_2));
    assert!(close(spread(&[0.0, 0.0, 0.0, 100.0]), 0.0));
}

/// Example of the paper (1995, section 3): 15 comparisons, of which the four smallest are discoveries at 0.05.
///
/// Planted: the rank counted from the other end.
#[test]
fn many_tests_as_in_the_paper() {
    let p = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
        0.6528, 0.7590, 1.000,
    ];
    let q = adjusted(&p);
    assert_eq!(q.iter().filter(|&&q| q <= 0.05).count(), 4);
    assert!(close(q[0], 0.0015) && close(q[3], 0.035_625) && close(q[14], 1.0));
    assert!(q.is_sorted());
    let mut reversed = p;
    reversed.reverse();
    assert!(adjusted(&reversed).iter().rev().zip(&q).all(|(a, b)| close(*a, *b)));
    assert!(adjusted(&[]).is_empty());
}

/// The interval covers the truth about as often as it says; with eight boots a percentile interval is a little short.
#[test]
fn intervals_cover_the_truth() {
    let mut random = Prng::new(11);
    let trials = 300;
    let covered = (0..trials)
        .filter(|&trial| {
            let mut group =
                |shift: f64| -> Vec<f64> { (0..8).map(|_| shift + normal(&mut random)).collect() };
            let (low, high) = interval(&group(0.0), &group(0.5), trial);
            low <= 0.5 && 0.5 <= high
        })
        .count();
    assert!((258..=297).contains(&covered), "{covered} of {trials}");
}

#[test]
fn results_can_be_repeated() {
    let (base, new) = ([1.0, 2.0, 4.0, 8.0], [3.0, 5.0, 7.0, 9.0]);
    assert_eq!(shift(&base, &new, 1), shift(&base, &new, 1));
}

/// A normal value: the sum of twelve uniform ones less six.
pub(crate) fn normal(random: &mut Prng) -> f64 {
    let uniform = |random: &mut Prng| {
        super::float(usize::try_from(random.below(1 << 30)).unwrap()) / super::float(1 << 30)
    };
    (0..12).map(|_| uniform(random)).sum::<f64>() - 6.0
}
