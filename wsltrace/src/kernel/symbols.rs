//! Names of code addresses, from /proc/kallsyms. Packets die in few places, so the table is read through once for each place and
//! not kept: it has megabytes, and modules come and go.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// Farthest that an address may lie behind its symbol, bytes: kallsyms knows no lengths, and no function of a kernel is longer.
const MAX_DISTANCE: u64 = 256 << 10;

/// The places in the running kernel that were asked for.
#[derive(Debug, Default)]
pub struct Symbols {
    named: RefCell<HashMap<u64, Option<String>>>,
}

impl Symbols {
    /// `symbol+0xoffset` for a code address; `None` where the kernel hides its addresses or no function holds this one.
    pub fn name(&self, address: u64) -> Option<String> {
        let find = || {
            let found = File::open("/proc/kallsyms").and_then(|file| find(BufReader::with_capacity(1 << 16, file), address));
            found.unwrap_or_else(|error| {
                log::warn!("cannot read /proc/kallsyms: {error}: a place in the kernel is not named");
                None
            })
        };
        self.named.borrow_mut().entry(address).or_insert_with(find).clone()
    }
}

/// Looks for the function that holds an address in a table in the format of /proc/kallsyms; lines that do not look like it are left
/// out. Of several names for one address, the plainest counts.
fn find(mut table: impl BufRead, address: u64) -> io::Result<Option<String>> {
    let mut line = String::new();
    let (mut nearest, mut name) = (0, String::new());
    while table.read_line(&mut line)? != 0 {
        if let Some((start, candidate)) = function(&line)
            && start <= address
            && (start > nearest || start == nearest && underscores(candidate) < underscores(&name))
        {
            nearest = start;
            candidate.clone_into(&mut name);
        }
        line.clear();
    }
    // All addresses are 0 where the kernel hides them (kptr_restrict).
    let distance = address - nearest;
    Ok((nearest != 0 && distance < MAX_DISTANCE).then(|| format!("{name}+{distance:#x}")))
}

/// The address and the name of a function; `None` for data and for what is no symbol.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let address = u64::from_str_radix(fields.next()?, 16).ok()?;
    let kind = fields.next()?;
    let name = fields.next()?;
    matches!(kind, "t" | "T" | "w" | "W").then_some((address, name))
}

fn underscores(name: &str) -> usize {
    name.len() - name.trim_start_matches('_').len()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const TABLE: &str = "ffffffff81000100 T nf_hook_slow\nffffffff81000000 T __pi_memcpy\nffffffff81000000 T memcpy\n\
        ffffffff81000080 D data\nffffffffc0000000 t nft_do_chain\t[nf_tables]\nnonsense\n\n";

    #[test]
    fn the_nearest_function_below_is_named() {
        let name = |address| find(TABLE.as_bytes(), address).unwrap();
        assert_eq!(name(0xffff_ffff_8100_0000).unwrap(), "memcpy+0x0");
        assert_eq!(name(0xffff_ffff_8100_0090).unwrap(), "memcpy+0x90");
        assert_eq!(name(0xffff_ffff_8100_0104).unwrap(), "nf_hook_slow+0x4");
        assert_eq!(name(0xffff_ffff_c000_03e8).unwrap(), "nft_do_chain+0x3e8");
        assert_eq!(name(0xffff_ffff_80ff_ffff), None);
        assert_eq!(name(0xffff_ffff_8100_0100 + MAX_DISTANCE), None);
        assert_eq!(name(0), None);
    }

    #[test]
    fn hidden_addresses_name_nothing() {
        assert_eq!(find("0000000000000000 T nf_hook_slow\n".as_bytes(), 0x10).unwrap(), None);
    }
}
