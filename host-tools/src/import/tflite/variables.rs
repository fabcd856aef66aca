//! Variables of streaming models: VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE, and CALL_ONCE with the graph that gives them
//! their first values.
//!
//! What a variable holds is followed through the file: a read behind an assignment is the assigned tensor itself, a read
//! before it recalls what the last run left, and the last assignment is remembered for the next run.

use super::file::{Graph as FileGraph, Info, Kind, Step};
use super::schema::{CallOnceOptions, VariableOptions};
use super::{Importer, Reason, per_tensor, shape};
use crate::graph::{Quant, Tensor, TensorData, TensorId};
use foolproof::model::format::TensorRole;
use foolproof::ops::Op;
use std::collections::HashMap;

pub(super) const CALL_ONCE: i32 = 129;
pub(super) const VAR_HANDLE: i32 = 142;
pub(super) const READ: i32 = 143;
pub(super) const ASSIGN: i32 = 144;

/// What is known about the variables so far.
#[derive(Debug, Default)]
pub(super) struct Variables<'a> {
    /// Names of variables, by the file's tensor that stands for one.
    handles: HashMap<usize, String>,
    /// First values.
    first: HashMap<String, &'a [u8]>,
    /// Tensors that live from one run to the next, in the order in which they are met.
    states: Vec<(String, TensorId)>,
    /// What a variable holds now, where it was assigned in this run, and by which of the file's operators.
    now: HashMap<String, TensorId>,
}

fn name_of(step: &Step<'_>) -> String {
    let text = |bytes: Option<flatbuffers::Vector<'_, u8>>| {
        String::from_utf8_lossy(bytes.map(|b| b.bytes()).unwrap_or_default()).into_owned()
    };
    let options = step.table.options::<VariableOptions<'_>>();
    let (container, name) = match options {
        Some(o) => (text(o.container()), text(o.shared_name())),
        None => Default::default(),
    };
    format!("{container}/{name}")
}

impl<'a> Importer<'a> {
    /// CALL_ONCE: the graph that it calls may only assign constants.
    pub(super) fn call_once(&mut self, step: &Step<'a>) -> Result<(), Reason> {
        let options = step.table.options::<CallOnceOptions<'a>>();
        let index = options.and_then(|o| o.graph()).unwrap_or(0);
        let graph: Option<&'a FileGraph<'a>> = usize::try_from(index)
            .ok()
            .and_then(|i| i.checked_sub(1))
            .and_then(|i| self.file.others.get(i));
        let graph = graph.ok_or_else(|| format!("it calls graph {index}, which is not there"))?;
        let mut handles = HashMap::new();
        for inner in &graph.steps {
            match (inner.code, &inner.inputs[..], &inner.outputs[..]) {
                (VAR_HANDLE, [], &[t]) => {
                    handles.insert(t, name_of(inner));
                }
                (ASSIGN, &[Some(handle), Some(value)], []) => {
                    let name = handles.get(&handle).ok_or("it assigns to no variable")?;
                    let value: &'a Info<'a> = &graph.tensors[value];
                    let bytes = value.data.ok_or_else(|| {
                        format!(
                            "graph {index} assigns `{}`, which is not a constant",
                            value.name
                        )
                    })?;
                    self.variables.first.insert(name.clone(), bytes);
                }
                _ => return Err(format!("graph {index} has {}", inner.name)),
            }
        }
        Ok(())
    }

    pub(super) fn var_handle(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        self.variables.handles.insert(t, name_of(step));
        Ok(())
    }

    fn variable_of(&self, step: &Step<'a>) -> Result<String, Reason> {
        let handle = self.input(step, 0)?;
        let name = self.variables.handles.get(&handle).cloned();
        name.ok_or_else(|| "its first input is not a variable".to_string())
    }

    pub(super) fn read_variable(&mut self, step: &Step<'a>, t: usize) -> Result<(), Reason> {
        let name = self.variable_of(step)?;
        if let Some(&now) = self.variables.now.get(&name) {
            return self.emit(Op::Reshape, vec![now], t);
        }
        let known = self.variables.states.iter().find(|(n, _)| *n == name);
        let state = match known {
            Some(&(_, id)) => id,
            None => self.first_value(name, self.info(t))?,
        };
        self.emit(Op::Recall, vec![state], t)
    }

    /// The tensor that keeps a variable, as the first one that reads it sees it.
    fn first_value(&mut self, name: String, info: &'a Info<'a>) -> Result<TensorId, Reason> {
        let own = shape(info)?;
        let quant = match info.kind {
            Kind::I8 => per_tensor(info)?,
            _ => Quant::default(),
        };
        // a shape is a few bytes of the file, whatever it says
        self.spend(own.len().saturating_mul(4))?;
        let bytes = self.variables.first.get(&name).copied();
        let data = match info.kind {
            Kind::I8 => TensorData::I8(match bytes {
                Some(bytes) => bytes.iter().map(|&b| b as i8).collect(),
                None => vec![quant.zero_point as i8; own.len()],
            }),
            Kind::F32 => {
                let words = |bytes: &[u8]| -> Vec<f32> {
                    let words = bytes.chunks_exact(4).filter_map(|b| b.try_into().ok());
                    words.map(f32::from_le_bytes).collect()
                };
                TensorData::F32(bytes.map_or_else(|| vec![0.0; own.len()], words))
            }
            other => {
                return Err(format!(
                    "its variable is {}; float32 and int8 are supported",
                    other.name()
                ));
            }
        };
        let filled = match &data {
            TensorData::I8(v) => v.len(),
            TensorData::F32(v) => v.len(),
            _ => 0,
        };
        if filled != own.len() {
            return Err("its first value has another size".into());
        }
        self.spend(own.len() * data.dtype().size())?;
        let id = self.graph.add(Tensor {
            name: name.trim_start_matches('/').to_string(),
            shape: own,
            role: TensorRole::State,
            quant,
            data,
        });
        self.variables.states.push((name, id));
        Ok(id)
    }

    pub(super) fn assign_variable(&mut self, step: &Step<'a>) -> Result<(), Reason> {
        let name = self.variable_of(step)?;
        let value = self.operand(step, 1)?;
        if self.graph.tensors[value].role != TensorRole::Activation {
            return Err("it assigns a constant".into());
        }
        self.variables.now.insert(name, value);
        Ok(())
    }

    /// At the end: what the next run will read.
    pub(super) fn remember(&mut self) -> Result<(), Reason> {
        for (name, state) in self.variables.states.clone() {
            let Some(&value) = self.variables.now.get(&name) else {
                continue;
            };
            let dims = self.graph.tensors[state].shape.dims().to_vec();
            let value = self.reshaped(value, &dims)?;
            let like = self.graph.tensors[value].clone();
            let output = self.graph.add(Tensor {
                name: format!("{}.remembered", like.name),
                data: TensorData::Runtime(like.data.dtype()),
                ..like
            });
            self.push(Op::Remember, vec![value, state], output)?;
        }
        Ok(())
    }
}
