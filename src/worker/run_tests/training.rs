use finetuned_protocol::{engine::EngineJob, error::ErrorCode, text_metric::TextMetric};
use finetuned_store::MetricQuery;

use super::*;

#[tokio::test]
async fn a_job_is_trained_and_published() {
    let script = format!("import shutil\nshutil.copy(folder + '/job.json', own)\n{TRAINS}");
    let scene = Scene::new(&script).await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    let done = scene.until_status(job.id, JobStatus::Succeeded).await;
    worker.end().await;
    assert_eq!((done.trained_tokens, done.error), (Some(300), None));
    assert!(done.parity.is_some());
    // The worker judged what the engine answered.
    let answers = done.evaluation.and_then(|evaluation| evaluation.answers).unwrap();
    assert_eq!(answers.metrics[&TextMetric::ExactMatch].comparison.difference, 1.0);
    assert_eq!(answers.answers[0].base_categories, ["too_long"]);
    assert_eq!((answers.categories["too_long"].comparison.base, answers.categories.len()), (1.0, 10));
    assert_eq!(
        answers.not_judged,
        [
            "misspelled: this worker has no dictionary",
            "embedding_cosine, embedding_token_f1: this worker has no text encoder"
        ]
    );
    assert_eq!(done.fine_tuned_model, Some(job.tuned_model_name()));
    let told = scene.messages(job.id).await;
    let start = told.iter().position(|message| message.starts_with("Fine-tuning job started")).unwrap();
    assert_eq!(
        told[start..].iter().filter(|message| !message.starts_with("The adapter was")).collect::<Vec<_>>(),
        [
            "Fine-tuning job started on cpu with 1 thread: 4 rows",
            "Step 0/3: validation loss=1.00, perplexity=2.70, token accuracy=0.50",
            "Step 1/3: training loss=3.00",
            "Checkpoint created at step 1",
            "Step 2/3: training loss=2.00",
            "Checkpoint created at step 2",
            "Step 3/3: training loss=1.00",
            "Checkpoint created at step 3",
            "Step 3/3: validation loss=1.00, perplexity=2.70, token accuracy=0.50",
            &format!("New fine-tuned model created: {}", job.tuned_model_name()),
            "The job has successfully completed",
        ]
    );
    let artifacts = scene.store().artifacts(scene.tenant, job.id).await.unwrap();
    assert_eq!(artifacts.len(), 1);
    assert_eq!(scene.store().get_blob_bytes(artifacts[0].content.id).await.unwrap(), "adapter");
    let file = scene.store().get_file(scene.tenant, done.result_files[0]).await.unwrap();
    assert_eq!(file.purpose, "fine-tune-results");
    let csv = scene.store().get_blob_bytes(file.content.id).await.unwrap();
    assert_eq!(
        csv,
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n\
         0,,,1,0.5\n1,3,0.5,,\n2,2,0.5,,\n3,1,0.5,1,0.5\n"
    );
    let page = scene.store().list_checkpoints(scene.tenant, job.id, None, 10).await.unwrap();
    assert_eq!(page.data.iter().map(|checkpoint| checkpoint.step).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(page.data[0].metrics["train_loss"], 1.5);
    let told: EngineJob = serde_json::from_slice(&fs::read(scene.path("job.json")).unwrap()).unwrap();
    assert_eq!((told.job_id, told.base_model.as_str()), (job.id, fixtures::MODEL));
    assert_eq!(scene.leftovers(), 0);
}

#[tokio::test]
async fn a_crash_goes_on_from_the_newest_checkpoint() {
    let script = r#"
place = os.path.join(folder, "checkpoints")
if not os.path.isdir(place):
    started(total_steps=3)
    step(1, loss=3.0)
    checkpoint(1, text="weights of 1")
    step(2, loss=9.0)
    time.sleep(0.3)
    os.kill(os.getpid(), 11)
open(own + "/resumed", "w").write(open(place + "/step-1/state").read())
started(total_steps=3, resumed=1)
step(2, loss=2.0)
step(3, loss=1.0)
exported()
finished()
"#;
    let scene = Scene::new(script).await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    scene.until_status(job.id, JobStatus::Succeeded).await;
    worker.end().await;
    assert_eq!(fs::read_to_string(scene.path("resumed")).unwrap(), "weights of 1");
    let told = scene.messages(job.id).await;
    assert!(told.iter().any(|message| message.contains("signal 11 (segmentation fault)")), "{told:#?}");
    assert!(told.iter().any(|message| message == "Fine-tuning job resumed at step 1/3 on cpu with 1 thread"));
    let steps: Vec<&String> = told.iter().filter(|message| message.starts_with("Step 2/3")).collect();
    assert_eq!(steps.len(), 1, "a step that is taken again is told once");
    let series = scene
        .store()
        .metrics(scene.tenant, job.id, MetricQuery { names: &["train_loss".to_owned()], ..MetricQuery::ALL })
        .await
        .unwrap();
    let losses: Vec<f64> = series[0].points.iter().map(|point| point.value).collect();
    assert_eq!(losses, [3.0, 2.0, 1.0], "the newer attempt's number stands");
}

#[tokio::test]
async fn an_engine_that_always_crashes_fails_its_job_with_its_log() {
    let scene = Scene::new("started()\nstep(1)\nprint('the last line', file=sys.stderr)\nsys.exit(3)").await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    let failed = scene.until_status(job.id, JobStatus::Failed).await;
    worker.end().await;
    let error = failed.error.unwrap();
    assert_eq!(error.code, ErrorCode::EngineCrashed);
    assert_eq!(error.message, "The engine died after step 1 by exit status 3");
    assert_eq!(error.details, ["the last line"]);
}

#[tokio::test]
async fn a_failure_by_its_own_word_is_not_tried_again() {
    let script = "open(own + '/runs', 'a').write('x')\nstarted()\n\
                  emit('failed', step=2, error={'code': 'non_finite', 'message': 'loss was NaN', 'param': None})\n\
                  sys.exit(10)";
    let scene = Scene::new(script).await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    let failed = scene.until_status(job.id, JobStatus::Failed).await;
    worker.end().await;
    assert_eq!(failed.error.unwrap().code, ErrorCode::NonFinite);
    assert_eq!(fs::read_to_string(scene.path("runs")).unwrap(), "x");
}

#[tokio::test]
async fn a_stuck_engine_is_killed_and_its_task_runs_again() {
    let script = format!(
        "if not os.path.exists(own + '/pid'):\n    started()\n    open(own + '/pid', 'w').write(str(os.getpid()))\n    \
         time.sleep(600)\n{TRAINS}"
    );
    let scene = Scene::new(&script).await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    scene.until_status(job.id, JobStatus::Succeeded).await;
    worker.end().await;
    assert!(!crate::testing::is_alive(&fs::read_to_string(scene.path("pid")).unwrap()));
    let told = scene.messages(job.id).await;
    assert!(told.iter().any(|message| message.contains("made no progress for")), "{told:#?}");
}

#[tokio::test]
async fn an_altered_adapter_is_not_published() {
    let script = "if not os.path.exists(own + '/again'):\n    open(own + '/again', 'w').write('x')\n    \
                  started()\n    entries = files_of(folder + '/adapter', adapter='good')\n    \
                  open(folder + '/adapter/adapter', 'w').write('evil')\n    \
                  emit('exported', files=entries, parity={'largest_reload_difference': 0.0, 'tolerance': 1e-5, \
                  'largest_difference_from_base': 1.0, 'tokens': 3})\n    finished()\n    sys.exit(0)\n";
    let scene = Scene::new(&format!("{script}{TRAINS}")).await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    scene.until_status(job.id, JobStatus::Succeeded).await;
    worker.end().await;
    let artifacts = scene.store().artifacts(scene.tenant, job.id).await.unwrap();
    assert_eq!(scene.store().get_blob_bytes(artifacts[0].content.id).await.unwrap(), "adapter");
    let told = scene.messages(job.id).await;
    assert!(told.iter().any(|message| message.contains("is not the one that the engine wrote")), "{told:#?}");
}

#[tokio::test]
async fn a_full_disk_of_the_engine_waits_for_a_person() {
    let script = format!(
        "if not os.path.exists(own + '/room'):\n    started()\n    \
         emit('suspended', step=1, error={{'code': 'out_of_disk_space', 'message': 'No space.', 'param': None}})\n    \
         sys.exit(11)\n{TRAINS}"
    );
    let scene = Scene::new(&script).await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    let held = scene.until(job.id, |job| job.paused).await;
    assert_eq!(held.status, JobStatus::Queued);
    assert_eq!(held.error.unwrap().code, ErrorCode::OutOfDiskSpace);
    fs::write(scene.path("room"), "x").unwrap();
    scene.store().resume_job(scene.tenant, job.id).await.unwrap();
    scene.until_status(job.id, JobStatus::Succeeded).await;
    worker.end().await;
}

#[tokio::test]
async fn an_engine_that_could_not_even_say_so_waits_for_room() {
    let scene = Scene::new("started(total_steps=3)\nsys.exit(11)").await;
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    let waiting = scene.until(job.id, |job| job.paused).await;
    worker.end().await;
    assert_eq!(waiting.error.map(|error| error.code), Some(ErrorCode::OutOfDiskSpace));
    assert_eq!(waiting.status, JobStatus::Queued);
}
