//! The list of skips that CI accepts: one `name  # reason` a line.

use std::{fs, path::Path};

use crate::{error::Error, libtest::Skip};

/// The names on the list; a missing list, or a name without a reason, is an error.
pub(crate) fn read(path: &Path) -> Result<Vec<String>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File { action: "read", path: path.to_owned(), source })?;
    parse(&text).map_err(|line| Error::SkipList { path: path.to_owned(), line })
}

/// The names, or the number of the first line that has no reason. Empty lines and lines that start with `#` are comments.
fn parse(text: &str) -> Result<Vec<String>, usize> {
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| match line.split_once('#') {
            Some((name, reason)) if !reason.trim().is_empty() => Ok(name.trim().to_owned()),
            _ => Err(number),
        })
        .collect()
}

/// The skips that are not on the list.
pub(crate) fn unexpected<'a>(skips: &'a [Skip], expected: &[String]) -> Vec<&'a Skip> {
    skips.iter().filter(|skip| !expected.contains(&skip.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Skip, parse, unexpected};

    #[test]
    fn comments_and_reasons_are_not_names() {
        assert_eq!(parse("# a comment\n\ntcx  # needs Linux 6.6\n"), Ok(vec!["tcx".to_owned()]));
    }

    #[test]
    fn a_name_needs_a_reason() {
        assert_eq!(parse("# a comment\ntcx\n"), Err(2));
        assert_eq!(parse("tcx #  \n"), Err(1));
    }

    #[test]
    fn only_what_is_not_listed_is_unexpected() {
        let skip = |name: &str| Skip { name: name.to_owned(), reason: "because".to_owned() };
        let skips = [skip("tcx"), skip("lab")];
        assert_eq!(unexpected(&skips, &["tcx".to_owned()]), [&skip("lab")]);
    }
}
