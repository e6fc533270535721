//! Asking both models again, once a run has exported.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use finetuned_protocol::{
    engine::{AnsweredRow, EXIT_FAILED, EXIT_OK, EngineEvent, KNOWN_ANSWERS_FILE},
    evaluation::AnswerPair,
    spec::{AnswersSpec, TrainingSpec},
};

use crate::{
    testing::spec,
    testing_folder::{Folder, Ran},
};

fn told(ran: &Ran) -> Vec<AnsweredRow> {
    let rows = ran.events.iter().filter_map(|event| match event {
        EngineEvent::Answered { rows } => Some(rows.clone()),
        _ => None,
    });
    rows.flatten().collect()
}

/// `line, answerer, text`, in their order.
fn by_line(rows: &[AnsweredRow]) -> Vec<(u64, String, String)> {
    let mut by_line: Vec<_> = rows.iter().map(|row| (row.line, row.by.to_string(), row.text.clone())).collect();
    by_line.sort();
    by_line
}

fn report_of(ran: &Ran) -> Vec<AnswerPair> {
    match ran.last() {
        EngineEvent::Finished { evaluation, .. } => evaluation.answers.as_ref().unwrap().answers.clone(),
        other => panic!("{other:?}"),
    }
}

fn trained() -> (Folder, Ran) {
    let settings = TrainingSpec { answers: AnswersSpec { rows: 4, max_new_tokens: 6 }, ..spec() };
    let folder = Folder::new(settings);
    let ran = folder.run();
    assert_eq!(ran.status, EXIT_OK);
    (folder, ran)
}

#[test]
fn a_published_adapter_gives_the_answers_it_gave_after_its_training() {
    let (folder, trained) = trained();
    let again = folder.evaluate();
    assert_eq!((again.status, again.last()), (EXIT_OK, &EngineEvent::AllAnswered { rows: 4 }));
    assert_eq!(told(&again), told(&trained), "told alike, in training and after it");
    let pairs = report_of(&trained);
    let expected = pairs.iter().flat_map(|pair| {
        let one = |who: &str, text: &str| (pair.line, who.to_owned(), text.to_owned());
        [one("base", &pair.base), one("tuned", &pair.tuned)]
    });
    assert_eq!(by_line(&told(&again)), expected.collect::<Vec<_>>());
}

#[test]
fn what_is_known_is_not_asked_again() {
    let (folder, trained) = trained();
    let known: Vec<AnsweredRow> = told(&trained).into_iter().filter(|row| row.by.as_str() == "base").collect();
    let write = |rows: &[AnsweredRow]| {
        let lines: String = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
        fs::write(folder.path().join(KNOWN_ANSWERS_FILE), lines).unwrap();
    };
    write(&known);
    let rest = told(&folder.evaluate());
    assert_eq!(rest.len(), 4);
    assert!(rest.iter().all(|row| row.by.as_str() == "tuned"), "{rest:?}");
    // With all of them, not even the models are read.
    write(&told(&trained));
    fs::remove_dir_all(folder.path().join("adapter")).unwrap();
    let nothing = folder.evaluate();
    assert_eq!((told(&nothing), nothing.last()), (Vec::new(), &EngineEvent::AllAnswered { rows: 4 }));
}

#[test]
fn an_adapter_that_is_gone_is_a_failure() {
    let (folder, _) = trained();
    fs::remove_dir_all(folder.path().join("adapter")).unwrap();
    let ran = folder.evaluate();
    assert_eq!(ran.status, EXIT_FAILED);
    assert!(matches!(ran.last(), EngineEvent::Failed { .. }), "{:?}", ran.last());
}
