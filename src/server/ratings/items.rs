//! Which answers are rated, in which order.

use std::collections::{BTreeMap, BTreeSet};

use finetuned_dataset::{Asked, messages_json, question};
use finetuned_evaluation::{compare_jobs, row_id};
use finetuned_protocol::{
    evaluation::{AnswerPair, AnswersReport},
    ratings::{AnswerSource, RatingKind},
};
use finetuned_store::{NewRatingItem, SourcedAnswer};
use sha2::{Digest, Sha256};

use crate::http::error::{ApiError, Code};

/// What of the answers is wanted.
pub struct Choosing {
    pub kind: RatingKind,
    pub sources: Vec<AnswerSource>,
    pub category: Option<String>,
    pub rows: Option<u32>,
    pub seed: u32,
}

/// Answers of a row, with the kinds of error in each.
struct Candidate {
    line: u64,
    prompt: String,
    reference: String,
    answers: Vec<(SourcedAnswer, Vec<String>)>,
}

/// The items of a task, and how many rows were left out because both answers are the same.
///
/// # Errors
/// A 400 where nothing is left to rate.
pub fn choose(
    choosing: &Choosing,
    job: &AnswersReport,
    with: Option<&AnswersReport>,
    asked: &BTreeMap<u64, Vec<Asked>>,
) -> Result<(Vec<NewRatingItem>, u64), ApiError> {
    let mut candidates = match with {
        Some(with) => of_two_jobs(job, with)?,
        None => job.answers.iter().map(|pair| of_one_job(pair, &choosing.sources)).collect(),
    };
    if let Some(category) = &choosing.category {
        check_category(category, job)?;
        candidates.retain(|row| row.answers.iter().any(|(_, categories)| categories.contains(category)));
    }
    let before = candidates.len();
    if choosing.kind == RatingKind::Preference {
        candidates.retain(|row| row.answers.windows(2).all(|two| two[0].0.answer.trim() != two[1].0.answer.trim()));
    }
    let equal_rows = (before - candidates.len()) as u64;
    candidates
        .sort_by_cached_key(|row| place(choosing.seed, &[&row_id(&row.prompt, &row.reference), &row.line.to_string()]));
    candidates.truncate(choosing.rows.map_or(usize::MAX, |rows| rows as usize));
    if candidates.is_empty() {
        let message = match (&choosing.category, equal_rows) {
            (Some(category), 0) => format!("no answer that is rated is `{category}`; leave `category` out"),
            (_, 0) => "no row was answered; there is nothing to rate".to_owned(),
            (_, equal) => format!("both answers to each of the {equal} rows are the same; there is nothing to choose"),
        };
        return Err(ApiError::new(Code::InvalidState, message));
    }
    let mut items: Vec<NewRatingItem> =
        candidates.into_iter().flat_map(|row| items_of(row, choosing.kind, asked)).collect();
    if choosing.kind == RatingKind::Scale {
        // Otherwise the answers of a row would follow one another, in the same order every time.
        items.sort_by_cached_key(|item| {
            let source = item.first.source.as_str();
            place(choosing.seed, &[source, &row_id(&item.prompt, &item.reference), &item.line.to_string()])
        });
    }
    Ok((items, equal_rows))
}

/// Where something comes in an order that the seed shuffles.
fn place(seed: u32, parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new().chain_update(seed.to_le_bytes());
    parts.iter().for_each(|part| hash.update(part.as_bytes()));
    hash.finalize().into()
}

fn check_category(category: &str, report: &AnswersReport) -> Result<(), ApiError> {
    if report.categories.contains_key(category) {
        return Ok(());
    }
    let known: Vec<&str> = report.categories.keys().map(String::as_str).collect();
    Err(ApiError::invalid("category", format!("the job has no category `{category}`; it has {}", known.join(", "))))
}

fn of_one_job(pair: &AnswerPair, sources: &[AnswerSource]) -> Candidate {
    let answer = |source: &AnswerSource| {
        let (answer, categories) = match source {
            AnswerSource::Base => (&pair.base, &pair.base_categories),
            AnswerSource::Tuned | AnswerSource::With => (&pair.tuned, &pair.tuned_categories),
        };
        (SourcedAnswer { source: *source, answer: answer.clone() }, categories.clone())
    };
    let (prompt, reference) = (pair.prompt.clone(), pair.reference.clone());
    Candidate { line: pair.line, prompt, reference, answers: sources.iter().map(answer).collect() }
}

fn of_two_jobs(job: &AnswersReport, with: &AnswersReport) -> Result<Vec<Candidate>, ApiError> {
    let compared = compare_jobs(job, with, 0).map_err(|_| {
        let message = "no held-out row was answered by both jobs; give both the same `validation_file`";
        ApiError::invalid("with", message)
    })?;
    let rows = compared.rows.into_iter().map(|row| Candidate {
        line: row.job.line,
        prompt: row.prompt,
        reference: row.reference,
        answers: vec![
            (SourcedAnswer { source: AnswerSource::Tuned, answer: row.job.answer }, row.job.categories),
            (SourcedAnswer { source: AnswerSource::With, answer: row.with.answer }, row.with.categories),
        ],
    });
    Ok(rows.collect())
}

fn items_of(row: Candidate, kind: RatingKind, asked: &BTreeMap<u64, Vec<Asked>>) -> Vec<NewRatingItem> {
    let Candidate { line, prompt, reference, answers } = row;
    let input = input_of(line, &prompt, &reference, asked);
    let item = |first: SourcedAnswer, second: Option<SourcedAnswer>| NewRatingItem {
        line,
        prompt: prompt.clone(),
        reference: reference.clone(),
        input: input.clone(),
        first,
        second,
    };
    let mut answers = answers.into_iter().map(|(answer, _)| answer);
    match kind {
        RatingKind::Preference => answers.next().map(|first| item(first, answers.next())).into_iter().collect(),
        RatingKind::Scale => answers.map(|answer| item(answer, None)).collect(),
    }
}

/// The messages before the answer that the models were asked for, as the row has them; where it cannot be told which, the
/// prompt as one question.
fn input_of(line: u64, prompt: &str, reference: &str, asked: &BTreeMap<u64, Vec<Asked>>) -> serde_json::Value {
    let of_row = asked.get(&line).into_iter().flatten();
    let found = of_row.into_iter().find(|one| one.answer == reference && one.prompt_text() == prompt);
    found.map_or_else(|| messages_json(&question(prompt)), |one| messages_json(&one.prompt))
}

/// Lines of the rows that a report has answers to.
pub fn lines(report: &AnswersReport) -> BTreeSet<u64> {
    report.answers.iter().map(|pair| pair.line).collect()
}
