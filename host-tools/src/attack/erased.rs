//! What attacks ask through, so that each is compiled once for each kind of element and not once more for every oracle: there are
//! seven of those, and dozens of attacks.

use foolproof::attack::AttackError;
use foolproof::loss::Objective;
use foolproof::threat::{Element, Gradient, GradientOracle, LabelOracle, ScoreOracle};

/// The oracle failed, or a hunt ended; what it said waits in [`Erased`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed;

/// An oracle between an attack, which does not know the type of its errors, and one who does.
#[derive(Debug)]
pub struct Erased<'o, O, Error> {
    oracle: &'o mut O,
    error: Option<Error>,
}

impl<'o, O, Error> Erased<'o, O, Error> {
    /// Asks `oracle` from now on.
    pub fn new(oracle: &'o mut O) -> Self {
        Erased {
            oracle,
            error: None,
        }
    }

    fn kept<T>(answer: Result<T, Error>, error: &mut Option<Error>) -> Result<T, Failed> {
        answer.map_err(|what| {
            *error = Some(what);
            Failed
        })
    }

    /// What the attack returned, with the oracle's own error in place of a mark. An attack makes no marks of its own.
    pub fn result<T>(self, ran: Result<T, Failed>) -> Result<T, Error> {
        match (ran, self.error) {
            (Err(Failed), Some(error)) => Err(error),
            (Ok(value), _) => Ok(value),
            (Err(Failed), None) => unreachable!("only the oracle's failure is a Failed"),
        }
    }

    /// The same for an attack of the engine.
    pub fn attack_result<T>(
        self,
        ran: Result<T, AttackError<Failed>>,
    ) -> Result<T, AttackError<Error>> {
        match ran {
            Ok(value) => Ok(value),
            Err(AttackError::Oracle(failed)) => {
                self.result(Err(failed)).map_err(AttackError::Oracle)
            }
            Err(AttackError::Length { needed, got }) => Err(AttackError::Length { needed, got }),
            Err(AttackError::Class { class, classes }) => {
                Err(AttackError::Class { class, classes })
            }
            Err(AttackError::Parameters) => Err(AttackError::Parameters),
        }
    }
}

impl<E: Element, O: LabelOracle<E>> LabelOracle<E> for Erased<'_, O, O::Error> {
    type Error = Failed;
    fn input_len(&self) -> usize {
        self.oracle.input_len()
    }
    fn classes(&self) -> usize {
        self.oracle.classes()
    }
    fn classify(&mut self, x: &[E]) -> Result<usize, Failed> {
        Self::kept(self.oracle.classify(x), &mut self.error)
    }
}

impl<E: Element, O: ScoreOracle<E>> ScoreOracle<E> for Erased<'_, O, O::Error> {
    fn scores(&mut self, x: &[E], scores: &mut [f32]) -> Result<usize, Failed> {
        Self::kept(self.oracle.scores(x, scores), &mut self.error)
    }
}

impl<E: Element, O: GradientOracle<E>> GradientOracle<E> for Erased<'_, O, O::Error> {
    fn gradient(&mut self, x: &[E], objective: Objective) -> Result<Gradient<'_>, Failed> {
        Self::kept(self.oracle.gradient(x, objective), &mut self.error)
    }
}
