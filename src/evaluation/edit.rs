//! Levenshtein's distance by bits (Myers 1999, in blocks as Hyyrö 2003): 64 cells of a column at once.

use std::collections::HashMap;

const WORD: usize = 64;

/// 1 minus the distance in characters over the longer length; 1 where both are empty.
pub fn edit_similarity(reference: &str, prediction: &str) -> f64 {
    let (reference, prediction): (Vec<char>, Vec<char>) = (reference.chars().collect(), prediction.chars().collect());
    let longest = reference.len().max(prediction.len());
    if longest == 0 {
        return 1.0;
    }
    1.0 - distance(&reference, &prediction) as f64 / longest as f64
}

/// Characters to insert, delete or replace.
fn distance(a: &[char], b: &[char]) -> usize {
    let prefix = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - suffix], &b[..b.len() - suffix]);
    let (pattern, text) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if pattern.is_empty() { text.len() } else { by_columns(pattern, text) }
}

/// A block of a column: bits tell where its cells rise and fall from one row to the next.
#[derive(Clone, Copy)]
struct Block {
    rises: u64,
    falls: u64,
}

/// What a block hands to the one below: whether its last row rises or falls from column to column.
#[derive(Clone, Copy)]
struct Carry {
    rises: u64,
    falls: u64,
}

fn by_columns(pattern: &[char], text: &[char]) -> usize {
    let blocks = pattern.len().div_ceil(WORD);
    let mut places: HashMap<char, Vec<u64>> = HashMap::new();
    for (row, letter) in pattern.iter().enumerate() {
        places.entry(*letter).or_insert_with(|| vec![0; blocks])[row / WORD] |= 1 << (row % WORD);
    }
    let nowhere = vec![0; blocks];
    let last_row = (pattern.len() - 1) % WORD;
    let mut column = vec![Block { rises: !0, falls: 0 }; blocks];
    let mut distance = pattern.len();
    for letter in text {
        // The row above the first one is 0, 1, 2, ...
        let mut carry = Carry { rises: 1, falls: 0 };
        let mut last = carry;
        for (block, equal) in column.iter_mut().zip(places.get(letter).unwrap_or(&nowhere)) {
            (carry, last) = step(block, *equal, carry);
        }
        distance = distance + (last.rises >> last_row & 1) as usize - (last.falls >> last_row & 1) as usize;
    }
    distance
}

/// Moves a block one column on. Gives the carry and all rows' changes from column to column.
fn step(block: &mut Block, equal: u64, carry: Carry) -> (Carry, Carry) {
    let vertical = equal | block.falls;
    let equal = equal | carry.falls;
    let horizontal = ((equal & block.rises).wrapping_add(block.rises) ^ block.rises) | equal;
    let rises = block.falls | !(horizontal | block.rises);
    let falls = block.rises & horizontal;
    let shifted = Carry { rises: (rises << 1) | carry.rises, falls: (falls << 1) | carry.falls };
    block.rises = shifted.falls | !(vertical | shifted.rises);
    block.falls = shifted.rises & vertical;
    (Carry { rises: rises >> (WORD - 1), falls: falls >> (WORD - 1) }, Carry { rises, falls })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Wagner & Fischer 1974.
    fn by_table(a: &[char], b: &[char]) -> usize {
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, letter) in a.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, other) in b.iter().enumerate() {
                let above = row[j + 1];
                row[j + 1] = (diagonal + usize::from(letter != other)).min(above + 1).min(row[j] + 1);
                diagonal = above;
            }
        }
        row[b.len()]
    }

    proptest! {
        #[test]
        fn bits_and_table_agree(a in "[abc]{0,200}", b in "[abc]{0,200}") {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            prop_assert_eq!(distance(&a, &b), by_table(&a, &b));
        }
    }

    #[test]
    fn closed_forms() {
        assert_eq!(edit_similarity("kitten", "sitting"), 1.0 - 3.0 / 7.0);
        assert_eq!((edit_similarity("", ""), edit_similarity("", "ab")), (1.0, 0.0));
        assert_eq!(edit_similarity("été", "ete"), 1.0 - 2.0 / 3.0);
    }
}
