//! Other programs' formats. Each is made from the same events, live or from a recording: a format is a file here and a row of
//! [`Format`].

mod hlog;
mod html;
mod jsonl;
mod pcapng;
mod perfetto;
#[cfg(test)]
mod tests;
mod words;

pub use html::bench_page;

use std::io::{self, Write};
use std::str::FromStr;

use crate::output::Report;
use crate::output::contract::SummaryLine;
use crate::recording::{End, Header, Missed};

/// What a format is told, in this order: the header once, then what happened, then the end once.
pub trait Export {
    /// Where and how it was traced.
    fn begin(&mut self, header: &Header) -> io::Result<()>;
    /// A journey.
    fn journey(&mut self, report: &Report) -> io::Result<()>;
    /// No SYN came.
    fn missed(&mut self, missed: &Missed) -> io::Result<()> {
        let _ = missed;
        Ok(())
    }
    /// It is over; `end` is `None` when that is not known (a recording that was cut off).
    fn end(&mut self, end: Option<&End>, summary: &SummaryLine) -> io::Result<()>;
    /// Writes what is in buffers.
    fn flush(&mut self) -> io::Result<()>;
}

/// Where an export goes: buffered by whoever makes it.
pub type Out = Box<dyn Write + Send>;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The JSON lines of --json
    Jsonl,
    /// Packets for Wireshark and tshark, with the verdict in their comments
    Pcapng,
    /// A timeline for ui.perfetto.dev and Chrome's tracing page
    Perfetto,
    /// Time spent in each stage, for the tools of `HdrHistogram`
    Hlog,
    /// A page to look at in a browser, in one file
    Html,
}

impl Format {
    /// Every format.
    pub fn all() -> &'static [Self] {
        clap::ValueEnum::value_variants()
    }

    /// Begins to write it.
    pub fn writer(self, out: Out) -> Box<dyn Export + Send> {
        match self {
            Self::Jsonl => Box::new(jsonl::Jsonl::new(out)),
            Self::Pcapng => Box::new(pcapng::Pcapng::new(out)),
            Self::Perfetto => Box::new(perfetto::Perfetto::new(out)),
            Self::Hlog => Box::new(hlog::Hlog::new(out)),
            Self::Html => Box::new(html::Html::new(out)),
        }
    }

    /// The extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Pcapng => "pcapng",
            Self::Perfetto => "perfetto.json",
            Self::Hlog => "hlog",
            Self::Html => "html",
        }
    }

    /// Whether it is no text, so that a terminal cannot show it.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Pcapng)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Pcapng => "pcapng",
            Self::Perfetto => "perfetto",
            Self::Hlog => "hlog",
            Self::Html => "html",
        }
    }
}

/// A format and the file that it is written to: `FORMAT:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The format.
    pub format: Format,
    /// The file; `-` is stdout.
    pub path: std::path::PathBuf,
}

impl Target {
    /// Whether it goes to stdout.
    pub fn is_stdout(&self) -> bool {
        self.path.as_os_str() == "-"
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        use clap::ValueEnum as _;
        let names = || Format::all().iter().map(|format| format.name()).collect::<Vec<_>>().join(", ");
        let Some((format, path)) = text.split_once(':').filter(|(_, path)| !path.is_empty()) else {
            return Err(format!("name a format and a file, such as pcapng:syns.pcapng; formats: {}", names()));
        };
        let format = Format::from_str(format, false)
            .map_err(|_| format!("there is no format `{}`; there are {}", format.escape_debug(), names()))?;
        Ok(Self { format, path: path.into() })
    }
}
