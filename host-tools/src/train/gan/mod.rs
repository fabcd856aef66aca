//! Generative adversarial networks (Goodfellow et al. 2014): a generator makes samples of noise, a discriminator says how likely a
//! sample is real, and each learns from the other.
//!
//! The discriminator's backward gives the gradient with respect to its input, and that is the output gradient of the
//! generator's backward: one mechanism. A step runs shard by shard, each with a session of either network; gradients are added
//! in shard order, and all that is random is drawn from seed, step and shard. So neither the number of threads nor an
//! interruption changes a bit.

pub mod condition;
pub mod config;
pub mod early;
pub mod networks;
pub mod objective;
pub mod penalty;

pub use config::Config;

use super::player::{Average, Player};
use super::run::{Checkpoint, Run};
use super::source::{Source, normal};
use super::{Replica, TrainError, answers, buffers, store};
use crate::graph::{Graph, GraphError, to_image};
use condition::Condition;
use early::Early;
use foolproof::attack::AttackRng;
use foolproof::latent::Latent;
use foolproof::session::{Session, SessionError};
use foolproof::tensor::Data;
use objective::Objective;
use penalty::Penalty;
use rand_core::Rng;
use rayon::prelude::*;
use std::borrow::Cow;

/// Steps of an epoch where the data never ends.
pub const ENDLESS: usize = 1000;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stand {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// The discriminator's mean loss over the epoch so far, penalties included.
    pub discriminator_loss: f64,
    /// The generator's.
    pub generator_loss: f64,
}

/// Who watches a training.
pub trait Watch {
    /// After every step.
    fn step(&mut self, stand: &Stand);

    /// After every epoch, with the generator that samples are drawn from. Returns figures for the log.
    ///
    /// # Errors
    /// Training ends with it.
    fn epoch(
        &mut self,
        stand: &Stand,
        generator: &Graph,
    ) -> Result<Vec<(&'static str, f64)>, TrainError>;
}

/// What is trained on what.
#[derive(Clone, Copy, Debug)]
pub struct Game<'a> {
    /// Real samples.
    pub source: &'a Source,
    /// Everything else.
    pub config: &'a Config,
    /// The seed of every random choice.
    pub seed: u64,
}

/// The two networks after training.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Averaged, where the configuration asks for it; with `patience`, the best one.
    pub generator: Graph,
    /// As it is.
    pub discriminator: Graph,
    /// Steps done.
    pub steps: u64,
    /// The epoch that the generator is of, counted from 1.
    pub epoch: usize,
}

/// The generator's and the discriminator's networks before training.
///
/// # Errors
/// The data's shape does not fit the networks.
pub fn networks(game: &Game<'_>) -> Result<[Graph; 2], TrainError> {
    let classes = condition(game).classes as u32;
    let form = game.source.form();
    let refuse = |error| {
        let right = "dcgan needs images with sides that 4 divides, mlp takes any";
        TrainError::Config(format!(
            "samples of shape {:?} do not fit the network ({error}); {right}",
            form.shape
        ))
    };
    let g = networks::generator(&form, game.config, classes, game.seed).map_err(refuse)?;
    let d = networks::discriminator(&form, game.config, classes, game.seed ^ 1).map_err(refuse)?;
    Ok([g, d])
}

fn condition(game: &Game<'_>) -> Condition {
    let classes = if game.config.conditional {
        game.source.classes()
    } else {
        0
    };
    let form = game.source.form();
    let group = match game.config.network {
        config::Network::Dcgan => form.shape.last().map_or(1, |&c| c as usize),
        config::Network::Mlp => form.len(),
    };
    Condition { classes, group }
}

