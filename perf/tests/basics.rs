//! Clock conversions, keys, pseudo-random numbers, small statistics.

use perf::bench::{CaseKey, Class, Lanes, Params, ParsedKey, Text, Unit, Value};
use perf::clock::{Frequency, Nanos, Rate, Ticks, Timebase};
use perf::prng::Prng;
use perf::record::varint;
use perf::stats;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

/// `floor(count * to / from)` by way of the widest arithmetic there is, or `u64::MAX`.
fn exact(count: u64, from: u64, to: u64) -> u64 {
    u64::try_from(u128::from(count) * u128::from(to) / u128::from(from)).unwrap_or(u64::MAX)
}

fn frequency(hertz: u64) -> Frequency {
    Frequency::new(hertz).expect("not zero")
}

proptest! {
    #[test]
    fn conversion_does_not_drift(from in 1_u64.., to in 1_u64.., count in any::<u64>(), small in any::<u32>()) {
        let rate = Rate::new(frequency(from), frequency(to));
        let wide = exact(count, from, to);
        // The factor is off by less than one in 2^63: by at most one count of the result while that fits 63 bits.
        let slack = 1 + (wide >> 62);
        prop_assert!((wide..=wide.saturating_add(slack)).contains(&rate.convert(count)));
        if from < 1 << 31 {
            prop_assert_eq!(rate.convert(small.into()), exact(small.into(), from, to));
        }
    }

    #[test]
    fn conversion_keeps_order(hertz in 1_u64..20_000_000_000, a in any::<u64>(), b in any::<u64>()) {
        let base = Timebase::new(frequency(hertz));
        let (low, high) = (a.min(b), a.max(b));
        prop_assert!(base.nanos(Ticks::new(low)) <= base.nanos(Ticks::new(high)));
        prop_assert!(base.ticks(Nanos::new(low)) <= base.ticks(Nanos::new(high)));
    }

    #[test]
    fn there_and_back(hertz in 1_000_000_u64..10_000_000_000, ticks in 0_u64..1 << 53) {
        let base = Timebase::new(frequency(hertz));
        let back = base.ticks(base.nanos(Ticks::new(ticks))).count();
        let one_nano = hertz.div_ceil(1_000_000_000) + 1;
        prop_assert!(back.abs_diff(ticks) <= one_nano, "{} {}", ticks, back);
    }

    #[test]
    fn varints_come_back(value in any::<u64>(), shift in 0_u32..64) {
        let mut bytes = [0; varint::MAX];
        let length = varint::write(value >> shift, &mut bytes);
        let mut rest = &bytes[..length];
        prop_assert_eq!(varint::read(&mut rest), Some(value >> shift));
        prop_assert!(rest.is_empty());
        prop_assert_eq!(varint::write(value >> shift, &mut bytes[..length - 1]), 0);
        let mut cut = &bytes[..length - 1];
        prop_assert_eq!(varint::read(&mut cut), None);
    }

    #[test]
    fn a_median_splits(mut values in prop::collection::vec(any::<u64>(), 1..40)) {
        let median = stats::median(&mut values).unwrap();
        let below = values.iter().filter(|&&value| value < median).count();
        let above = values.iter().filter(|&&value| value > median).count();
        prop_assert!(below <= values.len() / 2 && above <= values.len() / 2);
    }

    #[test]
    fn any_text_parses_or_not(text in "[a-z0-9./=,A]{0,30}") {
        if let Some(key) = ParsedKey::parse(&text) {
            let params: Vec<String> = key.params().map(|(name, value)| format!("{name}={value}")).collect();
            let slash = if params.is_empty() { "" } else { "/" };
            prop_assert_eq!(format!("{}{slash}{}", key.id(), params.join(",")), text);
        }
    }
}

#[test]
fn a_year_of_ticks_is_right_to_the_nanosecond() {
    // 2,899,999,913 Hz: nothing cancels. A 32-bit shift, as in many kernels, would be off by milliseconds.
    let base = Timebase::new(frequency(2_899_999_913));
    let year = 365 * 86_400;
    for second in [1, 60, 86_400, year] {
        let nanos = base.nanos(Ticks::new(second * 2_899_999_913)).count();
        assert!(nanos.abs_diff(second * 1_000_000_000) <= 1, "{second} s: {nanos}");
    }
    assert_eq!(base.nanos(Ticks::new(u64::MAX)).count(), exact(u64::MAX, 2_899_999_913, 1_000_000_000));
}

