//! Base against tuned: the figures every finished job carries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    judge::{JudgeReport, RowJudgement},
    optimization::HeldOutMetric,
    status::named_enum,
    text_metric::TextMetric,
};

/// Figures by metric; a metric that says nothing of a row is missing.
pub type Scores = BTreeMap<TextMetric, f64>;

/// How well a model predicts the held-out answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Likelihood {
    /// Mean cross-entropy in nats, every supervised token alike, whatever its weight in training; of a preference job, the
    /// mean loss of a pair.
    pub loss: f64,
    /// `exp` of the mean cross-entropy; of a preference job, of the better answers.
    pub perplexity: f64,
    /// Share of supervised tokens that the model ranked first (0 to 1); of a preference job, of the better answers.
    pub token_accuracy: f64,
    pub supervised_tokens: u64,
    /// Pieces, of documents; pairs, of a preference job.
    pub rows: u64,
    /// Cross-entropy in bits by byte of the supervised text, which compares models of different vocabularies.
    #[serde(default)]
    pub bits_per_byte: Option<f64>,
    /// Of a preference job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<PreferenceFigures>,
}

/// How the model takes the better answers against the others. The reward of an answer is implicit (Rafailov et al. 2023):
/// `beta` times its log-probability less what the reference gives it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PreferenceFigures {
    /// Share of the pairs whose better answer has the higher reward (0 to 1). Before training no answer has.
    pub reward_accuracy: f64,
    /// Mean of the better answers' rewards less the others'.
    pub reward_margin: f64,
    /// Mean reward of the better answers.
    pub chosen_reward: f64,
    /// Mean reward of the other answers.
    pub rejected_reward: f64,
}

/// A likelihood at a step of training; step 0 is the base model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LikelihoodAtStep {
    pub step: u32,
    #[serde(flatten)]
    pub likelihood: Likelihood,
}

named_enum!(
    /// Whether the interval of a paired difference excludes zero, and on which side.
    Verdict, "verdict" {
        Better = "better",
        Worse = "worse",
        NoDifferenceShown = "no_difference_shown",
    }
);

/// One metric of base and tuned on the same rows, with the percentile-bootstrap interval of their mean difference
/// (Efron & Tibshirani 1993, chapter 13), resampled over rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PairedComparison {
    pub base: f64,
    pub tuned: f64,
    /// `tuned - base`.
    pub difference: f64,
    /// Lower end of the interval of `difference`.
    pub low: f64,
    /// Upper end of the interval of `difference`.
    pub high: f64,
    /// Coverage of the interval, such as 0.95.
    pub confidence: f64,
    pub resamples: u32,
    pub seed: u64,
    pub verdict: Verdict,
}

/// Both answers to one held-out prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnswerPair {
    /// Line of the row in its file, counted from 1.
    pub line: u64,
    /// The prompt as a person would read it, without the template's markers.
    pub prompt: String,
    pub reference: String,
    pub base: String,
    pub tuned: String,
    /// Whether the answer ended at an end-of-sequence token rather than at the length limit.
    pub base_ended: bool,
    pub tuned_ended: bool,
    pub base_rouge_l: f64,
    pub tuned_rouge_l: f64,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, f64>)]
    pub base_scores: Scores,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, f64>)]
    pub tuned_scores: Scores,
    /// Kinds of error found in the answer, by name.
    #[serde(default)]
    pub base_categories: Vec<String>,
    #[serde(default)]
    pub tuned_categories: Vec<String>,
    /// What the judge says, where one was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgement: Option<RowJudgement>,
}

/// A figure of base and tuned over the rows that have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ComparedRows {
    pub rows: u64,
    #[serde(flatten)]
    pub comparison: PairedComparison,
}

/// Answers of both models to held-out prompts, and what they say together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnswersReport {
    pub rows: u32,
    pub max_new_tokens: u32,
    /// ROUGE-L F1, 0 to 1.
    pub rouge_l: PairedComparison,
    /// Share of answers that ended by themselves (0 to 1).
    pub base_ended_share: f64,
    pub tuned_ended_share: f64,
    /// Each metric of both models. One that no row has is missing.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, ComparedRows>)]
    pub metrics: BTreeMap<TextMetric, ComparedRows>,
    /// Each kind of error: the share of answers that have it (0 to 1). Fewer is `better`.
    #[serde(default)]
    pub categories: BTreeMap<String, ComparedRows>,
    /// What the judge says, where one was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeReport>,
    /// What could not be judged, and why.
    #[serde(default)]
    pub not_judged: Vec<String>,
    pub answers: Vec<AnswerPair>,
}

named_enum!(
    /// Where the held-out rows came from.
    HeldOutSource, "held-out source" {
        ValidationFile = "validation_file",
        Split = "split",
    }
);

/// Proof that the published adapter is the one that was trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ParityCertificate {
    /// Largest difference of a logit between the adapter reloaded from its file and the one in memory.
    pub largest_reload_difference: f64,
    /// The most that is allowed.
    pub tolerance: f64,
    /// Largest difference of a logit between the adapter and the base model: zero would mean an adapter without effect.
    pub largest_difference_from_base: f64,
    /// Positions compared.
    pub tokens: u64,
}

/// Whose weights were evaluated at the end and exported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExportedWeights {
    /// Those of the last step.
    Last { step: u32 },
    /// Those of the best evaluation, by early stopping.
    Best {
        step: u32,
        #[schema(value_type = String)]
        metric: HeldOutMetric,
        value: f64,
        /// The step after which training ended before its time.
        stopped_at_step: Option<u32>,
    },
    /// The mean over the checkpoints of these steps, by weight averaging.
    Mean { steps: Vec<u32> },
}

/// The `evaluation` object of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationReport {
    pub held_out_source: HeldOutSource,
    pub held_out_rows: u64,
    pub base: Likelihood,
    pub tuned: Likelihood,
    /// The weights that `tuned` and the answers are of; null in reports of before there was a choice.
    #[serde(default)]
    pub exported_weights: Option<ExportedWeights>,
    /// Every evaluation of the run, step 0 first.
    pub history: Vec<LikelihoodAtStep>,
    /// `None` where the job asked for no answers.
    pub answers: Option<AnswersReport>,
}
