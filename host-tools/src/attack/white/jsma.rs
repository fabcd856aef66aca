//! Jacobian-based saliency maps: Papernot et al., "The limitations of deep learning in adversarial settings" (2016),
//! algorithm 3 with the saliency of a pair of elements (section IV.A: equation 10), or of one (equations 8 and 9) with `pairs=0`: of the elements whose
//! change raises the target's logit and lowers the sum of the others, move those that do most, until the goal is met or the
//! share `gamma` of the elements has changed.
//!
//! Untargeted, every step tries all other classes as the target and takes the most salient (Wiyatno and Xu, "Maximal Jacobian-based
//! saliency map attack", 2018, algorithm 1, which also tries both signs of theta: `both_ways=1`; an element never turns back).
//!
//! Defaults: theta 1 (to the end of the box) and gamma 14.5 % are the paper's (section IV); `both_ways=1` is Wiyatno's and Xu's, whose
//! attack finds smaller changes than one direction alone. A step costs one query and one gradient for each class.

use super::super::catalog::{Access, Entry, Settings};
use super::super::problem::Problem;
use super::super::{Attack, white::White};
use super::penalty::Scale;
use crate::error::Result;
use foolproof::attack::Norm;
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::threat::{Element, GradientOracle};

/// Parameters of the attack.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SaliencyMap {
    /// How far an element moves in one step, widths of the box.
    pub theta: f32,
    /// The share of elements that may change.
    pub gamma: f32,
    /// Whether elements are chosen in pairs.
    pub pairs: bool,
    /// Whether elements may fall as well as rise.
    pub both_ways: bool,
}

/// Its line in the list of attacks.
pub const ENTRY: Entry = Entry::new("jsma", Access::Gradients, &[Norm::L0], make)
    .nearest()
    .about("the most salient elements one after the other (Papernot et al. 2016; untargeted: Wiyatno and Xu 2018)")
    .with(&[
        ("theta", "1"),
        ("gamma", "0.145"),
        ("pairs", "1"),
        ("both_ways", "1"),
    ]);

fn make(s: &mut Settings) -> Result<Attack> {
    Ok(Attack::White(White::SaliencyMap(SaliencyMap {
        theta: s.number("theta", 1.0, 1e-6, 1.0)? as f32,
        gamma: s.number("gamma", 0.145, 0.0, 1.0)? as f32,
        pairs: s.whole("pairs", 1, 0, 1)? == 1,
        both_ways: s.whole("both_ways", 1, 0, 1)? == 1,
    })))
}

/// A choice of one or two elements and the way they go.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    elements: (usize, usize),
    way: f32,
    saliency: f32,
}

impl SaliencyMap {
    /// Attacks one sample; ends with the first success, since every further step only changes more.
    ///
    /// # Errors
    /// The oracle's.
    pub fn run<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
    ) -> std::result::Result<(), O::Error> {
        let Some(scale) = Scale::of(problem) else {
            return Ok(());
        };
        let n = problem.x.len();
        let most = (self.gamma * n as f32).min(problem.ball.epsilon) as usize;
        let mut asked = problem.x.to_vec();
        let mut gone = vec![0.0_f32; n];
        let mut jacobian = vec![vec![0.0; n]; problem.classes];
        // every step moves at least one element by theta or to the end of the box
        let steps = most as f32 / self.theta;
        for _ in 0..=steps as usize {
            for (class, row) in jacobian.iter_mut().enumerate() {
                let objective = Objective {
                    loss: Loss::Logit(class as u16),
                    goal: Goal::Avoid(problem.goal.class()),
                };
                let answer = oracle.gradient(&asked, objective)?;
                if problem.goal.is_met(answer.label) {
                    return Ok(());
                }
                row.copy_from_slice(answer.input);
            }
            let Some(choice) = self.choose(problem, &jacobian, (&asked, &gone), most) else {
                return Ok(());
            };
            let (p, q) = choice.elements;
            for i in if p == q { vec![p] } else { vec![p, q] } {
                let moved = asked[i].to_f32() + choice.way * self.theta * scale.width;
                asked[i] = E::from_f32(moved.clamp(problem.ball.low, problem.ball.high));
                gone[i] = choice.way;
            }
        }
        oracle.classify(&asked)?;
        Ok(())
    }

    /// The most salient choice for any target and way, if there is one. `gone` is the way that each element went before, or 0.
    fn choose<E: Element>(
        &self,
        problem: &Problem<'_, E>,
        jacobian: &[Vec<f32>],
        (asked, gone): (&[E], &[f32]),
        most: usize,
    ) -> Option<Choice> {
        let targets: Vec<usize> = match problem.goal {
            Goal::Reach(target) => vec![target],
            Goal::Avoid(class) => (0..jacobian.len()).filter(|&c| c != class).collect(),
        };
        let is_changed = |i: usize| asked[i] != problem.x[i];
        let changed = (0..asked.len()).filter(|&i| is_changed(i)).count();
        let total: Vec<f32> = (0..asked.len())
            .map(|i| jacobian.iter().map(|row| row[i]).sum())
            .collect();
        let ways: &[f32] = if self.both_ways { &[1.0, -1.0] } else { &[1.0] };
        let mut best: Option<Choice> = None;
        for &target in &targets {
            for &way in ways {
                let end = match way > 0.0 {
                    true => problem.ball.high,
                    false => problem.ball.low,
                };
                let slopes: Vec<Slope> = (0..asked.len())
                    .filter(|&i| gone[i] != -way)
                    // past the budget of elements only those that changed may go on
                    .filter(|&i| asked[i].to_f32() != end && (changed < most || is_changed(i)))
                    .map(|i| Slope {
                        i,
                        up: way * jacobian[target][i],
                        down: -way * (total[i] - jacobian[target][i]),
                    })
                    .collect();
                // the last free place takes one element, not two
                let pairs = self.pairs && (changed + 2 <= most || changed >= most);
                let found = match pairs {
                    true => best_pair(&slopes).or_else(|| best_single(&slopes)),
                    false => best_single(&slopes),
                };
                if let Some((elements, saliency)) = found
                    && best.is_none_or(|best| saliency > best.saliency)
                {
                    best = Some(Choice {
                        elements,
                        way,
                        saliency,
                    });
                }
            }
        }
        best
    }
}

