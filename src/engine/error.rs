//! Why a run ended early, and what is told about it.

use std::{error::Error, io, path::PathBuf};

use finetuned_dataset::{PrepareError, SourceFile};
use finetuned_model::ModelError;
use finetuned_protocol::error::{ErrorCode, JobError};
use finetuned_torch::TorchError;
use finetuned_weights::WeightsError;

use crate::{
    checkpoint::StateError,
    control::Interrupt,
    disk::{DiskError, is_mendable},
};

/// Everything that ends a run before its end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Asked for from outside.
    #[error(transparent)]
    Interrupted(#[from] Interrupt),
    /// A file of the folder could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A JSON file of the folder is not what it should be.
    #[error("while reading {}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    /// The folder is of a contract that this engine does not know.
    #[error("the folder is of version {found}; this engine reads version {known}")]
    FolderVersion { found: u32, known: u32 },
    /// The base model's files.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The rows.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// libtorch, through our own layer.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A checkpoint of another job.
    #[error(transparent)]
    Origin(#[from] StateError),
    /// A checkpoint that is whole and yet does not fit the model.
    #[error("while resuming step {step}: {message}")]
    Resume { step: u32, message: String },
    /// Steps in a row whose loss or gradient was not finite.
    #[error("loss or gradient was not finite in {in_a_row} steps in a row, the last in step {step}: {tensor}")]
    NonFinite { step: u32, in_a_row: u32, tensor: String },
    /// The reloaded adapter is not the one in memory.
    #[error(
        "the adapter read back from its file differs from the one in memory by {difference:e} in a logit; \
         at most {tolerance:e} is allowed"
    )]
    ExportMismatch { difference: f64, tolerance: f64 },
    /// Figures that cannot be compared.
    #[error(transparent)]
    Evaluation(#[from] finetuned_evaluation::EvaluationError),
    /// The adapter that training was to go on from cannot be used.
    #[error("while loading the adapter to go on from: {0}")]
    InitialAdapter(ModelError),
    /// A state that the code should not allow.
    #[error("{0}")]
    Internal(String),
}

impl From<tch::TchError> for EngineError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

impl EngineError {
    /// Whether the job can go on once a person has mended the cause.
    pub fn is_mendable(&self) -> bool {
        let mut cause: Option<&dyn Error> = Some(self);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(is_mendable) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Whether the cause is too little memory, on the host or on the device.
    pub fn is_out_of_memory(&self) -> bool {
        self.code() == ErrorCode::OutOfMemory
    }

    /// Whether the text names a place on the worker's host.
    fn names_a_path(&self) -> bool {
        match self {
            Self::Disk(_) | Self::Json { .. } | Self::Prepare(PrepareError::Read(_)) => true,
            Self::Weights(error)
            | Self::Model(ModelError::Weights(error))
            | Self::InitialAdapter(ModelError::Weights(error)) => error.names_a_path(),
            Self::Prepare(PrepareError::Tokenizer { cause, .. }) => cause.names_a_path(),
            Self::Model(error) | Self::InitialAdapter(error) => {
                matches!(error, ModelError::TensorFile { .. } | ModelError::Io { .. })
            }
            _ => false,
        }
    }

    /// The cause as a client reads it.
    pub fn to_job_error(&self) -> JobError {
        let message = match self.names_a_path() {
            true => {
                "a file of the job, its model or its result could not be read or written; the worker's log names it"
                    .to_owned()
            }
            false => self.to_string(),
        };
        let error = JobError::new(self.code(), message);
        match self {
            _ if self.is_mendable() => JobError::new(
                error.code,
                "a checkpoint or a result could not be written: no space is left on the disk, or it fails",
            )
            .hint("make room on the worker's disk, then resume the job; its last checkpoint is whole"),
            Self::NonFinite { .. } => error.hint("try a lower learning rate or a longer warm-up").param("optimizer"),
            Self::InitialAdapter(_) => error.param("continue_from"),
            Self::Origin(_) => error.hint("create a new job: a checkpoint only goes on with what it was made of"),
            Self::Prepare(PrepareError::Rows { findings, .. } | PrepareError::NothingToTrain { findings, .. }) => {
                let details = findings.iter().take(100).filter_map(|finding| serde_json::to_value(finding).ok());
                JobError { details: details.collect(), ..error }
            }
            _ if error.code == ErrorCode::OutOfMemory => {
                error.hint("lower `micro_batch_size` or `max_seq_len`, or use a worker with more memory")
            }
            _ => error,
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            _ if self.is_mendable() => ErrorCode::OutOfDiskSpace,
            Self::Torch(error) if error.is_out_of_memory() => ErrorCode::OutOfMemory,
            Self::Model(error) if error.is_out_of_memory() => ErrorCode::OutOfMemory,
            Self::InitialAdapter(error) if error.is_out_of_memory() => ErrorCode::OutOfMemory,
            Self::InitialAdapter(_) => ErrorCode::InvalidSettings,
            Self::Model(ModelError::Weights(_) | ModelError::Tensors { .. }) => ErrorCode::InvalidModel,
            Self::Model(ModelError::Setting { .. }) => ErrorCode::InvalidSettings,
            Self::Weights(_) | Self::Origin(StateError::Model(_)) => ErrorCode::InvalidModel,
            Self::Prepare(PrepareError::Rows { file: SourceFile::Validation, .. }) => ErrorCode::InvalidValidationFile,
            Self::Prepare(PrepareError::Rows { .. } | PrepareError::NothingToTrain { .. }) => {
                ErrorCode::InvalidTrainingFile
            }
            Self::Prepare(PrepareError::Tokenizer { .. }) => ErrorCode::InvalidModel,
            Self::Origin(StateError::Data(_)) => ErrorCode::InvalidTrainingFile,
            Self::Origin(StateError::Settings(_)) => ErrorCode::InvalidSettings,
            Self::NonFinite { .. } => ErrorCode::NonFinite,
            Self::ExportMismatch { .. } => ErrorCode::ExportMismatch,
            _ => ErrorCode::InternalError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_reads_nothing_of_the_hosts_paths() {
        let place = || PathBuf::from("/secret/place");
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        let malformed = || WeightsError::NotAModel { path: place(), reason: "no config.json".into() };
        let errors = [
            EngineError::Disk(DiskError { doing: "writing", path: place(), source: refused() }),
            EngineError::Weights(malformed()),
            EngineError::Model(ModelError::Weights(malformed())),
            EngineError::Model(ModelError::Io { doing: "reading", path: place(), source: refused() }),
            EngineError::InitialAdapter(ModelError::Io { doing: "reading", path: place(), source: refused() }),
            EngineError::Prepare(PrepareError::Tokenizer { file: SourceFile::Training, cause: malformed() }),
        ];
        for error in errors {
            assert!(error.to_string().contains("/secret"), "the log has it: {error}");
            let told = error.to_job_error();
            assert!(!told.message.contains("/secret"), "{told:?}");
        }
        let kept = EngineError::Weights(WeightsError::NoTokenizer { reason: "the folder holds none".into() });
        assert!(kept.to_job_error().message.contains("holds none"));
    }
}
