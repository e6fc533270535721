//! How training moves the weights: optimiser, learning-rate schedule, and which weights come out in the end.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use crate::{metrics, status::named_enum, text_metric::TextMetric};

named_enum!(
    /// How an optimiser's moments lie in memory and in checkpoints. They are computed with in f32.
    MomentType, "type of moments" {
        F32 = "f32",
        /// Rounded stochastically, so that changes too small for its eight bits still add up.
        Bf16 = "bf16",
        /// Eight bits an element by dynamic quantisation in blocks of 256 with a scale each (Dettmers et al. 2022); tensors
        /// of fewer than 4096 elements stay f32.
        Blocks8Bit = "8bit",
    }
);

named_enum!(
    /// How Muon's learning rate depends on the shape of a matrix with `out` rows and `in` columns.
    MuonScale, "scale of Muon" {
        /// `0.2 * sqrt(max(out, in))`: updates as large as AdamW's, so that its learning rates hold (Liu et al. 2025).
        MatchRmsAdamw = "match_rms_adamw",
        /// `sqrt(max(1, out / in))` (Jordan et al. 2024).
        Original = "original",
    }
);

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdamWSpec {
    pub betas: [f64; 2],
    pub epsilon: f64,
    #[serde(default = "f32_moments")]
    pub moments: MomentType,
}

/// Adafactor (Shazeer & Stern 2018) as `torch.optim.Adafactor` computes it: without a first moment, and with a learning
/// rate that is relative to a parameter's size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdafactorSpec {
    /// The second moment of step t keeps `1 - t^beta2_decay` of the one before; negative.
    pub beta2_decay: f64,
    /// Least root of a second moment.
    pub epsilon: f64,
    /// Least size of a parameter, as a root mean square.
    pub epsilon_scale: f64,
    /// Updates with a larger root mean square are scaled down to it.
    pub clipping_threshold: f64,
}

/// Gradient descent with momentum as `torch.optim.SGD` computes it; its weight decay is a term of the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SgdSpec {
    pub momentum: f64,
    pub nesterov: bool,
}

/// Muon (Jordan et al. 2024) for the matrices of the layers: momentum, made orthogonal by Newton-Schulz iterations. AdamW
/// for all the rest: vectors, embeddings, the head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MuonSpec {
    pub momentum: f64,
    pub nesterov: bool,
    pub newton_schulz_steps: u32,
    pub scale: MuonScale,
    /// AdamW of the rest.
    #[serde(flatten)]
    pub rest: AdamWSpec,
}

/// An optimiser by the paper it is of, with its own settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Algorithm {
    Adamw(AdamWSpec),
    Adafactor(AdafactorSpec),
    Sgd(SgdSpec),
    Muon(MuonSpec),
}

impl Algorithm {
    /// As a person calls it.
    pub fn describe(&self) -> String {
        let moments = |spec: &AdamWSpec| match spec.moments {
            MomentType::F32 => String::new(),
            other => format!(" with moments in {other}"),
        };
        match self {
            Self::Adamw(spec) => format!("AdamW{}", moments(spec)),
            Self::Adafactor(_) => "Adafactor".to_owned(),
            Self::Sgd(spec) => format!("SGD with momentum {}", spec.momentum),
            Self::Muon(spec) => format!("Muon, and AdamW{} for what is no matrix of a layer", moments(&spec.rest)),
        }
    }
}

/// An optimiser, and clipping by global norm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OptimizerSpec {
    /// Peak learning rate, after warm-up.
    pub learning_rate: f64,
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm where theirs is larger.
    pub max_grad_norm: f64,
    #[serde(flatten, deserialize_with = "algorithm_or_adamw")]
    pub algorithm: Algorithm,
}

impl OptimizerSpec {
    /// AdamW with moments in f32.
    pub fn adamw(learning_rate: f64, weight_decay: f64, betas: [f64; 2], epsilon: f64, max_grad_norm: f64) -> Self {
        let algorithm = Algorithm::Adamw(AdamWSpec { betas, epsilon, moments: MomentType::F32 });
        Self { learning_rate, weight_decay, max_grad_norm, algorithm }
    }
}

