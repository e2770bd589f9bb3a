//! HyperLogLog: how many different values there were, from a few kilobytes however many they are.
//!
//! What a sketch is depends on the set of values alone, bit for bit: not on their order, on repeats, or on how it was
//! put together from others. It is state of a job, so its form is fixed here and has a version:
//!
//! ```text
//! byte 0      VERSION
//! byte 1      precision p, 4 to 16: 2^p registers
//! dense       2^p bytes, one a register: its rank, or 0
//! sparse      4 bytes a register that is not 0, ascending, little-endian: number << 8 | rank
//! ```
//!
//! Sparse is what takes less room. The register of a hash is its topmost p bits, its rank the position of the first 1
//! in the rest, from 1. The estimate is that of O. Ertl, "New cardinality estimation algorithms for HyperLogLog
//! sketches" (2017), algorithm 6, which needs no table of corrections.

/// Form of the state. Another one cannot be read: whoever changes the form, the hash or what is hashed counts on here.
pub(crate) const VERSION: u8 = 1;
/// 4096 registers: a standard error of 1.6 %.
pub(crate) const PRECISION: u8 = 12;
/// Standard error of a sketch with one register.
const ERROR_OF_ONE: f64 = 1.04;

/// A set of hashes, by its registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sketch {
    precision: u8,
    registers: Registers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Registers {
    /// Number << 8 | rank, ascending.
    Sparse(Vec<u32>),
    Dense(Vec<u8>),
}

/// The least precision with a standard error of at most `error`; none where no precision has one, or any has.
pub(crate) fn precision_of(error: f64) -> Option<u8> {
    (4..=16).find(|precision| standard_error(*precision) <= error).filter(|_| error <= standard_error(4))
}

/// Standard error of sketches of a precision, as a share of the number.
pub(crate) fn standard_error(precision: u8) -> f64 {
    ERROR_OF_ONE / f64::from(1_u32 << precision).sqrt()
}

impl Sketch {
    /// The sketch of no value.
    pub(crate) const fn new(precision: u8) -> Self {
        Self { precision, registers: Registers::Sparse(Vec::new()) }
    }

    /// Adds a value by its hash.
    pub(crate) fn add(&mut self, hash: u64) {
        let number = u32::try_from(hash >> (64 - self.precision)).expect("at most 16 bits");
        // The 1 behind the last bit ends the count where all are 0.
        let rest = (hash << self.precision) | (1 << (self.precision - 1));
        self.raise(number, u8::try_from(rest.leading_zeros() + 1).expect("at most 61"));
    }

    fn raise(&mut self, number: u32, rank: u8) {
        match &mut self.registers {
            Registers::Dense(ranks) => {
                let held = &mut ranks[number as usize];
                *held = rank.max(*held);
            }
            Registers::Sparse(held) => {
                let entry = number << 8 | u32::from(rank);
                let at = held.partition_point(|other| other >> 8 < number);
                match held.get_mut(at) {
                    Some(other) if *other >> 8 == number => *other = entry.max(*other),
                    _ => held.insert(at, entry),
                }
                if held.len() * size_of::<u32>() >= 1 << self.precision {
                    self.make_dense();
                }
            }
        }
    }

    fn make_dense(&mut self) {
        let mut ranks = vec![0; 1 << self.precision];
        for (number, rank) in self.ranks() {
            ranks[number as usize] = rank;
        }
        self.registers = Registers::Dense(ranks);
    }

    /// Registers that are not 0, ascending.
    fn ranks(&self) -> Box<dyn Iterator<Item = (u32, u8)> + '_> {
        match &self.registers {
            Registers::Sparse(held) => Box::new(held.iter().map(|entry| (entry >> 8, entry.to_le_bytes()[0]))),
            Registers::Dense(ranks) => Box::new((0..).zip(ranks.iter().copied()).filter(|(_, rank)| *rank > 0)),
        }
    }

    /// Adds all values of another sketch, given by its state.
    ///
    /// # Errors
    /// What is wrong with the state: another version or precision, or bytes that no sketch has.
    pub(crate) fn merge(&mut self, state: &[u8]) -> Result<(), String> {
        let [version, precision, registers @ ..] = state else { return Err("it is cut off".to_owned()) };
        if *version != VERSION {
            return Err(format!("it has version {version}, and {VERSION} can be read"));
        }
        if *precision != self.precision {
            return Err(format!("it has precision {precision}, not {}", self.precision));
        }
        let rank_max = 65 - self.precision;
        if registers.len() == 1 << self.precision {
            if registers.iter().any(|rank| *rank > rank_max) {
                return Err("it has a rank beyond the greatest".to_owned());
            }
            for (number, rank) in (0..).zip(registers).filter(|(_, rank)| **rank > 0) {
                self.raise(number, *rank);
            }
            return Ok(());
        }
        let (entries, rest) = registers.as_chunks::<4>();
        if !rest.is_empty() {
            return Err("it is cut off".to_owned());
        }
        for entry in entries {
            let (number, rank) = (u32::from_le_bytes(*entry) >> 8, entry[0]);
            if number >> self.precision != 0 || !(1..=rank_max).contains(&rank) {
                return Err("it has a register that does not exist".to_owned());
            }
            self.raise(number, rank);
        }
        Ok(())
    }

    /// Appends the state.
    pub(crate) fn write(&self, state: &mut Vec<u8>) {
        state.extend([VERSION, self.precision]);
        match &self.registers {
            Registers::Sparse(held) => state.extend(held.iter().flat_map(|entry| entry.to_le_bytes())),
            Registers::Dense(ranks) => state.extend(ranks),
        }
    }

    /// About how many different values there were.
    pub(crate) fn estimate(&self) -> i64 {
        let registers = f64::from(1_u32 << self.precision);
        let last = usize::from(64 - self.precision);
        let mut held = vec![0_u32; last + 2];
        let mut set = 0;
        for (_, rank) in self.ranks() {
            held[usize::from(rank)] += 1;
            set += 1;
        }
        held[0] = (1 << self.precision) - set;
        let mut z = registers * tau(1.0 - f64::from(held[last + 1]) / registers);
        for rank in (1..=last).rev() {
            z = 0.5 * (z + f64::from(held[rank]));
        }
        z += registers * sigma(f64::from(held[0]) / registers);
        let estimate = registers * registers / (2.0 * std::f64::consts::LN_2 * z);
        #[expect(clippy::cast_possible_truncation, reason = "as many as there are hashes at most: it saturates")]
        let rounded = estimate.round() as i64;
        rounded
    }

    /// Bytes beside the struct.
    pub(crate) const fn heap_bytes(&self) -> usize {
        match &self.registers {
            Registers::Sparse(held) => held.capacity() * size_of::<u32>(),
            Registers::Dense(ranks) => ranks.capacity(),
        }
    }
}

