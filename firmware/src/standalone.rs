//! The self-contained evaluation: the bundle in the slot, from start to verdict, without a host.

use embedded_hal::digital::OutputPin;
use foolproof::attack::{Kind, Spec};
use foolproof::bundle::Bundle;
use foolproof::link::{CRC32, Fault, FaultCode, Turn};
use foolproof::memory::Mode;
use foolproof::model::Model;

use crate::evaluator::{Evaluator, Sample};
use foolproof_firmware::board::{self, Counter};
use foolproof_firmware::meter::Meter;
use foolproof_firmware::stack;

/// Evaluates `bundle` and logs the verdict. The light shows progress.
///
/// The checksums are CRC-32 of all outputs (and all crafted inputs) one after the other, so a host
/// can check the whole run against its own by one number.
pub fn evaluate<P: OutputPin, C: Counter>(
    bundle: &Bundle,
    session: &mut [u8],
    mut meter: Meter<C>,
    mut led: P,
) -> Result<(), Fault> {
    defmt::info!(
        "{=str} evaluates {=usize} samples",
        board::NAME,
        bundle.len()
    );
    let model = Model::from_bytes(bundle.image()).map_err(|error| {
        defmt::error!("model: {}", error);
        Fault::new(FaultCode::BadModel, 0, bundle.image().len())
    })?;
    let mut evaluator = Evaluator::new(model, session, &mut meter)?;
    defmt::info!(
        "buffer: {=usize} bytes to infer, {=usize} to attack",
        model.required_buffer(Mode::Infer),
        model.required_buffer(Mode::Attack)
    );
    infer_all(bundle, &mut evaluator, &mut led)?;
    for (number, spec) in bundle.attacks().enumerate() {
        attack_all(bundle, &mut evaluator, &mut led, (number, &spec))?;
    }
    if stack::overflowed() {
        return Err(Fault::new(
            FaultCode::StackOverflow,
            stack::size(),
            stack::size(),
        ));
    }
    defmt::info!(
        "stack: {=usize} of {=usize} bytes",
        stack::used(),
        stack::size()
    );
    Ok(())
}

fn infer_all<P: OutputPin, C: Counter>(
    bundle: &Bundle,
    evaluator: &mut Evaluator<C>,
    led: &mut P,
) -> Result<(), Fault> {
    let mut digest = CRC32.digest();
    let (mut correct, mut instructions) = (0, 0);
    for index in 0..bundle.len() {
        let (input, label) = sample(bundle, index, led)?;
        let inference = evaluator.infer(input)?;
        digest.update(inference.output);
        correct += usize::from(inference.label == label);
        instructions += inference.instructions;
    }
    defmt::info!(
        "clean: {=usize} of {=usize} right, {=u64} instructions each, outputs {=u32:08x}",
        correct,
        bundle.len(),
        instructions / bundle.len().max(1) as u64,
        digest.finalize()
    );
    Ok(())
}

fn attack_all<P: OutputPin, C: Counter>(
    bundle: &Bundle,
    evaluator: &mut Evaluator<C>,
    led: &mut P,
    (number, spec): (usize, &Spec),
) -> Result<(), Fault> {
    let classes = evaluator.model().classes();
    let mut digest = CRC32.digest();
    let (mut robust, mut fooled, mut instructions) = (0, 0, 0);
    let mut task = |index: usize| {
        let (input, label) = sample(bundle, index, led)?;
        let class = match spec.targeted {
            // A bundle names no targets: the next class is as good as any.
            true => (label + 1) % classes.max(1),
            false => label,
        };
        let sample = Sample {
            input,
            class,
            seed: bundle.seed(),
            index: index as u64,
        };
        Ok::<_, Fault>((sample, label))
    };
    let universal = spec.kind == Kind::Universal;
    for pass in 0..if universal { spec.steps } else { 0 } {
        for index in 0..bundle.len() {
            let turn = match (pass, index) {
                (0, 0) => Turn::Begin,
                _ => Turn::Learn { pass },
            };
            let (sample, _) = task(index)?;
            instructions += evaluator.universal(turn, spec, sample)?.instructions;
        }
    }
    for index in 0..bundle.len() {
        let (sample, label) = task(index)?;
        let attacked = match universal {
            true => evaluator.universal(Turn::Apply, spec, sample)?,
            false => evaluator.attack(spec, sample)?,
        };
        digest.update(attacked.bytes);
        robust += usize::from(attacked.outcome.label == label);
        fooled += usize::from(attacked.outcome.fooled);
        instructions += attacked.instructions;
    }
    defmt::info!(
        "attack {=usize}: {=usize} of {=usize} still right, {=usize} fooled, {=u64} instructions each, inputs {=u32:08x}",
        number,
        robust,
        bundle.len(),
        fooled,
        instructions / bundle.len().max(1) as u64,
        digest.finalize()
    );
    Ok(())
}

/// The sample's input and label; the light changes with every sample.
fn sample<'a, P: OutputPin>(
    bundle: &Bundle<'a>,
    index: usize,
    led: &mut P,
) -> Result<(&'a [u8], usize), Fault> {
    // A light that cannot be switched is no reason to stop.
    let _ = led.set_state((!index.is_multiple_of(2)).into());
    bundle
        .sample(index)
        .map(|(input, label)| (input, label.into()))
        .ok_or(Fault::new(FaultCode::NoSample, bundle.len(), index))
}
