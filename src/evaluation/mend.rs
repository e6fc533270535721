//! Which training rows to mend first, from the errors that the tuned model makes.

use std::collections::{BTreeMap, HashSet};

use finetuned_protocol::{
    evaluation::{AnswerPair, AnswersReport},
    mend::{CategoryOrigin, ErrorRow, NearError, Neighbour, RowToMend, TrainingRows},
};

/// Held-out rows of a category that are followed back, the worst first.
const WORST: usize = 10;
/// Training rows that are held to account for each of them.
const NEAREST: usize = 5;
/// Rows less alike than this have nothing to do with each other.
const LEAST_SIMILARITY: f64 = 0.2;
/// To be near to an error is weaker evidence than to show it.
const NEAR_WEIGHT: f64 = 0.5;
/// Held-out rows that a reason names.
const NAMED: usize = 4;
/// Training rows that a category names.
const MOST_LINES: usize = 100;

/// Training rows by how much mending them promises, the most first; those of one category where it is named.
///
/// For each category c, let `w(c)` be the share of the tuned model's answers that have it; `H(c)` the worst of them, at
/// most ten, by their ROUGE-L; `near(c, r)` the sum over `H(c)` of the similarity of training row r, where it is among the
/// five nearest and at least 0.2, divided by the number of rows in `H(c)`; `shows(c, r)` 1 where the answer of r has the
/// error itself; and `p(c)` the share of the training rows that do, since an error that every row shows tells none from
/// the others. Then
///
/// `score(r) = sum over c of w(c) * (shows(c, r) * (1 - p(c)) + near(c, r) / 2)`
///
/// so that a row which shows a rare error itself comes before those that are merely near to it. Rows with a score of 0 are
/// left out; of equal scores the earlier line comes first.
pub fn rows_to_mend(report: &AnswersReport, rows: &TrainingRows, category: Option<&str>) -> Vec<RowToMend> {
    let mut found: BTreeMap<u64, RowToMend> = BTreeMap::new();
    for name in report.categories.keys().filter(|name| category.is_none_or(|wanted| *name == wanted)) {
        follow(name, report, rows, &mut found);
    }
    let mut ranked: Vec<RowToMend> = found.into_values().filter(|row| row.score > 0.0).collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.line.cmp(&b.line)));
    for row in &mut ranked {
        row.near.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
        row.reason = reason(row);
    }
    ranked
}

/// Each kind of error that the tuned model makes: its worst answers, what was learned nearby, and the training rows that
/// show it themselves. The most frequent first.
pub fn origins(report: &AnswersReport, rows: &TrainingRows) -> Vec<CategoryOrigin> {
    let of_category = |name: &String| {
        let errors = report.answers.iter().filter(|pair| has(pair, name)).count();
        let showing = showing(name, rows);
        let error_row = |pair: &AnswerPair| ErrorRow {
            line: pair.line,
            prompt: pair.prompt.clone(),
            reference: pair.reference.clone(),
            answer: pair.tuned.clone(),
            nearest: neighbours(pair.line, rows).to_vec(),
        };
        (errors > 0).then(|| CategoryOrigin {
            category: name.clone(),
            error_share: errors as f64 / report.answers.len() as f64,
            worst: worst(name, report).into_iter().map(error_row).collect(),
            training_rows: showing.len() as u64,
            training_lines: showing.into_iter().take(MOST_LINES).collect(),
        })
    };
    let mut found: Vec<CategoryOrigin> = report.categories.keys().filter_map(of_category).collect();
    found.sort_by(|a, b| b.error_share.total_cmp(&a.error_share));
    found
}

fn neighbours(held_out_line: u64, rows: &TrainingRows) -> &[Neighbour] {
    let all = rows.neighbours.get(&held_out_line).map(Vec::as_slice).unwrap_or_default();
    &all[..all.len().min(NEAREST)]
}

