//! Optimisers, early stopping and averaging through whole runs in process: they resume to the bit, and what comes out is
//! what it is said to be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, path::Path};

use finetuned_model::tensor_file;
use finetuned_protocol::{
    engine::{EXIT_OK, EngineCommand, EngineEvent},
    evaluation::{EvaluationReport, ExportedWeights},
    evaluation_spec::EvaluationSpec,
    optimization::{
        AdafactorSpec, AdamWSpec, Algorithm, EarlyStoppingSpec, HeldOutMetric, MomentType, MuonScale, MuonSpec,
        SgdSpec, WeightAveragingSpec,
    },
    spec::{AnswersSpec, TrainingSpec},
    text_metric::TextMetric,
    tuning::{AdapterSpec, LoraSpec, TuningSpec},
};
use finetuned_torch::{Kind, Tensor};

use crate::{
    testing::{lora, spec},
    testing_folder::{Folder, Ran},
};

/// Every optimiser but the one of all other tests, with a learning rate at which it moves.
fn algorithms() -> Vec<(&'static str, Algorithm, f64)> {
    let adamw = |moments| AdamWSpec { betas: [0.9, 0.95], epsilon: 1e-8, moments };
    let adafactor =
        AdafactorSpec { beta2_decay: -0.8, epsilon: f32::EPSILON.into(), epsilon_scale: 1e-3, clipping_threshold: 1.0 };
    let muon = MuonSpec {
        momentum: 0.95,
        nesterov: true,
        newton_schulz_steps: 5,
        scale: MuonScale::MatchRmsAdamw,
        rest: adamw(MomentType::Bf16),
    };
    vec![
        ("bf16", Algorithm::Adamw(adamw(MomentType::Bf16)), 1e-2),
        ("8bit", Algorithm::Adamw(adamw(MomentType::Blocks8Bit)), 1e-2),
        ("adafactor", Algorithm::Adafactor(adafactor), 0.5),
        ("sgd", Algorithm::Sgd(SgdSpec { momentum: 0.9, nesterov: true }), 0.5),
        ("muon", Algorithm::Muon(muon), 1e-2),
    ]
}

/// All that is random or remembered at once: noise, smoothing, vectors and rows beside matrices, matrices that are quantised.
fn settings(algorithm: Algorithm, learning_rate: f64) -> TrainingSpec {
    let adapter = LoraSpec { r: 128, use_dora: true, trainable_token_indices: vec![3, 5], ..lora() };
    let mut settings = TrainingSpec {
        tuning: TuningSpec::Adapter(AdapterSpec::Lora(adapter)),
        neftune_noise_alpha: 5.0,
        label_smoothing: 0.1,
        ..spec()
    };
    settings.optimizer.algorithm = algorithm;
    settings.optimizer.learning_rate = learning_rate;
    settings
}

fn at_step(step: u32) -> impl Fn(&EngineEvent) -> bool {
    move |event| matches!(event, EngineEvent::Step { step: now, .. } if *now == step)
}

fn report(ran: &Ran) -> &EvaluationReport {
    let EngineEvent::Finished { evaluation, .. } = ran.last() else { panic!("{:?}", ran.last()) };
    evaluation
}

fn chosen(ran: &Ran) -> ExportedWeights {
    let weights = report(ran).exported_weights.clone().unwrap();
    let told = ran.events.iter().find_map(|event| match event {
        EngineEvent::WeightsChosen { weights, likelihood } => Some((weights, likelihood)),
        _ => None,
    });
    match weights {
        ExportedWeights::Last { .. } => assert_eq!(told, None),
        _ => assert_eq!(told, Some((&weights, &report(ran).tuned))),
    }
    weights
}

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    tensor_file::load(path).unwrap().into_iter().collect()
}

fn exported(folder: &Folder) -> BTreeMap<String, Tensor> {
    tensors(&folder.path().join("adapter/adapter_model.safetensors"))
}

fn saved(folder: &Folder, step: u32) -> BTreeMap<String, Tensor> {
    tensors(&folder.checkpoint(step).join("adapter.safetensors"))
}

