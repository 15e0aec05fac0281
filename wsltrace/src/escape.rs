//! Makes foreign strings (process names, interface names, rule texts) safe to print and safe to paste into a shell.
#![expect(clippy::format_push_string, reason = "a failing write! to a String cannot happen and would have to be handled")]

/// Shows control characters and characters that reorder or hide text as escapes such as `\x1b` or `\u{202e}`.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let code = u32::from(c);
        if c.is_control() && code < 0x100 {
            safe.push_str(&format!("\\x{code:02x}"));
        } else if c.is_control() || hides_text(c) {
            safe.push_str(&format!("\\u{{{code:x}}}"));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Quotes a word for a POSIX shell where it needs it; control characters become escapes first.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@%+=,".contains(c);
    let word = escape(word);
    if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn hides_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::{escape, shell_word};

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(escape("a\x1b[31mb\n\u{9b}c\u{202e}d"), r"a\x1b[31mb\x0a\x9bc\u{202e}d");
        assert_eq!(escape("plain \u{fc}ml\u{e4}ut"), "plain \u{fc}ml\u{e4}ut");
    }

    #[test]
    fn words_are_quoted_when_a_shell_would_read_them() {
        assert_eq!(shell_word("eth0.100"), "eth0.100");
        assert_eq!(shell_word("e;rm -rf $HOME"), "'e;rm -rf $HOME'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
