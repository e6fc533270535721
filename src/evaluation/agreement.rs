//! How far raters agree beyond chance.

use std::collections::BTreeMap;

use finetuned_protocol::ratings::{Agreement, PairAgreement};

/// How far apart two values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Equal or not.
    Nominal,
    /// By how many values lie between them.
    Ordinal,
}

/// Cohen's kappa of two raters (Cohen 1960): `(observed - expected) / (1 - expected)`, where `expected` is the agreement
/// of two who give each value as often as these do, but at random. `values` are (first, second) of each item that both
/// rated. Undefined, and `None` there, where both always give the one same value.
pub fn cohen_kappa<T: Ord>(values: &[(T, T)]) -> Option<PairAgreement> {
    let n = values.len() as f64;
    let mut counts: BTreeMap<&T, [f64; 2]> = BTreeMap::new();
    for (first, second) in values {
        counts.entry(first).or_default()[0] += 1.0;
        counts.entry(second).or_default()[1] += 1.0;
    }
    let observed = values.iter().filter(|(first, second)| first == second).count() as f64 / n;
    let expected = counts.values().map(|[first, second]| first * second).sum::<f64>() / (n * n);
    if values.is_empty() {
        return None;
    }
    let kappa = (expected < 1.0).then(|| (observed - expected) / (1.0 - expected));
    Some(PairAgreement { items: values.len() as u64, observed, expected, kappa })
}

/// Krippendorff's alpha of any number of raters with any gaps (Krippendorff 2011, "Computing Krippendorff's
/// Alpha-Reliability"): `1 - observed / expected` disagreement over the pairs of values of one item. `items` are the
/// values of each; those with fewer than two say nothing. `None` without such items; alpha is undefined where all values
/// are equal.
pub fn krippendorff_alpha<T: Ord>(items: &[Vec<T>], level: Level) -> Option<Agreement> {
    let pairable: Vec<&Vec<T>> = items.iter().filter(|values| values.len() > 1).collect();
    let mut totals: BTreeMap<&T, f64> = BTreeMap::new();
    for value in pairable.iter().copied().flatten() {
        *totals.entry(value).or_default() += 1.0;
    }
    let counts: Vec<f64> = totals.values().copied().collect();
    let places: BTreeMap<&T, usize> = totals.keys().enumerate().map(|(place, value)| (*value, place)).collect();
    let n: f64 = counts.iter().sum();
    if pairable.is_empty() {
        return None;
    }
    let mut observed = 0.0;
    for values in &pairable {
        let places: Vec<usize> = values.iter().filter_map(|value| places.get(value).copied()).collect();
        let pairs = places.iter().enumerate().flat_map(|(at, one)| {
            places.iter().enumerate().filter(move |(other, _)| *other != at).map(move |(_, other)| (*one, *other))
        });
        let apart: f64 = pairs.map(|(one, other)| distance(&counts, one, other, level)).sum();
        observed += apart / (values.len() as f64 - 1.0);
    }
    let each = |one: usize| (0..counts.len()).map(move |other| (one, other));
    let expected: f64 = (0..counts.len())
        .flat_map(each)
        .map(|(one, other)| counts[one] * counts[other] * distance(&counts, one, other, level))
        .sum();
    let alpha = (expected > 0.0).then(|| 1.0 - (n - 1.0) * observed / expected);
    Some(Agreement { items: pairable.len() as u64, values: n as u64, alpha })
}

/// The squared difference of two values, by their places in order; `counts` says how often each value was given.
fn distance(counts: &[f64], one: usize, other: usize, level: Level) -> f64 {
    if one == other {
        return 0.0;
    }
    match level {
        Level::Nominal => 1.0,
        Level::Ordinal => {
            let (low, high) = (one.min(other), one.max(other));
            (counts[low..=high].iter().sum::<f64>() - (counts[low] + counts[high]) / 2.0).powi(2)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Cohen's kappa in closed form: of 50 items, both say yes to 20 and no to 15, the first alone says yes to 5 and the
    /// second alone to 10. Observed 0.7; expected 0.5 * 0.6 + 0.5 * 0.4 = 0.5; kappa 0.4.
    #[test]
    fn kappa_of_a_two_by_two_table() {
        let table = [(20, (true, true)), (5, (true, false)), (10, (false, true)), (15, (false, false))];
        let values: Vec<_> = table.iter().flat_map(|(times, pair)| vec![*pair; *times]).collect();
        let found = cohen_kappa(&values).unwrap();
        assert_eq!(found.items, 50);
        assert!((found.observed - 0.7).abs() < 1e-12 && (found.expected - 0.5).abs() < 1e-12, "{found:?}");
        assert!((found.kappa.unwrap() - 0.4).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn kappa_at_its_ends() {
        assert_eq!(cohen_kappa(&[(1, 1), (2, 2)]).unwrap().kappa, Some(1.0));
        // Each gives both values half the time and they never agree: expected 1/2.
        assert_eq!(cohen_kappa(&[(1, 2), (2, 1)]).unwrap().kappa, Some(-1.0));
        assert_eq!(cohen_kappa(&[(1, 1), (1, 1)]).unwrap().kappa, None);
        assert_eq!(cohen_kappa::<u8>(&[]), None);
    }

    /// Section C and D of Krippendorff 2011: four observers, twelve units, some values missing. 0.743 by nominal and 0.815
    /// by ordinal distances.
    #[test]
    fn alpha_of_the_published_example() {
        let observers = [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ];
        let items: Vec<Vec<u8>> = (0..12)
            .map(|unit| observers.iter().map(|values| values[unit]).filter(|value| *value > 0).collect())
            .collect();
        let nominal = krippendorff_alpha(&items, Level::Nominal).unwrap();
        // The last unit has one value.
        assert_eq!((nominal.items, nominal.values), (11, 40));
        assert!((nominal.alpha.unwrap() - 0.743).abs() < 5e-4, "{nominal:?}");
        let ordinal = krippendorff_alpha(&items, Level::Ordinal).unwrap();
        assert!((ordinal.alpha.unwrap() - 0.815).abs() < 5e-4, "{ordinal:?}");
    }

    /// Section A of the same: two observers, ten units, two values, nominal: 0.095.
    #[test]
    fn alpha_of_two_observers() {
        let observers = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]];
        let items: Vec<Vec<u8>> = (0..10).map(|unit| vec![observers[0][unit], observers[1][unit]]).collect();
        let found = krippendorff_alpha(&items, Level::Nominal).unwrap();
        assert!((found.alpha.unwrap() - 0.095).abs() < 5e-4, "{found:?}");
    }

    #[test]
    fn alpha_without_anything_to_pair_or_to_tell_apart() {
        assert_eq!(krippendorff_alpha(&[vec![1], vec![]], Level::Nominal), None);
        assert_eq!(krippendorff_alpha(&[vec![1, 1], vec![1, 1]], Level::Ordinal).unwrap().alpha, None);
        assert_eq!(krippendorff_alpha(&[vec![1, 1], vec![2, 2]], Level::Ordinal).unwrap().alpha, Some(1.0));
    }
}
