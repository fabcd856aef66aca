//! Random numbers for attacks, from the sample's own stream; the same on every machine.

use foolproof::attack::AttackRng;
use rand_core::Rng;

/// A uniform number in [0, 1), a multiple of 2^-24.
pub fn uniform(rng: &mut AttackRng) -> f32 {
    (rng.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A uniform whole number below `n`; 0 where `n` is 0.
pub fn below(rng: &mut AttackRng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

/// A standard normal number (Box and Muller 1958).
pub fn normal(rng: &mut AttackRng) -> f32 {
    // (0, 1], so that the logarithm is finite
    let radius = libm::sqrtf(-2.0 * libm::logf(1.0 - uniform(rng)));
    radius * libm::cosf(std::f32::consts::TAU * uniform(rng))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_they_say() {
        let mut rng = foolproof::attack::rng(3, 4);
        let n = 20_000;
        let (mut sum, mut squares, mut low) = (0.0, 0.0, 0);
        for _ in 0..n {
            let g = f64::from(normal(&mut rng));
            sum += g;
            squares += g * g;
            assert!(below(&mut rng, 5) < 5);
            low += usize::from(uniform(&mut rng) < 0.25);
        }
        assert!((sum / f64::from(n)).abs() < 0.03);
        assert!((squares / f64::from(n) - 1.0).abs() < 0.05);
        assert!((4800..5200).contains(&low));
    }
}
