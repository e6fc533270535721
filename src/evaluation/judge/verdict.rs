//! Reads a reply strictly: one JSON object of the form that was asked for. What is anything else is no verdict, and is
//! never guessed at.

use serde::{Deserialize, de::DeserializeOwned};

/// Why a reply is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoVerdict(pub String);

/// Which of two answers is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Winner {
    A,
    B,
    #[serde(rename = "tie")]
    Tie,
}

/// A reply to a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    #[serde(default)]
    pub reason: Option<String>,
    pub winner: Winner,
}

/// A reply to a question for points.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Points {
    #[serde(default)]
    pub reason: Option<String>,
    pub points: u8,
}

/// A reply to whether a sentence holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct YesNo {
    #[serde(default)]
    pub reason: Option<String>,
    pub holds: bool,
}

/// A form of reply.
pub trait Verdict: DeserializeOwned {
    /// Whether its numbers are those that were asked for.
    fn is_sound(&self) -> bool {
        true
    }
}

impl Verdict for Comparison {}

impl Verdict for YesNo {}

impl Verdict for Points {
    fn is_sound(&self) -> bool {
        (1..=5).contains(&self.points)
    }
}

/// The verdict in a reply.
///
/// # Errors
/// The reply is not one JSON object of the form, alone.
pub fn read_verdict<V: Verdict>(reply: &str) -> Result<V, NoVerdict> {
    let text = reply.trim();
    if !text.starts_with('{') {
        return Err(NoVerdict("it is not a JSON object alone".to_owned()));
    }
    let verdict: V = serde_json::from_str(text).map_err(|error| NoVerdict(error.to_string()))?;
    if !verdict.is_sound() {
        return Err(NoVerdict("`points` is not 1, 2, 3, 4 or 5".to_owned()));
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_one_object_of_its_form() {
        let winner = |reply: &str| read_verdict::<Comparison>(reply).map(|verdict| verdict.winner);
        assert_eq!(winner(" {\"reason\": \"it is right\", \"winner\": \"B\"}\n"), Ok(Winner::B));
        assert_eq!(winner(r#"{"winner": "tie"}"#), Ok(Winner::Tie));
        for reply in [
            "",
            "A",
            r#"{"winner": "C"}"#,
            r#"{"winner": "a"}"#,
            r#"{"winner": "A", "winner": "B"}"#,
            r#"{"winner": "A", "confidence": 1}"#,
            r#"{"winner": "A"} or {"winner": "B"}"#,
            "```json\n{\"winner\": \"A\"}\n```",
            "The better one is {\"winner\": \"A\"}",
            r#"[{"winner": "A"}]"#,
            r#"{"reason": "no winner"}"#,
        ] {
            assert!(winner(reply).is_err(), "{reply}");
        }
    }

    #[test]
    fn points_are_whole_and_from_one_to_five() {
        let points = |reply: &str| read_verdict::<Points>(reply).map(|verdict| verdict.points);
        assert_eq!(points(r#"{"points": 4}"#), Ok(4));
        for reply in [r#"{"points": 0}"#, r#"{"points": 6}"#, r#"{"points": 3.5}"#, r#"{"points": "4"}"#] {
            assert!(points(reply).is_err(), "{reply}");
        }
        assert_eq!(read_verdict::<YesNo>(r#"{"holds": false}"#).map(|verdict| verdict.holds), Ok(false));
        assert!(read_verdict::<YesNo>(r#"{"holds": "yes"}"#).is_err());
    }
}
