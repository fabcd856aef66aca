//! Conditional GANs: both players are told the class (Mirza and Osindero, "Conditional generative adversarial nets", 2014,
//! equation 2). The generator's noise is followed by one number per class, 1 for the sample's and 0 for the others; the
//! discriminator sees the same numbers after the elements of a vector, or as planes after the channels of an image.

use std::borrow::Cow;

/// How samples and classes go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Classes; 0 where nobody is told one.
    pub classes: usize,
    /// Elements between which the numbers go: the channels of an image, all elements of a vector.
    pub group: usize,
}

impl Condition {
    /// `x`, each group followed by the class of its sample; `len` elements per sample.
    pub fn join<'x>(&self, x: &'x [f32], len: usize, labels: &[usize]) -> Cow<'x, [f32]> {
        if self.classes == 0 {
            return Cow::Borrowed(x);
        }
        let mut out = Vec::with_capacity(x.len() / self.group * (self.group + self.classes));
        for (sample, &label) in x.chunks_exact(len).zip(labels) {
            for group in sample.chunks_exact(self.group) {
                out.extend_from_slice(group);
                out.extend((0..self.classes).map(|class| f32::from(u8::from(class == label))));
            }
        }
        Cow::Owned(out)
    }

    /// The part of a joined gradient that belongs to `x`.
    pub fn part<'g>(&self, joined: &'g [f32]) -> Cow<'g, [f32]> {
        if self.classes == 0 {
            return Cow::Borrowed(joined);
        }
        let groups = joined.chunks_exact(self.group + self.classes);
        groups
            .flat_map(|group| &group[..self.group])
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_comes_apart() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let planes = Condition {
            classes: 2,
            group: 1,
        };
        let joined = planes.join(&x, 2, &[1, 0]);
        assert_eq!(
            *joined,
            [1.0, 0.0, 1.0, 2.0, 0.0, 1.0, 3.0, 1.0, 0.0, 4.0, 1.0, 0.0]
        );
        assert_eq!(*planes.part(&joined), x);
        let none = Condition {
            classes: 0,
            group: 2,
        };
        assert_eq!(*none.join(&x, 2, &[0, 0]), x);
        assert_eq!(*none.part(&x), x);
    }
}
