//! A folder with a tiny random Llama and rows, and runs in it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    cell::RefCell,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use finetuned_protocol::{
    engine::{EngineCommand, EngineEvent, EngineJob, EngineLine, JOB_FILE},
    spec::TrainingSpec,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    control::Control,
    run::{Work, run},
    testing,
};

const ROWS: usize = 16;

/// A folder to run in; gone when dropped.
pub struct Folder {
    pub dir: TempDir,
    pub job: EngineJob,
}

/// What a run left behind.
pub struct Ran {
    pub status: i32,
    pub events: Vec<EngineEvent>,
}

impl Folder {
    pub fn new(spec: TrainingSpec) -> Self {
        Self::of_rows(spec, &rows())
    }

    /// A folder whose training file has these rows.
    pub fn of_rows(spec: TrainingSpec, rows: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-chat");
        symlink(base.canonicalize().unwrap(), dir.path().join("base")).unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data/train"), rows).unwrap();
        let folder = Self { dir, job: EngineJob { spec, ..testing::job() } };
        folder.write_job();
        folder
    }

    pub fn write_job(&self) {
        fs::write(self.path().join(JOB_FILE), serde_json::to_vec(&self.job).unwrap()).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn checkpoint(&self, step: u32) -> PathBuf {
        self.path().join(format!("checkpoints/step-{step}"))
    }

    pub fn adapter(&self) -> Vec<u8> {
        fs::read(self.path().join("adapter/adapter_model.safetensors")).unwrap()
    }

    pub fn run(&self) -> Ran {
        self.run_with(|_, _| {})
    }

    /// Has both models answer, after a run that exported.
    pub fn evaluate(&self) -> Ran {
        self.work_with(Work::Evaluate, |_, _| {})
    }

    /// Runs; `watch` sees every event as it is written, and may give commands.
    pub fn run_with(&self, watch: impl FnMut(&EngineEvent, &Control) + 'static) -> Ran {
        self.work_with(Work::Train, watch)
    }

    fn work_with(&self, work: Work, mut watch: impl FnMut(&EngineEvent, &Control) + 'static) -> Ran {
        let control = Arc::new(Control::default());
        let events = Rc::new(RefCell::new(Vec::new()));
        let (sink, commands) = (Rc::clone(&events), Arc::clone(&control));
        let copy = move |line: &EngineLine, _: &[u8]| {
            watch(&line.event, &commands);
            sink.borrow_mut().push(line.event.clone());
        };
        let status = run(work, self.path(), &control, Box::new(copy));
        Ran { status, events: events.take() }
    }

    /// Runs until the first event for which `at` holds, then gives a command.
    pub fn run_until(&self, command: EngineCommand, at: impl Fn(&EngineEvent) -> bool + 'static) -> Ran {
        self.run_with(move |event, control| {
            if at(event) {
                control.obey(command);
            }
        })
    }
}

impl Ran {
    pub fn last(&self) -> &EngineEvent {
        self.events.last().unwrap()
    }

    /// Training loss of each step.
    pub fn losses(&self) -> Vec<(u32, f64)> {
        let of = |event: &EngineEvent| match event {
            EngineEvent::Step { step, train_loss, .. } => Some((*step, *train_loss)),
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }

    pub fn warnings(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                EngineEvent::Warning { code, .. } => Some(code.as_str()),
                _ => None,
            })
            .collect()
    }
}

/// [`rows`] with a weight for each.
pub fn weighted_rows(weight: impl Fn(usize) -> f64) -> String {
    let line = |index| {
        let (instruction, output) = row(index);
        format!("{}\n", json!({"instruction": instruction, "output": output, "weight": weight(index)}))
    };
    (0..ROWS).map(line).collect()
}

/// Pairs: the better answer is that of [`rows`], the other one its words in reverse and one more.
pub fn pairs() -> String {
    let line = |index| {
        let (prompt, chosen) = row(index);
        let rejected = chosen.split(' ').rev().chain(["no"]).collect::<Vec<_>>().join(" ");
        format!("{}\n", json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    };
    (0..ROWS).map(line).collect()
}

/// Documents, some of them longer than a short `max_seq_len`.
pub fn documents() -> String {
    let line = |index: usize| {
        let sentences: Vec<String> =
            (0..1 + index % 4).map(|n| row(index + n)).map(|(a, b)| format!("{a} {b}.")).collect();
        format!("{}\n", json!({"text": format!("{index} {}", sentences.join(" "))}))
    };
    (0..ROWS).map(line).collect()
}

/// Words that a row's numbers choose; every row is another one, and its answer follows from its question.
fn row(index: usize) -> (String, String) {
    let word = |n: usize| ["sun", "moon", "star", "sea", "hill", "tree", "bird"][n % 7];
    let words = |from: usize, count: usize| (from..from + count).map(word).collect::<Vec<_>>().join(" ");
    (words(3 * index, 1 + index / 7), words(3 * index + 1, 2 + index % 3))
}

/// Questions with answers.
pub fn rows() -> String {
    let line = |index| {
        let (instruction, output) = row(index);
        format!("{}\n", json!({"instruction": instruction, "input": "", "output": output}))
    };
    (0..ROWS).map(line).collect()
}