#[test]
fn conversions_saturate() {
    let base = Timebase::new(frequency(1));
    assert_eq!(base.nanos(Ticks::new(u64::MAX)), Nanos::new(u64::MAX));
    assert_eq!(Ticks::new(5).since(Ticks::new(6)), None);
    assert_eq!(format!("{:?} {:?}", Ticks::new(5), Nanos::new(6)), "T5 6ns");
}

#[test]
fn too_wide_integers_are_refused() {
    let mut wide: &[u8] = &[0xff; 10];
    assert_eq!(varint::read(&mut wide), None);
    let mut just: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(varint::read(&mut just), Some(u64::MAX));
    let mut above: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
    assert_eq!(varint::read(&mut above), None);
}

#[test]
fn keys_print_and_parse() {
    let params = Params::new()
        .with("order", Value::Num(0))
        .with("mem", Value::Word("local"))
        .with("cores", Value::Num(1));
    let text = CaseKey { id: "frame.alloc", params: &params }.text().unwrap();
    assert_eq!(text.as_str(), "frame.alloc/order=0,mem=local,cores=1");
    let key = ParsedKey::parse(text.as_str()).unwrap();
    assert_eq!((key.id(), key.params_text()), ("frame.alloc", "order=0,mem=local,cores=1"));
    assert_eq!(key.params().collect::<Vec<_>>(), [("order", "0"), ("mem", "local"), ("cores", "1")]);
    assert_eq!((params.num("cores"), params.word("mem"), params.num("mem")), (Some(1), Some("local"), None));
    let plain = CaseKey { id: "clock.skew", params: &Params::new() }.text().unwrap();
    assert_eq!(ParsedKey::parse(plain.as_str()).unwrap().params().count(), 0);
    for bad in ["", "/a=1", "x/", "x/a", "x/a=", "x/=1", "x/a=1,", "x/a=1,,b=2", "X/a=1", "x/a=1/b=2", "x y"]
    {
        assert_eq!(ParsedKey::parse(bad), None, "{bad}");
    }
}

#[test]
fn text_that_does_not_fit_is_refused_whole() {
    assert_eq!(Text::<4>::of(format_args!("{}", 1234)).unwrap().as_str(), "1234");
    assert!(Text::<4>::of(format_args!("{}", 12345)).is_none());
}

#[test]
fn words_are_their_own_inverse() {
    for &class in Class::ALL {
        assert_eq!(Class::parse(class.word()), Some(class));
    }
    assert_eq!(Unit::parse("furlongs"), None);
    for &lane in abi::boot::Lane::ALL {
        assert!(Lanes::ALL.has(lane) && !Lanes::NONE.has(lane));
        let alone = Lanes::NONE.with(lane);
        assert!(abi::boot::Lane::ALL.iter().all(|&other| alone.has(other) == (other == lane)));
    }
}

#[test]
fn the_generator_is_the_published_one() {
    // First output of xoshiro256++ on the state that SplitMix64 makes of seed 0 (reference code of the authors).
    let mut prng = Prng::new(0);
    assert_eq!(prng.bits(), 0x5317_5d61_490b_23df);
    let mut again = Prng::new(0);
    assert_eq!(again.bits(), 0x5317_5d61_490b_23df);
    assert_ne!(Prng::stream(0, 1).bits(), Prng::stream(0, 2).bits());
    assert_eq!(Prng::stream(7, 0), Prng::new(7));
}

#[test]
fn numbers_below_a_bound() {
    let mut prng = Prng::new(3);
    assert_eq!(prng.below(0), 0);
    let mut seen = [0_u32; 7];
    (0..7_000).for_each(|_| seen[prng.below(7) as usize] += 1);
    assert!(seen.iter().all(|count| (850..1_150).contains(count)), "{seen:?}");
    let mut deck: Vec<u32> = (0..52).collect();
    prng.shuffle(&mut deck);
    assert!(!deck.is_sorted());
    deck.sort_unstable();
    assert!(deck.into_iter().eq(0..52));
}
