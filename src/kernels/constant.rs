//! Weights as kernels are told of them.

#[cfg(foolproof_simd)]
use super::kept::Kept;
use core::ops::Deref;

/// Where vector loops keep weights in the order in which they read them, or what they know of them: memory that a session's caller lent, if any was.
#[cfg(foolproof_simd)]
pub(crate) type Place<'a> = Option<&'a Kept<'a>>;
/// Portable loops and chips' read weights as they lie.
#[cfg(not(foolproof_simd))]
pub(crate) type Place<'a> = core::marker::PhantomData<&'a ()>;

/// Weights that stay what and where they are for as long as the session. Made of a slice, they have no place for another order of theirs.
#[derive(Clone, Copy, Debug)]
pub struct Constant<'a, T> {
    elements: &'a [T],
    place: Place<'a>,
}

impl<'a, T> Constant<'a, T> {
    /// With a place for their order.
    pub(crate) fn new(elements: &'a [T], place: Place<'a>) -> Constant<'a, T> {
        Constant { elements, place }
    }

    /// The place for their order.
    #[cfg(foolproof_simd)]
    pub(super) fn place(&self) -> Place<'a> {
        self.place
    }
}

impl<'a, T> From<&'a [T]> for Constant<'a, T> {
    fn from(elements: &'a [T]) -> Constant<'a, T> {
        Constant::new(elements, Place::default())
    }
}

impl<T> Deref for Constant<'_, T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        self.elements
    }
}