/// What moving one element does.
#[derive(Clone, Copy, Debug)]
struct Slope {
    i: usize,
    /// Gain of the target's logit.
    up: f32,
    /// Loss of the others' logits together.
    down: f32,
}

fn best_single(slopes: &[Slope]) -> Option<((usize, usize), f32)> {
    slopes
        .iter()
        .filter(|s| s.up > 0.0 && s.down > 0.0)
        .map(|s| ((s.i, s.i), s.up * s.down))
        .reduce(larger)
}

/// The pair whose sums are both positive and whose product of sums is largest.
fn best_pair(slopes: &[Slope]) -> Option<((usize, usize), f32)> {
    let mut best = None;
    // a pair is bounded by its best partners, so that most are never looked at
    let most_up = slopes.iter().fold(0.0_f32, |m, s| m.max(s.up));
    let most_down = slopes.iter().fold(0.0_f32, |m, s| m.max(s.down));
    for (k, p) in slopes.iter().enumerate() {
        let bound = (p.up + most_up).max(0.0) * (p.down + most_down).max(0.0);
        if best.is_some_and(|(_, saliency)| bound <= saliency) {
            continue;
        }
        for q in &slopes[k + 1..] {
            let (up, down) = (p.up + q.up, p.down + q.down);
            if up > 0.0 && down > 0.0 {
                let pair = ((p.i, q.i), up * down);
                best = Some(best.map_or(pair, |best| larger(best, pair)));
            }
        }
    }
    best
}

/// The first of equals stays.
fn larger<T>(a: (T, f32), b: (T, f32)) -> (T, f32) {
    if b.1 > a.1 { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::super::analytic::{Analytic, hunted};
    use super::*;
    use foolproof::threat::Budget;

    const PLAIN: SaliencyMap = SaliencyMap {
        theta: 1.0,
        gamma: 1.0,
        pairs: false,
        both_ways: true,
    };

    /// Class 1 overtakes class 0 when elements 0 and 1 both go to the other end, and not with fewer.
    fn three_classes(second: f32) -> Analytic {
        let one = vec![0.7, second, 0.2, 0.1, 0.0];
        let zero = one.iter().map(|w| -w).collect();
        Analytic::new(vec![zero, one, vec![0.0; 5]], vec![0.0, -1.1, -9.0])
    }

    fn run<E: Element + Default>(
        attack: SaliencyMap,
        oracle: &Analytic,
        (x, goal): (&[E], Goal),
        most: f32,
    ) -> Option<f32> {
        let at = (Norm::L0, most);
        let all = Budget::UNLIMITED;
        let hunted = hunted(oracle, (x, goal), at, all, |hunt, problem, _| {
            attack.run(hunt, problem)
        });
        assert!(hunted.queries <= hunted.gradients + 1);
        hunted.witness.map(|witness| witness.distance)
    }

    #[test]
    fn takes_as_few_elements_as_there_can_be() {
        let oracle = three_classes(0.7);
        let x = [-1.0, -1.0, -1.0, -1.0, 0.0];
        for goal in [Goal::Avoid(0), Goal::Reach(1)] {
            for pairs in [false, true] {
                let attack = SaliencyMap { pairs, ..PLAIN };
                let found = run(attack, &oracle, (&x, goal), f32::INFINITY);
                assert_eq!(found, Some(2.0), "pairs: {pairs}");
            }
        }
        // an element that must fall: only where both ways are allowed
        let oracle = three_classes(-0.7);
        let x = [-1.0, 1.0, -1.0, -1.0, 0.0];
        let one_way = SaliencyMap {
            both_ways: false,
            ..PLAIN
        };
        let task = (&x[..], Goal::Avoid(0));
        assert_eq!(run(PLAIN, &oracle, task, 5.0), Some(2.0));
        assert_eq!(run(one_way, &oracle, task, 5.0), None);
    }

    #[test]
    fn on_the_lattice_and_within_a_number_of_elements() {
        let oracle = three_classes(-0.7).on_lattice();
        let task = (&[-127_i8, 127, -127, -127, 0][..], Goal::Avoid(0));
        assert_eq!(run(PLAIN, &oracle, task, 1.0), None);
        assert_eq!(run(PLAIN, &oracle, task, 2.0), Some(2.0));
    }

    #[test]
    fn the_best_pair_is_the_one_that_trying_all_finds() {
        let mut random = foolproof::attack::rng(3, 4);
        let mut draw = || {
            use rand_core::Rng;
            (random.next_u32() >> 8) as f32 / 8_388_608.0 - 1.0
        };
        for _ in 0..50 {
            let slopes: Vec<Slope> = (0..12)
                .map(|i| Slope {
                    i,
                    up: draw(),
                    down: draw(),
                })
                .collect();
            let mut expected: Option<f32> = None;
            for p in &slopes {
                for q in &slopes {
                    let (up, down) = (p.up + q.up, p.down + q.down);
                    if p.i < q.i && up > 0.0 && down > 0.0 {
                        expected = Some(expected.map_or(up * down, |e: f32| e.max(up * down)));
                    }
                }
            }
            assert_eq!(best_pair(&slopes).map(|(_, saliency)| saliency), expected);
        }
    }
}
