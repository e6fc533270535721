//! Judges of paper: a server that answers as an OpenAI-compatible API does, by a rule.

use std::sync::atomic::{AtomicUsize, Ordering};

use finetuned_outbound::JudgeEndpoint;
use finetuned_protocol::{
    evaluation::Verdict,
    evaluation_run::EvaluationRunRequest,
    evaluation_spec::EvaluationRequest,
    judge::{JudgeCriterion, Preference},
    request::AnswersRequest,
    status::EvaluationRunStatus,
};
use finetuned_store::{EvaluationRun, Idempotency, fingerprint};
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate, matchers::method};

use super::*;

/// What a reply is, by the question's last message and the number of the call.
type Rule = fn(&str, usize) -> ResponseTemplate;

struct Judge {
    rule: Rule,
    calls: AtomicUsize,
}

impl Respond for Judge {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let last = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
        (self.rule)(&last, self.calls.fetch_add(1, Ordering::SeqCst))
    }
}

fn said(text: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"total_tokens": 10},
    }))
}

/// Prefers the reference's words; they hold of whatever is asked.
fn honest(question: &str, _: usize) -> ResponseTemplate {
    let material: Value =
        question.lines().find(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).unwrap();
    if material["answer_a"].is_string() {
        let winner = if material["answer_a"] == material["reference"] { "A" } else { "B" };
        return said(&json!({"reason": "it is right", "winner": winner}).to_string());
    }
    let right = material["answer"] == material["reference"];
    if question.contains("\"points\"") {
        return said(&json!({"points": if right { 5 } else { 2 }}).to_string());
    }
    said(&json!({"holds": right}).to_string())
}

struct Court {
    scene: Scene,
    server: MockServer,
    job: Job,
}

impl Court {
    /// A job that asks for a judge, trained; the judge has not been asked yet.
    async fn new(rule: Rule, judge: Value) -> Self {
        let scene = Scene::new(TRAINS).await;
        let server = MockServer::start().await;
        Mock::given(method("POST")).respond_with(Judge { rule, calls: AtomicUsize::new(0) }).mount(&server).await;
        let file = fixtures::file(scene.store(), scene.tenant).await.unwrap();
        let mut new = fixtures::new_job(file).unwrap();
        new.request.answers = Some(AnswersRequest { rows: Some(1), max_new_tokens: Some(4) });
        new.request.evaluation = Some(serde_json::from_value(json!({"metrics": ["bleu"], "judge": judge})).unwrap());
        let job = scene.store().create_job(scene.tenant, new, None).await.unwrap().into_inner();
        let worker: WorkerFacts = fixtures::worker(scene.store()).await.unwrap();
        let lease = scene.store().claim(&worker, &[TaskKind::Validate]).await.unwrap().unwrap();
        scene.store().finish_validation(&lease.key, &fixtures::validated(&job).unwrap()).await.unwrap();
        let worker = scene.start(TaskKind::Train);
        let job = scene.until_status(job.id, JobStatus::Succeeded).await;
        worker.end().await;
        Self { scene, server, job }
    }

