//! Longest common subsequences of words.

use std::collections::BTreeSet;

/// Length of the longest common subsequence, in one row of memory.
pub(super) fn length(a: &[u32], b: &[u32]) -> usize {
    let mut row = vec![0_usize; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (column, other) in b.iter().enumerate() {
            let above = row[column + 1];
            row[column + 1] = if word == other { diagonal + 1 } else { above.max(row[column]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Indices into `line` that lie on a longest common subsequence with any of `others`: their union, sorted.
pub(super) fn union(line: &[u32], others: &[Vec<u32>]) -> BTreeSet<usize> {
    others.iter().flat_map(|other| indices(line, other)).collect()
}

/// Indices into `a` of one longest common subsequence. Which one matters to the union: from the end, a step back in `a`
/// is taken only where it is strictly better than one in `b`, as the reference implementation does.
fn indices(a: &[u32], b: &[u32]) -> Vec<usize> {
    let width = b.len() + 1;
    let mut table = vec![0_u32; (a.len() + 1) * width];
    for (i, word) in a.iter().enumerate() {
        for (j, other) in b.iter().enumerate() {
            table[(i + 1) * width + j + 1] = if word == other {
                table[i * width + j] + 1
            } else {
                table[i * width + j + 1].max(table[(i + 1) * width + j])
            };
        }
    }
    let (mut i, mut j) = (a.len(), b.len());
    let mut found = Vec::new();
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            found.push(i - 1);
            (i, j) = (i - 1, j - 1);
        } else if table[i * width + j - 1] > table[(i - 1) * width + j] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    found
}
