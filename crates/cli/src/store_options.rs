//! Settings of an object store: what `--option KEY=VALUE` gives, and credentials from the environment.

/// Variables that are taken for a kind of target, as its own programs take them, with the word in an address that makes
/// one needless.
const FROM_ENVIRONMENT: [(&str, &str, &str); 14] = [
    ("s3", "AWS_ACCESS_KEY_ID", ""),
    ("s3", "AWS_SECRET_ACCESS_KEY", ""),
    ("s3", "AWS_SESSION_TOKEN", ""),
    ("s3", "AWS_DEFAULT_REGION", "region="),
    ("s3", "AWS_REGION", "region="),
    ("s3", "AWS_ENDPOINT_URL", "endpoint="),
    ("gs", "GOOGLE_SERVICE_ACCOUNT", ""),
    ("gs", "GOOGLE_SERVICE_ACCOUNT_KEY", ""),
    ("gs", "GOOGLE_APPLICATION_CREDENTIALS", ""),
    ("az", "AZURE_STORAGE_ACCOUNT_NAME", ""),
    ("az", "AZURE_STORAGE_ACCOUNT_KEY", ""),
    ("az", "AZURE_STORAGE_SAS_TOKEN", ""),
    ("az", "AZURE_STORAGE_ENDPOINT", "endpoint="),
    ("az", "AZURE_STORAGE_TOKEN", ""),
];

/// Reads `KEY=VALUE`. The value is not quoted in a refusal: it is most likely a secret.
pub(crate) fn parse_option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is wanted, such as access_key_id=AKIA…".to_owned()),
    }
}

/// Reads `10MB/s`, `500kB`, `2MiB`: bytes a second.
pub(crate) fn parse_bandwidth(text: &str) -> Result<u64, String> {
    let bare = text.strip_suffix("/s").unwrap_or(text).trim();
    let digits = bare.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(bare.len());
    let (number, unit) = bare.split_at(digits);
    let factor: Option<u64> = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        _ => None,
    };
    let rate = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    rate.filter(|rate| *rate > 0).ok_or_else(|| "bytes a second are wanted, such as 10MB/s".to_owned())
}

/// Returns all settings for an address, those that were typed last: they win.
pub(crate) fn all(
    url: &str,
    typed: &[(String, String)],
    environment: impl Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let (kind, _) = url.split_once("://").unwrap_or_default();
    let taken = FROM_ENVIRONMENT
        .iter()
        .filter(|(of, _, word)| *of == kind && (word.is_empty() || !url.contains(word)));
    let mut options: Vec<(String, String)> = taken
        .filter_map(|(_, name, _)| {
            Some(((*name).to_owned(), environment(name).filter(|value| !value.is_empty())?))
        })
        .collect();
    options.extend(typed.iter().cloned());
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_wins_over_the_environment_and_the_address_over_its_region() {
        let environment = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("from-env".to_owned()),
            "AWS_REGION" => Some("eu-west-1".to_owned()),
            "AZURE_STORAGE_ACCOUNT_KEY" => Some("other".to_owned()),
            _ => None,
        };
        let typed = [("access_key_id".to_owned(), "typed".to_owned())];
        let names =
            |url: &str| all(url, &typed, environment).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("s3://bucket?region=x"), ["AWS_ACCESS_KEY_ID", "access_key_id"]);
        assert_eq!(names("s3://bucket"), ["AWS_ACCESS_KEY_ID", "AWS_REGION", "access_key_id"]);
        assert_eq!(names("file:///x"), ["access_key_id"]);
    }

    #[test]
    fn a_bandwidth_has_a_unit_that_people_write() {
        assert_eq!(parse_bandwidth("10MB/s"), Ok(10_000_000));
        assert_eq!(parse_bandwidth("2MiB"), Ok(2 << 20));
        assert_eq!(parse_bandwidth("500 kB/s"), Ok(500_000));
        for bad in ["", "fast", "0", "10 apples", "-1MB", "99999999999999999999"] {
            assert!(parse_bandwidth(bad).is_err(), "{bad}");
        }
        assert!(parse_option("hunter2").is_err_and(|error| !error.contains("hunter2")));
    }
}
