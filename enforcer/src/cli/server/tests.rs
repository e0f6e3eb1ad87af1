//! Addresses of servers, and what is said when there is none.

use super::*;

#[test]
fn addresses_are_written_as_for_hubble() {
    let tcp = |host: &str, port, tls| Address::Tcp { host: host.into(), port, tls };
    for (text, expected) in [
        ("localhost:4245", tcp("localhost", 4245, false)),
        ("relay", tcp("relay", PORT, false)),
        ("tcp://10.0.0.1:80", tcp("10.0.0.1", 80, false)),
        ("tls://relay.example.com:443", tcp("relay.example.com", 443, true)),
        ("[fd00::1]:4244", tcp("fd00::1", 4244, false)),
        ("fd00::1", tcp("fd00::1", PORT, false)),
        ("tls://[fd00::1]", tcp("fd00::1", PORT, true)),
        ("unix:///run/hubble.sock", Address::Unix("/run/hubble.sock".into())),
        ("unix:/run/hubble.sock", Address::Unix("/run/hubble.sock".into())),
    ] {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    for text in ["", "http://x", "unix://", "x:port", "x:70000", ":80", "[fd00::1", "tcp://a/b"] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
    assert_eq!(tcp("fd00::1", 1, false).to_string(), "[fd00::1]:1");
}

#[test]
fn times_of_waiting_are_durations() {
    assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
    for text in ["0s", "5", "", "-1s"] {
        assert!(duration(text).is_err(), "{text}");
    }
    assert!(no_port_forward("true").unwrap_err().contains("kubectl port-forward"));
}
