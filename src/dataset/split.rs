//! Which rows are held out: the same file always splits the same way, whatever its order, and equal rows stay together.

use sha2::{Digest, Sha256};

/// Marks the held-out rows, by index.
///
/// Of `n` rows, `k = round(fraction * n)` are held out, at least one where `n >= 2`: those with the smallest
/// `sha256(seed as 8 little-endian bytes || digest)`. Equal rows go together, so that no row is on both sides; a group
/// of equal rows that would take more than `k` in all is passed over, and only where every group is that large is the
/// smallest of them held out. At least one row is left to train on; nothing is held out where all rows are equal.
pub fn held_out_split(digests: &[[u8; 32]], fraction: f64, seed: u64) -> Vec<bool> {
    let n = digests.len();
    let mut held_out = vec![false; n];
    if n < 2 || fraction <= 0.0 {
        return held_out;
    }
    let wanted = ((fraction * n as f64).round() as usize).clamp(1, n - 1);
    let groups = groups_in_hash_order(digests, seed);
    let mut taken = 0;
    for group in &groups {
        if taken + group.len() <= wanted {
            taken += group.len();
            group.iter().for_each(|&index| held_out[index] = true);
        }
    }
    if taken == 0
        && groups.len() > 1
        && let Some(smallest) = groups.iter().min_by_key(|group| group.len())
    {
        smallest.iter().for_each(|&index| held_out[index] = true);
    }
    held_out
}

/// Indices of equal rows together, groups sorted by their hash.
fn groups_in_hash_order(digests: &[[u8; 32]], seed: u64) -> Vec<Vec<usize>> {
    let mut keyed: Vec<([u8; 32], usize)> = digests
        .iter()
        .enumerate()
        .map(|(index, digest)| {
            (Sha256::new().chain_update(seed.to_le_bytes()).chain_update(digest).finalize().into(), index)
        })
        .collect();
    keyed.sort_unstable();
    keyed.chunk_by(|a, b| a.0 == b.0).map(|group| group.iter().map(|(_, index)| *index).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(number: u32) -> [u8; 32] {
        Sha256::digest(number.to_le_bytes()).into()
    }

    fn held(digests: &[[u8; 32]], fraction: f64, seed: u64) -> Vec<[u8; 32]> {
        let split = held_out_split(digests, fraction, seed);
        let mut held: Vec<_> = digests.iter().zip(split).filter(|(_, held)| *held).map(|(digest, _)| *digest).collect();
        held.sort_unstable();
        held
    }

    #[test]
    fn the_count_is_rounded_and_at_least_one() {
        let rows = |n: u32| (0..n).map(digest).collect::<Vec<_>>();
        for (n, fraction, count) in
            [(1000, 0.1, 100), (96, 0.1, 10), (4, 0.1, 1), (2, 0.5, 1), (1, 0.5, 0), (0, 0.5, 0), (50, 0.0, 0)]
        {
            assert_eq!(held(&rows(n), fraction, 0).len(), count, "{n} rows, {fraction}");
        }
    }

    #[test]
    fn the_split_is_pinned_because_files_must_split_the_same_way_for_ever() {
        let rows: Vec<_> = (0..20).map(digest).collect();
        let split = held_out_split(&rows, 0.2, 0);
        let indices: Vec<usize> = split.iter().enumerate().filter(|(_, held)| **held).map(|(index, _)| index).collect();
        assert_eq!(indices, PINNED);
    }

    #[test]
    fn another_seed_holds_out_others() {
        let rows: Vec<_> = (0..100).map(digest).collect();
        assert_ne!(held(&rows, 0.1, 0), held(&rows, 0.1, 1));
    }

    #[test]
    fn a_large_group_of_equal_rows_is_not_held_out_when_others_can_be() {
        let mut rows = vec![digest(0); 90];
        rows.extend((1..=10).map(digest));
        let held_rows = held(&rows, 0.05, 0);
        assert_eq!(held_rows.len(), 5);
        assert!(!held_rows.contains(&digest(0)));
        assert_eq!(held(&[digest(0), digest(0), digest(1), digest(1), digest(1)], 0.1, 0), [digest(0), digest(0)]);
        assert!(held(&[digest(0); 5], 0.5, 0).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn equal_rows_are_never_on_both_sides(
            numbers in prop::collection::vec(0_u32..30, 0..80),
            fraction in 0.0..0.6,
            seed: u64,
        ) {
            let rows: Vec<_> = numbers.iter().copied().map(digest).collect();
            let split = held_out_split(&rows, fraction, seed);
            for (a, held_a) in rows.iter().zip(&split) {
                for (b, held_b) in rows.iter().zip(&split) {
                    prop_assert!(a != b || held_a == held_b);
                }
            }
            prop_assert!(rows.is_empty() || split.iter().any(|held| !held), "something is left to train on");
        }

        #[test]
        fn the_order_of_rows_does_not_matter(numbers in prop::collection::vec(0_u32..1000, 2..60), seed: u64) {
            let rows: Vec<_> = numbers.iter().copied().map(digest).collect();
            let mut reversed = rows.clone();
            reversed.reverse();
            prop_assert_eq!(held(&rows, 0.2, seed), held(&reversed, 0.2, seed));
        }
    }

    const PINNED: [usize; 4] = [8, 10, 12, 16];
}
