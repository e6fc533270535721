//! Every objective through whole runs in process: weighted rows, documents, token rows, preferences.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{f64::consts::LN_2, fs};

use finetuned_protocol::{
    engine::{EXIT_OK, EngineCommand, EngineEvent, Phase},
    evaluation::EvaluationReport,
    objective::{DpoSpec, ObjectiveSpec},
    spec::TrainingSpec,
    tuning::{AdapterSpec, FullSpec, TuningSpec},
};

use crate::{
    testing::{lora, spec},
    testing_folder::{Folder, Ran, documents, pairs, rows, weighted_rows},
};

fn evaluation(ran: &Ran) -> &EvaluationReport {
    let EngineEvent::Finished { evaluation, .. } = ran.last() else { panic!("{:?}", ran.last()) };
    evaluation
}

fn weights(folder: &Folder) -> Vec<u8> {
    let out = folder.path().join("adapter");
    fs::read(out.join("adapter_model.safetensors")).or_else(|_| fs::read(out.join("model.safetensors"))).unwrap()
}

/// All twelve training rows in one step.
fn one_step() -> TrainingSpec {
    TrainingSpec { batch_size: 12, micro_batch_size: 12, total_steps: 1, n_epochs: 1, ..spec() }
}

/// The loss of the first step.
fn first_loss(spec: TrainingSpec, rows: &str) -> f64 {
    Folder::of_rows(spec, rows).run().losses()[0].1
}

#[test]
fn weights_multiply_the_loss_of_their_rows() {
    let loss = |weight: &dyn Fn(usize) -> f64| first_loss(one_step(), &weighted_rows(weight));
    let plain = first_loss(one_step(), &rows());
    assert_eq!(loss(&|_| 1.0), plain, "a weight of 1 is none");
    assert!((loss(&|_| 2.0) - 2.0 * plain).abs() < 1e-6);
    // The loss is linear in the weights, and rows that are held out have no part in it.
    let of_row = |row: usize| loss(&|index| if index == row { 3.0 } else { 1.0 }) - plain;
    let each: Vec<f64> = (0..16).map(of_row).collect();
    assert_eq!(each.iter().filter(|added| **added > 1e-3).count(), 12, "{each:?}");
    assert!((each.iter().sum::<f64>() - 2.0 * plain).abs() < 1e-5);
}

#[test]
fn weights_change_what_is_learned_and_not_how_it_is_judged() {
    let ran = |rows: &str| Folder::of_rows(spec(), rows).run();
    let (plain, weighted) = (ran(&rows()), ran(&weighted_rows(|index| 0.25 + index as f64)));
    assert_eq!(evaluation(&plain).base, evaluation(&weighted).base);
    assert_ne!(evaluation(&plain).tuned.loss, evaluation(&weighted).tuned.loss);
}

#[test]
fn accumulation_changes_no_loss_of_any_objective() {
    let weighted = weighted_rows(|index| 0.5 + (index % 3) as f64);
    for (objective, rows) in [
        (ObjectiveSpec::Supervised, rows()),
        (ObjectiveSpec::Supervised, weighted),
        (ObjectiveSpec::Supervised, documents()),
        (dpo(), pairs()),
    ] {
        // Eight rows a step: as one micro-batch, as two of four, as eight of one.
        let losses = |micro_batch_size| {
            let spec = TrainingSpec { objective, batch_size: 8, micro_batch_size, total_steps: 4, ..spec() };
            Folder::of_rows(spec, &rows).run().losses()
        };
        let whole = losses(8);
        assert_eq!(whole.len(), 4);
        for micro_batch_size in [4, 1] {
            for ((step, want), (_, got)) in whole.iter().zip(losses(micro_batch_size)) {
                let of = format!("{objective:?}, step {step} in {micro_batch_size}s");
                assert!((want - got).abs() < 1e-5, "{of}: {got} is not {want}");
            }
        }
    }
}

fn dpo() -> ObjectiveSpec {
    ObjectiveSpec::Dpo(DpoSpec { beta: 0.1, label_smoothing: 0.05 })
}

fn preference_job(tuning: TuningSpec, learning_rate: f64) -> TrainingSpec {
    let mut settings = TrainingSpec { objective: dpo(), tuning, ..spec() };
    settings.optimizer.learning_rate = learning_rate;
    settings
}

