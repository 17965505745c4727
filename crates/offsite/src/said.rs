//! What a store says when it refuses, in a person's words: what was asked of it, why it refused, and the way out.

use std::error::Error;

use object_store::Error as StoreError;

use crate::error::{OffsiteError, RemoteFault};
use crate::http::Failed;

const CREDENTIALS: &str = "check the credentials and set the target again with them: --option access_key_id=… --option secret_access_key=…, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (docs/off-the-box.md names those of other stores)";
const BUCKET: &str = "make the bucket first, or check its name, the region and the endpoint";
const REGION: &str = "check the region and the endpoint: s3://BUCKET/PREFIX?region=REGION&endpoint=URL";
const CLOCK: &str = "set the clock of this machine: a store believes only requests of the last few minutes";

/// What the codes of S3 and of what speaks like it, Google and Azure among them, come to.
const CODES: [(&str, RemoteFault, &str); 14] = [
    ("NoSuchBucket", RemoteFault::Denied, BUCKET),
    ("ContainerNotFound", RemoteFault::Denied, BUCKET),
    ("InvalidBucketName", RemoteFault::Denied, BUCKET),
    ("InvalidAccessKeyId", RemoteFault::Denied, CREDENTIALS),
    ("SignatureDoesNotMatch", RemoteFault::Denied, CREDENTIALS),
    ("AccessDenied", RemoteFault::Denied, CREDENTIALS),
    ("ExpiredToken", RemoteFault::Denied, CREDENTIALS),
    ("InvalidToken", RemoteFault::Denied, CREDENTIALS),
    ("AuthenticationFailed", RemoteFault::Denied, CREDENTIALS),
    ("AuthorizationFailure", RemoteFault::Denied, CREDENTIALS),
    ("RequestTimeTooSkewed", RemoteFault::Denied, CLOCK),
    ("PermanentRedirect", RemoteFault::Denied, REGION),
    ("AuthorizationHeaderMalformed", RemoteFault::Denied, REGION),
    ("IllegalLocationConstraintException", RemoteFault::Denied, REGION),
];

/// Tells a refusal of a store.
pub(crate) fn said(attempt: &str, error: &StoreError) -> OffsiteError {
    let (text, mut fault, mut advice) = (error.to_string(), fault_of(error), None);
    if let Some(failed) = failed(error)
        && let Some(mend) = failed.advice
    {
        (fault, advice) = (RemoteFault::Denied, Some(mend));
    }
    let code = between(&text, "<Code>", "</Code>");
    if let Some((_, known, mend)) = CODES.iter().find(|(name, ..)| code == Some(name)) {
        (fault, advice) = (*known, Some(*mend));
    } else if text.contains("incorrectly configured region") {
        (fault, advice) = (RemoteFault::Denied, Some(REGION));
    }
    OffsiteError::Remote { attempt: attempt.to_owned(), reason: plain(&text), fault, advice }
}

/// Returns what went wrong below HTTP, when it did.
fn failed(error: &StoreError) -> Option<&Failed> {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(next) = cause {
        if let Some(failed) = next.downcast_ref::<Failed>() {
            return Some(failed);
        }
        cause = next.source();
    }
    None
}

/// Leaves out how often and how long was tried, and the XML around an answer. What is not understood stays as it is.
fn plain(text: &str) -> String {
    let asked = between(text, "Error performing ", " in ");
    let answer = match (between(text, "<Code>", "</Code>"), between(text, "<Message>", "</Message>")) {
        (Some(code), Some(message)) => {
            format!("the store answers {code}: {}", message.trim().trim_end_matches('.'))
        }
        _ => match text.split_once("Error performing ").and_then(|(_, rest)| rest.split_once("- ")) {
            Some((_, rest)) => rest.trim().trim_start_matches("HTTP error: ").to_owned(),
            None => text.to_owned(),
        },
    };
    match asked {
        Some(asked) => format!("{answer} ({asked})"),
        None => answer,
    }
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(begin)?.1.split_once(end)?.0)
}

/// Sorts what a store says into kinds.
fn fault_of(error: &StoreError) -> RemoteFault {
    match error {
        StoreError::NotFound { .. } => RemoteFault::Missing,
        StoreError::AlreadyExists { .. }
        | StoreError::Precondition { .. }
        | StoreError::NotModified { .. } => RemoteFault::Taken,
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => RemoteFault::Unsupported,
        StoreError::PermissionDenied { .. }
        | StoreError::Unauthenticated { .. }
        | StoreError::UnknownConfigurationKey { .. }
        | StoreError::InvalidPath { .. } => RemoteFault::Denied,
        StoreError::Generic { .. } | StoreError::JoinError { .. } => RemoteFault::Passing,
        _ => RemoteFault::Passing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: &StoreError) -> (String, Option<RemoteFault>, String) {
        let error = said("read owner.json", error);
        (error.to_string(), error.fault(), error.hint().unwrap_or_default())
    }

    fn answer(code: &str) -> String {
        format!(
            "Error performing GET http://s3/b/owner.json in 5.2ms, after 3 retries, max_retries: 3, retry_timeout: 60s  - \
             Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>{code}</Code>\
             <Message>It is so.</Message><RequestId>X</RequestId></Error>"
        )
    }

    #[test]
    fn a_refusal_says_the_code_and_what_to_do_and_no_xml() {
        let denied =
            |code| StoreError::PermissionDenied { path: "owner.json".into(), source: answer(code).into() };
        let (text, fault, hint) = of(&denied("InvalidAccessKeyId"));
        assert_eq!(
            text,
            "cannot read owner.json: the store answers InvalidAccessKeyId: It is so (GET http://s3/b/owner.json)"
        );
        assert!(fault == Some(RemoteFault::Denied) && hint.contains("AWS_ACCESS_KEY_ID"), "{hint}");
        assert!(of(&denied("RequestTimeTooSkewed")).2.contains("clock"));
    }

    #[test]
    fn a_bucket_that_is_not_there_is_no_object_that_is_not_there() {
        let missing = |code| StoreError::NotFound { path: "owner.json".into(), source: answer(code).into() };
        assert_eq!(of(&missing("NoSuchKey")).1, Some(RemoteFault::Missing));
        let (_, fault, hint) = of(&missing("NoSuchBucket"));
        assert!(fault == Some(RemoteFault::Denied) && hint.contains("make the bucket"), "{hint}");
    }

    #[test]
    fn what_may_pass_says_no_more_than_it_knows() {
        let text = "Error performing GET http://s3/b in 1s, after 3 retries, max_retries: 3, retry_timeout: 60s  - HTTP error: \
                    client error (Connect): dns error";
        let (told, fault, hint) = of(&StoreError::Generic { store: "S3", source: text.into() });
        assert_eq!(told, "cannot read owner.json: client error (Connect): dns error (GET http://s3/b)");
        assert_eq!((fault, hint.as_str()), (Some(RemoteFault::Passing), ""));
        let (told, ..) = of(&StoreError::Generic { store: "S3", source: "status 500".into() });
        assert_eq!(told, "cannot read owner.json: Generic S3 error: status 500");
    }
}
