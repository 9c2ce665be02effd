//! What a request says: its path's segments, and its parameters from query and body together, as GitLab takes them.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::{StatusCode, header, request::Parts};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::app::Shared;
use crate::error::ApiError;

/// The segments of the path, decoded.
#[derive(Debug)]
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Shared> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(PathRejection::FailedToDeserializePathParams(_)) => {
                Err(ApiError::message(StatusCode::NOT_FOUND, "404 Not Found"))
            }
            Err(_) => Err(ApiError::message(StatusCode::BAD_REQUEST, "400 Bad request")),
        }
    }
}

/// Parameters by name. Those of the body win.
#[derive(Debug, Default)]
pub struct Params(Map<String, Value>);

impl FromRequest<Shared> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, ApiError> {
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let mut found = form(request.uri().query().unwrap_or_default().as_bytes());
        let body = Bytes::from_request(request, app)
            .await
            .map_err(|refused| ApiError::message(refused.status(), refused.body_text()))?;
        if kind.starts_with("application/json") && !body.is_empty() {
            match serde_json::from_slice(&body) {
                Ok(Value::Object(fields)) => found.extend(fields),
                Ok(_) => return Err(ApiError::bad("400 Bad request - the body must be a JSON object")),
                Err(_) => return Err(ApiError::bad("400 Bad request - the body is not JSON")),
            }
        } else if kind.starts_with("application/x-www-form-urlencoded") {
            found.extend(form(&body));
        } else if !body.is_empty() && !kind.is_empty() && !kind.starts_with("application/json") {
            let message = format!("The provided content-type '{}' is not supported.", kind.escape_default());
            return Err(ApiError::Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, serde_json::json!({ "error": message })));
        }
        // PostgreSQL keeps no NUL in a text, and nobody means one.
        if found.values().any(has_nul) {
            Err(ApiError::bad("400 Bad request - a parameter has a null byte"))
        } else {
            Ok(Self(found))
        }
    }
}

impl Params {
    /// Parameters of a query alone.
    #[must_use]
    pub fn of_query(query: &str) -> Self {
        Self(form(query.as_bytes()))
    }

    /// The value as it was sent; null is as if it were not.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A text, if there is one; numbers and truth values count as texts.
    ///
    /// # Errors
    /// 400 if it is a list or a map.
    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Some(_) => Err(ApiError::invalid(name)),
        }
    }

    /// A text that must be there and not be empty.
    ///
    /// # Errors
    /// 400 if not.
    pub fn needed(&self, name: &str) -> Result<String, ApiError> {
        match self.text(name)? {
            None => Err(ApiError::missing(name)),
            Some(text) if text.trim().is_empty() => Err(ApiError::Refused(
                StatusCode::BAD_REQUEST,
                serde_json::json!({ "error": format!("{name} is empty") }),
            )),
            Some(text) => Ok(text),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.map(|text| text.parse().map_err(|_| ApiError::invalid(name))).transpose()
    }

    /// A truth value.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        // Some clients write `True`.
        match self.text(name)?.map(|word| word.to_ascii_lowercase()).as_deref() {
            None | Some("") => Ok(None),
            Some("true" | "1" | "t" | "on" | "yes" | "y") => Ok(Some(true)),
            Some("false" | "0" | "f" | "off" | "no" | "n") => Ok(Some(false)),
            Some(_) => Err(ApiError::invalid(name)),
        }
    }

    /// One of a list of words.
    ///
    /// # Errors
    /// 400 if it is another.
    pub fn one_of(&self, name: &str, words: &[&str]) -> Result<Option<String>, ApiError> {
        match self.text(name)? {
            Some(word) if !words.contains(&word.as_str()) => Err(ApiError::not_a_valid_value(name)),
            other => Ok(other),
        }
    }

    /// A list of texts, or one text with commas.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn list(&self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let split =
            |text: &str| text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(split(text))),
            Some(Value::Array(values)) => {
                let texts = values.iter().map(|value| value.as_str().map(str::to_owned));
                texts.collect::<Option<_>>().map(Some).ok_or_else(|| ApiError::invalid(name))
            }
            Some(_) => Err(ApiError::invalid(name)),
        }
    }

    /// Sets a parameter, as if it had been sent.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

/// A form's fields. A name with `[]` at its end makes a list.
fn form(bytes: &[u8]) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(bytes) {
        let value = Value::String(value.into_owned());
        if let Some(name) = name.strip_suffix("[]") {
            if let Value::Array(list) = fields.entry(name.to_owned()).or_insert_with(|| Value::Array(Vec::new())) {
                list.push(value);
            }
        } else {
            fields.insert(name.into_owned(), value);
        }
    }
    fields
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_meant() {
        let params = Params::of_query("n=12&yes=True&no=0&empty=&list[]=a&list[]=b&words=a,%20b&bad=x");
        assert_eq!(params.number("n").unwrap(), Some(12));
        assert_eq!(params.number("nothing").unwrap(), None);
        assert!(params.number("bad").is_err());
        assert_eq!(params.flag("yes").unwrap(), Some(true));
        assert_eq!(params.flag("no").unwrap(), Some(false));
        assert!(params.flag("bad").is_err());
        assert!(params.needed("empty").is_err() && params.needed("nothing").is_err());
        assert_eq!(params.list("list").unwrap().unwrap(), ["a", "b"]);
        assert_eq!(params.list("words").unwrap().unwrap(), ["a", "b"]);
        assert!(params.one_of("bad", &["a", "b"]).is_err());
    }
}
