//! Values on the command line: ports, times, rates, names, with errors that say what is meant.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::{PortRange, Since};
use crate::diagnosis::{Code, STALL};
use crate::journey::{Outcome, Stage};

pub(super) fn parse_ports(text: &str) -> Result<PortRange, String> {
    let port = |text: &str| match text.trim().parse::<u32>() {
        Ok(0) => Err("port 0 is no port: name one from 1 to 65535".to_owned()),
        Ok(number) => u16::try_from(number).map_err(|_| format!("port {number} is too large: name one from 1 to 65535")),
        Err(_) => {
            Err(format!("`{}` is no port: name one from 1 to 65535, a list 80,443 or a range 8000-8100", text.escape_debug()))
        }
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range {first}-{last} is empty: its first port is above its last"));
    }
    Ok(PortRange { first, last })
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    /// One attempt in the longest time that can be measured for.
    const LEAST: f64 = 1e-4;
    const MOST: f64 = 1e7;
    match text.parse::<f64>() {
        Ok(rate) if (LEAST..=MOST).contains(&rate) => Ok(rate),
        _ => Err(format!("name a number of attempts a second, from {LEAST} to {MOST}, such as 500")),
    }
}

pub(super) fn parse_count(text: &str) -> Result<u64, String> {
    whole(text, 1, u64::MAX).ok_or_else(|| "name how many connection attempts to wait for, 1 or more".to_owned())
}

pub(super) fn parse_slowest(text: &str) -> Result<u32, String> {
    whole(text, 1, 10_000).ok_or_else(|| "name a number of journeys from 1 to 10000".to_owned())
}

pub(super) fn parse_clients(text: &str) -> Result<u32, String> {
    whole(text, 1, 100_000).ok_or_else(|| "name a number of clients from 1 to 100000".to_owned())
}

pub(super) fn parse_rounds(text: &str) -> Result<u32, String> {
    whole(text, 1, 100).ok_or_else(|| "name a number of rounds from 1 to 100".to_owned())
}

pub(super) fn parse_seed(text: &str) -> Result<u64, String> {
    whole(text, 0, u64::MAX).ok_or_else(|| format!("name the number that an earlier run printed, at most {}", u64::MAX))
}

/// A whole number within these, both included.
fn whole<T: FromStr + PartialOrd + Copy>(text: &str, least: T, most: T) -> Option<T> {
    text.parse().ok().filter(|number| (least..=most).contains(number))
}

pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| match parse_port(text) {
        Ok(port) => format!("name an address too, such as 0.0.0.0:{port} or [::]:{port}"),
        Err(_) => "name an address and a port, such as 0.0.0.0:8080 or [::]:8080".to_owned(),
    })
}

pub(super) fn parse_payload(text: &str) -> Result<usize, String> {
    const MOST: usize = 64 << 20;
    text.parse().ok().filter(|bytes| *bytes <= MOST).ok_or_else(|| format!("name a number of bytes, at most {MOST}"))
}

pub(super) fn parse_port(text: &str) -> Result<u16, String> {
    const ONE: &str = "name one port, from 1 to 65535: each has a server of its own";
    if text.parse::<u32>().is_err() {
        return Err(ONE.to_owned());
    }
    Ok(parse_ports(text)?.first)
}

/// A hundred years, beyond which no clock here counts.
const LONGEST: Duration = Duration::from_hours(876_000);
const TOO_LONG: &str = "name a shorter time, at most 876000h";

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("name a time such as 30s, 5m or 1h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "name a time such as 30s, 5m or 1h".to_owned())?;
    let duration = Duration::try_from_secs_f64(number * seconds).map_err(|_| TOO_LONG.to_owned())?;
    if duration > LONGEST {
        return Err(TOO_LONG.to_owned());
    }
    if duration.is_zero() {
        return Err("a time of 0 leaves nothing to see".to_owned());
    }
    Ok(duration)
}

pub(super) fn parse_outcome(text: &str) -> Result<Outcome, String> {
    named("outcome", text, &Outcome::ALL, Outcome::name)
}

pub(super) fn parse_code(text: &str) -> Result<Code, String> {
    if text == STALL.name {
        // It belongs to a connection that was made, whose journey has a finding of its own.
        return Err("a stall is no finding of a journey; without --code, --outcome and --stage a report tells of them".to_owned());
    }
    named("finding", text, &Code::ALL, Code::name)
}

pub(super) fn parse_stage(text: &str) -> Result<Stage, String> {
    named("stage", text, &Stage::ALL, Stage::name)
}

/// The one of these that has the name.
fn named<T: Copy>(what: &str, text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|one| name(*one) == text).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        format!("there is no {what} `{}`; there are {}", text.escape_debug(), names.join(", "))
    })
}

pub(super) fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(duration) = parse_duration(text) {
        return Ok(Since::BeforeTheEnd(duration));
    }
    let local = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::system()).ok().map(|time| time.timestamp());
    let time = text.parse::<Timestamp>().ok().or_else(local);
    time.map(Since::Time).ok_or_else(|| {
        format!("`{}` is no time: name one such as 2026-11-22T21:14:00Z, \"2026-11-22 21:14\" or 5m", text.escape_debug())
    })
}

pub(super) fn parse_pages(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(pages) if pages.is_power_of_two() && pages <= 1 << 16 => Ok(pages),
        _ => Err("name a power of two, at most 65536".to_owned()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn bad_ports_say_what_is_a_port() {
        for (text, message) in
            [("0", "port 0 is no port"), ("70000", "too large"), ("9-8", "is empty"), ("x", "is no port"), ("", "is no port")]
        {
            assert!(parse_ports(text).unwrap_err().contains(message), "{text}");
        }
        assert_eq!(parse_port("80"), Ok(80));
        for (text, message) in
            [("80,90", "name one port"), ("80-90", "name one port"), ("0", "is no port"), ("70000", "too large")]
        {
            assert!(parse_port(text).unwrap_err().contains(message), "{text}");
        }
    }

    #[test]
    fn bad_numbers_say_which_are_good() {
        assert_eq!((parse_count("3"), parse_clients("100000"), parse_seed("0")), (Ok(3), Ok(100_000), Ok(0)));
        for text in ["", "abc", "-1", "0", "99999999999999999999"] {
            assert!(parse_count(text).unwrap_err().contains("1 or more"), "{text}");
            assert!(parse_clients(text).unwrap_err().contains("from 1 to 100000"), "{text}");
        }
        assert!(parse_slowest("10001").is_err() && parse_rounds("101").is_err() && parse_seed("x").is_err());
        assert!(parse_rate("100000000").unwrap_err().contains("from 0.0001 to 10000000,"));
        assert_eq!(parse_listen("[::]:80"), Ok(SocketAddr::from(([0_u16; 8], 80))));
        assert!(parse_listen("8080").unwrap_err().contains("0.0.0.0:8080 or"), "the port is kept");
        assert!(parse_listen("here").unwrap_err().contains("an address and a port"));
        assert!(parse_code("stall").unwrap_err().contains("without --code"));
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        for text in ["", "s", "5d", "0", "-1", "99999999999999999999", "876001h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
