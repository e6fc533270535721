//! Judges the answers of base and tuned: each row by every metric and category, and the two models against each other.

use std::collections::BTreeMap;

use finetuned_protocol::{
    embedding::TextSimilarity,
    evaluation::{AnswersReport, ComparedRows, Scores, Verdict},
    evaluation_spec::EvaluationSpec,
    text_metric::TextMetric,
};

use crate::{
    EvaluationError, RESAMPLES,
    categories::{Categoriser, Judged, KnownWords, Spelling},
    paired_bootstrap, score,
};

/// What an encoder says of one row: how alike each answer is to the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowSimilarity {
    pub base: TextSimilarity,
    pub tuned: TextSimilarity,
}

/// What judging takes beside the answers themselves.
#[derive(Default)]
pub struct Aids<'a> {
    /// The dictionary with the words of the training rows; without it no answer is found misspelled.
    pub spelling: Option<(&'a Spelling, KnownWords)>,
    /// By row; without them the encoder's metrics are missing.
    pub similarities: Option<Vec<RowSimilarity>>,
}

/// Fills in what `report` says of its answers: scores and categories by row, and both models compared.
///
/// What `aids` lacks the report says it could not judge.
///
/// # Errors
/// A pattern that does not compile, or figures that cannot be compared.
pub fn assess(
    report: &mut AnswersReport,
    spec: &EvaluationSpec,
    aids: Aids<'_>,
    seed: u64,
) -> Result<(), EvaluationError> {
    let Aids { spelling, similarities } = aids;
    report.not_judged.clear();
    if spelling.is_none() {
        report.not_judged.push("misspelled: this worker has no dictionary".to_owned());
    }
    let categoriser = Categoriser::new(spec, spelling)?;
    for pair in &mut report.answers {
        pair.base_scores = score(&spec.metrics, &pair.reference, &pair.base).scores;
        pair.tuned_scores = score(&spec.metrics, &pair.reference, &pair.tuned).scores;
        let (prompt, reference) = (pair.prompt.as_str(), pair.reference.as_str());
        let categories = |answer: &str, ended: bool| categoriser.of(&Judged { prompt, reference, answer, ended });
        (pair.base_categories, pair.tuned_categories) =
            (categories(&pair.base, pair.base_ended), categories(&pair.tuned, pair.tuned_ended));
    }
    if let Some(similarities) = similarities {
        add_similarities(report, &spec.metrics, &similarities)?;
    }
    report.metrics = compare_metrics(report, &spec.metrics, seed)?;
    report.categories = compare_categories(report, categoriser.names(), seed)?;
    Ok(())
}

/// Adds what an encoder said of each row, where the metric was asked for.
fn add_similarities(
    report: &mut AnswersReport,
    metrics: &[TextMetric],
    similarities: &[RowSimilarity],
) -> Result<(), EvaluationError> {
    if similarities.len() != report.answers.len() {
        return Err(EvaluationError::Unpaired { base: report.answers.len(), tuned: similarities.len() });
    }
    for (pair, similarity) in report.answers.iter_mut().zip(similarities) {
        for metric in metrics {
            let figure = |of: &TextSimilarity| match metric {
                TextMetric::EmbeddingCosine => Some(of.cosine),
                TextMetric::EmbeddingTokenF1 => Some(of.token_f1),
                _ => None,
            };
            pair.base_scores.extend(figure(&similarity.base).map(|figure| (*metric, figure)));
            pair.tuned_scores.extend(figure(&similarity.tuned).map(|figure| (*metric, figure)));
        }
    }
    Ok(())
}

fn compare_metrics(
    report: &AnswersReport,
    metrics: &[TextMetric],
    seed: u64,
) -> Result<BTreeMap<TextMetric, ComparedRows>, EvaluationError> {
    let mut compared = BTreeMap::new();
    for metric in metrics {
        let both = |base: &Scores, tuned: &Scores| Some((*base.get(metric)?, *tuned.get(metric)?));
        let (base, tuned): (Vec<f64>, Vec<f64>) =
            report.answers.iter().filter_map(|pair| both(&pair.base_scores, &pair.tuned_scores)).unzip();
        if !base.is_empty() {
            let comparison = paired_bootstrap(&base, &tuned, seed, RESAMPLES)?;
            compared.insert(*metric, ComparedRows { rows: base.len() as u64, comparison });
        }
    }
    Ok(compared)
}

fn compare_categories(
    report: &AnswersReport,
    names: Vec<String>,
    seed: u64,
) -> Result<BTreeMap<String, ComparedRows>, EvaluationError> {
    let mut compared = BTreeMap::new();
    for name in names {
        let share = |categories: &[String]| f64::from(u8::from(categories.contains(&name)));
        let (base, tuned): (Vec<f64>, Vec<f64>) =
            report.answers.iter().map(|pair| (share(&pair.base_categories), share(&pair.tuned_categories))).unzip();
        let mut comparison = paired_bootstrap(&base, &tuned, seed, RESAMPLES)?;
        comparison.verdict = fewer_is_better(comparison.verdict);
        compared.insert(name, ComparedRows { rows: base.len() as u64, comparison });
    }
    Ok(compared)
}

