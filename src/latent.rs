//! The noise that a generator makes a sample of, the same bits on host and chip.
//!
//! A sample is named by a seed and its index, and, for a generator that is told a class, by the number of classes: sample `i` is of
//! class `i % classes`. The generator's input is noise from the standard normal distribution, followed by one number per class, 1
//! for the sample's class and 0 for the others.

use crate::attack;
use rand_core::Rng;

/// Standard normal numbers (Box and Muller, "A note on the generation of random normal deviates", 1958): two of two uniform
/// ones, in f64 with `libm`, rounded to f32.
pub fn normal(rng: &mut impl Rng, out: &mut [f32]) {
    for pair in out.chunks_mut(2) {
        for (value, deviate) in pair.iter_mut().zip(deviates(rng)) {
            *value = deviate;
        }
    }
}

fn deviates(rng: &mut impl Rng) -> [f32; 2] {
    let mut uniform = || f64::from(rng.next_u32()) / 4_294_967_296.0;
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - uniform()));
    let (sin, cos) = libm::sincos(2.0 * core::f64::consts::PI * uniform());
    [(radius * cos) as f32, (radius * sin) as f32]
}

/// The name of a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latent {
    /// The seed of the run.
    pub seed: u64,
    /// The sample's number in the run.
    pub index: u64,
    /// Classes that the generator is told; 0 where it is told none.
    pub classes: usize,
}

impl Latent {
    /// The class that the sample shall be of; 0 where there are none.
    pub fn class(&self) -> usize {
        match self.classes {
            0 => 0,
            classes => (self.index % classes as u64) as usize,
        }
    }

    /// The generator's input, `out.len()` numbers of which the last `classes` say the class.
    pub fn draw(&self, out: &mut [f32]) {
        self.each(out.len(), |i, value| {
            if let Some(place) = out.get_mut(i) {
                *place = value;
            }
        });
    }

    /// The same on an int8 input's grid: `value / scale + zero_point`, rounded half away from zero and clamped.
    pub fn draw_on_grid(&self, out: &mut [i8], scale: f32, zero_point: i32) {
        self.each(out.len(), |i, value| {
            if let Some(place) = out.get_mut(i) {
                let q = libm::roundf(value / scale) + zero_point as f32;
                *place = q.clamp(-128.0, 127.0) as i8;
            }
        });
    }

    fn each(&self, len: usize, mut put: impl FnMut(usize, f32)) {
        let noise = len.saturating_sub(self.classes);
        let mut rng = attack::rng(self.seed, self.index);
        for i in (0..noise).step_by(2) {
            let pair = deviates(&mut rng);
            put(i, pair[0]);
            if i + 1 < noise {
                put(i + 1, pair[1]);
            }
        }
        for i in noise..len {
            let is_class = i - noise == self.class();
            put(i, f32::from(u8::from(is_class)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_normal_and_the_grid_holds_the_same() {
        let (mut sum, mut squares) = (0.0f64, 0.0f64);
        for index in 0..4000 {
            let latent = Latent {
                seed: 3,
                index,
                classes: 3,
            };
            let mut x = [9.0; 8];
            latent.draw(&mut x);
            for &v in &x[..5] {
                sum += f64::from(v) / 20_000.0;
                squares += f64::from(v * v) / 20_000.0;
            }
            let class = (index % 3) as usize;
            assert!((0..3).all(|c| x[5 + c] == f32::from(u8::from(c == class))));
            let mut q = [0; 8];
            latent.draw_on_grid(&mut q, 1.0 / 16.0, -3);
            for (v, q) in x.iter().zip(q) {
                let real = (f32::from(q) + 3.0) / 16.0;
                assert!((v.clamp(-125.0 / 16.0, 130.0 / 16.0) - real).abs() <= 0.5 / 16.0);
            }
            // what a stream of normal numbers of odd length gives
            let mut plain = [0.0; 5];
            normal(&mut attack::rng(3, index), &mut plain);
            assert_eq!(x[..5], plain);
        }
        assert!(sum.abs() < 0.03 && (squares - 1.0).abs() < 0.05);
    }
}