/// A run that is stopped after its first step, half way or at its end, and goes on, ends like one that never was.
fn resumes_to_the_bit(name: &str, settings: &TrainingSpec) -> Folder {
    let whole = Folder::new(settings.clone());
    let undisturbed = whole.run();
    assert_eq!(undisturbed.status, EXIT_OK, "{name}: {:?}", undisturbed.last());
    let last = undisturbed.losses().len() as u32;
    for step in [1, last / 2, last] {
        let folder = Folder::new(settings.clone());
        let first = folder.run_until(EngineCommand::StopWithCheckpoint, at_step(step));
        let second = folder.run();
        assert_eq!(second.status, EXIT_OK, "{name}: {:?}", second.last());
        assert_eq!([first.losses(), second.losses()].concat(), undisturbed.losses(), "{name}: stopped after {step}");
        assert!(folder.adapter() == whole.adapter(), "{name}, stopped after {step}: the adapter is another");
        assert_eq!(report(&second).exported_weights, report(&undisturbed).exported_weights, "{name}");
        assert_eq!(report(&second).tuned, report(&undisturbed).tuned, "{name}");
    }
    whole
}

#[test]
fn every_optimiser_resumes_to_the_bit() {
    for (name, algorithm, rate) in algorithms() {
        let folder = resumes_to_the_bit(name, &settings(algorithm, rate));
        let state = tensors(&folder.checkpoint(6).join("optimizer.safetensors"));
        let has = |kind| state.values().any(|tensor| tensor.kind() == kind);
        assert_eq!(
            (has(Kind::Uint8), has(Kind::BFloat16)),
            (name == "8bit", ["bf16", "muon"].contains(&name)),
            "{name}"
        );
    }
}

#[test]
fn every_optimiser_learns() {
    for (name, algorithm, rate) in algorithms() {
        let longer = TrainingSpec { total_steps: 24, n_epochs: 8, evaluate_every: 24, ..settings(algorithm, rate) };
        let ran = Folder::new(longer).run();
        let EvaluationReport { base, tuned, .. } = report(&ran);
        assert!(tuned.loss < base.loss - 0.05, "{name}: {} and then {}", base.loss, tuned.loss);
    }
}

/// A learning rate that is too large after a while: the held-out loss falls, then rises.
fn overshooting(patience: u32) -> TrainingSpec {
    let early_stopping = Some(EarlyStoppingSpec { metric: HeldOutMetric::ValidLoss, patience, min_delta: 0.0 });
    let mut settings = TrainingSpec { total_steps: 40, n_epochs: 14, evaluate_every: 2, early_stopping, ..spec() };
    settings.optimizer.learning_rate = 0.1;
    settings
}

#[test]
fn answers_during_training_are_scored_and_choose_the_weights() {
    let metric = HeldOutMetric::Text(TextMetric::Chrf);
    let evaluation = EvaluationSpec {
        metrics: vec![TextMetric::Chrf, TextMetric::EmbeddingCosine],
        during_training: Some(AnswersSpec { rows: 3, max_new_tokens: 5 }),
        ..EvaluationSpec::default()
    };
    let early_stopping = Some(EarlyStoppingSpec { metric, patience: 20, min_delta: 0.0 });
    let settings = || TrainingSpec { evaluation: evaluation.clone(), early_stopping, ..overshooting(20) };
    let scored = |ran: &Ran| {
        let of = |event: &EngineEvent| match event {
            EngineEvent::TextScored { step, rows: 3, scores } => {
                assert_eq!(scores.keys().collect::<Vec<_>>(), [&TextMetric::Chrf], "what needs an encoder is left out");
                Some((*step, scores[&TextMetric::Chrf]))
            }
            _ => None,
        };
        ran.events.iter().filter_map(of).collect::<Vec<_>>()
    };
    let whole = Folder::new(settings());
    let undisturbed = whole.run();
    let all = scored(&undisturbed);
    let steps: Vec<u32> = all.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, (0..=40).step_by(2).collect::<Vec<_>>());
    let best = all[1..].iter().fold((0, f64::MIN), |best, now| if now.1 > best.1 { *now } else { best });
    let ExportedWeights::Best { step, metric: by, value, .. } = chosen(&undisturbed) else { panic!() };
    assert_eq!((step, by, value), (best.0, metric, best.1));
    assert!(all.iter().any(|(_, score)| score != &all[0].1), "answers that never change show nothing: {all:?}");
    // Cut off and resumed, the same is seen and the same weights come out.
    let cut = Folder::new(settings());
    let at = |event: &EngineEvent| matches!(event, EngineEvent::Step { step: 13, .. });
    let first = cut.run_until(EngineCommand::StopWithCheckpoint, at);
    let second = cut.run();
    assert_eq!([scored(&first), scored(&second)].concat(), all);
    assert!(cut.adapter() == whole.adapter());
}