fn f32_moments() -> MomentType {
    MomentType::F32
}

/// Settings that were stored while there was only AdamW name no type.
fn algorithm_or_adamw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Algorithm, D::Error> {
    let mut fields = serde_json::Map::deserialize(deserializer)?;
    fields.entry("type").or_insert_with(|| "adamw".into());
    serde_json::from_value(fields.into()).map_err(de::Error::custom)
}

named_enum!(
    /// Shape of the learning rate over the steps after the warm-up.
    ScheduleKind, "schedule" {
        /// Falls in a straight line to zero.
        Linear = "linear",
        /// Falls along half a cosine to zero: `0.5 * (1 + cos(pi * t))` (Loshchilov & Hutter 2017, one cycle).
        Cosine = "cosine",
        Constant = "constant",
        /// Warm-up, stable, decay (Hu et al. 2024): at its peak until the last part of the steps, and there down to zero.
        Wsd = "wsd",
    }
);

named_enum!(
    /// Shape of the last part of a `wsd` schedule, of which the share `t` is over.
    DecayType, "decay type" {
        /// `1 - t`.
        Linear = "linear",
        /// `0.5 * (1 + cos(pi * t))`.
        Cosine = "cosine",
        /// `1 - sqrt(t)` (Hägele et al. 2024).
        OneMinusSqrt = "1-sqrt",
    }
);

/// The last part of a `wsd` schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecaySpec {
    pub decay_type: DecayType,
    pub decay_ratio: f64,
    /// `ceil(decay_ratio * total_steps)`, at most the steps after the warm-up.
    pub decay_steps: u32,
}

/// A [`ScheduleKind`] with the settings it has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ScheduleShape {
    Linear,
    Cosine,
    Constant,
    Wsd(DecaySpec),
}

impl ScheduleShape {
    pub fn kind(&self) -> ScheduleKind {
        match self {
            Self::Linear => ScheduleKind::Linear,
            Self::Cosine => ScheduleKind::Cosine,
            Self::Constant => ScheduleKind::Constant,
            Self::Wsd(_) => ScheduleKind::Wsd,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleSpec {
    #[serde(flatten)]
    pub shape: ScheduleShape,
    pub warmup_ratio: f64,
    /// Steps of linear rise from zero: `ceil(warmup_ratio * total_steps)`.
    pub warmup_steps: u32,
}

/// A figure of the held-out rows that the choice of weights may go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldOutMetric {
    /// Lower is better.
    ValidLoss,
    /// Higher is better, as of all that follow.
    ValidMeanTokenAccuracy,
    /// The mean of the answers that are given during training; `valid_` before the metric's name.
    Text(TextMetric),
}

/// Stands before the name of a text metric where it is a series of a job.
pub const VALID_PREFIX: &str = "valid_";

impl HeldOutMetric {
    /// Whether a lower figure is the better one.
    pub fn lower_is_better(self) -> bool {
        self == Self::ValidLoss
    }
}

impl fmt::Display for HeldOutMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ValidLoss => f.write_str(metrics::VALID_LOSS),
            Self::ValidMeanTokenAccuracy => f.write_str(metrics::VALID_MEAN_TOKEN_ACCURACY),
            Self::Text(metric) => write!(f, "{VALID_PREFIX}{metric}"),
        }
    }
}

impl FromStr for HeldOutMetric {
    type Err = UnknownMetric;

    fn from_str(text: &str) -> Result<Self, UnknownMetric> {
        match text {
            metrics::VALID_LOSS => Ok(Self::ValidLoss),
            metrics::VALID_MEAN_TOKEN_ACCURACY => Ok(Self::ValidMeanTokenAccuracy),
            _ => {
                let metric = text.strip_prefix(VALID_PREFIX).and_then(|name| name.parse().ok());
                metric.map(Self::Text).ok_or_else(|| UnknownMetric(text.to_owned()))
            }
        }
    }
}

