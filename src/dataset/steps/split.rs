//! Rows that are held out.

use std::collections::{HashMap, HashSet};

use finetuned_protocol::preparation::Split;

use super::{
    Blame, LeftByRule, Progress, Rows, StepError, Verdict,
    column::{self, Column},
    moment, sift,
    spool::{Marks, Spool},
};

/// Labels that a split is stratified by.
const MOST_LABELS: usize = 10_000;

/// What a row goes with: rows of one unit go to one side.
struct Unit {
    /// Place of its label in the order in which they came; 0 where nothing is stratified.
    label: u32,
    draw: u64,
}

impl Rows<'_> {
    pub(super) fn split(
        &self,
        split: &Split,
        step: usize,
        (spool, progress): (&mut Spool, &mut Progress<'_>),
    ) -> Result<LeftByRule, StepError> {
        let held_out = match split {
            Split::Hash { held_out, stratify_by } => {
                let label = stratify_by.as_deref().map(|name| self.column(name, step, "stratify_by"));
                let mut labels = Labels { column: label, seen: HashMap::new() };
                let mut units = Vec::new();
                self.each_row(spool, progress, &mut |record, row, fields| {
                    let label = labels.of(record, &fields)?;
                    units.push(Unit { label, draw: self.draw("split", &row.digest) });
                    Ok(())
                })?;
                choose(&units, *held_out)
            }
            Split::Group { held_out, column: name } => {
                let column = self.column(name, step, "column");
                let mut units = Vec::new();
                self.each_row(spool, progress, &mut |record, _, fields| {
                    let draw = self.draw("split", &column::key(column.of(record, &fields)?));
                    units.push(Unit { label: 0, draw });
                    Ok(())
                })?;
                choose(&units, *held_out)
            }
            Split::Time { column, from } => self.since_moment((column, from), step, spool, progress)?,
        };
        let left = sift(spool, progress, &mut |record| {
            Ok(if held_out.has(record.index) { Verdict::IsHeldOut } else { Verdict::Stays })
        })?;
        match spool.counts.held_out {
            0 => {
                let message = match split {
                    Split::Time { from, .. } => format!("no row is of {from} or later, so none would be held out"),
                    _ => "no row could be held out: all of them say the same, or are of one group".to_owned(),
                };
                Err(StepError::refused(Blame::Step { index: step, field: None }, message))
            }
            _ => Ok(left),
        }
    }

    fn since_moment(
        &self,
        (name, from): (&str, &str),
        step: usize,
        spool: &mut Spool,
        progress: &mut Progress<'_>,
    ) -> Result<Marks, StepError> {
        let Some(from) = moment::parse(from) else {
            let blame = Blame::Step { index: step, field: Some("from") };
            return Err(StepError::refused(blame, format!("`{from}` is no moment")));
        };
        let column = self.column(name, step, "column");
        let mut held_out = Marks::default();
        self.each_row(spool, progress, &mut |record, _, fields| {
            let moment = moment::of(column.of(record, &fields)?).ok_or_else(|| {
                let message = format!(
                    "`{name}` of the row of line {} is neither a date, nor RFC 3339 text, nor Unix seconds",
                    record.line
                );
                column.refused(record, message)
            })?;
            if moment >= from {
                held_out.set(record.index);
            }
            Ok(())
        })?;
        Ok(held_out)
    }
}

/// Labels by their values.
struct Labels<'s> {
    column: Option<Column<'s>>,
    seen: HashMap<Vec<u8>, u32>,
}

impl Labels<'_> {
    fn of(&mut self, record: &super::spool::Record<'_>, fields: &crate::json::Object<'_>) -> Result<u32, StepError> {
        let Some(column) = self.column else { return Ok(0) };
        let next = self.seen.len();
        let key = column::key(column.of(record, fields)?).into_owned();
        if next == MOST_LABELS && !self.seen.contains_key(&key) {
            let message = format!("`{}` has more than {MOST_LABELS} values, too many for labels", column.name);
            return Err(column.refused(record, message));
        }
        Ok(*self.seen.entry(key).or_insert(next as u32))
    }
}

/// Marks `round(share * n)` of the `n` rows of each label, those with the smallest draws; rows of equal draws together.
/// A group of rows that does not fit any more is passed over. Where nothing fits, the smallest group is held out.
fn choose(units: &[Unit], share: f64) -> Marks {
    let mut sorted: Vec<(u32, u64)> = units.iter().map(|unit| (unit.label, unit.draw)).collect();
    sorted.sort_unstable();
    let mut chosen: HashSet<(u32, u64)> = HashSet::new();
    let mut smallest: Option<(usize, (u32, u64))> = None;
    let mut groups = 0;
    for of_label in sorted.chunk_by(|a, b| a.0 == b.0) {
        let mut left = (share * of_label.len() as f64).round() as usize;
        for group in of_label.chunk_by(|a, b| a == b) {
            groups += 1;
            if group.len() <= left {
                left -= group.len();
                chosen.insert(group[0]);
            }
            if smallest.is_none_or(|(rows, _)| group.len() < rows) {
                smallest = Some((group.len(), group[0]));
            }
        }
    }
    if chosen.is_empty() && groups > 1 {
        chosen.extend(smallest.map(|(_, unit)| unit));
    }
    let mut marks = Marks::default();
    for (index, unit) in units.iter().enumerate() {
        if chosen.contains(&(unit.label, unit.draw)) {
            marks.set(index as u64);
        }
    }
    marks
}
