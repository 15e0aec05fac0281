//! A recording is somebody else's file: whatever is in it, reading it and telling what it says must not panic, hang, or take more
//! memory than its own size allows. Built for fuzzing, the reader takes frames whatever their checksum is.
#![no_main]

mod tell;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tell::everything(bytes));
