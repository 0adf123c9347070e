//! Ports that nobody uses.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// So many different free ports of the loopback interface.
///
/// Free when looked at: whoever asked must take them soon.
pub(super) fn free<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    // All are held until all are known, or the same one would be found twice.
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_differ_from_each_other_and_can_be_listened_on() {
        let ports = free::<8>().unwrap();

        assert_eq!(BTreeSet::from(ports).len(), 8);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
