//! Models that other tools wrote, as [`Graph`](crate::graph::Graph)s.

pub mod onnx;
pub mod tflite;

use std::fmt;

/// Why a model cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The file is not what it says it is: offsets or lengths that lead out of it, or too many tables.
    #[error("not a well-formed {format} file: {what}")]
    Malformed {
        /// The file format.
        format: &'static str,
        /// What is wrong, and where.
        what: String,
    },
    /// The file can be read, and what it describes makes no sense.
    #[error("{place}: {what}")]
    Invalid {
        /// Which part of the model.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// Operators that are not there, or not in this form. All of them.
    #[error("the model needs what foolproof does not have: {}", join(.0))]
    Unsupported(Vec<Missing>),
}

/// Operators that cannot be imported for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The operator's name in the file's own language.
    pub operator: String,
    /// What about it.
    pub reason: String,
    /// The name of the output of the first of them.
    pub output: String,
    /// How many there are.
    pub count: usize,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missing {
            operator,
            reason,
            output,
            count,
        } = self;
        match count {
            1 => write!(f, "{operator} (output `{output}`): {reason}"),
            _ => write!(
                f,
                "{operator} ({count} of them, the first with output `{output}`): {reason}"
            ),
        }
    }
}

fn join(missing: &[Missing]) -> String {
    let parts: Vec<String> = missing.iter().map(Missing::to_string).collect();
    parts.join("; ")
}