/// A name that is no figure of the held-out rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not `valid_loss`, `valid_mean_token_accuracy`, or `valid_` with the name of a text metric, such as `valid_rouge_l`"
)]
pub struct UnknownMetric(pub String);

impl Serialize for HeldOutMetric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HeldOutMetric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Training ends once the metric has not improved for `patience` evaluations in a row; whenever it ends, the weights of
/// the best evaluation are exported.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EarlyStoppingSpec {
    #[schema(value_type = String)]
    pub metric: HeldOutMetric,
    /// Evaluations.
    pub patience: u32,
    /// A change of no more than this is no improvement.
    pub min_delta: f64,
}

/// The mean of the trained tensors at the last checkpoints is evaluated and exported in place of the last one's (LAWA:
/// Kaddour 2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WeightAveragingSpec {
    pub last_checkpoints: u32,
}

impl WeightAveragingSpec {
    /// Steps whose weights are averaged, in order: the last of those after which a checkpoint is due.
    pub fn steps(self, checkpoint_every: u32, total_steps: u32) -> Vec<u32> {
        let due = (1..=total_steps).rev().filter(|step| step.is_multiple_of(checkpoint_every) || *step == total_steps);
        let mut steps: Vec<u32> = due.take(self.last_checkpoints as usize).collect();
        steps.reverse();
        steps
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_of_before_there_were_types_are_adamws() {
        let stored = json!({
            "learning_rate": 1e-3, "weight_decay": 0.1, "betas": [0.9, 0.95], "epsilon": 1e-8, "max_grad_norm": 2.0
        });
        let spec: OptimizerSpec = serde_json::from_value(stored).unwrap();
        assert_eq!(spec, OptimizerSpec::adamw(1e-3, 0.1, [0.9, 0.95], 1e-8, 2.0));
        let schedule: ScheduleSpec =
            serde_json::from_value(json!({"type": "cosine", "warmup_ratio": 0.5, "warmup_steps": 3})).unwrap();
        assert_eq!(schedule.shape, ScheduleShape::Cosine);
    }

    #[test]
    fn every_optimiser_lies_flat_and_comes_back() {
        let rest = AdamWSpec { betas: [0.9, 0.95], epsilon: 1e-8, moments: MomentType::Blocks8Bit };
        let muon =
            MuonSpec { momentum: 0.95, nesterov: true, newton_schulz_steps: 5, scale: MuonScale::Original, rest };
        let adafactor =
            AdafactorSpec { beta2_decay: -0.8, epsilon: 1e-7, epsilon_scale: 1e-3, clipping_threshold: 1.0 };
        let sgd = SgdSpec { momentum: 0.9, nesterov: false };
        for (algorithm, name, fields) in [
            (Algorithm::Adamw(rest), "adamw", 7),
            (Algorithm::Adafactor(adafactor), "adafactor", 8),
            (Algorithm::Sgd(sgd), "sgd", 6),
            (Algorithm::Muon(muon), "muon", 11),
        ] {
            let spec = OptimizerSpec { algorithm, ..OptimizerSpec::adamw(1e-3, 0.0, [0.9, 0.999], 1e-8, 1.0) };
            let text = serde_json::to_value(&spec).unwrap();
            assert_eq!((&text["type"], text.as_object().unwrap().len()), (&json!(name), fields), "{text}");
            assert_eq!(serde_json::from_value::<OptimizerSpec>(text).unwrap(), spec);
        }
    }

    #[test]
    fn the_last_checkpoints_are_known_beforehand() {
        let steps = |last_checkpoints, every, total| WeightAveragingSpec { last_checkpoints }.steps(every, total);
        assert_eq!(steps(3, 4, 10), [4, 8, 10]);
        assert_eq!(steps(2, 5, 10), [5, 10]);
        assert_eq!(steps(9, 5, 11), [5, 10, 11]);
    }
}
