//! Order statistics of small arrays.

/// The median of a slice, the upper of the two middle values when there are two; `None` when it is empty.
/// Reorders the slice.
#[must_use]
pub fn median(values: &mut [u64]) -> Option<u64> {
    rank(values, values.len() / 2)
}

/// The value that `index` others of the slice are at or below; `None` past the end. Reorders the slice.
#[must_use]
pub fn rank(values: &mut [u64], index: usize) -> Option<u64> {
    if index >= values.len() {
        return None;
    }
    let (_, value, _) = values.select_nth_unstable(index);
    Some(*value)
}
