//! Memory that begins with a cache line, for images and for sessions.
//!
//! Kernels load a line of it, or half of one, at a time. The engine asks for a multiple of 16 bytes only, but a load that straddles two
//! lines takes twice as long: dense layers train up to a quarter faster in such memory.

use std::ops::{Deref, DerefMut};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes of a cache line.
pub const LINE: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Bytes, the first at the beginning of a cache line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    lines: Vec<Line>,
    len: usize,
}

impl Lines {
    /// So many bytes, all 0.
    pub fn zeroed(len: usize) -> Lines {
        Lines {
            lines: vec![Line([0; LINE]); len.div_ceil(LINE)],
            len,
        }
    }

    /// The same, where there is so much memory.
    pub fn try_zeroed(len: usize) -> Option<Lines> {
        let count = len.div_ceil(LINE);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).ok()?;
        lines.resize(count, Line([0; LINE]));
        Some(Lines { lines, len })
    }

    /// As numbers; none where the last one is not whole.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        <[f32]>::mut_from_bytes(self).unwrap_or_default()
    }
}

impl From<&[u8]> for Lines {
    fn from(bytes: &[u8]) -> Lines {
        let mut lines = Lines::zeroed(bytes.len());
        lines.copy_from_slice(bytes);
        lines
    }
}

impl Deref for Lines {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.lines.as_bytes()[..self.len]
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.lines.as_mut_bytes()[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::to_image;

    #[test]
    fn memory_begins_with_a_line_and_is_as_long_as_asked() {
        for len in [0, 1, 63, 64, 65, 4097] {
            let mut lines = Lines::zeroed(len);
            assert_eq!(lines.len(), len);
            assert!(lines.iter().all(|&byte| byte == 0));
            assert!((lines.as_ptr() as usize).is_multiple_of(LINE));
            lines.fill(7);
            assert_eq!(Lines::from(&lines[..]), lines);
            assert_eq!(Lines::try_zeroed(len), Some(Lines::zeroed(len)));
            let whole = if len % 4 == 0 { len / 4 } else { 0 };
            assert_eq!(lines.floats_mut().len(), whole);
        }
    }

    #[test]
    fn there_is_not_any_amount_of_memory() {
        assert_eq!(Lines::try_zeroed(isize::MAX as usize), None);
    }

    #[test]
    fn large_weights_begin_with_a_line() {
        let graph = crate::networks::default_for(&[28, 28, 1], (0.0, 1.0), vec!["a".into(); 10], 1);
        let image = to_image(&graph.unwrap()).unwrap();
        let model = image.model().unwrap();
        let tables = model.tables();
        let mut seen = 0;
        for t in (0..tables.tensor_count()).filter(|&t| tables.is_in_image(t)) {
            let data = tables.data(t);
            if data.len() >= 1024 {
                assert!((data.as_ptr() as usize).is_multiple_of(LINE), "tensor {t}");
                seen += 1;
            }
        }
        assert!(seen > 1);
    }
}
