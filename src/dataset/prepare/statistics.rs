//! How many tokens a file's rows have, and what a length would cut off.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use finetuned_protocol::{
    inspection::{HistogramBucket, LengthCut, PackingStatistics, TokenHistogram, TokenStatistics},
    lint::ReadingSpec,
    spec::PreparationSpec,
};
use finetuned_weights::TextTokenizer;

use super::{IGNORED_LABEL, encode::Encoder, pass::in_parallel};
use crate::{PrepareError, Row, RowOutcome, SourceFile, read_rows};

const BATCH_ROWS: usize = 256;
/// Lengths that are tried beside the one that is asked about.
const LENGTHS: [u32; 8] = [128, 256, 512, 1024, 2048, 4096, 8192, 16_384];

/// Tokenises the first `most_rows` rows.
///
/// # Errors
/// A file that cannot be read, a tokenizer that fails, or `go_on` that asked to stop.
pub fn token_statistics(
    spec: &PreparationSpec,
    (path, reading): (&Path, &ReadingSpec),
    tokenizer: &TextTokenizer,
    most_rows: u64,
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<TokenStatistics, PrepareError> {
    let whole = PreparationSpec { max_seq_len: u32::MAX, ..spec.clone() };
    let encoder = Encoder::new(&whole, tokenizer);
    let mut counts = Counts::default();
    let mut batch: Vec<Row> = Vec::new();
    let mut result = Ok(());
    let mut is_sample = false;
    read_rows(path, reading, &mut |outcome, _| {
        if counts.rows + batch.len() as u64 == most_rows {
            is_sample = true;
            return ControlFlow::Break(());
        }
        match outcome {
            RowOutcome::Good(row) => batch.push(row),
            RowOutcome::Bad(_) => counts.count_unusable(),
        }
        if batch.len() == BATCH_ROWS {
            result = counts.add(&std::mem::take(&mut batch), &encoder);
            if result.is_ok() && go_on().is_break() {
                result = Err(PrepareError::Cancelled);
            }
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    counts.add(&batch, &encoder)?;
    Ok(counts.finish(spec.max_seq_len, is_sample))
}

/// Rows by number of tokens.
type Lengths = BTreeMap<u32, u64>;

#[derive(Default)]
struct Counts {
    rows: u64,
    unusable: u64,
    prompt: Lengths,
    answer: Lengths,
    total: Lengths,
    /// Rows by the index of their first token with loss.
    first_loss: Lengths,
}

impl Counts {
    fn count_unusable(&mut self) {
        self.rows += 1;
        self.unusable += 1;
    }

    fn add(&mut self, batch: &[Row], encoder: &Encoder<'_>) -> Result<(), PrepareError> {
        for outcome in in_parallel(batch, |row| encoder.row(row, false)) {
            let outcome = outcome.map_err(|cause| PrepareError::Tokenizer { file: SourceFile::Training, cause })?;
            let Some(row) = outcome.encoded.into_iter().next() else {
                self.count_unusable();
                continue;
            };
            self.rows += 1;
            let encoded = row.encoded;
            let total = encoded.ids.len() as u32;
            let answer = encoded.supervised_tokens() as u32;
            let first = encoded.labels.iter().position(|label| *label != IGNORED_LABEL).unwrap_or(0) as u32;
            let entries = [(&mut self.prompt, total - answer), (&mut self.answer, answer), (&mut self.total, total)];
            entries.into_iter().for_each(|(lengths, tokens)| *lengths.entry(tokens).or_default() += 1);
            *self.first_loss.entry(first).or_default() += 1;
        }
        Ok(())
    }

    fn finish(self, max_seq_len: u32, is_sample: bool) -> TokenStatistics {
        let all = sum(&self.total);
        let longest = self.total.keys().next_back().copied().unwrap_or(0);
        let mut lengths: Vec<u32> = LENGTHS.into_iter().filter(|length| *length < longest).collect();
        lengths.push(max_seq_len);
        lengths.sort_unstable();
        lengths.dedup();
        TokenStatistics {
            rows: self.rows,
            is_sample,
            unusable_rows: self.unusable,
            supervised_share: sum(&self.answer) as f64 / all.max(1) as f64,
            cuts: lengths.into_iter().map(|length| self.cut(length, all)).collect(),
            packing: packing(&self.total, max_seq_len),
            prompt_tokens: histogram(&self.prompt),
            answer_tokens: histogram(&self.answer),
            total_tokens: histogram(&self.total),
        }
    }

    fn cut(&self, max_seq_len: u32, all: u64) -> LengthCut {
        let beyond = |lengths: &Lengths, from| lengths.range(from..).map(|(_, rows)| rows).sum::<u64>();
        let longer = self.total.range(max_seq_len.saturating_add(1)..);
        let cut: u64 = longer.map(|(tokens, rows)| u64::from(tokens - max_seq_len) * rows).sum();
        let dropped = beyond(&self.first_loss, max_seq_len);
        LengthCut {
            max_seq_len,
            truncated_rows: beyond(&self.total, max_seq_len.saturating_add(1)).saturating_sub(dropped),
            dropped_rows: dropped,
            cut_tokens_share: cut as f64 / all.max(1) as f64,
        }
    }
}

fn sum(lengths: &Lengths) -> u64 {
    lengths.iter().map(|(tokens, rows)| u64::from(*tokens) * rows).sum()
}

fn histogram(lengths: &Lengths) -> TokenHistogram {
    let rows: u64 = lengths.values().sum();
    if rows == 0 {
        return TokenHistogram::default();
    }
    // The smallest number of tokens that so many of the rows do not exceed.
    let percentile = |percent: u64| {
        let wanted = (rows * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let reached = lengths.iter().find(|(_, rows)| {
            seen += **rows;
            seen >= wanted
        });
        reached.map_or(0, |(tokens, _)| *tokens)
    };
    let mut buckets: BTreeMap<u32, u64> = BTreeMap::new();
    for (tokens, rows) in lengths {
        *buckets.entry(tokens.checked_next_power_of_two().unwrap_or(u32::MAX)).or_default() += rows;
    }
    TokenHistogram {
        min: lengths.keys().next().copied().unwrap_or(0),
        max: lengths.keys().next_back().copied().unwrap_or(0),
        mean: sum(lengths) as f64 / rows as f64,
        p50: percentile(50),
        p90: percentile(90),
        p95: percentile(95),
        p99: percentile(99),
        buckets: buckets.into_iter().map(|(up_to_tokens, rows)| HistogramBucket { up_to_tokens, rows }).collect(),
    }
}

/// Best fit, longest rows first: each goes where it leaves the least room.
fn packing(lengths: &Lengths, max_seq_len: u32) -> PackingStatistics {
    let mut room: Lengths = BTreeMap::new();
    let (mut sequences, mut rows_in_all, mut tokens_in_all) = (0_u64, 0_u64, 0_u64);
    for (tokens, rows) in lengths.iter().rev() {
        let tokens = (*tokens).min(max_seq_len);
        rows_in_all += rows;
        tokens_in_all += u64::from(tokens) * rows;
        let mut left = *rows;
        while left > 0 {
            let fit = room.range(tokens..).next().map(|(free, count)| (*free, *count));
            let (free, available) = fit.unwrap_or((max_seq_len, left));
            // As many rows as there are such places, at once.
            let placed = available.min(left);
            match fit {
                Some(_) if placed == available => drop(room.remove(&free)),
                Some(_) => *room.entry(free).or_default() -= placed,
                None => sequences += placed,
            }
            *room.entry(free - tokens).or_default() += placed;
            left -= placed;
            if fit.is_none() && tokens <= free - tokens {
                // A sequence of its own for every row would leave room that these rows themselves can fill.
                let each = u64::from(max_seq_len / tokens.max(1)).max(1);
                let needed = placed.div_ceil(each);
                sequences -= placed - needed;
                remove(&mut room, free - tokens, placed);
                let (full, rest) = (placed / each, (placed % each) as u32);
                add(&mut room, max_seq_len - tokens * each as u32, full);
                add(&mut room, max_seq_len - tokens * rest, u64::from(rest > 0));
            }
        }
    }
    let share = |sequences: u64| {
        let places = sequences.saturating_mul(u64::from(max_seq_len));
        if places == 0 { 0.0 } else { tokens_in_all as f64 / places as f64 }
    };
    PackingStatistics { max_seq_len, sequences, efficiency: share(sequences), unpacked_efficiency: share(rows_in_all) }
}

fn add(room: &mut Lengths, free: u32, count: u64) {
    if count > 0 {
        *room.entry(free).or_default() += count;
    }
}

fn remove(room: &mut Lengths, free: u32, count: u64) {
    if let Some(there) = room.get_mut(&free) {
        *there -= count;
        if *there == 0 {
            room.remove(&free);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(rows: &[(u32, u64)]) -> Lengths {
        rows.iter().copied().collect()
    }

    #[test]
    fn percentiles_are_lengths_that_rows_have() {
        let histogram = histogram(&lengths(&[(1, 50), (3, 40), (100, 10)]));
        assert_eq!((histogram.p50, histogram.p90, histogram.p95, histogram.max), (1, 3, 100, 100));
        let buckets: Vec<_> = histogram.buckets.iter().map(|bucket| (bucket.up_to_tokens, bucket.rows)).collect();
        assert_eq!(buckets, [(1, 50), (4, 40), (128, 10)]);
        assert!((histogram.mean - 11.7).abs() < 1e-9);
    }

    #[test]
    fn rows_are_packed_by_best_fit() {
        let packed = packing(&lengths(&[(60, 2), (40, 2)]), 100);
        assert_eq!((packed.sequences, packed.efficiency), (2, 1.0));
        let packed = packing(&lengths(&[(10, 25)]), 100);
        assert_eq!((packed.sequences, packed.efficiency), (3, 250.0 / 300.0));
        assert!((packed.unpacked_efficiency - 0.1).abs() < 1e-9);
        let cut_off = packing(&lengths(&[(500, 3)]), 100);
        assert_eq!((cut_off.sequences, cut_off.efficiency), (3, 1.0));
        assert_eq!(packing(&lengths(&[(70, 1), (30, 1), (20, 2)]), 100).sequences, 2);
    }
}
