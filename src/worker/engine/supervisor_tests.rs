#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use finetuned_protocol::engine::{EngineEvent, EngineLine};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, unbounded_channel},
        watch,
    },
    task::JoinHandle,
};

use super::*;
use crate::{
    environment,
    lease::{Beat, LeaseKeeper},
    testing::{fake_engine, is_alive},
};

/// What the database answers to heartbeats, set by a test.
const HELD: u8 = 0;
const SILENT: u8 = 1;
const LOST: u8 = 2;
const PAUSE: u8 = 3;

struct Scene {
    folder: tempfile::TempDir,
    answer: Arc<AtomicU8>,
    shutdown: CancellationToken,
    trouble: CancellationToken,
    lines: UnboundedReceiver<EngineLine>,
    end: JoinHandle<EngineEnd>,
    _keeper: LeaseKeeper,
}

fn timings() -> WorkerTimings {
    let fast = WorkerTimings::default().scaled(0.02);
    WorkerTimings { watchdog_least: Duration::from_millis(800), stop_grace: Duration::from_millis(800), ..fast }
}

async fn play(script: &str) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let program = fake_engine(folder.path(), script);
    let log = folder.path().join("engine.log");
    let allowed = environment::allowed(std::env::vars_os());
    let engine = Engine::start(&program, ("train", folder.path()), &log, allowed).await.unwrap();
    let answer = Arc::new(AtomicU8::new(HELD));
    let answers = Arc::clone(&answer);
    let beat = move || {
        let answer = answers.load(Ordering::SeqCst);
        async move {
            match answer {
                LOST => Beat::Lost,
                SILENT => Beat::Silent,
                other => Beat::Held { pause_requested: other == PAUSE },
            }
        }
    };
    let keeper = LeaseKeeper::start(beat, watch::channel(0).1, timings());
    let (sender, lines) = unbounded_channel();
    let (shutdown, trouble) = (CancellationToken::new(), CancellationToken::new());
    let supervisor = Supervisor {
        engine,
        lines: EngineLines::new(folder.path(), sender),
        watchdog: Watchdog::new(timings().watchdog_least, Duration::ZERO),
        lease: keeper.watch(),
        shutdown: shutdown.clone(),
        trouble: trouble.clone(),
        timings: timings(),
    };
    let end = tokio::spawn(supervisor.run());
    Scene { folder, answer, shutdown, trouble, lines, end, _keeper: keeper }
}

impl Scene {
    fn set(&self, answer: u8) {
        self.answer.store(answer, Ordering::SeqCst);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn heard(&self) -> String {
        fs::read_to_string(self.path("heard")).unwrap_or_default().trim().replace('\n', " ")
    }

    /// Waits until the engine has written `count` lines.
    async fn lines(&mut self, count: usize) -> Vec<EngineLine> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let line = tokio::time::timeout(Duration::from_secs(10), self.lines.recv()).await.unwrap();
            lines.push(line.unwrap());
        }
        lines
    }

    async fn end(self) -> (EngineEnd, Vec<EngineLine>, String) {
        let heard_before = self.path("heard");
        let end = tokio::time::timeout(Duration::from_secs(20), self.end).await.unwrap().unwrap();
        let mut lines = self.lines;
        let mut rest = Vec::new();
        while let Some(line) = lines.recv().await {
            rest.push(line);
        }
        let heard = fs::read_to_string(heard_before).unwrap_or_default().trim().replace('\n', " ");
        (end, rest, heard)
    }
}

#[tokio::test]
async fn lines_are_read_to_the_last_one() {
    let scene = play("for n in range(50): progress(n)\nemit('stopped', step=3)").await;
    let (end, lines, heard) = scene.end().await;
    assert!(matches!(end, EngineEnd::Exited { exit: EngineExit::Status(0), told: None }), "{end:?}");
    assert_eq!(lines.len(), 51);
    assert_eq!(lines[50].event, EngineEvent::Stopped { step: 3 });
    assert_eq!(heard, "");
}

#[tokio::test]
async fn a_crash_is_its_signal() {
    let scene = play("progress(1)\nos.kill(os.getpid(), 11)").await;
    let (end, lines, _) = scene.end().await;
    assert!(matches!(end, EngineEnd::Exited { exit: EngineExit::Signal(11), told: None }), "{end:?}");
    assert_eq!(lines.len(), 1);
}

