//! Runs that meet too little memory and numbers that are not finite.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use finetuned_protocol::{
    engine::{EngineCommand, EngineEvent, EngineLine},
    error::ErrorCode,
    spec::TrainingSpec,
};
use finetuned_torch::{Kind, tch::Tensor};
use serde_json::json;

use crate::{
    control::Control,
    run::{Work, run},
    testing::spec,
    testing_folder::Folder,
};

/// Set for a child process: the folder to run in, and how many MiB more than it holds it may have.
const CHILD_FOLDER: &str = "FINETUNED_TEST_FOLDER";
const CHILD_HEADROOM: &str = "FINETUNED_TEST_HEADROOM_MIB";
/// And the step after which it is to stop.
const CHILD_STOP: &str = "FINETUNED_TEST_STOP";

const ROWS: u32 = 40;

/// Batches of 32 rows of 400 tokens, all of them computed at once by one thread: more would be made under the limit.
fn wide_folder() -> Folder {
    let mut settings = TrainingSpec { batch_size: 32, micro_batch_size: 32, total_steps: 2, n_epochs: 2, ..spec() };
    settings.preparation.max_seq_len = 400;
    settings.answers.rows = 0;
    settings.evaluate_every = 2;
    settings.checkpoint_every = 2;
    let mut folder = Folder::new(settings);
    folder.job.threads = 1;
    folder.write_job();
    let row = |index: u32| {
        let words = (0..200).map(|place| ["sun", "moon", "star", "sea"][((index + place * 7) % 4) as usize]);
        let text = words.collect::<Vec<_>>().join(" ");
        format!("{}\n", json!({"instruction": format!("row {index}"), "input": "", "output": text}))
    };
    fs::write(folder.path().join("data/train"), (0..ROWS).map(row).collect::<String>()).unwrap();
    folder
}

fn used_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// In the child: runs in its folder, with little more memory than it holds when training begins.
fn run_as_child() -> bool {
    let Ok(folder) = env::var(CHILD_FOLDER) else { return false };
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (headroom, stop) = (number(CHILD_HEADROOM).unwrap() << 20, number(CHILD_STOP));
    let control = Arc::new(Control::default());
    let commands = Arc::clone(&control);
    let copy = move |line: &EngineLine, _: &[u8]| match &line.event {
        EngineEvent::Started { .. } => {
            let limit = used_bytes() + headroom;
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // SAFETY: the structure is whole and outlives the call.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
        }
        EngineEvent::Step { step, .. } if Some(u64::from(*step)) == stop => {
            commands.obey(EngineCommand::StopWithCheckpoint);
        }
        _ => {}
    };
    run(Work::Train, Path::new(&folder), &control, Box::new(copy));
    true
}

/// Runs a test of this file in a process of its own, which is to call [`run_as_child`].
fn events_of_child(test: &str, folder: &Folder, headroom_mib: u32, stop: Option<u32>) -> Vec<EngineEvent> {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([&format!("bad_input_tests::{test}"), "--exact", "--nocapture", "--test-threads=1"]);
    // Arenas of other threads would reserve address space that nothing needs.
    command.env("MALLOC_ARENA_MAX", "1").env(CHILD_FOLDER, folder.path());
    command.env(CHILD_HEADROOM, headroom_mib.to_string());
    if let Some(step) = stop {
        command.env(CHILD_STOP, step.to_string());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str::<EngineLine>(line).unwrap().event).collect()
}

fn warnings(events: &[EngineEvent]) -> Vec<String> {
    let of = |event: &EngineEvent| match event {
        EngineEvent::Warning { code, message } => Some(format!("{code}: {message}")),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn a_micro_batch_that_does_not_fit_is_halved_and_stays_so() {
    const TEST: &str = "a_micro_batch_that_does_not_fit_is_halved_and_stays_so";
    if run_as_child() {
        return;
    }
    let free = wide_folder();
    let unlimited = free.run();
    assert!(unlimited.warnings().is_empty(), "{:?}", unlimited.events);

    let tight = wide_folder();
    let events = events_of_child(TEST, &tight, HEADROOM_MIB, None);
    let told = warnings(&events);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("out_of_memory: memory ran out with 32 rows computed at once: from here on it is 16"));
    assert!(matches!(events.last(), Some(EngineEvent::Finished { .. })), "{:?}", events.last());
    let losses = crate::testing_folder::Ran { status: 0, events }.losses();
    for ((step, ours), (_, wanted)) in losses.iter().zip(unlimited.losses()) {
        assert!((ours - wanted).abs() < 1e-5, "step {step}: {ours} is not {wanted}");
    }
    assert_eq!(losses.len(), 2);

    // Interrupted, it goes on with the halved micro-batch, whatever memory there is by then.
    let interrupted = wide_folder();
    let events = events_of_child(TEST, &interrupted, HEADROOM_MIB, Some(1));
    assert_eq!(events.last(), Some(&EngineEvent::Stopped { step: 1 }));
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(interrupted.checkpoint(1).join("state.json")).unwrap()).unwrap();
    assert_eq!(state["micro_batch_size"], 16);
    assert!(interrupted.run().warnings().is_empty());
    assert!(interrupted.adapter() == tight.adapter(), "the resumed run is another");
}

