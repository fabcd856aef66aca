//! The order of a sample's elements: the file's, and the graph's.

/// How the elements of one sample lie in the file's order (channels first, where [`Imported::channels_moved`] says so) and in the
/// graph's (channels last). For any number of samples, one after the other.
///
/// [`Imported::channels_moved`]: super::Imported::channels_moved
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleOrder {
    /// Elements of one sample.
    len: usize,
    /// Channels that the file has first; 1 where both orders are the same.
    channels: usize,
}

impl SampleOrder {
    /// Of samples with dimensions `file_shape`, the batch in front.
    pub(super) fn new(file_shape: &[u32], channels_moved: bool) -> SampleOrder {
        let len = file_shape.iter().skip(1).map(|&d| d as usize).product();
        let channels = match (channels_moved, file_shape.get(1)) {
            (true, Some(&channels)) => channels as usize,
            _ => 1,
        };
        SampleOrder { len, channels }
    }

    /// Whether both orders are the same.
    pub fn is_same(&self) -> bool {
        self.channels <= 1 || self.channels == self.len
    }

    /// Samples in the file's order (`[C, H, W]`) as the graph takes them (`[H, W, C]`). Elements beyond the last whole sample
    /// are left out.
    pub fn to_graph<T: Copy>(&self, samples: &[T]) -> Vec<T> {
        self.turned(samples, self.channels)
    }

    /// Samples as the graph takes them (`[H, W, C]`) in the file's order (`[C, H, W]`). Elements beyond the last whole sample are
    /// left out.
    pub fn to_file<T: Copy>(&self, samples: &[T]) -> Vec<T> {
        self.turned(samples, self.len / self.channels.max(1))
    }

    /// Every sample is a matrix with so many rows: its transpose.
    fn turned<T: Copy>(&self, samples: &[T], rows: usize) -> Vec<T> {
        let (len, rows) = (self.len.max(1), rows.max(1));
        let columns = len / rows;
        let mut all = Vec::with_capacity(samples.len());
        for sample in samples.chunks_exact(len) {
            all.extend((0..columns * rows).map(|i| sample[i % rows * columns + i / rows]));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_move_to_the_end_and_back() {
        let order = SampleOrder::new(&[1, 2, 1, 3], true);
        let samples: Vec<u8> = (0..12).collect();
        let turned = order.to_graph(&samples);
        assert_eq!(turned, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(order.to_file(&turned), samples);
        assert!(!order.is_same() && SampleOrder::new(&[1, 2, 1, 3], false).is_same());
        let same = SampleOrder::new(&[1, 12], false);
        assert_eq!(
            (same.to_graph(&samples), same.to_file(&samples)),
            (samples.clone(), samples)
        );
    }
}
