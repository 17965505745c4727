//! Ways into the readers of this crate for inputs that a machine makes up. Nothing that runs calls them.

use std::net::{IpAddr, Ipv4Addr};

use crate::body::Body;
use crate::events::Events;
use crate::frames::Frames;
use crate::pages::Fault;
use crate::request::{ClientFacts, read_request};
use crate::response::{Asked, read_response};

/// Reads a request's head as a client's and its body behind it. What is written for the app must be one whole head that
/// says the same about its body.
///
/// # Panics
/// When it is not.
pub fn request(bytes: &[u8]) {
    let facts = ClientFacts { peer: IpAddr::V4(Ipv4Addr::LOCALHOST), peer_text: "127.0.0.1", trusted: &[] };
    let (mut written, mut again) = (Vec::new(), Vec::new());
    let Ok(Some(request)) = read_request(bytes, &facts, || 7, &mut written) else { return };
    match read_request(&written, &facts, || 7, &mut again) {
        Ok(Some(second)) => {
            assert_eq!(second.head_bytes, written.len(), "{}", written.escape_ascii());
            assert_eq!(kind(&second.body), kind(&request.body), "{}", written.escape_ascii());
        }
        // The edge says more about a client than it was told.
        Err(refusal) if matches!(refusal.fault, Fault::HeadTooLarge) => {}
        other => panic!("{other:?} is read of {}", written.escape_ascii()),
    }
    body(request.body, &bytes[request.head_bytes..]);
}

/// Reads an answer's head as an app's and its body behind it. What is written for the client must be one whole head.
///
/// # Panics
/// When it is not.
pub fn response(bytes: &[u8]) {
    for (is_head, is_http10, wants_upgrade) in
        [(false, false, false), (true, false, false), (false, true, false), (false, false, true)]
    {
        let asked = Asked { is_head, is_http10, keeps_alive: true, wants_upgrade, id: b"7" };
        let (mut written, mut again) = (Vec::new(), Vec::new());
        let Ok(Some(response)) = read_response(bytes, &asked, &mut written) else { continue };
        if let Ok(second) = read_response(&written, &asked, &mut again) {
            let second = second.unwrap_or_else(|| panic!("not whole: {}", written.escape_ascii()));
            assert_eq!(second.head_bytes, written.len(), "{}", written.escape_ascii());
        }
        body(response.body, &bytes[response.head_bytes..]);
    }
    Events::default().feed(bytes);
    Frames::default().feed(bytes);
}

/// Reads a body in one piece and byte by byte: both must see the same content and the same end.
fn body(body: Body, bytes: &[u8]) {
    let (mut whole, mut parts) = (body.clone(), body);
    let (mut seen, mut count) = (Vec::new(), 0);
    let taken = whole.take(bytes, |content| seen.extend_from_slice(content)).map(|taken| taken.count);
    let mut seen_by_bytes = Vec::new();
    let by_bytes = bytes.iter().try_for_each(|byte| {
        let taken = parts.take(&[*byte], |content| seen_by_bytes.extend_from_slice(content))?;
        count += taken.count;
        Ok::<(), crate::chunks::BadChunk>(())
    });
    assert_eq!(taken.is_err(), by_bytes.is_err(), "{}", bytes.escape_ascii());
    if let Ok(taken) = taken {
        assert_eq!((taken, seen), (count, seen_by_bytes), "{}", bytes.escape_ascii());
    }
}

fn kind(body: &Body) -> Option<u64> {
    match body {
        Body::Length(length) => Some(*length),
        Body::Chunked(_) | Body::UntilClose => None,
    }
}
