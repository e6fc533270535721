//! Two jobs on the rows that both answered, which are told by their content: files and lines may differ.

use std::collections::{BTreeMap, HashMap};

use finetuned_protocol::{
    comparison::{JobAnswer, JobDifference, JobsComparison, SharedRow},
    evaluation::{AnswerPair, AnswersReport, PairedComparison},
    text_metric::TextMetric,
};
use sha2::{Digest, Sha256};

use crate::{EvaluationError, RESAMPLES, assess::fewer_is_better, paired_bootstrap};

/// Compares the tuned models of two jobs. Where a row occurs more often than once, the first of one report is compared
/// with the first of the other, and so on.
///
/// # Errors
/// [`EvaluationError::NoRows`] where no row was answered by both, or figures that cannot be compared.
pub fn compare_jobs(job: &AnswersReport, with: &AnswersReport, seed: u64) -> Result<JobsComparison, EvaluationError> {
    let theirs: HashMap<String, &AnswerPair> = named(with).collect();
    let shared = named(job).filter_map(|(row_id, ours)| Some((ours, *theirs.get(&row_id)?, row_id)));
    let rows: Vec<SharedRow> = shared.map(|(ours, theirs, row_id)| side_by_side(row_id, ours, theirs)).collect();
    if rows.is_empty() {
        return Err(EvaluationError::NoRows);
    }
    let names = job.categories.keys().filter(|name| with.categories.contains_key(*name)).cloned().collect();
    Ok(JobsComparison {
        job_rows: job.answers.len() as u64,
        with_rows: with.answers.len() as u64,
        metrics: metrics(&rows, seed)?,
        categories: categories(&rows, names, seed)?,
        rows,
    })
}

