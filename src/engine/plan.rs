//! Which rows each step takes. The plan follows from the settings alone, so a resumed run has nothing to restore.

use finetuned_dataset::{batch_of_step, epoch_order, micro_batches};
use finetuned_protocol::spec::TrainingSpec;

/// The order of training.
#[derive(Debug, Clone)]
pub struct Plan {
    rows: usize,
    batch_size: usize,
    micro_batch_size: usize,
    seed: u32,
    pub total_steps: u32,
    /// Order of the epoch last asked for.
    cached: Option<(u32, Vec<usize>)>,
}

impl Plan {
    /// A plan for `rows` training rows, at least one.
    pub fn new(spec: &TrainingSpec, rows: usize) -> Self {
        let batch_size = spec.batch_size.max(1) as usize;
        Self {
            rows: rows.max(1),
            batch_size,
            micro_batch_size: (spec.micro_batch_size.max(1) as usize).min(batch_size),
            seed: spec.seed,
            total_steps: spec.total_steps,
            cached: None,
        }
    }

    /// Computes so many rows at once from here on. The rows of each step stay the same.
    pub fn set_micro_batch_size(&mut self, rows: u32) {
        self.micro_batch_size = (rows.max(1) as usize).min(self.batch_size);
    }

    /// Steps of one pass over the rows; the last one may be smaller.
    pub fn steps_per_epoch(&self) -> u32 {
        u32::try_from(self.rows.div_ceil(self.batch_size)).unwrap_or(u32::MAX)
    }

    /// Epoch in which the step after `taken` steps lies.
    pub fn epoch(&self, taken: u32) -> u32 {
        taken / self.steps_per_epoch()
    }

    /// Row indices of the step after `taken` steps, in micro-batches.
    pub fn micro_batches(&mut self, taken: u32) -> Vec<Vec<usize>> {
        let (batch, micro) = (self.batch_size, self.micro_batch_size);
        let step_in_epoch = (taken % self.steps_per_epoch()) as usize;
        let order = self.order(self.epoch(taken));
        micro_batches(batch_of_step(order, batch, step_in_epoch), micro).map(<[usize]>::to_vec).collect()
    }

    /// Micro-batches of the first `steps` steps together.
    pub fn micro_batches_before(&self, steps: u32) -> u64 {
        let of = |rows: usize| rows.div_ceil(self.micro_batch_size) as u64;
        let per_epoch = self.steps_per_epoch();
        let full = of(self.batch_size);
        let last = of(self.rows - (per_epoch as usize - 1) * self.batch_size);
        let epochs = u64::from(steps / per_epoch);
        epochs * (u64::from(per_epoch - 1) * full + last) + u64::from(steps % per_epoch) * full
    }

    /// The micro-batch of the whole plan with the most tokens, and the epoch it lies in.
    pub fn largest_micro_batch(&mut self, lengths: &[usize]) -> (u32, Vec<usize>) {
        let mut largest = (0, Vec::new());
        let mut most = 0;
        for taken in 0..self.total_steps {
            for rows in self.micro_batches(taken) {
                let tokens: usize = rows.iter().map(|&row| lengths[row]).sum();
                if tokens > most {
                    most = tokens;
                    largest = (self.epoch(taken), rows);
                }
            }
        }
        largest
    }

    fn order(&mut self, epoch: u32) -> &[usize] {
        let (rows, seed) = (self.rows, self.seed);
        let fresh = |epoch| (epoch, epoch_order(rows, seed, epoch));
        let cached = self.cached.get_or_insert_with(|| fresh(epoch));
        if cached.0 != epoch {
            *cached = fresh(epoch);
        }
        &cached.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    fn plan(rows: usize, batch_size: u32, micro_batch_size: u32, total_steps: u32) -> Plan {
        Plan::new(&TrainingSpec { batch_size, micro_batch_size, total_steps, ..spec() }, rows)
    }

    #[test]
    fn an_epoch_takes_every_row_once() {
        let mut plan = plan(10, 4, 3, 6);
        assert_eq!(plan.steps_per_epoch(), 3);
        for epoch in 0..2 {
            let steps: Vec<_> = (0..3).map(|step| plan.micro_batches(epoch * 3 + step)).collect();
            let sizes: Vec<Vec<usize>> = steps.iter().map(|step| step.iter().map(Vec::len).collect()).collect();
            assert_eq!(sizes, [vec![3, 1], vec![3, 1], vec![2]]);
            let mut rows: Vec<usize> = steps.into_iter().flatten().flatten().collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn epochs_differ_and_repeat_by_seed() {
        let mut first = plan(50, 50, 50, 2);
        assert_ne!(first.micro_batches(0), first.micro_batches(1));
        assert_eq!(first.micro_batches(1), plan(50, 50, 50, 2).micro_batches(1));
    }

    #[test]
    fn accumulation_changes_no_batch() {
        let whole = plan(16, 8, 8, 4).micro_batches(1).concat();
        assert_eq!(plan(16, 8, 1, 4).micro_batches(1).concat(), whole);
    }

    #[test]
    fn micro_batches_are_counted_as_they_come() {
        let mut plan = plan(10, 4, 3, 7);
        let mut counted = 0;
        for taken in 0..7 {
            assert_eq!(plan.micro_batches_before(taken), counted);
            counted += plan.micro_batches(taken).len() as u64;
        }
        assert_eq!(plan.micro_batches_before(7), counted);
    }

    #[test]
    fn the_largest_micro_batch_is_found() {
        let mut plan = plan(8, 4, 2, 2);
        let mut lengths = vec![10; 8];
        lengths[3] = 50;
        let (epoch, rows) = plan.largest_micro_batch(&lengths);
        assert!(epoch == 0 && rows.len() == 2 && rows.contains(&3));
    }
}
