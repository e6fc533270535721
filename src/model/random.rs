//! Randomness without a state: every draw is a function of a seed and of what it is for, so that neither packing nor
//! accumulation nor a resumed run changes what is drawn. The numbers are part of what makes a run repeatable: they must
//! never change.

/// A place in the space of all draws; `with` narrows it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The place `part` within this one.
    #[must_use]
    pub fn with(self, part: u64) -> Self {
        Self(mix(self.0 ^ mix(part.wrapping_add(WEYL))))
    }

    /// The place named `part` within this one (FNV-1a of its bytes).
    #[must_use]
    pub fn with_name(self, part: &str) -> Self {
        let hash = part.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        self.with(hash)
    }

    /// 64 random bits, the `index`-th of this place.
    #[inline]
    pub fn bits(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_add(1).wrapping_mul(WEYL)))
    }

    /// A uniform number in `[0, 1)` with 53 bits, the `index`-th of this place.
    pub fn uniform(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// A number that is normal with mean 0 and variance 1, the `index`-th of this place (Box & Muller 1958).
    pub fn normal(self, index: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * index)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * index + 1)).cos()
    }
}

/// Step of the Weyl sequence of SplitMix64 (Steele, Lea & Flood 2014): 2^64 divided by the golden ratio.
const WEYL: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64: a bijection whose every output bit depends on every input bit.
#[inline]
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform_and_places_are_independent() {
        let key = Key::new(7).with(3).with_name("model.layers.0.self_attn.q_proj");
        let draws: Vec<f64> = (0..40_000).map(|index| key.uniform(index)).collect();
        let mean = draws.iter().sum::<f64>() / 40_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 40_000.0;
        // Four standard errors of the mean (1/sqrt(12 n)) and of the variance (1/sqrt(180 n)).
        assert!((mean - 0.5).abs() < 0.006, "{mean}");
        assert!((variance - 1.0 / 12.0).abs() < 0.0015, "{variance}");
        let other = key.with(1);
        let product: f64 = (0..40_000).map(|i| (key.uniform(i) - 0.5) * (other.uniform(i) - 0.5)).sum();
        assert!((product / 40_000.0 * 12.0).abs() < 0.02);
    }

    #[test]
    fn normal_numbers_have_the_moments_of_the_normal_distribution() {
        let key = Key::new(3).with_name("normal");
        let draws: Vec<f64> = (0..40_000).map(|index| key.normal(index)).collect();
        let moment = |n: i32| draws.iter().map(|x| x.powi(n)).sum::<f64>() / 40_000.0;
        // Four standard errors of each: the moments of order 2n minus the squares, over n draws.
        for (order, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0_f64)] {
            let error = (moment(order) - expected).abs();
            assert!(error < 4.0 * (variance / 40_000.0).sqrt(), "moment {order}: {error}");
        }
    }

    #[test]
    fn the_numbers_never_change() {
        // The first output of SplitMix64 seeded with zero, from its published reference.
        assert_eq!(mix(WEYL), 0xe220_a839_7b1d_cdaf);
        let key = Key::new(42).with(1).with_name("a");
        assert_eq!(key, Key::new(42).with(1).with_name("a"));
        assert_ne!(key.bits(0), key.bits(1));
        assert_ne!(Key::new(42).with(1).with(2), Key::new(42).with(2).with(1));
    }
}
