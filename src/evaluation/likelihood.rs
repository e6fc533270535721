//! How well a model predicts the held-out answers, added up row by row.

use finetuned_protocol::evaluation::Likelihood;

/// Sums over rows, from which the token-weighted figures follow. Order matters to the last bit only.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LikelihoodSum {
    /// Cross-entropy in nats, added over supervised tokens.
    pub loss_sum: f64,
    /// Supervised tokens that the model ranked first.
    pub correct_tokens: u64,
    pub supervised_tokens: u64,
    pub rows: u64,
    /// Bytes of the supervised tokens as text; 0 where nobody counted.
    pub supervised_bytes: u64,
}

impl LikelihoodSum {
    /// Adds one row.
    pub fn add_row(&mut self, loss_sum: f64, correct_tokens: u64, supervised_tokens: u64) {
        self.merge(&Self { loss_sum, correct_tokens, supervised_tokens, rows: 1, supervised_bytes: 0 });
    }

    /// Adds what another part of the rows gave.
    pub fn merge(&mut self, other: &Self) {
        self.loss_sum += other.loss_sum;
        self.correct_tokens += other.correct_tokens;
        self.supervised_tokens += other.supervised_tokens;
        self.rows += other.rows;
        self.supervised_bytes += other.supervised_bytes;
    }

    /// The figures: every supervised token weighs the same, whatever row it is in. All zero, with a perplexity of one,
    /// where there was no token.
    pub fn finish(&self) -> Likelihood {
        let tokens = self.supervised_tokens.max(1) as f64;
        let loss = self.loss_sum / tokens;
        Likelihood {
            loss,
            perplexity: loss.exp(),
            token_accuracy: self.correct_tokens as f64 / tokens,
            supervised_tokens: self.supervised_tokens,
            rows: self.rows,
            bits_per_byte: (self.supervised_bytes > 0)
                .then(|| self.loss_sum / std::f64::consts::LN_2 / self.supervised_bytes as f64),
            preference: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_weigh_the_same_whatever_their_row() {
        let mut sum = LikelihoodSum::default();
        sum.add_row(10.0, 1, 10); // mean 1.0
        sum.add_row(1.0, 0, 2); // mean 0.5
        let figures = sum.finish();
        assert!((figures.loss - 11.0 / 12.0).abs() < 1e-15);
        assert!((figures.perplexity - (11.0_f64 / 12.0).exp()).abs() < 1e-15);
        assert!((figures.token_accuracy - 1.0 / 12.0).abs() < 1e-15);
        assert_eq!((figures.supervised_tokens, figures.rows), (12, 2));
    }

    #[test]
    fn a_uniform_guess_over_v_tokens_has_perplexity_v() {
        let mut sum = LikelihoodSum::default();
        (0..5).for_each(|_| sum.add_row(7.0 * 32.0_f64.ln(), 0, 7));
        assert!((sum.finish().perplexity - 32.0).abs() < 1e-12);
    }

    #[test]
    fn a_guess_of_one_bit_a_token_of_two_bytes_is_half_a_bit_a_byte() {
        let sum = LikelihoodSum {
            loss_sum: 10.0 * std::f64::consts::LN_2,
            supervised_tokens: 10,
            supervised_bytes: 20,
            ..LikelihoodSum::default()
        };
        assert!((sum.finish().bits_per_byte.unwrap_or_default() - 0.5).abs() < 1e-15);
        assert_eq!(LikelihoodSum::default().finish().bits_per_byte, None);
    }

    #[test]
    fn parts_merge_to_the_whole_and_nothing_is_no_nan() {
        let (mut whole, mut left, mut right) = Default::default();
        for (row, sum) in [(1.5, &mut left), (2.5, &mut right)] {
            LikelihoodSum::add_row(sum, row, 1, 3);
            LikelihoodSum::add_row(&mut whole, row, 1, 3);
        }
        left.merge(&right);
        assert_eq!(left, whole);
        let nothing = LikelihoodSum::default().finish();
        assert_eq!((nothing.loss, nothing.perplexity, nothing.token_accuracy), (0.0, 1.0, 0.0));
    }
}
