//! The systemd units of a box. Apps, edge and control plane are units of their own, so that each can be restarted while
//! the others go on.

use std::path::Path;

use crate::box_flags::BoxFlags;

/// What the units are made for.
pub(crate) struct Plan<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) data_dir: &'a Path,
    pub(crate) listen: &'a str,
    pub(crate) flags: &'a BoxFlags,
}

/// The unit whose control group holds the apps. The sandbox looks for it by this name, beside its own.
pub(crate) const APPS: &str = "trackbed-apps.service";
/// The unit of the edge.
pub(crate) const EDGE: &str = "trackbed-edge.service";
/// The unit of the control plane.
pub(crate) const SERVE: &str = "trackbed.service";

impl Plan<'_> {
    /// Returns the units by name, in the order in which they are started.
    pub(crate) fn units(&self) -> [(&'static str, String); 3] {
        [(APPS, self.apps()), (EDGE, self.edge()), (SERVE, self.serve())]
    }

    fn apps(&self) -> String {
        r"# Written by `trackbed install`. Own settings go into `systemctl edit`.
[Unit]
Description=Trackbed: the control groups of the apps

[Service]
# trackbed.service puts the apps below this control group, where no restart of it reaches them. Stopping this unit ends
# every app. What runs here only keeps the group alive, from a leaf of it: a group with limits for its children may hold
# no process itself.
Type=exec
ExecStart=/bin/sh -c 'group=/sys/fs/cgroup$$(sed -n s/^0:://p /proc/self/cgroup); if mkdir $$group/supervisor; then echo $$$$ > $$group/supervisor/cgroup.procs; fi; exec sleep infinity'
OOMScoreAdjust=-1000
Slice=trackbed.slice
Delegate=yes
TasksMax=infinity
# Longer than an app's own grace.
TimeoutStopSec=45

[Install]
WantedBy=multi-user.target
"
        .to_owned()
    }

    fn edge(&self) -> String {
        let edge = format!("{} edge {} {}", quoted(self.binary), quoted(self.data_dir), self.listen);
        format!(
            r"# Written by `trackbed install`. Own settings go into `systemctl edit`.
[Unit]
Description=Trackbed: the edge, which carries every connection
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
# A successor, which `reload` starts, says itself that it is the main process now.
NotifyAccess=all
ExecStart={edge} --take-over
ExecReload={edge} --reload
# Edges that have been replaced finish their streams here, and outlive even a crash of the newest one. On `stop` the
# newest one ends them.
KillMode=process
TimeoutStopSec=45
Restart=on-failure
RestartSec=200ms
Slice=trackbed.slice
LimitNOFILE=1048576
TasksMax=infinity
OOMPolicy=continue
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
"
        )
    }

    fn serve(&self) -> String {
        let serve = format!(
            "{} serve --data-dir {} --listen {} {} --edge-unit {EDGE}",
            quoted(self.binary),
            quoted(self.data_dir),
            self.listen,
            self.flags.words().join(" ")
        );
        format!(
            r"# Written by `trackbed install`. Own settings go into `systemctl edit`.
[Unit]
Description=Trackbed: the control plane, which builds, starts and keeps the apps
Requires={APPS}
Wants={EDGE} network-online.target
After={APPS} {EDGE} network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={serve}
# The supervisors of the apps are in this control group and go on.
KillMode=process
TimeoutStopSec=30
Restart=on-failure
RestartSec=1
Slice=trackbed.slice
TasksMax=infinity
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
"
        )
    }
}

/// Returns a path as one word of a command line in a unit (systemd.service(5)).
fn quoted(path: &Path) -> String {
    let mut word = String::from("\"");
    for letter in path.to_string_lossy().chars() {
        match letter {
            '"' | '\\' => word.extend(['\\', letter]),
            '%' => word.push_str("%%"),
            '$' => word.push_str("$$"),
            other => word.push(other),
        }
    }
    word.push('"');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_one_word() {
        assert_eq!(quoted(Path::new(r#"/a b/100%/$c/"d"\"#)), r#""/a b/100%%/$$c/\"d\"\\""#);
    }

    #[test]
    fn a_restart_of_the_control_plane_touches_neither_apps_nor_edge() {
        let flags = BoxFlags {
            domain: "apps.example.com".into(),
            trusted_proxies: vec!["10.0.0.0/8".into()],
            git_listen: Some("127.0.0.1:9000".into()),
            builds: 2,
            build_memory: Some(4 << 30),
        };
        let plan = Plan {
            binary: Path::new("/usr/local/bin/trackbed"),
            data_dir: Path::new("/var/lib/trackbed"),
            listen: "0.0.0.0:80",
            flags: &flags,
        };
        let [(_, apps), (_, edge), (_, serve)] = plan.units();
        assert!(serve.contains("KillMode=process") && edge.contains("KillMode=process"));
        assert!(apps.contains("Delegate=yes") && !serve.contains("Delegate"));
        for unit in [&apps, &edge] {
            assert!(!unit.contains("PartOf") && !unit.contains("BindsTo"), "{unit}");
        }
        assert!(
            serve.contains(
                "--domain apps.example.com --trust-proxy 10.0.0.0/8 --git-listen 127.0.0.1:9000 --builds 2 \
                 --build-memory 4294967296 --edge-unit trackbed-edge.service"
            ),
            "{serve}"
        );
    }
}
