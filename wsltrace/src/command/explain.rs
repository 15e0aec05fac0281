//! `wsltrace explain`: the pages of the manual that the diagnoses point to.

use super::Failure;
use crate::output::{Shown, TextOptions, Verbosity, explain};

/// Prints the page of a word, or the list of words.
pub fn run(word: Option<&str>) -> Result<(), Failure> {
    let options = TextOptions::detect(Verbosity::Normal, Shown::default());
    let text = match word {
        Some(word) => explain::explain(word, options).map_err(|error| Failure::usage(error.to_string(), "wsltrace explain"))?,
        None => explain::index(options),
    };
    super::print(text)
}
