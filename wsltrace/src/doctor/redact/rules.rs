//! Hides what people write into firewall rules: comments, prefixes of logs, names of sets and of users. Tables, chains, ports and
//! interfaces stay, without which a rule tells nothing.

/// What stands before something private, what that is, and whether it is so without quotes too: nft's words are words of sentences.
const BEFORE: [(&str, &str, bool); 12] = [
    ("comment", "comment", false),
    ("prefix", "prefix", false),
    ("skuid", "user", false),
    ("skgid", "group", false),
    ("--comment", "comment", true),
    ("--log-prefix", "prefix", true),
    ("--nflog-prefix", "prefix", true),
    ("--match-set", "set", true),
    ("--add-set", "set", true),
    ("--uid-owner", "user", true),
    ("--gid-owner", "group", true),
    ("@", "set", true),
];
/// What nft calls the parts of a packet, behind the sign that stands before names of sets.
const PARTS: [&str; 4] = ["ll,", "nh,", "th,", "ih,"];

/// What stands for each word that is hidden.
#[derive(Debug, Default)]
pub(super) struct Private(Vec<(&'static str, String)>);

impl Private {
    /// A text in which rules may stand, with everything private in them numbered.
    pub(super) fn hidden(&mut self, text: &str) -> String {
        let mut hidden = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((at, kind, bare)) = next(rest) {
            let (before, value) = rest.split_at(at);
            hidden.push_str(before);
            let (word, len) = match value.strip_prefix('"') {
                Some(quoted) => {
                    let len = end_of_quoted(quoted);
                    (&quoted[..len], len + 1 + usize::from(len < quoted.len()))
                }
                None if bare => {
                    let len = value.find(|c: char| c.is_whitespace() || "`'\",;(){}".contains(c)).unwrap_or(value.len());
                    (&value[..len], len)
                }
                None => ("", 0),
            };
            let quote = if value.starts_with('"') { "\"" } else { "" };
            if is_private(kind, word) {
                hidden.extend([quote, &self.number(kind, word), quote]);
            } else {
                hidden.push_str(&value[..len]);
            }
            rest = &value[len..];
        }
        hidden.push_str(rest);
        hidden
    }

    fn number(&mut self, kind: &'static str, word: &str) -> String {
        let of_kind: Vec<&String> = self.0.iter().filter(|(of, _)| *of == kind).map(|(_, known)| known).collect();
        let known = of_kind.iter().position(|known| *known == word);
        let before = known.unwrap_or(of_kind.len());
        if known.is_none() {
            self.0.push((kind, word.to_owned()));
        }
        format!("{kind}-{}", before + 1)
    }
}

/// Where the next value begins that may be private.
fn next(text: &str) -> Option<(usize, &'static str, bool)> {
    let of = |(before, kind, bare): (&str, &'static str, bool)| {
        let is_set = before == "@";
        let word = if is_set { before.to_owned() } else { format!("{before} ") };
        let starts = |at: &usize| text[..*at].chars().next_back().is_none_or(|c| c.is_whitespace() || "\"'`({".contains(c));
        let at = text.match_indices(&word).map(|(at, _)| at).filter(starts).map(|at| at + word.len()).find(|at| {
            let value = &text[*at..];
            if is_set {
                value.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            } else {
                bare || without_operator(value).1.starts_with('"')
            }
        })?;
        let (operator, _) = without_operator(&text[at..]);
        Some((at + operator, kind, bare))
    };
    BEFORE.into_iter().filter_map(of).min_by_key(|(at, ..)| *at)
}

/// How long an operator before a value is, and what stands behind it.
fn without_operator(value: &str) -> (usize, &str) {
    ["!= ", "== "].into_iter().find_map(|operator| Some((operator.len(), value.strip_prefix(operator)?))).unwrap_or((0, value))
}

/// Where a quoted text ends, whose quotes a backslash makes part of it.
fn end_of_quoted(text: &str) -> usize {
    let mut escaped = false;
    let ends = |(_, c): &(usize, char)| {
        let end = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        end
    };
    text.char_indices().find(ends).map_or(text.len(), |(at, _)| at)
}

/// Numbers and names that every machine has tell nothing.
fn is_private(kind: &str, word: &str) -> bool {
    let everybodys = match kind {
        "set" => word.starts_with("__") || PARTS.iter().any(|part| format!("{word},").starts_with(part)),
        _ => word == "root",
    };
    !word.is_empty() && !everybodys && !word.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_into_rules_is_numbered() {
        let mut private = Private::default();
        for (text, hidden) in [
            (
                r#"tcp dport 8080 drop comment "Eve: ticket 7" # handle 5"#,
                r#"tcp dport 8080 drop comment "comment-1" # handle 5"#,
            ),
            (r#"ip saddr @bobs counter log prefix "ACME " drop"#, r#"ip saddr @set-1 counter log prefix "prefix-1" drop"#),
            (r#"meta skuid != "eve" drop comment "Eve: ticket 7""#, r#"meta skuid != "user-1" drop comment "comment-1""#),
            (
                "skuid 1000 drop; meta skuid \"root\"; @th,16,16 80; @__set0",
                "skuid 1000 drop; meta skuid \"root\"; @th,16,16 80; @__set0",
            ),
            (r#"-m comment --comment "a \"b\" c" -j DROP"#, r#"-m comment --comment "comment-2" -j DROP"#),
            (
                "-m set --match-set bobs src -m comment --comment x -j DROP`",
                "-m set --match-set set-1 src -m comment --comment comment-3 -j DROP`",
            ),
            ("-m owner ! --uid-owner eve --gid-owner 7", "-m owner ! --uid-owner user-1 --gid-owner 7"),
            (
                r#"a comment on it, the prefix of a network, a@b.c, comment "unfinished"#,
                r#"a comment on it, the prefix of a network, a@b.c, comment "comment-4""#,
            ),
        ] {
            assert_eq!(private.hidden(text), hidden);
        }
    }
}
