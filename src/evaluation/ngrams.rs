//! Multisets of n-grams as sorted lists.

use std::cmp::Ordering;

/// Elements that two sorted lists have in common, each counted at most as often as the other side has it.
pub(crate) fn common<T: Ord>(a: &[T], b: &[T]) -> usize {
    let (mut i, mut j, mut found) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            Ordering::Less => i += 1,
            Ordering::Greater => j += 1,
            Ordering::Equal => {
                (i, j) = (i + 1, j + 1);
                found += 1;
            }
        }
    }
    found
}

/// What Python calls white space, which sacrebleu splits at: Unicode's and the four information separators.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_element_counts_more_often_than_both_sides_have_it() {
        assert_eq!(common(&[1, 1, 2, 5], &[1, 2, 2, 5, 6]), 3);
        assert_eq!(common::<u8>(&[], &[1]), 0);
    }
}
