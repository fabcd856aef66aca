//! Auto-PGD: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks"
//! (ICML 2020), algorithm 1 with the step of equation 3, for the linf and l2 norms; Croce and Hein, "Mind the box: l1-APGD for
//! sparse adversarial attacks on image classifiers" (ICML 2021), algorithms 1 and 2, for l1.
//!
//! A step goes along the gradient and keeps a quarter of the last move (`alpha = 0.75`). At checkpoints the step is
//! halved, and the search goes on from the best point, where fewer than `rho = 0.75` of the steps climbed or nothing got better
//! since the last halving. In l1 a step changes the share of elements with the largest slopes, which follows how
//! sparse the best point is, and the search comes from radii of three and two epsilon.
//!
//! Losses: cross-entropy (`apgd-ce`), the difference of logits ratio (`apgd-dlr`, equation 6), and its targeted form in turn for
//! the nine classes that score highest (`apgd-t`, equation 7). Defaults: 100 steps and 5 starts, the paper's (section 5; AutoAttack's
//! standard version has one start), for `apgd-t` one start and nine classes, AutoAttack's.
//!
//! Costs at most `starts * (steps + 1)` gradients; `apgd-t` that many for each target class, and one query.

use super::{White, rank};
use crate::attack::random::{normal, uniform};
use crate::attack::{Access, Attack, Entry, Problem, Settings};
use crate::error::Result as Made;
use foolproof::attack::{AttackRng, Ball, Norm};
use foolproof::loss::{Goal, Loss, Objective};
use foolproof::threat::{Element, GradientOracle};

/// Which losses are climbed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Losses {
    /// This one, with the problem's own goal.
    One(Loss),
    /// The targeted difference of logits ratio, for that many classes at most, the highest scores first. A goal that names a
    /// class to reach has that one target.
    Targets(u16),
}

/// Auto-PGD with its settings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Apgd {
    /// What is climbed.
    pub losses: Losses,
    /// Steps per start.
    pub steps: u16,
    /// Starts, all random.
    pub starts: u16,
}

/// `apgd-ce`.
pub const CROSS_ENTROPY: Entry = Entry::new("apgd-ce", Access::Gradients, NORMS, |s| {
    make(s, Losses::One(Loss::CrossEntropy), 5)
})
.about("auto-PGD on the cross-entropy (Croce and Hein 2020)")
.with(&[("steps", "100"), ("starts", "5")]);

/// `apgd-dlr`.
pub const LOGIT_RATIO: Entry = Entry::new("apgd-dlr", Access::Gradients, NORMS, |s| {
    make(s, Losses::One(Loss::Dlr), 5)
})
.about("auto-PGD on the difference of logits ratio (Croce and Hein 2020)")
.with(&[("steps", "100"), ("starts", "5")]);

/// `apgd-t`.
pub const CLASS_BY_CLASS: Entry = Entry::new("apgd-t", Access::Gradients, NORMS, |s| {
    let targets = s.whole("targets", 9, 1, 10_000)? as u16;
    make(s, Losses::Targets(targets), 1)
})
.about("auto-PGD on the targeted difference of logits ratio, class by class (Croce and Hein 2020)")
.with(&[("steps", "100"), ("starts", "1"), ("targets", "9")]);

const NORMS: &[Norm] = &[Norm::Linf, Norm::L2, Norm::L1];

fn make(s: &mut Settings, losses: Losses, starts: u32) -> Made<Attack> {
    Ok(Attack::White(White::Apgd(Apgd {
        losses,
        steps: s.whole("steps", 100, 1, 10_000)? as u16,
        starts: s.whole("starts", starts, 1, 1_000)? as u16,
    })))
}

/// Share of a move that is new; the rest repeats the last move (equation 3).
const ALPHA: f32 = 0.75;
/// Share of steps that must climb between two checkpoints (condition 1).
const RHO: f32 = 0.75;

