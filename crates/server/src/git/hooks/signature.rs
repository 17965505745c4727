//! Whether a delivery was sent by whoever knows the secret of the webhook. All comparisons take the same time, whatever is
//! wrong.

use axum::http::HeaderMap;
use ring::hmac;
use trackbed_core::Secret;
use trackbed_core::remote::Forge;

/// Bytes of an HMAC-SHA256.
const TAG_BYTES: usize = 32;

/// Why a delivery is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It bears no signature of the kind that its forge makes; this header is missing or holds none.
    Missing(&'static str),
    /// It was made with another secret, or for another body.
    Wrong,
}

/// Checks a delivery. GitHub, Gitea and Forgejo sign the body (docs.github.com, "Validating webhook deliveries";
/// docs.gitea.com and forgejo.org, "Webhooks"); GitLab sends the secret itself (docs.gitlab.com, "Webhooks").
pub(super) fn check(
    forge: Forge,
    headers: &HeaderMap,
    body: &[u8],
    secret: &Secret<String>,
) -> Result<(), Refused> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    match forge {
        Forge::Github => signed(&key, "X-Hub-Signature-256", header("x-hub-signature-256"), body),
        Forge::Gitea => {
            let own = header("x-forgejo-signature").or(header("x-gitea-signature"));
            signed(&key, "X-Gitea-Signature", own.or(header("x-hub-signature-256")), body)
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
        check(forge, &headers, body.as_bytes(), &Secret::new(secret.to_owned()))
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
}
