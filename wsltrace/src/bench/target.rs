//! What is measured: names and the addresses behind them.

use std::net::SocketAddr;
use std::str::FromStr;

/// A way to a server, with the name that it has in the table: `NAME=HOST:PORT`, or `HOST:PORT` for one that is called so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// An address or a name; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err(format!(
                "`{}` is a URL: leave out http:// and the path, as in direct=172.28.20.5:8080",
                text.escape_debug()
            ));
        }
        let bad = || format!("`{}` is no target: name one such as direct=172.28.20.5:8080", text.escape_debug());
        let (name, end) = text.split_once('=').unwrap_or((text, text));
        let (host, port) = end.rsplit_once(':').ok_or_else(bad)?;
        let host = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']').ok_or_else(bad)?,
            // Whether its last part is a port cannot be known.
            None if host.contains(':') => return Err(format!("write IPv6 addresses in brackets: [{host}]:{port}")),
            None => host,
        };
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        if name.is_empty() || host.is_empty() {
            return Err(bad());
        }
        Ok(Self { name: name.to_owned(), host: host.to_owned(), port })
    }
}

/// A target that was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its name.
    pub name: String,
    /// What to put into the `Host` field of a request.
    pub host: String,
    /// Where it is.
    pub address: SocketAddr,
}

/// Looks up names; an error names the target. The first address of a name is the one that is measured.
pub async fn resolve(targets: &[Target]) -> Result<Vec<Resolved>, String> {
    let mut resolved: Vec<Resolved> = Vec::with_capacity(targets.len());
    for target in targets {
        if resolved.iter().any(|other| other.name == target.name) {
            return Err(format!("two targets are called {}: give one another name, as in NAME=HOST:PORT", target.name));
        }
        let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
        let address = found
            .map_err(|error| format!("cannot find {} of target {}: {error}", target.host, target.name))?
            .next()
            .ok_or_else(|| format!("{} of target {} has no address", target.host, target.name))?;
        // ::ffff:127.0.0.1 is 127.0.0.1 by another system call.
        let end = |address: SocketAddr| (address.ip().to_canonical(), address.port());
        if let Some(other) = resolved.iter().find(|other| end(other.address) == end(address)) {
            return Err(format!("targets {} and {} are the same: {address}", other.name, target.name));
        }
        // Which interface leads to a link-local address is this machine's own affair (RFC 6874, 4).
        let host = target.host.split('%').next().unwrap_or_default();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        resolved.push(Resolved { name: target.name.clone(), host: format!("{host}:{}", target.port), address });
    }
    Ok(resolved)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn targets_are_names_and_ends() {
        let target = |text: &str| text.parse::<Target>().map(|target| (target.name, target.host, target.port));
        let own = str::to_owned;
        assert_eq!(target("direct=10.0.0.1:80").unwrap(), (own("direct"), own("10.0.0.1"), 80));
        assert_eq!(target("v6=[::1]:8080").unwrap(), (own("v6"), own("::1"), 8080));
        assert_eq!(target("localhost:8080").unwrap(), (own("localhost:8080"), own("localhost"), 8080));
        for text in ["", "a", "a=b", "a=b:0", "a=b:70000", "=b:80", "a=:80", "a=::1:80", "a=[::1:80"] {
            assert!(target(text).is_err(), "{text}");
        }
        for text in ["http://127.0.0.1:8080/", "own=http://[::1]:8080"] {
            assert!(target(text).unwrap_err().contains("leave out http://"), "{text}");
        }
    }

    #[tokio::test]
    async fn the_same_target_twice_is_refused() {
        let resolve = async |texts: &[&str]| resolve(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>()).await;
        assert!(resolve(&["a=127.0.0.1:80", "a=127.0.0.1:81"]).await.unwrap_err().contains("two targets are called a"));
        assert!(resolve(&["a=127.0.0.1:80", "b=127.0.0.1:80"]).await.unwrap_err().contains("are the same"));
        assert!(resolve(&["a=127.0.0.1:80", "b=[::ffff:127.0.0.1]:80"]).await.unwrap_err().contains("are the same"));
        let found = resolve(&["a=127.0.0.1:80", "b=[::1]:80"]).await.unwrap();
        assert_eq!([found[0].host.as_str(), found[1].host.as_str()], ["127.0.0.1:80", "[::1]:80"]);
        let found = resolve(&["a=[fe80::1%lo]:80"]).await.unwrap();
        assert_eq!((found[0].host.as_str(), found[0].address.to_string()), ("[fe80::1]:80", "[fe80::1%1]:80".to_owned()));
    }
}
