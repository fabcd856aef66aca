//! Models in the formats of other tools.

pub mod tflite;

/// Why a model cannot be exported.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ExportError {
    /// An operator that the format does not have, or not in this form.
    #[error(
        "operator {operator} ({name}, output `{tensor}`) cannot be written as {format}: {reason}"
    )]
    Unsupported {
        /// The file format.
        format: &'static str,
        /// Which operator.
        operator: usize,
        /// Its name.
        name: &'static str,
        /// Its output's name.
        tensor: String,
        /// Why.
        reason: &'static str,
    },
    /// A batch normalization that no layer can take over.
    #[error(transparent)]
    Fold(#[from] crate::quantize::QuantizeError),
}
