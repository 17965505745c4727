//! Sign-in by OpenID Connect: sending someone to the provider, and checking what he comes back with.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreIdToken, CoreJsonWebKeySet, CoreProviderMetadata,
};
use openidconnect::{
    AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet, EndpointNotSet, EndpointSet,
    Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope, TokenResponse,
};
use serde::{Deserialize, Serialize};

use crate::auth::User;
use crate::settings::{ProviderSettings, Settings};

const TIMEOUT: Duration = Duration::from_secs(10);
/// What stands for the tenant in Microsoft's metadata, when it is not known before someone signs in.
const ANY_TENANT: &str = "{tenantid}";

/// A client that knows where the provider is.
type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Why someone could not be signed in.
#[derive(Debug)]
pub enum SignInError {
    Unreachable,
    /// The provider's answer, or what the browser brought, is not as it must be.
    Failed(String),
}

/// What must be remembered while someone is at the provider. He may know it; a stranger may not.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pending {
    state: CsrfToken,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
}

/// What the provider sends back.
#[derive(Debug, Deserialize)]
pub struct Callback {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

/// One provider that is switched on.
pub struct Provider {
    pub name: &'static str,
    client_id: ClientId,
    client_secret: ClientSecret,
    issuer: String,
    http: reqwest::Client,
}

impl Provider {
    /// Makes those that are switched on. Nothing is asked of them before somebody signs in.
    pub fn of(settings: &Settings) -> Result<Vec<Self>, reqwest::Error> {
        // A redirect could lead the request anywhere, so none is followed.
        let http = reqwest::Client::builder().timeout(TIMEOUT);
        let http = http.redirect(reqwest::redirect::Policy::none()).build()?;
        let issuer = |provider: &ProviderSettings| match provider.name {
            "google" => "https://accounts.google.com".to_owned(),
            _ => format!("https://login.microsoftonline.com/{}/v2.0", settings.microsoft_tenant),
        };
        let providers = settings.providers.iter();
        Ok(providers.map(|provider| Self::new(provider, issuer(provider), http.clone())).collect())
    }

    pub fn new(provider: &ProviderSettings, issuer: String, http: reqwest::Client) -> Self {
        Self {
            name: provider.name,
            client_id: ClientId::new(provider.client_id.clone()),
            client_secret: ClientSecret::new(provider.client_secret.clone()),
            issuer,
            http,
        }
    }

    /// Returns the address to send someone to, and what to remember until he comes back to `callback_url`.
    pub async fn begin(&self, callback_url: &str) -> Result<(String, Pending), SignInError> {
        let client = self.client(self.discover().await?, callback_url)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let (url, state, nonce) = client
            .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
            .add_scopes(["email", "profile"].map(|scope| Scope::new(scope.to_owned())))
            .set_pkce_challenge(challenge)
            .url();
        Ok((url.into(), Pending { state, nonce, verifier }))
    }

    /// Exchanges the code for an identity and checks it.
    pub async fn finish(
        &self,
        callback_url: &str,
        pending: Option<Pending>,
        callback: Callback,
    ) -> Result<User, SignInError> {
        let pending = pending.filter(|pending| Some(pending.state.secret()) == callback.state.as_ref());
        let pending = pending.ok_or_else(|| failed("it was not begun in this browser; begin again"))?;
        if let Some(error) = callback.error {
            return Err(failed(error));
        }
        let code = callback.code.ok_or_else(|| failed("the provider sent no code"))?;
        let metadata = self.discover().await?;
        let issuer = metadata.issuer().as_str().to_owned();
        let client = self.client(metadata, callback_url)?;
        let request = client.exchange_code(AuthorizationCode::new(code)).map_err(failed)?;
        let token = request.set_pkce_verifier(pending.verifier).request_async(&self.http).await;
        let token = token.map_err(|error| match error {
            RequestTokenError::Request(_) => SignInError::Unreachable,
            other => failed(other),
        })?;
        let identity = token.id_token().ok_or_else(|| failed(format!("{} sent no identity", self.name)))?;
        let any_tenant = issuer.contains(ANY_TENANT);
        let verifier = client.id_token_verifier().require_issuer_match(!any_tenant);
        let claims = identity.claims(&verifier, &pending.nonce).map_err(failed)?;
        if any_tenant && claims.issuer().as_str() != issuer.replace(ANY_TENANT, &tenant_of(identity)) {
            return Err(failed("the identity is of another issuer"));
        }
        let email = claims.email().map(|email| email.as_str().to_owned()).unwrap_or_default();
        let name = claims.name().and_then(|name| name.get(None)).map(|name| name.as_str().to_owned());
        Ok(User {
            id: format!("{}:{}", self.name, claims.subject().as_str()),
            name: name.unwrap_or_else(|| email.clone()),
            email,
        })
    }

    /// Asks the provider where its doors are and which keys it signs with.
    async fn discover(&self) -> Result<CoreProviderMetadata, SignInError> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer);
        let answer = self.http.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|_| SignInError::Unreachable)?;
        let metadata: CoreProviderMetadata = answer.json().await.map_err(failed)?;
        let keys = CoreJsonWebKeySet::fetch_async(metadata.jwks_uri(), &self.http).await;
        Ok(metadata.set_jwks(keys.map_err(|_| SignInError::Unreachable)?))
    }

    fn client(&self, metadata: CoreProviderMetadata, callback_url: &str) -> Result<Client, SignInError> {
        let secret = Some(self.client_secret.clone());
        let client = CoreClient::from_provider_metadata(metadata, self.client_id.clone(), secret);
        Ok(client.set_redirect_uri(RedirectUrl::new(callback_url.to_owned()).map_err(failed)?))
    }
}

fn failed(reason: impl std::fmt::Display) -> SignInError {
    SignInError::Failed(reason.to_string())
}

/// Returns the tenant that a token names. Its signature has been checked before.
fn tenant_of(token: &CoreIdToken) -> String {
    let text = token.to_string();
    let claims = text.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice::<serde_json::Value>(&claims).ok());
    claims.and_then(|claims| claims["tid"].as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
#[path = "sign_in_tests.rs"]
mod tests;
