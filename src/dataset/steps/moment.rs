//! Moments as rows and requests spell them.

use time::{
    Date, OffsetDateTime, PrimitiveDateTime, Time, format_description::well_known::Rfc3339, macros::format_description,
};

use crate::json::Json;

/// A date, at its beginning in UTC, or RFC 3339 text; a time without an offset is in UTC.
pub(super) fn parse(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim();
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(moment);
    }
    if let Ok(date) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
        return Some(date.with_time(Time::MIDNIGHT).assume_utc());
    }
    let plain = text.replacen(' ', "T", 1);
    let written = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    PrimitiveDateTime::parse(&plain, written).ok().map(PrimitiveDateTime::assume_utc)
}

/// A text as above, or Unix seconds.
pub(super) fn of(value: &Json<'_>) -> Option<OffsetDateTime> {
    match value {
        Json::Text(text) => parse(text),
        Json::Integer(seconds) => OffsetDateTime::from_unix_timestamp(*seconds).ok(),
        Json::Float(seconds) if seconds.is_finite() => {
            OffsetDateTime::from_unix_timestamp_nanos((seconds * 1e9) as i128).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_each_spelling() {
        let noon = Json::Integer(1_769_860_800);
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31 12:00:00", "2026-01-31T12:00:00"]
        {
            assert_eq!(parse(text), of(&noon), "{text}");
        }
        assert_eq!(parse("2026-01-31"), of(&Json::Float(1_769_817_600.0)));
        for text in ["", "2026-02-30", "yesterday", "31.1.2026"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