/// Plays the game to its end, from the beginning or a checkpoint. `start` gives the generator its first parameters.
///
/// # Errors
/// [`TrainError`].
pub fn train(
    game: Game<'_>,
    start: Option<&Graph>,
    run: &mut Run,
    checkpoint: Option<&Checkpoint>,
    watch: &mut dyn Watch,
) -> Result<Trained, TrainError> {
    let config = game.config;
    config.check()?;
    if config.conditional && game.source.classes() == 0 {
        return Err(TrainError::Config(
            "conditional needs labels, and the data has none".into(),
        ));
    }
    let rows = game.source.rows();
    let per_epoch = rows.map_or(ENDLESS, |n| n / config.batch) as u64;
    if per_epoch == 0 {
        let n = rows.unwrap_or(0);
        return Err(TrainError::Config(format!(
            "{n} samples are fewer than one batch of {0}; at least {0}, or a smaller batch, would be right",
            config.batch
        )));
    }
    let steps = per_epoch * config.epochs as u64;
    if config.discriminator_steps > steps {
        return Err(TrainError::Config(format!(
            "discriminator_steps {}; at most {steps}, the steps of the run, would be right: the generator learns after so many",
            config.discriminator_steps
        )));
    }
    let [mut g_graph, mut d_graph] = networks(&game)?;
    if let Some(start) = start {
        begin_with(&mut g_graph, start)?;
    }
    let images = [to_image(&g_graph)?, to_image(&d_graph)?];
    let [g_model, d_model] = [images[0].model(), images[1].model()];
    let (g_model, d_model) = (
        g_model.map_err(GraphError::Invalid)?,
        d_model.map_err(GraphError::Invalid)?,
    );
    let shards = config.batch / config.shard;
    let mut g_memory = buffers(&g_model, config.shard, shards)?;
    let at_once = config.judged_at_once();
    let mut d_memory = buffers(&d_model, at_once, shards)?;
    let betas = [config.beta1 as f32, config.beta2 as f32];
    let mut g = Player::new(&g_model, &mut g_memory, config.shard, betas)?;
    let mut d = Player::new(&d_model, &mut d_memory, at_once, betas)?;
    let mut average = Average::new(g.parameters()?, config.ema as f32);
    let count = g.parameters()?.len();
    let mut early = Early::new(config.patience, count);
    let (mut step, mut sums) = (0, [0.0; 2]);
    if let Some(checkpoint) = checkpoint {
        g.restore("generator", checkpoint)?;
        d.restore("discriminator", checkpoint)?;
        average.restore(checkpoint.array("average", count)?);
        early.restore(checkpoint)?;
        step = checkpoint.step;
        sums = ["discriminator.sum", "generator.sum"].map(|name| checkpoint.number(name));
    }
    let shared = Shared {
        game,
        condition: condition(&game),
    };
    d.spread()?;
    g.spread()?;
    run.open()?;
    let mut order: Vec<usize> = Vec::new();
    while step < steps && !early.is_over() {
        let epoch = (step / per_epoch) as usize + 1;
        let within = (step % per_epoch) as usize;
        if let Some(n) = rows
            && (within == 0 || order.is_empty())
        {
            order = (0..n).collect();
            super::classifier::shuffle(
                &mut order,
                &mut rng(game.seed, Purpose::Order, epoch as u64),
            );
        }
        let batch = order
            .get(within * config.batch..(within + 1) * config.batch)
            .unwrap_or(&[]);
        let left = config.rate_left(step as f64 / steps as f64);
        step += 1;
        let turn = Turn {
            rows: batch,
            step,
            blur: config.noise_left((step - 1) as f64 / steps as f64) as f32,
        };
        let loss = shared.discriminate(&mut g, &mut d, turn)?;
        d.step((config.discriminator_rate * left) as f32, 2)?;
        sums[0] += loss;
        let mut generator_loss = 0.0;
        if step.is_multiple_of(config.discriminator_steps) {
            generator_loss = shared.generate(&mut g, &mut d, turn)?;
            g.step((config.generator_rate * left) as f32, 1)?;
            average.step(g.parameters()?);
        }
        sums[1] += generator_loss;
        if !(loss.is_finite() && generator_loss.is_finite()) {
            return Err(TrainError::Diverged { step, epoch });
        }
        let done = within as u64 + 1;
        let turns = turns(step, done, config.discriminator_steps).max(1) as f64;
        let stand = Stand {
            step,
            steps,
            epoch,
            discriminator_loss: sums[0] / done as f64,
            generator_loss: sums[1] / turns,
        };
        watch.step(&stand);
        if done == per_epoch {
            let (table, parameters) = g.tensors()?;
            store(&mut g_graph, table, average.of(parameters));
            let figures = watch.epoch(&stand, &g_graph)?;
            early.judge(epoch, &figures, average.of(g.parameters()?));
            let mut record = vec![
                ("epoch", epoch as f64),
                ("discriminator_loss", stand.discriminator_loss),
                ("generator_loss", stand.generator_loss),
            ];
            record.extend(figures);
            run.record(step, &record);
            sums = [0.0; 2];
        }
        if step == steps || early.is_over() || run.is_due() {
            let mut checkpoint = Checkpoint {
                step,
                ..Checkpoint::default()
            };
            g.save("generator", &mut checkpoint)?;
            d.save("discriminator", &mut checkpoint)?;
            checkpoint
                .arrays
                .insert("average".into(), average.of(g.parameters()?).to_vec());
            checkpoint
                .numbers
                .insert("discriminator.sum".into(), sums[0]);
            checkpoint.numbers.insert("generator.sum".into(), sums[1]);
            early.save(&mut checkpoint);
            run.save(checkpoint)?;
        }
    }
    let (table, parameters) = g.tensors()?;
    let last = ((step / per_epoch) as usize, average.of(parameters));
    let (epoch, parameters) = early.best().unwrap_or(last);
    store(&mut g_graph, table, parameters);
    let (table, parameters) = d.tensors()?;
    store(&mut d_graph, table, parameters);
    Ok(Trained {
        generator: g_graph,
        discriminator: d_graph,
        steps: step,
        epoch,
    })
}

