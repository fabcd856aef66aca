//! Elementary functions. By default those of `libm`, correct to about one unit in the last place and the same to the bit on
//! every machine: the promise that host and chip agree rests on them.
//!
//! Feature `micromath` replaces `exp` and `tanh` by micromath's approximations, for cores without an FPU where they
//! dominate. Measured against f64 over [-20, 20] (`cargo test --features micromath math`): `exp` within
//! 0.3 % relative, `tanh` within 0.0015 absolute. Build host and chip alike, or they no longer agree.

/// e^x.
#[cfg(not(feature = "micromath"))]
pub fn exp(x: f32) -> f32 {
    libm::expf(x)
}

/// Natural logarithm; never approximated: it is taken once per row.
pub fn log(x: f32) -> f32 {
    libm::logf(x)
}

/// Hyperbolic tangent.
#[cfg(not(feature = "micromath"))]
pub fn tanh(x: f32) -> f32 {
    libm::tanhf(x)
}

/// e^x.
#[cfg(feature = "micromath")]
pub fn exp(x: f32) -> f32 {
    // outside, micromath's exponent arithmetic wraps
    micromath::F32Ext::exp(x.clamp(-80.0, 80.0))
}

/// Hyperbolic tangent.
#[cfg(feature = "micromath")]
pub fn tanh(x: f32) -> f32 {
    // by exp: micromath has no tanh of its own
    let e = exp(-2.0 * x.abs());
    let magnitude = (1.0 - e) / (1.0 + e);
    if x < 0.0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    /// Largest relative error of `exp` and absolute error of `tanh` on a grid over [-20, 20].
    fn worst() -> (f64, f64) {
        let mut worst = (0.0_f64, 0.0_f64);
        for i in 0..=40_000 {
            let x = -20.0 + i as f32 / 1000.0;
            let exact = libm::exp(f64::from(x));
            worst.0 = worst.0.max((f64::from(super::exp(x)) / exact - 1.0).abs());
            let exact = libm::tanh(f64::from(x));
            worst.1 = worst.1.max((f64::from(super::tanh(x)) - exact).abs());
        }
        worst
    }

    #[test]
    fn errors_are_what_the_documentation_says() {
        let (exp, tanh) = worst();
        let (exp_limit, tanh_limit) = match cfg!(feature = "micromath") {
            true => (3e-3, 1.5e-3),
            false => (2e-7, 2e-7),
        };
        assert!(exp <= exp_limit, "exp errs by {exp:e} relative");
        assert!(tanh <= tanh_limit, "tanh errs by {tanh:e}");
    }
}
