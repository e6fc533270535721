#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Instant};

use super::*;
use crate::{environment, testing::is_alive};

struct Stage {
    folder: tempfile::TempDir,
    program: PathBuf,
}

/// A shell script that stands in for the engine: it is called with `train FOLDER` and runs in FOLDER.
fn stage(script: &str) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("engine.sh");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Stage { folder, program }
}

impl Stage {
    async fn start(&self) -> Engine {
        let log = self.folder.path().join("engine.log");
        let environment = environment::allowed(std::env::vars_os());
        Engine::start(&self.program, ("train", self.folder.path()), &log, environment).await.unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    async fn wait_for(&self, name: &str) -> String {
        let start = Instant::now();
        while self.read(name).trim().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "{name} was not written");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.read(name).trim().to_owned()
    }
}

async fn is_gone(pid: &str) -> bool {
    let start = Instant::now();
    while is_alive(pid) {
        if start.elapsed() > Duration::from_secs(5) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

#[tokio::test]
async fn hears_commands_and_ends_with_a_status() {
    let stage = stage("echo \"$1 $2\" > args; head -n 1 > heard; echo oops >&2; exit 11");
    let mut engine = stage.start().await;
    engine.tell(EngineCommand::Hold).await;
    assert_eq!(engine.wait().await.unwrap(), EngineExit::Status(11));
    assert_eq!(stage.read("heard").trim(), r#"{"type":"hold"}"#);
    assert_eq!(stage.read("args").trim(), format!("train {}", stage.folder.path().display()));
    assert_eq!(stage.read("engine.log").trim(), "oops");
    engine.kill();
}

#[tokio::test]
async fn sees_only_what_is_allowed() {
    let stage = stage("env > environment");
    // SAFETY: the test process reads this variable nowhere else.
    unsafe { std::env::set_var("FINETUNED_DATABASE_URL", "postgres://secret") };
    let mut engine = stage.start().await;
    engine.wait().await.unwrap();
    let seen = stage.read("environment");
    assert!(seen.contains("PATH="), "{seen}");
    assert!(!seen.contains("FINETUNED") && !seen.contains("CARGO"), "{seen}");
}

#[tokio::test]
async fn killing_takes_its_children_along() {
    let stage = stage("sleep 600 & echo $! > child; wait");
    let mut engine = stage.start().await;
    let child = stage.wait_for("child").await;
    assert!(is_alive(&child));
    engine.kill();
    assert_eq!(engine.wait().await.unwrap(), EngineExit::Signal(9));
    assert!(is_gone(&child).await);
}

#[tokio::test]
async fn what_it_leaves_behind_is_killed() {
    let stage = stage("sleep 600 & echo $! > child; exit 0");
    let mut engine = stage.start().await;
    assert_eq!(engine.wait().await.unwrap(), EngineExit::Status(0));
    assert!(is_gone(stage.read("child").trim()).await);
}

#[tokio::test]
async fn a_dropped_engine_is_dead() {
    let stage = stage("echo $$ > self; sleep 600");
    let engine = stage.start().await;
    let own = stage.wait_for("self").await;
    drop(engine);
    assert!(is_gone(&own).await);
}

#[tokio::test]
async fn asks_the_kernel_to_die_with_its_worker() {
    // 1 is PR_GET_PDEATHSIG's answer in python's ctypes; the shell has no word for it.
    let stage = stage(
        "exec python3 -c 'import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); \
         open(\"signal\", \"w\").write(str(n.value))'",
    );
    let mut engine = stage.start().await;
    engine.wait().await.unwrap();
    assert_eq!(stage.read("signal"), "9");
}

#[test]
fn outlives_the_runtime_thread_that_asked_for_it() {
    let stage = stage("echo $$ > self; read line; echo \"$line\" > heard");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut engine = runtime.block_on(async {
        // Asked for from a thread that ends at once.
        let handle = tokio::runtime::Handle::current();
        let (program, folder) = (stage.program.clone(), stage.folder.path().to_owned());
        let start = move || {
            handle.block_on(Engine::start(&program, ("train", &folder), &folder.join("engine.log"), Vec::new()))
        };
        std::thread::spawn(start).join().unwrap().unwrap()
    });
    std::thread::sleep(Duration::from_millis(100));
    runtime.block_on(async {
        engine.tell(EngineCommand::Cancel).await;
        assert_eq!(engine.wait().await.unwrap(), EngineExit::Status(0));
    });
    assert_eq!(stage.read("heard").trim(), r#"{"type":"cancel"}"#);
}