/// Between what a half and the whole of a batch need.
const HEADROOM_MIB: u32 = 72;

#[test]
fn memory_that_is_too_little_for_an_eighth_ends_the_job() {
    if run_as_child() {
        return;
    }
    let folder = wide_folder();
    let events = events_of_child("memory_that_is_too_little_for_an_eighth_ends_the_job", &folder, 8, None);
    let told = warnings(&events);
    let halved: Vec<&str> = told.iter().map(|text| text.split(" from here on it is ").nth(1).unwrap()).collect();
    assert_eq!(halved.len(), 3, "{told:?}");
    for (text, rows) in halved.iter().zip(["16,", "8,", "4,"]) {
        assert!(text.starts_with(rows), "{text}");
    }
    let Some(EngineEvent::Failed { error, .. }) = events.last() else { panic!("{:?}", events.last()) };
    assert_eq!(error.code, ErrorCode::OutOfMemory);
    assert!(error.hint.as_ref().unwrap().contains("micro_batch_size"), "{error:?}");
}

/// A copy of the base model in which the embedding of one token is not a number.
fn poison(folder: &Folder, token: i64) -> PathBuf {
    let base = folder.path().join("base");
    let source = fs::canonicalize(&base).unwrap();
    fs::remove_file(&base).unwrap();
    fs::create_dir(&base).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), base.join(entry.file_name())).unwrap();
    }
    let file = base.join("model.safetensors");
    let tensors = Tensor::read_safetensors(&file).unwrap();
    let mut kept: Vec<(String, Tensor)> =
        tensors.into_iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::Float))).collect();
    // The output head is the embedding, so it is told apart first.
    let embedding = kept.iter().find(|(name, _)| name == "model.embed_tokens.weight").unwrap().1.copy();
    kept.push(("lm_head.weight".to_owned(), embedding));
    for (name, tensor) in &kept {
        if name == "model.embed_tokens.weight" {
            let _ = tensor.get(token).fill_(f64::NAN);
        }
    }
    Tensor::write_safetensors(&kept, &file).unwrap();
    let config = fs::read_to_string(base.join("config.json")).unwrap();
    let config = config.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    fs::write(base.join("config.json"), config).unwrap();
    base
}

#[test]
fn a_step_that_is_not_finite_changes_nothing_and_is_counted() {
    // `~` stands in one training row only, so one step of each epoch is skipped.
    let mut settings = spec();
    settings.preparation.eval_fraction = 0.1;
    settings.answers.rows = 0;
    let folder = Folder::new(settings);
    poison(&folder, token_of('~'));
    let data = folder.path().join("data/train");
    let rows = fs::read_to_string(&data).unwrap();
    let odd = json!({"instruction": "odd", "input": "", "output": "~"});
    fs::write(&data, format!("{rows}{odd}\n")).unwrap();
    let ran = folder.run();
    let EngineEvent::Finished { .. } = ran.last() else { panic!("{:?}", ran.last()) };
    let skipped = ran.warnings();
    assert!(!skipped.is_empty() && skipped.iter().all(|code| *code == "non_finite_step"), "{skipped:?}");
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.checkpoint(6).join("state.json")).unwrap()).unwrap();
    assert_eq!(state["step"].as_u64().unwrap() - state["updates"].as_u64().unwrap(), skipped.len() as u64);
    assert_eq!(ran.losses().len() + skipped.len(), 6);
}

fn token_of(character: char) -> i64 {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-chat");
    let source = finetuned_weights::ModelSource::open(&base).unwrap();
    let ids = source.tokenizer().unwrap().encode(&character.to_string()).unwrap();
    assert_eq!(ids.len(), 1);
    i64::from(ids[0])
}