    /// Runs the evaluations that wait; the newest.
    async fn sit(&self) -> EvaluationRun {
        let endpoint = JudgeEndpoint {
            url: format!("{}/v1", self.server.uri()),
            model: Some("wise".into()),
            api_key: Some("sk-secret".to_owned().into()),
        };
        let judging = JudgeOptions {
            judges: Judges::new(vec![endpoint]).unwrap(),
            outbound: Outbound::new(vec!["127.0.0.1".parse().unwrap()]),
        };
        let options = WorkerOptions { judging, ..self.scene.options(TaskKind::Evaluate) };
        let worker = self.scene.start_on(self.scene.store().clone(), options);
        let start = Instant::now();
        let run = loop {
            let runs = self.scene.store().evaluation_runs(self.scene.tenant, self.job.id).await.unwrap();
            if runs[0].finished_at.is_some() {
                break runs[0].clone();
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{runs:?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        };
        worker.end().await;
        run
    }

    async fn ask_again(&self, judge: Value) {
        let evaluation: EvaluationRequest = serde_json::from_value(json!({ "judge": judge })).unwrap();
        let request = EvaluationRunRequest { answers: None, evaluation: Some(evaluation) };
        let settings = request.resolve(self.job.effective.as_ref().unwrap()).unwrap();
        let idempotency = Idempotency {
            caller: None,
            route: "evaluate",
            client_key: None,
            retry_count: 0,
            fingerprint: fingerprint(&[judge.to_string().as_bytes()]),
            received: std::time::Instant::now(),
        };
        let (store, tenant) = (self.scene.store(), self.scene.tenant);
        store.create_evaluation_run(tenant, self.job.id, &settings, &idempotency).await.unwrap();
    }

    async fn calls(&self) -> usize {
        self.server.received_requests().await.unwrap().len()
    }
}

#[tokio::test]
async fn a_job_that_asks_for_a_judge_is_published_first_and_judged_then() {
    let judge = json!({"rubric": true, "criteria": ["correctness", "harmfulness"],
                       "categories": [{"name": "owlish", "criterion": "It is about an owl."}]});
    let court = Court::new(honest, judge.clone()).await;
    let answers = court.job.evaluation.clone().unwrap().answers.unwrap();
    assert!(answers.judge.is_none() && answers.not_judged.iter().any(|why| why.starts_with("judge: it is asked once")));
    let run = court.sit().await;
    assert_eq!((run.status, run.is_of_job), (EvaluationRunStatus::Succeeded, true));
    let job = court.scene.get(court.job.id).await;
    assert_eq!(
        (job.status, &job.evaluation),
        (JobStatus::Succeeded, &run.report),
        "the job's report is the judged one"
    );
    let answers = run.report.unwrap().answers.unwrap();
    assert!(!answers.not_judged.iter().any(|why| why.starts_with("judge")), "{:?}", answers.not_judged);
    let report = answers.judge.unwrap();
    assert_eq!((report.model.as_str(), report.rows, report.unparseable), ("wise", 1, 0));
    let pairs = report.pairwise.unwrap();
    assert_eq!((pairs.wins, pairs.losses, pairs.flip_rate), (1, 0, 0.0));
    assert!(pairs.length_controlled_win_rate > 0.9);
    assert_eq!(report.rubric.unwrap().comparison.difference, 3.0);
    let criteria = &report.criteria;
    assert_eq!(criteria[&JudgeCriterion::Correctness].comparison.verdict, Verdict::Better);
    assert_eq!(criteria[&JudgeCriterion::Harmfulness].comparison.verdict, Verdict::Worse);
    assert_eq!(answers.categories["owlish"].comparison.tuned, 1.0);
    let row = &answers.answers[0];
    let pair = row.judgement.as_ref().unwrap().pairwise.as_ref().unwrap();
    assert_eq!((pair.outcome, pair.reason.as_deref()), (Some(Preference::Tuned), Some("it is right")));
    assert!(row.tuned_categories.contains(&"owlish".to_owned()) && !row.base_categories.contains(&"owlish".to_owned()));
    // Two comparisons, two times points, and of three votes the two that decide, for three sentences and both answers.
    assert_eq!((report.calls, report.cached, report.tokens), (16, 0, 160));
    assert_eq!(court.calls().await, 16);
    let auth = &court.server.received_requests().await.unwrap()[0].headers["authorization"];
    assert_eq!(auth.to_str().unwrap(), "Bearer sk-secret");
    // What was answered once is not asked again.
    court.ask_again(judge).await;
    let again = court.sit().await;
    let report = again.report.unwrap().answers.unwrap().judge.unwrap();
    assert_eq!((report.calls, report.cached, report.tokens, court.calls().await), (0, 16, 0, 16));
    assert!(!again.is_of_job && court.scene.get(court.job.id).await.evaluation == job.evaluation);
}

#[tokio::test]
async fn a_judge_that_goes_by_the_order_decides_nothing() {
    let court = Court::new(|_, _| said("{\"winner\": \"A\"}"), json!({})).await;
    let report = court.sit().await.report.unwrap().answers.unwrap().judge.unwrap();
    let pairs = report.pairwise.unwrap();
    assert_eq!((pairs.wins, pairs.losses, pairs.ties, pairs.flip_rate), (0, 0, 1, 1.0));
}

#[tokio::test]
async fn a_reply_may_be_mended_once_and_is_never_guessed_at() {
    let mended: Rule = |last, _| match last.starts_with("That is no verdict") {
        true => said("{\"winner\": \"tie\"}"),
        false => said("I prefer A."),
    };
    let court = Court::new(mended, json!({})).await;
    let report = court.sit().await.report.unwrap().answers.unwrap().judge.unwrap();
    assert_eq!((report.unparseable, report.calls, report.pairwise.unwrap().ties), (0, 4, 1));
    let court = Court::new(|_, _| said("A, surely: {\"winner\": \"A\"}"), json!({})).await;
    let answers = court.sit().await.report.unwrap().answers.unwrap();
    let report = answers.judge.unwrap();
    assert_eq!((report.unparseable, report.calls, report.pairwise), (2, 4, None));
    let pair = answers.answers[0].judgement.as_ref().unwrap().pairwise.as_ref().unwrap();
    assert_eq!((pair.base_first, pair.tuned_first, pair.outcome), (None, None, None));
}

#[tokio::test]
async fn a_judge_that_is_away_for_a_while_is_waited_for() {
    let flaky: Rule = |question, call| if call < 3 { ResponseTemplate::new(503) } else { honest(question, call) };
    let court = Court::new(flaky, json!({})).await;
    let report = court.sit().await.report.unwrap().answers.unwrap().judge.unwrap();
    assert_eq!((report.pairwise.unwrap().wins, report.calls), (1, 5));
}

#[tokio::test]
async fn a_judge_that_cannot_be_asked_degrades_the_report_alone() {
    let cases: [(Rule, Value, &str); 4] = [
        (
            |_, _| ResponseTemplate::new(500),
            json!({}),
            "judge: the API answered with status 500; 0 of 1 rows were judged",
        ),
        (
            |_, _| ResponseTemplate::new(401),
            json!({}),
            "judge: the API answered with status 401; 0 of 1 rows were judged",
        ),
        (
            honest,
            json!({"limits": {"max_calls": 1}}),
            "judge: the limit of 1 calls was reached; 0 of 1 rows were judged",
        ),
        (honest, json!({"service_model": "tiny-llama"}), "judge: this worker answers no requests to models"),
    ];
    for (rule, judge, why) in cases {
        let court = Court::new(rule, judge).await;
        let run = court.sit().await;
        assert_eq!(run.status, EvaluationRunStatus::Succeeded, "{why}");
        let answers = run.report.unwrap().answers.unwrap();
        assert!(answers.not_judged.iter().any(|said| said.starts_with(why)), "{why}: {:?}", answers.not_judged);
        assert_eq!(answers.metrics.len(), 1, "what needs no judge is there");
        assert_eq!(court.scene.get(court.job.id).await.status, JobStatus::Succeeded);
    }
}
