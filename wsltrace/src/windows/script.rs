//! The one script that Windows is asked with. It prints one JSON object, an `{"ok": [...]}` or `{"error": "..."}` for each
//! question; a list always, because `PowerShell` makes a single thing of a list of one. It works in every language: enumerations
//! are told as numbers, netsh's texts are read by their numbers (see `netsh.rs`), and everything beyond ASCII is escaped, so that
//! the console's code page does not matter. It changes nothing on Windows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// By which Hyper-V's firewall knows WSL's machines.
pub const WSL_VM_CREATOR: &str = "{40E0AC32-46A5-438A-A0B2-2B479E8F2E90}";

const TEMPLATE: &str = include_str!("script.ps1");

/// The script for one port.
pub fn script(port: u16) -> String {
    TEMPLATE.replace("@PORT@", &port.to_string()).replace("@VM_CREATOR@", WSL_VM_CREATOR)
}

/// A script as `powershell.exe -EncodedCommand` takes it, which spares all quoting.
pub(crate) fn encoded(script: &str) -> String {
    let bytes: Vec<u8> = script.encode_utf16().flat_map(u16::to_le_bytes).collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_plain_and_fits_into_a_command_line() {
        let script = script(8080);
        assert!(script.is_ascii() && script.contains("$port = 8080\n"));
        assert!(!script.contains("@PORT@") && !script.contains("@VM_CREATOR@"));
        // Windows takes no longer command line than 32,767 characters.
        assert!(encoded(&script).len() < 30_000, "{}", encoded(&script).len());
    }

    #[test]
    fn the_script_only_asks() {
        let script = script(8080).to_lowercase();
        for verb in ["set-", "new-net", "remove-", "add-", "stop-", "start-", "restart-", "invoke-", "out-file", " delete", " > "]
        {
            assert!(!script.contains(verb), "{verb}");
        }
    }

    #[test]
    fn quotes_and_brackets_are_balanced() {
        let script = script(8080);
        for (open, close) in [('{', '}'), ('(', ')')] {
            // One bracket stands in the pattern `vEthernet (WSL*`, and has no end.
            let spare = usize::from(open == '(');
            assert_eq!(script.matches(open).count(), script.matches(close).count() + spare);
        }
        assert!(script.lines().all(|line| line.matches('\'').count() % 2 == 0 && line.matches('"').count() % 2 == 0));
    }

    #[test]
    fn a_script_is_encoded_as_powershell_decodes_it() {
        assert_eq!(encoded("dir"), "ZABpAHIA");
        let back = STANDARD.decode(encoded(&script(1))).unwrap();
        assert_eq!(back.len(), script(1).len() * 2);
    }
}
