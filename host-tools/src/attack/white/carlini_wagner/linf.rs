//! Section VI.C, "Our Linf attack": minimise `sum_i (|x'_i - x_i| - tau)+ + c f(x')`. While all changes stay below
//! tau, tau falls by a tenth; where they do not, c doubles. Each descent begins where the last one succeeded.

use super::{CarliniWagner, Descent, Space};
use foolproof::threat::{Element, GradientOracle};

/// How much of tau is left after a success (the paper's factor).
const SHRINK: f32 = 0.9;
/// The largest constant that is tried (the authors' code).
const LARGEST: f32 = 20.0;
/// The smallest tau, widths of the box: a quarter of a step of 8 bits, where the authors' code stops at one.
const FINEST: f32 = 1.0 / 1024.0;

pub(super) fn run<E: Element, O: GradientOracle<E>>(
    attack: &CarliniWagner,
    oracle: &mut O,
    space: &Space<'_, '_, E>,
) -> Result<(), O::Error> {
    let mut w = space.origin.clone();
    let (mut tau, mut constant) = (1.0_f32, attack.constant);
    while tau >= FINEST && constant <= LARGEST.max(attack.constant) {
        let descent = Descent {
            attack,
            constant,
            free: None,
            // the authors' code: a loss below a ten-thousandth of c ends the descent
            is_enough: &|far| far <= 1e-4 * constant,
        };
        let found = descent.run(oracle, space, w.clone(), |change, gradient| {
            beyond(tau, change, gradient)
        })?;
        match found {
            Some(success) if success.distance <= 1e-4 * constant => {
                let most = success.change.iter().fold(0.0_f32, |m, d| m.max(d.abs()));
                tau = SHRINK * tau.min(most);
                w = success.w;
            }
            _ => constant *= 2.0,
        }
    }
    Ok(())
}

/// `sum (|d| - tau)+` and its gradient.
fn beyond(tau: f32, change: &[f32], gradient: &mut [f32]) -> f32 {
    let mut sum = 0.0;
    for (g, d) in gradient.iter_mut().zip(change) {
        let over = d.abs() - tau;
        sum += over.max(0.0);
        *g = match over > 0.0 {
            true => d.signum(),
            false => 0.0,
        };
    }
    sum
}
