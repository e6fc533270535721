//! What can go wrong between a model's files and its answers.

use std::path::PathBuf;

use finetuned_torch::{TorchError, tch::TchError};
use finetuned_weights::WeightsError;

/// Why a model, an adapter or a batch cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// libtorch or the device failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// The model's files cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The files hold other tensors than the config asks for; all of them are listed.
    #[error("while loading the model: its tensors do not fit its config: {}", problems.join("; "))]
    Tensors { problems: Vec<String> },
    /// The adapter does not fit the model; all reasons are listed.
    #[error("while loading the adapter: {}", problems.join("; "))]
    Adapter { problems: Vec<String> },
    /// The settings of an adapter or of generation cannot be met.
    #[error("setting `{field}` {reason}")]
    Setting { field: &'static str, reason: String },
    /// Tokens, labels or lengths that make no batch.
    #[error("while packing documents: {0}")]
    Batch(String),
    /// A tensor file is malformed.
    #[error("while reading `{}`: {reason}", path.display())]
    TensorFile { path: PathBuf, reason: String },
    /// The operating system refused to read or write.
    #[error("while {doing} `{}`: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// The caller's callback asked to stop.
    #[error("stopped as asked")]
    Stopped,
}

impl From<TchError> for ModelError {
    fn from(error: TchError) -> Self {
        Self::Torch(TorchError::from(error))
    }
}

impl ModelError {
    /// Whether the cause is too little memory, on the host or on the device.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Torch(error) if error.is_out_of_memory())
    }
}
