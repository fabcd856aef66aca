//! The handwritten digits that ship with foolproof: 1797 images, 8x8, of the UCI "Optical Recognition of Handwritten
//! Digits" (CC BY 4.0, see `assets/ATTRIBUTION.md`).

use super::{Dataset, Purpose, Samples};
use crate::error::{Error, Result};
use crate::files;

static FILE: &[u8] = include_bytes!("../../assets/digits.csv.gz");

/// Height and width in pixels.
pub const SIDE: usize = 8;
/// Number of classes.
pub const CLASSES: usize = 10;
const LARGEST: u8 = 16;
/// Every fifth image of each digit is kept for testing.
const TEST_EVERY: usize = 5;

/// A part of the digits.
///
/// The split is fixed, so that figures can be compared: of each digit, in the order of the file, images 0, 5, 10, ... are for testing
/// and the others for training. That gives 364 test images, 35 to 37 of each digit, and 1433 training images. Both parts
/// hold images by the same 13 writers: figures say how a model does on new images by known writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// 1433 images to train on.
    Train,
    /// 364 images to test on.
    Test,
    /// All 1797 images, in the order of the file.
    All,
}

impl Part {
    /// The part that plain `digits` means.
    pub fn of(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Learn => Self::Train,
            Purpose::Judge => Self::Test,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Train => "digits:train",
            Self::Test => "digits:test",
            Self::All => "digits:all",
        }
    }
}

/// Reads the embedded images as `[N, 8, 8, 1]`, values in `[0, 1]` (ink is 1), with their labels.
pub fn load(part: Part) -> Result<Dataset> {
    let damaged = || {
        Error::new(
            "the embedded digits are damaged",
            "",
            "rebuild foolproof from a clean checkout",
        )
    };
    let content = files::read_bounded(flate2::read::GzDecoder::new(FILE), 1 << 24)?;
    let text = std::str::from_utf8(&content).map_err(|_| damaged())?;
    let mut seen = [0usize; CLASSES];
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let numbers: Vec<u8> = line
            .split(',')
            .map(|field| field.trim().parse())
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| damaged())?;
        let [pixels @ .., label] = numbers.as_slice() else {
            return Err(damaged());
        };
        let label = usize::from(*label);
        if pixels.len() != SIDE * SIDE || label >= CLASSES || pixels.iter().any(|&v| v > LARGEST) {
            return Err(damaged());
        }
        let for_test = seen[label].is_multiple_of(TEST_EVERY);
        seen[label] += 1;
        let wanted = match part {
            Part::All => true,
            Part::Test => for_test,
            Part::Train => !for_test,
        };
        if wanted {
            values.extend(pixels.iter().map(|&v| f32::from(v) / f32::from(LARGEST)));
            labels.push(label);
        }
    }
    Dataset::new(
        part.name(),
        vec![SIDE, SIDE, 1],
        Samples::F32(values),
        Some(labels),
    )
}
