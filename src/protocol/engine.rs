//! The contract between the worker and `finetuned-engine`: the folder of an attempt, the lines the engine writes and the
//! commands it reads.
//!
//! ```text
//! FOLDER/job.json                 an `EngineJob`
//! FOLDER/data/train, data/valid   the files as they were uploaded (`valid` only where the job has one)
//! FOLDER/base                     a link to the base model: a Hugging Face folder or a GGUF file
//! FOLDER/checkpoints/step-N/      checkpoints, `manifest.json` written last; the newest good one is resumed
//! FOLDER/initial_adapter/         the adapter that training goes on from, where `continue_from` is set
//! FOLDER/answers.jsonl            an `AnsweredRow` a line: answers that need not be given again
//! FOLDER/adapter/                 the exported adapter, in peft's layout, or the whole model, in Hugging Face's; what
//!                                 `evaluate` asks is there from the start
//! FOLDER/events.jsonl             one `EngineLine` a line: the truth, of which stdout is a copy
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    error::JobError,
    evaluation::{EvaluationReport, ExportedWeights, Likelihood, ParityCertificate, PreferenceFigures, Scores},
    ids::{JobId, TaskId},
    spec::TrainingSpec,
    status::named_enum,
};

/// Version of this contract; an engine refuses a folder of another.
pub const FOLDER_VERSION: u32 = 1;
pub const JOB_FILE: &str = "job.json";
pub const EVENTS_FILE: &str = "events.jsonl";
pub const BASE_LINK: &str = "base";
pub const TRAIN_DATA: &str = "data/train";
pub const VALID_DATA: &str = "data/valid";
pub const CHECKPOINTS_FOLDER: &str = "checkpoints";
pub const INITIAL_ADAPTER_FOLDER: &str = "initial_adapter";
pub const ADAPTER_FOLDER: &str = "adapter";
pub const KNOWN_ANSWERS_FILE: &str = "answers.jsonl";
pub const MANIFEST_FILE: &str = "manifest.json";

/// Exit status of an engine that finished, stopped or was cancelled as it was told to.
pub const EXIT_OK: i32 = 0;
/// Exit status after a `failed` line: the cause is in the line.
pub const EXIT_FAILED: i32 = 10;
/// Exit status after a `suspended` line: the job can go on once the cause is mended.
pub const EXIT_SUSPENDED: i32 = 11;
/// Exit status when the worker went away: standard input closed, or the keepalives stopped.
pub const EXIT_ORPHANED: i32 = 12;

named_enum!(
    /// Where the engine computes.
    DeviceRequest, "device" {
        /// The first CUDA device where one can be used, the CPU otherwise.
        Auto = "auto",
        Cpu = "cpu",
        Cuda = "cuda",
    }
);

/// `job.json`: all that an engine is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineJob {
    pub folder_version: u32,
    pub job_id: JobId,
    pub task_id: TaskId,
    /// Lease epoch of the attempt.
    pub epoch: i64,
    /// Public name of the base model, written into the adapter's config; never a local path.
    pub base_model: String,
    /// Hash of the base model; a checkpoint made on another one is refused.
    pub base_model_sha256: String,
    pub training_file_sha256: String,
    pub validation_file_sha256: Option<String>,
    pub spec: TrainingSpec,
    pub device: DeviceRequest,
    /// Threads for computing on the CPU; a checkpoint's own count takes precedence, so that bytes stay equal.
    pub threads: u32,
    /// The engine ends by itself when no keepalive came for so long.
    pub keepalive_timeout_seconds: u64,
}

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineLine {
    /// Counted from 1 in each attempt, without gaps.
    pub line: u64,
    /// Unix time in seconds.
    pub time: f64,
    #[serde(flatten)]
    pub event: EngineEvent,
}

named_enum!(
    /// What the engine is doing; every phase moves a progress mark.
    Phase, "phase" {
        Loading = "loading",
        Preparing = "preparing",
        /// The worst batch, run before anything else.
        Rehearsal = "rehearsal",
        /// Log-probabilities of both answers of each pair under the reference, of a preference job.
        ScoringReference = "scoring_reference",
        /// Likelihood of the held-out rows.
        Evaluating = "evaluating",
        /// Answers to the held-out prompts by the base model.
        AnsweringBase = "answering_base",
        Training = "training",
        AnsweringTuned = "answering_tuned",
        Exporting = "exporting",
        Verifying = "verifying",
        /// A judge looks at the answers; told by the worker, not by the engine.
        Judging = "judging",
    }
);

