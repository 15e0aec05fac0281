//! What a kernel image says of itself.

use std::{fs, path::Path};

use super::file;
use crate::error::Error;

/// Where the boot protocol of x86 keeps the offset of the version's text, less 0x200.
const VERSION_POINTER: usize = 0x20e;

/// The release of a bzImage, as `uname -r` prints it.
pub(crate) fn version(image: &Path) -> Result<String, Error> {
    let bytes = fs::read(image).map_err(file("read", image))?;
    parse(&bytes).ok_or_else(|| Error::Image(image.to_owned()))
}

fn parse(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let pointer = image.get(VERSION_POINTER..VERSION_POINTER + 2)?;
    let text = image.get(usize::from(u16::from_le_bytes(pointer.try_into().ok()?)) + 0x200..)?;
    let end = text.iter().position(|byte| matches!(byte, 0 | b' '))?;
    let version = std::str::from_utf8(&text[..end]).ok()?;
    // It becomes a part of paths.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-~".contains(c);
    (version.starts_with(|c: char| c.is_ascii_digit()) && version.chars().all(plain)).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn image(version: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x80_u16.to_le_bytes());
        image[0x280..0x280 + version.len()].copy_from_slice(version);
        image
    }

    #[test]
    fn the_version_is_the_first_word() {
        assert_eq!(parse(&image(b"6.12.1-wsl (me@here) #1 SMP\0")).as_deref(), Some("6.12.1-wsl"));
    }

    #[test]
    fn what_is_no_image_has_none() {
        assert_eq!(parse(b"\x7fELF"), None);
        assert_eq!(parse(&image(b"../../etc \0")), None);
        assert_eq!(parse(&vec![0; 0x300]), None);
    }
}
