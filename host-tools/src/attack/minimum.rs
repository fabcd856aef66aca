//! The nearest adversarial input that an attack with a fixed epsilon can find: bisection over the radius of its ball.
//!
//! This is how minimum norms are had from attacks that are made for a ball, as in Madry et al. 2017, section 5, and in Foolbox
//! (binary search over epsilons). A round that succeeds goes on from the distance of what it found, which is often well inside of
//! its ball.

use super::{Aim, Hunt, Problem, Stop};
use foolproof::attack::{Ball, Norm};
use foolproof::threat::{Budget, Element, LabelOracle};

/// How the radius is searched.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bisection {
    /// Attacks at most.
    pub rounds: u16,
    /// It ends where the radius is known up to this share of itself.
    pub tolerance: f32,
}

impl Default for Bisection {
    /// From the whole box to a percent of the radius takes less than 20 rounds for images.
    fn default() -> Bisection {
        Bisection {
            rounds: 20,
            tolerance: 0.01,
        }
    }
}

impl Bisection {
    /// Runs `attack` in ever better balls; its successes end it, and go to whoever watches `oracle`.
    ///
    /// # Errors
    /// The oracle's, which is also how a hunt ends.
    pub fn run<E: Element, O: LabelOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        mut attack: impl FnMut(&mut Hunt<'_, E, &mut O>, &Problem<'_, E>) -> Result<(), Stop<O::Error>>,
    ) -> Result<(), O::Error> {
        // no adversarial input is nearer, and one is known this far away
        let (mut empty, mut found) = (0.0_f32, f32::INFINITY);
        let mut radius = widest(problem);
        for _ in 0..self.rounds {
            let inner = Problem {
                ball: Ball {
                    epsilon: radius,
                    ..problem.ball
                },
                ..*problem
            };
            let mut hunt = Hunt::new(&mut *oracle, inner, Aim::Any, Budget::UNLIMITED);
            match attack(&mut hunt, &inner) {
                Ok(()) | Err(Stop::Fooled | Stop::BudgetSpent) => {}
                Err(Stop::Oracle(error)) => return Err(error),
            }
            match &hunt.witness {
                Some(witness) => found = found.min(witness.distance),
                None if found.is_infinite() => return Ok(()),
                None => empty = empty.max(radius),
            }
            let gap = found - empty;
            if gap <= self.tolerance * found || !self.is_wide(problem, gap) {
                return Ok(());
            }
            radius = 0.5 * (empty + found);
        }
        Ok(())
    }

    /// Whether a ball between two radii can hold another input.
    fn is_wide<E: Element>(&self, problem: &Problem<'_, E>, gap: f32) -> bool {
        match (problem.ball.norm, E::LATTICE) {
            (Norm::L0, _) | (Norm::Linf, true) => gap > 1.0,
            _ => true,
        }
    }
}

/// The problem's epsilon, or what reaches every corner of the box.
fn widest<E: Element>(problem: &Problem<'_, E>) -> f32 {
    let Ball {
        norm,
        epsilon,
        low,
        high,
    } = problem.ball;
    let ways: Vec<f32> = (problem.x.iter())
        .map(|x| (high - x.to_f32()).max(x.to_f32() - low).max(0.0))
        .collect();
    epsilon.min(norm.distance(&ways, &vec![0.0; ways.len()]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        INPUT, Known, attacked, distance_to, in_reals, on_lattice, real_input,
    };
    use super::super::{Attack, Stream, catalog, catalog::Settings};
    use super::*;
    use foolproof::loss::Goal;

    const STREAM: Stream = Stream { seed: 3, sample: 4 };

    fn apgd(norm: Norm) -> Attack {
        let entry = catalog::find("apgd-t").unwrap();
        entry.attack(&Settings::new(norm)).unwrap()
    }

    #[test]
    fn a_strong_attack_finds_the_nearest_on_linear_classifiers() {
        for (norm, slack) in [(Norm::Linf, 1.03), (Norm::L2, 1.03)] {
            let known = &mut in_reals();
            let x = real_input();
            let problem = known.problem(&x, Goal::Avoid(0), norm, f32::INFINITY);
            let watched = (Aim::Nearest, Budget::UNLIMITED);
            let found = attacked(known, &problem, watched, |oracle, _| {
                Bisection::default().run(oracle, &problem, |oracle, problem| {
                    apgd(norm).on_gradients(oracle, problem, STREAM)
                })
            });
            assert!(found.outcome.fooled);
            let (distance, least) = (norm.distance(&x, &found.x), distance_to(1, norm));
            assert!(
                distance >= 0.999 * least && distance <= slack * least,
                "{norm:?}: {distance}, not {least}"
            );
        }
    }

    #[test]
    fn on_the_lattice_it_finds_the_last_step() {
        let known = &mut on_lattice();
        let problem = known.problem(&INPUT, Goal::Avoid(0), Norm::Linf, f32::INFINITY);
        let watched = (Aim::Nearest, Budget::UNLIMITED);
        let found = attacked(known, &problem, watched, |oracle, _| {
            Bisection::default().run(oracle, &problem, |oracle, problem| {
                apgd(Norm::Linf).on_gradients(oracle, problem, STREAM)
            })
        });
        // 0.339 in steps of 0.02
        let least = (distance_to(1, Norm::Linf) / 0.02).ceil();
        assert_eq!(Norm::Linf.distance(&INPUT, &found.x), least);
    }

    #[test]
    fn budgets_hold_and_what_cannot_be_fooled_is_left() {
        let known = &mut Known::bowl(&[0.0; 4], 9.0, 1.0, (-1.0, 1.0));
        let x = [0.1, 0.2, 0.3, 0.4];
        let problem = known.problem(&x, Goal::Avoid(0), Norm::Linf, f32::INFINITY);
        let budget = Budget {
            queries: 13,
            gradients: 11,
        };
        for budget in [budget, Budget::UNLIMITED] {
            let found = attacked(known, &problem, (Aim::Nearest, budget), |oracle, _| {
                Bisection::default().run(oracle, &problem, |oracle, problem| {
                    apgd(Norm::Linf).on_gradients(oracle, problem, STREAM)
                })
            });
            assert!(!found.outcome.fooled);
        }
    }
}
