//! Load for queues: datagrams that come in bursts, as they do where many hosts share a link.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ptp_agent::lab::netns::Namespace;

/// Of the datagrams, bytes, and of their headers.
const PAYLOAD: usize = 1_400;
const HEADERS: usize = 42;

/// Bursts of 1 to 12 datagrams with exponential gaps between them. Ends when dropped.
pub struct Load {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Load {
    /// Sends from a namespace to an address, so many bits per second.
    ///
    /// # Errors
    /// What the kernel says: there is no way to the address, for instance.
    pub fn start(from: &Namespace, to: Ipv4Addr, bits_per_second: f64) -> Result<Self, String> {
        let socket = from
            .run(|| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect((to, 9))?;
                Ok(socket)
            })
            .map_err(|error| error.to_string())?
            .map_err(|error: io::Error| error.to_string())?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || send(&socket, bits_per_second, &ended));
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn send(socket: &UdpSocket, bits_per_second: f64, ended: &AtomicBool) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = || {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let payload = [0_u8; PAYLOAD];
    let mut next = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        let burst = 1 + (uniform() * 12.0) as u32;
        for _ in 0..burst {
            // Nobody listens; refusals are no concern of the load.
            let _ = socket.send(&payload);
        }
        let mean = f64::from(burst) * ((PAYLOAD + HEADERS) * 8) as f64 / bits_per_second;
        next += Duration::from_secs_f64(-mean * (1.0 - uniform()).ln());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}
