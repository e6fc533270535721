//! From a request to settings without an `auto`, in two steps: what is needed to prepare the rows, then the rest, once
//! the rows are counted.

use crate::{
    error::FieldError,
    export,
    objective::ObjectiveSpec,
    optimization::{Algorithm, MuonScale},
    request::{Auto, CreateJobRequest},
    resolve_optimization::{resolve_early_stopping, resolve_optimizer, resolve_schedule, resolve_weight_averaging},
    spec::{AnswersSpec, DatasetFacts, ModelFacts, PreparationSpec, RowsSpec, TemplateSpec, TrainingSpec},
    tuning::{AdapterSpec, TuningSpec},
};

/// Learning rate of LoRA where nothing else is asked for.
const LORA_LEARNING_RATE: f64 = 2e-4;
/// All weights move at once, so each must move less.
const FULL_LEARNING_RATE: f64 = 2e-5;
/// That of the (IA)³ paper.
const IA3_LEARNING_RATE: f64 = 3e-3;
/// A few rows must reach through all layers; what peft's examples use.
const PROMPT_LEARNING_RATE: f64 = 3e-2;
const PREFIX_LEARNING_RATE: f64 = 1e-2;
/// Not a method's own, but an optimiser's; the first two are PyTorch's.
const ADAFACTOR_LEARNING_RATE: f64 = 1e-2;
const MUON_LEARNING_RATE: f64 = 1e-3;
const SGD_LEARNING_RATE: f64 = 1e-2;
const DEFAULT_BATCH_SIZE: u32 = 8;
const DEFAULT_N_EPOCHS: u32 = 3;
const DEFAULT_EVAL_FRACTION: f64 = 0.1;
/// Longest row by default, however long the model's context is.
const DEFAULT_MAX_SEQ_LEN: u32 = 2048;
/// A micro-batch is filled up to about so many tokens where the client leaves its size to us.
const MICRO_BATCH_TOKENS: u32 = 2048;
/// The one seed by which files are split, so that a file splits the same way in every job.
const SPLIT_SEED: u64 = 0;

/// What must be known before the rows can be prepared.
///
/// # Errors
/// A template or a length that this model cannot serve.
pub fn resolve_preparation(
    request: &CreateJobRequest,
    tuning: &TuningSpec,
    model: &ModelFacts,
) -> Result<PreparationSpec, FieldError> {
    let template = match request.chosen_template()? {
        Some(TemplateSpec::Chat) if !model.has_chat_template => {
            return Err(FieldError::new(
                "template",
                "this base model has no chat template; use `alpaca` or give a Jinja text",
            ));
        }
        Some(template) => template,
        None if model.has_chat_template => TemplateSpec::Chat,
        None => TemplateSpec::Alpaca,
    };
    // Rows of an adapter's own stand before each document, within the context.
    let virtual_tokens = match tuning {
        TuningSpec::Adapter(adapter) => adapter.num_virtual_tokens(),
        TuningSpec::Full { .. } => 0,
    };
    let most = model.context_length.saturating_sub(virtual_tokens);
    let max_seq_len = match request.max_seq_len.and_then(Auto::value) {
        Some(asked) if asked > most => {
            let less = if virtual_tokens == 0 { "" } else { " less `num_virtual_tokens`" };
            return Err(FieldError::new(
                "max_seq_len",
                format!("`max_seq_len` must be at most {most}, the context length of this model{less}; it is {asked}"),
            ));
        }
        Some(asked) => asked,
        None => most.min(DEFAULT_MAX_SEQ_LEN),
    };
    let eval_fraction = match &request.validation_file {
        Some(_) => 0.0,
        None => request.eval_fraction.unwrap_or(DEFAULT_EVAL_FRACTION),
    };
    Ok(PreparationSpec {
        template,
        max_seq_len,
        train_on_prompt: request.train_on_prompt.unwrap_or(false),
        eval_fraction,
        split_seed: SPLIT_SEED,
        rows: RowsSpec {
            training: request.training_reading.clone().unwrap_or_default(),
            validation: request.validation_reading.clone().unwrap_or_default(),
            invalid_row_tolerance: request.invalid_row_tolerance.unwrap_or(0.0),
        },
    })
}

