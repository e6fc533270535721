//! The demo's rows: questions and answers by people, from the YAML files of the chatterbot corpus, as Alpaca rows.

use std::{
    collections::HashMap,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// Files whose answers are mostly facts, in the order their rows are taken; the last fills up to [`MOST_ROWS`].
const FILES: [&str; 5] = ["science.yml", "computers.yml", "history.yml", "literature.yml", "trivia.yml"];
/// Rows at most, so that training stays within minutes on two cores.
const MOST_ROWS: usize = 192;
/// Longest answer, in words: the demo teaches a model that likes to talk to answer with the fact alone.
const MOST_ANSWER_WORDS: usize = 8;
const QUESTION_WORDS: [&str; 8] = ["who", "what", "when", "where", "which", "why", "how", "whose"];
/// Words by which a chat partner speaks of itself or to the reader; such answers are small talk, not facts.
const PERSONAL_WORDS: [&str; 12] =
    ["i", "i'm", "i'd", "i've", "me", "my", "we", "you", "you're", "you'd", "your", "let's"];
/// Questions of these files whose answers are jokes.
const JOKES: [&str; 1] = ["what is h2o"];

#[derive(Debug, Deserialize)]
struct Corpus {
    conversations: Vec<yaml_serde::Value>,
}

/// One row in the layout published with Stanford Alpaca.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AlpacaRow {
    pub instruction: String,
    pub input: String,
    pub output: String,
}

/// Reads the corpus files of `folder` and writes the chosen rows as JSON lines; equal files give equal bytes.
///
/// Returns how many rows were written.
///
/// # Errors
/// A corpus file that is missing or not of the corpus's layout, or a target that cannot be written.
pub fn convert(folder: &Path, target: &Path) -> anyhow::Result<usize> {
    let mut rows = Rows::default();
    for name in FILES {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("while reading {}; `python3 scripts/runtime.py` fetches the corpus", path.display())
        })?;
        rows.add(&text).with_context(|| format!("while reading {}", path.display()))?;
    }
    // Only now: of several answers the long one may be the fact, and the short one a joke.
    rows.0.retain(|row| words(&row.output).count() <= MOST_ANSWER_WORDS);
    rows.0.truncate(MOST_ROWS);
    if rows.0.len() < 20 {
        bail!("only {} rows of {} can be used; is it the chatterbot corpus?", rows.0.len(), folder.display());
    }
    write(&rows.0, target).with_context(|| format!("while writing {}", target.display()))?;
    Ok(rows.0.len())
}