/// How often the generator had its turn in the last `done` steps up to `step`: it has one every `every` steps, whatever the epoch.
fn turns(step: u64, done: u64, every: u64) -> u64 {
    step / every - (step - done) / every
}

/// Parameters of a network of the same form.
fn begin_with(graph: &mut Graph, start: &Graph) -> Result<(), TrainError> {
    let same = graph.tensors.len() == start.tensors.len()
        && graph
            .tensors
            .iter()
            .zip(&start.tensors)
            .all(|(a, b)| a.shape == b.shape && a.role == b.role);
    if !same {
        return Err(TrainError::Config(
            "the model to start from has another form than the configuration's generator".into(),
        ));
    }
    for (tensor, from) in graph.tensors.iter_mut().zip(&start.tensors) {
        tensor.data = from.data.clone();
    }
    Ok(())
}

/// What a random number is for: each purpose has streams of its own.
#[derive(Clone, Copy)]
enum Purpose {
    Order,
    Real,
    Fake,
    Between,
    BlurReal,
    BlurFake,
    BlurTurn,
}

fn rng(seed: u64, purpose: Purpose, stream: u64) -> AttackRng {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
    foolproof::attack::rng(mixed ^ (purpose as u64 + 1), stream)
}

/// One step's turn of a player.
#[derive(Clone, Copy)]
struct Turn<'a> {
    /// The batch; empty where the data never ends.
    rows: &'a [usize],
    /// Counted from 1.
    step: u64,
    /// Standard deviation of the instance noise.
    blur: f32,
}

struct Shared<'a> {
    game: Game<'a>,
    condition: Condition,
}

