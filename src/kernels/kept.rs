//! Weights in the order in which vector loops read them, kept from one call to the next in memory that a session's caller lent: putting
//! them into that order takes a tenth of a small network's run at batch 1, and more where images are small and channels many.
//!
//! Each order has a [`Key`] of everything that it depends on. Weights are known by their address: they lie in the model's image, which is
//! borrowed for as long as the memory is, or in the memory itself. Whoever finds no room puts them in order on the stack, as if nothing had
//! been lent, or takes other loops.
//!
//! Of an int8 dense layer's weights, where they are read as they lie, what is known of them is kept, and of an int8 convolution of single pixels
//! which filters are left where many answer the same whatever they see; without room, loops run that need to know nothing.
#![allow(unsafe_code)] // orders are written once and read through pointers afterwards

#[cfg(target_arch = "x86_64")]
use super::Requantize;
use core::cell::Cell;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

/// Numbers of a key, beside its loops.
const WORDS: usize = 13;
/// Orders begin with a cache line.
const LINE: usize = 64;

/// What an order of weights depends on: the loops that read it, the weights' address and number, and whatever the loops are told about
/// their layout. Equal keys are of equal orders.
#[derive(Clone, Copy, Eq, Debug)]
pub(super) struct Key {
    loops: Loops,
    words: [usize; WORDS],
}

/// Loops with an order of weights of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Loops {
    /// Of the sum as it is written.
    Plain,
    /// Of minimal filtering.
    Winograd,
    /// Of a first layer.
    Stem,
    /// Of a first layer's gradient.
    One,
    /// Of depthwise layers.
    Depthwise,
    /// Of the int8 convolution.
    Integer,
    /// Of the int8 depthwise one.
    IntegerDepthwise,
    /// Of the int8 convolution of single pixels: the filters that are left.
    #[cfg(target_arch = "x86_64")]
    IntegerLive,
    /// Of the int8 dense layer: what is known of its weights, which stay as they lie.
    #[cfg(target_arch = "x86_64")]
    IntegerDense,
    /// Of the int8 convolution and dense layer that take four elements at a time.
    #[cfg(target_arch = "x86_64")]
    IntegerQuads,
    /// Of the int8 depthwise one that does.
    #[cfg(target_arch = "x86_64")]
    IntegerDepthwiseQuads,
}

impl Key {
    /// A key of these numbers, at most 13 of them.
    pub fn new(loops: Loops, numbers: &[usize]) -> Key {
        let mut words = [0; WORDS];
        words[..numbers.len()].copy_from_slice(numbers);
        Key { loops, words }
    }

    /// Of what follows from all constants of an int8 layer of this shape.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub fn of_constants(
        loops: Loops,
        w: &[i8],
        shape: [usize; 3],
        x_zero_point: i16,
        output: &Requantize,
    ) -> Key {
        let words = [
            w.as_ptr() as usize,
            w.len(),
            x_zero_point as usize,
            output.bias.as_ptr() as usize,
            output.multiplier.as_ptr() as usize,
            output.shift.as_ptr() as usize,
            output.rounding as usize,
            output.zero_point as usize,
            output.range.0 as usize,
            output.range.1 as usize,
            shape[0],
            shape[1],
            shape[2],
        ];
        Key { loops, words }
    }
}

// Word by word: a key was just written, and read in larger pieces it would have to be waited for.
impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Key) -> bool {
        let mut words = self.words.iter().zip(&other.words);
        self.loops == other.loops && words.all(|(a, b)| a == b)
    }
}

/// What stands before an order.
#[repr(C, align(64))]
struct Header {
    key: Key,
    /// Bytes behind it, and where the next one's begins.
    bytes: usize,
    end: usize,
}

/// The memory. Orders lie one behind the other, in the order in which they were first asked for; a model asks for them in the same order
/// run after run, so that the next one is nearly always found at once (or behind those of layers that are prepared, which never ask again).
#[derive(Debug)]
pub struct Kept<'a> {
    /// Begins with a cache line.
    start: *mut u8,
    room: usize,
    used: Cell<usize>,
    /// The header behind the one that was found last.
    next: Cell<usize>,
    lent: PhantomData<&'a mut [u8]>,
}

// SAFETY: nobody else writes to its memory, as with a `&mut [u8]`, and what lies below `used`, of which others may hold references, is never written
// again.
unsafe impl Send for Kept<'_> {}

