//! Writing the payload of a chip's slot.

use anyhow::{Context, Result, bail, ensure};
use foolproof::attack::Spec;
use foolproof::bundle::{self, Header};
use foolproof::link::CRC32;
use zerocopy::IntoBytes;

use super::Board;

/// A model with test vectors and attacks, as the chip's slot takes them.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    /// The model image.
    pub image: Vec<u8>,
    /// The inputs, one after the other, in the model's own number type.
    pub inputs: Vec<u8>,
    /// One label per input.
    pub labels: Vec<u16>,
    /// The attacks of a self-contained evaluation.
    pub attacks: Vec<Spec>,
    /// The seed of every random choice.
    pub seed: u64,
    /// Whether the chip evaluates this by itself, instead of serving a host.
    pub is_self_contained: bool,
}

impl Payload {
    /// The bundle's bytes for `board`; an error if they do not fit its slot.
    pub fn for_board(&self, board: &Board) -> Result<Vec<u8>> {
        let bytes = self.to_bytes()?;
        let size = board.slot.size as usize;
        ensure!(
            bytes.len() <= size,
            "the bundle has {} bytes, the slot of {} has {size}: fewer samples or a smaller model would do",
            bytes.len(),
            board.name
        );
        Ok(bytes)
    }

    /// The bundle's bytes; see [`foolproof::bundle`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let samples = self.labels.len();
        let sample = match self.inputs.len().checked_div(samples) {
            Some(sample) if sample * samples == self.inputs.len() => sample,
            None if self.inputs.is_empty() => 0,
            _ => bail!(
                "{} input bytes cannot belong to {samples} labels",
                self.inputs.len()
            ),
        };
        let mut attacks = Vec::new();
        for spec in &self.attacks {
            let mut buffer = [0; 128];
            attacks.extend_from_slice(
                postcard::to_slice(spec, &mut buffer).context("an attack that cannot be stored")?,
            );
        }
        let number = |count: usize| u32::try_from(count).context("a bundle of 4 GB or more");
        let mut header = Header {
            magic: bundle::MAGIC,
            crc: 0.into(),
            version: bundle::VERSION.into(),
            flags: if self.is_self_contained {
                bundle::SELF_CONTAINED.into()
            } else {
                0.into()
            },
            image: number(self.image.len())?.into(),
            samples: number(samples)?.into(),
            sample: number(sample)?.into(),
            attacks: number(attacks.len())?.into(),
            attack_count: number(self.attacks.len())?.into(),
            seed: self.seed.into(),
            reserved: [0; 8],
        };
        let layout = header.layout().context("a bundle of 4 GB or more")?;
        let mut bytes = vec![0; layout.end];
        let labels: Vec<u8> = self
            .labels
            .iter()
            .flat_map(|label| label.to_le_bytes())
            .collect();
        for (start, part) in [
            (0, header.as_bytes()),
            (layout.image, &self.image),
            (layout.inputs, &self.inputs),
            (layout.labels, &labels),
            (layout.attacks, &attacks),
        ] {
            bytes[start..start + part.len()].copy_from_slice(part);
        }
        header.crc = CRC32.checksum(&bytes[bundle::CHECKED_FROM..]).into();
        let start = header.as_bytes();
        bytes[..start.len()].copy_from_slice(start);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use foolproof::attack::{Ball, Norm};
    use foolproof::bundle::{Bundle, BundleError};

    use super::*;

    fn payload() -> Payload {
        let ball = Ball {
            norm: Norm::Linf,
            epsilon: 4.0,
            low: -128.0,
            high: 127.0,
        };
        Payload {
            image: (0..100).collect(),
            inputs: (0..60).collect(),
            labels: vec![3, 500, 1],
            attacks: vec![Spec::fgsm(ball), Spec::pgd(ball, 10).on_lattice()],
            seed: 7,
            is_self_contained: true,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let payload = payload();
        let mut bytes = payload.to_bytes().unwrap();
        bytes.extend([0xff; 1000]);
        let bundle = Bundle::from_bytes(&bytes).unwrap();
        assert!(bundle.is_self_contained());
        assert_eq!((bundle.seed(), bundle.len()), (7, 3));
        assert_eq!(bundle.image(), payload.image);
        assert_eq!(bundle.sample(1), Some((&payload.inputs[20..40], 500)));
        assert_eq!(bundle.sample(3), None);
        assert_eq!(bundle.attacks().collect::<Vec<_>>(), payload.attacks);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = payload().to_bytes().unwrap();
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Bundle::from_bytes(&bytes).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(Bundle::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn an_empty_slot_is_told_from_a_damaged_one() {
        assert_eq!(
            Bundle::from_bytes(&[0xff; 64]).unwrap_err(),
            BundleError::Missing
        );
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let mut bytes = payload().to_bytes().unwrap();
        let mut header = <Header as zerocopy::FromBytes>::read_from_prefix(&bytes)
            .unwrap()
            .0;
        for field in 0..3 {
            let mut broken = header;
            match field {
                0 => broken.image = u32::MAX.into(),
                1 => broken.samples = u32::MAX.into(),
                _ => broken.attacks = u32::MAX.into(),
            }
            broken.sample = u32::MAX.into();
            bytes[..size_of::<Header>()].copy_from_slice(broken.as_bytes());
            let error = Bundle::from_bytes(&bytes).unwrap_err();
            assert!(matches!(error, BundleError::Truncated { .. }), "{error}");
        }
        header.version = 9.into();
        bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
        let error = Bundle::from_bytes(&bytes).unwrap_err();
        assert_eq!(error, BundleError::Version { got: 9 });
    }

    #[test]
    fn labels_and_inputs_must_match() {
        let mut payload = payload();
        payload.inputs.pop();
        assert!(payload.to_bytes().is_err());
        payload.labels.clear();
        assert!(payload.to_bytes().is_err());
    }
}
