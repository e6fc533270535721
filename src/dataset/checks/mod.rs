//! What a row says: answers that teach little, secrets and personal data, languages. Warnings all: a person decides.

mod answers;
mod language;
mod private;
mod redact;

use finetuned_protocol::lint::{Finding, LanguageShare, RowFormat};

use crate::{
    example::Example,
    rules::Rule,
    texts::{Speaker, TextOf, each_text},
};
use language::Languages;
use private::Secrets;
pub(crate) use redact::Redactor;

/// Looks at the content of rows.
pub(crate) struct ContentChecks {
    secrets: Secrets,
    languages: Languages,
    rows: u64,
}

/// Where findings of one row go.
struct Found<'f> {
    line: u64,
    format: RowFormat,
    findings: &'f mut Vec<Finding>,
}

impl Found<'_> {
    fn add(&mut self, rule: &Rule, text: &TextOf<'_>, reason: String) {
        self.findings.push(rule.at(self.line, text.pointer(self.format), reason));
    }
}

impl ContentChecks {
    pub fn new() -> Self {
        Self { secrets: Secrets::new(), languages: Languages::default(), rows: 0 }
    }

    pub fn row(&mut self, example: &Example, format: RowFormat, line: u64, findings: &mut Vec<Finding>) {
        self.rows += 1;
        let mut found = Found { line, format, findings };
        let mut question = "";
        let mut answer = None;
        each_text(example, &mut |text| {
            self.secrets.look(&text, &mut found);
            private::look(&text, &mut found);
            match text.speaker {
                Speaker::System | Speaker::Caller => {}
                Speaker::Asker if text.text.is_empty() => {}
                Speaker::Asker => question = text.text,
                // Nothing but calls is said.
                Speaker::Answerer if text.text.is_empty() => {}
                Speaker::Answerer => {
                    answers::look(&text, question, &mut found);
                    answer = Some(text.text);
                }
            }
        });
        if let Some(answer) = answer {
            self.languages.look(self.rows, answer);
        }
    }

    /// Languages of the answers, and what is to be said of their mix.
    pub fn finish(self) -> (Vec<LanguageShare>, Option<Finding>) {
        self.languages.finish()
    }
}

#[cfg(test)]
mod tests;