/// Everything, once the rows are counted. `request.seed` must have been drawn.
///
/// # Errors
/// Settings that this model or dataset cannot meet.
pub fn resolve(
    request: &CreateJobRequest,
    preparation: PreparationSpec,
    tuning: TuningSpec,
    dataset: &DatasetFacts,
) -> Result<TrainingSpec, FieldError> {
    let rows = u32::try_from(dataset.train_rows).unwrap_or(u32::MAX).max(1);
    let batch_size = request.chosen_batch_size()?.unwrap_or(DEFAULT_BATCH_SIZE).min(rows);
    let steps_per_epoch = rows.div_ceil(batch_size);
    let (n_epochs, total_steps) = match request.max_steps {
        Some(steps) => (steps.div_ceil(steps_per_epoch), steps),
        None => {
            let n_epochs = request.chosen_n_epochs()?.unwrap_or(DEFAULT_N_EPOCHS);
            (n_epochs, n_epochs.saturating_mul(steps_per_epoch))
        }
    };
    let micro_batch_size = match request.micro_batch_size.and_then(Auto::value) {
        Some(asked) => asked.min(batch_size),
        None => micro_batch_size_of(batch_size, dataset.longest_row_tokens),
    };
    let every =
        |asked: Option<Auto<u32>>| asked.and_then(Auto::value).unwrap_or(total_steps.div_ceil(5)).clamp(1, total_steps);
    let spec = TrainingSpec {
        preparation,
        objective: request.objective(),
        optimizer: resolve_optimizer(request, &tuning)?,
        tuning,
        base_precision: request.base_precision.unwrap_or_default(),
        continue_from: continued(request),
        schedule: resolve_schedule(request, total_steps),
        neftune_noise_alpha: request.neftune_noise_alpha.unwrap_or(0.0),
        label_smoothing: request.label_smoothing.unwrap_or(0.0),
        early_stopping: resolve_early_stopping(request, dataset)?,
        weight_averaging: None,
        batch_size,
        micro_batch_size,
        n_epochs,
        total_steps,
        evaluate_every: every(request.evaluate_every),
        checkpoint_every: every(request.checkpoint_every),
        seed: request.seed.unwrap_or(0),
        answers: resolve_answers(request),
        evaluation: request.evaluation.clone().unwrap_or_default().resolve()?,
        export: export::in_order(request.export.as_deref().unwrap_or_default()),
    };
    Ok(TrainingSpec { weight_averaging: resolve_weight_averaging(request, &spec)?, ..spec })
}

/// Rows to compute at once where nobody chose: many short ones, few long ones.
pub fn micro_batch_size_of(batch_size: u32, longest_row_tokens: u32) -> u32 {
    (MICRO_BATCH_TOKENS / longest_row_tokens.max(1)).clamp(1, batch_size.max(1))
}

/// Peak learning rate of a method, an objective and an optimiser where nothing else is asked for.
pub fn default_learning_rate(tuning: &TuningSpec, objective: ObjectiveSpec, algorithm: &Algorithm) -> f64 {
    let of_optimizer = match algorithm {
        Algorithm::Adafactor(_) => Some(ADAFACTOR_LEARNING_RATE),
        Algorithm::Sgd(_) => Some(SGD_LEARNING_RATE),
        Algorithm::Muon(muon) if muon.scale == MuonScale::Original => Some(MUON_LEARNING_RATE),
        Algorithm::Adamw(_) | Algorithm::Muon(_) => None,
    };
    let of_method = match tuning {
        TuningSpec::Full { .. } => FULL_LEARNING_RATE,
        TuningSpec::Adapter(AdapterSpec::Lora(_)) => LORA_LEARNING_RATE,
        TuningSpec::Adapter(AdapterSpec::Ia3(_)) => IA3_LEARNING_RATE,
        TuningSpec::Adapter(AdapterSpec::PromptTuning(_)) => PROMPT_LEARNING_RATE,
        TuningSpec::Adapter(AdapterSpec::PrefixTuning(_)) => PREFIX_LEARNING_RATE,
    };
    of_optimizer.unwrap_or(of_method) * objective.learning_rate_factor()
}

