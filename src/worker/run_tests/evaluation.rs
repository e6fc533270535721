use finetuned_protocol::{
    evaluation_run::EvaluationRunRequest, evaluation_spec::EvaluationRequest, ids::EvaluationRunId,
    request::AnswersRequest, status::EvaluationRunStatus, text_metric::TextMetric,
};
use finetuned_store::{EvaluationRun, Idempotency, fingerprint};

use super::*;

/// A script that trains, and answers by what the tuned model's file says.
const ANSWERS: &str = r#"
def answered(by, line, text):
    emit("answered", rows=[{"by": by, "line": line, "prompt": "Who?", "reference": "the owl", "text": text,
                            "ended": True}])
"#;

async fn trained(scene: &Scene) -> Job {
    let job = scene.validated_job().await;
    let worker = scene.start(TaskKind::Train);
    let job = scene.until_status(job.id, JobStatus::Succeeded).await;
    worker.end().await;
    job
}

async fn ask(scene: &Scene, job: &Job, request: EvaluationRunRequest) -> EvaluationRunId {
    let settings = request.resolve(job.effective.as_ref().unwrap()).unwrap();
    let idempotency = Idempotency {
        caller: None,
        route: "evaluate",
        client_key: None,
        retry_count: 0,
        fingerprint: fingerprint(&[b"x"]),
        received: std::time::Instant::now(),
    };
    scene.store().create_evaluation_run(scene.tenant, job.id, &settings, &idempotency).await.unwrap().into_inner().id
}

async fn until_done(scene: &Scene, job: JobId, run: EvaluationRunId) -> EvaluationRun {
    let start = Instant::now();
    loop {
        let found = scene.store().evaluation_run(scene.tenant, job, run).await.unwrap();
        if matches!(found.status, EvaluationRunStatus::Succeeded | EvaluationRunStatus::Failed) {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{found:?}\n{:#?}", scene.messages(job).await);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test]
async fn other_metrics_of_the_same_answers_need_no_engine() {
    let scene = Scene::new(TRAINS).await;
    let job = trained(&scene).await;
    fs::remove_file(scene.path("fake-engine")).unwrap();
    fs::write(scene.path("fake-engine"), "no program").unwrap();
    let metrics = Some(vec!["bleu".to_owned()]);
    let evaluation = Some(EvaluationRequest { metrics, ..EvaluationRequest::default() });
    let answers = Some(AnswersRequest { rows: Some(1), max_new_tokens: Some(4) });
    let run = ask(&scene, &job, EvaluationRunRequest { answers, evaluation }).await;
    let worker = scene.start(TaskKind::Evaluate);
    let done = until_done(&scene, job.id, run).await;
    worker.end().await;
    let report = done.report.unwrap();
    let answers = report.answers.unwrap();
    assert_eq!(answers.metrics.keys().collect::<Vec<_>>(), [&TextMetric::Bleu]);
    assert_eq!((answers.rows, answers.answers[0].tuned.as_str()), (1, "the owl"));
    assert_eq!(report.tuned, job.evaluation.as_ref().unwrap().tuned, "what is not asked again stays");
    assert_eq!(scene.get(job.id).await, job, "the job keeps its own report");
    assert_eq!(scene.leftovers(), 0);
}

#[tokio::test]
async fn a_killed_engine_loses_no_answer_and_gives_none_twice() {
    let script = format!(
        r#"{ANSWERS}
if sys.argv[1] == "train":
{}
elif not os.path.exists(own + "/died"):
    open(own + "/died", "w").write("x")
    open(own + "/adapter", "w").write(open(folder + "/adapter/adapter").read())
    answered("base", 2, "an owl")
    answered("base", 5, "a crow")
    time.sleep(0.5)
    os.kill(os.getpid(), 9)
else:
    open(own + "/known", "w").write(open(folder + "/answers.jsonl").read())
    answered("tuned", 2, "the owl")
    answered("tuned", 5, "the owl")
    emit("all_answered", rows=2)
"#,
        TRAINS.replace('\n', "\n    ")
    );
    let scene = Scene::new(&script).await;
    let job = trained(&scene).await;
    let answers = Some(AnswersRequest { rows: Some(2), max_new_tokens: Some(16) });
    let run = ask(&scene, &job, EvaluationRunRequest { answers, evaluation: None }).await;
    let worker = scene.start(TaskKind::Evaluate);
    let done = until_done(&scene, job.id, run).await;
    worker.end().await;
    assert_eq!(scene.until_file("adapter").await, "adapter", "the published one is asked");
    let known = scene.until_file("known").await;
    assert_eq!((known.lines().count(), known.contains("an owl")), (2, true), "{known}");
    let answers = done.report.unwrap().answers.unwrap();
    let pairs: Vec<_> =
        answers.answers.iter().map(|pair| (pair.line, pair.base.as_str(), pair.tuned.as_str())).collect();
    assert_eq!(pairs, [(2, "an owl", "the owl"), (5, "a crow", "the owl")]);
    assert_eq!(answers.max_new_tokens, 16);
    assert_eq!(scene.get(job.id).await.status, JobStatus::Succeeded);
}
