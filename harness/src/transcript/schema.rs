//! The published schema of transcripts (JSON Schema 2020-12), made from the types that are written and read.

use super::model::{SCHEMA, Transcript};

/// What the schema says of itself: the rule for changes.
const RULE: &str = "The signed record of one session of rave-hermetic. The file is the canonical form (RFC 8785) of this document; all \
numbers are whole, below 2^53; times are RFC 3339 in UTC; a field's unit is in its name or its description. \
The field `schema` is the version. Rule for changes: any field that is added, taken away or given another meaning makes a new version. \
A new version keeps the names and meanings of the old one; a field it adds may be absent, and is absent in documents of older versions, so that \
they still have one byte form and still verify. A reader reads every version up to its own and refuses any other, and any field it does not know. \
One real transcript of each version lies in harness/transcripts/, and the tests verify them all.";

/// The schema as it lies in `harness/transcript.schema.json`: pretty-printed JSON with a final newline.
pub fn text() -> String {
    let mut schema = schemars::schema_for!(Transcript);
    schema.insert("title".to_owned(), format!("rave-hermetic boot transcript, version {SCHEMA}").into());
    schema.insert("description".to_owned(), RULE.into());
    format!("{:#}\n", schema.to_value())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let published = include_str!("../../transcript.schema.json");
        assert!(text() == published, "write it anew: hermetic schema > harness/transcript.schema.json");
    }

    #[test]
    fn every_field_says_what_it_is() {
        let schema: Value = serde_json::from_str(&text()).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let types = schema["$defs"].as_object().unwrap().iter().map(|(name, found)| (name.as_str(), found));
        for (name, found) in types.chain([("Transcript", &schema)]) {
            assert!(found["description"].is_string(), "{name}");
            for (field, found) in found["properties"].as_object().into_iter().flatten() {
                // A field of a type of its own is described there as well.
                assert!(found["description"].is_string(), "{name}.{field}");
            }
        }
    }
}
