//! The session: a cookie that says who is signed in, signed so that nobody can write one for himself.

use std::time::SystemTime;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cookie::{Cookie, CookieJar, Key, SameSite};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512};

use crate::auth::User;
use crate::settings::Settings;
use crate::sign_in::Pending;

const COOKIE: &str = "assistant_session";
const LIFETIME_SECONDS: u32 = 14 * 24 * 3600;

/// What the cookie holds. Its owner can read it.
#[derive(Default, Serialize, Deserialize)]
pub struct Session {
    pub user: Option<User>,
    /// A sign-in that is under way at the provider.
    pub pending: Option<Pending>,
}

/// A session as the cookie has it.
#[derive(Serialize, Deserialize)]
struct Kept {
    session: Session,
    /// When it ends, in seconds since 1970. A browser drops the cookie by itself, and a thief does not.
    ends_at: u64,
}

/// Reads and writes sessions.
pub struct Sessions {
    key: Key,
    https_only: bool,
}

impl Sessions {
    pub fn new(settings: &Settings) -> Self {
        // A key of any length becomes one of the length that is needed.
        let key = Key::from(&Sha512::digest(settings.secret_key.as_bytes()));
        Self { key, https_only: settings.is_production }
    }

    /// Returns the session of a request; an empty one if it has none, or one that is forged or over.
    pub fn read(&self, headers: &HeaderMap) -> Session {
        let mut jar = CookieJar::new();
        let sent = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        for cookie in sent.flat_map(Cookie::split_parse).flatten() {
            jar.add_original(cookie.into_owned());
        }
        let kept = jar.signed(&self.key).get(COOKIE).and_then(|cookie| {
            let text = BASE64_URL_SAFE_NO_PAD.decode(cookie.value()).ok()?;
            serde_json::from_slice::<Kept>(&text).ok()
        });
        kept.filter(|kept| kept.ends_at > now()).map(|kept| kept.session).unwrap_or_default()
    }

    /// Returns the value of `Set-Cookie` that keeps a session.
    pub fn keep(&self, session: Session) -> String {
        let kept = Kept { session, ends_at: now() + u64::from(LIFETIME_SECONDS) };
        let text = serde_json::to_vec(&kept).unwrap_or_default();
        let mut jar = CookieJar::new();
        jar.signed_mut(&self.key).add(self.cookie(BASE64_URL_SAFE_NO_PAD.encode(text)));
        jar.get(COOKIE).map(Cookie::to_string).unwrap_or_default()
    }

    /// Returns the value of `Set-Cookie` that ends every session.
    pub fn end(&self) -> String {
        let mut cookie = self.cookie(String::new());
        cookie.make_removal();
        cookie.to_string()
    }

    fn cookie(&self, value: String) -> Cookie<'static> {
        let cookie = Cookie::build((COOKIE, value)).path("/").http_only(true).same_site(SameSite::Lax);
        let max_age = cookie::time::Duration::seconds(i64::from(LIFETIME_SECONDS));
        cookie.secure(self.https_only).max_age(max_age).build()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
