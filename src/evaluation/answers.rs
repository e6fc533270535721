//! Answers of base and tuned to the same held-out prompts.

use std::collections::BTreeMap;

use finetuned_protocol::evaluation::{AnswerPair, AnswersReport};

use crate::{EvaluationError, RESAMPLES, paired_bootstrap, rouge_l};

/// What a model said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenAnswer {
    pub text: String,
    /// Whether it ended at an end-of-sequence token rather than at the length limit.
    pub ended: bool,
}

/// One held-out row with both answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRow {
    /// Line of the row in its file, counted from 1.
    pub line: u64,
    pub prompt: String,
    pub reference: String,
    pub base: GivenAnswer,
    pub tuned: GivenAnswer,
}

/// Scores each answer with ROUGE-L F1 (no stemming) and compares the two models over the rows.
///
/// # Errors
/// [`EvaluationError::NoRows`] where there is nothing to compare.
pub fn answers_report(rows: Vec<AnswerRow>, max_new_tokens: u32, seed: u64) -> Result<AnswersReport, EvaluationError> {
    let answers: Vec<AnswerPair> = rows.into_iter().map(scored).collect();
    let base: Vec<f64> = answers.iter().map(|pair| pair.base_rouge_l).collect();
    let tuned: Vec<f64> = answers.iter().map(|pair| pair.tuned_rouge_l).collect();
    let rouge_l = paired_bootstrap(&base, &tuned, seed, RESAMPLES)?;
    let share = |ended: fn(&AnswerPair) -> bool| {
        answers.iter().filter(|pair| ended(pair)).count() as f64 / answers.len() as f64
    };
    Ok(AnswersReport {
        rows: u32::try_from(answers.len()).unwrap_or(u32::MAX),
        max_new_tokens,
        rouge_l,
        base_ended_share: share(|pair| pair.base_ended),
        tuned_ended_share: share(|pair| pair.tuned_ended),
        metrics: BTreeMap::new(),
        categories: BTreeMap::new(),
        judge: None,
        not_judged: Vec::new(),
        answers,
    })
}

fn scored(row: AnswerRow) -> AnswerPair {
    let AnswerRow { line, prompt, reference, base, tuned } = row;
    AnswerPair {
        line,
        base_rouge_l: rouge_l(&reference, &base.text).f1,
        tuned_rouge_l: rouge_l(&reference, &tuned.text).f1,
        prompt,
        reference,
        base: base.text,
        tuned: tuned.text,
        base_ended: base.ended,
        tuned_ended: tuned.ended,
        base_scores: BTreeMap::new(),
        tuned_scores: BTreeMap::new(),
        base_categories: Vec::new(),
        tuned_categories: Vec::new(),
        judgement: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use finetuned_protocol::evaluation::Verdict;

    fn row(line: u64, base: &str, tuned: &str) -> AnswerRow {
        let given = |text: &str| GivenAnswer { text: text.into(), ended: text.ends_with('.') };
        AnswerRow {
            line,
            prompt: "say it".into(),
            reference: "the cat sat down".into(),
            base: given(base),
            tuned: given(tuned),
        }
    }

    #[test]
    fn each_row_is_scored_and_the_rows_are_compared() {
        // ROUGE-L of "the cat" against four words: precision 1, recall 1/2, F1 2/3.
        let rows =
            vec![row(3, "no", "the cat sat down."), row(9, "the cat", "The cat sat down."), row(11, "no.", "the cat")];
        let report = answers_report(rows, 32, 1).unwrap();
        let scores: Vec<_> =
            report.answers.iter().map(|pair| (pair.line, pair.base_rouge_l, pair.tuned_rouge_l)).collect();
        assert_eq!(scores, [(3, 0.0, 1.0), (9, 2.0 / 3.0, 1.0), (11, 0.0, 2.0 / 3.0)]);
        assert!((report.rouge_l.difference - (1.0 + 1.0 / 3.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!(report.rouge_l.verdict, Verdict::Better);
        assert_eq!((report.rows, report.max_new_tokens), (3, 32));
        assert!(
            (report.base_ended_share - 1.0 / 3.0).abs() < 1e-15 && (report.tuned_ended_share - 2.0 / 3.0).abs() < 1e-15
        );
    }

    #[test]
    fn no_rows_make_no_report() {
        assert_eq!(answers_report(Vec::new(), 32, 1).unwrap_err(), EvaluationError::NoRows);
    }
}
