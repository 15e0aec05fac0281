//! A tunnel between two namespaces: a device without link-layer headers on each side, as those of VPNs are, and a thread that carries
//! the packets from one to the other.

use std::ffi::c_char;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{LabError, Namespace};

/// More than any packet here has.
const PACKET: usize = 2048;
/// What the devices are called on both sides.
pub(super) const DEVICE: &str = "tun0";

/// The tunnel; its devices go when it is dropped.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// Closed to end the carrier.
    stop: Option<io::PipeWriter>,
    carrier: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// Makes it and gives its ends these addresses, of one network of 24 bits.
    pub(super) fn dig(near: (&Namespace, IpAddr), far: (&Namespace, IpAddr)) -> Result<Self, LabError> {
        let ends = [near, far].map(|(namespace, address)| {
            let device = namespace.run(|| open().map_err(unsupported))?;
            namespace.up(DEVICE)?;
            namespace.address(DEVICE, address, 24)?;
            Ok::<_, LabError>(device)
        });
        let [near, far] = ends;
        let (near, far) = (near?, far?);
        let (stopped, stop) = io::pipe().map_err(LabError::io("make a pipe"))?;
        let carrier = thread::spawn(move || {
            // Ends with an error only when a device goes, which is the end of the tunnel as well.
            let _ = carry(near, far, &stopped);
        });
        Ok(Self { stop: Some(stop), carrier: Some(carrier) })
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(carrier) = self.carrier.take() {
            // A panic of the carrier has already been printed.
            let _ = carrier.join();
        }
    }
}

fn unsupported(error: io::Error) -> LabError {
    match error.kind() {
        io::ErrorKind::NotFound => LabError::Unsupported("this kernel has no tun devices".into()),
        _ => LabError::io("make a tun device")(error),
    }
}

/// Makes a device in the calling thread's network namespace.
fn open() -> io::Result<File> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: a structure of plain integers, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.as_bytes()) {
        *to = c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(io::Error::other)?;
    // SAFETY: the request reads and writes an `ifreq`, which this is.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if made == 0 { Ok(device) } else { Err(io::Error::last_os_error()) }
}

fn carry(mut near: File, mut far: File, stopped: &io::PipeReader) -> io::Result<()> {
    let mut packet = [0; PACKET];
    loop {
        let mut waiting = [near.as_fd(), far.as_fd(), stopped.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut waiting, PollTimeout::NONE)?;
        let [from_near, from_far, end] = waiting.map(|fd| fd.any().unwrap_or_default());
        if end {
            return Ok(());
        }
        if from_near {
            let length = near.read(&mut packet)?;
            far.write_all(packet.get(..length).unwrap_or_default())?;
        }
        if from_far {
            let length = far.read(&mut packet)?;
            near.write_all(packet.get(..length).unwrap_or_default())?;
        }
    }
}
