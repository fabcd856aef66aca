//! Which rows are learned from, in which order.

use rand_core::Rng;

/// Rows to learn from, and rows to judge by: a random choice of all.
pub(super) fn divide(count: usize, held_out: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut rows: Vec<usize> = (0..count).collect();
    if held_out == 0 {
        return (rows, Vec::new());
    }
    shuffle(&mut rows, &mut foolproof::attack::rng(!seed, u64::MAX));
    let mut kept = rows.split_off(count - held_out);
    rows.sort_unstable();
    kept.sort_unstable();
    (rows, kept)
}

/// The order of the rows: every epoch shuffles that of the epoch before, and gives each of its batches a number for all that is
/// random in it.
pub(super) struct Order {
    pub rows: Vec<usize>,
    seed: u64,
    epoch: usize,
    /// Batches of the epoch that have had their number.
    drawn: u64,
    /// That of the last one.
    number: u64,
    random: foolproof::attack::AttackRng,
}

impl Order {
    pub fn new(rows: Vec<usize>, seed: u64) -> Order {
        Order {
            rows,
            seed,
            epoch: 0,
            drawn: 0,
            number: 0,
            random: foolproof::attack::rng(seed, 0),
        }
    }

    /// Goes on to a batch of an epoch (counted from 1; batches within it from 0), over all that lie between, or stays at it;
    /// returns the batch's number.
    pub fn turn(&mut self, epoch: usize, batch: u64) -> u64 {
        while self.epoch < epoch {
            self.epoch += 1;
            self.drawn = 0;
            self.random = foolproof::attack::rng(self.seed, self.epoch as u64);
            shuffle(&mut self.rows, &mut self.random);
        }
        while self.drawn <= batch {
            self.number = self.random.next_u64();
            self.drawn += 1;
        }
        self.number
    }
}

/// Fisher and Yates.
pub(crate) fn shuffle<T>(order: &mut [T], rng: &mut impl Rng) {
    for i in (1..order.len()).rev() {
        let j = (rng.next_u64() % (i as u64 + 1)) as usize;
        order.swap(i, j);
    }
}
