//! Tensor types: <https://github.com/ggml-org/ggml/blob/master/include/ggml.h>, `enum ggml_type`.

use crate::tensor::HostDtype;

/// Tensor types that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// `(number in the file, name, elements a block, bytes a block)`.
const READABLE: &[(Kind, u32, &str, usize, usize)] = &[
    (Kind::F32, 0, "F32", 1, 4),
    (Kind::F16, 1, "F16", 1, 2),
    (Kind::Bf16, 30, "BF16", 1, 2),
    (Kind::Q4_0, 2, "Q4_0", 32, 18),
    (Kind::Q4_1, 3, "Q4_1", 32, 20),
    (Kind::Q5_0, 6, "Q5_0", 32, 22),
    (Kind::Q5_1, 7, "Q5_1", 32, 24),
    (Kind::Q8_0, 8, "Q8_0", 32, 34),
    (Kind::Q4K, 12, "Q4_K", 256, 144),
    (Kind::Q5K, 13, "Q5_K", 256, 176),
    (Kind::Q6K, 14, "Q6_K", 256, 210),
];

/// Names of the others, for errors.
const OTHERS: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// Names of all that can be read.
pub(crate) fn names() -> String {
    READABLE.iter().map(|row| row.2).collect::<Vec<_>>().join(", ")
}

impl Kind {
    /// The type of that number, or the name of one that cannot be read.
    pub(crate) fn parse(number: u32) -> Result<Self, String> {
        match READABLE.iter().find(|row| row.1 == number) {
            Some(row) => Ok(row.0),
            None => Err(OTHERS
                .iter()
                .find(|(other, _)| *other == number)
                .map_or_else(|| format!("type {number}"), |(_, name)| (*name).to_owned())),
        }
    }

    /// Elements and bytes of a block.
    pub(crate) fn block(self) -> (usize, usize) {
        READABLE.iter().find(|row| row.0 == self).map_or((1, 1), |row| (row.3, row.4))
    }

    /// Its number in the file.
    pub(crate) fn number(self) -> u32 {
        READABLE.iter().find(|row| row.0 == self).map_or(0, |row| row.1)
    }

    /// The host type that holds the same bits, unless quantised.
    pub(crate) fn plain(self) -> Option<HostDtype> {
        match self {
            Self::F32 => Some(HostDtype::F32),
            Self::F16 => Some(HostDtype::F16),
            Self::Bf16 => Some(HostDtype::Bf16),
            _ => None,
        }
    }
}
