//! An edge by itself, for benchmarks: `edge-standalone LISTEN STATE_DIR WORKERS HOST=ADDRESS…`.

use std::error::Error;

use trackbed_core::ports::Edge;
use trackbed_core::route::{Address, Route, RouteTable, Target, UpstreamState};
use trackbed_core::{InstanceId, ServiceId};
use trackbed_edge::{Config, EdgeClient};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: edge-standalone LISTEN STATE_DIR WORKERS HOST=ADDRESS…");
    let (listen, state_dir, workers) = (next()?.parse()?, next()?, next()?.parse()?);
    let mut table = RouteTable { sequence: 1, ..RouteTable::default() };
    for (number, pair) in args.enumerate() {
        let (host, address) = pair.split_once('=').ok_or("HOST=ADDRESS")?;
        let number = u8::try_from(number)?;
        let target =
            Target { instance: InstanceId::from_random([number; 10]), address: Address(address.into()) };
        let route = Route {
            service: ServiceId::from_random([number; 10]),
            name: host.into(),
            upstream: UpstreamState::Serving { target },
        };
        table.routes.insert(host.parse()?, route);
    }
    let control_socket = std::path::Path::new(&state_dir).join("control.sock");
    std::fs::create_dir_all(&state_dir)?;
    let client = EdgeClient::new(&control_socket);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            while client.apply(&table).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        Ok::<(), std::io::Error>(())
    });
    trackbed_edge::run(&Config {
        listen,
        control_socket,
        state_dir: state_dir.into(),
        workers,
        connections_per_source: 0,
    })?;
    Ok(())
}