/// What tells a row wherever it stands: SHA-256 of its prompt and its reference, each after its length.
pub fn row_id(prompt: &str, reference: &str) -> String {
    let mut hash = Sha256::new();
    for text in [prompt, reference] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// Rows with ids of their own, also where equal ones come again.
fn named(report: &AnswersReport) -> impl Iterator<Item = (String, &AnswerPair)> {
    let mut times: HashMap<String, u32> = HashMap::new();
    report.answers.iter().map(move |pair| {
        let id = row_id(&pair.prompt, &pair.reference);
        let time = times.entry(id.clone()).or_default();
        *time += 1;
        (if *time == 1 { id } else { format!("{id}:{time}") }, pair)
    })
}

fn side_by_side(row_id: String, ours: &AnswerPair, theirs: &AnswerPair) -> SharedRow {
    let answer = |pair: &AnswerPair| JobAnswer {
        line: pair.line,
        answer: pair.tuned.clone(),
        ended: pair.tuned_ended,
        scores: pair.tuned_scores.clone(),
        categories: pair.tuned_categories.clone(),
    };
    let (prompt, reference) = (ours.prompt.clone(), ours.reference.clone());
    SharedRow { row_id, prompt, reference, job: answer(ours), with: answer(theirs) }
}

fn metrics(rows: &[SharedRow], seed: u64) -> Result<BTreeMap<TextMetric, JobDifference>, EvaluationError> {
    let mut found: BTreeMap<TextMetric, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for row in rows {
        for (metric, ours) in &row.job.scores {
            if let Some(theirs) = row.with.scores.get(metric) {
                let (job, with) = found.entry(*metric).or_default();
                job.push(*ours);
                with.push(*theirs);
            }
        }
    }
    found.into_iter().map(|(metric, (job, with))| Ok((metric, difference(&job, &with, seed)?))).collect()
}

fn categories(
    rows: &[SharedRow],
    names: Vec<String>,
    seed: u64,
) -> Result<BTreeMap<String, JobDifference>, EvaluationError> {
    let of_category = |name: String| {
        let has = |answer: &JobAnswer| f64::from(u8::from(answer.categories.contains(&name)));
        let (job, with): (Vec<f64>, Vec<f64>) = rows.iter().map(|row| (has(&row.job), has(&row.with))).unzip();
        let mut compared = difference(&job, &with, seed)?;
        compared.verdict = fewer_is_better(compared.verdict);
        Ok((name, compared))
    };
    names.into_iter().map(of_category).collect()
}

fn difference(job: &[f64], with: &[f64], seed: u64) -> Result<JobDifference, EvaluationError> {
    let PairedComparison { base, tuned, difference, low, high, confidence, resamples, seed, verdict } =
        paired_bootstrap(job, with, seed, RESAMPLES)?;
    let rows = job.len() as u64;
    Ok(JobDifference { rows, job: base, with: tuned, difference, low, high, confidence, resamples, seed, verdict })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::{evaluation::Verdict, evaluation_spec::EvaluationSpec};

    use super::*;
    use crate::{Aids, AnswerRow, GivenAnswer, answers_report, assess};

    fn report(rows: &[(u64, &str, &str, &str)]) -> AnswersReport {
        let given = |text: &str| GivenAnswer { text: text.into(), ended: true };
        let rows = rows.iter().map(|(line, prompt, reference, tuned)| AnswerRow {
            line: *line,
            prompt: (*prompt).into(),
            reference: (*reference).into(),
            base: given("nothing"),
            tuned: given(tuned),
        });
        let mut report = answers_report(rows.collect(), 16, 3).unwrap();
        assess(&mut report, &EvaluationSpec::default(), Aids::default(), 3).unwrap();
        report
    }

    #[test]
    fn rows_are_found_by_their_content_and_differences_are_paired() {
        let job = report(&[
            (2, "a colour", "red", "red"),
            (5, "a fruit", "apple", ""),
            (6, "a tree", "oak", "oak"),
            (9, "a fruit", "apple", "pear"),
        ]);
        let with =
            report(&[(1, "a fruit", "apple", "apple"), (3, "a colour", "red", "red"), (4, "a tree", "elm", "elm")]);
        let compared = compare_jobs(&job, &with, 3).unwrap();
        let lines: Vec<_> = compared.rows.iter().map(|row| (row.job.line, row.with.line)).collect();
        // The second apple has no fellow; the trees have other references.
        assert_eq!(lines, [(2, 3), (5, 1)]);
        assert_eq!((compared.job_rows, compared.with_rows), (4, 3));
        let exact = &compared.metrics[&TextMetric::ExactMatch];
        assert_eq!((exact.rows, exact.job, exact.with, exact.difference), (2, 0.5, 1.0, 0.5));
        assert_eq!((exact.low, exact.high, exact.verdict), (0.0, 1.0, Verdict::NoDifferenceShown));
        assert_eq!((compared.categories["empty"].job, compared.categories["empty"].with), (0.5, 0.0));
    }

    #[test]
    fn equal_rows_are_taken_in_their_order_and_fewer_errors_are_better() {
        let empty = [(1, "x", "y", ""), (2, "x", "y", ""), (3, "x", "y", "")];
        let right = [(7, "x", "y", "y"), (8, "x", "y", "y"), (9, "x", "y", "y")];
        let compared = compare_jobs(&report(&empty), &report(&right), 1).unwrap();
        let lines: Vec<_> = compared.rows.iter().map(|row| (row.job.line, row.with.line)).collect();
        assert_eq!(lines, [(1, 7), (2, 8), (3, 9)]);
        assert_eq!(compared.rows[1].row_id, format!("{}:2", row_id("x", "y")));
        assert_eq!(compared.categories["empty"].verdict, Verdict::Better);
        assert_eq!(compared.metrics[&TextMetric::WordF1].verdict, Verdict::Better);
        let back = compare_jobs(&report(&right), &report(&empty), 1).unwrap();
        assert_eq!(back.categories["empty"].verdict, Verdict::Worse);
    }

    #[test]
    fn nothing_in_common_is_no_comparison() {
        let (job, with) = (report(&[(1, "a", "b", "b")]), report(&[(1, "ab", "", "b")]));
        assert_eq!(compare_jobs(&job, &with, 1).unwrap_err(), EvaluationError::NoRows);
    }
}
