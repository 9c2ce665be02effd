//! What `nix` prints: the JSON of `nix build` and `nix path-info`, and its version. The shapes differ between releases;
//! every one of 2.4 and later is read.

use serde_json::Value;

/// What `nix build --json` says it built.
#[derive(Debug, PartialEq, Eq)]
pub struct Built {
    /// The derivation, unless the installable was a store path.
    pub derivation: Option<String>,
    /// The store path of its output.
    pub output: String,
    /// Seconds the build took, where it was built just now and Nix says so (2.12 and later).
    pub seconds: Option<u64>,
}

impl Built {
    /// Reads what one installable gave.
    ///
    /// # Errors
    /// What is missing or more than it should be.
    pub fn of(json: &str) -> Result<Self, String> {
        let printed: Value = serde_json::from_str(json).map_err(|error| format!("nix printed no JSON: {error}"))?;
        let built = match printed.as_array().map(Vec::as_slice) {
            Some([one]) => one,
            Some([]) => return Err("nix built nothing".to_owned()),
            Some(several) => return Err(format!("it is {} things, not one", several.len())),
            None => return Err("nix printed JSON that is no list".to_owned()),
        };
        // A store path as it is: a text since 2.15, before that an object.
        if let Some(path) = built.as_str().or(built["path"].as_str()) {
            return Ok(Self { derivation: None, output: path.to_owned(), seconds: None });
        }
        let outputs = built["outputs"].as_object().ok_or("nix printed no outputs")?;
        let output = match (outputs.get("out"), outputs.len()) {
            (Some(out), _) => Some(out),
            (None, 1) => outputs.values().next(),
            (None, _) => None,
        };
        let output = output.and_then(Value::as_str).ok_or("it has no output `out`")?;
        let seconds = match (built["startTime"].as_u64(), built["stopTime"].as_u64()) {
            (Some(start @ 1..), Some(stop)) => stop.checked_sub(start),
            _ => None,
        };
        let derivation = built["drvPath"].as_str().map(str::to_owned);
        Ok(Self { derivation, output: output.to_owned(), seconds })
    }
}

/// The `narHash` of the one path that `nix path-info --json` was asked about: `sha256-…`. A list until 2.18, then an
/// object by path, then one by name below `info`; the hash a text, or an object of its own.
pub fn nar_hash(json: &str) -> Option<String> {
    fn find(value: &Value) -> Option<&Value> {
        match value {
            Value::Object(object) => object.get("narHash").or_else(|| object.values().find_map(find)),
            Value::Array(list) => list.iter().find_map(find),
            _ => None,
        }
    }
    let printed = serde_json::from_str(json).ok()?;
    let hash = find(&printed)?;
    hash.as_str().map(str::to_owned).or_else(|| {
        let (algorithm, digits) = (hash["algorithm"].as_str()?, hash["hash"].as_str()?);
        (hash["format"] == "base64").then(|| format!("{algorithm}-{digits}"))
    })
}

/// Major and minor of what `nix --version` prints: `nix (Nix) 2.8.0`, `nix (Lix, like Nix) 2.93.3`.
pub fn version(line: &str) -> Option<(u64, u64)> {
    let number = line.trim().strip_prefix("nix (")?.rsplit(' ').next()?;
    let mut parts = number.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: Result<(Option<&str>, &str, Option<u64>), &str>) {
        let expected = expected.map_err(str::to_owned).map(|(derivation, output, seconds)| Built {
            derivation: derivation.map(str::to_owned),
            output: output.to_owned(),
            seconds,
        });
        assert_eq!(Built::of(json), expected, "{json}");
    }

    #[test]
    fn what_was_built() {
        check(r#"[{"drvPath":"/n/a.drv","outputs":{"out":"/n/a"}}]"#, Ok((Some("/n/a.drv"), "/n/a", None)));
        check(
            r#"[{"cpuUser":1.2,"drvPath":"/n/a.drv","outputs":{"out":"/n/a"},"startTime":1669024076,"stopTime":1669024079}]"#,
            Ok((Some("/n/a.drv"), "/n/a", Some(3))),
        );
        check(
            r#"[{"drvPath":"/n/a.drv","outputs":{"out":"/n/a"},"startTime":0,"stopTime":0}]"#,
            Ok((Some("/n/a.drv"), "/n/a", None)),
        );
        check(r#"[{"drvPath":"/n/a.drv","outputs":{"image":"/n/b"}}]"#, Ok((Some("/n/a.drv"), "/n/b", None)));
        check(r#"[{"path":"/n/a"}]"#, Ok((None, "/n/a", None)));
        check(r#"["/n/a"]"#, Ok((None, "/n/a", None)));
        check(r#"[{"drvPath":"/n/a.drv","outputs":{"a":"/n/a","b":"/n/b"}}]"#, Err("it has no output `out`"));
        check(r#"["/n/a","/n/b"]"#, Err("it is 2 things, not one"));
        check("[]", Err("nix built nothing"));
        check("{}", Err("nix printed JSON that is no list"));
        check("[{}]", Err("nix printed no outputs"));
        check("", Err("nix printed no JSON: EOF while parsing a value at line 1 column 0"));
    }

    #[test]
    fn hashes_of_every_release() {
        let check = |json: &str, expected: Option<&str>| assert_eq!(nar_hash(json).as_deref(), expected, "{json}");
        check(r#"[{"path":"/n/a","narHash":"sha256-AA=","narSize":792}]"#, Some("sha256-AA="));
        check(r#"{"/n/a":{"ca":null,"narHash":"sha256-AA="}}"#, Some("sha256-AA="));
        check(r#"{"info":{"a":{"narHash":"sha256-AA=","version":2}},"storeDir":"/n"}"#, Some("sha256-AA="));
        check(r#"{"/n/a":{"narHash":{"algorithm":"sha256","format":"base64","hash":"AA="}}}"#, Some("sha256-AA="));
        check(r#"{"/n/a":null}"#, None);
        check("no JSON", None);
    }

    #[test]
    fn versions_of_every_nix() {
        let check = |line: &str, expected| assert_eq!(version(line), expected, "{line}");
        check("nix (Nix) 2.8.0\n", Some((2, 8)));
        check("nix (Nix) 2.34.0pre20260101_abcdef", Some((2, 34)));
        check("nix (Lix, like Nix) 2.93.3", Some((2, 93)));
        check("nix (Determinate Nix 3.8.2) 2.30.1", Some((2, 30)));
        check("nix (Nix) 2.4pre", Some((2, 4)));
        check("unix 2.8.0", None);
        check("nix (Nix)", None);
        check("", None);
    }
}
