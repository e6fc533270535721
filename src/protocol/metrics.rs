//! Names of the series that a job records, as `GET /v1/fine_tuning/jobs/{id}/metrics` gives them.

/// Mean cross-entropy (nats) over the supervised tokens of the step's batch.
pub const TRAIN_LOSS: &str = "train_loss";
/// Share of the step's supervised tokens that the model ranked first (0 to 1).
pub const TRAIN_MEAN_TOKEN_ACCURACY: &str = "train_mean_token_accuracy";
/// Mean cross-entropy (nats) over the supervised tokens of the held-out rows.
pub const VALID_LOSS: &str = "valid_loss";
/// Share of the held-out supervised tokens that the model ranked first (0 to 1).
pub const VALID_MEAN_TOKEN_ACCURACY: &str = "valid_mean_token_accuracy";
/// Learning rate that the step used.
pub const LEARNING_RATE: &str = "learning_rate";
/// Norm of all gradients of the step before clipping.
pub const GRADIENT_NORM: &str = "gradient_norm";
/// Real tokens (no padding) a second, of the step.
pub const TOKENS_PER_SECOND: &str = "tokens_per_second";
/// Peak resident memory of the engine so far, in bytes.
pub const PEAK_MEMORY_BYTES: &str = "peak_memory_bytes";
/// Share of the pairs of the step's batch whose better answer has the higher reward (0 to 1), of a preference job.
pub const TRAIN_REWARD_ACCURACY: &str = "train_reward_accuracy";
/// Mean reward of the better answers less that of the others, of the step's batch, of a preference job.
pub const TRAIN_REWARD_MARGIN: &str = "train_reward_margin";
/// As [`TRAIN_REWARD_ACCURACY`], of the held-out pairs.
pub const VALID_REWARD_ACCURACY: &str = "valid_reward_accuracy";
/// As [`TRAIN_REWARD_MARGIN`], of the held-out pairs.
pub const VALID_REWARD_MARGIN: &str = "valid_reward_margin";

/// All series, in the order documentation lists them.
pub const ALL: &[&str] = &[
    TRAIN_LOSS,
    TRAIN_MEAN_TOKEN_ACCURACY,
    VALID_LOSS,
    VALID_MEAN_TOKEN_ACCURACY,
    LEARNING_RATE,
    GRADIENT_NORM,
    TOKENS_PER_SECOND,
    PEAK_MEMORY_BYTES,
    TRAIN_REWARD_ACCURACY,
    TRAIN_REWARD_MARGIN,
    VALID_REWARD_ACCURACY,
    VALID_REWARD_MARGIN,
];