impl Shared<'_> {
    /// Runs `work` on every shard, with the shard's rows of the batch and a stream number of its own, and adds up what it returns.
    fn shards(
        &self,
        g: &mut Player<'_>,
        d: &mut Player<'_>,
        turn: Turn<'_>,
        work: impl Fn(&mut Replica<'_>, &mut Replica<'_>, &[usize], u64) -> Result<f64, SessionError>
        + Sync,
    ) -> Result<f64, SessionError> {
        let shard = self.game.config.shard;
        let shards = g.replicas.len() as u64;
        let losses: Vec<Result<f64, SessionError>> = g
            .replicas
            .par_iter_mut()
            .zip(&mut d.replicas)
            .enumerate()
            .map(|(i, (g, d))| {
                let rows = turn.rows.get(i * shard..(i + 1) * shard).unwrap_or(&[]);
                work(g, d, rows, turn.step * shards + i as u64)
            })
            .collect();
        losses.into_iter().sum()
    }

    fn noise(&self, purpose: Purpose, stream: u64, labels: &[usize]) -> Vec<f32> {
        let latent = self.game.config.latent as usize;
        let mut z = vec![0.0; latent * labels.len()];
        normal(&mut rng(self.game.seed, purpose, stream), &mut z);
        let condition = Condition {
            group: latent,
            ..self.condition
        };
        condition.join(&z, latent, labels).into_owned()
    }

    /// With instance noise.
    fn blurred<'x>(
        &self,
        x: &'x [f32],
        blur: f32,
        (purpose, stream): (Purpose, u64),
    ) -> Cow<'x, [f32]> {
        if blur <= 0.0 {
            return Cow::Borrowed(x);
        }
        let mut out = vec![0.0; x.len()];
        normal(&mut rng(self.game.seed, purpose, stream), &mut out);
        out.iter_mut().zip(x).for_each(|(z, x)| *z = x + blur * *z);
        Cow::Owned(out)
    }

    /// The discriminator's turn: gradients of its mean loss over the batch.
    fn discriminate(
        &self,
        g: &mut Player<'_>,
        d: &mut Player<'_>,
        turn: Turn<'_>,
    ) -> Result<f64, SessionError> {
        let Game {
            source,
            config,
            seed,
        } = self.game;
        let weight = 1.0 / config.batch as f32;
        let len = source.form().len();
        self.shards(g, d, turn, |g, d, rows, stream| {
            let (x, labels) =
                source.take(rows, config.shard, &mut rng(seed, Purpose::Real, stream));
            let noise = self.noise(Purpose::Fake, stream, &labels);
            let fake = g.session.forward_f32(&noise)?;
            let x = self.blurred(&x, turn.blur, (Purpose::BlurReal, stream));
            let fake = self.blurred(fake, turn.blur, (Purpose::BlurFake, stream));
            let real = self.condition.join(&x, len, &labels);
            let made = self.condition.join(&fake, len, &labels);
            let mut loss = self.tell_apart(&mut d.session, [&real, &made], weight)?;
            let free = |i: usize| {
                i % (self.condition.group + self.condition.classes) < self.condition.group
            };
            let scale = (weight, config.penalty_step as f32);
            if config.r1 > 0.0 {
                loss += Penalty::R1(config.r1 as f32).add(&mut d.session, &real, scale, &free)?;
            }
            if config.gradient_penalty > 0.0 {
                let mut between = rng(seed, Purpose::Between, stream);
                let mut mixed = x.to_vec();
                for (x, fake) in mixed.chunks_exact_mut(len).zip(fake.chunks_exact(len)) {
                    let share = (between.next_u32() >> 8) as f32 / 16_777_216.0;
                    x.iter_mut()
                        .zip(fake)
                        .for_each(|(x, f)| *x += share * (f - *x));
                }
                let mixed = self.condition.join(&mixed, len, &labels);
                let penalty = Penalty::Gradient(config.gradient_penalty as f32);
                loss += penalty.add(&mut d.session, &mixed, scale, &free)?;
            }
            Ok(loss)
        })
    }

    /// The discriminator learns from a shard's real and made samples: the weighted loss. Where it judges both at once, every weight is read, and
    /// every gradient written, once instead of twice; the bits are the same.
    fn tell_apart(
        &self,
        session: &mut Session<'_>,
        [real, made]: [&[f32]; 2],
        weight: f32,
    ) -> Result<f64, SessionError> {
        let config = self.game.config;
        let label = config.real_label as f32;
        let on_real = |a| config.objective.real(a, label);
        let on_made = |a| config.objective.fake(a);
        if config.judged_at_once() == config.shard {
            return Ok(
                descend(session, real, weight, on_real)? + descend(session, made, weight, on_made)?
            );
        }
        session.set_batch(2 * config.shard)?;
        let mut answers = session.forward_f32_parts(&[real, made])?.to_vec();
        let (first, second) = answers.split_at_mut(config.shard);
        let loss = prices(first, weight, on_real) + prices(second, weight, on_made);
        session.backward_parameters(&answers)?;
        session.set_batch(config.shard)?;
        Ok(loss)
    }

    /// The generator's turn: gradients of its mean loss, handed on by the discriminator's backward. The samples are those that
    /// the discriminator just learned to tell apart: the generator's sessions still hold them, so they cost no second forward.
    fn generate(
        &self,
        g: &mut Player<'_>,
        d: &mut Player<'_>,
        turn: Turn<'_>,
    ) -> Result<f64, SessionError> {
        let Game {
            source,
            config,
            seed,
        } = self.game;
        let weight = 1.0 / config.batch as f32;
        let len = source.form().len();
        self.shards(g, d, turn, |g, d, rows, stream| {
            let labels = match self.condition.classes {
                0 => vec![0; config.shard],
                _ => {
                    source
                        .take(rows, config.shard, &mut rng(seed, Purpose::Real, stream))
                        .1
                }
            };
            let (loss, gradient) = {
                let fake = last_of(&g.session)?;
                let fake = self.blurred(fake, turn.blur, (Purpose::BlurTurn, stream));
                let made = self.condition.join(&fake, len, &labels);
                hand_on(&mut d.session, &made, weight, |a| {
                    config.objective.generator(a)
                })?
            };
            g.session
                .backward_parameters(&self.condition.part(gradient))?;
            Ok(loss)
        })
    }
}

