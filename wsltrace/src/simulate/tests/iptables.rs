//! What iptables-save prints, of either kind.

use super::{address, machine, objects_of, syn, told};
use crate::evidence::rules::Listing;
use crate::evidence::rules::legacy::parse;
use crate::simulate::{End, Goes, Packet, Rulesets, Way, predict};

/// The old iptables' tables.
fn legacy(text: &str) -> Rulesets {
    Rulesets::default().with_legacy("ip", parse(&counted(text)))
}

/// As `-c` prints it.
fn counted(text: &str) -> String {
    let line = |line: &str| if line.starts_with("-A") { format!("[0:0] {line}\n") } else { format!("{line}\n") };
    text.lines().map(line).collect()
}

/// What becomes of the SYN where this rule of the table `filter` drops what it matches.
fn taken(matches: &str) -> String {
    let text = format!("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {matches} -j DROP\nCOMMIT\n");
    told(&predict(&legacy(&text), &syn(), &machine()))
}

#[test]
fn matches() {
    for (text, expected) in [
        ("-p tcp -m tcp --dport 80:9000", "drop 1"),
        ("-p tcp -m tcp --dport 5:65535", "drop 1"),
        ("-p tcp -m tcp ! --sport 0:5 ! --dport 8080", "pass"),
        ("-p tcp -m tcp ! --sport 0:5 ! --dport 80", "maybe the client's port"),
        ("! -p tcp", "pass"),
        ("-p 99", "pass"),
        ("-p udp -m udp --dport 53", "pass"),
        ("-p icmp -m icmp --icmp-type 8", "pass"),
        ("-s 172.16.0.0/12", "drop 1"),
        ("! -s 172.16.0.0/12", "pass"),
        ("-s 172.0.0.1/255.0.0.255", "drop 1"),
        ("-d 172.28.16.2/32 -i eth+", "drop 1"),
        ("! -i eth+", "pass"),
        ("-i lo", "pass"),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "drop 1"),
        ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", "pass"),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE", "pass"),
        ("-p tcp -m tcp --tcp-option 5", "maybe tcp option"),
        ("-p tcp -m multiport --dports 80,8000:8100", "drop 1"),
        ("-p tcp -m multiport ! --dports 80,8000:8100", "pass"),
        ("-p tcp -m multiport --ports 8080", "drop 1"),
        ("-p tcp -m multiport ! --ports 8080", "pass"),
        ("-p tcp -m multiport --ports 80", "maybe the client's port"),
        ("-m conntrack --ctstate NEW,ESTABLISHED", "drop 1"),
        ("-m conntrack ! --ctstate INVALID", "drop 1"),
        ("-m conntrack --ctstate DNAT", "pass"),
        ("-m conntrack --ctstatus NONE", "maybe ct"),
        ("-m conntrack --ctdir ORIGINAL", "drop 1"),
        ("-m conntrack --ctorigdstport 8080 --ctdir ORIGINAL", "drop 1"),
        ("-m conntrack --ctorigdstport 9090 --ctdir ORIGINAL", "pass"),
        ("-m conntrack ! --ctorigdst 172.28.16.0/20", "pass"),
        ("-m conntrack --ctorigdst 172.28.16.2", "drop 1"),
        ("-m conntrack --ctorigsrc 172.28.16.1", "maybe ct"),
        ("-m state --state NEW", "drop 1"),
        ("-m comment --comment \"-j ACCEPT\"", "drop 1"),
        ("-m addrtype --dst-type LOCAL", "drop 1"),
        ("-m addrtype ! --dst-type LOCAL", "pass"),
        ("-m addrtype --src-type LOCAL", "pass"),
        ("-m addrtype --dst-type LOCAL --limit-iface-in", "maybe fib"),
        ("-m mark --mark 0x1/0xff", "pass"),
        ("-m mark ! --mark 0x5", "drop 1"),
        ("-m connmark --mark 0x0", "drop 1"),
        ("-m iprange --src-range 172.28.16.1-172.28.16.9", "drop 1"),
        ("-m iprange ! --dst-range 1.2.3.4-1.2.3.9", "drop 1"),
        ("-f", "pass"),
        ("! -f", "maybe another iptables match"),
        ("-m limit --limit 5/sec", "maybe limit"),
        ("-m hashlimit --hashlimit-above 5/sec --hashlimit-burst 5 --hashlimit-name foo", "maybe hashlimit"),
        ("-m recent --update --seconds 5 --name x --mask 255.255.255.255 --rsource", "maybe recent"),
        ("-m string --string \"x\" --algo bm", "maybe string"),
        ("-m statistic --mode random --probability 0.50000000000", "maybe statistic"),
        ("-m owner --uid-owner 0", "maybe owner"),
        ("-m set --match-set x src", "maybe set"),
        ("-m time --timestart 10:00:00 --timestop 23:59:59", "maybe time"),
        ("-m connlimit --connlimit-above 5 --connlimit-mask 32 --connlimit-saddr", "maybe connlimit"),
        ("-m socket", "maybe socket"),
        ("-m ttl --ttl-eq 5", "maybe ttl"),
        ("-m new2030 --what 1", "maybe another iptables match"),
        ("-p tcp -m tcp --dport 9 -m limit --limit 5/sec", "pass"),
    ] {
        assert_eq!(taken(text), expected, "{text}");
    }
}

