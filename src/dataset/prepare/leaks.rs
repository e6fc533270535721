//! Held-out rows that are nearly like a training row: what a model is judged by, it has then seen.

use finetuned_protocol::lint::Finding;

use crate::{example::Row, near::NearRows, rules};

/// Rows of a job's files, to be compared once it is known which are held out. Of no effect where nobody asked.
#[derive(Default)]
pub(super) struct NearLeaks {
    near: Option<NearRows>,
    /// Rows that are compared, by their index over both files.
    compared: Vec<u64>,
    rows: u64,
    failed: Option<Finding>,
}

/// A held-out row and a training row that it is nearly like, by their lines.
pub(super) struct NearLeak {
    pub held_out: u64,
    pub train: u64,
}

impl NearLeaks {
    pub fn new() -> Self {
        let mut leaks = Self::default();
        match NearRows::new() {
            Ok(near) => leaks.near = Some(near),
            Err(error) => leaks.fail(1, &error),
        }
        leaks
    }

    /// The next row that can be trained on; first those of the training file.
    pub fn add(&mut self, row: &Row) {
        let index = self.rows;
        self.rows += 1;
        let Some(near) = &mut self.near else { return };
        match near.add(&row.example, row.line, index) {
            Ok(true) => self.compared.push(index),
            Ok(false) => {}
            Err(error) => self.fail(row.line, &error),
        }
    }

    fn fail(&mut self, line: u64, error: &std::io::Error) {
        self.near = None;
        let reason = format!("held-out rows are not compared with training rows: the service's disk fails ({error})");
        self.failed = Some(rules::DUPLICATES_UNCHECKED.at(line, "", reason));
    }

    /// In the order of the held-out rows; `is_held_out` goes by the index over both files. Or why nothing is known.
    pub fn finish(mut self, is_held_out: &dyn Fn(u64) -> bool) -> Result<Vec<NearLeak>, Finding> {
        let mut found = Vec::new();
        if let Some(near) = self.near.take() {
            let held_out: Vec<bool> = self.compared.iter().map(|row| is_held_out(*row)).collect();
            let each = &mut |place: crate::spill::RowPlace, train| {
                found.push((place.row, NearLeak { held_out: place.line, train }))
            };
            if let Err(error) = near.leaks(&held_out, each) {
                self.fail(1, &error);
            }
        }
        match self.failed {
            Some(finding) => Err(finding),
            None => {
                found.sort_unstable_by_key(|(row, _)| *row);
                Ok(found.into_iter().map(|(_, leak)| leak).collect())
            }
        }
    }
}
