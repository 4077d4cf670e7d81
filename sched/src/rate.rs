//! How often something may happen: a bucket that fills at a rate, as one word. The word is the time at which the bucket will be full again
//! (the generic cell rate algorithm of ITU-T I.371, annex A): what happens moves it on by an interval, unless it would come to lie too far ahead.
//!
//! Times here are ticks with [`FRACTION`] more bits, modulo 2^64: they go round after years, and only differences are looked at.

/// Bits behind the point of a time.
const FRACTION: u32 = 4;

/// At once there may be what comes in this part of a second.
pub const BURST: u64 = 10;

/// A limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// From one to the next.
    pub interval: u64,
    /// How far ahead the bucket's time may lie: as many intervals as there may be at once.
    pub burst: u64,
}

impl Rate {
    /// So many a second, which is not 0, by a clock of so many ticks a second; at once as many as come in a [`BURST`]th of a second, but one at
    /// least. What does not come out even is rounded so that there are fewer.
    #[must_use]
    pub const fn per_second(times: u64, ticks: u64) -> Self {
        let second = ticks << FRACTION;
        // A second in which nothing fits any more is a limit all the same.
        let interval = second.div_ceil(times);
        let at_once = if times < BURST { 1 } else { times / BURST };
        Self { interval, burst: interval.saturating_mul(at_once) }
    }

    /// The bucket's word after one more at the time `now`, in ticks; `None` if that is too early.
    #[must_use]
    pub const fn take(self, bucket: u64, now: u64) -> Option<u64> {
        let now = now << FRACTION;
        // A time that has passed: the bucket is full.
        let ahead = bucket.wrapping_sub(now);
        let ahead = if ahead > u64::MAX / 2 { 0 } else { ahead };
        match ahead.checked_add(self.interval) {
            Some(after) if after <= self.burst => Some(now.wrapping_add(after)),
            _ => None,
        }
    }

    /// The bucket's word with one back that was taken.
    #[must_use]
    pub const fn put(self, bucket: u64) -> u64 {
        bucket.wrapping_sub(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST, FRACTION, Rate};
    use proptest::prelude::{ProptestConfig, proptest};

    const TICKS: u64 = 2_600_000_000;

    #[test]
    fn at_once_there_is_what_comes_in_a_tenth_of_a_second() {
        for (times, at_once) in [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (1_000, 100), (99_999, 9_999)] {
            let rate = Rate::per_second(times, TICKS);
            let mut bucket = 0;
            let mut taken = 0;
            while let Some(next) = rate.take(bucket, 7 * TICKS) {
                bucket = next;
                taken += 1;
            }
            assert_eq!(taken, at_once, "{times} a second");
        }
    }

    #[test]
    fn what_was_taken_can_be_put_back() {
        let rate = Rate::per_second(10, TICKS);
        let taken = rate.take(0, TICKS).expect("full");
        assert_eq!(rate.take(taken, TICKS), None);
        assert_eq!(rate.take(rate.put(taken), TICKS), Some(taken));
    }

    /// Planted: `ahead` of a time that has passed not taken for 0.
    #[test]
    fn the_clock_may_go_round() {
        let rate = Rate::per_second(10, TICKS);
        let late = u64::MAX >> FRACTION;
        let bucket = rate.take(late << FRACTION, late).expect("full");
        assert_eq!(rate.take(bucket, 0), None, "one tick later");
        assert!(rate.take(bucket, TICKS).is_some());
        assert!(rate.take(bucket, TICKS << 20).is_some());
    }

    /// The same by counting: tokens, which come one each interval.
    fn model(rate: Rate, times: &[u64]) -> Vec<bool> {
        let (most, mut tokens, mut last) = (rate.burst, rate.burst, times[0] << FRACTION);
        times
            .iter()
            .map(|&time| {
                let now = time << FRACTION;
                tokens = (tokens + (now - last)).min(most);
                last = now;
                let there = tokens >= rate.interval;
                tokens -= if there { rate.interval } else { 0 };
                there
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// A bucket of tokens lets the same through, and in any stretch of time never more than the rate and one burst.
        #[test]
        fn a_bucket_of_tokens_says_the_same(
            times in 1..200_000_u64,
            ticks in 1_000_000..5_000_000_000_u64,
            steps in proptest::collection::vec(0..3_000_000_u64, 1..300),
        ) {
            let rate = Rate::per_second(times, ticks);
            let mut now = ticks;
            let moments: Vec<u64> = steps.iter().map(|step| { now += step * ticks / 5_000_000_000; now }).collect();
            let mut bucket = 0;
            let let_through: Vec<bool> = moments
                .iter()
                .map(|&now| rate.take(bucket, now).inspect(|&next| bucket = next).is_some())
                .collect();
            assert_eq!(let_through, model(rate, &moments));
            let count = let_through.iter().filter(|&&through| through).count() as u64;
            let stretch = u128::from(moments[moments.len() - 1] - moments[0]);
            let most = stretch * u128::from(times) / u128::from(ticks) + u128::from((times / BURST).max(1)) + 1;
            assert!(u128::from(count) <= most, "{count} of {most}");
        }
    }
}
