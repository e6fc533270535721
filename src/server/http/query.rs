//! Query strings, read strictly: an unknown or repeated parameter is an error that names it.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use axum::{
    extract::FromRequestParts,
    http::{Uri, request::Parts},
};
use percent_encoding::percent_decode_str;

use super::error::{ApiError, Code};

/// What a handler takes from the query string.
pub trait FromQuery: Sized {
    /// Takes its parameters out of `fields`; what is left over is refused.
    ///
    /// # Errors
    /// A 400 that names the parameter and what is allowed.
    fn from_query(fields: &mut Fields) -> Result<Self, ApiError>;
}

/// The extractor: `Query(page): Query<PageQuery>`.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: FromQuery> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(&parts.uri)?;
        let value = T::from_query(&mut fields)?;
        fields.finish()?;
        Ok(Self(value))
    }
}

/// For operations without parameters.
pub struct NoParameters;

impl FromQuery for NoParameters {
    fn from_query(_: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self)
    }
}

/// The pairs of a query string that nobody has taken yet.
pub struct Fields {
    pairs: Vec<(String, String)>,
    asked: Vec<&'static str>,
}

impl Fields {
    fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            let decoded = percent_decode_str(&spaced).decode_utf8().ok().filter(|text| !text.contains('\0'));
            decoded.map(|text| text.into_owned()).ok_or_else(|| {
                ApiError::new(Code::InvalidValue, "the query string is not percent-encoded UTF-8 without U+0000")
            })
        };
        let mut pairs = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        // Sent by clients of Azure's flavour to every route; it selects nothing here.
        pairs.retain(|(name, _)| name != "api-version");
        Ok(Self { pairs, asked: Vec::new() })
    }

    /// Whether a parameter is given.
    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(given, _)| given == name)
    }

    /// The value of a parameter that may be given once.
    pub fn take(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        self.asked.push(name);
        let mut found = None;
        while let Some(index) = self.pairs.iter().position(|(given, _)| given == name) {
            if found.replace(self.pairs.remove(index).1).is_some() {
                return Err(ApiError::invalid(name, format!("`{name}` is given more than once")));
            }
        }
        Ok(found)
    }

    /// The values of a parameter that may be given several times, as `name` or as `name[]`.
    pub fn take_list(&mut self, name: &'static str) -> Vec<String> {
        self.asked.push(name);
        let is_it = |given: &str| given == name || given.strip_suffix("[]") == Some(name);
        let (taken, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pairs).into_iter().partition(|(given, _)| is_it(given));
        self.pairs = rest;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    pub fn take_parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Result<Option<T>, ApiError> {
        self.take(name)?
            .map(|text| {
                text.parse().map_err(|error| ApiError::invalid(name, format!("`{name}` is not valid: {error}")))
            })
            .transpose()
    }

    /// A number with a default and bounds.
    pub fn take_number(
        &mut self,
        name: &'static str,
        default: u32,
        allowed: RangeInclusive<u32>,
    ) -> Result<u32, ApiError> {
        let Some(text) = self.take(name)? else { return Ok(default) };
        text.parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| {
            let (low, high) = (allowed.start(), allowed.end());
            ApiError::invalid(name, format!("`{name}` must be a whole number between {low} and {high}; it is `{text}`"))
        })
    }

    /// All pairs written `name[key]=value`.
    pub fn take_map(&mut self, name: &'static str) -> Vec<(String, String)> {
        self.asked.push(name);
        let key_of =
            |given: &str| given.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']').map(ToOwned::to_owned);
        let (taken, rest) = std::mem::take(&mut self.pairs).into_iter().partition(|(given, _)| key_of(given).is_some());
        self.pairs = rest;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().filter_map(|(given, value)| Some((key_of(&given)?, value))).collect()
    }

    fn finish(self) -> Result<(), ApiError> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let known = match self.asked.as_slice() {
            [] => "this operation takes none".to_owned(),
            asked => format!("this operation knows {}", asked.join(", ")),
        };
        Err(ApiError::new(Code::UnknownParameter, format!("unknown query parameter `{name}`; {known}")).param(name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(query: &str) -> Fields {
        Fields::parse(&format!("/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn parameters_are_taken_once_and_decoded() {
        let mut given = fields("after=a%2Fb+c&metadata%5Bk%5D=v&metadata[n]=2&api-version=1");
        assert_eq!(given.take("after").unwrap().as_deref(), Some("a/b c"));
        let map = given.take_map("metadata");
        assert_eq!(map, [("k".to_owned(), "v".to_owned()), ("n".to_owned(), "2".to_owned())]);
        assert!(given.finish().is_ok());
    }

    #[test]
    fn a_list_is_spelled_as_either_client_spells_it() {
        for query in ["ids=a&limit=1&ids=b", "ids[]=a&ids%5B%5D=b&limit=1"] {
            let mut given = fields(query);
            assert_eq!(given.take_list("ids"), ["a", "b"], "{query}");
            assert!(given.take("limit").unwrap().is_some() && given.finish().is_ok());
        }
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        assert!(fields("limit=1&limit=2").take("limit").is_err());
        assert!(fields("limit=0").take_number("limit", 20, 1..=100).is_err());
        assert!(fields("limit=+5").take_number("limit", 20, 1..=100).is_err());
        assert!(fields("offset=3").finish().is_err());
    }
}
