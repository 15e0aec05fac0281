//! What is wrong in WSL's configuration files. WSL itself tells of some of it, in a line that scrolls away when the first window
//! opens; of what bears on a server that cannot be reached it tells nothing.

use super::keys::{self, Kind};
use super::{BadValue, ConfigFile, Content, Line, boolean, has_port, lines};

/// How a problem bears on reaching a server from Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// With this setting in force, and a networking mode to which it applies, Windows cannot reach the server.
    WillFail,
    /// The line does not do what it says.
    Suspicious,
    /// Nothing is wrong, but it bears on who can reach the server.
    Information,
}

/// One thing in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file.
    pub file: ConfigFile,
    /// Its line, from 1.
    pub line: usize,
    /// How it bears on the server.
    pub hint: Hint,
    /// The section and key that it is about, when WSL knows them: `wsl2.localhostForwarding`.
    pub key: Option<String>,
    /// What is wrong: one sentence without its full stop, with words from the file that are not yet escaped.
    pub what: String,
    /// The file that the corrected lines belong into.
    pub belongs: ConfigFile,
    /// What the line should be; several where it belongs into another section, empty where it may stay.
    pub corrected: Vec<String>,
}

/// Looks for mistakes, and for settings that bear on `port`; in the order of the lines.
pub fn lint(which: ConfigFile, text: &str, port: u16) -> Vec<ConfigProblem> {
    let mut linter = Linter { which, port, section: None, seen: Vec::new(), problems: Vec::new() };
    for line in lines(text) {
        match &line.content {
            Content::Blank => {}
            Content::Section(name) => linter.section(&line, name),
            Content::Entry { key, raw, value } => linter.entry(&line, key, raw, value.as_deref().map_err(|bad| *bad)),
            Content::Invalid => linter.invalid(&line),
        }
    }
    for problem in &mut linter.problems {
        // A value may have a line break by an escape, and a problem is one sentence.
        problem.what = problem.what.replace(char::is_control, " ");
    }
    linter.problems
}

struct Linter<'a> {
    which: ConfigFile,
    port: u16,
    /// The section that the lines are in; `None` before any.
    section: Option<&'a str>,
    /// What was set, and in which line.
    seen: Vec<(String, usize)>,
    problems: Vec<ConfigProblem>,
}

impl<'a> Linter<'a> {
    fn tell(&mut self, line: &Line<'_>, hint: Hint, what: String, corrected: Vec<String>) {
        let file = self.which;
        self.problems.push(ConfigProblem { file, line: line.number, hint, key: None, what, belongs: file, corrected });
    }

    fn tell_of(&mut self, key: &str, line: &Line<'_>, hint: Hint, what: &str, corrected: Vec<String>) {
        self.tell(line, hint, what.to_owned(), corrected);
        if let Some(problem) = self.problems.last_mut() {
            problem.key = Some(key.to_owned());
        }
    }

    /// Says of the problem told last into which file its corrected lines belong.
    fn belongs(&mut self, file: ConfigFile) {
        if let Some(problem) = self.problems.last_mut() {
            problem.belongs = file;
        }
    }

