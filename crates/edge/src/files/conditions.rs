//! What of a file a client wants: all of it, a part, or nothing because it has it already (RFC 9110 §13 and §14).

use std::ops::Range;
use std::time::SystemTime;

use crate::fields::tokens;

/// What a request says about the file that it wants.
#[derive(Debug, Default)]
pub(super) struct Asked<'a> {
    pub(super) if_match: Option<&'a [u8]>,
    pub(super) if_none_match: Option<&'a [u8]>,
    pub(super) if_modified_since: Option<&'a [u8]>,
    pub(super) if_unmodified_since: Option<&'a [u8]>,
    pub(super) if_range: Option<&'a [u8]>,
    pub(super) range: Option<&'a [u8]>,
}

/// The answer to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    Part(Range<u64>),
    /// It begins behind the end.
    NoSuchPart,
    /// The client has it.
    Nothing,
    /// It is not the one that the client means.
    Another,
}

/// Decides. `tag` is with its quotes, `modified` in whole seconds.
pub(super) fn decide(
    asked: &Asked<'_>,
    tag: &str,
    modified: SystemTime,
    length: u64,
    is_head: bool,
) -> Wanted {
    let same_date = |text: &[u8]| date(text).is_some_and(|date| date == modified);
    let names = |list: &[u8], weakly: bool| {
        list.trim_ascii() == b"*"
            || tokens(list).any(|said| {
                let said = if weakly { said.strip_prefix(b"W/").unwrap_or(said) } else { said };
                said == tag.as_bytes()
            })
    };
    match (asked.if_match, asked.if_unmodified_since) {
        (Some(list), _) if !names(list, false) => return Wanted::Another,
        (None, Some(since)) if date(since).is_some_and(|since| modified > since) => return Wanted::Another,
        _ => {}
    }
    match (asked.if_none_match, asked.if_modified_since) {
        (Some(list), _) if names(list, true) => return Wanted::Nothing,
        // Exactly the same time, because a rollback brings an older file back.
        (None, Some(since)) if same_date(since) => return Wanted::Nothing,
        _ => {}
    }
    let range = asked.range.filter(|_| !is_head);
    let still_same = asked.if_range.is_none_or(|said| said == tag.as_bytes() || same_date(said));
    match range.filter(|_| still_same).and_then(|range| part(range, length)) {
        None => Wanted::Whole,
        Some(part) if part.is_empty() => Wanted::NoSuchPart,
        Some(part) => Wanted::Part(part),
    }
}

fn date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

/// Reads a range. None when it is to be ignored: another unit, several ranges, or nonsense; an empty one when it begins
/// behind the end.
fn part(text: &[u8], length: u64) -> Option<Range<u64>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let unit = text.get(..6).filter(|unit| unit.eq_ignore_ascii_case("bytes="))?;
    let (first, last) = text[unit.len()..].trim().split_once('-')?;
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        // More than fits is more than there is.
        true => Some(text.parse::<u64>().unwrap_or(u64::MAX)),
        false => None,
    };
    if first.is_empty() {
        let count = number(last)?.min(length);
        return Some(length - count..length);
    }
    let first = number(first)?;
    let end = if last.is_empty() { length } else { number(last)?.saturating_add(1) };
    if end <= first && !last.is_empty() {
        return None;
    }
    Some(first.min(length)..end.min(length))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const TAG: &str = "\"abc\"";

    fn decided(asked: &Asked<'_>) -> Wanted {
        decide(asked, TAG, UNIX_EPOCH + Duration::from_secs(784_111_777), 100, false)
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let range = |text: &str| decided(&Asked { range: Some(text.as_bytes()), ..Asked::default() });
        assert_eq!(range("bytes=0-9"), Wanted::Part(0..10));
        assert_eq!(range("Bytes=90-"), Wanted::Part(90..100));
        assert_eq!(range("bytes=90-1000"), Wanted::Part(90..100));
        assert_eq!(range("bytes=-10"), Wanted::Part(90..100));
        assert_eq!(range("bytes=-1000"), Wanted::Part(0..100));
        assert_eq!(range("bytes=99-99999999999999999999999"), Wanted::Part(99..100));
        for text in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(range(text), Wanted::NoSuchPart, "{text}");
        }
        for text in [
            "bytes=9-0",
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=a-b",
            "bytes=-",
            "bytes=",
            "bytes",
            "bytes=+1-2",
            "",
        ] {
            assert_eq!(range(text), Wanted::Whole, "{text}");
        }
    }

    #[test]
    fn a_part_is_given_only_of_the_same_file() {
        let asked =
            |if_range| Asked { range: Some(b"bytes=0-0"), if_range: Some(if_range), ..Asked::default() };
        assert_eq!(decided(&asked(b"\"abc\"")), Wanted::Part(0..1));
        assert_eq!(decided(&asked(b"Sun, 06 Nov 1994 08:49:37 GMT")), Wanted::Part(0..1));
        for other in [&b"\"abd\""[..], b"W/\"abc\"", b"Sun, 06 Nov 1994 08:49:38 GMT", b"nonsense"] {
            assert_eq!(decided(&asked(other)), Wanted::Whole);
        }
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let none = |list| decided(&Asked { if_none_match: Some(list), ..Asked::default() });
        for list in [&b"\"abc\""[..], b"W/\"abc\"", b"\"x\", \"abc\"", b"*"] {
            assert_eq!(none(list), Wanted::Nothing);
        }
        assert_eq!(none(b"\"abd\""), Wanted::Whole);
        let since = |text| decided(&Asked { if_modified_since: Some(text), ..Asked::default() });
        assert_eq!(since(b"Sun, 06 Nov 1994 08:49:37 GMT"), Wanted::Nothing);
        assert_eq!(since(b"Mon, 07 Nov 1994 08:49:37 GMT"), Wanted::Whole, "an older file came back");
        let both = Asked {
            if_none_match: Some(b"\"x\""),
            if_modified_since: Some(b"Sun, 06 Nov 1994 08:49:37 GMT"),
            ..Asked::default()
        };
        assert_eq!(decided(&both), Wanted::Whole, "the tag is the better word");
    }

    #[test]
    fn another_file_than_the_client_means_is_refused() {
        let asked = |list| Asked { if_match: Some(list), ..Asked::default() };
        assert_eq!(decided(&asked(b"\"abd\"")), Wanted::Another);
        assert_eq!(decided(&asked(b"W/\"abc\"")), Wanted::Another);
        assert_eq!(decided(&asked(b"*")), Wanted::Whole);
        let since = |text| Asked { if_unmodified_since: Some(text), ..Asked::default() };
        assert_eq!(decided(&since(b"Sun, 06 Nov 1994 08:49:36 GMT")), Wanted::Another);
        assert_eq!(decided(&since(b"Sun, 06 Nov 1994 08:49:37 GMT")), Wanted::Whole);
    }
}
