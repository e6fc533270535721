//! The result file of a job: one line a step, in the columns that clients of the hosted API read.

use std::{collections::BTreeMap, fmt::Write};

use finetuned_protocol::metrics;

/// Header of the file, and the series that fills each column after the step.
const HEADER: &str = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy";
const COLUMNS: [&str; 4] =
    [metrics::TRAIN_LOSS, metrics::TRAIN_MEAN_TOKEN_ACCURACY, metrics::VALID_LOSS, metrics::VALID_MEAN_TOKEN_ACCURACY];

/// Series that the file is made of.
pub fn series() -> Vec<String> {
    COLUMNS.map(str::to_owned).into()
}

/// The file's text from points of (series, step, value). A column without a value at a step is empty.
pub fn csv<'a>(points: impl IntoIterator<Item = (&'a str, u32, f64)>) -> String {
    let mut rows: BTreeMap<u32, [Option<f64>; COLUMNS.len()]> = BTreeMap::new();
    for (name, step, value) in points {
        if let Some(column) = COLUMNS.iter().position(|known| *known == name) {
            rows.entry(step).or_default()[column] = Some(value);
        }
    }
    let mut text = format!("{HEADER}\n");
    for (step, values) in rows {
        // Writing to a string cannot fail.
        let _ = write!(text, "{step}");
        for value in values {
            let _ = match value {
                Some(value) => write!(text, ",{value}"),
                None => write!(text, ","),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_step_with_holes_where_nothing_was_measured() {
        let points = [
            ("train_loss", 2, 1.25),
            ("valid_loss", 0, 4.5),
            ("train_loss", 1, 2.0),
            ("train_mean_token_accuracy", 1, 0.5),
            ("valid_mean_token_accuracy", 2, 0.75),
            ("learning_rate", 1, 0.1),
        ];
        assert_eq!(csv(points), format!("{HEADER}\n0,,,4.5,\n1,2,0.5,,\n2,1.25,,,0.75\n"));
    }
}
