//! `finetuned rate`: rate answers of a running service in a terminal, one after the other, without knowing whose they are.

use std::io::{self, BufRead, Write};

use anyhow::Context;
use clap::Args;
use finetuned_protocol::{ids::RatingTaskId, ratings::RatingKind};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{args::ClientArgs, client::Client};

#[derive(Debug, Args)]
pub struct RateArgs {
    /// Id of the rating task.
    task: RatingTaskId,
    #[command(flatten)]
    client: ClientArgs,
}

/// What the service asks next.
#[derive(Debug, Deserialize)]
pub struct Next {
    pub kind: RatingKind,
    pub instructions: Option<String>,
    pub item: Option<Item>,
    pub remaining: u64,
    pub rated: u64,
}

/// An item to rate.
#[derive(Debug, Deserialize)]
pub struct Item {
    pub id: String,
    pub prompt: String,
    pub reference: Option<String>,
    pub answer: Option<String>,
    pub answer_a: Option<String>,
    pub answer_b: Option<String>,
}

pub async fn run(args: RateArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.client)?;
    let mut lines = io::stdin().lock().lines();
    let mut told = false;
    loop {
        let next = client.next_to_rate(args.task).await?;
        if let Some(instructions) = next.instructions.as_ref().filter(|_| !std::mem::replace(&mut told, true)) {
            println!("{}\n", printable(instructions));
        }
        let Some(item) = &next.item else {
            let others = if next.remaining > 0 { "; others hold what is left" } else { "" };
            println!("Nothing is left for you to rate: {} done{others}.", next.rated);
            return Ok(());
        };
        show(&next, item);
        loop {
            print!("{} > ", usage(next.kind));
            io::stdout().flush()?;
            let Some(line) = lines.next().transpose().context("while reading your rating")? else { return Ok(()) };
            match understood(&line, next.kind) {
                Said::Rating(mut rating) => {
                    rating["item_id"] = json!(item.id);
                    client.rate(args.task, &rating).await?;
                    break;
                }
                Said::Quit => return Ok(()),
                Said::Nothing(why) => println!("{why}"),
            }
        }
    }
}

fn show(next: &Next, item: &Item) {
    println!("--- {} rated, {} to go", next.rated, next.remaining);
    let texts = [
        ("Prompt", Some(&item.prompt)),
        ("Reference", item.reference.as_ref()),
        ("Answer", item.answer.as_ref()),
        ("Answer A", item.answer_a.as_ref()),
        ("Answer B", item.answer_b.as_ref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            println!("{name}:\n{}\n", printable(text));
        }
    }
}

/// A text of a model, which must not speak to the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn usage(kind: RatingKind) -> &'static str {
    match kind {
        RatingKind::Preference => "a, b, t (tie), s (skip) or q; then a comment; then => a better answer",
        RatingKind::Scale => "1 to 5, s (skip) or q; then a comment; then => a better answer",
    }
}

/// What a line says.
#[derive(Debug, PartialEq)]
enum Said {
    Rating(Value),
    Quit,
    /// Why it says nothing.
    Nothing(String),
}

fn understood(line: &str, kind: RatingKind) -> Said {
    let (said, corrected) = match line.split_once("=>") {
        Some((said, corrected)) => (said.trim(), Some(corrected.trim()).filter(|text| !text.is_empty())),
        None => (line.trim(), None),
    };
    let (verdict, comment) = said.split_once(char::is_whitespace).unwrap_or((said, ""));
    let mut rating = match (kind, verdict.to_lowercase().as_str()) {
        (_, "q") => return Said::Quit,
        (_, "s") => json!({"skip": true}),
        (RatingKind::Preference, choice @ ("a" | "b")) => json!({ "choice": choice }),
        (RatingKind::Preference, "t") => json!({"choice": "tie"}),
        (RatingKind::Scale, score @ ("1" | "2" | "3" | "4" | "5")) => {
            json!({"score": score.parse::<u8>().unwrap_or(1)})
        }
        (_, other) => return Said::Nothing(format!("`{}` is none of these", printable(other))),
    };
    if !comment.trim().is_empty() {
        rating["comment"] = json!(comment.trim());
    }
    if let Some(corrected) = corrected {
        rating["corrected_answer"] = json!(corrected);
    }
    Said::Rating(rating)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_verdict_a_comment_and_a_better_answer() {
        use RatingKind::{Preference, Scale};
        let rating = |line, kind| match understood(line, kind) {
            Said::Rating(rating) => rating,
            other => json!(format!("{other:?}")),
        };
        assert_eq!(rating("A", Preference), json!({"choice": "a"}));
        assert_eq!(
            rating(" t both wrong => it is red ", Preference),
            json!({"choice": "tie", "comment": "both wrong", "corrected_answer": "it is red"})
        );
        assert_eq!(rating("4 fine", Scale), json!({"score": 4, "comment": "fine"}));
        assert_eq!(rating("s", Scale), json!({"skip": true}));
        assert_eq!(understood("q", Scale), Said::Quit);
        for (line, kind) in [("4", Preference), ("a", Scale), ("6", Scale), ("", Preference)] {
            assert!(matches!(understood(line, kind), Said::Nothing(_)), "{line}");
        }
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\n");
    }
}
