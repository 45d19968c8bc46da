//! Columns of a row: `None` for a missing column or another type than ours.

use rusqlite::Row;
use rusqlite::types::ValueRef;

pub(super) fn integer(row: &Row<'_>, column: &str) -> Option<i64> {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(number)) => Some(number),
        _ => None,
    }
}

/// For columns that we never write a negative number to.
pub(super) fn count(row: &Row<'_>, column: &str) -> Option<u64> {
    integer(row, column).and_then(|number| u64::try_from(number).ok())
}

pub(super) fn pid(row: &Row<'_>, column: &str) -> Option<i32> {
    integer(row, column).and_then(|number| i32::try_from(number).ok()).filter(|pid| *pid > 0)
}

pub(super) fn text(row: &Row<'_>, column: &str) -> Option<String> {
    match row.get_ref(column) {
        Ok(ValueRef::Text(text)) => std::str::from_utf8(text).ok().map(str::to_owned),
        _ => None,
    }
}

/// `SQLite` has only signed integers.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_another_type_is_none() {
        crate::platform::sqlite::keep_small();
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        for (sql, expected) in [
            ("7", (Some(7), Some(7), Some(7), None)),
            ("-7", (Some(-7), None, None, None)),
            ("0", (Some(0), Some(0), None, None)),
            ("9999999999", (Some(9_999_999_999), Some(9_999_999_999), None, None)),
            ("'7'", (None, None, None, Some("7".to_owned()))),
            ("CAST(x'ff' AS TEXT)", (None, None, None, None)),
            ("x'07'", (None, None, None, None)),
            ("7.5", (None, None, None, None)),
            ("NULL", (None, None, None, None)),
        ] {
            let read = |row: &Row<'_>| Ok((integer(row, "c"), count(row, "c"), pid(row, "c"), text(row, "c")));
            assert_eq!(conn.query_row(&format!("SELECT {sql} AS c"), [], read).unwrap(), expected, "{sql}");
            let missing = |row: &Row<'_>| Ok(integer(row, "missing"));
            assert_eq!(conn.query_row("SELECT 1", [], missing), Ok(None));
        }
    }
}
