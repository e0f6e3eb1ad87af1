//! The syntax of Kubernetes names, labels and port names, as the API server checks it
//! (`k8s.io/apimachinery/pkg/util/validation`). Each check gives the rule that was broken.

/// A DNS-1123 label: names of namespaces.
///
/// # Errors
/// The rule that `s` breaks.
pub fn dns_label(s: &str) -> Result<(), &'static str> {
    const RULE: &str = "must be a DNS-1123 label: lower case letters, digits and '-', a letter or \
                        digit first and last, at most 63 characters";
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    check(s.len() <= 63 && ends(s, is_lower_alnum) && s.bytes().all(inner), RULE)
}

/// A DNS-1123 subdomain: names of most objects, and prefixes of label keys.
///
/// # Errors
/// The rule that `s` breaks.
pub fn dns_subdomain(s: &str) -> Result<(), &'static str> {
    const RULE: &str = "must be a DNS-1123 subdomain: lower case letters, digits, '-' and '.', each \
                        part with a letter or digit first and last, at most 253 characters";
    let part =
        |p: &str| ends(p, is_lower_alnum) && p.bytes().all(|c| is_lower_alnum(c) || c == b'-');
    check(s.len() <= 253 && s.split('.').all(part), RULE)
}

/// A label's key: `[prefix/]name`.
///
/// # Errors
/// The rule that `s` breaks.
pub fn label_key(s: &str) -> Result<(), &'static str> {
    const RULE: &str = "must be a label key: an optional DNS subdomain and '/', then a name of \
                        letters, digits, '-', '_' and '.', a letter or digit first and last, at \
                        most 63 characters";
    let name = match s.split_once('/') {
        None => s,
        Some((prefix, name)) => {
            check(dns_subdomain(prefix).is_ok(), RULE)?;
            name
        }
    };
    check(is_label_name(name), RULE)
}

/// A label's value; it may be empty.
///
/// # Errors
/// The rule that `s` breaks.
pub fn label_value(s: &str) -> Result<(), &'static str> {
    const RULE: &str = "must be a label value: empty, or letters, digits, '-', '_' and '.', a \
                        letter or digit first and last, at most 63 characters";
    check(s.is_empty() || is_label_name(s), RULE)
}

/// A port's name (`IANA_SVC_NAME`, RFC 6335, 5.1).
///
/// # Errors
/// The rule that `s` breaks.
pub fn port_name(s: &str) -> Result<(), &'static str> {
    const RULE: &str = "must be a port name (IANA_SVC_NAME): at most 15 lower case letters, digits \
                        and single '-', at least one letter, no '-' first or last";
    let chars = s.bytes().all(|c| is_lower_alnum(c) || c == b'-');
    let letter = s.bytes().any(|c| c.is_ascii_lowercase());
    check(s.len() <= 15 && chars && letter && ends(s, is_lower_alnum) && !s.contains("--"), RULE)
}

fn is_label_name(s: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    s.len() <= 63 && ends(s, |c| c.is_ascii_alphanumeric()) && s.bytes().all(inner)
}

fn is_lower_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Whether `s` is not empty and its first and last byte are `good`.
fn ends(s: &str, good: impl Fn(u8) -> bool) -> bool {
    matches!((s.bytes().next(), s.bytes().last()), (Some(a), Some(b)) if good(a) && good(b))
}

fn check(ok: bool, rule: &'static str) -> Result<(), &'static str> {
    if ok { Ok(()) } else { Err(rule) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Result<(), &'static str>;

    #[test]
    fn names_are_judged_as_the_api_server_judges_them() {
        let long = |n: usize| "a".repeat(n);
        let table: &[(&str, Check, &[&str], &[&str])] = &[
            (
                "dns_label",
                dns_label,
                &["a", "a-b", "0", &long(63)],
                &["", "A", "a.b", "-a", "a-", "a_b", "é", &long(64)],
            ),
            (
                "dns_subdomain",
                dns_subdomain,
                &["a", "a.b-c.d", &long(253)],
                &["", ".", "a..b", "a.", "a/b", "A", "a.-b", &long(254)],
            ),
            (
                "label_key",
                label_key,
                &["app", "App_x.y", "k8s.io/app", "example.com/A"],
                &["", "/", "a/", "/a", "a/b/c", "Up/a", "-a", "a b", &long(64)],
            ),
            (
                "label_value",
                label_value,
                &["", "v", "V_1.2-x", &long(63)],
                &["-", "a b", "a/b", "a-", "é", &long(64)],
            ),
            (
                "port_name",
                port_name,
                &["http", "a", "dns-tcp", "8080a", "a12345678901234"],
                &["", "80", "-a", "a-", "a--b", "Http", "a_b", "a123456789012345"],
            ),
        ];
        for (name, check, good, bad) in table {
            for s in *good {
                assert_eq!(check(s), Ok(()), "{name} {s:?}");
            }
            for s in *bad {
                assert!(check(s).is_err(), "{name} {s:?}");
            }
        }
    }
}