#[tokio::test]
async fn a_stuck_engine_is_killed_and_a_slow_one_is_not() {
    // Slower in all than the watchdog's limit, each mark within it; then nothing more.
    let script = "open(folder + '/pid', 'w').write(str(os.getpid()))\n\
                  for n in range(5): progress(n); time.sleep(0.3)\ntime.sleep(600)";
    let scene = play(script).await;
    let pid = scene.path("pid");
    let start = Instant::now();
    let alive = async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        fs::read_to_string(&pid).unwrap()
    };
    let pid = alive.await;
    let (end, lines, _) = scene.end().await;
    assert!(matches!(end, EngineEnd::Stuck { .. }), "{end:?}");
    assert!(start.elapsed() > Duration::from_millis(4 * 300 + 800));
    assert_eq!(lines.len(), 5);
    assert!(!is_alive(&pid));
}

#[tokio::test]
async fn a_lost_lease_kills_at_once() {
    let mut scene = play("progress(1)\nwhile True: progress(2); time.sleep(0.05)").await;
    scene.lines(2).await;
    scene.set(LOST);
    let (end, _, heard) = scene.end().await;
    assert!(matches!(end, EngineEnd::LeaseLost), "{end:?}");
    assert_eq!(heard, "", "it is told nothing, and asked nothing");
}

#[tokio::test]
async fn while_the_database_is_away_the_engine_is_held_and_nobody_calls_it_stuck() {
    let script = "progress(1)\nwait_for('hold')\nwait_for('continue')\nprogress(2)\ntime.sleep(0.1)";
    let mut scene = play(script).await;
    scene.lines(1).await;
    scene.set(SILENT);
    // Longer than expiry and watchdog together.
    tokio::time::sleep(timings().expiry + timings().watchdog_least + Duration::from_millis(600)).await;
    assert_eq!(scene.heard(), "hold");
    scene.set(HELD);
    let (end, lines, heard) = scene.end().await;
    assert!(matches!(end, EngineEnd::Exited { exit: EngineExit::Status(0), told: None }), "{end:?}");
    assert_eq!((lines.len(), heard.as_str()), (1, "hold continue"));
}

#[tokio::test]
async fn back_with_anothers_epoch_the_engine_is_killed() {
    let mut scene = play("progress(1)\nwait_for('hold')\nprogress(2)\nwait_for('continue')").await;
    scene.lines(1).await;
    scene.set(SILENT);
    scene.lines(1).await;
    scene.set(LOST);
    let (end, _, heard) = scene.end().await;
    assert!(matches!(end, EngineEnd::LeaseLost), "{end:?}");
    assert_eq!(heard, "hold");
}

const STOPS: &str = "progress(1)\nwait_for('stop_with_checkpoint')\nemit('stopped', step=7)";

#[tokio::test]
async fn a_pause_stops_with_a_checkpoint() {
    let mut scene = play(STOPS).await;
    scene.lines(1).await;
    scene.set(PAUSE);
    let (end, lines, heard) = scene.end().await;
    assert!(matches!(end, EngineEnd::Exited { exit: EngineExit::Status(0), told: Some(Told::Pause) }), "{end:?}");
    assert_eq!(lines[0].event, EngineEvent::Stopped { step: 7 });
    assert_eq!(heard, "stop_with_checkpoint");
}

#[tokio::test]
async fn a_shutdown_stops_with_a_checkpoint() {
    let mut scene = play(STOPS).await;
    scene.lines(1).await;
    scene.shutdown.cancel();
    let (end, _, heard) = scene.end().await;
    assert!(matches!(end, EngineEnd::Exited { exit: EngineExit::Status(0), told: Some(Told::Shutdown) }), "{end:?}");
    assert_eq!(heard, "stop_with_checkpoint");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let mut scene = play("progress(1)\nwhile True: progress(2); time.sleep(0.05)").await;
    scene.lines(1).await;
    scene.shutdown.cancel();
    let start = Instant::now();
    let (end, ..) = scene.end().await;
    assert!(matches!(end, EngineEnd::Exited { exit: EngineExit::Signal(9), told: Some(Told::Shutdown) }), "{end:?}");
    assert!(start.elapsed() >= timings().stop_grace);
}

#[tokio::test]
async fn an_engine_that_nobody_reports_is_killed() {
    let mut scene = play("progress(1)\ntime.sleep(600)").await;
    scene.lines(1).await;
    scene.trouble.cancel();
    let (end, ..) = scene.end().await;
    assert!(matches!(end, EngineEnd::Abandoned), "{end:?}");
}