    /// What becomes of the rest of the file after a line that WSL does not understand.
    fn consequence(&self) -> &'static str {
        match self.which {
            ConfigFile::WslConf => "WSL reads no further in this file",
            ConfigFile::WslConfig => "WSL skips it",
        }
    }

    fn invalid(&mut self, line: &Line<'_>) {
        let consequence = self.consequence();
        if line.raw.starts_with(';') {
            let what = format!("WSL takes only # as the beginning of a comment, not ;: {consequence}");
            self.tell(line, Hint::Suspicious, what, vec![format!("#{}", line.raw.trim_start_matches(';'))]);
        } else {
            let what = format!("{} is neither a [section] nor key=value: {consequence}", line.raw);
            self.tell(line, Hint::Suspicious, what, vec![format!("# {}", line.raw)]);
        }
    }

    fn section(&mut self, line: &Line<'a>, name: &'a str) {
        self.section = Some(name);
        if keys::section(self.which, name).is_some() {
            return;
        }
        let here = || keys::SECTIONS.iter().filter(|section| section.file == self.which).map(|section| section.name);
        let other = match self.which {
            ConfigFile::WslConf => ConfigFile::WslConfig,
            ConfigFile::WslConfig => ConfigFile::WslConf,
        };
        let (what, corrected) = if keys::section(other, name).is_some() {
            (
                format!("[{name}] is a section of {}, not of {}: WSL ignores what stands in it", other.name(), self.which.name()),
                None,
            )
        } else if let Some(meant) = keys::nearest(name, here()) {
            (format!("[{name}] is no section that WSL knows; [{meant}] is"), Some(format!("[{meant}]")))
        } else {
            (format!("[{name}] is no section that WSL knows: it ignores what stands in it"), None)
        };
        self.tell(line, Hint::Suspicious, what, vec![corrected.unwrap_or_else(|| format!("# {}", line.raw))]);
    }

    fn entry(&mut self, line: &Line<'_>, key: &str, raw: &str, value: Result<&str, BadValue>) {
        let known = self.section.map(|name| keys::section(self.which, name));
        let Some(kind) = known.flatten().and_then(|section| section.kind(key)) else {
            // A section that WSL does not know has been told of; its keys are told of only when they would count elsewhere.
            self.stray(line, key, raw, known.is_some_and(|section| section.is_none()));
            return;
        };
        let path = format!("{}.{key}", self.section.unwrap_or_default()).to_ascii_lowercase();
        // A path with a single backslash may be a valid value too (`\n`, `\t`, `\b`), but never the one that was meant.
        let single = single_backslash(raw);
        match value {
            Err(BadValue::Quote) => {
                let what = format!("the value of {key} begins with a quote that does not end: {}", self.consequence());
                self.tell(line, Hint::Suspicious, what, vec![format!("{key}={}", raw.replace('"', ""))]);
            }
            Err(BadValue::Escape) => self.backslash(line, key, raw),
            Ok(_) if kind == Kind::Path && single => self.backslash(line, key, raw),
            Ok(value) => {
                if self.again(line, key, &path) {
                    return;
                }
                if kind == Kind::Bool && boolean(value).is_none() {
                    let meant = meant_boolean(value);
                    let what = format!("{key} takes true or false, not {value}: WSL ignores the line");
                    self.tell(line, Hint::Suspicious, what, vec![format!("{key}={meant}")]);
                } else if let Kind::Word(words) = kind
                    && !words.iter().any(|word| word.eq_ignore_ascii_case(value))
                {
                    self.word(line, key, value, words);
                } else {
                    self.settings(line, &path, key, value);
                }
            }
        }
    }

    fn backslash(&mut self, line: &Line<'_>, key: &str, raw: &str) {
        let what = format!("a backslash in the value of {key} must be written twice");
        self.tell(line, Hint::Suspicious, what, vec![format!("{key}={}", double_backslashes(raw))]);
    }

    /// Whether the key was set before, which is told: the first counts.
    fn again(&mut self, line: &Line<'_>, key: &str, path: &str) -> bool {
        // The four keys that moved are one setting, whichever section they stand in.
        let moved = ["networkingmode", "firewall", "dnstunneling", "autoproxy"].iter().any(|name| key.eq_ignore_ascii_case(name));
        let setting = if moved { key.to_ascii_lowercase() } else { path.to_owned() };
        if let Some((_, first)) = self.seen.iter().find(|(seen, _)| *seen == setting) {
            let what = format!("{key} was already set in line {first}, and WSL takes the first");
            self.tell(line, Hint::Suspicious, what, vec![format!("# {}", line.raw)]);
            return true;
        }
        self.seen.push((setting, line.number));
        false
    }

    fn word(&mut self, line: &Line<'_>, key: &str, value: &str, words: &'static [&'static str]) {
        let what = format!("{key} takes {}, not {value}: WSL ignores the line", words.join(", "));
        let corrected = match keys::nearest(value, words.iter().copied()) {
            Some(meant) => format!("{key}={meant}"),
            None => format!("# {}", line.raw),
        };
        self.tell(line, Hint::Suspicious, what, vec![corrected]);
    }

    /// A key that does not belong where it stands.
    fn stray(&mut self, line: &Line<'_>, key: &str, raw: &str, in_unknown_section: bool) {
        let homes = keys::homes(self.which, key);
        if let Some((file, section, name)) = homes.first() {
            let what = match self.section {
                _ if *file != self.which => {
                    format!("{name} is a key of {}, under [{section}]; in {} WSL ignores it", file.name(), self.which.name())
                }
                None => format!("{name} stands before any section; it belongs under [{section}]"),
                Some(here) => format!("{name} belongs under [{section}], not under [{here}]"),
            };
            self.tell(line, Hint::Suspicious, what, vec![format!("[{section}]"), format!("{name}={raw}")]);
            self.belongs(*file);
            return;
        }
        if in_unknown_section {
            return;
        }
        let here = keys::SECTIONS.iter().filter(|section| {
            section.file == self.which && self.section.is_none_or(|name| section.name.eq_ignore_ascii_case(name))
        });
        let elsewhere = || keys::SECTIONS.iter().flat_map(|section| section.keys.iter().map(|(name, _)| *name));
        let meant = keys::nearest(key, here.flat_map(|section| section.keys.iter().map(|(name, _)| *name)))
            .or_else(|| keys::nearest(key, elsewhere()));
        let Some(meant) = meant else {
            let what = format!("{key} is no key that WSL is known to read here; it ignores unknown ones");
            self.tell(line, Hint::Suspicious, what, vec![format!("# {}", line.raw)]);
            return;
        };
        let homes = keys::homes(self.which, meant);
        let right = homes
            .iter()
            .any(|(file, section, _)| *file == self.which && self.section.is_some_and(|here| here.eq_ignore_ascii_case(section)));
        let mut corrected = vec![format!("{meant}={raw}")];
        let mut what = format!("{key} is no key that WSL knows; did you mean {meant}?");
        let mut belongs = self.which;
        if let Some((file, section, _)) = homes.first().filter(|_| !right) {
            what = format!("{key} is no key that WSL knows; did you mean {meant} in {} under [{section}]?", file.name());
            corrected.insert(0, format!("[{section}]"));
            belongs = *file;
        }
        self.tell(line, Hint::Suspicious, what, corrected);
        self.belongs(belongs);
    }

    /// Valid settings that bear on who reaches the server.
    fn settings(&mut self, line: &Line<'_>, path: &str, key: &str, value: &str) {
        let off = boolean(value) == Some(false);
        match path {
            "wsl2.localhostforwarding" if off => {
                let what = "localhostForwarding=false turns WSL's relay off: in the modes nat and bridged Windows' localhost does not lead to \
                            Linux";
                self.tell_of(path, line, Hint::WillFail, what, vec![format!("{key}=true")]);
            }
            "wsl2.networkingmode" | "experimental.networkingmode" if value.eq_ignore_ascii_case("none") => {
                let what = "networkingMode=none gives WSL no network at all";
                self.tell_of(path, line, Hint::WillFail, what, vec![format!("{key}=nat")]);
            }
            "wsl2.firewall" | "experimental.firewall" => {
                let what = if off {
                    "firewall=false: Hyper-V's firewall does not filter what comes in from other machines, except in the mode mirrored, \
                     where it always does"
                } else {
                    "firewall=true, which is the default: Hyper-V's firewall filters what comes in from other machines"
                };
                self.tell_of(path, line, Hint::Information, what, Vec::new());
            }
            "experimental.ignoredports" => {
                let is_port = |port: &&str| port.trim().parse() == Ok(self.port);
                if has_port(value, self.port) {
                    let others: Vec<&str> = value.split(',').filter(|port| !is_port(port)).map(str::trim).collect();
                    let what = format!(
                        "ignoredPorts lists {}: in the modes mirrored and consomme Windows is not told of a server on it, and does not lead to it",
                        self.port
                    );
                    self.tell_of(path, line, Hint::WillFail, &what, vec![format!("{key}={}", others.join(","))]);
                }
            }
            _ => {}
        }
    }
}

/// The boolean that was probably meant.
fn meant_boolean(value: &str) -> &'static str {
    let word: String = value.chars().take_while(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    if ["false", "no", "off", "disabled", "0", "n", "f"].contains(&word.as_str()) { "false" } else { "true" }
}

/// Whether there is a backslash that stands alone.
fn single_backslash(raw: &str) -> bool {
    raw != double_backslashes(raw)
}

/// Doubles the backslashes that stand alone; pairs, and those before a quote, stay.
fn double_backslashes(raw: &str) -> String {
    let mut out = String::new();
    let mut characters = raw.chars().peekable();
    while let Some(character) = characters.next() {
        out.push(character);
        if character == '\\' {
            match characters.next_if(|next| matches!(next, '\\' | '"')) {
                Some(next) => out.push(next),
                None => out.push('\\'),
            }
        }
    }
    out
}
