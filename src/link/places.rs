//! Where a chip keeps what an attack needs beside the session.

use super::{Fault, FaultCode};
use crate::model::format::ALIGN;

/// The division of a chip's memory for an attack: from its beginning the session, the input, the crafted input and the attack's
/// scratch; at its end, from one request to the next, a universal perturbation. All sizes are in bytes, and rounded up as the
/// alignment of what follows demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// The session's buffer.
    pub session: usize,
    /// The input, and once more the crafted input.
    pub input: usize,
    /// The attack's scratch.
    pub scratch: usize,
    /// The universal perturbation; 0 where there is none.
    pub kept: usize,
}

impl Places {
    /// For a session of `session` bytes ([`Model::required_buffer`](crate::model::Model::required_buffer)), inputs of `input` bytes,
    /// and a scratch of `scratch` f32 elements.
    pub fn new(session: usize, input: usize, scratch: usize) -> Places {
        Places {
            session: session.next_multiple_of(ALIGN),
            input: input.next_multiple_of(4),
            scratch: 4 * scratch,
            kept: 0,
        }
    }

    /// The same beside a universal perturbation of so many f32 elements.
    pub fn keeping(self, elements: usize) -> Places {
        Places {
            kept: (4 * elements).next_multiple_of(ALIGN),
            ..self
        }
    }

    /// The bytes that all of it takes, in memory that begins and ends as the alignment demands.
    pub fn needed(&self) -> usize {
        let front = self.session + 2 * self.input + self.scratch;
        match self.kept {
            0 => front,
            kept => front.next_multiple_of(ALIGN) + kept,
        }
    }

    /// Where what is kept begins in a memory of so many bytes; `None` where the memory is smaller than that.
    pub fn kept_at(&self, memory: usize) -> Option<usize> {
        (memory / ALIGN * ALIGN).checked_sub(self.kept)
    }

    /// Whether a memory of so many bytes has room for all of it.
    ///
    /// # Errors
    /// [`FaultCode::SessionTooLarge`], with the bytes that are needed and those that are there.
    pub fn check(&self, memory: usize) -> Result<(), Fault> {
        let usable = match self.kept {
            0 => memory,
            _ => memory / ALIGN * ALIGN,
        };
        match self.needed() <= usable {
            true => Ok(()),
            false => Err(Fault::new(
                FaultCode::SessionTooLarge,
                self.needed(),
                memory,
            )),
        }
    }
}
