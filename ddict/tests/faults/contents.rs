//! Values that say whose they are: made from key, number and length, so that a torn or foreign one is known.

/// The shortest value; it lies in the index.
pub(crate) const LEN_MIN: usize = 16;

/// The value of a key: the number, and bytes that follow from all three.
pub(crate) fn contents(key: &str, number: u64, len: usize) -> Vec<u8> {
    assert!(len >= LEN_MIN, "a value holds its number and a check");
    let mut bytes = number.to_le_bytes().to_vec();
    let mut state = seed(key, number, len);
    while bytes.len() < len {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bytes.extend((mixed ^ mixed >> 27).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The number of a value that is whole; `None` for one that nobody put.
pub(crate) fn number_in(key: &str, bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    (bytes.len() >= LEN_MIN && contents(key, number, bytes.len()) == bytes).then_some(number)
}

fn seed(key: &str, number: u64, len: usize) -> u64 {
    let start = number.wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ (len as u64) << 32;
    key.bytes().fold(start, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// A source of numbers that are the same each time.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % limit.max(1)
    }
}

#[test]
fn a_torn_value_is_known() {
    let mut bytes = contents("key", 7, 100);
    assert_eq!(number_in("key", &bytes), Some(7));
    assert_eq!(number_in("other", &bytes), None);
    assert_eq!(number_in("key", &bytes[..99]), None);
    bytes[50] ^= 1;
    assert_eq!(number_in("key", &bytes), None);
}
