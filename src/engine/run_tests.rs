//! Whole runs in process, on a tiny random Llama.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use finetuned_protocol::{
    engine::{EXIT_FAILED, EXIT_OK, EXIT_ORPHANED, EXIT_SUSPENDED, EngineCommand, EngineEvent},
    error::ErrorCode,
    spec::TrainingSpec,
};

use crate::{disk::faults, testing::spec, testing_folder::Folder};

fn kind(event: &EngineEvent) -> String {
    match event {
        EngineEvent::Progress { phase, .. } => format!("progress {phase}"),
        EngineEvent::Step { step, .. } => format!("step {step}"),
        EngineEvent::Evaluated { step, .. } => format!("evaluated {step}"),
        EngineEvent::Checkpoint { step, .. } => format!("checkpoint {step}"),
        other => serde_json::to_value(other).unwrap()["type"].as_str().unwrap().to_owned(),
    }
}

fn at_step(step: u32) -> impl Fn(&EngineEvent) -> bool {
    move |event| matches!(event, EngineEvent::Step { step: now, .. } if *now == step)
}

#[test]
fn a_run_goes_through_its_phases_and_learns() {
    let mut settings = TrainingSpec { total_steps: 12, n_epochs: 4, ..spec() };
    settings.optimizer.learning_rate = 0.05;
    let folder = Folder::new(settings);
    let ran = folder.run();
    let EngineEvent::Finished { trained_tokens, evaluation } = ran.last() else { panic!("{:?}", ran.last()) };
    assert_eq!(ran.status, EXIT_OK);
    let told: Vec<String> = ran.events.iter().map(kind).filter(|kind| !kind.starts_with("progress")).collect();
    let base = ["started", "evaluated 0", "checkpoint 0", "answered"];
    let tuned = ["step 12", "evaluated 12", "checkpoint 12", "answered", "exported", "finished"];
    assert_eq!(told[..4], base);
    assert_eq!(told[4..8], ["step 1", "step 2", "evaluated 2", "checkpoint 2"]);
    assert_eq!(told[told.len() - 6..], tuned);
    let mut phases: Vec<String> = ran.events.iter().map(kind).filter(|kind| kind.starts_with("progress")).collect();
    phases.dedup();
    for phase in ["loading", "preparing", "rehearsal", "answering_base", "training", "answering_tuned", "verifying"] {
        assert!(phases.contains(&format!("progress {phase}")), "{phase} is missing in {phases:?}");
    }
    assert!(evaluation.tuned.loss < evaluation.base.loss - 0.5, "{evaluation:?}");
    assert_eq!((evaluation.history.len(), evaluation.held_out_rows), (7, 4));
    assert_eq!(evaluation.answers.as_ref().unwrap().answers.len(), 2);
    assert!(*trained_tokens > 100);
}

