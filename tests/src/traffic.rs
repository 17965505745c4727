//! Clients that go on sending short requests beside a test, and remember every one that failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::http;

/// What a client saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests sent.
    pub sent: usize,
    /// Everything but the status and body that were expected.
    pub failures: Vec<String>,
    /// Bodies that the server has acknowledged, in order.
    pub acknowledged: Vec<String>,
}

/// Clients at work.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Traffic {
    /// Asks for `/version` again and again.
    pub fn get(port: u16, service: &str, clients: usize, pause: Duration) -> Traffic {
        let host = format!("{service}.localhost:{port}");
        Self::start(clients, pause, move |_, _, tally| match http::get(port, &host, "/version") {
            Ok(response) if response.status == 200 => {}
            other => tally.failures.push(format!("GET /version: {other:?}")),
        })
    }

    /// Sends bodies and checks how much of each arrived, and reads in between.
    pub fn bodies(port: u16, service: &str, clients: usize, pause: Duration) -> Traffic {
        let host = format!("{service}.localhost:{port}");
        Self::start(clients, pause, move |_, number, tally| {
            let length = 1 + number * 7919 % 60_000;
            let (method, path, body) = match number % 2 {
                0 => ("POST", "/length", "b".repeat(length)),
                _ => ("GET", "/version", String::new()),
            };
            match http::request(port, &host, method, path, &body) {
                Ok(response)
                    if response.status == 200 && (number % 2 == 1 || response.body == length.to_string()) => {
                }
                other => tally.failures.push(format!("{method} {path} with {} bytes: {other:?}", body.len())),
            }
        })
    }

    /// Sends notes, each with a text of its own, and remembers which were acknowledged.
    pub fn notes(port: u16, service: &str, clients: usize, pause: Duration) -> Traffic {
        let host = format!("{service}.localhost:{port}");
        Self::start(clients, pause, move |client, number, tally| {
            let note = format!("note {client}.{number}");
            match http::request(port, &host, "POST", "/notes", &note) {
                Ok(response) if response.status == 201 => tally.acknowledged.push(note),
                other => tally.failures.push(format!("POST /notes {note}: {other:?}")),
            }
        })
    }

    fn start(
        clients: usize,
        pause: Duration,
        send: impl Fn(usize, usize, &mut Tally) + Clone + Send + 'static,
    ) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |client| {
            let (stop, send) = (stop.clone(), send.clone());
            std::thread::spawn(move || {
                let mut tally = Tally::default();
                while !stop.load(Ordering::SeqCst) {
                    send(client, tally.sent, &mut tally);
                    tally.sent += 1;
                    std::thread::sleep(pause);
                }
                tally
            })
        };
        let clients = (0..clients).map(client).collect();
        Traffic { stop, clients }
    }

    /// Lets the last requests finish and returns what all clients saw.
    pub fn end(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let mut whole = Tally::default();
        for client in self.clients {
            let tally = client.join().expect("a client does not panic");
            whole.sent += tally.sent;
            whole.failures.extend(tally.failures);
            whole.acknowledged.extend(tally.acknowledged);
        }
        whole
    }
}
