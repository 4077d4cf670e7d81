//! Kills of servers and clients in whatever state they are: each client is told so or gets a right answer, nobody waits for ever, and
//! nothing is left in the process.
//!
//! A worker per core makes rounds: a server, some clients, a little time, disturbances, a kill. Then everybody has to end. What a
//! thread of this process that is killed had in its hands would be lost to the process, so only servers in processes of their own take capabilities
//! or save replies.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use abi::cap::{Handle, Rights};
use abi::debug::Dump;
use abi::error::Error;
use abi::task::{CoreMask, ExitStatus, Grant, ProcessSpec, SchedSpec, ThreadSpec};
use perf::clock::{Nanos, Ticks};
use perf::prng::Prng;
use rt::handle::{Endpoint, Owned, Process, Reply, Result, Thread, Typed};
use rt::ipc::{self, Message};
use rt::process::{Builder as ProcessBuilder, Image};
use rt::say;
use rt::start::Start;
use rt::sync::atomic::{AtomicU64, Ordering};
use rt::thread::{self, Builder, Stack};
use rt::time::{self, Deadline};

use crate::{Failure, unexpected};

/// Clients of a server.
const CLIENTS: usize = 3;
/// The code of whoever is killed.
const KILLED: u64 = 0xdead;
/// After which nobody waits any more. Long, because an emulator that runs the cores in turns gives each a tenth of a second.
const WATCHDOG: Nanos = Nanos::from_millis(60_000);
/// How long a client that gives up waits.
const PATIENCE: Nanos = Nanos::new(200_000);
/// How long a sleepy server sleeps.
const NAP: Nanos = Nanos::new(50_000);
/// An outcome of a client: it got a wrong answer.
const WRONG: u64 = 1000;

/// What a server does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Answers, and receives in the same call.
    Echo,
    /// Answers, and receives.
    Plain,
    /// Sleeps before it answers.
    Sleepy,
    /// Never answers, and runs.
    Busy,
    /// Asks another.
    Nested,
    /// Saves the caller, and answers when the next has come.
    Saver,
    /// Takes capabilities.
    Taker,
}

impl Server {
    /// Those that hold nothing that would be lost with their thread come first.
    const ALL: [Self; 7] =
        [Self::Echo, Self::Plain, Self::Sleepy, Self::Busy, Self::Nested, Self::Saver, Self::Taker];
    const HOLDING_NOTHING: u64 = 5;
}

/// What a client does, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Call,
    /// Calls, and gives up after a while.
    Timed,
    Send,
    /// Calls with capabilities.
    Giver,
}

impl Client {
    const ALL: [Self; 4] = [Self::Call, Self::Timed, Self::Send, Self::Giver];
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    ServerThread,
    ClientThread,
    ServerProcess,
    ClientProcess,
}

/// What a worker and its threads share.
#[derive(Default)]
struct Table {
    /// Where the server receives.
    root: AtomicU64,
    /// Where clients send.
    to: AtomicU64,
    /// Whom a nested server asks, and where that one receives.
    inner: AtomicU64,
    server: AtomicU64,
    clients: [AtomicU64; CLIENTS],
    /// Error number that a client ended with, or [`WRONG`]; 0 while it goes on.
    outcomes: [AtomicU64; CLIENTS],
    /// Capabilities that clients hand on.
    gifts: [AtomicU64; 2],
    /// Right answers.
    answers: AtomicU64,
    over: AtomicU64,
}

/// A thread of a worker, and what it does.
struct Part {
    table: &'static Table,
    number: usize,
}

fn get(word: &AtomicU64) -> u64 {
    // ORDER: Acquire pairs with Release in `set`: a handle that is read has been made.
    word.load(Ordering::Acquire)
}

fn set(word: &AtomicU64, value: u64) {
    // ORDER: Release pairs with Acquire in `get`.
    word.store(value, Ordering::Release);
}

fn endpoint(word: &AtomicU64) -> Endpoint {
    Endpoint(Handle(get(word)))
}

fn pick<T: Copy>(all: &[T], number: u64) -> T {
    all[number as usize % all.len()]
}

extern "C" fn server_thread(part: u64) -> ! {
    // SAFETY: the address of a part that is never given back.
    let part = unsafe { &*(part as *const Part) };
    let table = part.table;
    serve(pick(&Server::ALL, get(&table.server)), endpoint(&table.root), endpoint(&table.inner));
    thread::exit(0)
}

