//! What a judge's verdicts say of base and tuned together.

use finetuned_protocol::{
    evaluation::{AnswerPair, AnswersReport, ComparedRows},
    judge::{
        AnswerJudgement, JudgeReport, JudgeSpec, JudgedCategory, PairJudgement, PairwiseReport, Preference,
        RowJudgement,
    },
};

use super::length::length_controlled;
use crate::{EvaluationError, RESAMPLES, assess::fewer_is_better, paired_bootstrap};

/// What two comparisons come to: a win only where both say so.
pub fn outcome(base_first: Option<Preference>, tuned_first: Option<Preference>) -> Option<Preference> {
    let (one, other) = (base_first?, tuned_first?);
    Some(if one == other { one } else { Preference::Tie })
}

/// What the most of an odd number of votes say; `None` where neither side has more than half of the calls.
pub fn majority(votes: &[Option<bool>], calls: u32) -> Option<bool> {
    let most = |wanted: bool| votes.iter().filter(|vote| **vote == Some(wanted)).count() * 2 > calls as usize;
    match (most(true), most(false)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// Adds to a report what a judge says of its rows: the figures of both models, and the judge's kinds of error.
///
/// # Errors
/// Figures that cannot be compared.
pub fn summarise(
    report: &mut AnswersReport,
    mut judge: JudgeReport,
    spec: &JudgeSpec,
    seed: u64,
) -> Result<(), EvaluationError> {
    for JudgedCategory { name, .. } in &spec.categories {
        for row in &mut report.answers {
            let Some(judgement) = &row.judgement else { continue };
            let has = |answer: &AnswerJudgement| answer.holds.get(name) == Some(&true);
            row.base_categories.extend(has(&judgement.base).then(|| name.clone()));
            row.tuned_categories.extend(has(&judgement.tuned).then(|| name.clone()));
        }
    }
    let judged: Vec<(&AnswerPair, &RowJudgement)> =
        report.answers.iter().filter_map(|row| Some((row, row.judgement.as_ref()?))).collect();
    judge.rows = judged.len() as u64;
    judge.unparseable = judged.iter().map(|(_, judgement)| u64::from(judgement.unparseable)).sum();
    judge.pairwise = pairwise(&judged, seed)?;
    judge.rubric = compare(&judged, seed, |judgement| judgement.rubric.map(f64::from))?;
    let of = |name: &str| compare(&judged, seed, |judgement| judgement.holds.get(name).copied().map(share));
    for criterion in &spec.criteria {
        let compared = of(criterion.as_str())?;
        judge.criteria.extend(
            compared.map(|compared| (*criterion, if criterion.is_good() { compared } else { fewer(compared) })),
        );
    }
    let mut categories = Vec::new();
    for JudgedCategory { name, .. } in &spec.categories {
        categories.extend(of(name)?.map(|compared| (name.clone(), fewer(compared))));
    }
    report.categories.extend(categories);
    report.judge = Some(judge);
    Ok(())
}

/// The same where less is better.
fn fewer(mut compared: ComparedRows) -> ComparedRows {
    compared.comparison.verdict = fewer_is_better(compared.comparison.verdict);
    compared
}

fn share(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// Both models over the rows on which both have the figure.
fn compare(
    judged: &[(&AnswerPair, &RowJudgement)],
    seed: u64,
    figure: impl Fn(&AnswerJudgement) -> Option<f64>,
) -> Result<Option<ComparedRows>, EvaluationError> {
    let both = judged.iter().filter_map(|(_, row)| Some((figure(&row.base)?, figure(&row.tuned)?)));
    let (base, tuned): (Vec<f64>, Vec<f64>) = both.unzip();
    if base.is_empty() {
        return Ok(None);
    }
    let comparison = paired_bootstrap(&base, &tuned, seed, RESAMPLES)?;
    Ok(Some(ComparedRows { rows: base.len() as u64, comparison }))
}

fn pairwise(judged: &[(&AnswerPair, &RowJudgement)], seed: u64) -> Result<Option<PairwiseReport>, EvaluationError> {
    let compared: Vec<(&AnswerPair, &PairJudgement)> =
        judged.iter().filter_map(|(row, judgement)| Some((*row, judgement.pairwise.as_ref()?))).collect();
    let decided: Vec<(&AnswerPair, Preference)> =
        compared.iter().filter_map(|(row, pair)| Some((*row, pair.outcome?))).collect();
    if decided.is_empty() {
        return Ok(None);
    }
    let count = |wanted| decided.iter().filter(|(_, outcome)| *outcome == wanted).count() as u64;
    let flips = compared.iter().filter(|(_, pair)| is_flipped(pair)).count();
    let tuned: Vec<f64> = decided.iter().map(|(_, outcome)| credit(*outcome)).collect();
    let base: Vec<f64> = tuned.iter().map(|credit| 1.0 - credit).collect();
    let comparison = paired_bootstrap(&base, &tuned, seed, RESAMPLES)?;
    let lengths: Vec<(f64, f64)> = decided.iter().map(|(row, outcome)| (credit(*outcome), longer(row))).collect();
    Ok(Some(PairwiseReport {
        wins: count(Preference::Tuned),
        losses: count(Preference::Base),
        ties: count(Preference::Tie),
        unparseable: (compared.len() - decided.len()) as u64,
        flip_rate: flips as f64 / decided.len() as f64,
        win_rate: ComparedRows { rows: decided.len() as u64, comparison },
        length_controlled_win_rate: length_controlled(&lengths),
    }))
}

/// The tuned model's.
fn credit(outcome: Preference) -> f64 {
    match outcome {
        Preference::Tuned => 1.0,
        Preference::Tie => 0.5,
        Preference::Base => 0.0,
    }
}

/// Whether the order of the answers decided which of them is better.
fn is_flipped(pair: &PairJudgement) -> bool {
    matches!(
        (pair.base_first, pair.tuned_first),
        (Some(Preference::Base), Some(Preference::Tuned)) | (Some(Preference::Tuned), Some(Preference::Base))
    )
}

/// How many characters more the tuned model's answer has.
fn longer(row: &AnswerPair) -> f64 {
    row.tuned.chars().count() as f64 - row.base.chars().count() as f64
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