impl<'a> Kept<'a> {
    /// Nothing yet. Whatever the memory holds is written over.
    pub fn new(memory: &'a mut [u8]) -> Kept<'a> {
        let skipped = memory.as_ptr().align_offset(LINE).min(memory.len());
        let memory = &mut memory[skipped..];
        Kept {
            start: memory.as_mut_ptr(),
            room: memory.len(),
            used: Cell::new(0),
            next: Cell::new(0),
            lent: PhantomData,
        }
    }

    /// The `len` elements of an order: found, or made by `write` and kept. None where there is no room for them.
    ///
    /// # Safety
    /// `write` writes all of them that are read; what it writes follows from the key, and so does their type.
    #[inline]
    pub(super) unsafe fn get<T: Copy>(
        &self,
        key: &Key,
        len: usize,
        write: impl FnOnce(*mut T),
    ) -> Option<*const T> {
        let bytes = len.checked_mul(size_of::<T>())?;
        if let Some(found) = self.find(key, bytes) {
            return Some(found.cast());
        }
        let at = self.used.get();
        let data = at + size_of::<Header>();
        let end = bytes.checked_add(data)?.checked_next_multiple_of(LINE)?;
        if end > self.room {
            return None;
        }
        let elements = self.start.wrapping_add(data).cast::<T>();
        write(elements);
        // SAFETY: `at` is a multiple of a line, and a header and the elements fit behind it.
        unsafe {
            self.start.add(at).cast::<Header>().write(Header {
                key: *key,
                bytes,
                end,
            });
        }
        self.used.set(end);
        self.next.set(end);
        Some(elements)
    }

    /// The same for 16-bit numbers, of which some may stay unwritten.
    #[inline]
    pub(super) fn widened(
        &self,
        key: &Key,
        len: usize,
        write: impl FnOnce(&mut [MaybeUninit<i16>]),
    ) -> Option<&'a [MaybeUninit<i16>]> {
        // SAFETY: elements that may be uninitialized need no writing, and any bytes are some.
        unsafe {
            let write = |to| write(core::slice::from_raw_parts_mut(to, len));
            let from = self.get(key, len, write)?;
            Some(core::slice::from_raw_parts(from, len))
        }
    }

    /// The same for whole numbers, zeros where none is written.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn numbers(
        &self,
        key: &Key,
        len: usize,
        write: impl FnOnce(&mut [i32]),
    ) -> Option<&'a [i32]> {
        // SAFETY: all are written, at first as zeros.
        unsafe {
            let write = |to: *mut i32| {
                to.write_bytes(0, len);
                write(core::slice::from_raw_parts_mut(to, len));
            };
            let from = self.get(key, len, write)?;
            Some(core::slice::from_raw_parts(from, len))
        }
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.get()
    }

    /// From the header behind the last one found to the end, and from the beginning to there.
    fn find(&self, key: &Key, bytes: usize) -> Option<*const u8> {
        let (first, used) = (self.next.get(), self.used.get());
        let mut at = first;
        for end in [used, first] {
            while at < end {
                // SAFETY: `get` wrote a header here: below `used` each `end` is where the next one was written.
                let header = unsafe { &*self.start.add(at).cast::<Header>() };
                if header.key == *key && header.bytes == bytes {
                    self.next.set(header.end);
                    return Some(self.start.wrapping_add(at + size_of::<Header>()));
                }
                at = header.end;
            }
            at = 0;
        }
        None
    }
}

/// Enough bytes for what is kept of an int8 dense layer's weights.
#[cfg(target_arch = "x86_64")]
pub(crate) fn dense_bytes(weights: usize, rows: usize) -> usize {
    let depth = weights / rows.max(1);
    let numbers = match super::simd::found().wide_products && depth <= super::int8_avx512::DEPTH {
        true => super::int8_avx512::numbers(rows, depth.div_ceil(4)),
        false => super::int8_avx2::whole::numbers(weights, rows),
    };
    size_of::<Header>() + LINE + numbers * size_of::<i32>()
}

/// Loops of other CPUs keep nothing of them.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn dense_bytes(_: usize, _: usize) -> usize {
    0
}

/// Enough bytes for what is kept of an int8 convolution of single pixels: how many filters are left, and if they are half or less, which.
#[cfg(target_arch = "x86_64")]
fn live_bytes([run, filters]: [usize; 2]) -> usize {
    let numbers = super::int8_avx2::live::numbers(filters, filters / 2, run);
    2 * (size_of::<Header>() + LINE) + numbers * size_of::<i32>()
}

/// Loops of other CPUs keep nothing of them.
#[cfg(not(target_arch = "x86_64"))]
fn live_bytes(_: [usize; 2]) -> usize {
    0
}

