//! Every method through whole runs in process: it learns, stops, resumes, exports and loads back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use finetuned_protocol::{
    engine::{EXIT_FAILED, EXIT_OK, EngineCommand, EngineEvent},
    error::ErrorCode,
    evaluation::ParityCertificate,
    spec::TrainingSpec,
    tuning::{
        AdapterSpec, FullSpec, Ia3Spec, LoraInit, LoraSpec, PrefixTuningSpec, PromptInit, PromptTuningSpec, TuningSpec,
    },
};

use crate::{
    testing::{lora, spec},
    testing_folder::{Folder, Ran},
};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Every method, with a learning rate at which it learns in a few steps.
fn methods() -> Vec<(&'static str, TuningSpec, f64)> {
    let adapter = |spec: LoraSpec| TuningSpec::Adapter(AdapterSpec::Lora(spec));
    let full = |last_layers| TuningSpec::Full { full: FullSpec { last_layers } };
    let ia3 = Ia3Spec {
        target_modules: names(&["k_proj", "v_proj", "down_proj"]),
        feedforward_modules: names(&["down_proj"]),
    };
    vec![
        ("full", full(None), 5e-3),
        ("last layer", full(Some(1)), 2e-2),
        ("dora", adapter(LoraSpec { use_dora: true, ..lora() }), 2e-2),
        ("pissa", adapter(LoraSpec { init: LoraInit::Pissa, ..lora() }), 1e-2),
        ("lora+", adapter(LoraSpec { loraplus_lr_ratio: 4.0, use_rslora: true, ..lora() }), 1e-2),
        (
            "lora with parts",
            adapter(LoraSpec {
                rank_pattern: [("q_proj".to_owned(), 2)].into(),
                alpha_pattern: [("v_proj".to_owned(), 3.0)].into(),
                layers_to_transform: Some(vec![1]),
                modules_to_save: names(&["lm_head"]),
                trainable_token_indices: vec![3, 5],
                ..lora()
            }),
            1e-2,
        ),
        ("ia3", TuningSpec::Adapter(AdapterSpec::Ia3(ia3)), 5e-2),
        (
            "prompt",
            TuningSpec::Adapter(AdapterSpec::PromptTuning(PromptTuningSpec {
                num_virtual_tokens: 4,
                init: PromptInit::SampleVocab,
            })),
            5e-2,
        ),
        ("prefix", TuningSpec::Adapter(AdapterSpec::PrefixTuning(PrefixTuningSpec { num_virtual_tokens: 4 })), 5e-2),
    ]
}

fn settings(tuning: TuningSpec, learning_rate: f64) -> TrainingSpec {
    let mut settings = TrainingSpec { tuning, ..spec() };
    settings.optimizer.learning_rate = learning_rate;
    settings
}

fn parity(ran: &Ran) -> &ParityCertificate {
    let exported = ran.events.iter().find_map(|event| match event {
        EngineEvent::Exported { parity, .. } => Some(parity),
        _ => None,
    });
    exported.unwrap_or_else(|| panic!("{:?}", ran.last()))
}

fn weights(folder: &Folder) -> Vec<u8> {
    let out = folder.path().join("adapter");
    fs::read(out.join("adapter_model.safetensors")).or_else(|_| fs::read(out.join("model.safetensors"))).unwrap()
}

#[test]
fn every_method_learns_and_its_export_is_what_was_trained() {
    let base = Folder::new(spec()).run();
    let EngineEvent::Finished { evaluation: plain, .. } = base.last() else { panic!("{:?}", base.last()) };
    for (name, tuning, rate) in methods() {
        let longer = TrainingSpec { total_steps: 12, n_epochs: 4, ..settings(tuning, rate) };
        let ran = Folder::new(longer).run();
        let EngineEvent::Finished { evaluation, .. } = ran.last() else { panic!("{name}: {:?}", ran.last()) };
        let parity = parity(&ran);
        assert_eq!(parity.largest_reload_difference, 0.0, "{name}");
        assert!(parity.largest_difference_from_base > 1e-3 && parity.tokens > 40, "{name}: {parity:?}");
        // Step 0 is the base model, whatever the method starts with.
        assert_eq!(evaluation.base, plain.base, "{name}");
        let answers = |report: &finetuned_protocol::evaluation::EvaluationReport| {
            let answers = report.answers.as_ref().unwrap().answers.iter();
            answers.map(|answer| answer.base.clone()).collect::<Vec<_>>()
        };
        assert_eq!(answers(evaluation), answers(plain), "{name}");
        assert!(evaluation.tuned.loss < evaluation.base.loss - 0.05, "{name}: {evaluation:?}");
    }
}

