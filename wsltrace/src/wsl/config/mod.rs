//! WSL's two configuration files: `/etc/wsl.conf` of a distribution and `.wslconfig` of a Windows user. They are read here as WSL
//! reads them, which is not as most programs read such files: only `#` begins a comment, anywhere outside of quotes; a backslash
//! begins an escape; of two lines with one key the first counts; and an invalid line is skipped in `.wslconfig`, but ends the
//! reading of `wsl.conf`. (Read in WSL's source, `src/shared/configfile/configfile.cpp`; not run.)

mod keys;
mod lint;
#[cfg(test)]
mod lint_tests;

pub use lint::{ConfigProblem, Hint, lint};

/// Longest file that is read, bytes; WSL's own are a few hundred.
const MAX_LEN: usize = 256 << 10;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigFile {
    /// `/etc/wsl.conf`, one for each distribution.
    WslConf,
    /// `%UserProfile%\.wslconfig`, one for each Windows user.
    WslConfig,
}

impl ConfigFile {
    /// How people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::WslConf => "/etc/wsl.conf",
            Self::WslConfig => ".wslconfig",
        }
    }
}

/// One `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its line, from 1.
    pub line: usize,
    /// The section it stands in, as written; empty before any.
    pub section: String,
    /// Its key, as written.
    pub key: String,
    /// Its value without comment, quotes and escapes.
    pub value: String,
}

/// What a file sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    entries: Vec<Entry>,
}

impl Config {
    /// Reads all valid lines.
    pub fn parse(text: &str) -> Self {
        let mut section = String::new();
        let mut entries = Vec::new();
        for line in lines(text) {
            match line.content {
                Content::Section(name) => name.clone_into(&mut section),
                Content::Entry { key, value: Ok(value), .. } => {
                    entries.push(Entry { line: line.number, section: section.clone(), key: key.to_owned(), value });
                }
                Content::Blank | Content::Invalid | Content::Entry { .. } => {}
            }
        }
        Self { entries }
    }

    /// The value of a key, whatever the case of its letters; the first where there are several, as WSL takes it.
    pub fn get(&self, section: &str, key: &str) -> Option<&str> {
        let is = |entry: &&Entry| entry.section.eq_ignore_ascii_case(section) && entry.key.eq_ignore_ascii_case(key);
        self.entries.iter().find(is).map(|entry| entry.value.as_str())
    }

    /// A key that is a boolean; `None` when it is not set, or is none.
    pub fn flag(&self, section: &str, key: &str) -> Option<bool> {
        self.get(section, key).and_then(boolean)
    }

    /// The networking mode that a `.wslconfig` asks for; early versions had the key under `[experimental]`, and still there
    /// it counts.
    pub fn networking_mode(&self) -> Option<&str> {
        let is = |entry: &&Entry| {
            entry.key.eq_ignore_ascii_case("networkingMode")
                && ["wsl2", "experimental"].iter().any(|section| entry.section.eq_ignore_ascii_case(section))
        };
        self.entries.iter().find(is).map(|entry| entry.value.as_str())
    }

    /// Whether `ignoredPorts` has a port: Windows is not told of servers on it.
    pub fn ignores(&self, port: u16) -> bool {
        self.get("experimental", "ignoredPorts").is_some_and(|ports| has_port(ports, port))
    }

    /// All entries, in the file's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// The text of a configuration file: UTF-8, or UTF-16 with a byte order mark, as some editors on Windows save it.
pub fn decode(bytes: &[u8]) -> String {
    let bytes = bytes.get(..MAX_LEN).unwrap_or(bytes);
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Whether a list of ports, such as `3000,9000`, has one.
fn has_port(ports: &str, port: u16) -> bool {
    ports.split(',').any(|one| one.trim().parse() == Ok(port))
}

/// What WSL takes for a boolean.
fn boolean(value: &str) -> Option<bool> {
    if value == "1" || value.eq_ignore_ascii_case("true") {
        Some(true)
    } else if value == "0" || value.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// One line of a file.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    /// Its number, from 1.
    number: usize,
    /// It as written, without the end of the line and spaces around it.
    raw: &'a str,
    content: Content<'a>,
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
enum Content<'a> {
    /// Nothing, or a comment.
    Blank,
    /// `[name]`.
    Section(&'a str),
    /// `key = value`; the value may be an error.
    Entry { key: &'a str, raw: &'a str, value: Result<String, BadValue> },
    /// Nothing that WSL understands.
    Invalid,
}

/// Why WSL takes no value from a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BadValue {
    /// A backslash before something that makes no escape.
    Escape,
    /// A quote without its end.
    Quote,
}

/// The lines of a file. A value that goes on in the next line by a backslash at the end is not put together: nothing that is
/// looked at here is that long.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut goes_on = false;
    text.lines().enumerate().map(move |(index, line)| {
        let raw = line.trim_matches([' ', '\t', '\r']);
        let content = if std::mem::take(&mut goes_on) { Content::Blank } else { content(raw) };
        goes_on = !matches!(content, Content::Blank | Content::Invalid) && raw.ends_with('\\') && !raw.ends_with("\\\\");
        Line { number: index + 1, raw, content }
    })
}

fn content(raw: &str) -> Content<'_> {
    if raw.is_empty() || raw.starts_with('#') {
        return Content::Blank;
    }
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.chars().all(|letter| letter.is_ascii_alphanumeric())
    };
    if let Some(rest) = raw.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((name, rest)) if is_name(name) && matches!(content(rest.trim_start()), Content::Blank) => Content::Section(name),
            _ => Content::Invalid,
        };
    }
    match raw.split_once('=') {
        Some((key, value)) if is_name(key.trim_end()) => {
            let value = value.trim_start();
            Content::Entry { key: key.trim_end(), raw: value, value: unescape(value) }
        }
        _ => Content::Invalid,
    }
}

