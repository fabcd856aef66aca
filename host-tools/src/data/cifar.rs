//! The binary version of CIFAR-10: records of one label byte and 3072 values, channel after channel.
//!
//! Format: <https://www.cs.toronto.edu/~kriz/cifar.html>, "Binary version".

use super::{Dataset, Samples};
use crate::error::Result;

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + CHANNELS * PLANE;

/// The format has no magic number: whole records, each with a label below 10.
pub(super) fn looks_like(content: &[u8]) -> bool {
    !content.is_empty()
        && content.len().is_multiple_of(RECORD)
        && content.chunks_exact(RECORD).all(|record| record[0] < 10)
}

/// Reads the records into `[N, 32, 32, 3]` (channels last, as everything here) and labels.
pub(super) fn parse(content: &[u8], name: String) -> Result<Dataset> {
    let mut values = Vec::with_capacity(content.len());
    let mut labels = Vec::with_capacity(content.len() / RECORD);
    for record in content.chunks_exact(RECORD) {
        labels.push(usize::from(record[0]));
        let image = &record[1..];
        for pixel in 0..PLANE {
            values.extend((0..CHANNELS).map(|channel| image[channel * PLANE + pixel]));
        }
    }
    Dataset::new(
        name,
        vec![SIDE, SIDE, CHANNELS],
        Samples::U8(values),
        Some(labels),
    )
}
