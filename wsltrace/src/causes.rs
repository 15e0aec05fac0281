//! An error with all that caused it, in one line.

use std::error::Error;

/// The text of an error, then those of its causes, each behind a colon.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    #[test]
    fn every_cause_is_told_once() {
        let error = crate::lab::LabError::Io { doing: "cannot".to_owned(), source: io::Error::other("why") };
        assert_eq!(super::with_causes(&error), format!("{error}: why"));
    }
}
