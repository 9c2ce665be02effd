//! Cookies: how one is read from a request, and how Grafana writes its own.

use axum::http::{HeaderMap, HeaderValue, header};

/// The value of a cookie that the browser sent.
pub fn of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// A cookie for so many seconds; for none, it is deleted. `value` must be letters, digits, `-` and `_`.
pub fn set(name: &str, value: &str, path: &str, seconds: u32) -> HeaderValue {
    let line = format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; Secure; SameSite=Lax");
    HeaderValue::try_from(line).expect("names and values are letters, digits and dashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&str>) {
        let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap())]);
        assert_eq!(of(&headers, "a"), expected);
    }

    #[test]
    fn the_first_cookie_of_that_name_counts() {
        check("a=1", Some("1"));
        check("b=2; a=1; a=3", Some("1"));
        check("aa=1;a=", Some(""));
        check("a; =a; b=a=1", None);
        check("a=\u{e9}", None);
    }
}
