//! From an order to a container: what it sees, what it may, and what it may use.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding,
    RestartPolicy, RestartPolicyNameEnum,
};
use trackbed_core::instance::InstanceKind;

use crate::records::Order;

/// The label that names the box, on everything that this box has in an engine.
pub(crate) const BOX_LABEL: &str = "dev.trackbed.box";
/// The label that names the instance.
pub(crate) const INSTANCE_LABEL: &str = "dev.trackbed.instance";

/// What an image may need to set itself up as root, write to its volume and become another user; nothing that reaches
/// beyond the container (no raw sockets, no device nodes, no new root directory, no capabilities on files).
const CAPABILITIES: [&str; 8] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];
/// What the engine itself keeps of the output: the keeper reads it as it comes and keeps the log.
const LOG_FILE_SIZE: &str = "10m";
/// Log files of the engine.
const LOG_FILES: &str = "2";
/// A build or a job must be the first to go when memory is short, never an app.
const JOB_OOM_SCORE: i64 = 500;

/// Returns what the engine is asked for.
pub(crate) fn body(order: &Order) -> ContainerCreateBody {
    let own_command = !order.command.is_empty();
    ContainerCreateBody {
        image: Some(order.image.id.clone()),
        env: Some(order.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        entrypoint: own_command.then(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]),
        cmd: own_command.then(|| vec![order.command.clone()]),
        labels: Some(labels(order)),
        // Trackbed looks after health; a second opinion would only cost.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        exposed_ports: published(order).map(|port| vec![port]),
        host_config: Some(host(order)),
        ..Default::default()
    }
}

/// Returns the port as the engine names it, when it is published.
pub(crate) fn published(order: &Order) -> Option<String> {
    order.port.filter(|_| order.published).map(|port| format!("{port}/tcp"))
}

fn labels(order: &Order) -> HashMap<String, String> {
    HashMap::from([
        (BOX_LABEL.to_owned(), order.tag.clone()),
        (INSTANCE_LABEL.to_owned(), order.id.to_string()),
        ("dev.trackbed.title".to_owned(), order.title.clone()),
    ])
}

fn host(order: &Order) -> HostConfig {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let memory = order.limits.memory_bytes.map(bytes);
    let loopback = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) };
    HostConfig {
        memory,
        // As much as memory alone: a limit that swap goes beyond is none.
        memory_swap: memory,
        nano_cpus: order.limits.cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
        pids_limit: order.limits.pids.map(i64::from),
        init: Some(true),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        oom_score_adj: (order.kind == InstanceKind::Job).then_some(JOB_OOM_SCORE),
        mounts: Some(mounts(order)),
        network_mode: Some(order.network.clone().unwrap_or_else(|| "none".to_owned())),
        port_bindings: published(order).map(|port| HashMap::from([(port, Some(vec![loopback]))])),
        // Whether it is started again is for the control plane to say.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), ..Default::default() }),
        auto_remove: Some(false),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_FILE_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_FILES.to_owned()),
            ])),
        }),
        ..Default::default()
    }
}

fn mounts(order: &Order) -> Vec<Mount> {
    let mount = |source: &str, target: &str, read_only: bool| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Default::default()
    };
    let links = (0..).map(|number| order.link(number).to_string_lossy().into_owned());
    let volumes = order.volumes.iter().zip(links);
    let volumes = volumes.map(|(volume, link)| mount(&link, volume.mount.as_str(), false));
    let binds = order.binds.iter().map(|bind| mount(&bind.host_path, &bind.inside, !bind.writable));
    volumes.chain(binds).collect()
}
