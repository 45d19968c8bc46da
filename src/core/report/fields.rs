//! The JSON members of a report.

use crate::prelude::*;
use crate::{Contested, Hook, Requester, Verdict};
use core::time::Duration;
use serde::Serialize;

/// The value of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Field {
    /// A count, a pid, milliseconds.
    Number(i64),
    /// Text.
    Text(String),
    /// Yes or no.
    Truth(bool),
    /// Several texts.
    List(Vec<String>),
}

/// The members of one report, in the order in which they are written.
pub type Fields = Vec<(&'static str, Field)>;

/// What can stand in a member. A value that is not known is left out.
pub(super) trait Member {
    fn put(&self, name: &'static str, fields: &mut Fields);
}

impl<T: Member> Member for Option<T> {
    fn put(&self, name: &'static str, fields: &mut Fields) {
        if let Some(value) = self {
            value.put(name, fields);
        }
    }
}

impl<T: Member + ?Sized> Member for &T {
    fn put(&self, name: &'static str, fields: &mut Fields) {
        (**self).put(name, fields);
    }
}

macro_rules! members {
    ($($type:ty: |$value:ident| $field:expr;)+) => {$(
        impl Member for $type {
            fn put(&self, name: &'static str, fields: &mut Fields) {
                let $value = self;
                fields.push((name, $field));
            }
        }
    )+};
}

members! {
    bool: |truth| Field::Truth(*truth);
    u8: |number| Field::Number((*number).into());
    i32: |number| Field::Number((*number).into());
    u32: |number| Field::Number((*number).into());
    u64: |number| Field::Number(i64::try_from(*number).unwrap_or(i64::MAX));
    // Whole milliseconds, as in every `_ms` of the log.
    Duration: |time| Field::Number(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    str: |text| Field::Text(text.to_owned());
    String: |text| Field::Text(text.clone());
    Vec<String>: |texts| Field::List(texts.clone());
    Contested: |what| Field::Text(what.name().to_owned());
    Hook: |hook| Field::Text(hook.name().to_owned());
    Verdict: |verdict| Field::Text(verdict.name().to_owned());
    Requester: |by| Field::Text(by.to_string());
}