#[test]
fn early_stopping_exports_the_best_weights_and_says_so() {
    let folder = Folder::new(overshooting(2));
    let ran = folder.run();
    let ExportedWeights::Best { step, metric, value, stopped_at_step } = chosen(&ran) else { panic!() };
    let history = &report(&ran).history;
    let tuned = || history.iter().filter(|at| at.step > 0);
    let best = tuned().min_by(|a, b| a.likelihood.loss.total_cmp(&b.likelihood.loss)).unwrap();
    assert_eq!((step, metric, value), (best.step, HeldOutMetric::ValidLoss, best.likelihood.loss));
    assert_eq!(report(&ran).tuned, best.likelihood);
    // Two evaluations without an improvement, then no step more.
    assert_eq!(stopped_at_step, Some(step + 4), "{history:?}");
    assert_eq!(ran.losses().len() as u32, step + 4);
    assert!(step + 4 < 40 && step > 2, "nothing is shown by stopping after {step}");
    let (exported, best, last) = (exported(&folder), saved(&folder, step), saved(&folder, step + 4));
    for (name, tensor) in &exported {
        assert!(tensor.equal(&best[name]) && !tensor.equal(&last[name]), "{name}");
    }
}

#[test]
fn the_best_weights_come_out_where_training_ends_in_time_too() {
    let folder = Folder::new(overshooting(100));
    let ran = folder.run();
    let ExportedWeights::Best { step, stopped_at_step, .. } = chosen(&ran) else { panic!() };
    assert_eq!((stopped_at_step, ran.losses().len()), (None, 40));
    assert!(exported(&folder).iter().all(|(name, tensor)| tensor.equal(&saved(&folder, step)[name])));
}

#[test]
fn early_stopping_resumes_to_the_bit() {
    // Evaluations and checkpoints apart, so that the best weights must come from a later checkpoint.
    let settings = TrainingSpec { checkpoint_every: 5, ..overshooting(2) };
    resumes_to_the_bit("early stopping", &settings);
    // Killed in place of stopped: only what a checkpoint holds is left.
    let whole = Folder::new(settings.clone());
    let undisturbed = whole.run();
    let folder = Folder::new(settings);
    let steps = undisturbed.losses().len() as u32;
    folder.run_until(EngineCommand::Cancel, at_step(steps));
    let second = folder.run();
    assert_eq!(report(&second).exported_weights, report(&undisturbed).exported_weights);
    assert!(folder.adapter() == whole.adapter());
}

fn averaging() -> TrainingSpec {
    let weight_averaging = Some(WeightAveragingSpec { last_checkpoints: 3 });
    TrainingSpec { total_steps: 8, n_epochs: 3, checkpoint_every: 3, weight_averaging, ..spec() }
}

#[test]
fn averaging_exports_and_evaluates_the_mean_of_the_last_checkpoints() {
    let folder = Folder::new(averaging());
    let ran = folder.run();
    assert_eq!(chosen(&ran), ExportedWeights::Mean { steps: vec![3, 6, 8] });
    let checkpoints = [3, 6, 8].map(|step| saved(&folder, step));
    for (name, tensor) in exported(&folder) {
        let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
        let sum: Tensor = checkpoints.iter().map(|checkpoint| double(&checkpoint[&name])).sum();
        assert!((double(&tensor) - sum / 3.0).abs().max().double_value(&[]) < 1e-7, "{name}");
        assert!(!tensor.equal(&checkpoints[2][&name]), "{name}");
    }
    let last = report(&ran).history.last().unwrap();
    assert_eq!(last.step, 8);
    assert!((report(&ran).tuned.loss - last.likelihood.loss).abs() > 1e-6, "the last step was evaluated");
}

#[test]
fn averaging_resumes_to_the_bit() {
    resumes_to_the_bit("averaging", &averaging());
}
