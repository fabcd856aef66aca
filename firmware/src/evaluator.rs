//! Runs a model and attacks it, in one block of memory, counting instructions.

use foolproof::attack::{AttackError, Kind, Outcome, Spec, Task, universal};
use foolproof::latent::Latent;
use foolproof::link::{Fault, FaultCode, Places, Turn};
use foolproof::loss::Objective;
use foolproof::memory::Mode;
use foolproof::model::Model;
use foolproof::session::{Session, SessionError};
use foolproof::tensor::{DType, Data};
use foolproof::threat::{Element, GradientOracle};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use foolproof_firmware::board::Counter;
use foolproof_firmware::meter::Meter;

/// The alignment of a session's buffer, and of what lies behind it.
const ALIGN: usize = 16;

/// A model, and memory to run it in.
pub struct Evaluator<'m, C> {
    model: Model<'m>,
    arena: &'m mut [u8],
    meter: &'m mut Meter<C>,
    /// Whether the end of the arena holds a universal perturbation.
    perturbs: bool,
}

/// What a model said.
pub struct Inference<'a> {
    /// The output's elements as bytes.
    pub output: &'a [u8],
    /// The index of the largest element; an anomaly detector's verdict.
    pub label: usize,
    /// Instructions executed.
    pub instructions: u64,
}

/// What an attack found.
pub struct Attacked<'a> {
    /// The crafted input's elements as bytes.
    pub bytes: &'a [u8],
    /// What came of it.
    pub outcome: foolproof::attack::Outcome,
    /// Instructions executed.
    pub instructions: u64,
}

/// One sample to attack.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// The input's elements as bytes.
    pub input: &'a [u8],
    /// The true label, or the class to reach.
    pub class: usize,
    /// The seed of the run.
    pub seed: u64,
    /// The sample's number.
    pub index: u64,
}

impl<'m, C: Counter> Evaluator<'m, C> {
    /// Runs `model` in `arena`; an error if it does not fit.
    pub fn new(
        model: Model<'m>,
        arena: &'m mut [u8],
        meter: &'m mut Meter<C>,
    ) -> Result<Self, Fault> {
        let needed = model.required_buffer(Mode::Infer);
        if needed > arena.len() {
            return Err(Fault::new(FaultCode::SessionTooLarge, needed, arena.len()));
        }
        Ok(Evaluator {
            model,
            arena,
            meter,
            perturbs: false,
        })
    }

