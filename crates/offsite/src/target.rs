//! From the address of a target to its object store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use trackbed_core::Secret;
use trackbed_core::offsite::OffsiteTarget;
use url::Url;

use crate::error::OffsiteError;
use crate::http::Connector;

/// Where within the data directory what belongs to the copies is kept.
pub(crate) const FOLDER: &str = "offsite";

/// Whether the directory of a `file://` target may be made. Only when it is set: later a missing one is most likely a disk
/// that is not mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folder {
    MayBeMade,
    MustExist,
}

/// Opens the store of a target; nothing is asked of it yet.
///
/// # Errors
/// When the address is none, or a setting is unknown.
pub(crate) fn open(
    target: &OffsiteTarget,
    data_dir: &Path,
    folder: Folder,
) -> Result<Arc<dyn ObjectStore>, OffsiteError> {
    let parsed = Url::parse(&target.url).map_err(|error| unusable(&target.url, &error.to_string()))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(unusable(
            "the address",
            "it must hold no credentials: give them by --option or the environment",
        ));
    }
    let prefix = parsed.path().trim_matches('/').to_owned();
    let query = parsed.query_pairs().map(|(key, value)| (key.into_owned(), Secret::new(value.into_owned())));
    let options: Vec<(String, Secret<String>)> = query.chain(target.options.iter().cloned()).collect();
    match parsed.scheme() {
        "file" => directory(&parsed, data_dir, folder),
        "s3" => Ok(within(s3(&parsed, &options)?, prefix)),
        "gs" => Ok(within(gcs(&parsed, &options)?, prefix)),
        "az" => Ok(within(azure(&parsed, &options)?, prefix)),
        other => Err(unusable(&target.url, &format!("`{other}` is no kind of target"))),
    }
}

fn unusable(address: &str, why: &str) -> OffsiteError {
    OffsiteError::refused(
        format!("cannot use {address} as a target: {why}"),
        "s3://BUCKET/PREFIX?region=REGION&endpoint=URL, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///PATH is wanted",
    )
}

fn within<S: ObjectStore>(store: S, prefix: String) -> Arc<dyn ObjectStore> {
    if prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) }
}

fn directory(parsed: &Url, data_dir: &Path, folder: Folder) -> Result<Arc<dyn ObjectStore>, OffsiteError> {
    let shown = parsed.as_str();
    let path: PathBuf =
        parsed.to_file_path().map_err(|()| unusable(shown, "it is not the path of a directory here"))?;
    let inside = |path: &Path| path.starts_with(data_dir);
    if inside(&path) || path.canonicalize().is_ok_and(|path| inside(&path)) {
        return Err(unusable(shown, "it lies in the data directory that it is to be a copy of"));
    }
    match folder {
        Folder::MayBeMade => {
            std::fs::create_dir_all(&path).map_err(OffsiteError::disk(format!("make {}", path.display())))?;
        }
        Folder::MustExist if path.is_dir() => {}
        Folder::MustExist => return Err(unusable(shown, "there is no such directory; is its disk mounted?")),
    }
    let store =
        LocalFileSystem::new_with_prefix(&path).map_err(|error| unusable(shown, &error.to_string()))?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// Requests are repeated by [`crate::remote`], which knows what they are for; only parts of a large object, which it
/// cannot repeat, get a few tries here.
fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: 3,
        retry_timeout: std::time::Duration::from_secs(60),
        ..RetryConfig::default()
    }
}

fn bucket(parsed: &Url) -> Result<&str, OffsiteError> {
    parsed
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| unusable(parsed.as_str(), "it names no bucket"))
}

fn is_plain_http(options: &[(String, Secret<String>)]) -> bool {
    options
        .iter()
        .any(|(key, value)| key.to_lowercase().contains("endpoint") && value.expose().starts_with("http://"))
}

fn s3(parsed: &Url, options: &[(String, Secret<String>)]) -> Result<impl ObjectStore, OffsiteError> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket(parsed)?)
        .with_http_connector(Connector)
        .with_retry(retries())
        .with_allow_http(is_plain_http(options));
    for (key, value) in options {
        let known: AmazonS3ConfigKey = key.to_lowercase().parse().map_err(|_| unknown(key, "s3"))?;
        builder = builder.with_config(known, value.expose());
    }
    builder.build().map_err(|error| unusable(parsed.as_str(), &error.to_string()))
}

fn gcs(parsed: &Url, options: &[(String, Secret<String>)]) -> Result<impl ObjectStore, OffsiteError> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket(parsed)?)
        .with_http_connector(Connector)
        .with_retry(retries());
    for (key, value) in options {
        let known: GoogleConfigKey = key.to_lowercase().parse().map_err(|_| unknown(key, "gs"))?;
        builder = builder.with_config(known, value.expose());
    }
    builder.build().map_err(|error| unusable(parsed.as_str(), &error.to_string()))
}

fn azure(parsed: &Url, options: &[(String, Secret<String>)]) -> Result<impl ObjectStore, OffsiteError> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(bucket(parsed)?)
        .with_http_connector(Connector)
        .with_retry(retries())
        .with_allow_http(is_plain_http(options));
    for (key, value) in options {
        let known: AzureConfigKey = key.to_lowercase().parse().map_err(|_| unknown(key, "az"))?;
        builder = builder.with_config(known, value.expose());
    }
    builder.build().map_err(|error| unusable(parsed.as_str(), &error.to_string()))
}

fn unknown(key: &str, kind: &str) -> OffsiteError {
    OffsiteError::refused(
        format!("`{key}` is no setting of {kind} targets"),
        "for s3: region, endpoint, access_key_id, secret_access_key, session_token; for gs: service_account_key; for az: account_name, account_key",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(url: &str, options: &[(&str, &str)]) -> Result<String, String> {
        let options = options.iter().map(|(key, value)| ((*key).into(), Secret::new((*value).into())));
        let target = OffsiteTarget {
            url: url.into(),
            options: options.collect(),
            identity: Secret::default(),
            bandwidth_bytes: None,
        };
        open(&target, Path::new("/data/box"), Folder::MustExist)
            .map(|store| store.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_names_its_store() {
        let keys = [("access_key_id", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        assert!(opened("s3://bucket/box?region=eu-central-1", &keys).unwrap().contains("box"));
        assert!(opened("s3://bucket?endpoint=http://127.0.0.1:1&region=x", &keys).is_ok());
        assert!(opened("az://container/x", &[("account_name", "a"), ("account_key", "YQ==")]).is_ok());
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        for (url, says) in [
            ("ftp://x/y", "`ftp` is no kind of target"),
            ("s3:///prefix", "bucket"),
            ("bucket/prefix", "cannot use bucket/prefix"),
            ("file:///data/box/copies", "lies in the data directory"),
        ] {
            let error = opened(url, &[]).unwrap_err();
            assert!(error.contains(says), "{url}: {error}");
        }
        let error = opened("s3://bucket/x", &[("acces_key", "hunter2")]).unwrap_err();
        assert!(error.contains("`acces_key`") && !error.contains("hunter2"), "{error}");
        let error = opened("s3://user:hunter2@bucket/x", &[]).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