extern "C" fn inner_thread(part: u64) -> ! {
    // SAFETY: as in `server_thread`.
    let part = unsafe { &*(part as *const Part) };
    serve(Server::Echo, endpoint(&part.table.inner), endpoint(&part.table.inner));
    thread::exit(0)
}

extern "C" fn client_thread(part: u64) -> ! {
    // SAFETY: as in `server_thread`.
    let part = unsafe { &*(part as *const Part) };
    let (table, number) = (part.table, part.number);
    let kind = pick(&Client::ALL, get(&table.clients[number]));
    let gifts = [Handle(get(&table.gifts[0])), Handle(get(&table.gifts[1]))];
    let outcome = ask(kind, endpoint(&table.to), gifts, &table.answers, &table.over);
    set(&table.outcomes[number], outcome);
    thread::exit(0)
}

fn answer_to(message: &Message) -> Message {
    Message::new(message.badge as u32, message.words.map(|word| !word))
}

/// Keeps the core for some ticks of the counter. By the clock: how long a `pause` takes is up to who emulates it, and this thread is more urgent
/// than those that it waits for.
fn spin(ticks: u64) {
    let begin = time::now();
    while time::now().since(begin).is_some_and(|passed| passed.count() < ticks) {}
}

/// For those who run on and on: an emulator that runs the cores in turns goes on with the next at a `pause`, otherwise after a tenth of a second.
fn give_processor() {
    core::hint::spin_loop();
}

/// A server's life: until it cannot receive any more.
fn serve(kind: Server, own: Endpoint, inner: Endpoint) {
    let accepts = if kind == Server::Taker { 4 } else { 0 };
    let mut saved: Option<(Owned<Reply>, Message)> = None;
    let mut next = own.receive(accepts);
    while let Ok(message) = next {
        message.caps().for_each(|cap| drop(Owned::new(Endpoint(cap))));
        let answer = answer_to(&message).accepting(accepts);
        next = match kind {
            Server::Echo | Server::Taker => own.reply_receive(answer),
            Server::Plain => {
                let _ = ipc::reply(&answer);
                own.receive(accepts)
            }
            Server::Sleepy => {
                time::sleep(Deadline::after(NAP));
                own.reply_receive(answer)
            }
            Server::Busy => loop {
                thread::yield_now();
                give_processor();
            },
            Server::Nested => {
                let told = inner.call(Message::new(0, message.words));
                own.reply_receive(told.map_or(Message::EMPTY, |told| Message::new(0, told.words)))
            }
            Server::Saver => {
                // Whoever only sends, or has given up, cannot be saved.
                if let Ok(reply) = ipc::save_reply()
                    && let Some((earlier, answer)) = saved.replace((reply, answer))
                {
                    let _ = earlier.answer(&answer);
                }
                own.receive(accepts)
            }
        };
    }
}

