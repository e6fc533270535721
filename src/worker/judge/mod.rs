//! Has a judge look at answers, where a job asks for it. Nothing here can fail the job: what was not judged, the report
//! says.

mod asker;
mod rows;
mod session;

use finetuned_evaluation::judge::summarise;
use finetuned_outbound::{Judges, Outbound};
use finetuned_protocol::{
    engine::Phase,
    evaluation::AnswersReport,
    judge::{JudgeReport, JudgeSpec},
};
use finetuned_store::{JobProgress, Report};
use futures::{StreamExt, stream};

use self::{
    asker::Asker,
    rows::judge_row,
    session::{Halt, Session},
};
use crate::{attempt::Attempt, error::AttemptError};

/// Rows asked about at once.
const TOGETHER: usize = 8;

/// Whom a worker may ask to judge.
#[derive(Debug, Clone)]
pub struct JudgeOptions {
    pub judges: Judges,
    pub outbound: Outbound,
}

/// The report with what the judge says of it.
///
/// # Errors
/// The lease is lost, or the worker ends.
pub async fn judged(
    attempt: &Attempt,
    spec: &JudgeSpec,
    mut report: AnswersReport,
) -> Result<AnswersReport, AttemptError> {
    let asker = match Asker::of(attempt, &spec.place).await? {
        Ok(asker) => asker,
        Err(why) => {
            report.not_judged.push(format!("judge: {why}"));
            return Ok(report);
        }
    };
    let session = Session::new(attempt, asker, spec.limits.clone());
    attempt.unless_interrupted(judge_rows(&session, spec, &mut report)).await?;
    let total = report.answers.len();
    let done = report.answers.iter().filter(|row| row.judgement.is_some()).count();
    if let Some(why) = session.trouble() {
        report.not_judged.push(format!("judge: {why}; {done} of {total} rows were judged"));
    }
    let counts = session.counts();
    let (model, url) = session.asker.names();
    let judge = JudgeReport {
        model,
        url,
        calls: counts.calls,
        cached: counts.cached,
        tokens: counts.tokens,
        rows: 0,
        unparseable: 0,
        pairwise: None,
        rubric: None,
        criteria: Default::default(),
    };
    let seed = u64::from(attempt.lease.job.seed);
    if let Err(error) = summarise(&mut report, judge, spec, seed) {
        report.not_judged.push(format!("judge: {error}"));
    }
    Ok(report)
}

/// Rows in their order; the first trouble ends the asking.
async fn judge_rows(session: &Session<'_>, spec: &JudgeSpec, report: &mut AnswersReport) -> Result<(), AttemptError> {
    let total = report.answers.len() as u64;
    let mut judgements = Vec::with_capacity(report.answers.len());
    let rows: Vec<_> = report.answers.iter().map(|row| judge_row(session, spec, row)).collect();
    let mut asking = stream::iter(rows).buffered(TOGETHER);
    while let Some(judgement) = asking.next().await {
        judgements.push(match judgement {
            Ok(judgement) => Some(judgement),
            Err(Halt::Stopped) => None,
            Err(Halt::Attempt(error)) => return Err(error),
        });
        tell(session.attempt, judgements.len() as u64, total).await?;
    }
    drop(asking);
    for (row, judgement) in report.answers.iter_mut().zip(judgements) {
        row.judgement = judgement;
    }
    Ok(())
}

/// How far it is.
async fn tell(attempt: &Attempt, done: u64, total: u64) -> Result<(), AttemptError> {
    let progress = JobProgress { phase: Phase::Judging, done, total, step: 0, total_steps: 0, remaining_seconds: None };
    let report = Report { progress: Some(progress), ..Report::default() };
    let key = attempt.lease.key;
    attempt.persist("reporting", || attempt.store.report(&key, &report)).await
}
