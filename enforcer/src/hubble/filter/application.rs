//! Fields over application messages. No flow has one, so what is well-formed matches nothing.

use enforcer_hubble::flow::FlowFilter;
use regex::Regex;

use super::{FilterError, One};
use crate::hubble::convert::TYPE_L7;

pub(super) fn add(one: &mut One, filter: &FlowFilter) -> Result<(), FilterError> {
    for (field, used) in [
        ("http_status_code", !filter.http_status_code.is_empty()),
        ("http_method", !filter.http_method.is_empty()),
        ("http_path", !filter.http_path.is_empty()),
        ("http_url", !filter.http_url.is_empty()),
        ("http_header", !filter.http_header.is_empty()),
    ] {
        let types = &filter.event_type;
        if used && !types.is_empty() && types.iter().all(|wanted| wanted.r#type != TYPE_L7) {
            return Err(FilterError::NotApplication { field });
        }
    }
    for code in &filter.http_status_code {
        if !is_status(code) {
            let problem = "is no status: three digits (404), or fewer and a plus (5+, 40+)";
            return Err(FilterError::value("http_status_code", code, problem));
        }
    }
    for (field, expressions) in [
        ("dns_query", &filter.dns_query),
        ("http_path", &filter.http_path),
        ("http_url", &filter.http_url),
    ] {
        for text in expressions {
            // The reason has the expression in it, over several lines.
            Regex::new(text).map_err(|error| {
                let reason = error.to_string();
                let last = reason.lines().last().unwrap_or_default().to_owned();
                FilterError::value(field, text, format!("is no regular expression: {last}"))
            })?;
        }
        one.add(expressions, |_| false);
    }
    one.add(&filter.http_status_code, |_| false);
    one.add(&filter.http_method, |_| false);
    one.add(&filter.http_header, |_| false);
    Ok(())
}

/// `404`, `40+` or `4+`.
fn is_status(text: &str) -> bool {
    let digits = text.strip_suffix('+');
    let lengths = if digits.is_some() { 1..=2 } else { 3..=3 };
    let digits = digits.unwrap_or(text);
    lengths.contains(&digits.len())
        && digits.bytes().all(|digit| digit.is_ascii_digit())
        && digits.starts_with(['1', '2', '3', '4', '5'])
}

#[cfg(test)]
mod tests {
    use super::is_status;

    #[test]
    fn statuses_are_whole_or_begun() {
        for good in ["200", "404", "5+", "40+", "100"] {
            assert!(is_status(good), "{good}");
        }
        for wrong in ["", "+", "20", "2000", "600", "0+", "404+", "4x4", "+4", "4++"] {
            assert!(!is_status(wrong), "{wrong}");
        }
    }
}