/// What becomes of the SYN in a ruleset.
fn becomes(text: &str) -> End {
    predict(&legacy(text), &syn(), &machine()).end
}

#[test]
fn targets() {
    let with = |rules: &str| {
        told(&predict(&legacy(&format!("*filter\n:INPUT DROP [0:0]\n:web - [0:0]\n{rules}COMMIT\n")), &syn(), &machine()))
    };
    assert_eq!(with(""), "drop policy");
    assert_eq!(with("-A INPUT -j ACCEPT\n"), "pass");
    assert_eq!(with("-A INPUT -j REJECT --reject-with icmp-port-unreachable\n"), "reject 1");
    assert_eq!(with("-A INPUT -j NFQUEUE --queue-num 5 --queue-bypass\n"), "queue 1");
    assert_eq!(with("-A INPUT -j LOG --log-prefix \"a b\"\n-A INPUT -j RETURN\n"), "drop policy");
    assert_eq!(with("-A INPUT -j web\n-A INPUT -j ACCEPT\n-A web -j RETURN\n-A web -j DROP\n"), "pass");
    assert_eq!(with("-A INPUT -g web\n-A INPUT -j ACCEPT\n"), "drop policy");
    assert_eq!(with("-A INPUT\n-A INPUT -j ACCEPT\n"), "pass");
    assert_eq!(with("-A INPUT -j SYNPROXY --wscale 7 --mss 1460\n"), "maybe SYNPROXY");
    assert_eq!(with("-A INPUT -j NEW2030\n"), "maybe another iptables target");
}

#[test]
fn tables_have_their_places() {
    let text = "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j MARK --set-xmark 0x5/0x7\n\
                -A PREROUTING -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff\nCOMMIT\n\
                *filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m mark --mark 0x5 -m connmark --mark 0x5 -j DROP\nCOMMIT\n";
    assert!(matches!(becomes(text), End::Dropped { rule, .. } if rule.number == Some(1) && rule.table == "filter"));
    let text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j CT --notrack\nCOMMIT\n\
                *filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m conntrack --ctstate UNTRACKED -j DROP\nCOMMIT\n";
    assert!(matches!(becomes(text), End::Dropped { .. }));
    let nat = |target: &str| becomes(&format!("*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j {target}\nCOMMIT\n"));
    let End::Passes { address: to, port, translated_by, goes } = nat("DNAT --to-destination 172.17.0.2:80") else { panic!() };
    assert_eq!((to, port, goes), (Some(address("172.17.0.2")), Some(80), Goes::Forward));
    let rule = translated_by.unwrap();
    assert_eq!((rule.number, rule.verdict.as_str()), (Some(1), "accept"));
    assert!(matches!(nat("REDIRECT --to-ports 80"), End::Passes { port: Some(80), goes: Goes::Local, .. }));
    assert!(matches!(nat("DNAT --to-destination 1.2.3.4-1.2.3.9:80-90 --random"), End::Maybe { .. }));
    assert!(matches!(nat("DNAT --to-destination :90"), End::Passes { port: Some(90), goes: Goes::Local, .. }));
}