/// What a generator's last forward made.
fn last_of<'a>(session: &'a Session<'_>) -> Result<&'a [f32], SessionError> {
    match session.output() {
        Data::F32(samples) => Ok(samples),
        Data::I8(_) | Data::I32(_) | Data::Absent => Err(SessionError::NotRun),
    }
}

/// One forward of the discriminator on a shard: the weighted loss, and its slopes with respect to the answers.
fn judge(
    session: &mut Session<'_>,
    x: &[f32],
    weight: f32,
    price: impl Fn(f32) -> objective::Priced,
) -> Result<(f64, Vec<f32>), SessionError> {
    let mut answers = session.forward_f32(x)?.to_vec();
    let loss = prices(&mut answers, weight, price);
    Ok((loss, answers))
}

/// The weighted loss of answers, which become its slopes.
fn prices(answers: &mut [f32], weight: f32, price: impl Fn(f32) -> objective::Priced) -> f64 {
    let mut loss = 0.0;
    for a in answers {
        let (value, slope) = price(*a);
        loss += value * f64::from(weight);
        *a = slope * weight;
    }
    loss
}

/// The discriminator learns from a shard: the weighted loss, whose gradient is added to the parameters'.
pub(in crate::train) fn descend(
    session: &mut Session<'_>,
    x: &[f32],
    weight: f32,
    price: impl Fn(f32) -> objective::Priced,
) -> Result<f64, SessionError> {
    let (loss, slopes) = judge(session, x, weight, price)?;
    session.backward_parameters(&slopes)?;
    Ok(loss)
}

/// What a shard's maker learns from the discriminator: the weighted loss, and the gradient with respect to the shard. The
/// discriminator's own gradients stay as they are.
pub(in crate::train) fn hand_on<'s>(
    session: &'s mut Session<'_>,
    x: &[f32],
    weight: f32,
    price: impl Fn(f32) -> objective::Priced,
) -> Result<(f64, &'s [f32]), SessionError> {
    let (loss, slopes) = judge(session, x, weight, price)?;
    Ok((loss, session.input_gradient(&slopes)?))
}

