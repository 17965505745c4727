//! Whether a delivery was sent by whoever knows the secret of the webhook. All comparisons take the same time, whatever is
//! wrong.

use std::ops::RangeInclusive;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use trackbed_core::Secret;
use trackbed_core::remote::Forge;

/// Bytes of an HMAC-SHA256.
const TAG_BYTES: usize = 32;
/// What a signing token begins with. The rest is the key, in base64.
const SIGNING_PREFIX: &str = "whsec_";
/// Bytes of that key (standardwebhooks.com, "Specification"); GitLab's has 32.
const SIGNING_KEY_BYTES: RangeInclusive<usize> = 24..=64;
/// Bytes of other secrets that are given.
const SECRET_BYTES: RangeInclusive<usize> = 16..=200;
/// How far the time in a signed delivery may be from ours.
const APART_MAX_S: u64 = 300;

/// Why a delivery is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It bears no signature of the kind that its forge makes; this header is missing or holds none.
    Missing(&'static str),
    /// It was made with another secret, or for another body.
    Wrong,
    /// It was signed at this time, in seconds since 1970 UTC, which is too far from ours.
    NotNow(i64),
}

/// Checks a secret that a forge made: a signing token, or any other word that is long enough.
pub(super) fn is_usable(secret: &str) -> bool {
    match secret.strip_prefix(SIGNING_PREFIX) {
        Some(_) => signing_key(secret).is_some(),
        None => SECRET_BYTES.contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic()),
    }
}

/// Checks a delivery that came at `now`, in milliseconds since 1970 UTC. GitHub, Gitea and Forgejo sign the body
/// (docs.github.com, "Validating webhook deliveries"; docs.gitea.com and forgejo.org, "Webhooks"). GitLab signs name, time and
/// body where the secret is a signing token, else it sends the secret itself (docs.gitlab.com, "Webhooks").
pub(super) fn check(
    forge: Forge,
    headers: &HeaderMap,
    body: &[u8],
    secret: &Secret<String>,
    now: i64,
) -> Result<(), Refused> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    match forge {
        Forge::Github => signed(&key, "X-Hub-Signature-256", header("x-hub-signature-256"), body),
        Forge::Gitea => {
            let own = header("x-forgejo-signature").or(header("x-gitea-signature"));
            signed(&key, "X-Gitea-Signature", own.or(header("x-hub-signature-256")), body)
        }
        Forge::Gitlab if secret.expose().starts_with(SIGNING_PREFIX) => {
            let key = signing_key(secret.expose()).ok_or(Refused::Wrong)?;
            signed_with_time(&hmac::Key::new(hmac::HMAC_SHA256, &key), header, body, now)
        }
        Forge::Gitlab => {
            let token = header("x-gitlab-token").ok_or(Refused::Missing("X-Gitlab-Token"))?;
            // Their tags are compared, because that takes the same time for every wrong token.
            let wanted = hmac::sign(&key, secret.expose().as_bytes());
            hmac::verify(&key, token.as_bytes(), wanted.as_ref()).map_err(|_| Refused::Wrong)
        }
    }
}

fn signed(key: &hmac::Key, name: &'static str, given: Option<&str>, body: &[u8]) -> Result<(), Refused> {
    let given = given.ok_or(Refused::Missing(name))?;
    let tag = hex(given.strip_prefix("sha256=").unwrap_or(given)).ok_or(Refused::Missing(name))?;
    hmac::verify(key, body, &tag).map_err(|_| Refused::Wrong)
}

/// Checks what is signed as standardwebhooks.com, "Specification", has it.
fn signed_with_time<'a>(
    key: &hmac::Key,
    header: impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
    now: i64,
) -> Result<(), Refused> {
    let find = |name: &'static str| header(name).ok_or(Refused::Missing(name));
    let (given, name, time) = (find("webhook-signature")?, find("webhook-id")?, find("webhook-timestamp")?);
    let signed = [name.as_bytes(), b".", time.as_bytes(), b".", body].concat();
    // Several while a token is being changed for another.
    let is_signed = given.split(' ').any(|one| {
        let tag = one.strip_prefix("v1,").and_then(|tag| STANDARD.decode(tag).ok());
        tag.is_some_and(|tag| hmac::verify(key, &signed, &tag).is_ok())
    });
    if !is_signed {
        return Err(Refused::Wrong);
    }
    let time: i64 = time.parse().map_err(|_| Refused::Missing("webhook-timestamp"))?;
    if time.abs_diff(now / 1000) > APART_MAX_S {
        return Err(Refused::NotNow(time));
    }
    Ok(())
}

fn signing_key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix(SIGNING_PREFIX)?).ok()?;
    SIGNING_KEY_BYTES.contains(&key.len()).then_some(key)
}