fn write(rows: &[AlpacaRow], target: &Path) -> anyhow::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(target)?);
    for row in rows {
        serde_json::to_writer(&mut file, row)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

/// Rows found so far, each question once.
#[derive(Debug, Default)]
struct Rows(Vec<AlpacaRow>);

impl Rows {
    /// Adds what one corpus file has: the first two lines of each conversation, where they are a question and a fact.
    fn add(&mut self, yaml: &str) -> anyhow::Result<()> {
        let corpus: Corpus = yaml_serde::from_str(yaml).context("this is not a file of the chatterbot corpus")?;
        let mut known: HashMap<String, usize> =
            self.0.iter().enumerate().map(|(index, row)| (key(&row.instruction), index)).collect();
        for conversation in &corpus.conversations {
            // A few conversations have lost their second line and are no lists.
            let lines = conversation.as_sequence().map(Vec::as_slice);
            let Some([question, answer, ..]) = lines else { continue };
            let (Some(question), Some(answer)) = (text(question), text(answer)) else { continue };
            if !is_question(&question) || !is_fact(&answer) || JOKES.contains(&key(&question).as_str()) {
                continue;
            }
            let row = AlpacaRow { instruction: capital(&question), input: String::new(), output: capital(&answer) };
            match known.get(&key(&question)) {
                // Of several answers to one question the longest says most.
                Some(&index) if row.output.len() > self.0[index].output.len() => self.0[index] = row,
                Some(_) => {}
                None => {
                    known.insert(key(&question), self.0.len());
                    self.0.push(row);
                }
            }
        }
        Ok(())
    }
}

/// A scalar as text on one line; numbers are written without quotes in some files.
fn text(value: &yaml_serde::Value) -> Option<String> {
    let text = match value {
        yaml_serde::Value::String(text) => text.clone(),
        yaml_serde::Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What makes two spellings of a question one.
fn key(question: &str) -> String {
    let letters = question.to_lowercase().replace(|c: char| !c.is_alphanumeric(), " ");
    letters.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let lower = text.to_lowercase().replace('’', "'").replace(|c: char| !c.is_alphanumeric() && c != '\'', " ");
    lower.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

fn is_question(text: &str) -> bool {
    let asks = text.ends_with('?') || words(text).next().is_some_and(|word| QUESTION_WORDS.contains(&word.as_str()));
    asks && words(text).count() >= 3 && !words(text).any(|word| PERSONAL_WORDS.contains(&word.as_str()))
}

fn is_fact(text: &str) -> bool {
    let personal = words(text).any(|word| PERSONAL_WORDS.contains(&word.as_str()));
    let says_something = words(text).any(|word| word != "it");
    says_something && !personal && !text.ends_with('?')
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const SAMPLE: &str = r#"
categories: [science]
conversations:
- - what is gravitation
  - an invitation to a burial
- - What is  gravitation?
  - the force by which every mass
    attracts every other.
- - how far is the sun
  - it
- - do you know chemistry
  - what is chemistry
- - Water as a pH level of around?
  - 7
- - who is piers anthony
  - I haven't read anything by him.
- - we are on the same wavelength
  - and the same frequency.
- - what is h2o
  - h is to o as o is to v.
- - Who was the 37th President?
  - Richard Nixon
  - and what of the 38th?
- - alone
- no list at all?
  - '22'
"#;

    fn rows(yaml: &str) -> Vec<(String, String)> {
        let mut rows = Rows::default();
        rows.add(yaml).unwrap();
        rows.0.into_iter().map(|row| (row.instruction, row.output)).collect()
    }

    #[test]
    fn questions_with_facts_become_rows_once_each() {
        let expected = [
            ("What is gravitation?", "The force by which every mass attracts every other."),
            ("Water as a pH level of around?", "7"),
            ("Who was the 37th President?", "Richard Nixon"),
        ];
        assert_eq!(rows(SAMPLE), expected.map(|(question, answer)| (question.to_owned(), answer.to_owned())));
    }

    #[test]
    fn another_layout_is_refused() {
        assert!(Rows::default().add("conversations: none").is_err());
        assert!(Rows::default().add("- a\n- b\n").is_err());
    }

    #[test]
    fn the_file_is_alpaca_json_lines_and_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let numbered: String =
            (0..30).map(|n| format!("- - what is the number {n}\n  - number {n}\n")).collect::<Vec<_>>().concat();
        for name in FILES {
            let yaml = if name == "trivia.yml" { format!("conversations:\n{numbered}") } else { SAMPLE.to_owned() };
            std::fs::write(folder.path().join(name), yaml).unwrap();
        }
        let (first, second) = (folder.path().join("a.jsonl"), folder.path().join("b.jsonl"));
        // Three rows of the sample, less the one whose answer is long.
        assert_eq!(convert(folder.path(), &first).unwrap(), 32);
        convert(folder.path(), &second).unwrap();
        let bytes = std::fs::read_to_string(&first).unwrap();
        assert_eq!(bytes, std::fs::read_to_string(&second).unwrap());
        let last: serde_json::Value = serde_json::from_str(bytes.lines().last().unwrap()).unwrap();
        assert_eq!(
            last,
            serde_json::json!({"instruction": "What is the number 29", "input": "", "output": "Number 29"})
        );
    }

    #[test]
    fn a_missing_corpus_says_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = convert(folder.path(), &folder.path().join("out")).unwrap_err();
        assert!(format!("{error:#}").contains("scripts/runtime.py"), "{error:#}");
    }
}
