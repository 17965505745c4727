//! What a box is told when it starts, whether by hand (`serve`) or by systemd (`install`).

use crate::args::{parse_address, parse_build_memory, parse_domain, parse_network};

/// The flags that both have.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BoxFlags {
    /// Root domain: a service answers at <service>.<ROOT>
    #[arg(long, value_name = "ROOT", default_value = "localhost", value_parser = parse_domain)]
    pub(crate) domain: String,
    /// A proxy in front of the box, such as 10.0.0.0/8: its X-Forwarded-… are believed (may be given several times)
    #[arg(long = "trust-proxy", value_name = "NETWORK", value_parser = parse_network)]
    pub(crate) trusted_proxies: Vec<String>,
    /// Address that `git push` reaches [default: 127.0.0.1:8079 or a free port, from the first `trackbed git connect` on]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(crate) git_listen: Option<String>,
    /// How many builds may run at once; others wait for their turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) builds: u8,
    /// Most memory of one build, such as 4GB [default: half of the box, shared by the builds at once, at least 2 GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_build_memory)]
    pub(crate) build_memory: Option<u64>,
}

impl BoxFlags {
    /// Returns the flags as they are typed, without those that say what goes without saying. None of them needs quotes.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![format!("--domain {}", self.domain)];
        words.extend(self.trusted_proxies.iter().map(|network| format!("--trust-proxy {network}")));
        words.extend(self.git_listen.iter().map(|address| format!("--git-listen {address}")));
        words.extend((self.builds != 1).then(|| format!("--builds {}", self.builds)));
        words.extend(self.build_memory.map(|bytes| format!("--build-memory {bytes}")));
        words
    }
}
