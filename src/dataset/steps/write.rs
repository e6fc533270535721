//! The end: weights, and the files.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use finetuned_protocol::preparation::SourceRecord;

use super::{
    Progress, Rows, StepError, StepPlan, pass,
    spool::{Spool, SpoolWriter},
};

impl Rows<'_> {
    /// Takes each row to train on as often as its source's weight says, once more by a hash for what is left of it.
    pub(super) fn weigh(
        &self,
        spool: &mut Spool,
        plan: &StepPlan<'_>,
        is_shuffled: bool,
        progress: &mut Progress<'_>,
    ) -> Result<(), StepError> {
        let weights: Vec<f64> = plan.sources.iter().map(|source| source.record.weight).collect();
        if weights.iter().all(|weight| *weight == 1.0) {
            return Ok(());
        }
        let rounds = weights.iter().copied().fold(1.0, f64::max).ceil() as u32;
        let mut writer = SpoolWriter::new()?;
        // Round by round, so that the copies of a row lie far from each other.
        for round in 0..rounds {
            pass(spool, progress, &mut |record| {
                let weight = if record.held_out { 1.0 } else { weights[usize::from(record.source)] };
                // What a round takes of a weight: all, a share, or nothing.
                let share = (weight - f64::from(round)).clamp(0.0, 1.0);
                let comes = share == 1.0 || (self.draw("weight", record.json) as f64) < share * 2_f64.powi(64);
                if comes {
                    writer.push(record)?;
                }
                Ok(())
            })?;
        }
        *spool = writer.finish()?;
        if is_shuffled && rounds > 1 {
            self.shuffle(spool, "shuffle of weighted rows", progress)?;
        }
        Ok(())
    }
}

/// Writes the rows as JSON lines, and counts what came of each source. A file is made where it has rows.
pub(super) fn out(
    spool: &mut Spool,
    training: &Path,
    held_out: &Path,
    sources: &mut [SourceRecord],
) -> Result<(), StepError> {
    let create = |path: &Path| File::create(path).map(BufWriter::new);
    let mut train = create(training)?;
    let mut held = if spool.counts.held_out > 0 { Some(create(held_out)?) } else { None };
    spool.each(&mut |record| {
        let file = match &mut held {
            Some(held) if record.held_out => held,
            _ => &mut train,
        };
        file.write_all(record.json)?;
        file.write_all(b"\n")?;
        if let Some(source) = sources.get_mut(usize::from(record.source)) {
            let rows = if record.held_out { &mut source.held_out_rows } else { &mut source.training_rows };
            *rows += 1;
        }
        Ok(())
    })?;
    for file in [Some(train), held].into_iter().flatten() {
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
    }
    Ok(())
}
