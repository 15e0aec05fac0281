//! What is shown on a terminal.

use std::error::Error;
use std::io::BufRead;

/// Reads until the words have been shown; an error where the terminal is closed before.
pub fn await_shown(screen: &mut impl BufRead, words: &[u8]) -> Result<(), Box<dyn Error>> {
    let (last, mut seen) = (*words.last().ok_or("nothing to wait for")?, Vec::new());
    while !seen.ends_with(words) {
        if screen.read_until(last, &mut seen)? == 0 {
            return Err(format!("the terminal was closed after {}", String::from_utf8_lossy(&seen)).into());
        }
    }
    Ok(())
}
