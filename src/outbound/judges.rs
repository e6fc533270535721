//! The operator's list of judges.

use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;

/// An OpenAI-compatible API whose model may judge.
#[derive(Debug, Clone)]
pub struct JudgeEndpoint {
    /// Base URL, to which `/chat/completions` is added.
    pub url: String,
    /// The model where a job names none.
    pub model: Option<String>,
    /// Sent as a bearer token; in no log.
    pub api_key: Option<SecretString>,
}

/// One entry of the operator's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    url: String,
    model: Option<String>,
    api_key: Option<String>,
}

/// The list; its first is what a job gets that names none.
#[derive(Debug, Clone, Default)]
pub struct Judges(Vec<JudgeEndpoint>);

/// A list that cannot be used. The words hold no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJudges {
    /// The text is no JSON array of `{"url", "model", "api_key"}`.
    #[error(
        "it must be a JSON array of objects with `url`, and where wanted `model` and `api_key` (line {line}, column {column})"
    )]
    Json { line: usize, column: usize },
    #[error("`{0}` is not a URL that begins with http:// or https://, without a query")]
    Url(String),
}

impl Judges {
    /// # Errors
    /// A URL that is none.
    pub fn new(list: Vec<JudgeEndpoint>) -> Result<Self, InvalidJudges> {
        for judge in &list {
            let url = Url::parse(&judge.url).ok();
            let fits = url.is_some_and(|url| {
                ["http", "https"].contains(&url.scheme()) && url.query().is_none() && url.fragment().is_none()
            });
            if !fits {
                return Err(InvalidJudges::Url(judge.url.clone()));
            }
        }
        Ok(Self(list))
    }

    /// Reads a list from the operator's file.
    ///
    /// # Errors
    /// A text that is no such list.
    pub fn parse(text: &str) -> Result<Vec<JudgeEndpoint>, InvalidJudges> {
        let entries: Vec<Entry> = serde_json::from_str(text)
            .map_err(|error| InvalidJudges::Json { line: error.line(), column: error.column() })?;
        let endpoint = |Entry { url, model, api_key }| JudgeEndpoint { url, model, api_key: api_key.map(Into::into) };
        Ok(entries.into_iter().map(endpoint).collect())
    }

    /// The one of a URL; without one, the first.
    pub fn find(&self, url: Option<&str>) -> Option<&JudgeEndpoint> {
        let same = |judge: &&JudgeEndpoint| url.is_none_or(|url| plain(url) == plain(&judge.url));
        self.0.iter().find(same)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Two spellings of one URL are one.
fn plain(url: &str) -> String {
    let parsed = Url::parse(url).map_or_else(|_| url.to_owned(), String::from);
    parsed.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn judges() -> Judges {
        let text = r#"[{"url": "https://one.example/v1", "model": "m", "api_key": "sk-secret"},
                       {"url": "http://127.0.0.1:8000/v1/"}]"#;
        Judges::new(Judges::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn a_judge_is_found_by_any_spelling_of_its_url() {
        let judges = judges();
        let found = |url| judges.find(url).map(|judge| judge.url.as_str());
        assert_eq!(found(None), Some("https://one.example/v1"));
        assert_eq!(found(Some("HTTPS://ONE.example:443/v1/")), Some("https://one.example/v1"));
        assert_eq!(found(Some("http://127.0.0.1:8000/v1")), Some("http://127.0.0.1:8000/v1/"));
        for other in ["https://one.example/v2", "http://one.example/v1", "https://one.example.evil/v1", "x"] {
            assert_eq!(found(Some(other)), None, "{other}");
        }
        assert_eq!(Judges::default().find(None).map(|judge| judge.url.clone()), None);
    }

    #[test]
    fn keys_are_in_no_words() {
        assert!(!format!("{:?}", judges()).contains("sk-secret"));
        let wrong = Judges::parse(r#"[{"url": "https://a", "api_key": "sk-secret", "x": 1}]"#).unwrap_err().to_string();
        assert!(wrong.contains("JSON array") && !wrong.contains("sk-secret"), "{wrong}");
        let judge = |url: &str| JudgeEndpoint { url: url.into(), model: None, api_key: None };
        for url in ["one.example", "ftp://one.example", "https://one.example/v1?key=1"] {
            assert!(matches!(Judges::new(vec![judge(url)]), Err(InvalidJudges::Url(_))), "{url}");
        }
    }
}