impl Apgd {
    pub(super) fn run<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        let most = match self.losses {
            Losses::One(loss) => {
                let goal = problem.goal;
                return self.starts(oracle, problem, Objective { loss, goal }, rng);
            }
            Losses::Targets(most) => most,
        };
        let mut scores = vec![0.0; problem.classes];
        let label = oracle.scores(problem.x, &mut scores)?;
        let (source, targets) = match problem.goal {
            Goal::Avoid(class) => (class, rank::others(&scores, class)),
            Goal::Reach(class) => (label, vec![class]),
        };
        for &target in targets.iter().take(usize::from(most)) {
            let objective = Objective {
                loss: Loss::DlrToward(target as u16),
                goal: Goal::Avoid(source),
            };
            self.starts(oracle, problem, objective, rng)?;
        }
        Ok(())
    }

    fn starts<E: Element, O: GradientOracle<E>>(
        &self,
        oracle: &mut O,
        problem: &Problem<'_, E>,
        objective: Objective,
        rng: &mut AttackRng,
    ) -> Result<(), O::Error> {
        for _ in 0..self.starts {
            match problem.ball.norm {
                Norm::L1 => from_larger_balls(oracle, problem, objective, (self.steps, rng))?,
                _ => {
                    let start = random_start(problem, rng);
                    let mut climb = Climb::new(oracle, problem, objective, start)?;
                    climb.smooth(usize::from(self.steps))?;
                }
            }
        }
        Ok(())
    }
}

/// A random point on the surface of the ball: uniform numbers over their largest (linf), or normal numbers over their
/// length. It may be outside of the box.
fn random_start<E: Element>(problem: &Problem<'_, E>, rng: &mut AttackRng) -> Vec<f32> {
    let ball = &problem.ball;
    let mut v: Vec<f32> = problem
        .x
        .iter()
        .map(|_| match ball.norm {
            Norm::Linf => 2.0 * uniform(rng) - 1.0,
            _ => normal(rng),
        })
        .collect();
    let size = ball.norm.distance(&v, &vec![0.0; v.len()]);
    let scale = ball.epsilon / size.max(f32::MIN_POSITIVE);
    for (v, x) in v.iter_mut().zip(problem.x) {
        *v = x.to_f32() + *v * scale;
    }
    v
}

/// Algorithm 2 of the l1 paper: 30 % of the steps in a ball of three epsilon, 30 % in one of two, and the rest in the ball itself,
/// each from the best point of the one before.
fn from_larger_balls<E: Element, O: GradientOracle<E>>(
    oracle: &mut O,
    problem: &Problem<'_, E>,
    objective: Objective,
    (steps, rng): (u16, &mut AttackRng),
) -> Result<(), O::Error> {
    let steps = usize::from(steps);
    let part = (3 * steps).div_ceil(10);
    let last = steps.saturating_sub(2 * part);
    let (low, high) = (problem.ball.low, problem.ball.high);
    let noise = |x: &E| x.to_f32() + normal(rng) * (high - low);
    let mut at: Vec<f32> = problem.x.iter().map(noise).collect();
    for (radii, steps) in [(3.0, part), (2.0, part), (1.0, last)] {
        let wider = Problem {
            ball: Ball {
                epsilon: radii * problem.ball.epsilon,
                ..problem.ball
            },
            ..*problem
        };
        let mut climb = Climb::new(oracle, &wider, objective, at)?;
        climb.sparse(steps)?;
        at = climb.best.v;
    }
    Ok(())
}

/// A point that the oracle was asked about.
#[derive(Clone)]
struct Point {
    v: Vec<f32>,
    gradient: Vec<f32>,
    value: f32,
}

/// One ascent.
struct Climb<'a, 'p, E, O> {
    oracle: &'a mut O,
    problem: &'a Problem<'p, E>,
    objective: Objective,
    /// The device's view of the point that is asked about.
    seen: Vec<E>,
    here: Point,
    best: Point,
    /// The value at the point that was asked about last, also where the search went back to the best since.
    last: f32,
}

impl<'a, 'p, E: Element, O: GradientOracle<E>> Climb<'a, 'p, E, O> {
    fn new(
        oracle: &'a mut O,
        problem: &'a Problem<'p, E>,
        objective: Objective,
        mut start: Vec<f32>,
    ) -> Result<Self, O::Error> {
        let mut seen = problem.x.to_vec();
        problem.place(&mut start, &mut seen);
        let answer = oracle.gradient(&seen, objective)?;
        let here = Point {
            v: start,
            gradient: answer.input.to_vec(),
            value: answer.value,
        };
        Ok(Climb {
            oracle,
            problem,
            objective,
            seen,
            best: here.clone(),
            last: here.value,
            here,
        })
    }

    /// Moves to `v`, asks there, and says whether the value rose.
    fn go(&mut self, mut v: Vec<f32>) -> Result<bool, O::Error> {
        self.problem.place(&mut v, &mut self.seen);
        let answer = self.oracle.gradient(&self.seen, self.objective)?;
        let rose = answer.value > self.last;
        self.last = answer.value;
        self.here.v = v;
        self.here.value = answer.value;
        self.here.gradient.clear();
        self.here.gradient.extend_from_slice(answer.input);
        if self.here.value > self.best.value {
            self.best = self.here.clone();
        }
        Ok(rose)
    }

