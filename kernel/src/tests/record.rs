//! A histogram filled in the kernel says what was put in, and so does what is sent of it.

use percpu::sync::atomic::{AtomicU32, Ordering};
use perf::hist::{DEFAULT_COUNTS, Hist, Layout, SparsePairs};
use perf::prng::Prng;
use perf::record::{Encoder, HistChunk, MAX_FRAME, Record};

use super::bed::Scratch;
use super::{Bed, Result, ensure};

/// Values and their buckets with 3 digits: the borders of the layout, from the definition of HdrHistogram. Below 2048 every value has its
/// own bucket, then every doubling has 1024.
const KNOWN: [(u64, usize); 11] = [
    (0, 0),
    (1, 1),
    (2047, 2047),
    (2048, 2048),
    (2049, 2048),
    (4095, 3071),
    (4096, 3072),
    (1 << 20, 11 << 10),
    ((1 << 20) + 1023, 11 << 10),
    ((1 << 20) + 1024, (11 << 10) + 1),
    ((1 << 40) - 1, (31 << 10) - 1),
];

/// Values recorded besides.
const VALUES: u64 = 5_000;

/// Planted: `Hist::record` adds 1 to the value; counts one bucket too high from 2^20; `encode_sparse` drops a bucket between two chunks.
pub(super) fn record(bed: &mut Bed) -> Result {
    for (value, bucket) in KNOWN {
        let found = Layout::new(3).bucket(value);
        ensure!(found == bucket, "{value} is counted in bucket {found}, not {bucket}");
    }
    let expected = Scratch::new(DEFAULT_COUNTS, |_| AtomicU32::new(0))?;
    let mut block = Scratch::new(DEFAULT_COUNTS, |_| 0_u32)?;
    let mut hist: Hist<'_> = Hist::new(&mut block);
    let mut prng = Prng::new(bed.seed);
    let mut sum = 0_u128;
    for _ in 0..VALUES {
        // Every magnitude up to 2^40 as often.
        let value = prng.bits() >> (24 + prng.below(40));
        hist.record(value);
        sum += u128::from(value);
        // ORDER: Relaxed; one core.
        expected[bucket_of(value)].fetch_add(1, Ordering::Relaxed);
    }
    ensure!(hist.len() == VALUES, "{VALUES} values recorded, {} counted", hist.len());
    let mean = u64::try_from(sum / u128::from(VALUES)).ok();
    ensure!(hist.mean() == mean, "the mean is {mean:?}, the histogram says {:?}", hist.mean());
    sent(&hist, &expected)
}

/// The bucket of a value by the slow way: widths double until the value fits.
fn bucket_of(value: u64) -> usize {
    let (mut first, mut width, mut bucket) = (2048, 2, 2048);
    if value < first {
        return value as usize;
    }
    while value >= first * 2 {
        first *= 2;
        width *= 2;
        bucket += 1024;
    }
    bucket + ((value - first) / width) as usize
}

/// Bytes of pairs in one record: few enough that the histogram takes several.
const CHUNK: usize = 512;

/// What is sent of a histogram, chunk by chunk, has the expected counts and no others, and every chunk fits a frame.
fn sent(hist: &Hist<'_>, expected: &[AtomicU32]) -> Result {
    let mut encoder = Encoder::new();
    let (mut next, mut chunk, mut seen) = (Some(0), 0, 0);
    while let Some(from) = next {
        let mut pairs = [0; CHUNK];
        let (used, rest) = hist.encode_sparse(from, &mut pairs);
        for pair in SparsePairs::new(&pairs[..used]) {
            let (bucket, count) = pair.unwrap_or((u32::MAX, 0));
            // ORDER: Relaxed; one core.
            let known = expected.get(bucket as usize).map(|count| count.load(Ordering::Relaxed));
            ensure!(known == Some(count), "bucket {bucket}: {count} sent, {known:?} recorded");
            seen += u64::from(count);
        }
        let record = HistChunk {
            case: 0,
            chunk,
            last: rest.is_none(),
            digits: 3,
            total: hist.len(),
            pairs: &pairs[..used],
        };
        let length = encoder.encode(&Record::Hist(record)).map(<[u8]>::len).unwrap_or(usize::MAX);
        ensure!(length > used && length <= MAX_FRAME, "chunk {chunk} of {used} bytes: frame of {length}");
        ensure!(rest != next, "chunk {chunk} holds nothing");
        (next, chunk) = (rest, chunk + 1);
    }
    ensure!(seen == hist.len() && chunk > 1, "{seen} of {} values in {chunk} chunks", hist.len());
    Ok(())
}
