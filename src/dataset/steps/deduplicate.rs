//! Of rows that say the same, the first stays.

use super::{LeftByRule, Progress, Repeated, Rows, StepError, Verdict, sift, spool::Spool};
use crate::{
    near::NearRows,
    rules,
    seen::{self, Seen, SeenRows},
    spill::RowPlace,
};

impl Rows<'_> {
    pub(super) fn deduplicate(
        &self,
        near: bool,
        spool: &mut Spool,
        progress: &mut Progress<'_>,
    ) -> Result<LeftByRule, StepError> {
        let Repeated { equal, near } = self.repeated(near, spool, progress)?;
        sift(spool, progress, &mut |record| {
            Ok(if equal.has(record.index) {
                Verdict::Leaves(rules::DUPLICATE_ROW.id)
            } else if near.has(record.index) {
                Verdict::Leaves(rules::NEAR_DUPLICATE.id)
            } else {
                Verdict::Stays
            })
        })
    }

    /// Compares every row with those before it, as the linter does.
    fn repeated(&self, near: bool, spool: &mut Spool, progress: &mut Progress<'_>) -> Result<Repeated, StepError> {
        let mut seen = SeenRows::new(seen::MAX_ROWS);
        let mut nearly = if near { Some(NearRows::new()?) } else { None };
        let mut found = Repeated { equal: Default::default(), near: Default::default() };
        self.each_row(spool, progress, &mut |record, row, _| {
            let place = RowPlace { row: record.index, line: record.index };
            if seen.insert(&row.digest, place)? == Seen::Before {
                found.equal.set(record.index);
            } else if let Some(nearly) = &mut nearly {
                nearly.add(&row.example, place.line, place.row)?;
            }
            Ok(())
        })?;
        seen.finish(&mut |place| found.equal.set(place.row))?;
        if let Some(nearly) = nearly {
            nearly.finish(&mut |place, _| found.near.set(place.row))?;
        }
        Ok(found)
    }
}