    /// Algorithm 1: linf and l2.
    fn smooth(&mut self, steps: usize) -> Result<(), O::Error> {
        let share = |percent: usize| (percent * steps / 100).max(1);
        let (mut period, shortest, shorter) = (share(22), share(6), share(3));
        let mut step = 2.0 * self.problem.ball.epsilon;
        let mut before = self.here.v.clone();
        let (mut since, mut climbed) = (0, 0);
        let (mut halved, mut best_at_check) = (true, self.best.value);
        for i in 0..steps {
            let mut next = self.along_gradient(step);
            self.problem.place(&mut next, &mut self.seen);
            if i > 0 {
                for ((next, &here), &before) in next.iter_mut().zip(&self.here.v).zip(&before) {
                    *next = here + ALPHA * (*next - here) + (1.0 - ALPHA) * (here - before);
                }
            }
            before.clone_from(&self.here.v);
            climbed += usize::from(self.go(next)?);
            since += 1;
            if since < period {
                continue;
            }
            let oscillates = climbed as f32 <= RHO * period as f32;
            let stuck = !halved && self.best.value <= best_at_check;
            halved = oscillates || stuck;
            best_at_check = self.best.value;
            if halved {
                step *= 0.5;
                self.here = self.best.clone();
            }
            (since, climbed) = (0, 0);
            period = period.saturating_sub(shorter).max(shortest);
        }
        Ok(())
    }

    /// A step of that length from here: along the signs (linf), or along the gradient (l2).
    fn along_gradient(&self, step: f32) -> Vec<f32> {
        let gradient = &self.here.gradient;
        let zero = vec![0.0; gradient.len()];
        let scale = match self.problem.ball.norm {
            Norm::Linf => 0.0,
            _ => step / Norm::L2.distance(gradient, &zero).max(1e-30),
        };
        let moved = self.here.v.iter().zip(gradient);
        match self.problem.ball.norm {
            Norm::Linf => moved.map(|(v, &g)| v + step * sign(g)).collect(),
            _ => moved.map(|(v, &g)| v + scale * g).collect(),
        }
    }

    /// Algorithm 1 of the l1 paper: only the elements with the largest slopes move.
    fn sparse(&mut self, steps: usize) -> Result<(), O::Error> {
        let n = self.problem.x.len() as f32;
        let epsilon = self.problem.ball.epsilon;
        let period = (4 * steps / 100).max(1);
        let changed = |v: &[f32], x: &[E]| {
            let pairs = v.iter().zip(x);
            pairs.filter(|(v, x)| **v != x.to_f32()).count() as f32
        };
        let mut before = changed(&self.best.v, self.problem.x).max(1.0);
        let mut share = before / n / SPARSER;
        let mut step = epsilon;
        for i in 0..steps {
            let next = self.along_largest(step, (share * n) as usize);
            self.go(next)?;
            if (i + 1) % period != 0 {
                continue;
            }
            let now = changed(&self.best.v, self.problem.x).max(1.0);
            share = now / n / SPARSER;
            if now / before < 0.95 {
                step = epsilon;
                self.here = self.best.clone();
            } else {
                step = (step / SPARSER).max(epsilon / 10.0);
            }
            before = now;
        }
        Ok(())
    }

    /// A step of that l1 length, shared by the `count` elements with the largest slopes (and their equals).
    fn along_largest(&self, step: f32, count: usize) -> Vec<f32> {
        let mut sizes: Vec<f32> = self.here.gradient.iter().map(|g| g.abs()).collect();
        sizes.sort_by(|a, b| b.total_cmp(a));
        let last = sizes.len().saturating_sub(1);
        let least = sizes.get(count.min(last)).copied().unwrap_or(0.0);
        let moves = |g: f32| g.abs() >= least && g != 0.0;
        let movers = self.here.gradient.iter().filter(|&&g| moves(g)).count();
        let each = step / movers.max(1) as f32;
        let pairs = self.here.v.iter().zip(&self.here.gradient);
        pairs
            .map(|(v, &g)| if moves(g) { v + each * sign(g) } else { *v })
            .collect()
    }
}

/// How much sparser a step is than the best point, and how much shorter the next step is (the l1 paper, section 4.2).
const SPARSER: f32 = 1.5;

fn sign(v: f32) -> f32 {
    match v {
        v if v > 0.0 => 1.0,
        v if v < 0.0 => -1.0,
        _ => 0.0,
    }
}
