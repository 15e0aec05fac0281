//! Names of code addresses, from /proc/kallsyms: read once, when the first address is to be named, because it takes tens of
//! milliseconds.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::sync::OnceLock;

/// Farthest that an address may lie behind its symbol, bytes: kallsyms knows no lengths, and no function of a kernel is longer.
const MAX_DISTANCE: u64 = 256 << 10;

/// The kernel's functions and those of its modules.
#[derive(Debug, Default)]
pub struct Symbols {
    /// Address, and where its name begins in `names`; by address.
    addresses: Vec<(u64, u32)>,
    /// Names, each ended by a line feed.
    names: String,
}

impl Symbols {
    /// Reads a table in the format of /proc/kallsyms; lines that do not look like it are left out.
    pub fn parse(mut table: impl BufRead) -> io::Result<Self> {
        let mut symbols = Self::default();
        let mut line = String::new();
        while table.read_line(&mut line)? != 0 {
            symbols.add(&line);
            line.clear();
        }
        let names = &symbols.names;
        // Of several names for one address, the plainest counts.
        symbols.addresses.sort_by_key(|(address, at)| (*address, leading_underscores(names, *at), *at));
        symbols.addresses.dedup_by_key(|(address, _)| *address);
        symbols.addresses.shrink_to_fit();
        Ok(symbols)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let mut fields = line.split_ascii_whitespace();
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        let kind = fields.next()?;
        let name = fields.next()?;
        // All addresses are 0 where the kernel hides them (kptr_restrict).
        if address != 0 && matches!(kind, "t" | "T" | "w" | "W") {
            self.addresses.push((address, u32::try_from(self.names.len()).ok()?));
            self.names.push_str(name);
            self.names.push('\n');
        }
        Some(())
    }

    /// `symbol+0xoffset` for a code address, or `None` where no function is known to hold it.
    pub fn name(&self, address: u64) -> Option<String> {
        let below = self.addresses.partition_point(|(start, _)| *start <= address);
        let (start, at) = *self.addresses.get(below.checked_sub(1)?)?;
        let distance = address - start;
        if distance >= MAX_DISTANCE {
            return None;
        }
        let name = self.names.get(at as usize..)?.lines().next()?;
        Some(format!("{name}+{distance:#x}"))
    }
}

fn leading_underscores(names: &str, at: u32) -> usize {
    names.get(at as usize..).map_or(0, |name| name.len() - name.trim_start_matches('_').len())
}

/// `symbol+0xoffset` for a code address of the running kernel; `None` where it hides its addresses or no function holds this one.
pub fn name(address: u64) -> Option<String> {
    static SYMBOLS: OnceLock<Symbols> = OnceLock::new();
    let symbols = SYMBOLS.get_or_init(|| {
        let table = File::open("/proc/kallsyms").and_then(|file| Symbols::parse(BufReader::with_capacity(1 << 16, file)));
        table.unwrap_or_else(|error| {
            log::warn!("cannot read /proc/kallsyms: {error}: places in the kernel are not named");
            Symbols::default()
        })
    });
    symbols.name(address)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const TABLE: &str = "ffffffff81000100 T nf_hook_slow\nffffffff81000000 T __pi_memcpy\nffffffff81000000 T memcpy\n\
        ffffffff81000080 D data\nffffffffc0000000 t nft_do_chain\t[nf_tables]\nnonsense\n\n";

    #[test]
    fn the_nearest_function_below_is_named() {
        let symbols = Symbols::parse(TABLE.as_bytes()).unwrap();
        assert_eq!(symbols.name(0xffff_ffff_8100_0000).unwrap(), "memcpy+0x0");
        assert_eq!(symbols.name(0xffff_ffff_8100_0090).unwrap(), "memcpy+0x90");
        assert_eq!(symbols.name(0xffff_ffff_8100_0104).unwrap(), "nf_hook_slow+0x4");
        assert_eq!(symbols.name(0xffff_ffff_c000_03e8).unwrap(), "nft_do_chain+0x3e8");
        assert_eq!(symbols.name(0xffff_ffff_80ff_ffff), None);
        assert_eq!(symbols.name(0xffff_ffff_8100_0100 + MAX_DISTANCE), None);
        assert_eq!(symbols.name(0), None);
    }

    #[test]
    fn hidden_addresses_name_nothing() {
        let symbols = Symbols::parse("0000000000000000 T nf_hook_slow\n".as_bytes()).unwrap();
        assert_eq!(symbols.name(0x10), None);
    }
}
