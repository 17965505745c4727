//! The health probe of a folder: what a request would be answered, without a connection.

use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use trackbed_core::ports::Probe;

use super::Site;
use super::find::{Found, Opened, Reach, Sought};
use super::path::Path;
use crate::limits::PROBE_QUOTE_BYTES_MAX;

/// Looks once, within a limit. Without a path it is enough that the folder is there.
pub(crate) async fn probe(site: io::Result<Site>, path: Option<&str>, limit: Duration) -> Probe {
    let path = path.map(str::to_owned);
    let looked = tokio::task::spawn_blocking(move || look(&site?, path.as_deref()));
    match tokio::time::timeout(limit, looked).await {
        Ok(Ok(Ok(probe))) => probe,
        Ok(Ok(Err(error))) => Probe::Broken { detail: format!("the files cannot be read: {error}") },
        Ok(Err(error)) => Probe::Broken { detail: format!("the look at the files failed: {error}") },
        Err(_) => {
            Probe::Broken { detail: format!("the disk did not answer within {} ms", limit.as_millis()) }
        }
    }
}

fn look(site: &Site, path: Option<&str>) -> io::Result<Probe> {
    let answered = |status, detail| Ok(Probe::Answered { status, detail });
    let Some(path) = path else {
        site.root()?;
        return answered(200, String::new());
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let sought = Sought { path: Path::read(path.as_bytes()), ..Sought::default() };
    match site.find(&sought, Reach::Disk)? {
        Found::File(opened) => answered(200, quote(&opened)?),
        Found::Health => answered(200, String::new()),
        Found::Folder(link) => answered(301, link),
        Found::MissingPage(_) | Found::Missing => answered(404, format!("there is no file for {path}")),
    }
}

fn quote(opened: &Opened) -> io::Result<String> {
    let mut bytes = [0; PROBE_QUOTE_BYTES_MAX];
    let count = opened.file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).trim().to_owned())
}
