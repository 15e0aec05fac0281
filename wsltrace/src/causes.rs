//! An error with all that caused it, in one line.

use std::error::Error;
use std::io;

use nix::errno::Errno;

/// The text of an error, then those of its causes, each behind a colon.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = words(error);
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&words(deeper));
        cause = deeper.source();
    }
    text
}

/// What the system says went wrong, lower case and without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_lowercase())
}

fn words(error: &(dyn Error + 'static)) -> String {
    error.downcast_ref().map_or_else(|| error.to_string(), reason)
}

#[cfg(test)]
mod tests {
    use std::io;

    #[test]
    fn every_cause_is_told_once() {
        let error = crate::lab::LabError::Io { doing: "cannot".to_owned(), source: io::Error::other("why") };
        assert_eq!(super::with_causes(&error), format!("{error}: why"));
        let error = crate::lab::LabError::Io { doing: "read it".to_owned(), source: io::Error::from_raw_os_error(2) };
        assert_eq!(super::with_causes(&error), "cannot read it: no such file or directory");
    }
}
