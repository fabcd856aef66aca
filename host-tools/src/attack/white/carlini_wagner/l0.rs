//! Section VI.B, "Our L0 attack": the l2 attack on a shrinking set of elements. After each success the elements with the smallest
//! `|gradient_i * change_i|` go back to the sample's values and stay there; where no constant succeeds any more, the last success
//! stands.

use super::{CarliniWagner, Descent, Space, Success, square};
use foolproof::threat::{Element, GradientOracle};

/// The largest constant that is tried (the authors' code).
const LARGEST: f32 = 2e6;
/// Of k changed elements at most `0.3 sqrt(k)` are fixed at a time (the authors' code).
const SHARE: f32 = 0.3;

pub(super) fn run<E: Element, O: GradientOracle<E>>(
    attack: &CarliniWagner,
    oracle: &mut O,
    space: &Space<'_, '_, E>,
) -> Result<(), O::Error> {
    let mut free = vec![true; space.x.len()];
    let mut w = space.origin.clone();
    let mut constant = attack.constant;
    while let Some(success) = smallest(attack, oracle, space, (&free, &w, &mut constant))? {
        w = success.w.clone();
        let freed = fix(&mut free, &success);
        for (i, free) in free.iter().enumerate() {
            if !free {
                w[i] = space.origin[i];
            }
        }
        if !freed {
            break;
        }
    }
    Ok(())
}

/// Doubles the constant until a descent on the free elements succeeds.
fn smallest<E: Element, O: GradientOracle<E>>(
    attack: &CarliniWagner,
    oracle: &mut O,
    space: &Space<'_, '_, E>,
    (free, w, constant): (&[bool], &[f32], &mut f32),
) -> Result<Option<Success>, O::Error> {
    while *constant <= LARGEST {
        let descent = Descent {
            attack,
            constant: *constant,
            free: Some(free),
            is_enough: &|_| true,
        };
        let success = descent.run(oracle, space, w.to_vec(), square)?;
        if success.is_some() {
            return Ok(success);
        }
        *constant *= 2.0;
    }
    Ok(None)
}

/// Fixes every element that did not change, and of the others those that matter least. Whether any is left that can be.
fn fix(free: &mut [bool], success: &Success) -> bool {
    let mut changed: Vec<usize> = Vec::new();
    for (i, free) in free.iter_mut().enumerate() {
        *free &= success.change[i] != 0.0;
        if *free {
            changed.push(i);
        }
    }
    let weight = |i: usize| (success.gradient[i] * success.change[i]).abs();
    changed.sort_by(|&a, &b| weight(a).total_cmp(&weight(b)));
    let count = (SHARE * (changed.len() as f32).sqrt()).max(1.0) as usize;
    for &i in changed.iter().take(count) {
        free[i] = false;
    }
    changed.len() > count
}