named_enum!(
    /// Who gave an answer.
    Answerer, "answerer" {
        /// Without what was trained.
        Base = "base",
        Tuned = "tuned",
    }
);

/// A model's answer to a held-out prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweredRow {
    pub by: Answerer,
    /// Line of the row in its file, counted from 1.
    pub line: u64,
    /// The prompt as a person would read it.
    pub prompt: String,
    pub reference: String,
    pub text: String,
    /// Whether it ended at an end-of-sequence token rather than at the length limit.
    pub ended: bool,
}

/// A file of the exported adapter or of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name within its folder.
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// `manifest.json` of a checkpoint: what a loader believes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub step: u32,
    pub files: Vec<FileEntry>,
}

/// What the engine tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EngineEvent {
    /// The model is loaded and the data prepared.
    Started {
        engine_version: String,
        /// Such as `cpu` or `cuda:0 (NVIDIA H200)`.
        device: String,
        threads: u32,
        /// Such as `avx512`; bytes are only comparable within one.
        instruction_set: String,
        parameters: u64,
        trainable_parameters: u64,
        train_rows: u64,
        held_out_rows: u64,
        total_steps: u32,
        /// Steps already done, where a checkpoint was resumed.
        resumed_from_step: u32,
    },
    /// The progress mark: something moved.
    Progress { phase: Phase, done: u64, total: u64 },
    /// An optimiser step was taken.
    Step {
        step: u32,
        epoch: f64,
        train_loss: f64,
        train_mean_token_accuracy: f64,
        learning_rate: f64,
        gradient_norm: f64,
        /// Real tokens of the step, prompt and answer.
        tokens: u64,
        supervised_tokens: u64,
        seconds: f64,
        peak_memory_bytes: u64,
        /// Of a preference job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        preference: Option<PreferenceFigures>,
    },
    /// The held-out rows were scored; step 0 is the base model.
    Evaluated { step: u32, likelihood: Likelihood },
    /// Held-out prompts that were answered together.
    Answered { rows: Vec<AnsweredRow> },
    /// Answers to some held-out prompts were scored, during training: the mean by metric.
    TextScored { step: u32, rows: u64, scores: Scores },
    /// A checkpoint is whole on disk, in `checkpoints/step-N`.
    Checkpoint {
        step: u32,
        bytes: u64,
        train_loss: Option<f64>,
        train_mean_token_accuracy: Option<f64>,
        evaluation: Option<Likelihood>,
    },
    /// Something a person should know that stops nothing.
    Warning { code: String, message: String },
    /// The weights that are evaluated and exported, where they are not simply the last step's.
    WeightsChosen { weights: ExportedWeights, likelihood: Likelihood },
    /// The adapter lies in `adapter/`, reloaded and compared.
    Exported { files: Vec<FileEntry>, parity: ParityCertificate },
    /// The end of a job that went well.
    Finished { trained_tokens: u64, evaluation: Box<EvaluationReport> },
    /// The end of `evaluate`: both models have answered every row that was asked for.
    AllAnswered { rows: u64 },
    /// The end after `stop_with_checkpoint`; the checkpoint of `step` is whole.
    Stopped { step: u32 },
    /// The end after `cancel`.
    Cancelled { step: u32 },
    /// The end by a condition that can be mended, such as a full disk; the last good checkpoint is whole.
    Suspended { step: u32, error: JobError },
    /// The end of a job that cannot go on.
    Failed { step: Option<u32>, error: JobError },
}

/// What the worker tells the engine, one JSON object a line on standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EngineCommand {
    Keepalive,
    /// Drop the unfinished accumulation, write a checkpoint of the last whole step, end.
    StopWithCheckpoint,
    /// End now; write nothing.
    Cancel,
    /// Stay between micro-batches until `continue`: the worker cannot reach the database.
    Hold,
    Continue,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_flat_json_objects() {
        let line = EngineLine { line: 3, time: 1.5, event: EngineEvent::Stopped { step: 7 } };
        let text = serde_json::to_string(&line).unwrap_or_default();
        assert_eq!(text, r#"{"line":3,"time":1.5,"type":"stopped","step":7}"#);
        assert_eq!(serde_json::from_str::<EngineLine>(&text).ok(), Some(line));
        assert_eq!(serde_json::to_string(&EngineCommand::Hold).unwrap_or_default(), r#"{"type":"hold"}"#);
    }
}
