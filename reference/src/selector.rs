//! Label selectors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::cluster::Labels;

/// Whether a selector selects an object with these labels: all that it says must hold, and an empty
/// one says nothing. An operator that does not exist selects nothing.
pub(crate) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    for (key, value) in selector.match_labels.iter().flatten() {
        if labels.get(key) != Some(value) {
            return false;
        }
    }
    for expression in selector.match_expressions.iter().flatten() {
        let value = labels.get(&expression.key);
        let values = expression.values.as_deref().unwrap_or_default();
        let holds = match expression.operator.as_str() {
            "In" => value.is_some_and(|value| values.contains(value)),
            // Who has no such label has none of the values.
            "NotIn" => !value.is_some_and(|value| values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        };
        if !holds {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    fn expression(operator: &str, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let expression = LabelSelectorRequirement {
            key: "app".to_owned(),
            operator: operator.to_owned(),
            values: (!values.is_empty()).then_some(values),
        };
        LabelSelector { match_labels: None, match_expressions: Some(vec![expression]) }
    }

    #[test]
    fn operators_mean_what_the_api_says() {
        let none = Labels::new();
        let web = Labels::from([("app".to_owned(), "web".to_owned())]);
        for (selector, of_none, of_web) in [
            (expression("In", &["web", "db"]), false, true),
            (expression("In", &["db"]), false, false),
            (expression("NotIn", &["web"]), true, false),
            (expression("NotIn", &["db"]), true, true),
            (expression("Exists", &[]), false, true),
            (expression("DoesNotExist", &[]), true, false),
            (expression("Near", &["web"]), false, false),
            (LabelSelector::default(), true, true),
        ] {
            assert_eq!(
                (selects(&selector, &none), selects(&selector, &web)),
                (of_none, of_web),
                "{selector:?}"
            );
        }
    }
}
