//! Commands inside a running container. Dropping the future kills the command.

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::StreamExt;
use trackbed_core::instance::{Exit, LogStream};
use trackbed_core::ports::{BuildLog, PortError};
use trackbed_core::{InstanceId, Secret};
use trackbed_sandbox::beside::Process;

use crate::control::{self, Ask};
use crate::daemon::{self, words};
use crate::engine::Docker;

/// Longest line; longer ones are split, as everywhere.
const LINE_LIMIT_BYTES: usize = 16 << 10;
const SIGKILL: i32 = 9;
/// How often it is asked for the number of the command's process, and for its end.
const LOOKS: u32 = 100;
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// Runs a command inside a container; see [`trackbed_core::ports::Engine::exec`].
pub(crate) async fn exec(
    docker: &Docker,
    id: &InstanceId,
    command: &[String],
    env: &[(String, Secret<String>)],
    log: &dyn BuildLog,
) -> Result<Exit, PortError> {
    let (order, ..) = docker.living(id).await?;
    let daemon = daemon::connect(&order.daemon).await?;
    let failed = |error: &bollard::errors::Error| {
        PortError::new(format!("cannot run `{}` in instance {id}: {}", command.join(" "), words(error)))
    };
    // Nothing begins in what stands still.
    let _ = control::call(&docker.socket(id), Ask::Release).await;
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.to_vec()),
        env: Some(env.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect()),
        ..Default::default()
    };
    let made = daemon.api.create_exec(&order.container(), config).await.map_err(|error| failed(&error))?;
    let started =
        daemon.api.start_exec(&made.id, None::<StartExecOptions>).await.map_err(|error| failed(&error))?;
    let StartExecResults::Attached { mut output, .. } = started else {
        return Err(PortError::new(format!(
            "{} gives no output of a command in instance {id}",
            daemon.title
        )));
    };
    let mut running = Running(None);
    let mut lines = [Lines::new(LogStream::Out), Lines::new(LogStream::Err)];
    loop {
        if running.0.is_none() {
            let seen = daemon.api.inspect_exec(&made.id).await.map_err(|error| failed(&error))?;
            let pid = seen.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
            running.0 = pid.filter(|_| seen.running == Some(true)).and_then(Process::of);
        }
        let piece = match running.0 {
            Some(_) => output.next().await,
            // It is about to have a process, or had one: looks again.
            None => tokio::time::timeout(LOOK, output.next())
                .await
                .unwrap_or(Some(Ok(LogOutput::StdOut { message: bytes::Bytes::new() }))),
        };
        match piece {
            Some(Ok(LogOutput::StdErr { message })) => lines[1].feed(&message, log),
            Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                lines[0].feed(&message, log)
            }
            Some(Ok(LogOutput::StdIn { .. })) => {}
            Some(Err(error)) => return Err(failed(&error)),
            None => break,
        }
        while log.is_full() {
            tokio::time::sleep(LOOK).await;
        }
    }
    for lines in &mut lines {
        lines.finish(log);
    }
    for _ in 0..LOOKS {
        let seen = daemon.api.inspect_exec(&made.id).await.map_err(|error| failed(&error))?;
        if let (Some(false), Some(code)) =
            (seen.running, seen.exit_code.and_then(|code| i32::try_from(code).ok()))
        {
            running.0 = None;
            return Ok(if (129..=192).contains(&code) {
                Exit::Signal { signal: code - 128 }
            } else {
                Exit::Code { code }
            });
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(PortError::new(format!(
        "{} does not say how `{}` ended in instance {id}",
        daemon.title,
        command.join(" ")
    )))
}

/// A command that runs. Engines end no command when nobody listens any more; this does.
struct Running(Option<Process>);

impl Drop for Running {
    fn drop(&mut self) {
        let Some(process) = self.0.filter(|process| process.is_alive()) else { return };
        let below = process.descendants();
        process.signal(SIGKILL);
        for (process, _) in below {
            process.signal(SIGKILL);
        }
    }
}

/// Cuts a stream of bytes into lines.
struct Lines {
    stream: LogStream,
    rest: Vec<u8>,
}

impl Lines {
    fn new(stream: LogStream) -> Lines {
        Lines { stream, rest: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8], log: &dyn BuildLog) {
        for byte in bytes {
            if *byte == b'\n' || self.rest.len() >= LINE_LIMIT_BYTES {
                self.tell(log);
            }
            if *byte != b'\n' {
                self.rest.push(*byte);
            }
        }
    }

    fn finish(&mut self, log: &dyn BuildLog) {
        if !self.rest.is_empty() {
            self.tell(log);
        }
    }

    fn tell(&mut self, log: &dyn BuildLog) {
        let line = self.rest.strip_suffix(b"\r").unwrap_or(&self.rest);
        log.line(self.stream, &String::from_utf8_lossy(line));
        self.rest.clear();
    }
}
