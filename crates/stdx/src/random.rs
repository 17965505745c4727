//! Randomness from the kernel.

/// Returns random bytes.
///
/// # Panics
/// When the kernel has no randomness, in which case nothing secret can be made at all (getrandom(2)).
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel always has randomness after boot");
    bytes
}