/// A value without comment, quotes and escapes.
fn unescape(raw: &str) -> Result<String, BadValue> {
    let mut value = String::new();
    let mut trimmed = 0;
    let mut quoted = false;
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '#' if !quoted => break,
            '\\' => match characters.next() {
                Some(same @ ('\\' | '"')) => value.push(same),
                Some('b') => value.push('\u{8}'),
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                None => {}
                Some(_) => return Err(BadValue::Escape),
            },
            other => value.push(other),
        }
        // A space in quotes counts too only when something follows it: so does WSL.
        if !matches!(character, ' ' | '\t') {
            trimmed = value.len();
        }
    }
    if quoted {
        return Err(BadValue::Quote);
    }
    value.truncate(trimmed);
    Ok(value)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_whatever_the_case_and_spaces() {
        let config = Config::parse(
            "\u{feff}# mine\r\n[WSL2]\r\n  NetworkingMode = Mirrored # like Windows\r\nlocalhostForwarding=FALSE\r\n",
        );
        assert_eq!(config.get("wsl2", "networkingMode"), Some("Mirrored"));
        assert_eq!(config.networking_mode(), Some("Mirrored"));
        assert_eq!(config.flag("wsl2", "localhostforwarding"), Some(false));
        assert_eq!(config.get("wsl2", "memory"), None);
        assert_eq!(config.entries().first().unwrap().line, 3);
    }

    #[test]
    fn of_two_lines_the_first_counts() {
        let config =
            Config::parse("[experimental]\nnetworkingMode=nat\n[wsl2]\nnetworkingMode=mirrored\nmemory=1GB\nmemory=2GB\n");
        assert_eq!(config.networking_mode(), Some("nat"));
        assert_eq!(config.get("wsl2", "memory"), Some("1GB"));
    }

    #[test]
    fn quotes_and_escapes_are_those_of_wsl() {
        assert_eq!(unescape(r"C:\\Users\\me\\bzImage").unwrap(), r"C:\Users\me\bzImage");
        assert_eq!(unescape("\"a # b\" # c").unwrap(), "a # b");
        assert_eq!(unescape(r"C:\Users").unwrap_err(), BadValue::Escape);
        assert_eq!(unescape("\"open").unwrap_err(), BadValue::Quote);
        assert_eq!(unescape(r"C:\new").unwrap(), "C:\new");
        assert_eq!(unescape("two words  ").unwrap(), "two words");
        assert_eq!(unescape("").unwrap(), "");
    }

    #[test]
    fn files_of_windows_editors_are_decoded() {
        let text = "[wsl2]\r\nmemory=4GB\r\n";
        let le: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let be: Vec<u8> = [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        let marked = [b"\xef\xbb\xbf".as_slice(), text.as_bytes()].concat();
        for bytes in [le, be, marked, text.as_bytes().to_vec()] {
            assert_eq!(decode(&bytes), text);
        }
        assert_eq!(decode(&[0xff, 0xfe, 0x5b]), "");
        assert_eq!(decode(b"\x80"), "\u{fffd}");
        assert_eq!(decode(&vec![b'a'; MAX_LEN + 5]).len(), MAX_LEN);
    }

    #[test]
    fn anything_is_read_without_a_panic() {
        for text in ["", "[", "[]", "[a", "[a]b", "=", "a", "a=", "[é]\né=1", "a=\\", "\\", "\r\r\n", "[a] # x", "\u{feff}"] {
            let _ = Config::parse(text);
        }
        assert_eq!(Config::parse("[a]\nb=1\\\nc=2\nd=3").get("a", "d"), Some("3"));
        assert_eq!(Config::parse("[a]\nb=1\\\nc=2").get("a", "c"), None);
    }
}