#[test]
fn dockers_published_port_on_loopback() {
    let text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP\nCOMMIT\n\
                *nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n\
                -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
                -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n\
                -A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n";
    let rulesets = legacy(text);
    let loopback = Packet { way: Way::Loopback, source: None, destination: address("127.0.0.1"), ..syn() };
    assert!(matches!(predict(&rulesets, &loopback, &machine()).end, End::Passes { translated_by: None, .. }));
    assert_eq!(told(&predict(&rulesets, &syn(), &machine())), "pass");
    let strange = Packet { destination: address("127.0.0.1"), ..syn() };
    assert_eq!(told(&predict(&rulesets, &strange, &machine())), "drop 1");
}

/// What iptables makes in nftables is taken from nft where nft understands it, and from iptables where only that explains it.
#[test]
fn iptables_explains_its_own_expressions() {
    let json = r#"
        {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
        {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 2, "expr": [{"xt": {"type": "match", "name": "comment"}}, {"counter": {"packets": 0, "bytes": 0}}, {"return": null}]}},
        {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 3, "expr": [{"xt": {"type": "match", "name": "addrtype"}}, {"counter": {"packets": 0, "bytes": 0}}, {"drop": null}]}}"#;
    let save = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment \"x y\" -j RETURN\n-A INPUT -m addrtype --dst-type LOCAL -j DROP\nCOMMIT\n";
    let with = |json: &str, saved: &str| {
        let saved = [("ip", parse(&counted(saved)))];
        let rulesets = Rulesets::of(objects_of(json), Listing::default(), &saved).unwrap();
        told(&predict(&rulesets, &syn(), &machine()))
    };
    assert_eq!(with(json, save), "pass");
    let json = json.replace(r#"{"return": null}"#, r#"{"continue": null}"#);
    assert_eq!(with(&json, save), "drop 3");
    assert_eq!(with(&json, ""), "maybe xt");
    // It leaves out what it does not know, such as a map of verdicts: nft has it.
    let vmap =
        r#"{"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": {"set": [[8080, {"drop": null}]]}}}"#;
    let json = json.replace(
        r#"{"xt": {"type": "match", "name": "addrtype"}}, {"counter": {"packets": 0, "bytes": 0}}, {"drop": null}"#,
        vmap,
    );
    assert_eq!(with(&json, &save.replace("-m addrtype --dst-type LOCAL -j DROP", "-p tcp")), "drop 3");
}

#[test]
fn tproxy_hands_the_packet_on_or_drops_it() {
    let end = |options: &str| {
        let rule = format!("-A PREROUTING -p tcp -m tcp --dport 8080 -j TPROXY {options}");
        let text = format!("*mangle\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n");
        let End::Maybe { possible, because } = predict(&legacy(&text), &syn(), &machine()).end else { panic!("{options}") };
        assert_eq!(because.iter().map(|because| because.name.as_str()).collect::<Vec<_>>(), ["TPROXY"]);
        let dropped = possible.iter().filter(|end| matches!(end, End::Dropped { .. })).count();
        let port = possible.iter().find_map(|end| match end {
            End::Passes { port, goes: Goes::Proxy, .. } => Some(*port),
            _ => None,
        });
        (possible.len(), dropped, port)
    };
    let options = "--on-ip 0.0.0.0 --tproxy-mark 0x1/0xffffffff";
    assert_eq!(end(&format!("--on-port 9090 {options}")), (2, 1, Some(Some(9090))));
    assert_eq!(end(&format!("--on-port 0 {options}")), (2, 1, Some(Some(8080))));
}