#[test]
fn an_export_is_what_peft_reads_and_names_no_path() {
    let folder = Folder::new(spec());
    let ran = folder.run();
    let exported = ran.events.iter().find_map(|event| match event {
        EngineEvent::Exported { files, parity } => Some((files, parity)),
        _ => None,
    });
    let (files, parity) = exported.unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    for name in ["README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    assert_eq!(parity.largest_reload_difference, 0.0);
    assert!(parity.largest_difference_from_base > 1e-3 && parity.tokens > 40);
    let config = fs::read_to_string(folder.path().join("adapter/adapter_config.json")).unwrap();
    assert!(config.contains("\"tiny-llama\"") && !config.contains(folder.path().to_str().unwrap()));
}

#[test]
fn a_stop_after_any_step_changes_nothing_in_the_end() {
    let whole = Folder::new(spec());
    let undisturbed = whole.run();
    for step in 1..spec().total_steps {
        let folder = Folder::new(spec());
        let first = folder.run_until(EngineCommand::StopWithCheckpoint, at_step(step));
        assert_eq!((first.status, first.last()), (EXIT_OK, &EngineEvent::Stopped { step }));
        let second = folder.run();
        assert_eq!(second.status, EXIT_OK);
        assert_eq!([first.losses(), second.losses()].concat(), undisturbed.losses(), "stopped after {step}");
        assert!(folder.adapter() == whole.adapter(), "stopped after {step}: the adapter is another");
        let (EngineEvent::Finished { evaluation: a, .. }, EngineEvent::Finished { evaluation: b, .. }) =
            (second.last(), undisturbed.last())
        else {
            panic!("{:?}", second.last());
        };
        assert_eq!(a.answers, b.answers);
        let asked = second.events.iter().any(|event| kind(event) == "progress answering_base");
        assert!(!asked, "the base model was asked again");
    }
}

#[test]
fn a_stop_within_a_step_drops_the_unfinished_accumulation() {
    let whole = Folder::new(spec());
    let undisturbed = whole.run();
    let folder = Folder::new(spec());
    // Progress is told before the first micro-batch of the first step; the second is never computed.
    let first = folder.run_until(EngineCommand::StopWithCheckpoint, |event| kind(event) == "progress training");
    assert_eq!(first.last(), &EngineEvent::Stopped { step: 0 });
    assert_eq!(folder.run().losses(), undisturbed.losses());
    assert!(folder.adapter() == whole.adapter());
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let whole = Folder::new(spec());
    whole.run();
    let folder = Folder::new(spec());
    folder.run_until(EngineCommand::Cancel, at_step(5));
    let weights = folder.checkpoint(4).join("adapter.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let ran = folder.run();
    assert_eq!(ran.warnings(), ["checkpoint_damaged"]);
    assert_eq!(ran.losses().first().unwrap().0, 3);
    assert!(folder.adapter() == whole.adapter());
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let mut folder = Folder::new(spec());
    folder.run_until(EngineCommand::StopWithCheckpoint, at_step(2));
    let mut refused = |change: fn(&mut Folder)| {
        let before = folder.job.clone();
        change(&mut folder);
        folder.write_job();
        let ran = folder.run();
        folder.job = before;
        assert_eq!(ran.status, EXIT_FAILED);
        let EngineEvent::Failed { error, .. } = ran.last() else { panic!("{:?}", ran.last()) };
        error.code
    };
    assert_eq!(refused(|folder| folder.job.base_model_sha256 = "other".into()), ErrorCode::InvalidModel);
    assert_eq!(refused(|folder| folder.job.training_file_sha256 = "other".into()), ErrorCode::InvalidTrainingFile);
    assert_eq!(refused(|folder| folder.job.spec.optimizer.learning_rate *= 2.0), ErrorCode::InvalidSettings);
}

#[test]
fn the_thread_count_of_a_checkpoint_goes_before_the_jobs() {
    let mut folder = Folder::new(spec());
    folder.run_until(EngineCommand::StopWithCheckpoint, at_step(1));
    folder.job.threads = 1;
    folder.write_job();
    let ran = folder.run();
    let started = ran.events.iter().find_map(|event| match event {
        EngineEvent::Started { threads, resumed_from_step, .. } => Some((*threads, *resumed_from_step)),
        _ => None,
    });
    assert_eq!(started, Some((2, 1)));
}

#[test]
fn accumulation_changes_no_loss() {
    let losses = |batch_size, micro_batch_size| {
        let spec = TrainingSpec { batch_size, micro_batch_size, total_steps: 4, ..spec() };
        Folder::new(spec).run().losses()
    };
    let whole = losses(8, 8);
    assert_eq!(whole.len(), 4);
    for micro_batch_size in [4, 1] {
        for ((step, want), (_, got)) in whole.iter().zip(losses(8, micro_batch_size)) {
            assert!((want - got).abs() < 1e-5, "step {step} in {micro_batch_size}s: {got} is not {want}");
        }
    }
}

#[test]
fn a_full_disk_suspends_and_the_last_checkpoint_stays_whole() {
    let whole = Folder::new(spec());
    whole.run();
    let files = ["adapter.safetensors", "optimizer.safetensors", "state.json", "manifest.json"];
    let size = |name: &str| fs::metadata(whole.checkpoint(4).join(name)).unwrap().len() as usize;
    for failing in 0..files.len() {
        let room = files[..failing].iter().map(|file| size(file)).sum::<usize>() + 10;
        let folder = Folder::new(spec());
        let ran = folder.run_with(move |event, _| {
            if at_step(4)(event) {
                faults::leave_room(room);
            }
        });
        faults::unlimited();
        assert_eq!(ran.status, EXIT_SUSPENDED);
        let EngineEvent::Suspended { step: 4, error } = ran.last() else { panic!("{:?}", ran.last()) };
        assert_eq!(error.code, ErrorCode::OutOfDiskSpace);
        assert!(!folder.path().join("checkpoints/step-4.tmp").exists());
        assert!(!folder.checkpoint(4).exists());
        let again = folder.run();
        assert_eq!((again.status, again.losses()[0].0), (EXIT_OK, 3));
        assert!(folder.adapter() == whole.adapter());
    }
}

#[test]
fn a_cancel_ends_at_once_and_an_orphan_silently() {
    let folder = Folder::new(spec());
    let ran = folder.run_until(EngineCommand::Cancel, at_step(3));
    assert_eq!((ran.status, ran.last()), (EXIT_OK, &EngineEvent::Cancelled { step: 3 }));
    assert!(!folder.checkpoint(3).exists());
    let folder = Folder::new(spec());
    let ran = folder.run_with(|event, control| {
        if at_step(3)(event) {
            control.orphan();
        }
    });
    assert_eq!(ran.status, EXIT_ORPHANED);
    assert_eq!(kind(ran.last()), "step 3");
}

#[test]
fn three_steps_that_are_not_finite_end_the_job() {
    let mut settings = spec();
    settings.optimizer.learning_rate = 1e38;
    settings.optimizer.max_grad_norm = 1e30;
    settings.evaluate_every = 6;
    settings.checkpoint_every = 6;
    let folder = Folder::new(settings);
    let ran = folder.run();
    assert_eq!(ran.status, EXIT_FAILED);
    let EngineEvent::Failed { step, error } = ran.last() else { panic!("{:?}", ran.last()) };
    assert_eq!((error.code, *step), (ErrorCode::NonFinite, Some(4)), "{error:?}");
    assert_eq!(ran.warnings(), ["non_finite_step", "non_finite_step"]);
    assert_eq!(ran.losses().len(), 1);
    assert!(folder.checkpoint(0).exists() && !folder.checkpoint(4).exists());
}

#[test]
fn a_missing_model_is_a_cause_and_not_a_crash() {
    let folder = Folder::new(spec());
    fs::remove_file(folder.path().join("base")).unwrap();
    fs::create_dir(folder.path().join("base")).unwrap();
    let ran = folder.run();
    let EngineEvent::Failed { step: None, error } = ran.last() else { panic!("{:?}", ran.last()) };
    assert_eq!((ran.status, error.code), (EXIT_FAILED, ErrorCode::InvalidModel), "{error:?}");
}
