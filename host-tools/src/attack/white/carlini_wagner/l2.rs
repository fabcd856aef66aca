//! Section VI.A, "Our L2 attack": minimise `|x' - x|_2^2 + c f(x')`, c by search.

use super::super::penalty::Search;
use super::{CarliniWagner, Descent, Space, square};
use foolproof::threat::{Element, GradientOracle};

pub(super) fn run<E: Element, O: GradientOracle<E>>(
    attack: &CarliniWagner,
    oracle: &mut O,
    space: &Space<'_, '_, E>,
) -> Result<(), O::Error> {
    let mut search = Search::from(attack.constant);
    for _ in 0..attack.searches {
        let descent = Descent {
            attack,
            constant: search.c,
            free: None,
            is_enough: &|_| false,
        };
        let success = descent.run(oracle, space, space.origin.clone(), square)?;
        search.learn(success.is_some());
    }
    Ok(())
}
