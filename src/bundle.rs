//! The payload of a chip's slot: a model, test vectors with labels, and attacks.
//!
//! One file, placed at a fixed address by a programmer or an emulator, so that one firmware serves
//! every model. Everything is little-endian and read in place:
//!
//! | bytes | what |
//! |---|---|
//! | [`Header`] | magic, CRC-32 of everything after it, version, flags, sizes |
//! | image | the model image, from offset 48 on |
//! | inputs | samples × the size of one sample, in the model's own number type |
//! | labels | samples × u16 |
//! | attacks | postcard-encoded attack specifications, one after the other |
//!
//! Each part starts at a multiple of 16 bytes.

use core::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::attack::Spec;
use crate::link::CRC32;

/// The first bytes of a bundle.
pub const MAGIC: [u8; 4] = *b"FPBN";
/// The version of the format.
pub const VERSION: u16 = 1;
/// Parts start at multiples of this many bytes; a slot's address must be one too.
pub const ALIGN: usize = 16;
/// Flag: evaluate this bundle at once and print the verdict, instead of serving a host.
pub const SELF_CONTAINED: u16 = 1;

/// The checksum covers the bytes from this offset on.
pub const CHECKED_FROM: usize = 8;

/// The fixed part of a bundle.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// CRC-32 of everything after this field, to the end of the bundle.
    pub crc: U32,
    /// [`VERSION`].
    pub version: U16,
    /// [`SELF_CONTAINED`] or 0.
    pub flags: U16,
    /// Bytes of the model image.
    pub image: U32,
    /// Number of samples.
    pub samples: U32,
    /// Bytes of one sample's input.
    pub sample: U32,
    /// Bytes of all attack specifications.
    pub attacks: U32,
    /// Number of attack specifications.
    pub attack_count: U32,
    /// The seed of every random choice.
    pub seed: U64,
    /// Zeros.
    pub reserved: [u8; 8],
}

/// Where the parts of a bundle lie, as offsets from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The model image.
    pub image: usize,
    /// The inputs.
    pub inputs: usize,
    /// The labels.
    pub labels: usize,
    /// The attacks.
    pub attacks: usize,
    /// The end of the bundle.
    pub end: usize,
}

impl Header {
    /// Where the parts lie; `None` if they would not fit any memory.
    pub fn layout(&self) -> Option<Layout> {
        let size = |field: U32| usize::try_from(field.get()).ok();
        let after =
            |start: usize, bytes: usize| start.checked_add(bytes)?.checked_next_multiple_of(ALIGN);
        let samples = size(self.samples)?;
        let image = size_of::<Header>().next_multiple_of(ALIGN);
        let inputs = after(image, size(self.image)?)?;
        let labels = after(inputs, samples.checked_mul(size(self.sample)?)?)?;
        let attacks = after(labels, samples.checked_mul(2)?)?;
        let end = attacks.checked_add(size(self.attacks)?)?;
        Some(Layout {
            image,
            inputs,
            labels,
            attacks,
            end,
        })
    }
}

/// Why bytes are no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BundleError {
    /// There is no bundle: the magic number is missing. An empty slot looks like this.
    Missing,
    /// A bundle of another version.
    Version {
        /// The bundle's version.
        got: u16,
    },
    /// The bundle is longer than the bytes.
    Truncated {
        /// The bundle's length.
        needed: usize,
        /// The bytes there are.
        got: usize,
    },
    /// The checksum differs.
    Checksum {
        /// The bundle's own.
        expected: u32,
        /// That of the bytes.
        got: u32,
    },
    /// An attack specification cannot be read.
    Attack {
        /// Which, from 0.
        index: u32,
    },
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BundleError::Missing => write!(f, "no bundle: the magic number FPBN is missing"),
            BundleError::Version { got } => {
                write!(f, "a bundle of version {got}, this program reads {VERSION}")
            }
            BundleError::Truncated { needed, got } => {
                write!(f, "the bundle has {needed} bytes, {got} are there")
            }
            BundleError::Checksum { expected, got } => write!(
                f,
                "the bundle is damaged: its checksum is {got:08x}, it should be {expected:08x}"
            ),
            BundleError::Attack { index } => write!(f, "attack {index} of the bundle is malformed"),
        }
    }
}

impl core::error::Error for BundleError {}

/// A checked bundle, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Bundle<'a> {
    flags: u16,
    seed: u64,
    image: &'a [u8],
    inputs: &'a [u8],
    sample: usize,
    labels: &'a [U16],
    attacks: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// The bundle at the start of `bytes`, which may go on after it.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let truncated = |needed| BundleError::Truncated {
            needed,
            got: bytes.len(),
        };
        let Ok((header, _)) = Header::ref_from_prefix(bytes) else {
            return Err(truncated(size_of::<Header>()));
        };
        if header.magic != MAGIC {
            return Err(BundleError::Missing);
        }
        if header.version.get() != VERSION {
            return Err(BundleError::Version {
                got: header.version.get(),
            });
        }
        let layout = header.layout().ok_or(truncated(usize::MAX))?;
        let part = |start: usize, length: usize| {
            bytes
                .get(start..layout.end)
                .and_then(|rest| rest.get(..length))
                .ok_or(truncated(layout.end))
        };
        let samples = header.samples.get() as usize;
        let sample = header.sample.get() as usize;
        let start = CHECKED_FROM;
        let crc = CRC32.checksum(part(start, layout.end - start)?);
        if crc != header.crc.get() {
            return Err(BundleError::Checksum {
                expected: header.crc.get(),
                got: crc,
            });
        }
        let labels = part(layout.labels, samples * 2)?;
        let labels = <[U16]>::ref_from_bytes(labels).map_err(|_| truncated(layout.end))?;
        let bundle = Bundle {
            flags: header.flags.get(),
            seed: header.seed.get(),
            image: part(layout.image, header.image.get() as usize)?,
            inputs: part(layout.inputs, samples * sample)?,
            sample,
            labels,
            attacks: part(layout.attacks, header.attacks.get() as usize)?,
        };
        let mut rest = bundle.attacks;
        for index in 0..header.attack_count.get() {
            match postcard::take_from_bytes::<Spec>(rest) {
                Ok((_, after)) => rest = after,
                Err(_) => return Err(BundleError::Attack { index }),
            }
        }
        match rest {
            [] => Ok(bundle),
            _ => Err(BundleError::Attack {
                index: header.attack_count.get(),
            }),
        }
    }

    /// Whether the chip shall evaluate the bundle by itself.
    pub fn is_self_contained(&self) -> bool {
        self.flags & SELF_CONTAINED != 0
    }

    /// The seed of every random choice.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The model image.
    pub fn image(&self) -> &'a [u8] {
        self.image
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The input and the label of a sample.
    pub fn sample(&self, index: usize) -> Option<(&'a [u8], u16)> {
        let label = self.labels.get(index)?.get();
        let start = index.checked_mul(self.sample)?;
        let input = self.inputs.get(start..)?.get(..self.sample)?;
        Some((input, label))
    }

    /// The attacks.
    pub fn attacks(&self) -> impl Iterator<Item = Spec> + use<'a> {
        let mut rest = self.attacks;
        core::iter::from_fn(move || {
            let (spec, after) = postcard::take_from_bytes(rest).ok()?;
            rest = after;
            Some(spec)
        })
    }
}
