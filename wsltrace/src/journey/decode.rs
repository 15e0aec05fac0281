//! From the ring buffer's bytes to a record.

use wsltrace_common::{Flags, HEADER_SIZE, MAX_STAGES, Record, StageEntry};

/// Bytes that are no record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than the fixed part, or than the fixed part and its stages.
    #[error("a journey's record of {0} bytes is too short; the kernel side and this program are of different builds")]
    Short(usize),
    /// More stages than a record can hold.
    #[error("a journey's record claims {0} stages; the kernel side and this program are of different builds")]
    Stages(u32),
}

/// Reads a record: its fixed part and the stages that follow. Trailing bytes are ignored (the ring buffer pads).
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    if bytes.len() < HEADER_SIZE {
        return Err(DecodeError::Short(bytes.len()));
    }
    let mut record = std::mem::MaybeUninit::<Record>::zeroed();
    let length = bytes.len().min(size_of::<Record>());
    // SAFETY: both are valid for `length` bytes and do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), record.as_mut_ptr().cast(), length) };
    // SAFETY: all of it is initialised (zeroes, then the copy), and a record is made of integers.
    let record = unsafe { record.assume_init() };
    let stages = record.stage_count as usize;
    if stages > MAX_STAGES {
        return Err(DecodeError::Stages(record.stage_count));
    }
    if bytes.len() < HEADER_SIZE + stages * size_of::<StageEntry>() {
        return Err(DecodeError::Short(bytes.len()));
    }
    Ok(record)
}

/// Whether these bytes are a record of a frame that was for another's hardware address, and so of no journey.
pub fn is_for_another(bytes: &[u8]) -> bool {
    const FLAGS: usize = std::mem::offset_of!(Record, flags);
    let flags = bytes.get(FLAGS..).and_then(|rest| rest.first_chunk());
    flags.is_some_and(|flags| u32::from_ne_bytes(*flags) & Flags::FOR_ANOTHER != 0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn short_and_overfull_records_are_refused() {
        assert_eq!(decode(&[0; HEADER_SIZE - 1]).unwrap_err(), DecodeError::Short(HEADER_SIZE - 1));
        let mut bytes = vec![0; HEADER_SIZE];
        let count = std::mem::offset_of!(Record, stage_count);
        bytes[count..count + 4].copy_from_slice(&1u32.to_ne_bytes());
        assert_eq!(decode(&bytes).unwrap_err(), DecodeError::Short(HEADER_SIZE));
        bytes[count..count + 4].copy_from_slice(&97u32.to_ne_bytes());
        assert_eq!(decode(&bytes).unwrap_err(), DecodeError::Stages(97));
    }

    #[test]
    fn frames_for_others_are_told_from_journeys() {
        let mut bytes = vec![0; HEADER_SIZE];
        let flags = std::mem::offset_of!(Record, flags);
        bytes[flags..flags + 4].copy_from_slice(&Flags::SYN_ACK.to_ne_bytes());
        assert!(!is_for_another(&bytes));
        bytes[flags..flags + 4].copy_from_slice(&(Flags::FOR_ANOTHER | Flags::SYN_ACK).to_ne_bytes());
        assert!(is_for_another(&bytes));
        assert!(!is_for_another(&bytes[..flags + 3]));
    }

    #[test]
    fn fields_and_stages_come_through() {
        let mut bytes = vec![0; HEADER_SIZE + 16];
        let put =
            |bytes: &mut Vec<u8>, offset: usize, value: u32| bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        put(&mut bytes, std::mem::offset_of!(Record, stage_count), 1);
        put(&mut bytes, std::mem::offset_of!(Record, attempt), 3);
        put(&mut bytes, HEADER_SIZE + 8, 77);
        let record = decode(&bytes).unwrap();
        assert_eq!((record.attempt, record.stages[0].netns), (3, 77));
    }
}
