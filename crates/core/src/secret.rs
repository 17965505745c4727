//! A value that must not leak by accident: hidden in `Debug`, and shown only by an explicit call.

use std::fmt;

/// Wraps a secret. It has no `Serialize` and no `Display`; [`Secret::expose`] is the one way to the value.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value. Every caller is a place where the secret may leave the program.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Returns the value and gives up the wrapping.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn debug_hides_the_value() {
        assert_eq!(format!("{:?}", super::Secret::new("hunter2")), "Secret(…)");
    }
}
