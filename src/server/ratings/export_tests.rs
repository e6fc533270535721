use finetuned_protocol::{
    ids::{RatingId, RatingItemId},
    ratings::AnswerSource,
};
use finetuned_store::{NewRatingItem, Rating, RatingItem, SourcedAnswer};
use time::OffsetDateTime;

use super::*;

fn item(line: u64, first: &str, second: Option<&str>, ratings: &[(Given, Option<&str>)]) -> RatedItem {
    let answer = |source, answer: &str| SourcedAnswer { source, answer: answer.to_owned() };
    let id = RatingItemId::generate();
    let rating = |(at, (given, corrected)): (usize, &(Given, Option<&str>))| Rating {
        id: RatingId::generate(),
        item: id,
        rater: None,
        swapped: false,
        given: *given,
        comment: None,
        corrected_answer: corrected.map(str::to_owned),
        rated_at: OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(at as i64),
    };
    let row = NewRatingItem {
        line,
        prompt: "q".into(),
        reference: "r".into(),
        input: json!([{"role": "user", "content": "q"}]),
        first: answer(AnswerSource::Base, first),
        second: second.map(|second| answer(AnswerSource::Tuned, second)),
    };
    RatedItem { item: RatingItem { id, row }, ratings: ratings.iter().enumerate().map(rating).collect() }
}

const FIRST: Given = Given::Preferred(Preferred::First);
const SECOND: Given = Given::Preferred(Preferred::Second);
const TIE: Given = Given::Preferred(Preferred::Tie);

/// (better, worse) of each preference row.
fn pairs(items: &[RatedItem]) -> (Vec<(String, String)>, u64) {
    let (rows, left_out) = rows_of(ExportFormat::Preference, items);
    let text = |row: &Value, name: &str| row[name][0]["content"].as_str().unwrap_or_default().to_owned();
    (rows.iter().map(|row| (text(row, "preferred_output"), text(row, "non_preferred_output"))).collect(), left_out)
}

fn pair_of(better: &str, worse: &str) -> (String, String) {
    (better.to_owned(), worse.to_owned())
}

#[test]
fn what_most_raters_preferred_comes_before_the_other() {
    let items = [
        item(1, "a", Some("b"), &[(FIRST, None), (FIRST, None), (SECOND, None)]),
        item(2, "a", Some("b"), &[(SECOND, None), (TIE, None)]),
        item(3, "a", Some("b"), &[(FIRST, None), (SECOND, None)]),
        item(4, "a", Some("b"), &[(Given::Skipped, None)]),
        item(5, "", Some("b"), &[(SECOND, None)]),
    ];
    assert_eq!(pairs(&items), (vec![pair_of("a", "b"), pair_of("b", "a")], 3));
}

#[test]
fn the_newest_correction_comes_before_what_it_corrects() {
    let items = [
        item(1, "a", Some("b"), &[(FIRST, Some("old")), (FIRST, Some("new"))]),
        item(2, "a", Some("b"), &[(TIE, Some("c"))]),
        item(3, "a", None, &[(Given::Score(1), Some("c"))]),
    ];
    let expected =
        [("new", "a"), ("new", "b"), ("c", "a"), ("c", "b"), ("c", "a")].map(|(better, worse)| pair_of(better, worse));
    assert_eq!(pairs(&items), (expected.to_vec(), 0));
    let (rows, left_out) = rows_of(ExportFormat::Supervised, &items);
    let chat = |answer: &str| json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]});
    assert_eq!((rows, left_out), (vec![chat("new"), chat("c"), chat("c")], 0));
}

#[test]
fn of_two_scored_answers_the_better_one_comes_first() {
    let score = |score| (Given::Score(score), None);
    let items = [
        item(1, "a", None, &[score(2), score(3)]),
        item(1, "b", None, &[score(3)]),
        item(2, "a", None, &[score(4)]),
        item(2, "b", None, &[score(4)]),
        item(3, "a", None, &[score(4)]),
    ];
    assert_eq!(pairs(&items), (vec![pair_of("b", "a")], 2));
}