fn hex(text: &str) -> Option<[u8; TAG_BYTES]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut tag = [0; TAG_BYTES];
    if text.len() != 2 * TAG_BYTES {
        return None;
    }
    for (place, pair) in tag.iter_mut().zip(text.as_bytes().chunks(2)) {
        *place = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(tag)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn checked(forge: Forge, name: &str, value: &str, body: &str, secret: &str) -> Result<(), Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        check(forge, &headers, body.as_bytes(), &Secret::new(secret.to_owned()), 0)
    }

    /// Checks the example of the specification's libraries, which was signed at 1614265330, `later` seconds after that.
    fn checked_example(change: &[(&str, Option<&str>)], body: &str, later: i64) -> Result<(), Refused> {
        let example = [
            ("x-gitlab-event", "Push Hook"),
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ];
        let mut headers: HeaderMap =
            example.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        for (name, value) in change {
            match value {
                Some(value) => headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap()),
                None => headers.remove(*name),
            };
        }
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        check(Forge::Gitlab, &headers, body.as_bytes(), &secret, (1_614_265_330 + later) * 1000)
    }

    /// The example of GitHub's documentation.
    const GITHUB: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    /// Test case 2 of RFC 4231, bare as Gitea and Forgejo send it.
    const RFC_4231: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    #[test]
    fn the_documented_examples_are_believed() {
        let (body, secret) = ("Hello, World!", "It's a Secret to Everybody");
        assert_eq!(checked(Forge::Github, "X-Hub-Signature-256", GITHUB, body, secret), Ok(()));
        assert_eq!(checked(Forge::Gitea, "X-Hub-Signature-256", GITHUB, body, secret), Ok(()));
        for name in ["X-Gitea-Signature", "X-Forgejo-Signature"] {
            let body = "what do ya want for nothing?";
            assert_eq!(checked(Forge::Gitea, name, RFC_4231, body, "Jefe"), Ok(()), "{name}");
        }
        assert_eq!(checked(Forge::Gitlab, "X-Gitlab-Token", "tbh_1", "any", "tbh_1"), Ok(()));
    }

    #[test]
    fn another_body_secret_or_kind_of_signature_is_not() {
        let (body, secret, name) = ("Hello, World!", "It's a Secret to Everybody", "X-Hub-Signature-256");
        assert_eq!(checked(Forge::Github, name, GITHUB, "Hello, World", secret), Err(Refused::Wrong));
        assert_eq!(checked(Forge::Github, name, GITHUB, body, "other"), Err(Refused::Wrong));
        for bad in ["", "sha256=", "sha1=757107ea0eb2509fc211221cce984b8a37570b6d", "x".repeat(64).as_str()] {
            assert_eq!(checked(Forge::Github, name, bad, body, secret), Err(Refused::Missing(name)), "{bad}");
        }
        let old = checked(Forge::Github, "X-Hub-Signature", "sha1=00", body, secret);
        assert_eq!(old, Err(Refused::Missing(name)), "SHA-1 is not enough");
        let token = checked(Forge::Github, "X-Gitlab-Token", secret, body, secret);
        assert_eq!(token, Err(Refused::Missing(name)));
        for bad in ["", "tbh_", "tbh_2", "tbh_11"] {
            assert_eq!(
                checked(Forge::Gitlab, "X-Gitlab-Token", bad, "", "tbh_1"),
                Err(Refused::Wrong),
                "{bad}"
            );
        }
        let missing = checked(Forge::Gitlab, "X-Other", "tbh_1", "", "tbh_1");
        assert_eq!(missing, Err(Refused::Missing("X-Gitlab-Token")));
    }

    /// The body of that example.
    const SIGNED: &str = r#"{"test": 2432232314}"#;

    #[test]
    fn what_is_signed_with_its_name_and_time_is_believed_near_that_time() {
        for later in [0, 300, -300] {
            assert_eq!(checked_example(&[], SIGNED, later), Ok(()), "{later}");
        }
        for later in [301, -301, 1_000_000_000] {
            assert_eq!(checked_example(&[], SIGNED, later), Err(Refused::NotNow(1_614_265_330)), "{later}");
        }
        let several = "v1,AAAA v2,x v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1";
        assert_eq!(checked_example(&[("webhook-signature", Some(several))], SIGNED, 0), Ok(()));
    }

    #[test]
    fn what_is_signed_with_another_name_time_body_or_not_at_all_is_not() {
        assert_eq!(checked_example(&[], "{}", 0), Err(Refused::Wrong));
        for (name, other) in [
            ("webhook-id", "msg_2"),
            ("webhook-timestamp", "1614265331"),
            ("webhook-timestamp", "99999999999999999999"),
            ("webhook-timestamp", "-9223372036854775808"),
            ("webhook-signature", ""),
            ("webhook-signature", "v1,"),
            ("webhook-signature", "v1,%%%"),
            ("webhook-signature", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ] {
            assert_eq!(
                checked_example(&[(name, Some(other))], SIGNED, 0),
                Err(Refused::Wrong),
                "{name}: {other}"
            );
        }
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            // The token itself is no signature.
            let token = ("x-gitlab-token", Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
            let without = checked_example(&[(name, None), token], SIGNED, 0);
            assert_eq!(without, Err(Refused::Missing(name)));
        }
    }

    #[test]
    fn a_secret_is_a_signing_token_or_a_long_word() {
        for good in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "0123456789abcdef", &"x".repeat(200)] {
            assert!(is_usable(good), "{good}");
        }
        for bad in ["", "short", "whsec_", "whsec_MfKQ9r8G", "whsec_no base64 at all!", &"x".repeat(201)] {
            assert!(!is_usable(bad), "{bad}");
        }
    }
}
