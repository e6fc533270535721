//! From what a client asks of optimiser and schedule to numbers. Defaults that are not ours are PyTorch's.

use crate::{
    error::FieldError,
    evaluation_spec::EvaluationSpec,
    optimization::{
        AdafactorSpec, AdamWSpec, Algorithm, DecaySpec, DecayType, EarlyStoppingSpec, HeldOutMetric, MomentType,
        MuonScale, MuonSpec, OptimizerSpec, ScheduleKind, ScheduleShape, ScheduleSpec, SgdSpec, WeightAveragingSpec,
    },
    optimization_request::{OptimizerKind, OptimizerRequest},
    request::{Auto, CreateJobRequest, require},
    resolve::default_learning_rate,
    spec::{DatasetFacts, TrainingSpec},
    text_metric::TextMetric,
    tuning::{AdapterSpec, TuningSpec},
};

const DEFAULT_PATIENCE: u32 = 3;

pub(crate) fn resolve_optimizer(request: &CreateJobRequest, tuning: &TuningSpec) -> Result<OptimizerSpec, FieldError> {
    let asked = request.optimizer.clone().unwrap_or_default();
    let algorithm = algorithm(&asked);
    let layers_have_matrices = match tuning {
        TuningSpec::Full { .. } | TuningSpec::Adapter(AdapterSpec::Lora(_)) => true,
        TuningSpec::Adapter(_) => false,
    };
    require(
        layers_have_matrices || !matches!(algorithm, Algorithm::Muon(_)),
        "optimizer.type",
        "another than `muon`: this method trains no matrix of a layer, which is all that Muon is for",
    )?;
    let multiplier = request.chosen_learning_rate_multiplier()?.unwrap_or(1.0);
    let by_default = default_learning_rate(tuning, request.objective(), &algorithm) * multiplier;
    Ok(OptimizerSpec {
        learning_rate: asked.learning_rate.and_then(Auto::value).unwrap_or(by_default),
        weight_decay: asked.weight_decay.unwrap_or(0.0),
        max_grad_norm: asked.max_grad_norm.unwrap_or(1.0),
        algorithm,
    })
}

fn algorithm(asked: &OptimizerRequest) -> Algorithm {
    let adamw = AdamWSpec {
        betas: asked.betas.unwrap_or([0.9, 0.999]),
        epsilon: asked.epsilon.unwrap_or(1e-8),
        moments: asked.moments.unwrap_or(MomentType::F32),
    };
    match asked.kind() {
        OptimizerKind::AdamW => Algorithm::Adamw(adamw),
        OptimizerKind::Adafactor => Algorithm::Adafactor(AdafactorSpec {
            beta2_decay: asked.beta2_decay.unwrap_or(-0.8),
            epsilon: asked.epsilon.unwrap_or(f32::EPSILON.into()),
            epsilon_scale: asked.epsilon_scale.unwrap_or(1e-3),
            clipping_threshold: asked.clipping_threshold.unwrap_or(1.0),
        }),
        OptimizerKind::Sgd => Algorithm::Sgd(SgdSpec {
            momentum: asked.momentum.unwrap_or(0.9),
            nesterov: asked.nesterov.unwrap_or(false),
        }),
        OptimizerKind::Muon => Algorithm::Muon(MuonSpec {
            momentum: asked.momentum.unwrap_or(0.95),
            nesterov: asked.nesterov.unwrap_or(asked.momentum != Some(0.0)),
            newton_schulz_steps: asked.newton_schulz_steps.unwrap_or(5),
            scale: asked.scale.unwrap_or(MuonScale::MatchRmsAdamw),
            rest: adamw,
        }),
    }
}

pub(crate) fn resolve_schedule(request: &CreateJobRequest, total_steps: u32) -> ScheduleSpec {
    let asked = request.schedule.clone().unwrap_or_default();
    let steps = |ratio: f64| (ratio * f64::from(total_steps)).ceil() as u32;
    let warmup_ratio = asked.warmup_ratio.unwrap_or(0.03);
    let warmup_steps = steps(warmup_ratio);
    let shape = match asked.kind.unwrap_or(ScheduleKind::Cosine) {
        ScheduleKind::Linear => ScheduleShape::Linear,
        ScheduleKind::Cosine => ScheduleShape::Cosine,
        ScheduleKind::Constant => ScheduleShape::Constant,
        ScheduleKind::Wsd => {
            let decay_ratio = asked.decay_ratio.unwrap_or(0.1_f64.min(1.0 - warmup_ratio));
            ScheduleShape::Wsd(DecaySpec {
                decay_type: asked.decay_type.unwrap_or(DecayType::Cosine),
                decay_ratio,
                decay_steps: steps(decay_ratio).min(total_steps.saturating_sub(warmup_steps)),
            })
        }
    };
    ScheduleSpec { shape, warmup_ratio, warmup_steps }
}

pub(crate) fn resolve_early_stopping(
    request: &CreateJobRequest,
    dataset: &DatasetFacts,
) -> Result<Option<EarlyStoppingSpec>, FieldError> {
    let Some(asked) = &request.early_stopping else { return Ok(None) };
    require(
        dataset.held_out_rows > 0,
        "early_stopping",
        "absent: no row is held out to measure by; give a `validation_file` or a larger `eval_fraction`",
    )?;
    Ok(Some(EarlyStoppingSpec {
        metric: asked.metric.unwrap_or(HeldOutMetric::ValidLoss),
        patience: asked.patience.unwrap_or(DEFAULT_PATIENCE),
        min_delta: asked.min_delta.unwrap_or(0.0),
    }))
}

/// That the answers during training have the figure.
pub(crate) fn check_text_metric(metric: TextMetric, evaluation: &EvaluationSpec) -> Result<(), FieldError> {
    let param = "early_stopping.metric";
    let refuse = |why: &str| Err(FieldError::new(param, format!("`{param}`: `valid_{metric}` {why}")));
    match metric {
        _ if evaluation.during_training.is_none() => {
            refuse("is a figure of answers during training; ask for them with `evaluation.during_training`")
        }
        _ if metric.needs_encoder() => {
            refuse("takes a text encoder, which training does not have; choose another metric")
        }
        TextMetric::JsonValid => refuse("says nothing of answers that need not be JSON; choose another metric"),
        _ if !evaluation.metrics.contains(&metric) => {
            refuse("is not computed; name the metric in `evaluation.metrics`, too")
        }
        _ => Ok(()),
    }
}

/// The averaging that was asked for; `spec` has the rhythm of checkpoints.
pub(crate) fn resolve_weight_averaging(
    request: &CreateJobRequest,
    spec: &TrainingSpec,
) -> Result<Option<WeightAveragingSpec>, FieldError> {
    let Some(asked) = &request.weight_averaging else { return Ok(None) };
    let averaging = WeightAveragingSpec { last_checkpoints: asked.last_checkpoints };
    let made = spec.total_steps.div_ceil(spec.checkpoint_every);
    let rule = format!("at most {made}, the checkpoints that this job makes; lower `checkpoint_every` for more");
    require(asked.last_checkpoints <= made, "weight_averaging.last_checkpoints", &rule)?;
    Ok(Some(averaging))
}
