//! Writing a cpio archive in the "newc" format, which the kernel unpacks as its first root file system. Not compressed: an
//! emulated processor would spend longer on unpacking than is saved by reading less.

use std::io::{self, Write};

/// What an entry of the archive is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A directory that everybody may enter.
    Directory,
    /// A program that everybody may run.
    Program,
    /// A file that everybody may read.
    File,
    /// A link; its content is where it leads.
    Link,
}

impl Kind {
    fn mode(self) -> u32 {
        match self {
            Self::Directory => 0o040_755,
            Self::Program => 0o100_755,
            Self::File => 0o100_644,
            Self::Link => 0o120_777,
        }
    }
}

/// An archive being written. Everything in it belongs to root.
pub(crate) struct Archive<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub(crate) fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    /// Adds an entry; the name has no leading slash, and the directory that it lies in must have been added before.
    pub(crate) fn add(&mut self, name: &str, kind: Kind, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        self.entry(name, self.entries, kind.mode(), content)
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, 0, &[])?;
        self.out.flush()
    }

    fn entry(&mut self, name: &str, inode: u32, mode: u32, content: &[u8]) -> io::Result<()> {
        let number = |length: usize| u32::try_from(length).map_err(|_| io::Error::other(format!("{name} is too large for cpio")));
        // Inode, mode, owner, group, links, time, size, device (major, minor), its own device (the same), name's length, checksum.
        let name_bytes = name.len() + 1;
        let fields = [inode, mode, 0, 0, 1, 0, number(content.len())?, 0, 0, 0, 0, number(name_bytes)?, 0];
        write!(self.out, "070701")?;
        fields.iter().try_for_each(|field| write!(self.out, "{field:08X}"))?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(6 + 8 * fields.len() + name_bytes)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    /// Header with name, and content, both end at a multiple of four bytes.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{Archive, Kind};

    #[test]
    fn entries_are_laid_out_as_the_kernel_reads_them() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.add("d", Kind::Directory, b"").unwrap();
        archive.add("d/file", Kind::Program, b"12345").unwrap();
        archive.finish().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        // A header of 110 bytes and "d\0" are 112; "d/file\0" is padded to 120, its five bytes of content to eight.
        assert_eq!(text.match_indices("070701").map(|(at, _)| at).collect::<Vec<_>>(), [0, 112, 112 + 120 + 8]);
        assert_eq!(&text[112 + 14..112 + 22], "000081ED", "the mode of a program");
        assert_eq!(&text[112 + 54..112 + 62], "00000005", "the size of the content");
        assert_eq!(&text[112 + 110..112 + 120 + 8], "d/file\0\0\0\0".to_owned() + "12345\0\0\0");
        assert!(text.contains("TRAILER!!!\0"));
        assert_eq!(text.len() % 4, 0);
    }
}