    /// The model.
    pub fn model(&self) -> &Model<'m> {
        &self.model
    }

    /// Bytes of one input.
    pub fn input_bytes(&self) -> usize {
        self.model.input_shape().len() * self.input_type().size()
    }

    /// Bytes of one output.
    pub fn output_bytes(&self) -> usize {
        let tables = self.model.tables();
        self.model.output_shape().len() * tables.dtype(tables.output()).size()
    }

    fn input_type(&self) -> DType {
        let tables = self.model.tables();
        tables.dtype(tables.input())
    }

    fn check_input(&self, input: &[u8]) -> Result<(), Fault> {
        let needed = self.input_bytes();
        match input.len() {
            got if got == needed => Ok(()),
            got => Err(Fault::new(FaultCode::InputLength, needed, got)),
        }
    }

    /// Classifies one input.
    pub fn infer(&mut self, input: &[u8]) -> Result<Inference<'_>, Fault> {
        self.check_input(input)?;
        self.overwrite(self.model.required_buffer(Mode::Infer));
        run(&self.model, self.arena, input, self.meter)
    }

    /// Makes a sample of noise; the noise lies behind the session.
    pub fn generate(&mut self, latent: &Latent) -> Result<Inference<'_>, Fault> {
        let session = self
            .model
            .required_buffer(Mode::Infer)
            .next_multiple_of(ALIGN);
        let length = self.input_bytes();
        self.overwrite(session + length);
        let got = self.arena.len();
        let too_large = || Fault::new(FaultCode::SessionTooLarge, session + length, got);
        let (arena, rest) = self
            .arena
            .split_at_mut_checked(session)
            .ok_or_else(too_large)?;
        let input = rest.get_mut(..length).ok_or_else(too_large)?;
        if latent.classes > self.model.input_shape().len() {
            return Err(Fault::new(
                FaultCode::BadLabel,
                self.model.input_shape().len(),
                latent.classes,
            ));
        }
        let tables = self.model.tables();
        let quant = tables.quant(tables.input());
        match tables.dtype(tables.input()) {
            DType::F32 => {
                latent.draw(<[f32]>::mut_from_bytes(input).map_err(|_| too_large())?);
            }
            DType::I8 => {
                let input = <[i8]>::mut_from_bytes(input).map_err(|_| too_large())?;
                latent.draw_on_grid(input, quant.scale, quant.zero_point);
            }
            DType::I32 => return Err(Fault::new(FaultCode::Unsupported, 0, 0)),
        }
        run(&self.model, arena, input, self.meter)
    }

    /// Classifies one input and shows every tensor on the way; returns how many there were.
    pub fn trace(
        &mut self,
        input: &[u8],
        show: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<usize, Fault> {
        self.check_input(input)?;
        self.overwrite(self.model.required_buffer(Mode::Infer));
        let mut session =
            Session::new(&self.model, Mode::Infer, self.arena).map_err(session_fault)?;
        let mut tensors = 0;
        session
            .trace(input, &mut |tensor, data| {
                tensors += 1;
                show(tensor, bytes_of(data));
            })
            .map_err(session_fault)?;
        Ok(tensors)
    }

    /// Crafts an adversarial input.
    pub fn attack(&mut self, spec: &Spec, sample: Sample) -> Result<Attacked<'_>, Fault> {
        self.check_input(sample.input)?;
        match self.input_type() {
            DType::I8 => self.attack_as::<i8>(spec, sample),
            DType::F32 => self.attack_as::<f32>(spec, sample),
            DType::I32 => Err(Fault::new(FaultCode::Unsupported, 0, 0)),
        }
    }

    fn attack_as<E>(&mut self, spec: &Spec, sample: Sample) -> Result<Attacked<'_>, Fault>
    where
        E: Element + FromBytes + IntoBytes + Immutable + KnownLayout,
        for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
    {
        let n = self.model.input_shape().len();
        self.perturbs = false;
        let scratch = spec.scratch_len(n, self.model.classes());
        let places = self.places(scratch)?;
        places.check(self.arena.len())?;
        let Room {
            mut session,
            x,
            out,
            scratch,
        } = Room::new(&self.model, self.arena, sample.input, &places)?;
        let crafted = <[E]>::mut_from_bytes(out)
            .map_err(|_| Fault::new(FaultCode::InputLength, n, sample.input.len()))?;
        let task = Task {
            x: <[E]>::ref_from_bytes(x)
                .map_err(|_| Fault::new(FaultCode::InputLength, n, sample.input.len()))?,
            class: sample.class,
            seed: sample.seed,
            sample: sample.index,
            scratch,
        };
        self.meter.start();
        let ran = spec.run(&mut session, task, crafted);
        let instructions = self.meter.stop();
        let outcome = ran.map_err(|error| match error {
            AttackError::Length { needed, got } => Fault::new(FaultCode::InputLength, needed, got),
            AttackError::Parameters => Fault::new(FaultCode::BadAttack, 0, 0),
            AttackError::Class { class, classes } => {
                Fault::new(FaultCode::BadLabel, classes, class)
            }
            AttackError::Oracle(error) => session_fault(error),
        })?;
        Ok(Attacked {
            bytes: out,
            outcome,
            instructions,
        })
    }

    /// Forgets the universal perturbation where the first `bytes` of the arena are about to be overwritten up to it.
    fn overwrite(&mut self, bytes: usize) {
        self.perturbs &= self.perturbation_at().is_some_and(|at| bytes <= at);
    }

    /// Where the universal perturbation begins.
    fn perturbation_at(&self) -> Option<usize> {
        Places::new(0, 0, 0)
            .keeping(self.model.input_shape().len())
            .kept_at(self.arena.len())
    }

    /// The places of an attack with so many elements of scratch.
    fn places(&self, scratch: usize) -> Result<Places, Fault> {
        match self.model.required_buffer(Mode::Attack) {
            0 => Err(Fault::new(FaultCode::Unsupported, 0, 0)),
            session => Ok(Places::new(session, self.input_bytes(), scratch)),
        }
    }

    /// One turn of a universal perturbation, which lies at the end of the arena from one to the next. The crafted input is the one
    /// that was asked about.
    pub fn universal(
        &mut self,
        turn: Turn,
        spec: &Spec,
        sample: Sample,
    ) -> Result<Attacked<'_>, Fault> {
        self.check_input(sample.input)?;
        match self.input_type() {
            DType::I8 => self.universal_as::<i8>(turn, spec, sample),
            DType::F32 => self.universal_as::<f32>(turn, spec, sample),
            DType::I32 => Err(Fault::new(FaultCode::Unsupported, 0, 0)),
        }
    }

    fn universal_as<E>(
        &mut self,
        turn: Turn,
        spec: &Spec,
        sample: Sample,
    ) -> Result<Attacked<'_>, Fault>
    where
        E: Element + FromBytes + IntoBytes + Immutable + KnownLayout,
        for<'s> Session<'s>: GradientOracle<E, Error = SessionError>,
    {
        let (n, classes) = (self.model.input_shape().len(), self.model.classes());
        if spec.kind != Kind::Universal || !spec.is_valid() {
            return Err(Fault::new(FaultCode::BadAttack, 0, 0));
        }
        if sample.class >= classes {
            return Err(Fault::new(FaultCode::BadLabel, classes, sample.class));
        }
        let pass = turn.pass(spec)?;
        let (begins, perturbs) = (turn == Turn::Begin, self.perturbs);
        if !(begins || perturbs) {
            return Err(Fault::new(FaultCode::NoPerturbation, 0, 0));
        }
        self.perturbs = false;
        let got = self.arena.len();
        let places = self.places(n)?.keeping(n);
        places.check(got)?;
        let too_large = || Fault::new(FaultCode::SessionTooLarge, places.needed(), got);
        let at = places.kept_at(got).ok_or_else(too_large)?;
        let (arena, delta) = self.arena.split_at_mut_checked(at).ok_or_else(too_large)?;
        let bad_length = |_| Fault::new(FaultCode::InputLength, n, sample.input.len());
        let delta = delta.get_mut(..4 * n).ok_or_else(too_large)?;
        let delta = <[f32]>::mut_from_bytes(delta).map_err(|_| too_large())?;
        let Room {
            mut session,
            x,
            out,
            scratch: v,
        } = Room::new(&self.model, arena, sample.input, &places)?;
        let x = <[E]>::ref_from_bytes(x).map_err(bad_length)?;
        let crafted = <[E]>::mut_from_bytes(out)
            .map_err(|_| Fault::new(FaultCode::InputLength, n, sample.input.len()))?;
        let goal = spec.goal(sample.class);
        let objective = Objective {
            loss: spec.loss,
            goal,
        };
        let scratch = (v, crafted);
        self.meter.start();
        if begins {
            delta.fill(0.0);
        }
        let answer = match pass {
            None => universal::judge(&mut session, &spec.ball, delta, x, scratch),
            Some(pass) => {
                let terms = (&spec.ball, objective, universal::step_of(spec, pass));
                universal::learn(&mut session, terms, x, delta, scratch)
            }
        };
        let instructions = self.meter.stop();
        let label = answer.map_err(session_fault)?;
        self.perturbs = true;
        Ok(Attacked {
            bytes: out,
            outcome: Outcome {
                label,
                fooled: goal.is_met(label),
                queries: 1,
                gradients: u64::from(pass.is_some()),
            },
            instructions,
        })
    }
}