/// What decides how much memory the orders of a convolution's weights take.
pub(crate) struct Sizes {
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Bytes of a weight: 4 of f32, 1 of int8.
    pub weight: usize,
    /// Channels that a sum goes over, and channels that there are sums for.
    pub forward: [usize; 2],
    /// The same in the input gradient, where there is one.
    pub backward: Option<[usize; 2]>,
    /// Rows and columns of what comes out, and of the input.
    pub images: [[usize; 2]; 2],
    /// Whether forward sums keep ties ([`ConvF32::keeps_ties`](super::ConvF32::keeps_ties)).
    pub keeps_ties: bool,
    /// Orders against the window's direction: one for each pixel of a stride that a cell of the window meets.
    pub phases: usize,
}

impl Sizes {
    /// Enough bytes for all orders.
    pub fn bytes(&self) -> usize {
        let [rows, columns] = self.kernel;
        // sixteen channels at a time
        let floats = |keeps_ties: bool, sums: [usize; 2], image: [usize; 2]| {
            let one = match (self.kernel, self.phases) {
                ([3, 3], 1) => super::fma::winograd_room(keeps_ties, sums, image),
                _ => 16 * rows * columns * sums[0],
            };
            4 * one * sums[1].div_ceil(16)
        };
        // two elements of a row at a time, as 16-bit numbers, or four as they are
        let pairs = |[from, to]: [usize; 2]| {
            #[cfg(target_arch = "x86_64")]
            if super::simd::found().wide_products {
                let quads = rows * (columns * from).div_ceil(4);
                // of one channel: a depthwise layer, perhaps
                return 4 * match from {
                    1 => super::int8_avx512::depthwise_numbers(to, quads),
                    _ => super::int8_avx512::numbers(to, quads),
                };
            }
            2 * rows * (columns * from).next_multiple_of(2) * to.next_multiple_of(16)
        };
        let forward = match self.weight {
            1 if self.kernel == [1, 1] => pairs(self.forward) + live_bytes(self.forward),
            1 => pairs(self.forward),
            _ => floats(self.keeps_ties, self.forward, self.images[0]),
        };
        let headers = (1 + self.phases) * (size_of::<Header>() + LINE);
        let backward = self
            .backward
            .map(|sums| floats(false, sums, self.images[1]));
        headers + forward + backward.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    /// An order of `len` elements that are all `value`, and whether it was made now.
    fn ask(kept: &Kept, key: usize, len: usize, value: u32) -> Option<(u32, bool)> {
        let mut made = false;
        // SAFETY: all elements are written; the tests ask for one length a key.
        let found = unsafe {
            kept.get(&Key::new(Loops::Plain, &[key]), len, |to: *mut u32| {
                made = true;
                for i in 0..len {
                    to.add(i).write(value);
                }
            })
        }?;
        assert!((found as usize).is_multiple_of(LINE));
        // SAFETY: `len` elements were written.
        let all = unsafe { core::slice::from_raw_parts(found, len) };
        assert!(all.iter().all(|&v| v == all[0]));
        Some((all[0], made))
    }

    #[test]
    fn what_was_made_is_found_in_any_order() {
        let mut memory = std::vec![0xa5; 4096];
        let kept = Kept::new(&mut memory);
        for key in 1..=5 {
            assert_eq!(
                ask(&kept, key, 7, 10 * key as u32),
                Some((10 * key as u32, true))
            );
        }
        for key in [1, 2, 3, 4, 5, 1, 5, 4, 3, 3, 2, 1] {
            assert_eq!(ask(&kept, key, 7, 0), Some((10 * key as u32, false)));
        }
    }

    #[test]
    fn without_room_nothing_is_kept_and_what_was_stays() {
        let mut memory = std::vec![0; 2 * (128 + 64) + 63];
        let kept = Kept::new(&mut memory);
        assert_eq!(ask(&kept, 1, 16, 1), Some((1, true)));
        assert_eq!(ask(&kept, 2, 17, 2), None);
        assert_eq!(ask(&kept, 3, 16, 3), Some((3, true)));
        assert_eq!(ask(&kept, 4, 1, 4), None);
        assert_eq!(ask(&kept, 4, usize::MAX, 4), None);
        assert_eq!(ask(&kept, 1, 16, 5), Some((1, false)));
        for len in 0..200 {
            let mut memory = std::vec![0; len];
            let kept = Kept::new(&mut memory);
            assert!(ask(&kept, 1, 1, 1).is_none_or(|found| found == (1, true)));
        }
    }

    #[test]
    fn keys_differ_in_every_word() {
        let key = |words: &[usize]| Key::new(Loops::Plain, words);
        let all = [1; WORDS];
        for i in 0..WORDS {
            let mut other = all;
            other[i] = 2;
            assert_ne!(key(&all), key(&other));
        }
        assert_ne!(key(&[1]), key(&[1, 1]));
        assert_ne!(key(&[1]), Key::new(Loops::Winograd, &[1]));
    }
}
