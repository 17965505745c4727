//! Sign-in against a provider of the test's own, which signs what the test tells it to.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use openidconnect::PrivateSigningKey;
use openidconnect::core::{CoreEdDsaPrivateSigningKey, CoreJwsSigningAlgorithm};
use serde_json::{Value, json};

use super::{ANY_TENANT, Callback, Pending, Provider, SignInError};
use crate::auth::User;
use crate::settings::ProviderSettings;

const BACK: &str = "http://assistant.test/auth/google/callback";

/// A provider that listens, and the claims of the identity that it gives next.
struct FakeProvider {
    url: String,
    claims: Arc<Mutex<Value>>,
}

impl FakeProvider {
    /// `issuer` is what it calls itself in its metadata; `{url}` stands for where it listens.
    async fn start(issuer: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let claims = Arc::new(Mutex::new(Value::Null));
        let metadata = json!({
            "issuer": issuer.replace("{url}", &url),
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "jwks_uri": format!("{url}/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
        });
        let keys = json!({"keys": [key().as_verification_key()]});
        let told = Arc::clone(&claims);
        let token = move || async move {
            let identity = signed(&told.lock().unwrap());
            Json(json!({"access_token": "a", "token_type": "Bearer", "id_token": identity}))
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { Json(metadata) }))
            .route("/keys", get(move || async move { Json(keys) }))
            .route("/token", post(token));
        tokio_util::task::TaskTracker::new().spawn(axum::serve(listener, router).into_future());
        Self { url, claims }
    }

    fn client(&self) -> Provider {
        let settings = ProviderSettings {
            name: "google",
            client_id: "an-id".to_owned(),
            client_secret: "a-secret".to_owned(),
        };
        Provider::new(&settings, self.url.clone(), reqwest::Client::new())
    }

    /// What is true of someone who signs in properly.
    fn claims(&self, pending: &Pending) -> Value {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        json!({
            "iss": self.url, "aud": "an-id", "sub": "42", "iat": now, "exp": now + 600,
            "nonce": pending.nonce.secret(), "name": "Ada", "email": "ada@example.com",
        })
    }

    /// Signs someone in of whom the provider says what is true, but for one claim.
    async fn sign_in(&self, claim: &str, value: Value) -> Result<User, SignInError> {
        let client = self.client();
        let (_, pending) = client.begin(BACK).await?;
        let mut claims = self.claims(&pending);
        claims[claim] = value;
        *self.claims.lock().unwrap() = claims;
        let callback = back_with(pending.state.secret());
        client.finish(BACK, Some(pending), callback).await
    }
}

fn back_with(state: &str) -> Callback {
    Callback { code: Some("a-code".to_owned()), state: Some(state.to_owned()), error: None }
}

/// A key for tests alone: PKCS #8 (RFC 8410) around 32 equal bytes.
fn key() -> CoreEdDsaPrivateSigningKey {
    let mut der =
        vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    der.extend([7; 32]);
    let label = "PRIVATE KEY";
    let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der));
    CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, None).unwrap()
}

fn signed(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({"alg": "EdDSA"})), part(claims));
    let signature = key().sign(&CoreJwsSigningAlgorithm::EdDsa, text.as_bytes()).unwrap();
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn is_refused(outcome: &Result<User, SignInError>) -> bool {
    matches!(outcome, Err(SignInError::Failed(_)))
}

#[tokio::test]
async fn someone_comes_back_as_who_the_provider_says() {
    let fake = FakeProvider::start("{url}").await;
    let user = fake.sign_in("name", json!("Ada")).await.unwrap();
    assert_eq!((user.id.as_str(), user.name.as_str()), ("google:42", "Ada"));
    assert_eq!(user.email, "ada@example.com");
}

#[tokio::test]
async fn the_address_to_go_to_asks_for_a_code_with_a_challenge() {
    let fake = FakeProvider::start("{url}").await;
    let (url, _) = fake.client().begin(BACK).await.unwrap();
    assert!(url.starts_with(&format!("{}/authorize?", fake.url)), "{url}");
    for part in ["response_type=code", "code_challenge_method=S256", "scope=openid+email+profile", "nonce="] {
        assert!(url.contains(part), "{part} is not in {url}");
    }
}

#[tokio::test]
async fn identities_of_others_are_refused() {
    let fake = FakeProvider::start("{url}").await;
    for (claim, value) in [
        ("nonce", json!("of another sign-in")),
        ("aud", json!("another-app")),
        ("iss", json!("http://elsewhere.test")),
        ("exp", json!(1)),
    ] {
        assert!(is_refused(&fake.sign_in(claim, value).await), "{claim}");
    }
}

#[tokio::test]
async fn a_sign_in_that_was_not_begun_here_is_refused() {
    let fake = FakeProvider::start("{url}").await;
    let client = fake.client();
    let (_, pending) = client.begin(BACK).await.unwrap();
    assert!(is_refused(&client.finish(BACK, Some(pending), back_with("forged")).await));
    assert!(is_refused(&client.finish(BACK, None, back_with("forged")).await));
}

#[tokio::test]
async fn any_tenant_of_microsoft_may_come_but_not_in_the_name_of_another() {
    let fake = FakeProvider::start(&format!("http://login.test/{ANY_TENANT}/v2.0")).await;
    let come = async |tid: &str| {
        let client = fake.client();
        let (_, pending) = client.begin(BACK).await.unwrap();
        let mut claims = fake.claims(&pending);
        claims["iss"] = json!("http://login.test/ours/v2.0");
        claims["tid"] = json!(tid);
        *fake.claims.lock().unwrap() = claims;
        let callback = back_with(pending.state.secret());
        client.finish(BACK, Some(pending), callback).await
    };
    assert!(come("ours").await.is_ok());
    assert!(is_refused(&come("theirs").await));
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let gone = FakeProvider { url, claims: Arc::default() };
    assert!(matches!(gone.client().begin(BACK).await, Err(SignInError::Unreachable)));
}