/// Memory for an attack on one input: behind the session the input (aligned), the crafted input and the attack's scratch.
struct Room<'a> {
    session: Session<'a>,
    x: &'a [u8],
    out: &'a mut [u8],
    scratch: &'a mut [f32],
}

impl<'a> Room<'a> {
    /// In front of what is kept; [`Places::check`] came first.
    fn new(
        model: &Model<'a>,
        arena: &'a mut [u8],
        input: &[u8],
        places: &Places,
    ) -> Result<Room<'a>, Fault> {
        let Places {
            session,
            input: input_bytes,
            scratch,
            kept,
        } = *places;
        let (needed, got) = (places.needed(), arena.len() + kept);
        let too_large = || Fault::new(FaultCode::SessionTooLarge, needed, got);
        let length = input.len();
        let (buffer, rest) = arena.split_at_mut_checked(session).ok_or_else(too_large)?;
        let (x, rest) = rest
            .split_at_mut_checked(input_bytes)
            .ok_or_else(too_large)?;
        let (out, rest) = rest
            .split_at_mut_checked(input_bytes)
            .ok_or_else(too_large)?;
        let scratch = rest.get_mut(..scratch).ok_or_else(too_large)?;
        let (x, out) = (&mut x[..length], &mut out[..length]);
        x.copy_from_slice(input);
        Ok(Room {
            session: Session::new(model, Mode::Attack, buffer).map_err(session_fault)?,
            x,
            out,
            // sizes and alignment are right by the sums above; a fault instead of a panic all the same
            scratch: <[f32]>::mut_from_bytes(scratch).map_err(|_| too_large())?,
        })
    }
}

/// One forward pass in `arena`, counted.
fn run<'a, C: Counter>(
    model: &Model,
    arena: &'a mut [u8],
    input: &[u8],
    meter: &mut Meter<C>,
) -> Result<Inference<'a>, Fault> {
    let mut session = Session::new(model, Mode::Infer, arena).map_err(session_fault)?;
    meter.start();
    let ran = session.forward_bytes(input).map(drop);
    let instructions = meter.stop();
    ran.map_err(session_fault)?;
    let label = session.label();
    // The output lies in the arena, which outlives the session: give its place there.
    let output = bytes_of(session.output());
    let length = output.len();
    let end = output.as_ptr_range().end.addr();
    let start = end - length - arena.as_ptr().addr();
    let output = &arena[start..start + length];
    Ok(Inference {
        output,
        label,
        instructions,
    })
}

fn session_fault(error: SessionError) -> Fault {
    match error {
        SessionError::BufferTooSmall { needed, got } => {
            Fault::new(FaultCode::SessionTooLarge, needed, got)
        }
        SessionError::Length { needed, got } => Fault::new(FaultCode::InputLength, needed, got),
        _ => {
            defmt::error!("session: {}", error);
            Fault::new(FaultCode::Unsupported, 0, 0)
        }
    }
}

fn bytes_of(data: Data<'_>) -> &[u8] {
    match data {
        Data::F32(values) => values.as_bytes(),
        Data::I8(values) => values.as_bytes(),
        Data::I32(values) => values.as_bytes(),
        Data::Absent => &[],
    }
}