fn showing(category: &str, rows: &TrainingRows) -> Vec<u64> {
    let shows = |names: &[String]| names.iter().any(|name| name == category);
    rows.categories.iter().filter(|(_, names)| shows(names)).map(|(line, _)| *line).collect()
}

/// Adds what one category says.
fn follow(name: &str, report: &AnswersReport, rows: &TrainingRows, found: &mut BTreeMap<u64, RowToMend>) {
    let worst = worst(name, report);
    if worst.is_empty() {
        return;
    }
    let errors = report.answers.iter().filter(|pair| has(pair, name)).count();
    let weight = errors as f64 / report.answers.len() as f64;
    for pair in &worst {
        for Neighbour { line, similarity } in neighbours(pair.line, rows) {
            if *similarity < LEAST_SIMILARITY {
                continue;
            }
            let row = entry(*line, rows, found);
            row.score += weight * NEAR_WEIGHT * similarity / worst.len() as f64;
            row.near.push(NearError { held_out_line: pair.line, category: name.to_owned(), similarity: *similarity });
        }
    }
    let showing = showing(name, rows);
    let common = showing.len() as f64 / rows.rows_looked_at.max(1) as f64;
    for line in showing {
        let row = entry(line, rows, found);
        row.score += weight * (1.0 - common);
        row.categories.push(name.to_owned());
    }
}

/// The worst held-out rows that the tuned model answered with this error.
fn worst<'r>(category: &str, report: &'r AnswersReport) -> Vec<&'r AnswerPair> {
    let mut worst: Vec<&AnswerPair> = report.answers.iter().filter(|pair| has(pair, category)).collect();
    worst.sort_by(|a, b| a.tuned_rouge_l.total_cmp(&b.tuned_rouge_l).then(a.line.cmp(&b.line)));
    worst.truncate(WORST);
    worst
}

fn has(pair: &AnswerPair, category: &str) -> bool {
    pair.tuned_categories.iter().any(|name| name == category)
}

fn entry<'f>(line: u64, rows: &TrainingRows, found: &'f mut BTreeMap<u64, RowToMend>) -> &'f mut RowToMend {
    found.entry(line).or_insert_with(|| RowToMend {
        line,
        pointer: rows.pointers.get(&line).cloned().unwrap_or_default(),
        score: 0.0,
        reason: String::new(),
        categories: Vec::new(),
        near: Vec::new(),
    })
}

