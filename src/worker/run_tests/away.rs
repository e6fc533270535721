use super::{proxy::Proxy, *};
use crate::testing::is_alive;

/// Writes what it hears; takes two steps while held, as an engine that is slow to hear would; ends when let go on.
const HOLDS: &str = r#"
started(total_steps=3)
step(1)
open(own + "/pid", "w").write(str(os.getpid()))
wait_for("hold")
step(2)
checkpoint(2, text="made while away")
open(own + "/held", "w").write("x")
wait_for("continue")
step(3)
exported()
finished()
"#;

#[tokio::test]
async fn a_database_away_holds_the_engine_and_nothing_is_lost() {
    let scene = Scene::new(HOLDS).await;
    let job = scene.validated_job().await;
    let (mut proxy, store) = Proxy::new(&scene).await;
    let worker = scene.start_on(store, scene.options(TaskKind::Train));
    scene.until_file("pid").await;
    scene.until_status(job.id, JobStatus::Running).await;
    proxy.cut();
    scene.until_file("held").await;
    // Longer than expiry and watchdog: the engine is kept alive, and nobody else scans.
    tokio::time::sleep(LEASES.expiry * 2).await;
    assert_eq!(scene.get(job.id).await.status, JobStatus::Running);
    proxy.mend();
    scene.until_status(job.id, JobStatus::Succeeded).await;
    worker.end().await;
    let told = scene.messages(job.id).await;
    for step in 1..=3 {
        let count = told.iter().filter(|message| message.starts_with(&format!("Step {step}/3"))).count();
        assert_eq!(count, 1, "{told:#?}");
    }
    assert!(told.contains(&"Checkpoint created at step 2".to_owned()), "{told:#?}");
    assert_eq!(told.iter().filter(|message| message.starts_with("Fine-tuning job")).count(), 1, "one attempt");
}

#[tokio::test]
async fn back_with_a_task_that_is_anothers_the_engine_is_killed() {
    let script = format!("if os.path.exists(own + '/pid'):\n    {}\n{HOLDS}", TRAINS.trim().replace('\n', "\n    "));
    let script = script.replacen("finished()\n", "finished()\n    sys.exit(0)\n", 1);
    let scene = Scene::new(&script).await;
    let job = scene.validated_job().await;
    let (mut proxy, store) = Proxy::new(&scene).await;
    let cut_off = scene.start_on(store, scene.options(TaskKind::Train));
    let pid = scene.until_file("pid").await;
    proxy.cut();
    scene.until_file("held").await;
    // Another worker, whose database is there, takes the task over and finishes it.
    let other = scene.start(TaskKind::Train);
    scene.until_status(job.id, JobStatus::Succeeded).await;
    let told = scene.messages(job.id).await;
    assert!(is_alive(&pid), "held, not killed: it cannot know yet");
    proxy.mend();
    let start = Instant::now();
    while is_alive(&pid) {
        assert!(start.elapsed() < Duration::from_secs(5), "the engine lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(scene.messages(job.id).await, told, "no late write");
    let page = scene.store().list_checkpoints(scene.tenant, job.id, None, 10).await.unwrap();
    let newest = page.data.iter().find(|checkpoint| checkpoint.step == 2).unwrap();
    let state = newest.files.iter().find(|file| file.name == "state").unwrap();
    assert_eq!(scene.store().get_blob_bytes(state.content.id).await.unwrap(), "weights of 2");
    cut_off.end().await;
    other.end().await;
}
