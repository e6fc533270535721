//! Optimiser, schedule and the choice of weights as a client asks for them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::FieldError,
    objective::ObjectiveSpec,
    optimization::{DecayType, HeldOutMetric, MomentType, MuonScale, ScheduleKind},
    request::{Auto, AutoNumber, CreateJobRequest, range, require},
    resolve_optimization::check_text_metric,
    status::named_enum,
};

named_enum!(
    OptimizerKind, "optimizer" {
        AdamW = "adamw",
        Adafactor = "adafactor",
        Sgd = "sgd",
        /// For the matrices of the layers; AdamW for the rest.
        Muon = "muon",
    }
);

use OptimizerKind::{Adafactor, AdamW, Muon, Sgd};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OptimizerRequest {
    /// Default `adamw`.
    #[serde(rename = "type")]
    pub kind: Option<OptimizerKind>,
    /// Absolute peak learning rate; not together with `learning_rate_multiplier`.
    #[schema(value_type = Option<AutoNumber>)]
    pub learning_rate: Option<Auto<f64>>,
    /// 0 to 1; default 0.
    pub weight_decay: Option<f64>,
    /// Default 1.
    pub max_grad_norm: Option<f64>,
    /// `adamw` and `muon`: default `[0.9, 0.999]`.
    pub betas: Option<[f64; 2]>,
    /// Default 1e-8; of `adafactor`, 1.1920929e-7.
    pub epsilon: Option<f64>,
    /// `adamw` and `muon`: default `f32`.
    pub moments: Option<MomentType>,
    /// `sgd` and `muon`: 0 or more, below 1; default 0.9 and 0.95.
    pub momentum: Option<f64>,
    /// `sgd` and `muon`: default false and true.
    pub nesterov: Option<bool>,
    /// `muon`: 1 to 20; default 5.
    pub newton_schulz_steps: Option<u32>,
    /// `muon`: default `match_rms_adamw`.
    pub scale: Option<MuonScale>,
    /// `adafactor`: -1 up to below 0; default -0.8.
    pub beta2_decay: Option<f64>,
    /// `adafactor`: above 0 and at most 1; default 0.001.
    pub epsilon_scale: Option<f64>,
    /// `adafactor`: 1 or more; default 1.
    pub clipping_threshold: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    #[serde(rename = "type")]
    pub kind: Option<ScheduleKind>,
    /// Share of the steps that raise the learning rate from zero (0 or more, below 1).
    pub warmup_ratio: Option<f64>,
    /// `wsd`: share of the steps, the last ones, that lower it to zero (above 0; with `warmup_ratio` at most 1); default 0.1.
    pub decay_ratio: Option<f64>,
    /// `wsd`: default `cosine`.
    pub decay_type: Option<DecayType>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStoppingRequest {
    /// Default `valid_loss`.
    #[schema(value_type = Option<String>)]
    pub metric: Option<HeldOutMetric>,
    /// Evaluations without an improvement after which training ends, 1 to 1000; default 3.
    pub patience: Option<u32>,
    /// 0 or more; default 0.
    pub min_delta: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightAveragingRequest {
    /// 2 to 100, and no more than the job makes.
    pub last_checkpoints: u32,
}

impl OptimizerRequest {
    pub(crate) fn kind(&self) -> OptimizerKind {
        self.kind.unwrap_or(AdamW)
    }

    fn check(&self) -> Result<(), FieldError> {
        self.check_fields_of_kind()?;
        let rate = self.learning_rate.and_then(Auto::value);
        require(rate.is_none_or(|rate| rate > 0.0 && rate <= 1.0), "optimizer.learning_rate", "above 0 and at most 1")?;
        range(self.weight_decay, "optimizer.weight_decay", 0.0, 1.0)?;
        let betas = self.betas.unwrap_or_default();
        require(
            betas.iter().all(|beta| (0.0..1.0).contains(beta)),
            "optimizer.betas",
            "two numbers, each 0 or more and below 1",
        )?;
        for (value, field) in [(self.epsilon, "optimizer.epsilon"), (self.epsilon_scale, "optimizer.epsilon_scale")] {
            require(value.is_none_or(|e| e > 0.0 && e <= 1.0), field, "above 0 and at most 1")?;
        }
        let norm = self.max_grad_norm;
        require(norm.is_none_or(|n| n > 0.0 && n <= 1e6), "optimizer.max_grad_norm", "above 0 and at most 1000000")?;
        let momentum = self.momentum;
        require(momentum.is_none_or(|m| (0.0..1.0).contains(&m)), "optimizer.momentum", "0 or more and below 1")?;
        require(
            self.nesterov != Some(true) || momentum != Some(0.0),
            "optimizer.nesterov",
            "false where `optimizer.momentum` is 0",
        )?;
        range(self.newton_schulz_steps, "optimizer.newton_schulz_steps", 1, 20)?;
        let decay = self.beta2_decay;
        require(decay.is_none_or(|d| (-1.0..0.0).contains(&d)), "optimizer.beta2_decay", "-1 or more and below 0")?;
        range(self.clipping_threshold, "optimizer.clipping_threshold", 1.0, 1e6)
    }

    /// Refuses what the chosen optimiser has no use for.
    fn check_fields_of_kind(&self) -> Result<(), FieldError> {
        let fields: [(bool, &str, &[OptimizerKind]); 10] = [
            (self.betas.is_some(), "betas", &[AdamW, Muon]),
            (self.epsilon.is_some(), "epsilon", &[AdamW, Muon, Adafactor]),
            (self.moments.is_some(), "moments", &[AdamW, Muon]),
            (self.momentum.is_some(), "momentum", &[Sgd, Muon]),
            (self.nesterov.is_some(), "nesterov", &[Sgd, Muon]),
            (self.newton_schulz_steps.is_some(), "newton_schulz_steps", &[Muon]),
            (self.scale.is_some(), "scale", &[Muon]),
            (self.beta2_decay.is_some(), "beta2_decay", &[Adafactor]),
            (self.epsilon_scale.is_some(), "epsilon_scale", &[Adafactor]),
            (self.clipping_threshold.is_some(), "clipping_threshold", &[Adafactor]),
        ];
        let kind = self.kind();
        for (given, field, kinds) in fields {
            let names: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            let rule = format!("absent: `optimizer.type` is `{kind}`, and only {} has it", names.join(" or "));
            require(!given || kinds.contains(&kind), &format!("optimizer.{field}"), &rule)?;
        }
        Ok(())
    }
}

impl ScheduleRequest {
    fn check(&self) -> Result<(), FieldError> {
        let warmup = self.warmup_ratio.unwrap_or(0.0);
        require((0.0..1.0).contains(&warmup), "schedule.warmup_ratio", "0 or more and below 1")?;
        let is_wsd = self.kind == Some(ScheduleKind::Wsd);
        let only = "absent where `schedule.type` is not `wsd`";
        require(is_wsd || self.decay_ratio.is_none(), "schedule.decay_ratio", only)?;
        require(is_wsd || self.decay_type.is_none(), "schedule.decay_type", only)?;
        require(
            self.decay_ratio.is_none_or(|decay| decay > 0.0 && decay + warmup <= 1.0),
            "schedule.decay_ratio",
            "above 0, and together with `schedule.warmup_ratio` at most 1",
        )
    }
}

impl CreateJobRequest {
    /// Optimiser, schedule, and what is done beside them.
    pub(crate) fn check_optimization(&self) -> Result<(), FieldError> {
        let multiplier = self.chosen_learning_rate_multiplier()?;
        let multiplier_param = "method.supervised.hyperparameters.learning_rate_multiplier";
        require(multiplier.is_none_or(|m| m > 0.0 && m <= 1000.0), multiplier_param, "above 0 and at most 1000")?;
        if let Some(optimizer) = &self.optimizer {
            optimizer.check()?;
            require(
                optimizer.learning_rate.and_then(Auto::value).is_none() || multiplier.is_none(),
                "optimizer.learning_rate",
                "absent where a learning_rate_multiplier is given",
            )?;
        }
        if let Some(schedule) = &self.schedule {
            schedule.check()?;
        }
        range(self.neftune_noise_alpha, "neftune_noise_alpha", 0.0, 1000.0)?;
        let smoothing = self.label_smoothing.unwrap_or(0.0);
        require((0.0..1.0).contains(&smoothing), "label_smoothing", "0 or more and below 1")?;
        require(
            smoothing == 0.0 || self.objective() == ObjectiveSpec::Supervised,
            "label_smoothing",
            "0 where `method.type` is `dpo`, whose `label_smoothing` is one of its `hyperparameters`",
        )?;
        if let Some(EarlyStoppingRequest { metric, patience, min_delta }) = &self.early_stopping {
            if let Some(HeldOutMetric::Text(metric)) = metric {
                check_text_metric(*metric, &self.evaluation.clone().unwrap_or_default().resolve()?)?;
            }
            range(*patience, "early_stopping.patience", 1, 1000)?;
            range(*min_delta, "early_stopping.min_delta", 0.0, 1e6)?;
        }
        if let Some(WeightAveragingRequest { last_checkpoints }) = &self.weight_averaging {
            range(Some(*last_checkpoints), "weight_averaging.last_checkpoints", 2, 100)?;
            require(
                self.early_stopping.is_none(),
                "weight_averaging",
                "absent where `early_stopping` is given: that one exports the best weights",
            )?;
        }
        Ok(())
    }
}