fn reason(row: &RowToMend) -> String {
    let quoted = |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    if !row.categories.is_empty() {
        parts.push(format!("its own answer is {}", quoted(row.categories.iter().map(String::as_str).collect())));
    }
    if !row.near.is_empty() {
        let mut seen = HashSet::new();
        let lines: Vec<String> = row
            .near
            .iter()
            .filter(|one| seen.insert(one.held_out_line))
            .map(|one| one.held_out_line.to_string())
            .collect();
        let mut seen = HashSet::new();
        let names = row.near.iter().map(|one| one.category.as_str()).filter(|name| seen.insert(*name)).collect();
        let more = if lines.len() > NAMED { format!(" and {} more", lines.len() - NAMED) } else { String::new() };
        let (word, lines) =
            (if lines.len() == 1 { "line" } else { "lines" }, lines[..lines.len().min(NAMED)].join(", "));
        parts.push(format!("it is among the nearest to held-out {word} {lines}{more}, answered {}", quoted(names)));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use finetuned_protocol::{evaluation_spec::EvaluationSpec, mend::NearnessMethod};

    use super::*;
    use crate::{Aids, AnswerRow, GivenAnswer, answers_report, assess};

    /// Four answers: two empty, one that refuses, one that is right.
    fn report() -> AnswersReport {
        let row = |line, tuned: &str| AnswerRow {
            line,
            prompt: "Say it.".into(),
            reference: "so be it".into(),
            base: GivenAnswer { text: "so be it".into(), ended: true },
            tuned: GivenAnswer { text: tuned.into(), ended: true },
        };
        let refusal = "I'm sorry, but I cannot help with that.";
        let rows = vec![row(1, ""), row(2, ""), row(3, refusal), row(4, "so be it")];
        let mut report = answers_report(rows, 8, 1).unwrap();
        assess(&mut report, &EvaluationSpec::default(), Aids::default(), 1).unwrap();
        report
    }

    fn training() -> TrainingRows {
        let near = |pairs: &[(u64, f64)]| {
            pairs.iter().map(|(line, similarity)| Neighbour { line: *line, similarity: *similarity }).collect()
        };
        TrainingRows {
            method: NearnessMethod::Embedding,
            rows: 20,
            rows_looked_at: 10,
            pointers: BTreeMap::from([(11, "/output".to_owned())]),
            neighbours: BTreeMap::from([
                (1, near(&[(11, 0.8), (12, 0.5), (13, 0.1)])),
                (2, near(&[(11, 0.6)])),
                (3, near(&[(14, 0.9)])),
                (4, near(&[(15, 1.0)])),
            ]),
            categories: BTreeMap::from([
                (11, vec!["empty".to_owned()]),
                (16, vec!["refusal".to_owned(), "repetitive".to_owned()]),
            ]),
            not_judged: Vec::new(),
        }
    }

    #[test]
    fn scores_follow_their_formula() {
        let ranked = rows_to_mend(&report(), &training(), None);
        let scores: Vec<(u64, f64)> = ranked.iter().map(|row| (row.line, row.score)).collect();
        assert_eq!(report().answers[2].tuned_categories, ["refusal"]);
        // empty: w = 2/4, p = 1/10; refusal: w = 1/4, p = 1/10.
        let refusal = 0.25;
        let expected = [
            (11, 0.5 * ((0.8 + 0.6) / 2.0 / 2.0 + 0.9)),
            (16, refusal * 0.9),
            (14, refusal * 0.9 / 2.0),
            (12, 0.5 * 0.5 / 2.0 / 2.0),
        ];
        assert_eq!(scores.len(), expected.len(), "{scores:?}");
        for ((line, score), (expected_line, expected)) in scores.iter().zip(expected) {
            assert!(*line == expected_line && (score - expected).abs() < 1e-12, "{scores:?}");
        }
        let first = &ranked[0];
        assert_eq!((first.pointer.as_str(), first.categories.as_slice()), ("/output", ["empty".to_owned()].as_slice()));
        let told = "its own answer is `empty`; it is among the nearest to held-out lines 1, 2, answered `empty`";
        assert_eq!(first.reason, told);
        // What the tuned model does not do is no reason, whatever a row shows.
        assert!(!ranked[1].categories.contains(&"repetitive".to_owned()));
    }

    #[test]
    fn one_category_is_followed_alone() {
        let lines = |category| {
            rows_to_mend(&report(), &training(), Some(category)).iter().map(|row| row.line).collect::<Vec<_>>()
        };
        assert_eq!(lines("refusal"), [16, 14]);
        assert_eq!(lines("broken_format"), Vec::<u64>::new());
    }

    #[test]
    fn each_error_names_its_worst_rows_and_where_it_may_come_from() {
        let found = origins(&report(), &training());
        let names: Vec<_> =
            found.iter().map(|one| (one.category.as_str(), one.error_share, one.training_rows)).collect();
        assert_eq!(names, [("empty", 0.5, 1), ("refusal", 0.25, 1)]);
        let empty = &found[0];
        assert_eq!((empty.worst[0].line, empty.worst[0].nearest.len()), (1, 3));
        assert_eq!((empty.training_lines.as_slice(), empty.worst[1].nearest[0].line), ([11].as_slice(), 11));
    }

    #[test]
    fn the_worst_rows_come_first() {
        let mut report = report();
        report.answers[0].tuned_rouge_l = 0.5;
        let lines: Vec<u64> = worst("empty", &report).iter().map(|pair| pair.line).collect();
        assert_eq!(lines, [2, 1]);
    }
}
