#![allow(clippy::unwrap_used)]

use finetuned_protocol::text_metric::TextMetric;

use super::*;

fn pair(line: u64, base: Option<f64>, tuned: Option<f64>, tuned_categories: &[&str]) -> AnswerPair {
    let scores = |figure: Option<f64>| figure.map(|figure| (TextMetric::Bleu, figure)).into_iter().collect();
    AnswerPair {
        line,
        prompt: String::new(),
        reference: String::new(),
        base: String::new(),
        tuned: String::new(),
        base_ended: true,
        tuned_ended: true,
        base_rouge_l: 0.0,
        tuned_rouge_l: 0.0,
        base_scores: scores(base),
        tuned_scores: scores(tuned),
        base_categories: vec!["too_long".into()],
        tuned_categories: tuned_categories.iter().map(|name| (*name).to_owned()).collect(),
        judgement: None,
    }
}

fn query(side: Side) -> RowsQuery {
    RowsQuery {
        run: None,
        side,
        category: None,
        sort: None,
        descending: false,
        above: None,
        below: None,
        after: None,
        limit: 2,
        format: None,
    }
}

fn pairs() -> Vec<AnswerPair> {
    vec![
        pair(1, Some(10.0), Some(40.0), &["too_long"]),
        pair(2, Some(30.0), Some(35.0), &["refusal"]),
        pair(5, None, None, &[]),
        pair(6, Some(20.0), Some(5.0), &[]),
    ]
}

fn rows(pairs: Vec<AnswerPair>) -> Vec<Row> {
    pairs.into_iter().map(|pair| Row::Judged(Box::new(pair))).collect()
}

fn lines(query: &RowsQuery) -> Vec<u64> {
    query.select(pairs()).iter().map(|pair| pair.line).collect()
}

#[test]
fn rows_are_sorted_by_a_figure_of_either_model_or_by_its_change() {
    let by = |side, descending| lines(&RowsQuery { sort: Some(TextMetric::Bleu), descending, ..query(side) });
    assert_eq!(by(Side::Base, false), [1, 6, 2, 5]);
    assert_eq!(by(Side::Tuned, true), [1, 2, 6, 5]);
    assert_eq!(by(Side::Change, false), [6, 2, 1, 5]);
    assert_eq!(lines(&RowsQuery { descending: true, ..query(Side::Tuned) }), [6, 5, 2, 1]);
}

#[test]
fn rows_are_filtered_by_category_and_by_bounds() {
    let of = |side, name: &str| lines(&RowsQuery { category: Some(name.into()), ..query(side) });
    assert_eq!(of(Side::Base, "too_long"), [1, 2, 5, 6]);
    assert_eq!(of(Side::Tuned, "too_long"), [1]);
    assert_eq!((of(Side::Change, "too_long"), of(Side::Change, "refusal")), (vec![], vec![2]));
    let bounded = RowsQuery { sort: Some(TextMetric::Bleu), above: Some(5.0), below: Some(40.0), ..query(Side::Tuned) };
    assert_eq!(lines(&bounded), [2]);
}

#[test]
fn pages_meet() {
    let page = |after| {
        let query = RowsQuery { after, sort: Some(TextMetric::Bleu), ..query(Side::Base) };
        let page = query.page(rows(query.select(pairs()))).unwrap();
        (page.data.iter().map(Listed::id).collect::<Vec<_>>(), page.last_id.clone(), page.has_more)
    };
    assert_eq!(page(None), (vec!["1".to_owned(), "6".to_owned()], Some("6".to_owned()), true));
    assert_eq!(page(Some(6)), (vec!["2".to_owned(), "5".to_owned()], Some("5".to_owned()), false));
    assert!(query(Side::Base).page(rows(pairs())).is_ok());
    assert!(RowsQuery { after: Some(3), ..query(Side::Base) }.page(rows(pairs())).is_err());
}

#[test]
fn a_row_has_what_is_known_of_it_so_far() {
    let answer = |line, by, text: &str| AnsweredRow {
        by,
        line,
        prompt: "Who?".into(),
        reference: "the owl".into(),
        text: text.into(),
        ended: false,
    };
    let given = vec![answer(4, Answerer::Base, "a"), answer(2, Answerer::Base, "b"), answer(2, Answerer::Tuned, "c")];
    let rows: Vec<_> = so_far(given).into_iter().map(|row| (row.line, row.base, row.tuned, row.tuned_ended)).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows, [(2, text("b"), text("c"), Some(false)), (4, text("a"), None, None)]);
}
