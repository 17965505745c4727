//! Rules on small sources.
