use bytes::Bytes;
use finetuned_protocol::{error::ErrorCode, status::FileStatus};
use finetuned_store::NewFile;

use super::*;

async fn file(scene: &Scene, rows: String) -> FileId {
    let content = scene.store().put_bytes(scene.tenant, Bytes::from(rows)).await.unwrap();
    let file = NewFile {
        filename: "train.jsonl".into(),
        purpose: "fine-tune".into(),
        expires_after: None,
        status: FileStatus::Processed,
        status_details: None,
        content,
        lint: None,
        reading: Default::default(),
        findings: None,
    };
    scene.store().create_file(scene.tenant, file, None).await.unwrap().into_inner().id
}

#[tokio::test]
async fn a_model_that_is_none_fails_the_job_without_naming_a_path() {
    let scene = Scene::new("").await;
    let job = scene.job_of(file(&scene, "{\"prompt\":\"a\",\"completion\":\"b\"}\n".into()).await).await;
    let worker = scene.start(TaskKind::Validate);
    let failed = scene.until_status(job.id, JobStatus::Failed).await;
    worker.end().await;
    let error = failed.error.unwrap();
    assert_eq!(error.code, ErrorCode::InvalidModel);
    assert!(!error.message.contains(scene.folder.path().to_str().unwrap()), "{}", error.message);
    let told = scene.messages(job.id).await;
    assert!(told.contains(&format!("Validating training file: {}", job.training_file)), "{told:#?}");
    assert_eq!(scene.leftovers(), 0);
}

/// A scene whose base model is the repository's tiny chat model.
async fn tiny_chat() -> Scene {
    let scene = Scene::new("").await;
    let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-chat");
    std::os::unix::fs::symlink(model.canonicalize().unwrap(), scene.path("tiny-chat")).unwrap();
    scene.register_model("tiny-chat").await;
    scene
}

fn rows(count: usize) -> String {
    (0..count).map(|row| format!("{{\"prompt\":\"question {row}?\",\"completion\":\"answer {row}\"}}\n")).collect()
}

#[tokio::test]
async fn a_good_file_becomes_a_queued_job_with_numbers() {
    let scene = tiny_chat().await;
    let job = scene.job_of(file(&scene, rows(20)).await).await;
    let worker = scene.start(TaskKind::Validate);
    let queued = scene.until_status(job.id, JobStatus::Queued).await;
    worker.end().await;
    let (effective, dataset) = (queued.effective.unwrap(), queued.dataset.unwrap());
    assert_eq!((dataset.train_rows, dataset.held_out_rows), (18, 2));
    assert_eq!((effective.seed, effective.n_epochs, effective.total_steps), (job.seed, 1, 3));
    assert!(queued.estimate.is_some());
    let told = scene.messages(job.id).await;
    let summary = told.iter().find(|message| message.starts_with("20 rows: 18 train, 2 held out, ")).unwrap();
    assert!(summary.contains(", 3 steps, about "), "{summary}");
    assert_eq!(told.last().map(String::as_str), Some("Files validated, moving job to queued state"));
}

#[tokio::test]
async fn bad_rows_fail_the_job_and_are_named() {
    let scene = tiny_chat().await;
    let bad = "{\"prompt\":\"a question\",\"completion\":\"\"}\nno json\n";
    let job = scene.job_of(file(&scene, format!("{}{bad}", rows(5))).await).await;
    let worker = scene.start(TaskKind::Validate);
    let failed = scene.until_status(job.id, JobStatus::Failed).await;
    worker.end().await;
    let error = failed.error.unwrap();
    assert_eq!(error.code, ErrorCode::InvalidTrainingFile, "{error:?}");
    let lines: Vec<u64> = error.details.iter().filter_map(|row| row["line"].as_u64()).collect();
    assert_eq!(lines, [6, 7], "{:?}", error.details);
}

#[tokio::test]
async fn settings_that_the_model_cannot_meet_fail_the_job() {
    let scene = tiny_chat().await;
    let training_file = file(&scene, rows(5)).await;
    let mut job = fixtures::new_job(training_file).unwrap();
    job.request.template = Some("{{ nothing | no_such_filter }}".into());
    let job = scene.store().create_job(scene.tenant, job, None).await.unwrap().into_inner();
    let worker = scene.start(TaskKind::Validate);
    let failed = scene.until_status(job.id, JobStatus::Failed).await;
    worker.end().await;
    let error = failed.error.unwrap();
    let named = [ErrorCode::InvalidSettings, ErrorCode::InvalidTrainingFile];
    assert!(named.contains(&error.code) && error.message.len() > 20, "{error:?}");
}
