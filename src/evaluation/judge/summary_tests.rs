#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use finetuned_protocol::{
    evaluation::Verdict,
    judge::{JudgeCriterion, JudgeRequest},
};

use super::*;
use crate::{AnswerRow, GivenAnswer, answers_report};

const BASE: Option<Preference> = Some(Preference::Base);
const TUNED: Option<Preference> = Some(Preference::Tuned);
const TIE: Option<Preference> = Some(Preference::Tie);

#[test]
fn a_win_needs_both_orders() {
    for (one, other, expected) in [
        (TUNED, TUNED, TUNED),
        (BASE, BASE, BASE),
        (TUNED, BASE, TIE),
        (BASE, TUNED, TIE),
        (TUNED, TIE, TIE),
        (TIE, TIE, TIE),
        (None, TUNED, None),
        (BASE, None, None),
    ] {
        assert_eq!(outcome(one, other), expected, "{one:?} {other:?}");
    }
}

#[test]
fn a_majority_is_of_all_calls() {
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(majority(&[yes, yes], 3), yes, "the third cannot change it");
    assert_eq!(majority(&[yes, no], 3), None);
    assert_eq!(majority(&[yes, no, no], 3), no);
    assert_eq!(majority(&[yes, None, None], 3), None, "one call of three is no majority");
    assert_eq!((majority(&[no], 1), majority(&[None], 1)), (no, None));
}

fn report(judgements: Vec<Option<RowJudgement>>) -> AnswersReport {
    let given = |text: &str| GivenAnswer { text: text.into(), ended: true };
    let row =
        |line| AnswerRow { line, prompt: "p".into(), reference: "r".into(), base: given("aa"), tuned: given("aaaa") };
    let count = judgements.len() as u64;
    let mut report = answers_report((1..=count).map(row).collect(), 8, 1).unwrap();
    for (row, judgement) in report.answers.iter_mut().zip(judgements) {
        row.judgement = judgement;
    }
    report
}

fn compared(base_first: Option<Preference>, tuned_first: Option<Preference>) -> RowJudgement {
    let outcome = outcome(base_first, tuned_first);
    let unparseable = u32::from(base_first.is_none()) + u32::from(tuned_first.is_none());
    let pairwise = Some(PairJudgement { base_first, tuned_first, outcome, reason: None });
    RowJudgement { pairwise, unparseable, ..RowJudgement::default() }
}

fn summarised(mut report: AnswersReport, request: serde_json::Value) -> AnswersReport {
    let request: JudgeRequest = serde_json::from_value(request).unwrap();
    let spec = request.resolve(&BTreeSet::new()).unwrap();
    let judge = JudgeReport {
        model: "m".into(),
        url: None,
        rows: 0,
        pairwise: None,
        rubric: None,
        criteria: BTreeMap::new(),
        unparseable: 0,
        calls: 0,
        cached: 0,
        tokens: 0,
    };
    summarise(&mut report, judge, &spec, 7).unwrap();
    report
}

#[test]
fn pairs_are_counted_and_their_rates_compared() {
    let report = report(vec![
        Some(compared(TUNED, TUNED)),
        Some(compared(TUNED, TUNED)),
        Some(compared(BASE, BASE)),
        Some(compared(BASE, TUNED)),
        Some(compared(None, TUNED)),
        None,
    ]);
    let report = summarised(report, serde_json::json!({})).judge.unwrap();
    let pairs = report.pairwise.unwrap();
    assert_eq!((pairs.wins, pairs.losses, pairs.ties, pairs.unparseable), (2, 1, 1, 1));
    assert_eq!((report.rows, report.unparseable, pairs.win_rate.rows), (5, 1, 4));
    assert_eq!((pairs.flip_rate, pairs.win_rate.comparison.tuned), (0.25, 0.625));
    assert!((pairs.win_rate.comparison.base - 0.375).abs() < 1e-12);
    assert_eq!(pairs.win_rate.comparison.verdict, Verdict::NoDifferenceShown);
    assert_eq!((report.rubric, report.criteria.len()), (None, 0));
}

#[test]
fn a_judge_that_says_nothing_has_no_figures() {
    let report = report(vec![Some(compared(None, None)), None]);
    let report = summarised(report, serde_json::json!({"rubric": true})).judge.unwrap();
    assert_eq!((report.pairwise, report.rubric, report.rows, report.unparseable), (None, None, 1, 2));
}

#[test]
fn points_criteria_and_categories_are_compared_where_both_have_them() {
    let answer = |rubric, holds: &[(&str, bool)]| AnswerJudgement {
        rubric,
        holds: holds.iter().map(|(name, holds)| ((*name).to_owned(), *holds)).collect(),
    };
    let judgement = |base, tuned| Some(RowJudgement { base, tuned, ..RowJudgement::default() });
    let bad = [("correctness", false), ("harmfulness", true), ("rude", true)];
    let good = [("correctness", true), ("harmfulness", false), ("rude", false)];
    let report = report(vec![
        judgement(answer(Some(1), &bad), answer(Some(5), &good)),
        judgement(answer(Some(2), &bad), answer(Some(4), &good)),
        judgement(answer(None, &[]), answer(Some(5), &good)),
    ]);
    let request = serde_json::json!({
        "rubric": true, "criteria": ["correctness", "harmfulness"],
        "categories": [{"name": "rude", "criterion": "The answer is rude."}],
    });
    let report = summarised(report, request);
    let judge = report.judge.unwrap();
    let points = judge.rubric.unwrap();
    assert_eq!((points.rows, points.comparison.base, points.comparison.tuned), (2, 1.5, 4.5));
    let right = &judge.criteria[&JudgeCriterion::Correctness];
    assert_eq!((right.rows, right.comparison.difference, right.comparison.verdict), (2, 1.0, Verdict::Better));
    let harm = &judge.criteria[&JudgeCriterion::Harmfulness].comparison;
    assert_eq!((harm.difference, harm.verdict), (-1.0, Verdict::Better), "less harm is better");
    let rude = &report.categories["rude"].comparison;
    assert_eq!((rude.base, rude.tuned, rude.verdict), (1.0, 0.0, Verdict::Better));
    let of = |row: usize| (report.answers[row].base_categories.len(), report.answers[row].tuned_categories.len());
    assert_eq!([of(0), of(2)], [(1, 0), (0, 0)]);
}
