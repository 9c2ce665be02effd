//! The published schema of transcripts (JSON Schema 2020-12), made from the types that are written and read.

use super::model::Transcript;

/// The schema as it lies in `harness/transcript.schema.json`: pretty-printed JSON with a final newline.
pub fn text() -> String {
    let schema = schemars::schema_for!(Transcript);
    format!("{:#}\n", schema.to_value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let published = include_str!("../../transcript.schema.json");
        assert!(text() == published, "write it anew: hermetic schema > harness/transcript.schema.json");
    }
}
