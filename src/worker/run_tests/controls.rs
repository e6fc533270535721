use std::time::Instant;

use super::*;
use crate::testing::is_alive;

/// Trains for ever, but stops as told; a resumed attempt trains to its end.
const STOPS: &str = r#"
place = os.path.join(folder, "checkpoints")
if os.path.isdir(place):
    open(own + "/resumed", "w").write(open(place + "/step-2/state").read())
    started(total_steps=3, resumed=2)
    step(3)
    exported()
    finished()
    sys.exit(0)
started(total_steps=3)
step(1)
step(2)
open(own + "/pid", "w").write(str(os.getpid()))
wait_for("stop_with_checkpoint")
checkpoint(2, text="stopped here")
emit("stopped", step=2)
"#;

#[tokio::test]
async fn a_cancel_kills_the_engine_at_once() {
    let script =
        "started()\nopen(own + '/pid', 'w').write(str(os.getpid()))\nwhile True: progress(1); time.sleep(0.05)";
    let scene = Scene::new(script).await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    let pid = scene.until_file("pid").await;
    assert!(is_alive(&pid));
    scene.store().cancel_job(scene.tenant, job.id).await.unwrap();
    let cancelled = Instant::now();
    while is_alive(&pid) {
        assert!(cancelled.elapsed() < Duration::from_secs(2), "the engine lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let told = scene.messages(job.id).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(scene.messages(job.id).await, told, "no late write");
    worker.end().await;
    assert_eq!(scene.get(job.id).await.status, JobStatus::Cancelled);
    assert_eq!(scene.leftovers(), 0);
}

#[tokio::test]
async fn a_paused_job_goes_on_where_it_stopped() {
    let scene = Scene::new(STOPS).await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    scene.until_file("pid").await;
    scene.store().pause_job(scene.tenant, job.id).await.unwrap();
    let paused = scene.until(job.id, |job| job.paused).await;
    assert_eq!((paused.status, paused.error), (JobStatus::Queued, None));
    assert!(!scene.path("resumed").exists());
    scene.store().resume_job(scene.tenant, job.id).await.unwrap();
    scene.until_status(job.id, JobStatus::Succeeded).await;
    worker.end().await;
    assert_eq!(fs::read_to_string(scene.path("resumed")).unwrap(), "stopped here");
}

#[tokio::test]
async fn a_shutdown_saves_and_another_worker_goes_on() {
    let scene = Scene::new(STOPS).await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    let pid = scene.until_file("pid").await;
    worker.end().await;
    assert!(!is_alive(&pid));
    assert_eq!(scene.get(job.id).await.status, JobStatus::Queued);
    assert_eq!(scene.leftovers(), 0);
    let other = scene.start(TaskKind::Train);
    scene.until_status(job.id, JobStatus::Succeeded).await;
    other.end().await;
    assert_eq!(fs::read_to_string(scene.path("resumed")).unwrap(), "stopped here");
}

#[tokio::test]
async fn a_vanished_worker_leaves_no_engine_and_its_task_runs_again() {
    let script = format!(
        "if not os.path.exists(own + '/pid'):\n    started()\n    step(1)\n    checkpoint(1)\n    \
         open(own + '/pid', 'w').write(str(os.getpid()))\n    while True: progress(1); time.sleep(0.05)\n{TRAINS}"
    );
    let scene = Scene::new(&script).await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    let pid = scene.until_file("pid").await;
    // As near to a kill as one process can come to itself: nothing of the worker runs on.
    worker.ended.abort();
    let _ = worker.ended.await;
    let start = Instant::now();
    while is_alive(&pid) {
        assert!(start.elapsed() < Duration::from_secs(5), "the engine lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let other = scene.start(TaskKind::Train);
    scene.until_status(job.id, JobStatus::Succeeded).await;
    other.end().await;
    let told = scene.messages(job.id).await;
    assert!(told.iter().any(|message| message.starts_with("The worker went silent")), "{told:#?}");
}

#[tokio::test]
async fn a_worker_with_nothing_to_do_ends_when_told() {
    let scene = Scene::new("").await;
    let worker = scene.start(TaskKind::Train);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    worker.end().await;
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_said_at_the_start() {
    let scene = Scene::new("").await;
    let options = WorkerOptions { engine_program: scene.path("no-engine"), ..scene.options(TaskKind::Train) };
    let error = run(scene.store().clone(), options, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, WorkerError::EngineProgram { .. }), "{error}");
}
