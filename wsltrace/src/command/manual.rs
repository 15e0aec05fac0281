//! `wsltrace completions` and `wsltrace man`: what shells and `man` know of the options, made from `cli.rs` itself.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::Failure;
use crate::cli::{Cli, EXIT_STATUS};

/// Sections of the manual page that clap does not know of.
const EXAMPLES: [(&str, &str); 5] = [
    ("Trace the server on port 8080, then make the connection that fails:", "sudo wsltrace --port 8080"),
    ("Make the connection from here, and end with it:", "sudo wsltrace --port 8080 -- curl -v http://localhost:8080/"),
    ("See what listens, to find the port:", "wsltrace"),
    (
        "In a script: fail unless the next connection is answered:",
        "sudo wsltrace --port 8080 --count 1 --duration 1m --check --quiet",
    ),
    ("Learn what a finding means:", "wsltrace explain firewall_drop"),
];

/// How it is called: clap shows each option, and the command to run as if it stood among them.
const SYNOPSIS: &str = ".SH SYNOPSIS\n\\fBwsltrace\\fR \\fB\\-\\-port\\fR \\fIPORT\\fR [\\fIOPTIONS\\fR] [\\fB\\-\\-\\fR \\fICOMMAND\\fR...]\n.br\n\\fBwsltrace\\fR \\fISUBCOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]";
/// Subcommands that have more options than their lines under SUBCOMMANDS say.
const OF_THEIR_OWN: [&str; 8] = ["demo", "selftest", "doctor", "bench", "report", "diff", "convert", "explain"];

/// Writes the completions for a shell.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut shown(), "wsltrace", &mut text);
    super::print(&text)
}

/// What can be typed without what help hides, which some shells would offer all the same.
fn shown() -> Command {
    let all = Cli::command();
    let arguments = all.get_arguments().filter(|argument| !argument.is_hide_set()).cloned();
    let commands = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let about = all.get_about().cloned().unwrap_or_default();
    Command::new("wsltrace").about(about).disable_version_flag(true).args(arguments).subcommands(commands)
}

/// Writes the manual page.
pub fn man() -> Result<(), Failure> {
    super::print(&page()?)
}

fn page() -> io::Result<Vec<u8>> {
    let man =
        clap_mangen::Man::new(Cli::command()).manual("User Commands").source(concat!("wsltrace ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    writeln!(text, "{SYNOPSIS}")?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let mut commands = Vec::new();
    man.render_subcommands_section(&mut commands)?;
    text.extend(as_typed(&String::from_utf8_lossy(&commands)).as_bytes());
    for command in Cli::command().get_subcommands().filter(|command| OF_THEIR_OWN.contains(&command.get_name())) {
        let mut options = Vec::new();
        clap_mangen::Man::new(command.clone()).render_options_section(&mut options)?;
        let heading = format!(".SH \"OPTIONS OF {}\"\n", command.get_name().to_uppercase());
        text.extend(String::from_utf8_lossy(&options).replace(".SH OPTIONS\n", &heading).as_bytes());
    }
    writeln!(text, ".SH \"EXIT STATUS\"")?;
    for (status, means) in EXIT_STATUS {
        writeln!(text, ".TP\n\\fB{status}\\fR\n{means}")?;
    }
    writeln!(text, ".SH EXAMPLES")?;
    for (what, command) in EXAMPLES {
        writeln!(text, ".TP\n{what}\n\\fB{}\\fR", command.replace('-', "\\-"))?;
    }
    writeln!(
        text,
        ".SH ENVIRONMENT\n.TP\n\\fBNO_COLOR\\fR\nNo colours.\n.TP\n\\fBTERM\\fR\nWith \\fBdumb\\fR no line is rewritten."
    )?;
    writeln!(
        text,
        ".TP\n\\fBSUDO_UID\\fR, \\fBSUDO_GID\\fR\nThe user who called sudo: the command after \\fB\\-\\-\\fR runs as this user."
    )?;
    writeln!(text, ".SH \"SEE ALSO\"\n\\fBss\\fR(8), \\fBnft\\fR(8), \\fBiptables\\fR(8)")?;
    Ok(text)
}

/// Commands as they are typed: clap takes each for a page of its own, and there is only this one.
fn as_typed(section: &str) -> String {
    section.replace("wsltrace\\-", "wsltrace ").replace("(1)\n", "\n")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_manual_page_has_every_option_that_help_shows() {
        let page = String::from_utf8(page().unwrap()).unwrap().replace("\\-", "-");
        for argument in Cli::command().get_arguments() {
            if let Some(long) = argument.get_long() {
                assert_eq!(page.contains(&format!("--{long}")), !argument.is_hide_set(), "--{long}");
            }
        }
        for command in Cli::command().get_subcommands() {
            assert!(page.contains(&format!("wsltrace {}\n", command.get_name())), "{}", command.get_name());
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(page.contains(&format!("--{option}")), "{} --{option}", command.get_name());
            }
        }
        assert!(page.contains("[\\fB--\\fR \\fICOMMAND\\fR...]"), "the command after --");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\"", "EXAMPLES"] {
            assert!(page.contains(&format!(".SH {section}\n")), "{section}");
        }
    }

    #[test]
    fn every_shell_completes_every_long_option() {
        use clap::ValueEnum;
        for shell in Shell::value_variants() {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut shown(), "wsltrace", &mut text);
            let text = String::from_utf8(text).unwrap();
            for option in ["port", "source", "check", "netns"] {
                assert!(text.contains(option), "{shell}: {option}");
            }
            for option in ["table-entries", "ring-pages"] {
                assert!(!text.contains(option), "{shell}: {option}");
            }
        }
    }
}
