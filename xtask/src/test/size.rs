//! The guest image stays small: what QEMU loads is below 4 MiB.

use super::tally::{Tally, Verdict};
use crate::error::{Error, Result};
use crate::image::Image;
use abi::boot::selects;
use std::fs;
use std::path::Path;

/// Loader and bundle together, in bytes.
const LIMIT: u64 = 4 << 20;
const NAME: &str = "image/size";

/// Runs the test if `filter` selects it.
///
/// # Errors
/// The files of the image cannot be looked at.
pub(super) fn run(filter: &str, image: &Image) -> Result<Tally> {
    let mut tally = Tally::default();
    if selects(filter, NAME) {
        let files = image.payload.bundle.iter().chain([&image.payload.loader]);
        let bytes = files.map(|path| size(path)).sum::<Result<u64>>()?;
        tally.record(NAME, &verdict(bytes));
    }
    Ok(tally)
}

fn size(path: &Path) -> Result<u64> {
    fs::metadata(path).map(|meta| meta.len()).map_err(|error| Error::io(&error, "look at", path))
}

fn verdict(bytes: u64) -> Verdict {
    if bytes < LIMIT {
        Verdict::Passed
    } else {
        Verdict::Failed(format!("loader and bundle have {bytes} bytes, allowed are fewer than {LIMIT}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{LIMIT, Verdict, verdict};

    #[test]
    fn the_limit_itself_is_too_much() {
        assert_eq!(verdict(LIMIT - 1), Verdict::Passed);
        assert!(matches!(verdict(LIMIT), Verdict::Failed(_)));
    }
}