#[test]
fn every_method_resumes_to_the_bit() {
    for (name, tuning, rate) in methods() {
        let whole = Folder::new(settings(tuning.clone(), rate));
        let undisturbed = whole.run();
        assert_eq!(undisturbed.status, EXIT_OK, "{name}: {:?}", undisturbed.last());
        let folder = Folder::new(settings(tuning, rate));
        let first = folder
            .run_until(EngineCommand::StopWithCheckpoint, |event| matches!(event, EngineEvent::Step { step: 3, .. }));
        assert_eq!((first.status, first.last()), (EXIT_OK, &EngineEvent::Stopped { step: 3 }), "{name}");
        let second = folder.run();
        assert_eq!([first.losses(), second.losses()].concat(), undisturbed.losses(), "{name}");
        assert!(weights(&folder) == weights(&whole), "{name}: what was exported is another");
    }
}

#[test]
fn a_model_that_was_trained_whole_is_a_folder_that_can_be_trained_again() {
    let folder = Folder::new(settings(TuningSpec::Full { full: FullSpec { last_layers: None } }, 5e-3));
    let ran = folder.run();
    let EngineEvent::Finished { evaluation, .. } = ran.last() else { panic!("{:?}", ran.last()) };
    let out = folder.path().join("adapter");
    for file in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"] {
        assert!(out.join(file).exists(), "{file} is missing");
    }
    let again = Folder::new(spec());
    let base = again.path().join("base");
    fs::remove_file(&base).unwrap();
    std::os::unix::fs::symlink(&out, &base).unwrap();
    let ran = again.run();
    let EngineEvent::Finished { evaluation: next, .. } = ran.last() else { panic!("{:?}", ran.last()) };
    assert_eq!(next.base, evaluation.tuned);
}

#[test]
fn an_adapter_is_gone_on_from() {
    for (name, tuning, rate) in methods() {
        let TuningSpec::Adapter(adapter) = &tuning else { continue };
        let first = Folder::new(settings(tuning.clone(), rate));
        let ran = first.run();
        let EngineEvent::Finished { evaluation: before, .. } = ran.last() else { panic!("{name}: {:?}", ran.last()) };
        let next = TrainingSpec {
            continue_from: Some("ftjob-1".to_owned()),
            evaluate_every: 1,
            total_steps: 1,
            ..settings(TuningSpec::Adapter(adapter.exported()), 1e-12)
        };
        let second = Folder::new(next);
        fs::rename(first.path().join("adapter"), second.path().join("initial_adapter")).unwrap();
        let ran = second.run();
        let EngineEvent::Finished { evaluation: after, .. } = ran.last() else { panic!("{name}: {:?}", ran.last()) };
        assert_eq!(after.base, before.base, "{name}");
        // A step so small leaves the first adapter as it was.
        let difference = (after.tuned.loss - before.tuned.loss).abs();
        assert!(difference < 1e-6 && before.tuned.loss != before.base.loss, "{name}: {difference}");
    }
}

#[test]
fn an_adapter_that_does_not_fit_its_settings_is_refused() {
    let first = Folder::new(spec());
    first.run();
    let wider = LoraSpec { r: 8, ..lora() };
    let next = TrainingSpec {
        continue_from: Some("ftjob-1".to_owned()),
        tuning: TuningSpec::Adapter(AdapterSpec::Lora(wider)),
        ..spec()
    };
    let second = Folder::new(next);
    fs::rename(first.path().join("adapter"), second.path().join("initial_adapter")).unwrap();
    let ran = second.run();
    let EngineEvent::Failed { error, .. } = ran.last() else { panic!("{:?}", ran.last()) };
    assert_eq!(ran.status, EXIT_FAILED);
    assert_eq!(error.code, ErrorCode::InvalidSettings, "{error:?}");
}