pub(crate) fn fewer_is_better(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Better => Verdict::Worse,
        Verdict::Worse => Verdict::Better,
        Verdict::NoDifferenceShown => Verdict::NoDifferenceShown,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::evaluation_spec::PatternCategory;

    use super::*;
    use crate::{AnswerRow, GivenAnswer, answers_report};

    fn report() -> AnswersReport {
        let given = |text: &str| GivenAnswer { text: text.into(), ended: true };
        let row = |line, reference: &str, base: &str, tuned: &str| AnswerRow {
            line,
            prompt: "Name a colour.".into(),
            reference: reference.into(),
            base: given(base),
            tuned: given(tuned),
        };
        let rows = vec![
            row(1, "red", "As an AI language model I cannot help with that.", "red"),
            row(2, "[\"blue\"]", "blue blue", "[\"blue\"]"),
            row(4, "green", "", "green"),
        ];
        answers_report(rows, 16, 3).unwrap()
    }

    #[test]
    fn both_models_are_compared_by_metric_and_category() {
        let mut report = report();
        let pattern = PatternCategory { name: "doubled".into(), pattern: r"(?i)\bblue blue\b".into() };
        let spec = EvaluationSpec { patterns: vec![pattern], ..EvaluationSpec::default() };
        assess(&mut report, &spec, Aids::default(), 3).unwrap();
        let exact = &report.metrics[&TextMetric::ExactMatch];
        assert_eq!((exact.rows, exact.comparison.base, exact.comparison.tuned), (3, 0.0, 1.0));
        assert_eq!(exact.comparison.verdict, Verdict::Better);
        assert_eq!(report.metrics[&TextMetric::JsonValid].rows, 1);
        let refusal = &report.categories["refusal"].comparison;
        assert!((refusal.base - 1.0 / 3.0).abs() < 1e-12 && refusal.tuned == 0.0, "{refusal:?}");
        assert_eq!(report.categories["broken_format"].comparison.base, report.categories["doubled"].comparison.base);
        assert_eq!(report.answers[1].base_categories, ["broken_format", "doubled"]);
        assert_eq!(report.answers[2].base_categories, ["empty"]);
        assert!(report.answers.iter().all(|pair| pair.tuned_categories.is_empty()));
        assert_eq!(report.not_judged.len(), 1);
        assert!(!report.categories.contains_key("misspelled"));
        assert!(!report.metrics.contains_key(&TextMetric::EmbeddingCosine));
    }

    #[test]
    fn what_an_encoder_says_is_a_metric_like_the_others() {
        let alike = |cosine| TextSimilarity { cosine, token_precision: 0.5, token_recall: 0.5, token_f1: 0.5 };
        let rows = (0..3).map(|row| RowSimilarity { base: alike(0.1 * f64::from(row)), tuned: alike(0.9) });
        let aids = Aids { similarities: Some(rows.collect()), ..Aids::default() };
        let mut report = report();
        assess(&mut report, &EvaluationSpec::default(), aids, 3).unwrap();
        let cosine = &report.metrics[&TextMetric::EmbeddingCosine];
        assert_eq!((cosine.rows, cosine.comparison.verdict), (3, Verdict::Better));
        assert!((cosine.comparison.difference - 0.8).abs() < 1e-12);
        assert_eq!(report.answers[2].tuned_scores[&TextMetric::EmbeddingTokenF1], 0.5);
        let spec = EvaluationSpec { metrics: vec![TextMetric::Bleu], ..EvaluationSpec::default() };
        let few = Aids { similarities: Some(Vec::new()), ..Aids::default() };
        assert!(assess(&mut report, &spec, few, 3).is_err(), "figures of other rows");
    }

    #[test]
    fn fewer_errors_are_better() {
        let mut report = report();
        for pair in &mut report.answers {
            (pair.base, pair.tuned) = (String::new(), pair.reference.clone());
        }
        assess(&mut report, &EvaluationSpec::default(), Aids::default(), 3).unwrap();
        assert_eq!(report.categories["empty"].comparison.verdict, Verdict::Better);
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_named() {
        let pattern = PatternCategory { name: "open".into(), pattern: "(".into() };
        let spec = EvaluationSpec { patterns: vec![pattern], ..EvaluationSpec::default() };
        let refused = assess(&mut report(), &spec, Aids::default(), 3).unwrap_err().to_string();
        assert!(refused.contains("`open`"), "{refused}");
    }
}