/// A client's life: until it is refused. Gives the error's number, or [`WRONG`].
fn ask(kind: Client, to: Endpoint, gifts: [Handle; 2], answers: &AtomicU64, over: &AtomicU64) -> u64 {
    for round in 0u64.. {
        let sent = core::array::from_fn(|index| round << 8 | index as u64);
        let message = Message::new(round as u32, sent);
        let mut right = sent.map(|word: u64| !word);
        let result = match kind {
            Client::Call => to.call(message),
            Client::Timed => to.call_until(message, Deadline::after(PATIENCE)),
            Client::Send => to.send(&message).map(|()| Message::new(0, right)),
            Client::Giver => {
                let message = message.with_caps(&gifts);
                // The receiver finds its own handles in their place, or these, and answers what it has found.
                to.call(message).map(|mut got| {
                    right[6..].copy_from_slice(&[0; 2]);
                    got.words[6..].copy_from_slice(&[0; 2]);
                    got
                })
            }
        };
        match result {
            Ok(got) if got.words == right => {
                // ORDER: Relaxed: a figure.
                answers.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => return WRONG,
            Err(Error::TimedOut) if kind == Client::Timed && get(over) == 0 => give_processor(),
            Err(error) => return error as u64,
        }
    }
    WRONG
}

/// What another process of this program does.
pub(crate) fn other(start: &Start) -> u64 {
    let core = start.number("core", 0) as usize % start.raw().cores as usize;
    let &[first, second, ..] = start.handles() else { return 90 };
    if start.thread().bind(&CoreMask::one(core)).is_err() {
        return 91;
    }
    let number = start.number("number", 0);
    match start.word("work") {
        Some("server") => serve(pick(&Server::ALL, number), Endpoint(first), Endpoint(second)),
        _ => {
            let (answers, over) = (AtomicU64::new(0), AtomicU64::new(0));
            return ask(pick(&Client::ALL, number), Endpoint(first), [second; 2], &answers, &over);
        }
    }
    0
}

struct Worker {
    prng: Prng,
    table: &'static Table,
    parts: Vec<(&'static Part, Stack)>,
    /// Processes are killed in one round of so many.
    process_rate: u64,
    /// How many clients have ended with each error.
    ends: [u64; 24],
    kills: [u64; 4],
}

/// A server, in a thread or a process.
enum Running {
    Thread(Owned<Thread>),
    Process(Owned<Process>),
}

/// Makes `count=` kills, shared by as many workers as there are cores; every `processes=`th of a process.
pub(crate) fn run(start: &Start) -> core::result::Result<u64, Failure> {
    let (seed, count) = (start.number("seed", 1), start.number("count", 1000));
    let workers = start.raw().cores.max(1);
    let process_rate = start.number("processes", 16).max(1);
    let own = start.process();
    // Whatever the first rounds make once is there before the capabilities are counted.
    let handles = own.info().map_err(unexpected)?.handles;
    let began = time::now();
    let spawn = |number| {
        let mut worker = Worker::new(Prng::stream(seed, number), process_rate).map_err(unexpected)?;
        let work = move || worker.work(count.div_ceil(workers)).map(|()| (worker.ends, worker.kills));
        // More urgent than those that it kills, or it would have to wait for them.
        let urgent = SchedSpec { class: SchedSpec::REAL_TIME, priority: 100, ..SchedSpec::default() };
        let builder = Builder::default().cores(CoreMask::one(number as usize)).schedule(urgent);
        builder.spawn(work).map_err(unexpected)
    };
    let spawned: core::result::Result<Vec<_>, Failure> = (0..workers as u32).map(spawn).collect();
    let (mut ends, mut kills) = ([0u64; 24], [0u64; 4]);
    for worker in spawned? {
        let (more, killed) = worker.join().map_err(unexpected)??;
        ends.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        kills.iter_mut().zip(killed).for_each(|(sum, more)| *sum += more);
    }
    let took = time::now().since(began).unwrap_or(Ticks::new(0));
    let millis = start.timebase().nanos(took).count() / 1_000_000;
    let answers = ends[0];
    say!(
        "peers: {kills:?} kills of server and client threads and processes in {millis} ms; {answers} right answers"
    );
    let gone = ends[Error::PeerGone as usize];
    say!("peers: clients ended {gone} times with PeerGone, {} with TimedOut", ends[Error::TimedOut as usize]);
    let left = own.info().map_err(unexpected)?.handles;
    if left != handles {
        return Err(format!("{handles} capabilities before, {left} after"));
    }
    Ok(0)
}

/// Writes to the log what every core runs and has queued, and what this process's threads do.
fn tell_of_threads() {
    let Some(debug) = Start::get().debug() else { return };
    let mut buffer = Vec::from([0; 8192]);
    for what in [Dump::Scheduler, Dump::Process] {
        let told = debug.dump(what as u64, Start::get().process().handle(), &mut buffer);
        told.unwrap_or("nothing is told").lines().for_each(|line| say!("{line}"));
    }
}

impl Worker {
    fn new(prng: Prng, process_rate: u64) -> Result<Self> {
        let table: &'static Table = Box::leak(Box::default());
        let mut parts = Vec::new();
        for number in 0..CLIENTS + 2 {
            let part = &*Box::leak(Box::new(Part { table, number }));
            parts.push((part, Stack::new(4)?));
        }
        Ok(Self { prng, table, parts, process_rate, ends: [0; 24], kills: [0; 4] })
    }

    /// Where a worker is, for whoever wants to know why it does not get on.
    fn at(&self, what: &str) {
        if Start::get().number("verbose", 0) != 0 {
            say!("peers: {:p} {what}", self.table);
        }
    }

    fn work(&mut self, rounds: u64) -> core::result::Result<(), Failure> {
        let inner = Endpoint::create().map_err(unexpected)?;
        set(&self.table.inner, inner.handle().0);
        let gifts = [(); 2].map(|()| inner.derive(Rights::SEND.with(Rights::GRANT), 1));
        for (word, gift) in self.table.gifts.iter().zip(&gifts) {
            set(word, gift.as_ref().map_or(0, |gift| gift.handle().0));
        }
        let echo = self.begin(CLIENTS + 1, inner_thread).map_err(unexpected)?;
        for round in 0..rounds {
            if let Err(why) = self.round() {
                // Whoever does not end would be waited for by whoever drops its handle.
                say!("peers: round {round}: {why}");
                tell_of_threads();
                rt::start::exit(1);
            }
        }
        drop((gifts, inner));
        self.ends[0] = get(&self.table.answers);
        self.expect_end(*echo, "the inner server").map(drop)
    }

    fn core(&mut self) -> CoreMask {
        CoreMask::one(self.prng.below(Start::get().raw().cores) as usize)
    }

    /// Starts one of the worker's threads, somewhere.
    fn begin(&mut self, number: usize, entry: extern "C" fn(u64) -> !) -> Result<Owned<Thread>> {
        // One in four has extended state, and so never takes the shortest way.
        let flags = if self.prng.below(4) == 0 { 0 } else { ThreadSpec::NO_FPU };
        let builder = Builder::default().flags(flags).cores(self.core());
        let (part, stack) = self.parts.get(number).ok_or(Error::BadArgument)?;
        // SAFETY: the part is never given back; the stack's last thread has ended.
        let thread = unsafe { builder.create(entry, core::ptr::from_ref(*part) as u64, stack) }?;
        thread.start()?;
        Ok(thread)
    }

    /// Waits for the end of a thread that has to end.
    fn expect_end(&self, thread: Thread, who: &str) -> core::result::Result<u64, Failure> {
        thread.join(Deadline::after(WATCHDOG)).map_err(|error| {
            let info = thread.info();
            format!("{who} does not end: {}, {info:?}", error.name())
        })
    }

    fn victim(&mut self) -> Victim {
        let process = self.prng.below(self.process_rate) == 0;
        match (process, self.prng.below(3)) {
            (false, 0) => Victim::ClientThread,
            (false, _) => Victim::ServerThread,
            (true, 0) => Victim::ClientProcess,
            (true, _) => Victim::ServerProcess,
        }
    }

    fn round(&mut self) -> core::result::Result<(), Failure> {
        let victim = self.victim();
        let kinds = match victim {
            Victim::ServerThread => Server::HOLDING_NOTHING,
            _ => Server::ALL.len() as u64,
        };
        let number = self.prng.below(kinds);
        let busy = pick(&Server::ALL, number) == Server::Busy;
        // Threads of this process that would lose what they hold are killed by nobody but their process.
        let apart = victim == Victim::ServerProcess;
        let number = if busy && !apart && victim != Victim::ServerThread { 0 } else { number };
        set(&self.table.server, number);
        set(&self.table.over, 0);
        let root = Endpoint::create().map_err(unexpected)?;
        let to = root.derive(Rights::SEND.with(Rights::GRANT), 7).map_err(unexpected)?;
        set(&self.table.root, root.handle().0);
        set(&self.table.to, to.handle().0);
        let server = if apart {
            Running::Process(self.spawn("server", number, &root).map_err(unexpected)?)
        } else {
            Running::Thread(self.begin(CLIENTS, server_thread).map_err(unexpected)?)
        };
        // From now on only the server's process can receive.
        let root = (!apart).then_some(root);
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            set(&self.table.outcomes[client], 0);
            set(&self.table.clients[client], self.prng.below(4));
            clients.push(self.begin(client, client_thread).map_err(unexpected)?);
        }
        self.linger();
        self.at(&format!("{victim:?} {number}"));
        self.kill(victim, &server, &clients, &to)?;
        self.at("killed");
        self.kills[victim as usize] += 1;
        self.finish(victim, server, root, clients)
    }

    fn spawn(&mut self, work: &str, number: u64, endpoint: &Endpoint) -> Result<Owned<Process>> {
        let start = Start::get();
        let inner = Endpoint(Handle(get(&self.table.gifts[0])));
        let grants = [Grant::whole(endpoint.handle()), Grant::whole(inner.handle())];
        let core = self.prng.below(start.raw().cores);
        let arguments = format!("work={work}\0number={number}\0core={core}\0");
        let image = start.program("peers").ok_or(Error::BadArgument)?;
        let builder = ProcessBuilder::new(Image::Loaded(image)).name(work).arguments(&arguments);
        builder.grants(&grants).flags(ProcessSpec::NO_FPU).spawn(start.process())
    }

    /// Lets some time pass, short times more often: with this core to itself, or leaving it to the others.
    fn linger(&mut self) {
        let width = self.prng.below(17);
        let some = self.prng.below(1 << width);
        match self.prng.below(3) {
            0 => {}
            1 => spin(some % 65_536),
            _ => time::sleep(Deadline::after(Nanos::new(some))),
        }
    }

    /// Something that may come at any time.
    fn disturb(&mut self, thread: Thread) {
        let cores = self.core();
        // A thread that has ended answers `WrongState`.
        let _ = match self.prng.below(4) {
            0 => thread.suspend(),
            1 => thread.bind(&cores),
            2 => thread.suspend().and_then(|()| thread.bind(&cores)).and_then(|()| thread.resume()),
            _ => Ok(()),
        };
    }

    fn kill(
        &mut self,
        victim: Victim,
        server: &Running,
        clients: &[Owned<Thread>],
        to: &Endpoint,
    ) -> core::result::Result<(), Failure> {
        let client = self.prng.below(CLIENTS as u64) as usize;
        if let Running::Thread(server) = server {
            self.disturb(**server);
        }
        if let Some(client) = clients.get(client) {
            self.disturb(**client);
        }
        self.linger();
        match (victim, server) {
            (Victim::ServerProcess, Running::Process(server)) => {
                server.kill(KILLED).map_err(unexpected)?;
                let status = server.wait(Deadline::after(WATCHDOG)).map_err(unexpected)?;
                if status.reason != ExitStatus::KILLED {
                    return Err(format!("the server's process ended with {status:x?}"));
                }
            }
            (Victim::ServerThread, Running::Thread(server)) => {
                server.kill(KILLED).map_err(unexpected)?;
                self.expect_end(**server, "a killed server")?;
            }
            (Victim::ClientProcess, _) => {
                let number = self.prng.below(3);
                let process = self.spawn("client", number, to).map_err(unexpected)?;
                self.linger();
                process.kill(KILLED).map_err(unexpected)?;
                process.wait(Deadline::after(WATCHDOG)).map_err(unexpected)?;
            }
            _ => {
                let client = clients.get(client).ok_or_else(|| String::from("no client"))?;
                client.kill(KILLED).map_err(unexpected)?;
                self.expect_end(**client, "a killed client")?;
            }
        }
        Ok(())
    }

    /// Everybody ends, and says how.
    fn finish(
        &mut self,
        victim: Victim,
        server: Running,
        root: Option<Owned<Endpoint>>,
        clients: Vec<Owned<Thread>>,
    ) -> core::result::Result<(), Failure> {
        for client in &clients {
            let _ = client.resume();
        }
        if let Running::Thread(server) = &server {
            let _ = server.resume();
        }
        set(&self.table.over, 1);
        // The last that could receive.
        drop(root);
        for (number, client) in clients.iter().enumerate() {
            let code = self.expect_end(**client, "a client")?;
            let outcome = get(&self.table.outcomes[number]);
            let kind = pick(&Client::ALL, get(&self.table.clients[number]));
            let right = outcome == Error::PeerGone as u64
                || outcome == Error::TimedOut as u64 && kind == Client::Timed
                || victim == Victim::ClientThread && code == KILLED;
            if !right {
                return Err(format!("{victim:?}: a client ({kind:?}) ended with {outcome}, code {code:x}"));
            }
            if let Some(count) = self.ends.get_mut(outcome as usize) {
                *count += 1;
            }
        }
        if let Running::Thread(server) = &server {
            self.expect_end(**server, "a server")?;
        }
        Ok(())
    }
}
