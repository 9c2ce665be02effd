//! Lists come in pages of 20, at most 100, and say in headers where the others are.

use std::fmt::Write as _;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio_postgres::Row;

use crate::app::App;
use crate::db::Values;
use crate::error::{Answer, ApiError};
use crate::params::Params;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    number: i64,
    size: i64,
}

impl Page {
    /// Reads `page` and `per_page`.
    ///
    /// # Errors
    /// 400 if they are no numbers.
    pub fn of(params: &Params) -> Result<Self, ApiError> {
        let number = params.number("page")?.unwrap_or(1);
        let size = params.number("per_page")?.unwrap_or(20);
        if size < 1 {
            return Err(ApiError::not_a_valid_value("per_page"));
        }
        Ok(Self { number: number.clamp(1, 1_000_000), size: size.min(100) })
    }

    /// How many are skipped.
    #[must_use]
    pub fn offset(self) -> i64 {
        (self.number - 1) * self.size
    }

    /// Answers with the wanted part of the rows that `sql` selects. Each row's column `item` is what is shown.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn rows(self, app: &App, uri: &Uri, sql: &str, values: Values<'_>) -> Answer {
        self.rows_as(app, uri, sql, values, |row| row.get("item")).await
    }

    /// As [`Page::rows`], with what is shown made from the row.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn rows_as(
        self,
        app: &App,
        uri: &Uri,
        sql: &str,
        values: Values<'_>,
        show: impl Fn(&Row) -> Value,
    ) -> Answer {
        let counted = app.db.row(&format!("SELECT count(*) AS total FROM ({sql}) AS all_rows"), values).await?;
        let total: i64 = counted.map_or(0, |row| row.get("total"));
        let rows = app.db.rows(&format!("{sql} LIMIT {} OFFSET {}", self.size, self.offset()), values).await?;
        Ok(self.respond(app, uri, total, rows.iter().map(show).collect()))
    }

    /// Answers with the wanted part of a list that is here already.
    #[must_use]
    pub fn of_list(self, app: &App, uri: &Uri, list: Vec<Value>) -> Response {
        let total = i64::try_from(list.len()).unwrap_or(i64::MAX);
        let offset = usize::try_from(self.offset()).unwrap_or(usize::MAX);
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        self.respond(app, uri, total, list.into_iter().skip(offset).take(size).collect())
    }

    fn respond(self, app: &App, uri: &Uri, total: i64, items: Vec<Value>) -> Response {
        let mut response = Json(items).into_response();
        let path = uri.path().strip_prefix(app.settings.prefix.as_str()).unwrap_or_default();
        for (name, value) in
            self.headers(&format!("{}{path}", app.settings.url), uri.query().unwrap_or_default(), total)
        {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
    }

    fn headers(self, url: &str, query: &str, total: i64) -> [(&'static str, String); 7] {
        let pages = ((total + self.size - 1) / self.size).max(1);
        let next = (self.number < pages).then_some(self.number + 1);
        let before = (self.number > 1).then_some(self.number - 1);
        let others: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| !["page", "per_page", "private_token", "access_token"].contains(&name.as_ref()))
            .collect();
        let mut link = String::new();
        for (relation, page) in [("prev", before), ("next", next), ("first", Some(1)), ("last", Some(pages))] {
            let Some(page) = page else { continue };
            let mut query = form_urlencoded::Serializer::new(String::new());
            query
                .extend_pairs(&others)
                .append_pair("page", &page.to_string())
                .append_pair("per_page", &self.size.to_string());
            let comma = if link.is_empty() { "" } else { ", " };
            let _ = write!(link, "{comma}<{url}?{}>; rel=\"{relation}\"", query.finish());
        }
        let text = |page: Option<i64>| page.map(|page| page.to_string()).unwrap_or_default();
        [
            ("x-total", total.to_string()),
            ("x-total-pages", pages.to_string()),
            ("x-page", self.number.to_string()),
            ("x-per-page", self.size.to_string()),
            ("x-next-page", text(next)),
            ("x-prev-page", text(before)),
            ("link", link),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_others_are() {
        let page = Page::of(&Params::of_query("page=2&per_page=10")).unwrap();
        let headers = page.headers("http://h/api", "a=1&page=2&per_page=10&private_token=x", 25);
        let get = |name| headers.iter().find(|(header, _)| *header == name).unwrap().1.clone();
        assert_eq!(
            (get("x-total"), get("x-total-pages"), get("x-next-page"), get("x-prev-page")),
            ("25".into(), "3".into(), "3".into(), "1".into())
        );
        assert!(get("link").contains("<http://h/api?a=1&page=3&per_page=10>; rel=\"next\""), "{}", get("link"));
        assert!(!get("link").contains("private_token"));
    }

    #[test]
    fn pages_have_bounds() {
        assert_eq!(Page::of(&Params::of_query("per_page=1000")).unwrap(), Page { number: 1, size: 100 });
        assert_eq!(Page::of(&Params::of_query("page=-5")).unwrap().offset(), 0);
        assert!(Page::of(&Params::of_query("per_page=0")).is_err());
        assert!(Page::of(&Params::of_query("page=9223372036854775807&per_page=100")).is_ok());
        assert!(Page::of(&Params::of_query("page=x")).is_err());
    }
}
