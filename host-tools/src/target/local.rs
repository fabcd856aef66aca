//! A model in this process that pretends to be a black box: it answers with labels.

use super::{Sample, Target};
use crate::attack::Access;
use crate::classifier::{Classifier, InputForm};
use crate::error::{Error, Result};
use crate::lines::Lines;
use foolproof::memory::Mode;
use foolproof::session::SessionError;
use zerocopy::IntoBytes;

/// A model of this process of which only labels are told.
#[derive(Debug)]
pub struct Local<'a> {
    classifier: Classifier<'a>,
    form: InputForm,
    name: String,
    buffer: Lines,
}

impl<'a> Local<'a> {
    /// A black box around a model.
    pub fn new(name: &str, classifier: Classifier<'a>) -> Local<'a> {
        Local {
            form: classifier.form(),
            name: name.into(),
            buffer: classifier.buffer(Mode::Infer),
            classifier,
        }
    }
}

impl Target for Local<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn form(&self) -> &InputForm {
        &self.form
    }
    fn classes(&self) -> usize {
        self.classifier.model().classes()
    }
    fn access(&self) -> Access {
        Access::Labels
    }
    fn ask(&mut self, x: Sample<'_>, _scores: &mut [f32]) -> Result<usize> {
        let refuse = |error: SessionError| Error::new(error, &self.name, "inputs of the model");
        let mut session = self
            .classifier
            .session(Mode::Infer, &mut self.buffer)
            .map_err(refuse)?;
        match x {
            Sample::F32(x) => session.forward_bytes(x.as_bytes()).map_err(refuse)?,
            Sample::I8(x) => session.forward_bytes(x.as_bytes()).map_err(refuse)?,
        };
        Ok(session.label())
    }
}
