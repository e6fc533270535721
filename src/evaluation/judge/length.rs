//! How often an answer would win if both were of equal length.
//!
//! The model of Dubois et al. 2024 ("Length-Controlled AlpacaEval"), for one pair of models on one set of rows: the
//! log-odds of a win are `a + b tanh(d / s)`, with `d` the difference of the lengths and `s` its standard deviation. `a`
//! and `b` are fitted by maximum likelihood, with a small penalty on their squares, so that rows that a line parts have a
//! fit, too; the rate at `d = 0` is the logistic of `a`.

/// Weight of the penalty on each coefficient's square.
const PENALTY: f64 = 0.01;
/// Newton's method settles in fewer.
const ITERATIONS: usize = 100;
const SETTLED: f64 = 1e-12;

/// The rate of winning at equal length. `rows` has, for each row, the tuned model's credit (1 a win, 0.5 a tie, 0 a loss)
/// and how much longer its answer is, in characters.
pub fn length_controlled(rows: &[(f64, f64)]) -> f64 {
    let spread = spread(rows);
    let points: Vec<(f64, f64)> = rows
        .iter()
        .map(|(credit, longer)| (*credit, if spread > 0.0 { (longer / spread).tanh() } else { 0.0 }))
        .collect();
    let (mut a, mut b) = (0.0, 0.0);
    for _ in 0..ITERATIONS {
        let (step_a, step_b) = newton_step(&points, a, b);
        a -= step_a;
        b -= step_b;
        if step_a.abs() + step_b.abs() < SETTLED {
            break;
        }
    }
    logistic(a)
}

/// Standard deviation about zero: equal lengths are where the curve is read.
fn spread(rows: &[(f64, f64)]) -> f64 {
    let squares: f64 = rows.iter().map(|(_, longer)| longer * longer).sum();
    (squares / rows.len().max(1) as f64).sqrt()
}

/// The gradient of the penalised negative log-likelihood by its second derivatives, which are positive definite.
fn newton_step(points: &[(f64, f64)], a: f64, b: f64) -> (f64, f64) {
    let (mut gradient_a, mut gradient_b) = (PENALTY * a, PENALTY * b);
    let (mut aa, mut ab, mut bb) = (PENALTY, 0.0, PENALTY);
    for (credit, x) in points {
        let rate = logistic(a + b * x);
        let (error, weight) = (rate - credit, rate * (1.0 - rate));
        gradient_a += error;
        gradient_b += error * x;
        aa += weight;
        ab += weight * x;
        bb += weight * x * x;
    }
    let determinant = aa * bb - ab * ab;
    ((bb * gradient_a - ab * gradient_b) / determinant, (aa * gradient_b - ab * gradient_a) / determinant)
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_difference_of_length_it_is_the_rate_itself() {
        let rows: Vec<(f64, f64)> = (0..200).map(|row| (f64::from(u8::from(row % 4 != 0)), 0.0)).collect();
        assert!((length_controlled(&rows) - 0.75).abs() < 1e-3);
        assert!((length_controlled(&[(0.5, 3.0), (0.5, -3.0)]) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn wins_by_length_alone_are_taken_out() {
        // The longer answer wins nine times of ten, whoever gave it; the tuned one is longer on three rows of four.
        let rows: Vec<(f64, f64)> = (0..400)
            .map(|row| {
                let longer = row % 4 != 0;
                let wins = longer != ((row / 4) % 10 == 0);
                (f64::from(u8::from(wins)), if longer { 100.0 } else { -100.0 })
            })
            .collect();
        let plain = rows.iter().map(|(credit, _)| credit).sum::<f64>() / 400.0;
        let controlled = length_controlled(&rows);
        assert!(plain > 0.65 && (controlled - 0.5).abs() < 0.05, "{plain} becomes {controlled}");
    }

    #[test]
    fn rows_that_a_line_parts_have_a_fit() {
        let rows = [(1.0, 10.0), (1.0, 20.0), (0.0, -10.0), (0.0, -20.0)];
        let rate = length_controlled(&rows);
        assert!((rate - 0.5).abs() < 1e-9, "{rate}");
        let all = length_controlled(&[(1.0, 5.0), (1.0, -5.0)]);
        assert!(all > 0.9 && all < 1.0, "{all}");
    }

    /// The fitted coefficients make the penalised likelihood's slope vanish, whatever the data.
    #[test]
    fn the_fit_is_a_maximum() {
        let rows: Vec<(f64, f64)> =
            (0..60).map(|row| ([0.0, 0.5, 1.0, 1.0][row % 4], ((row * 37) % 50) as f64 - 20.0)).collect();
        let spread = spread(&rows);
        let value = |a: f64, b: f64| {
            let loss: f64 = rows
                .iter()
                .map(|(credit, longer)| {
                    let rate = logistic(a + b * (longer / spread).tanh());
                    -(credit * rate.ln() + (1.0 - credit) * (1.0 - rate).ln())
                })
                .sum();
            loss + PENALTY / 2.0 * (a * a + b * b)
        };
        let rate = length_controlled(&rows);
        let a = (rate / (1.0 - rate)).ln();
        let best_b = (-300..300).map(|i| f64::from(i) / 100.0).min_by(|x, y| value(a, *x).total_cmp(&value(a, *y)));
        let b = best_b.unwrap_or_default();
        for shift in [-0.1, 0.1] {
            assert!(value(a, b) < value(a + shift, b), "{a} {b}");
        }
    }
}