fn methods() -> [(&'static str, TuningSpec, f64); 2] {
    [
        ("lora", TuningSpec::Adapter(AdapterSpec::Lora(lora())), 2e-2),
        ("full", TuningSpec::Full { full: FullSpec { last_layers: None } }, 2e-3),
    ]
}

#[test]
fn preferences_are_learned_from_the_reference_on() {
    for (name, tuning, rate) in methods() {
        let settings = TrainingSpec { total_steps: 15, n_epochs: 5, ..preference_job(tuning, rate) };
        let ran = Folder::of_rows(settings, &pairs()).run();
        let evaluation = evaluation(&ran);
        // Before training the model is its own reference.
        let base = evaluation.base.preference.unwrap();
        assert!((evaluation.base.loss - LN_2).abs() < 1e-9, "{name}: {}", evaluation.base.loss);
        assert_eq!((base.reward_accuracy, base.reward_margin), (0.0, 0.0), "{name}");
        assert!((ran.losses()[0].1 - LN_2).abs() < 1e-6, "{name}: {:?}", ran.losses());
        let tuned = evaluation.tuned.preference.unwrap();
        assert!(evaluation.tuned.loss < 0.6 && tuned.reward_accuracy >= 0.75, "{name}: {:?}", evaluation.tuned);
        assert!(tuned.reward_margin > 0.2, "{name}: {tuned:?}");
        assert!((tuned.chosen_reward - tuned.rejected_reward - tuned.reward_margin).abs() < 1e-12);
        assert_eq!(evaluation.tuned.rows, 4);
        assert!((evaluation.tuned.perplexity.ln() - evaluation.tuned.loss).abs() > 0.1, "that of the answers");
        assert_eq!(evaluation.answers.as_ref().unwrap().answers.len(), 2);
        let rewards = ran.events.iter().filter_map(|event| match event {
            EngineEvent::Step { preference, .. } => Some(preference.unwrap().reward_margin),
            _ => None,
        });
        let rewards: Vec<f64> = rewards.collect();
        assert!(rewards[0].abs() < 1e-6 && rewards[14] > 0.2, "{name}: {rewards:?}");
    }
}

fn asked_reference(ran: &Ran) -> bool {
    ran.events.iter().any(|event| matches!(event, EngineEvent::Progress { phase: Phase::ScoringReference, .. }))
}

#[test]
fn a_preference_job_resumes_to_the_bit_and_asks_its_reference_once() {
    for (name, tuning, rate) in methods() {
        let settings = preference_job(tuning, rate);
        let whole = Folder::of_rows(settings.clone(), &pairs());
        let undisturbed = whole.run();
        assert_eq!(undisturbed.status, EXIT_OK, "{name}: {:?}", undisturbed.last());
        for step in [1, 3, 5] {
            let folder = Folder::of_rows(settings.clone(), &pairs());
            let first = folder.run_until(
                EngineCommand::StopWithCheckpoint,
                move |event| matches!(event, EngineEvent::Step { step: now, .. } if *now == step),
            );
            assert_eq!((first.status, first.last()), (EXIT_OK, &EngineEvent::Stopped { step }), "{name}");
            let second = folder.run();
            assert!(asked_reference(&first) && !asked_reference(&second), "{name}");
            assert_eq!([first.losses(), second.losses()].concat(), undisturbed.losses(), "{name}");
            assert!(weights(&folder) == weights(&whole), "{name}: what was exported is another");
            assert_eq!(evaluation(&second).tuned, evaluation(&undisturbed).tuned, "{name}");
        }
    }
}

#[test]
fn a_stop_while_the_reference_is_asked_asks_it_again() {
    let (_, tuning, rate) = methods()[0].clone();
    let settings = preference_job(tuning, rate);
    let whole = Folder::of_rows(settings.clone(), &pairs());
    let undisturbed = whole.run();
    let folder = Folder::of_rows(settings, &pairs());
    let first = folder.run_until(EngineCommand::StopWithCheckpoint, |event| {
        matches!(event, EngineEvent::Progress { phase: Phase::ScoringReference, .. })
    });
    assert_eq!(first.last(), &EngineEvent::Stopped { step: 0 });
    let second = folder.run();
    assert!(asked_reference(&second));
    assert_eq!(second.losses(), undisturbed.losses());
    assert!(weights(&folder) == weights(&whole));
}

#[test]
fn a_checkpoint_without_its_reference_is_refused() {
    let (_, tuning, rate) = methods()[0].clone();
    let folder = Folder::of_rows(preference_job(tuning, rate), &pairs());
    folder.run_until(EngineCommand::StopWithCheckpoint, |event| matches!(event, EngineEvent::Step { step: 1, .. }));
    let checkpoint = folder.checkpoint(1);
    let manifest = checkpoint.join("manifest.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    value["files"].as_array_mut().unwrap().retain(|file| file["name"] != "reference.safetensors");
    fs::write(&manifest, value.to_string()).unwrap();
    fs::remove_file(checkpoint.join("reference.safetensors")).unwrap();
    let ran = folder.run();
    assert!(matches!(ran.last(), EngineEvent::Failed { .. }), "{:?}", ran.last());
}

#[test]
fn a_tuned_model_that_is_gone_on_from_is_its_own_reference() {
    let first = Folder::new(spec());
    let supervised = first.run();
    assert_eq!(supervised.status, EXIT_OK);
    let tuning =
        TuningSpec::Adapter(AdapterSpec::Lora(finetuned_protocol::tuning::LoraSpec { dropout: 0.0, ..lora() }));
    let next = TrainingSpec { continue_from: Some("ftjob-1".to_owned()), ..preference_job(tuning, 2e-2) };
    let second = Folder::of_rows(next, &pairs());
    fs::rename(first.path().join("adapter"), second.path().join("initial_adapter")).unwrap();
    let ran = second.run();
    assert!((ran.losses()[0].1 - LN_2).abs() < 1e-9, "{:?}", ran.losses());
    // The base model is judged by the same rewards, and is no longer the reference.
    assert_ne!(evaluation(&ran).base.preference.unwrap().reward_margin, 0.0);
}

#[test]
fn documents_are_learned_in_pieces_and_resumed_to_the_bit() {
    let mut settings = TrainingSpec { total_steps: 8, n_epochs: 2, ..spec() };
    settings.preparation.max_seq_len = 24;
    settings.optimizer.learning_rate = 2e-2;
    let whole = Folder::of_rows(settings.clone(), &documents());
    let ran = whole.run();
    let report = evaluation(&ran);
    assert!(report.tuned.loss < report.base.loss - 0.3, "{report:?}");
    assert!(report.answers.is_none(), "documents ask nothing");
    let started = ran.events.iter().find_map(|event| match event {
        EngineEvent::Started { train_rows, held_out_rows, .. } => Some((*train_rows, *held_out_rows)),
        _ => None,
    });
    assert!(started.is_some_and(|(train, held_out)| train > 20 && held_out > 4), "{started:?}");
    let folder = Folder::of_rows(settings, &documents());
    let first =
        folder.run_until(EngineCommand::StopWithCheckpoint, |event| matches!(event, EngineEvent::Step { step: 5, .. }));
    assert_eq!(first.last(), &EngineEvent::Stopped { step: 5 });
    let second = folder.run();
    assert_eq!([first.losses(), second.losses()].concat(), ran.losses());
    assert!(weights(&folder) == weights(&whole));
}

#[test]
fn token_rows_give_the_losses_of_the_texts_they_were_made_from() {
    let document = |index: usize| format!("{}\n", serde_json::json!({"text": format!("{index} sun moon star sea")}));
    let texts: String = (0..16).map(document).collect();
    let tokenizer =
        finetuned_weights::ModelSource::open(&Folder::new(spec()).path().join("base")).unwrap().tokenizer().unwrap();
    let row = |line: &str| {
        let text: serde_json::Value = serde_json::from_str(line).unwrap();
        let ids = tokenizer.encode_document(text["text"].as_str().unwrap()).unwrap();
        let labels: Vec<i64> =
            ids.iter().enumerate().map(|(at, id)| if at == 0 { -100 } else { (*id).into() }).collect();
        format!("{}\n", serde_json::json!({"input_ids": ids, "labels": labels}))
    };
    let tokens: String = texts.lines().map(row).collect();
    // Which rows are held out goes by what is written in them, so all of them are trained on.
    let mut settings = TrainingSpec { batch_size: 16, micro_batch_size: 8, total_steps: 2, n_epochs: 2, ..spec() };
    settings.preparation.eval_fraction = 0.0;
    let losses = |rows: &str| Folder::of_rows(settings.clone(), rows).run().losses();
    let (of_texts, of_tokens) = (losses(&texts), losses(&tokens));
    assert_eq!(of_texts.len(), 2);
    assert_eq!(of_texts, of_tokens);
}
