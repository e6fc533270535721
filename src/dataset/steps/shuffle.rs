//! Rows in an order of their own, however many: by a hash, first into parts that memory holds, then within each.

use super::{
    Progress, Rows, StepError, pass,
    spool::{Record, Spool, SpoolWriter},
};

/// Parts are about as large.
const PART_BYTES: u64 = 32 << 20;
const MOST_PARTS: u64 = 512;
const PART_BUFFER_BYTES: usize = 16 << 10;

impl Rows<'_> {
    /// Sorts rows by a hash of (seed, `purpose`, place).
    pub(super) fn shuffle(
        &self,
        spool: &mut Spool,
        purpose: &str,
        progress: &mut Progress<'_>,
    ) -> Result<(), StepError> {
        let parts = (spool.counts.bytes / PART_BYTES + 1).min(MOST_PARTS);
        let mut writers = Vec::new();
        for _ in 0..parts {
            writers.push((SpoolWriter::with_buffer(PART_BUFFER_BYTES)?, Vec::new()));
        }
        pass(spool, progress, &mut |record| {
            let key = self.draw(purpose, &record.index.to_le_bytes());
            // Keys of a part lie between those of its neighbours.
            let part = (u128::from(key) * u128::from(parts)) >> 64;
            if let Some((writer, keys)) = writers.get_mut(part as usize) {
                keys.push(key);
                writer.push(record)?;
            }
            Ok(())
        })?;
        let mut shuffled = SpoolWriter::new()?;
        for (writer, keys) in writers {
            sort_part(writer.finish()?, &keys, &mut shuffled)?;
        }
        *spool = shuffled.finish()?;
        Ok(())
    }
}

/// Adds the rows of one part in the order of their keys.
fn sort_part(mut part: Spool, keys: &[u64], out: &mut SpoolWriter) -> Result<(), StepError> {
    let mut text = Vec::with_capacity(part.counts.bytes as usize);
    let mut rows = Vec::with_capacity(keys.len());
    part.each(&mut |record| {
        let start = text.len();
        text.extend_from_slice(record.json);
        let key = keys.get(record.index as usize).copied().unwrap_or_default();
        rows.push((key, record.index, start..text.len(), (record.source, record.line, record.held_out)));
        Ok(())
    })?;
    rows.sort_unstable_by_key(|(key, index, ..)| (*key, *index));
    for (_, index, range, (source, line, held_out)) in rows {
        out.push(&Record { index, source, line, held_out, json: &text[range] })?;
    }
    Ok(())
}