/// The job or the uploaded file that training goes on from.
fn continued(request: &CreateJobRequest) -> Option<String> {
    let file = || request.continue_from_files.as_ref().map(|files| files.adapter_model.clone());
    request.continue_from.clone().or_else(file)
}

/// Which held-out prompts are answered, and how long.
pub fn resolve_answers(request: &CreateJobRequest) -> AnswersSpec {
    let asked = request.answers.clone().unwrap_or_default();
    AnswersSpec { rows: asked.rows.unwrap_or(64), max_new_tokens: asked.max_new_tokens.unwrap_or(128) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{resolve_tuning::resolve_tuning, spec::LinearModule, tuning::LoraSpec};
    use serde_json::json;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn model() -> ModelFacts {
        let module = |name: &str| LinearModule { name: name.into(), in_features: 8, out_features: 8 };
        ModelFacts {
            architecture: "llama".into(),
            parameters: 1000,
            layers: 2,
            hidden_size: 8,
            vocab_size: 32,
            context_length: 512,
            linear_modules: ["q_proj", "k_proj", "q_proj", "down_proj"].map(module).into(),
            fixed_modules: Vec::new(),
            has_chat_template: true,
        }
    }

    fn dataset(rows: u64) -> DatasetFacts {
        DatasetFacts {
            train_rows: rows,
            held_out_rows: 5,
            train_tokens: 900,
            train_supervised_tokens: 400,
            longest_row_tokens: 600,
            truncated_rows: 0,
            dropped_rows: 0,
        }
    }

    fn request(extra: serde_json::Value) -> Result<CreateJobRequest, Box<dyn std::error::Error>> {
        let mut body = json!({"model": "m", "training_file": "file-1"});
        if let (Some(body), Some(extra)) = (body.as_object_mut(), extra.as_object()) {
            body.extend(extra.clone());
        }
        Ok(serde_json::from_value(body)?)
    }

    fn spec(extra: serde_json::Value) -> Result<TrainingSpec, Box<dyn std::error::Error>> {
        let request = request(extra)?;
        request.check()?;
        let tuning = resolve_tuning(&request, &model(), None)?;
        let preparation = resolve_preparation(&request, &tuning, &model())?;
        Ok(resolve(&request, preparation, tuning, &dataset(20))?)
    }

    fn refusal(extra: serde_json::Value) -> String {
        spec(extra).map(|_| String::new()).unwrap_or_else(|error| match error.downcast::<FieldError>() {
            Ok(field) => field.param,
            Err(other) => other.to_string(),
        })
    }

    #[test]
    fn every_auto_becomes_a_number() -> Outcome {
        let spec = spec(json!({}))?;
        assert_eq!((spec.batch_size, spec.n_epochs, spec.total_steps), (8, 3, 9));
        assert_eq!((spec.micro_batch_size, spec.evaluate_every, spec.preparation.max_seq_len), (3, 2, 512));
        let targets = ["q_proj", "k_proj", "down_proj"].map(str::to_owned);
        assert_eq!(spec.tuning.lora(), Some(&LoraSpec::plain(16, 32.0, targets.into())));
        assert_eq!(spec.schedule.warmup_steps, 1);
        Ok(())
    }

    #[test]
    fn openai_and_own_spellings_meet() -> Outcome {
        let nested = spec(
            json!({"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5}}}}),
        )?;
        assert_eq!((nested.n_epochs, nested.total_steps, nested.optimizer.learning_rate), (2, 6, 1e-4));
        let full = spec(json!({"full": {}, "hyperparameters": {"learning_rate_multiplier": 0.5}}))?;
        assert_eq!(full.optimizer.learning_rate, 1e-5);
        let dpo =
            spec(json!({"method": {"type": "dpo", "dpo": {"hyperparameters": {"learning_rate_multiplier": 2}}}}))?;
        assert!((dpo.optimizer.learning_rate - 4e-5).abs() < 1e-18);
        let steps = spec(json!({"max_steps": 4, "batch_size": 10, "optimizer": {"learning_rate": 0.01}}))?;
        assert_eq!((steps.n_epochs, steps.total_steps, steps.optimizer.learning_rate), (2, 4, 0.01));
        Ok(())
    }

    #[test]
    fn refusals_name_the_field() {
        for (extra, param) in [
            (json!({"lora": {"r": 0}}), "lora.r"),
            (json!({"lora": {"target_modules": ["w_pack"]}}), "lora.target_modules"),
            (json!({"lora": {"target_modules": "all"}}), "lora.target_modules"),
            (json!({"lora": {"dropout": 1.0}}), "lora.dropout"),
            (json!({"lora": {"rank_pattern": {"w_pack": 4}}}), "lora.rank_pattern"),
            (json!({"lora": {"rank_pattern": {".*q_proj": 4}}}), "lora.rank_pattern"),
            (json!({"lora": {"rank_pattern": {"q_proj": 0}}}), "lora.rank_pattern"),
            (json!({"lora": {"alpha_pattern": {"v_proj": 4}}}), "lora.alpha_pattern"),
            (json!({"lora": {"alpha_pattern": {"q_proj": 0}}}), "lora.alpha_pattern"),
            (json!({"lora": {"layers_to_transform": []}}), "lora.layers_to_transform"),
            (json!({"lora": {"layers_to_transform": [2]}}), "lora.layers_to_transform"),
            (json!({"lora": {"modules_to_save": ["norm"]}}), "lora.modules_to_save"),
            (json!({"lora": {"trainable_token_indices": [32]}}), "lora.trainable_token_indices"),
            (
                json!({"lora": {"trainable_token_indices": [3], "modules_to_save": ["embed_tokens"]}}),
                "lora.trainable_token_indices",
            ),
            (json!({"lora": {"init": "pissa", "r": 9}}), "lora.r"),
            (json!({"lora": {"init": "pissa", "r": 4, "rank_pattern": {"q_proj": 9}}}), "lora.r"),
            (json!({"lora": {"init": "pissa", "r": 4, "use_dora": true}}), "lora.init"),
            (json!({"lora": {"loraplus_lr_ratio": 0.5}}), "lora.loraplus_lr_ratio"),
            (json!({"lora": {}, "full": {}}), "full"),
            (json!({"ia3": {}, "prefix_tuning": {}}), "prefix_tuning"),
            (json!({"full": {"last_layers": 0}}), "full.last_layers"),
            (json!({"full": {"last_layers": 3}}), "full.last_layers"),
            (json!({"ia3": {"target_modules": []}}), "ia3.target_modules"),
            (json!({"ia3": {"target_modules": ["fc1"]}}), "ia3.target_modules"),
            (
                json!({"ia3": {"target_modules": ["k_proj"], "feedforward_modules": ["down_proj"]}}),
                "ia3.feedforward_modules",
            ),
            (json!({"prompt_tuning": {"num_virtual_tokens": 0}}), "prompt_tuning.num_virtual_tokens"),
            (json!({"prefix_tuning": {"num_virtual_tokens": 512}}), "prefix_tuning.num_virtual_tokens"),
            (json!({"continue_from": "ft:m:x", "lora": {}}), "lora"),
            (json!({"continue_from_files": {"adapter_config": "a", "adapter_model": "b"}, "ia3": {}}), "ia3"),
            (
                json!({"continue_from_files": {"adapter_config": "a", "adapter_model": "b"}, "continue_from": "ft:m:x"}),
                "continue_from_files",
            ),
            (json!({"n_epochs": 2, "hyperparameters": {"n_epochs": 3}}), "hyperparameters.n_epochs"),
            (json!({"full": {}, "base_precision": "nf4"}), "base_precision"),
            (json!({"n_epochs": 2, "max_steps": 3}), "max_steps"),
            (json!({"method": {"type": "reinforcement"}}), "method.type"),
            (json!({"max_seq_len": 1000}), "max_seq_len"),
            (json!({"max_seq_len": 500, "prompt_tuning": {"num_virtual_tokens": 13}}), "max_seq_len"),
            (json!({"eval_fraction": 0.9}), "eval_fraction"),
            (json!({"template": "vicuna"}), "template"),
            (json!({"suffix": "a b"}), "suffix"),
            (json!({"batch_size": 4, "micro_batch_size": 5}), "micro_batch_size"),
            (
                json!({"optimizer": {"learning_rate": 0.1}, "hyperparameters": {"learning_rate_multiplier": 2}}),
                "optimizer.learning_rate",
            ),
            (json!({"integrations": [{"type": "wandb"}]}), "integrations"),
            (json!({"schedule": {"warmup_ratio": 1}}), "schedule.warmup_ratio"),
            (json!({"schedule": {"type": "linear", "decay_ratio": 0.5}}), "schedule.decay_ratio"),
            (json!({"schedule": {"decay_type": "linear"}}), "schedule.decay_type"),
            (json!({"schedule": {"type": "wsd", "decay_ratio": 0}}), "schedule.decay_ratio"),
            (json!({"schedule": {"type": "wsd", "warmup_ratio": 0.5, "decay_ratio": 0.6}}), "schedule.decay_ratio"),
            (json!({"optimizer": {"momentum": 0.9}}), "optimizer.momentum"),
            (json!({"optimizer": {"type": "sgd", "betas": [0.9, 0.9]}}), "optimizer.betas"),
            (json!({"optimizer": {"type": "sgd", "moments": "bf16"}}), "optimizer.moments"),
            (json!({"optimizer": {"type": "sgd", "epsilon": 1e-8}}), "optimizer.epsilon"),
            (json!({"optimizer": {"type": "sgd", "momentum": 1}}), "optimizer.momentum"),
            (json!({"optimizer": {"type": "sgd", "momentum": 0, "nesterov": true}}), "optimizer.nesterov"),
            (json!({"optimizer": {"nesterov": true}}), "optimizer.nesterov"),
            (json!({"optimizer": {"newton_schulz_steps": 5}}), "optimizer.newton_schulz_steps"),
            (json!({"optimizer": {"type": "muon", "newton_schulz_steps": 0}}), "optimizer.newton_schulz_steps"),
            (json!({"optimizer": {"scale": "original"}}), "optimizer.scale"),
            (json!({"optimizer": {"beta2_decay": -0.8}}), "optimizer.beta2_decay"),
            (json!({"optimizer": {"type": "adafactor", "beta2_decay": 0}}), "optimizer.beta2_decay"),
            (json!({"optimizer": {"epsilon_scale": 0.1}}), "optimizer.epsilon_scale"),
            (json!({"optimizer": {"type": "adafactor", "epsilon_scale": 0}}), "optimizer.epsilon_scale"),
            (json!({"optimizer": {"type": "adafactor", "clipping_threshold": 0.5}}), "optimizer.clipping_threshold"),
            (json!({"optimizer": {"type": "muon", "clipping_threshold": 2}}), "optimizer.clipping_threshold"),
            (json!({"optimizer": {"type": "muon"}, "ia3": {}}), "optimizer.type"),
            (json!({"neftune_noise_alpha": -1}), "neftune_noise_alpha"),
            (json!({"label_smoothing": 1}), "label_smoothing"),
            (json!({"early_stopping": {"patience": 0}}), "early_stopping.patience"),
            (json!({"early_stopping": {"min_delta": -0.1}}), "early_stopping.min_delta"),
            (json!({"weight_averaging": {"last_checkpoints": 1}}), "weight_averaging.last_checkpoints"),
            (
                json!({"weight_averaging": {"last_checkpoints": 4}, "max_steps": 6, "checkpoint_every": 2}),
                "weight_averaging.last_checkpoints",
            ),
            (json!({"weight_averaging": {"last_checkpoints": 2}, "early_stopping": {}}), "weight_averaging"),
            (json!({"early_stopping": {"metric": "valid_rouge_l"}}), "early_stopping.metric"),
            (
                json!({"early_stopping": {"metric": "valid_bleu"}, "evaluation": {"metrics": ["chrf"], "during_training": {}}}),
                "early_stopping.metric",
            ),
            (
                json!({"early_stopping": {"metric": "valid_embedding_cosine"}, "evaluation": {"during_training": {}}}),
                "early_stopping.metric",
            ),
            (json!({"evaluation": {"during_training": {"rows": 65}}}), "evaluation.during_training.rows"),
            (json!({"evaluation": {"judge": {"votes": 2}}}), "evaluation.judge.votes"),
            (json!({"evaluation": {"metrics": ["rouge_l", "meteor"]}}), "evaluation.metrics"),
            (json!({"evaluation": {"thresholds": {"copied_share": 2}}}), "evaluation.thresholds.copied_share"),
            (json!({"evaluation": {"patterns": [{"name": "empty", "pattern": "x"}]}}), "evaluation.patterns"),
        ] {
            assert_eq!(refusal(extra.clone()), param, "{extra}");
        }
        for unknown in [
            json!({"optimizer": {"type": "lion"}}),
            json!({"optimizer": {"moments": "4bit"}}),
            json!({"schedule": {"type": "polynomial"}}),
            json!({"schedule": {"decay_type": "step"}}),
        ] {
            assert!(refusal(unknown.clone()).contains("unknown variant"), "{unknown}: {}", refusal(unknown.clone()));
        }
        for (metric, words) in [("train_loss", "is not `valid_loss`"), ("valid_meteor", "such as `valid_rouge_l`")] {
            let refused = refusal(json!({"early_stopping": {"metric": metric}}));
            assert!(refused.contains(words), "{refused}");
        }
        assert!(refusal(json!({"weight_averaging": {}})).contains("`last_checkpoints`"));
        assert!(refusal(json!({"base_precision": "int4"})).contains("unknown variant `int4`"));
        assert!(refusal(json!({"lora": {"rank": 8}})).contains("unknown field `rank`"));
        assert!(refusal(json!({"n_epochs": "many"})).contains("\"auto\" or a number"));
    }

    #[test]
    fn each_optimiser_and_schedule_has_its_defaults() -> Outcome {
        let optimizer = |extra| Ok::<_, Box<dyn std::error::Error>>(serde_json::to_value(spec(extra)?.optimizer)?);
        let adamw = json!({"learning_rate": 2e-4, "weight_decay": 0.0, "max_grad_norm": 1.0, "type": "adamw",
            "betas": [0.9, 0.999], "epsilon": 1e-8, "moments": "f32"});
        assert_eq!(optimizer(json!({}))?, adamw);
        let muon = optimizer(json!({"optimizer": {"type": "muon", "moments": "8bit"}}))?;
        assert_eq!(
            muon,
            json!({"learning_rate": 2e-4, "weight_decay": 0.0, "max_grad_norm": 1.0, "type": "muon",
            "momentum": 0.95, "nesterov": true, "newton_schulz_steps": 5, "scale": "match_rms_adamw",
            "betas": [0.9, 0.999], "epsilon": 1e-8, "moments": "8bit"})
        );
        let original = optimizer(json!({"optimizer": {"type": "muon", "scale": "original"}}))?;
        assert_eq!(original["learning_rate"], 1e-3);
        let adafactor = optimizer(json!({"optimizer": {"type": "adafactor"}}))?;
        assert_eq!(
            adafactor,
            json!({"learning_rate": 1e-2, "weight_decay": 0.0, "max_grad_norm": 1.0,
            "type": "adafactor", "beta2_decay": -0.8, "epsilon": f64::from(f32::EPSILON), "epsilon_scale": 1e-3,
            "clipping_threshold": 1.0})
        );
        let sgd = optimizer(json!({"optimizer": {"type": "sgd"}, "hyperparameters": {"learning_rate_multiplier": 2}}))?;
        assert_eq!(
            sgd,
            json!({"learning_rate": 2e-2, "weight_decay": 0.0, "max_grad_norm": 1.0, "type": "sgd",
            "momentum": 0.9, "nesterov": false})
        );
        let wsd = spec(json!({"max_steps": 50, "schedule": {"type": "wsd"}}))?.schedule;
        assert_eq!(
            serde_json::to_value(wsd)?,
            json!({"type": "wsd", "decay_type": "cosine", "decay_ratio": 0.1,
            "decay_steps": 5, "warmup_ratio": 0.03, "warmup_steps": 2})
        );
        // Both shares are rounded up; the decay gives way.
        let full = json!({"type": "wsd", "warmup_ratio": 0.25, "decay_ratio": 0.75});
        let wsd = serde_json::to_value(spec(json!({"max_steps": 5, "schedule": full}))?.schedule)?;
        assert_eq!((&wsd["warmup_steps"], &wsd["decay_steps"]), (&json!(2), &json!(3)));
        Ok(())
    }

    #[test]
    fn what_else_steers_training_is_off_and_has_defaults() -> Outcome {
        let plain = spec(json!({}))?;
        assert_eq!((plain.neftune_noise_alpha, plain.label_smoothing), (0.0, 0.0));
        assert_eq!((plain.early_stopping, plain.weight_averaging), (None, None));
        let asked = spec(json!({"early_stopping": {}, "neftune_noise_alpha": 5, "label_smoothing": 0.1}))?;
        assert_eq!((asked.neftune_noise_alpha, asked.label_smoothing), (5.0, 0.1));
        let stopping = json!({"metric": "valid_loss", "patience": 3, "min_delta": 0.0});
        assert_eq!(serde_json::to_value(asked.early_stopping)?, stopping);
        let request = request(json!({"early_stopping": {}}))?;
        let none_held_out = DatasetFacts { held_out_rows: 0, ..dataset(20) };
        let refused = resolve(&request, plain.preparation.clone(), plain.tuning.clone(), &none_held_out);
        assert_eq!(refused.err().map(|error| error.param), Some("early_stopping".to_owned()));
        Ok(())
    }

    #[test]
    fn what_a_family_cannot_be_trained_by_is_refused_by_name() -> Outcome {
        let refused = |architecture: &str, extra: serde_json::Value| {
            let model = ModelFacts { architecture: architecture.into(), ..model() };
            Ok::<_, Box<dyn std::error::Error>>(resolve_tuning(&request(extra)?, &model, None).err().map(|e| e.param))
        };
        let scaled = ["gemma2", "gemma3_text", "gemma3"];
        let cases: [(serde_json::Value, &str, &[&str]); 3] = [
            (json!({"prompt_tuning": {}}), "prompt_tuning", &scaled),
            (json!({"lora": {"trainable_token_indices": [3]}}), "lora.trainable_token_indices", &scaled),
            (json!({"full": {}}), "full", &["gemma3"]),
        ];
        for (extra, field, families) in cases {
            for family in ["llama", "gemma2", "gemma3_text", "gemma3"] {
                let expected = families.contains(&family).then(|| field.to_owned());
                assert_eq!(refused(family, extra.clone())?, expected, "{family}: {extra}");
            }
        }
        Ok(())
    }

    #[test]
    fn each_method_has_its_defaults() -> Outcome {
        let tuning = |extra| Ok::<_, Box<dyn std::error::Error>>(serde_json::to_value(spec(extra)?.tuning)?);
        assert_eq!(tuning(json!({"full": {"last_layers": 1}}))?, json!({"full": {"last_layers": 1}}));
        let ia3 = json!({"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]});
        assert_eq!(tuning(json!({"ia3": {}}))?, json!({ "ia3": ia3 }));
        let prompt = json!({"num_virtual_tokens": 20, "init": "sample_vocab"});
        assert_eq!(tuning(json!({"prompt_tuning": {}}))?, json!({ "prompt_tuning": prompt }));
        let long = spec(json!({"prefix_tuning": {"num_virtual_tokens": 12}}))?;
        assert_eq!(long.preparation.max_seq_len, 500);
        let prefix = json!({"num_virtual_tokens": 5});
        assert_eq!(tuning(json!({"prefix_tuning": {"num_virtual_tokens": 5}}))?, json!({ "prefix_tuning": prefix }));
        Ok(())
    }

    #[test]
    fn an_adapter_that_is_continued_keeps_its_settings() -> Outcome {
        let pissa = json!({"lora": {"init": "pissa", "r": 4, "use_rslora": false, "target_modules": ["k_proj"]}});
        let first = spec(pissa)?;
        let TuningSpec::Adapter(adapter) = &first.tuning else { panic!("{first:?}") };
        let request = request(json!({"continue_from": "ft:m:x"}))?;
        let tuning = resolve_tuning(&request, &model(), Some(adapter))?;
        assert_eq!(tuning.lora(), Some(&LoraSpec::plain(8, 16.0, vec!["k_proj".into()])));
        Ok(())
    }
}