/// Ertl's σ: what empty registers say.
fn sigma(x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut x, mut y, mut z) = (x, 1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// Ertl's τ: what full registers say.
fn tau(x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut x, mut y, mut z) = (x, 1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn of(precision: u8, values: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::new(precision);
        values.into_iter().for_each(|value| sketch.add(xxh3_64(&value.to_le_bytes())));
        sketch
    }

    fn state(sketch: &Sketch) -> Vec<u8> {
        let mut state = Vec::new();
        sketch.write(&mut state);
        state
    }

    proptest! {
        /// Commutative, associative, idempotent, with the empty sketch as identity; and the state says everything.
        #[test]
        fn a_merge_is_the_sketch_of_the_union(
            precision in 4..=16_u8, first in 0..3_000_u64, second in 0..3_000_u64, third in 0..3_000_u64
        ) {
            // Ranges that overlap: from a few values, which stay sparse, to many, which do not.
            let parts = [0..first, second / 2..second, third.min(1_000)..third];
            let whole = of(precision, parts.iter().cloned().flatten());
            for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
                let mut merged = Sketch::new(precision);
                for at in order.into_iter().chain(order) {
                    let part = of(precision, parts[at].clone());
                    prop_assert_eq!(merged.merge(&state(&part)), Ok(()));
                }
                prop_assert_eq!(&merged, &whole);
                prop_assert_eq!(state(&merged), state(&whole));
            }
        }
    }

    /// Three standard errors of numbers that are known; a few may share a register.
    #[test]
    fn estimates_are_within_three_standard_errors() {
        for precision in [9, 12, 14, 16] {
            for values in [0_u32, 1, 10, 1_000, 100_000] {
                for seed in 0..5_u64 {
                    let sketch = of(precision, (0..u64::from(values)).map(|value| value | seed << 40));
                    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                    let estimate = sketch.estimate() as f64;
                    let off = (estimate - f64::from(values)).abs();
                    assert!(
                        off <= (3.0 * standard_error(precision) * f64::from(values)).max(1.0),
                        "precision {precision}: {estimate} for {values}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_precision_is_the_least_that_is_as_exact_as_asked() {
        assert_eq!(precision_of(0.05), Some(9));
        assert_eq!(precision_of(0.02), Some(12));
        assert_eq!(precision_of(0.01), Some(14));
        assert_eq!(precision_of(0.26), Some(4));
        for error in [0.0, 0.001, 0.5, 1.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(precision_of(error), None, "{error}");
        }
    }

    /// The form is a promise: state that was kept is read for ever.
    #[test]
    fn the_state_has_the_form_that_is_written_down() {
        let mut sketch = Sketch::new(4);
        assert_eq!(state(&sketch), [VERSION, 4]);
        sketch.add(0x8000_0000_0000_0000);
        assert_eq!(state(&sketch), [VERSION, 4, 61, 8, 0, 0]);
        sketch.add(0x1100_0000_0000_0000);
        assert_eq!(state(&sketch), [VERSION, 4, 4, 1, 0, 0, 61, 8, 0, 0]);
        for number in 0..4_u64 {
            sketch.add(number << 60 | 0x0800_0000_0000_0000);
        }
        assert_eq!(state(&sketch), [VERSION, 4, 1, 4, 1, 1, 0, 0, 0, 0, 61, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_no_state_of_this_version_and_precision_is_refused() {
        let dense = |rank: u8| [vec![VERSION, 4], vec![rank; 16]].concat();
        for (state, why) in [
            (vec![], "cut off"),
            (vec![VERSION], "cut off"),
            (vec![VERSION + 1, 12], "version 2"),
            (vec![VERSION, 12], "precision 12"),
            (vec![VERSION, 4, 1, 0, 0], "cut off"),
            (vec![VERSION, 4, 1, 16, 0, 0], "does not exist"),
            (vec![VERSION, 4, 0, 1, 0, 0], "does not exist"),
            (vec![VERSION, 4, 62, 1, 0, 0], "does not exist"),
            (dense(62), "beyond"),
        ] {
            let refused = Sketch::new(4).merge(&state).expect_err("it is refused");
            assert!(refused.contains(why), "{state:?}: {refused}");
        }
        assert_eq!(Sketch::new(4).merge(&dense(61)), Ok(()));
    }
}
