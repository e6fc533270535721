//! Steps that look at one row after the other.

use std::collections::HashMap;

use finetuned_protocol::{
    lint::Finding,
    preparation::{LengthFilter, PrivateData, SourceCap},
};

use super::{
    Blame, LeftByRule, Progress, Rows, StepError, Verdict, check, column, pass, sift,
    spool::{Marks, Record, Spool, SpoolWriter},
};
use crate::{
    Example,
    checks::{ContentChecks, Redactor},
    json::{Json, Object},
    reader::RowParser,
    splitter::{Piece, Place},
    texts::each_text,
};

/// Values that sources are told apart by.
const MOST_SOURCES: usize = 100_000;

impl Rows<'_> {
    /// Rows that break one of the rules leave, by the first that they break.
    pub(super) fn drop_by_rule(
        &self,
        rules: &[String],
        spool: &mut Spool,
        progress: &mut Progress<'_>,
    ) -> Result<LeftByRule, StepError> {
        let mut reading = self.reading();
        reading.disabled_rules.retain(|id| !rules.contains(id));
        let (mut parser, mut content) = (RowParser::new(&reading), ContentChecks::new());
        let mut findings: Vec<Finding> = Vec::new();
        let mut breaks = |record: &Record<'_>| {
            let place = Place { line: record.line, column: 0 };
            findings.clear();
            if let Some(row) = parser.read(Piece::Row { place, bytes: record.json, terminated: true }, &mut findings) {
                content.row(&row.example, self.format, record.line, &mut findings);
            }
            let broken = findings.iter().find(|finding| rules.contains(&finding.rule));
            broken.and_then(|finding| check::row_rule(&finding.rule))
        };
        sift(spool, progress, &mut |record| Ok(breaks(record).map_or(Verdict::Stays, |rule| Verdict::Leaves(rule.id))))
    }

    pub(super) fn redact(
        &self,
        kinds: Option<&[PrivateData]>,
        spool: &mut Spool,
        progress: &mut Progress<'_>,
    ) -> Result<LeftByRule, StepError> {
        let redactor = Redactor::new(kinds.unwrap_or(PrivateData::ALL));
        let mut writer = SpoolWriter::new()?;
        self.each_row(spool, progress, &mut |record, _, fields| {
            let json = serde_json::to_vec(&Json::Object(redacted(fields, &redactor))).map_err(std::io::Error::from)?;
            writer.push(&Record { json: &json, ..*record })?;
            Ok(())
        })?;
        *spool = writer.finish()?;
        Ok(LeftByRule::new())
    }

    pub(super) fn filter_length(
        &self,
        filter: &LengthFilter,
        step: usize,
        (spool, progress): (&mut Spool, &mut Progress<'_>),
    ) -> Result<LeftByRule, StepError> {
        let (least, most) = filter.bounds();
        let (mut short, mut long) = (Marks::default(), Marks::default());
        self.each_row(spool, progress, &mut |record, row, _| {
            let length = self.length(&row.example, filter, step)?;
            if least.is_some_and(|least| length < least) {
                short.set(record.index);
            } else if most.is_some_and(|most| length > most) {
                long.set(record.index);
            }
            Ok(())
        })?;
        sift(spool, progress, &mut |record| {
            Ok(match (short.has(record.index), long.has(record.index)) {
                (true, _) => Verdict::Leaves("too_short"),
                (_, true) => Verdict::Leaves("too_long"),
                _ => Verdict::Stays,
            })
        })
    }

    fn length(&self, example: &Example, filter: &LengthFilter, step: usize) -> Result<u64, StepError> {
        let mut length = 0;
        match (filter, example) {
            (LengthFilter::Tokens { .. }, Example::Tokens { input_ids, .. }) => return Ok(input_ids.len() as u64),
            (LengthFilter::Characters { .. }, Example::Tokens { .. }) => {
                let blame = Blame::Step { index: step, field: Some("unit") };
                return Err(StepError::refused(blame, "rows of token ids have no characters; count `tokens`"));
            }
            (LengthFilter::Characters { .. }, _) => {
                each_text(example, &mut |text| length += text.text.chars().count());
            }
            (LengthFilter::Tokens { .. }, _) => {
                let Some(tokenizer) = self.plan.tokenizer else {
                    let blame = Blame::Step { index: step, field: Some("model") };
                    return Err(StepError::refused(blame, "the tokenizer of this model is not at hand"));
                };
                let mut counted = Ok(());
                each_text(example, &mut |text| match tokenizer.encode_ordinary(text.text) {
                    Ok(tokens) => length += tokens.len(),
                    Err(error) => counted = Err(error),
                });
                counted?;
            }
        }
        Ok(length as u64)
    }

    /// The first rows of each source stay.
    pub(super) fn cap_per_source(
        &self,
        cap: &SourceCap,
        step: usize,
        (spool, progress): (&mut Spool, &mut Progress<'_>),
    ) -> Result<LeftByRule, StepError> {
        let mut over = Marks::default();
        match cap {
            SourceCap::File { rows } => {
                let mut taken: HashMap<u16, u64> = HashMap::new();
                pass(spool, progress, &mut |record| {
                    let taken = taken.entry(record.source).or_default();
                    *taken += 1;
                    if *taken > *rows {
                        over.set(record.index);
                    }
                    Ok(())
                })?;
            }
            SourceCap::Column { rows, column: name } => {
                let column = self.column(name, step, "column");
                let mut taken: HashMap<Vec<u8>, u64> = HashMap::new();
                self.each_row(spool, progress, &mut |record, _, fields| {
                    let key = column::key(column.of(record, &fields)?).into_owned();
                    if taken.len() == MOST_SOURCES && !taken.contains_key(&key) {
                        let message = format!("`{name}` has more than {MOST_SOURCES} values, too many for sources");
                        return Err(column.refused(record, message));
                    }
                    let taken = taken.entry(key).or_default();
                    *taken += 1;
                    if *taken > *rows {
                        over.set(record.index);
                    }
                    Ok(())
                })?;
            }
        }
        sift(spool, progress, &mut |record| {
            Ok(if over.has(record.index) { Verdict::Leaves("over_cap") } else { Verdict::Stays })
        })
    }
}

/// All texts of a row but the names of its fields, at any depth.
fn redacted<'f>(fields: Object<'f>, redactor: &Redactor) -> Object<'f> {
    fields.into_iter().map(|(name, value)| (name, redacted_value(value, redactor))).collect()
}

fn redacted_value<'f>(value: Json<'f>, redactor: &Redactor) -> Json<'f> {
    match value {
        Json::Text(text) => match redactor.redact(&text) {
            std::borrow::Cow::Owned(without) => Json::Text(without.into()),
            std::borrow::Cow::Borrowed(_) => Json::Text(text),
        },
        Json::Array(items) => Json::Array(items.into_iter().map(|item| redacted_value(item, redactor)).collect()),
        Json::Object(fields) => Json::Object(redacted(fields, redactor)),
        other => other,
    }
}
