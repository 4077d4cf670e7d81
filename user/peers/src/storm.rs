//! Clients and servers that are moved, stopped and let go on while they talk: no message is lost, comes twice, or is mixed up with
//! another.
//!
//! Every client has a server of its own, or all have one. Each message carries its client's next number and words made of it; each server
//! expects of every client the number after the last, and answers with words made of the message's.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::cap::Rights;
use abi::error::Error;
use abi::task::{CoreMask, ThreadSpec};
use perf::clock::{Nanos, Ticks};
use perf::prng::Prng;
use rt::handle::{Endpoint, Owned, Thread, Typed};
use rt::ipc::{self, Message};
use rt::say;
use rt::start::Start;
use rt::sync::atomic::{AtomicU64, Ordering};
use rt::thread::{self, Builder, JoinHandle};
use rt::time::{self, Deadline};

use crate::{Failure, unexpected};

/// Label with which a server is asked to end.
const END: u32 = u32::MAX;
/// Clients of one server at most.
const MOST: usize = 64;
/// After which nobody waits any more.
const WATCHDOG: Nanos = Nanos::from_millis(50_000);

type Outcome = core::result::Result<u64, Failure>;

fn words(client: u64, number: u64) -> [u64; 8] {
    let seed = client << 32 | number;
    core::array::from_fn(|index| match index {
        0 => number,
        _ => (seed << 3 | index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    })
}

fn answer(words: &[u64; 8]) -> [u64; 8] {
    core::array::from_fn(|index| words[7 - index].wrapping_add(index as u64).rotate_left(7))
}

/// Serves until it is asked to end; gives how many messages there were.
fn serve(own: Endpoint) -> Outcome {
    let mut last = [0u64; MOST];
    let mut count = 0;
    let mut message = own.receive(0).map_err(unexpected)?;
    loop {
        if message.tag.label() == END {
            let _ = ipc::reply(&Message::EMPTY);
            return Ok(count);
        }
        let (client, number) = (message.badge, message.words[0]);
        let before = last.get_mut(client as usize).ok_or_else(|| format!("badge {client:x}"))?;
        if number != *before + 1 || message.words != words(client, number) {
            return Err(format!("client {client}: {:x?} after number {before}", message.words));
        }
        *before = number;
        count += 1;
        message =
            own.reply_receive(Message::new(number as u32, answer(&message.words))).map_err(unexpected)?;
    }
}

/// Asks so many times; gives how many answers there were.
fn ask(to: Endpoint, client: u64, count: u64) -> Outcome {
    for number in 1..=count {
        let sent = words(client, number);
        let got = to.call(Message::new(client as u32, sent)).map_err(unexpected)?;
        if got.words != answer(&sent) || got.tag.label() != number as u32 {
            return Err(format!("client {client}, number {number}: {:x?}", got.words));
        }
    }
    Ok(count)
}

/// Disturbs threads until there is nothing to disturb any more.
fn disturb(threads: &[Thread], prng: &mut Prng, over: &AtomicU64) -> core::result::Result<(), Failure> {
    let cores = Start::get().raw().cores;
    // ORDER: Relaxed: sooner or later.
    while over.load(Ordering::Relaxed) == 0 {
        let thread = threads[prng.below(threads.len() as u64) as usize];
        let cores = match prng.below(4) {
            0 => CoreMask::ALL,
            _ => CoreMask::one(prng.below(cores) as usize),
        };
        let result = match prng.below(4) {
            0 => thread.suspend().and_then(|()| {
                thread::yield_now();
                thread.resume()
            }),
            1 => thread.suspend().and_then(|()| thread.bind(&cores)).and_then(|()| thread.resume()),
            _ => thread.bind(&cores),
        };
        match result {
            // Whoever has ended, or was joined.
            Ok(()) | Err(Error::WrongState | Error::BadHandle) => {}
            Err(error) => return Err(format!("disturbing: {}", error.name())),
        }
        // Neither all the time nor in step.
        (0..prng.below(64)).for_each(|_| thread::yield_now());
    }
    Ok(())
}

struct Scene {
    endpoints: Vec<Owned<Endpoint>>,
    clients: Vec<(Owned<Endpoint>, JoinHandle<Outcome>)>,
    servers: Vec<JoinHandle<Outcome>>,
}

impl Scene {
    /// So many clients and servers; one in four threads has extended state.
    fn new(clients: usize, servers: usize, count: u64) -> rt::handle::Result<Self> {
        let flags = |number: usize| if number % 4 == 3 { 0 } else { ThreadSpec::NO_FPU };
        let mut scene = Self { endpoints: Vec::new(), clients: Vec::new(), servers: Vec::new() };
        for number in 0..servers {
            let endpoint = Endpoint::create()?;
            let own = *endpoint;
            let builder = Builder::default().flags(flags(number));
            scene.servers.push(builder.spawn(move || serve(own))?);
            scene.endpoints.push(endpoint);
        }
        for number in 0..clients {
            let to = scene.endpoints[number % servers].derive(Rights::SEND, number as u64)?;
            let own = *to;
            let builder = Builder::default().flags(flags(number / 2));
            let client = builder.spawn(move || ask(own, number as u64, count))?;
            scene.clients.push((to, client));
        }
        Ok(scene)
    }

    fn threads(&self) -> Vec<Thread> {
        let clients = self.clients.iter().map(|(_, client)| client.thread());
        clients.chain(self.servers.iter().map(JoinHandle::thread)).collect()
    }

    /// Waits for all; gives how many messages there were.
    fn end(self) -> Outcome {
        let mut asked = 0;
        let deadline = Deadline::after(WATCHDOG);
        let mut badged = Vec::new();
        for (to, client) in self.clients {
            if let Err(error) = client.thread().join(deadline) {
                // Dropping the handles would wait for those that do not end.
                say!("peers: a client does not end: {}, {:?}", error.name(), client.thread().info());
                rt::start::exit(1);
            }
            asked += client.join().map_err(unexpected)??;
            badged.push(to);
        }
        let mut served = 0;
        for (endpoint, server) in self.endpoints.iter().zip(self.servers) {
            endpoint.call_until(Message::new(END, [0; 8]), deadline).map_err(unexpected)?;
            served += server.join().map_err(unexpected)??;
        }
        if asked == served {
            Ok(asked)
        } else {
            Err(format!("{asked} messages were answered, {served} served"))
        }
    }
}

/// `count=` messages of each client: of two clients and one server on average a core, with `shape=` `pairs` or `fan-in`.
pub(crate) fn run(start: &Start) -> Outcome {
    let (seed, count) = (start.number("seed", 1), start.number("count", 1000));
    let cores = start.raw().cores as usize;
    let clients = (2 * cores).min(MOST);
    let servers = if start.word("shape") == Some("pairs") { clients } else { 1 };
    let began = time::now();
    let scene = Scene::new(clients, servers, count).map_err(unexpected)?;
    let over = Arc::new(AtomicU64::new(0));
    let threads = scene.threads();
    let spawn = |number| {
        let (over, threads, mut prng) = (Arc::clone(&over), threads.clone(), Prng::stream(seed, number));
        thread::spawn(move || disturb(&threads, &mut prng, &over)).map_err(unexpected)
    };
    let spoilers: core::result::Result<Vec<_>, Failure> = (0..2).map(spawn).collect();
    let total = scene.end();
    // ORDER: Relaxed: sooner or later.
    over.store(1, Ordering::Relaxed);
    for spoiler in spoilers? {
        spoiler.join().map_err(unexpected)??;
    }
    let took = time::now().since(began).unwrap_or(Ticks::new(0));
    let millis = start.timebase().nanos(took).count() / 1_000_000;
    say!(
        "peers: {} messages of {clients} clients to {servers} servers in {millis} ms",
        total.as_ref().unwrap_or(&0)
    );
    total.map(|_| 0)
}
