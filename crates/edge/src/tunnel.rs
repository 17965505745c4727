//! What follows `101 Switching Protocols`: bytes both ways until both sides are done, or the target is cut.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};

use crate::client_io::Watch;
use crate::limits::TUNNEL_BUFFER_BYTES;
use crate::open_request::OpenRequest;
use crate::upstream::Upstream;

/// Joins the two sides. A side that has finished sending may still receive. Has no time limit of its own: a WebSocket
/// may be quiet for hours. The client's place among the connections is kept by `_watch`.
pub(crate) async fn run(
    on_client: OnUpgrade,
    upstream: Box<Upstream>,
    open: OpenRequest,
    _watch: Arc<Watch>,
) {
    let link = Arc::clone(upstream.link());
    let joined = async {
        let (client, (mut target, greeting)) = tokio::join!(on_client, upstream.into_switched());
        let Ok(client) = client else { return };
        let mut client = TokioIo::new(client);
        if client.write_all(&greeting).await.is_err() {
            return;
        }
        // An error is a side that left without a goodbye; there is nobody to tell.
        let _ =
            copy_bidirectional_with_sizes(&mut client, &mut target, TUNNEL_BUFFER_BYTES, TUNNEL_BUFFER_BYTES)
                .await;
    };
    tokio::select! {
        () = joined => {}
        () = link.wait_cut() => {}
    }
    open.complete();
}
