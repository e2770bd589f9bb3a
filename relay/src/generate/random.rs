//! Dice that depend on nothing but a seed, an index and a purpose.
//!
//! SplitMix64, written out: a library's default generator may change between versions, and then the same seed would no
//! longer give the same events. Good enough for traffic, not for secrets.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream for `purpose` of event `index` under `seed`.
    pub(crate) fn of(seed: u64, index: u64, purpose: u64) -> Self {
        let mut start = Self(seed ^ purpose.wrapping_mul(0xA24B_AED4_963E_E407));
        let salt = start.next();
        Self(salt ^ Self(index ^ salt.rotate_left(32)).next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Evenly from [0, `bound`); 0 when `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Evenly from [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len() as u64);
        from[usize::try_from(index).expect("below the length of a slice")]
    }

    /// From [`low`, `high`), each factor as likely as the next: many near `low`, few near `high`.
    pub(crate) fn log_uniform(&mut self, low: u64, high: u64) -> u64 {
        let (low_log, high_log) = ((low as f64).ln(), (high as f64).ln());
        whole((low_log + self.unit() * (high_log - low_log)).exp())
    }

    /// A rank in [0, `ranks`) by Zipf's law with exponent 1 (the continuous approximation): 0 is the most likely.
    pub(crate) fn zipf(&mut self, ranks: u64) -> u64 {
        let rank = whole((self.unit() * (ranks as f64 + 1.0).ln()).exp());
        rank.saturating_sub(1).min(ranks.saturating_sub(1))
    }

    /// A size with the given median, log-normal with `spread` (a normal variable as a sum of evenly spread ones).
    pub(crate) fn size(&mut self, median: u64, spread: f64, max: u64) -> usize {
        let normal = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        let size = whole(median as f64 * (spread * normal).exp()).min(max);
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    /// `bytes` random bytes in lower-case hex.
    pub(crate) fn hex(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes * 2 + 16);
        while text.len() < bytes * 2 {
            text.push_str(&format!("{:016x}", self.next()));
        }
        text.truncate(bytes * 2);
        text
    }

    /// `len` characters of `alphabet`.
    pub(crate) fn characters(&mut self, alphabet: &[u8], len: usize) -> String {
        (0..len).map(|_| char::from(self.pick(alphabet))).collect()
    }
}

/// The whole part of a number that is not negative.
#[expect(clippy::cast_possible_truncation, reason = "cutting is meant; beyond the type the cast saturates")]
pub(crate) fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed, index, purpose| Random::of(seed, index, purpose).next();
        assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
        let all = [draw(1, 2, 3), draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4), draw(2, 1, 3)];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
    }

    #[test]
    fn numbers_lie_in_their_ranges() {
        let mut random = Random::of(7, 0, 0);
        let mut ranks = [0u32; 10];
        for _ in 0..10_000 {
            assert!(random.below(3) < 3);
            assert!((0.0..1.0).contains(&random.unit()));
            assert!((120..259_200).contains(&random.log_uniform(120, 259_200)));
            ranks[usize::try_from(random.zipf(10)).expect("small")] += 1;
        }
        assert!(ranks[0] > 2 * ranks[2] && ranks[9] > 0, "{ranks:?}");
        assert_eq!(random.hex(32).len(), 64);
    }
}
