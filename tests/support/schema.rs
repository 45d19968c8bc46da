//! docs/status.schema.json, and whether a value is as it says. Of JSON Schema it knows what that file uses.

use serde_json::Value;
use std::collections::BTreeSet;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../docs/status.schema.json")).unwrap()
}

/// What in `value` is not as documented: a member too many or too few, another type.
pub(crate) fn violations(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(&schema(), value, "status", &mut found);
    found
}

/// The documented members that none of these values has, except as null.
pub(crate) fn unseen(values: &[Value]) -> Vec<String> {
    let mut documented = BTreeSet::new();
    members(&schema(), "status", &mut documented);
    let mut seen = BTreeSet::new();
    for value in values {
        present(value, "status", &mut seen);
    }
    documented.difference(&seen).cloned().collect()
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if !types(schema).contains(&type_of(value)) {
        found.push(format!("{path} is a {}: {value}", type_of(value)));
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        found.push(format!("{path} is {value}, none of {allowed:?}"));
    }
    let is_stamp = |text: &str| text.len() == "2026-01-01T00:00:00.000Z".len() && text.ends_with('Z');
    if schema["format"] == "date-time" && value.as_str().is_some_and(|text| !is_stamp(text)) {
        found.push(format!("{path} is no RFC 3339 time in UTC: {value}"));
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| check(&schema["items"], item, &format!("{path}[]"), found)),
        Value::Object(own) => {
            let documented = schema["properties"].as_object().unwrap();
            let required = schema["required"].as_array().unwrap().iter().filter_map(Value::as_str);
            found.extend(required.filter(|name| !own.contains_key(*name)).map(|name| format!("{path} has no {name}")));
            for (name, value) in own {
                match documented.get(name) {
                    Some(schema) => check(schema, value, &format!("{path}.{name}"), found),
                    None => found.push(format!("{path}.{name} is not documented")),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn members(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        members(schema, &path, found);
        members(&schema["items"], &format!("{path}[]"), found);
        found.insert(path);
    }
}

fn present(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| present(item, &format!("{path}[]"), found)),
        Value::Object(own) => own.iter().for_each(|(name, value)| present(value, &format!("{path}.{name}"), found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    if !value.is_null() {
        found.insert(path.to_owned());
    }
}
