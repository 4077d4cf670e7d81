//! Histograms as HdrHistogram V2 interval logs: one file per case, one untagged interval line per repetition.
//!
//! The guest's buckets are HdrHistogram's own (`perf` tests that), so every count moves over unchanged. Lines carry no
//! tag, because the reference `HistogramLogProcessor` skips tagged ones unless told otherwise.

use crate::error::{Class, Error, Result};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use std::time::Duration;

/// Counts by bucket, in the layout of HdrHistogram with `digits` significant decimal digits and unit magnitude 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sparse {
    /// Significant decimal digits.
    pub digits: u8,
    /// Smallest value of a bucket, and its count; ascending, counts above 0.
    pub counts: Vec<(u64, u64)>,
}

/// When a measurement ran, as the interval log wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Start, since the Unix epoch.
    pub start: Duration,
    /// How long it took.
    pub length: Duration,
}

impl Sparse {
    /// Number of samples.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|&(_, count)| count).sum()
    }

    /// The same counts in the reference implementation's type.
    ///
    /// # Errors
    /// A count or value that no histogram can hold: the record that carried it was wrong.
    pub fn histogram(&self) -> Result<Histogram<u64>> {
        let high = self.counts.iter().map(|&(value, _)| value).max().unwrap_or(0).max(2);
        let mut histogram = Histogram::new_with_bounds(1, high, self.digits)
            .map_err(|error| Error::new(Class::CorruptFrame, format!("impossible histogram: {error}")))?;
        for &(value, count) in &self.counts {
            histogram.record_n(value, count).map_err(|error| {
                Error::new(Class::CorruptFrame, format!("impossible bucket {value}: {error}"))
            })?;
        }
        Ok(histogram)
    }
}

/// The comment lines a log starts with.
#[must_use]
pub fn header(id: &str) -> Vec<u8> {
    let id: String = id.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("#[Nearfield case {id}; one interval per repetition]\n#[Histogram log format version 1.3]\n")
        .into_bytes()
}

/// One interval line.
///
/// # Errors
/// The counts are impossible.
pub fn line(hist: &Sparse, interval: Interval) -> Result<Vec<u8>> {
    let histogram = hist.histogram()?;
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    IntervalLogWriterBuilder::new()
        .with_max_value_divisor(1.0)
        .begin_log_with(&mut text, &mut serializer)
        .and_then(|mut log| {
            log.write_histogram(&histogram, interval.start, interval.length, None)
                .map_err(|error| std::io::Error::other(format!("{error:?}")))
        })
        .map_err(|error| Error::new(Class::Io, format!("cannot encode a histogram: {error}")))?;
    Ok(text)
}

/// Every histogram of a log, in order.
///
/// # Errors
/// [`Class::BadRun`]: the text is not an interval log.
pub fn read(text: &[u8]) -> Result<Vec<Histogram<u64>>> {
    let bad = |what: String| Error::new(Class::BadRun, format!("not a histogram log: {what}"));
    let mut histograms = Vec::new();
    for entry in IntervalLogIterator::new(text) {
        let LogEntry::Interval(interval) = entry.map_err(|error| bad(format!("{error:?}")))? else {
            continue;
        };
        let bytes = base64(interval.encoded_histogram()).ok_or_else(|| bad("invalid base64".to_owned()))?;
        let histogram = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| bad(format!("{error}")))?;
        histograms.push(histogram);
    }
    Ok(histograms)
}

/// Decodes standard base64 with padding (RFC 4648, section 4). The `hdrhistogram` crate encodes it but does not offer
/// to decode it.
fn base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(body.len() * 3 / 4);
    for group in body.as_bytes().chunks(4) {
        let mut word = 0_u32;
        for &digit in group {
            word = word << 6 | sextet(digit)?;
        }
        word <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

fn sextet(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::{Interval, Sparse, base64, header, line, read};
    use crate::error::Class;
    use std::time::Duration;

    fn sample(counts: &[(u64, u64)]) -> Sparse {
        Sparse { digits: 3, counts: counts.to_vec() }
    }

    #[test]
    fn counts_survive_writing_and_reading() {
        let first = sample(&[(0, 3), (7, 1), (2048, 5), (1 << 40, 2)]);
        let second = sample(&[(9, 1)]);
        let interval =
            Interval { start: Duration::from_secs(1_700_000_000), length: Duration::from_millis(1500) };
        let mut log = header("a.b/c=1");
        log.extend(line(&first, interval).unwrap());
        log.extend(line(&second, interval).unwrap());
        let read = read(&log).unwrap();
        assert_eq!(read.len(), 2);
        for (value, count) in first.counts {
            assert_eq!(read[0].count_at(value), count, "{value}");
        }
        assert_eq!((read[0].len(), read[1].len()), (11, 1));
    }

    #[test]
    fn an_empty_histogram_is_a_line_too() {
        let log = line(&sample(&[]), Interval::default()).unwrap();
        assert_eq!(read(&log).unwrap()[0].len(), 0);
    }

    #[test]
    fn damage_is_an_error() {
        let mut log = line(&sample(&[(5, 5)]), Interval::default()).unwrap();
        let middle = log.len() / 2;
        log[middle] = b'!';
        assert_eq!(read(&log).unwrap_err().class(), Class::BadRun);
        assert_eq!(read(b"1,2").unwrap_err().class(), Class::BadRun);
    }

    #[test]
    fn base64_follows_the_rfc() {
        let vectors = [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")];
        for (text, plain) in vectors {
            assert_eq!(base64(text).unwrap(), plain.as_bytes());
        }
        assert_eq!(base64("a-b_"), None);
    }
}