/// The generator's samples for `count` draws of noise. The noise of sample `i` is drawn from the seed and `i`. With `classes`,
/// sample `i` is of class `i % classes`.
///
/// # Errors
/// The graph is no generator.
pub fn draw(
    generator: &Graph,
    (count, classes): (usize, usize),
    seed: u64,
) -> Result<Vec<f32>, TrainError> {
    answers(generator, &noise(generator, (count, classes), seed))
}

/// The noise that [`draw`] draws: that of [`foolproof::latent::Latent`], as on a chip.
pub fn noise(generator: &Graph, (count, classes): (usize, usize), seed: u64) -> Vec<f32> {
    let len = generator.tensors[generator.input].shape.len();
    let mut out = vec![0.0; count * len];
    for (index, z) in (0..).zip(out.chunks_exact_mut(len)) {
        let latent = Latent {
            seed,
            index,
            classes,
        };
        latent.draw(z);
    }
    out
}

/// Whether the value of the game means something: only where the discriminator's answer is a probability.
pub fn divergence(objective: Objective, discriminator_loss: f64) -> Option<f64> {
    // value = -loss, and 2 JS - log 4 at the best discriminator
    objective
        .has_probabilities()
        .then(|| 0.5 * (4f64.ln() - discriminator_loss))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::replicas;
    use crate::train::source::Mixture;
    use foolproof::kernels::Kernels;

    #[test]
    fn samples_that_are_judged_at_once_teach_what_they_teach_one_after_the_other() {
        let config = Config {
            hidden: vec![20, 9],
            shard: 5,
            ..Config::for_points()
        };
        assert_eq!(config.judged_at_once(), 10);
        let source = Source::Points(Mixture::grid25());
        let game = Game {
            source: &source,
            config: &config,
            seed: 1,
        };
        let image = to_image(&networks(&game).unwrap()[1]).unwrap();
        let model = image.model().unwrap();
        let x = noise(&networks(&game).unwrap()[1], (10, 0), 7);
        let (real, made) = x.split_at(10);
        let mut memory = buffers(&model, 10, 2).unwrap();
        let mut sessions = replicas(&model, 10, Kernels::detect(), &mut memory).unwrap();
        for replica in &mut sessions {
            replica.session.zero_parameter_gradients().unwrap();
        }
        let [together, apart] = &mut sessions[..] else {
            panic!("two buffers")
        };
        let shared = Shared {
            game,
            condition: condition(&game),
        };
        let loss = shared.tell_apart(&mut together.session, [real, made], 0.1);
        apart.session.set_batch(5).unwrap();
        let objective = config.objective;
        let mut sum = descend(&mut apart.session, real, 0.1, |a| objective.real(a, 1.0)).unwrap();
        sum += descend(&mut apart.session, made, 0.1, |a| objective.fake(a)).unwrap();
        assert_eq!(loss.unwrap().to_bits(), sum.to_bits());
        let gradients = together.session.parameter_gradients().unwrap();
        assert!(gradients.iter().any(|&g| g != 0.0));
        assert_eq!(gradients, apart.session.parameter_gradients().unwrap());
        assert_eq!(together.session.options().batch, 5);
        let convolutional = Config {
            network: config::Network::Dcgan,
            ..config.clone()
        };
        assert_eq!(convolutional.judged_at_once(), 5);
    }

    #[test]
    fn every_turn_of_the_generator_counts_in_one_epoch() {
        // epochs of 22 steps, a turn every five
        let per_epoch: Vec<u64> = (1..=5).map(|epoch| turns(22 * epoch, 22, 5)).collect();
        assert_eq!(per_epoch, [4, 4, 5, 4, 5]);
        assert_eq!(per_epoch.iter().sum::<u64>(), 110 / 5);
        assert_eq!(turns(7, 7, 1), 7);
    }
}
