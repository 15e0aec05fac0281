//! The two answers of `netsh` for which there is no other command. Its words are in the language of Windows, so only the line of
//! dashes and the numbers after it are read.

use super::{DynamicPorts, ExcludedRange};

/// Most ranges that are read; Hyper-V reserves some dozens.
const MAX_RANGES: usize = 4096;

/// The lines after the last line of dashes; `None` when there is none.
fn table(text: &str) -> Option<impl Iterator<Item = &str>> {
    let is_rule = |line: &str| line.contains("---") && line.chars().all(|letter| letter == '-' || letter.is_whitespace());
    let rule = text.lines().position(is_rule)?;
    Some(text.lines().skip(rule + 1))
}

/// Reads `netsh interface ipv4 show excludedportrange protocol=tcp`; `None` when it is not such an answer.
pub(super) fn excluded(text: &str) -> Option<Vec<ExcludedRange>> {
    let range = |line: &str| {
        let mut words = line.split_whitespace();
        let (first, last) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let administered = match words.next() {
            None => false,
            Some("*") => true,
            Some(_) => return None,
        };
        (first <= last).then_some(ExcludedRange { first, last, administered })
    };
    Some(table(text)?.filter_map(range).take(MAX_RANGES).collect())
}

/// Reads `netsh interface ipv4 show dynamicport tcp`: two lines that end with a number.
pub(super) fn dynamic_ports(text: &str) -> Option<DynamicPorts> {
    // Between name and number may stand a full-width colon without spaces.
    let number =
        |line: &str| line.rsplit(|letter: char| !letter.is_ascii_digit()).find(|word| !word.is_empty())?.parse::<u32>().ok();
    let mut numbers = table(text)?.filter_map(number);
    let start = u16::try_from(numbers.next()?).ok()?;
    Some(DynamicPorts { start, count: numbers.next()? })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_in_every_language() {
        for text in [
            include_str!("transcripts/excluded-en.txt"),
            include_str!("transcripts/excluded-zh.txt"),
            include_str!("transcripts/excluded-ja.txt"),
            include_str!("transcripts/excluded-de.txt"),
            include_str!("transcripts/excluded-es.txt"),
        ] {
            let range = |first, last, administered| ExcludedRange { first, last, administered };
            assert_eq!(
                excluded(text).unwrap(),
                [range(5357, 5357, false), range(8046, 8145, false), range(50000, 50059, true)],
                "{text}"
            );
        }
        for text in [
            include_str!("transcripts/excluded-empty.txt"),
            include_str!("transcripts/excluded-empty-zh.txt"),
            include_str!("transcripts/excluded-empty-ja.txt"),
            include_str!("transcripts/excluded-empty-de.txt"),
            include_str!("transcripts/excluded-empty-es.txt"),
        ] {
            assert_eq!(excluded(text).unwrap(), [], "{text}");
        }
    }

    #[test]
    fn dynamic_ports_are_read_in_every_language() {
        for text in [
            include_str!("transcripts/dynamicport-en.txt"),
            include_str!("transcripts/dynamicport-zh.txt"),
            include_str!("transcripts/dynamicport-ja.txt"),
            include_str!("transcripts/dynamicport-de.txt"),
            include_str!("transcripts/dynamicport-es.txt"),
        ] {
            assert_eq!(dynamic_ports(text).unwrap(), DynamicPorts { start: 1024, count: 13977 }, "{text}");
        }
    }

    #[test]
    fn what_is_no_table_gives_no_answer() {
        for text in ["", "The following command was not found: int ipv4 show.", "1 2\n", "--\n1 2"] {
            assert_eq!(excluded(text), None);
            assert_eq!(dynamic_ports(text), None);
        }
        assert_eq!(excluded("----\n99999 99999\n7 5\n-1 2\n1 2 3\n"), Some(vec![]));
        assert_eq!(dynamic_ports("----\nStart : 70000\nCount : 1\n"), None);
        assert_eq!(dynamic_ports("----\nStart : 1\n"), None);
        assert_eq!(dynamic_ports("----\nStart : 99999999999\n"), None);
    }
}
