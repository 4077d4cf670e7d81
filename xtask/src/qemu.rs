//! QEMU: which one there is, what it can do, and the one place that builds its command line.
//!
//! Options are those of the QEMU invocation manual ("Standard options", "Debug/Expert options"), kept to what both
//! 7.2 and current releases accept.

use crate::error::{Class, Error, Result};
use crate::process;
use crate::topology::{Tables, Topology, count};
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment variable that names another QEMU binary.
pub const PROGRAM_VARIABLE: &str = "NEARFIELD_QEMU";
/// The binary looked for in `PATH` otherwise.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// TCG emulates x2APIC from this version on.
pub const X2APIC_SINCE: Version = Version { major: 9, minor: 0 };
/// From this version on plugins have the interface that ours is written for (`witness/`).
pub const PLUGINS_SINCE: Version = Version { major: 9, minor: 1 };
/// Most cores whose APIC ids fit xAPIC; 255 is the broadcast id.
pub const MAX_XAPIC_CORES: u32 = 255;

/// A QEMU version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Version {
    /// Reads the first line of `--version`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split("version ").nth(1)?.split(|c: char| !c.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// Emulation, one host thread for each core: real races.
    TcgMulti,
    /// Emulation, one host thread for all cores: the steadiest times.
    TcgSingle,
    /// As `TcgSingle`, and the time-stamp counter counts instructions.
    Icount,
    /// Hardware virtualisation.
    Kvm,
}

impl Accelerator {
    /// The accelerator a lane measures in; `None` for lanes without QEMU.
    #[must_use]
    pub fn of_lane(lane: abi::boot::Lane) -> Option<Self> {
        use abi::boot::Lane;
        match lane {
            Lane::Kvm => Some(Self::Kvm),
            Lane::Tcg => Some(Self::TcgSingle),
            Lane::Icount => Some(Self::Icount),
            Lane::Hw | Lane::Native => None,
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::TcgMulti => &["-accel", "tcg,thread=multi"],
            Self::TcgSingle => &["-accel", "tcg,thread=single"],
            // A virtual clock that starts at a fixed date, and random numbers (`RDRAND`) of a fixed seed, make two runs identical.
            Self::Icount => &[
                "-seed",
                "1",
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-rtc",
                "base=2000-01-01,clock=vm",
            ],
            Self::Kvm => &["-accel", "kvm"],
        }
    }
}

/// Where the serial port of the guest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serial {
    /// Standard output of QEMU, read by a [`crate::guest::Session`].
    Pipe,
    /// The user's terminal, with QEMU's monitor behind Ctrl-A.
    Terminal,
}

/// Whether a debugger is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debugger {
    /// Start at once.
    None,
    /// Stop before the first instruction until `gdb` attaches to port 1234.
    Wait,
}

/// What the machine boots.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The loader, an ELF with a PVH entry.
    pub loader: PathBuf,
    /// The bundle that holds the kernel; without one the loader refuses to go on.
    pub bundle: Option<PathBuf>,
}

/// One machine to start.
#[derive(Clone, Debug)]
pub struct QemuSpec {
    /// Cores, nodes and memory.
    pub topology: Topology,
    /// What executes it.
    pub accelerator: Accelerator,
    /// Where its serial port goes.
    pub serial: Serial,
    /// Whether a debugger is waited for.
    pub debugger: Debugger,
    /// A plugin that watches it: its file and arguments, joined by commas.
    pub plugin: Option<String>,
}

impl QemuSpec {
    /// A machine whose serial port is read by a session.
    #[must_use]
    pub fn new(topology: Topology, accelerator: Accelerator) -> Self {
        Self { topology, accelerator, serial: Serial::Pipe, debugger: Debugger::None, plugin: None }
    }
}

/// A QEMU that runs on this host.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: PathBuf,
    version: Version,
    banner: String,
}

impl Qemu {
    /// The QEMU named by [`PROGRAM_VARIABLE`], or the one in `PATH`.
    ///
    /// # Errors
    /// [`Class::Missing`]: there is none, or it does not answer `--version`.
    pub fn find() -> Result<Self> {
        let program = env::var_os(PROGRAM_VARIABLE).map_or_else(|| PathBuf::from(PROGRAM), PathBuf::from);
        let output = Command::new(&program).arg("--version").output().map_err(|error| {
            Error::new(Class::Missing, format!("cannot start {}: {error}", program.display()))
                .next(format!("run `cargo xtask setup`, or set {PROGRAM_VARIABLE} to a QEMU for x86-64"))
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let banner = text.lines().next().unwrap_or_default().to_owned();
        match Version::parse(&banner) {
            Some(version) => Ok(Self { program, version, banner }),
            None => Err(Error::new(
                Class::Missing,
                format!("{} is not QEMU: it says `{banner}`", program.display()),
            )
            .next(format!("set {PROGRAM_VARIABLE} to a QEMU for x86-64, or unset it"))),
        }
    }

    /// A program that plays QEMU.
    #[cfg(test)]
    pub fn played_by(program: &Path) -> Self {
        Self { program: program.to_owned(), version: X2APIC_SINCE, banner: String::new() }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The first line of `--version`.
    #[must_use]
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// Its path or name.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it takes our plugin: whether it takes any was decided when it was built.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn takes_plugins(&self) -> Result<bool> {
        if self.version < PLUGINS_SINCE {
            return Ok(false);
        }
        let output = process::collect(Command::new(&self.program).args(["-plugin", "help"]))?;
        Ok(output.status.success())
    }

    /// Whether machines under this accelerator have x2APIC.
    #[must_use]
    pub fn has_x2apic(&self, accelerator: Accelerator) -> bool {
        accelerator == Accelerator::Kvm || self.version >= X2APIC_SINCE
    }

    /// Refuses a machine that this QEMU cannot build; worth asking before a long build.
    ///
    /// # Errors
    /// [`Class::BadTopology`].
    pub fn admit(&self, topology: &Topology, accelerator: Accelerator) -> Result<()> {
        if topology.cores() <= MAX_XAPIC_CORES || self.has_x2apic(accelerator) {
            return Ok(());
        }
        let what =
            format!("{} cores need x2APIC, which QEMU {} does not emulate", topology.cores(), self.version);
        Err(Error::new(Class::BadTopology, what).next(format!(
            "ask for at most {MAX_XAPIC_CORES} cores, or install QEMU {X2APIC_SINCE} or newer"
        )))
    }

    /// The arguments that start `spec` with `payload` and the kernel command line `cmdline`.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn arguments(&self, spec: &QemuSpec, payload: &Payload, cmdline: &str) -> Result<Vec<String>> {
        let topology = &spec.topology;
        self.admit(topology, spec.accelerator)?;
        let mut list = Arguments(Vec::new());
        list.words(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        list.words(spec.accelerator.arguments());
        list.pair("-cpu", self.cpu(spec.accelerator));
        list.machine(topology);
        list.words(match spec.serial {
            Serial::Pipe => &["-chardev", "stdio,id=com1,signal=off", "-serial", "chardev:com1"],
            Serial::Terminal => &["-serial", "mon:stdio"],
        });
        if spec.debugger == Debugger::Wait {
            list.words(&["-gdb", "tcp:127.0.0.1:1234", "-S"]);
        }
        if let Some(plugin) = &spec.plugin {
            list.pair("-plugin", plugin.clone());
        }
        list.pair("-device", format!("isa-debug-exit,iobase={:#x},iosize=0x04", abi::exit::PORT));
        list.pair("-kernel", payload.loader.display().to_string());
        if let Some(bundle) = &payload.bundle {
            list.pair("-initrd", bundle.display().to_string());
        }
        list.pair("-append", cmdline.to_owned());
        Ok(list.0)
    }

    fn cpu(&self, accelerator: Accelerator) -> String {
        let features = match accelerator {
            // `migratable=no` lets the invariant TSC through.
            Accelerator::Kvm => "host,migratable=no",
            _ if self.has_x2apic(accelerator) => "max,+x2apic",
            _ => "max",
        };
        features.to_owned()
    }
}

/// The command line under construction.
struct Arguments(Vec<String>);

impl Arguments {
    fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|&word| word.to_owned()));
    }

    fn pair(&mut self, name: &str, value: String) {
        self.0.push(name.to_owned());
        self.0.push(value);
    }

    fn machine(&mut self, topology: &Topology) {
        let numa = topology.nodes.len() > 1 || topology.tables != Tables::Auto;
        let hmat = if topology.tables == Tables::Hmat { ",hmat=on" } else { "" };
        let memory = if numa { "" } else { ",memory-backend=m0" };
        self.pair("-machine", format!("q35{hmat}{memory}"));
        let (cores, package, threads) = (topology.cores(), topology.package(), topology.threads_per_core);
        let (sockets, per_socket) = (cores / package, package / threads);
        self.pair("-smp", format!("{cores},sockets={sockets},cores={per_socket},threads={threads}"));
        self.pair("-m", format!("{}M", topology.memory().count()));
        for (id, node) in topology.nodes.iter().enumerate().filter(|(_, node)| node.mem.count() != 0) {
            // Without `reserve=off` a machine larger than the free memory of the host does not even start.
            let size = node.mem.count();
            self.pair("-object", format!("memory-backend-ram,id=m{id},size={size}M,reserve=off"));
        }
        if numa {
            self.nodes(topology);
            self.distances(topology);
        }
        if topology.tables == Tables::Hmat {
            self.attributes(topology);
        }
    }

    fn nodes(&mut self, topology: &Topology) {
        let mut first = 0;
        for (id, node) in topology.nodes.iter().enumerate() {
            let mut text = format!("node,nodeid={id}");
            if node.cores != 0 {
                text.push_str(&format!(",cpus={first}-{}", first + node.cores - 1));
                first += node.cores;
            }
            if node.mem.count() != 0 {
                text.push_str(&format!(",memdev=m{id}"));
            }
            if topology.tables == Tables::Hmat {
                text.push_str(&format!(",initiator={}", initiator(topology, id)));
            }
            self.pair("-numa", text);
        }
    }

    fn distances(&mut self, topology: &Topology) {
        if topology.distances.is_none() {
            return;
        }
        let nodes = topology.nodes.len();
        for (src, dst) in (0..nodes).flat_map(|src| (0..nodes).map(move |dst| (src, dst))) {
            self.pair("-numa", format!("dist,src={src},dst={dst},val={}", topology.distance(src, dst)));
        }
    }

    /// HMAT entries that follow the distances: what is farther is slower and narrower.
    fn attributes(&mut self, topology: &Topology) {
        let of = |kind: fn(&crate::topology::Node) -> bool| {
            topology.nodes.iter().enumerate().filter(move |(_, node)| kind(node)).map(|(id, _)| id)
        };
        for from in of(|node| node.cores != 0) {
            for to in of(|node| node.mem.count() != 0) {
                let distance = u32::from(topology.distance(from, to));
                let entry = format!("hmat-lb,initiator={from},target={to},hierarchy=memory");
                let latency = distance * 10;
                self.pair("-numa", format!("{entry},data-type=access-latency,latency={latency}"));
                let bandwidth = 100_000 / distance;
                self.pair("-numa", format!("{entry},data-type=access-bandwidth,bandwidth={bandwidth}M"));
            }
        }
    }
}

/// The node whose cores are nearest to node `id`.
fn initiator(topology: &Topology, id: usize) -> usize {
    let with_cores = |&node: &usize| topology.nodes[node].cores != 0;
    (0..topology.nodes.len()).filter(with_cores).min_by_key(|&node| topology.distance(node, id)).unwrap_or(id)
}

/// A kernel command line, for people to paste into a shell.
#[must_use]
pub fn shell_line(program: &Path, arguments: &[String]) -> String {
    let mut line = program.display().to_string();
    for argument in arguments {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/+".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            line.push_str(&format!(" {argument}"));
        } else {
            line.push_str(&format!(" '{}'", argument.replace('\'', r"'\''")));
        }
    }
    line
}

/// How long a machine of this size may take for the same work, relative to a small one: its cores share the host's.
#[must_use]
pub fn patience(topology: &Topology) -> u32 {
    let cores = count(topology.cores());
    u32::try_from(1 + cores / 32).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::{Accelerator, Payload, Qemu, QemuSpec, Version, shell_line};
    use crate::topology::{Mebibytes, Topology};
    use std::path::{Path, PathBuf};

    fn line(topology: Topology, accelerator: Accelerator, major: u32) -> crate::error::Result<String> {
        let version = Version { major, minor: 0 };
        let qemu = Qemu { program: PathBuf::from("qemu"), version, banner: String::new() };
        let payload = Payload { loader: PathBuf::from("boot"), bundle: Some(PathBuf::from("bundle")) };
        let list = qemu.arguments(&QemuSpec::new(topology, accelerator), &payload, "mode=test filter=a,b")?;
        Ok(shell_line(Path::new("qemu"), &list))
    }

    #[test]
    fn reads_versions() {
        let banner = "QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7)";
        assert_eq!(Version::parse(banner), Some(Version { major: 7, minor: 2 }));
        assert_eq!(Version::parse("GNU bash, version x"), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn two_even_nodes() {
        let topology = Topology::even(8, 2, Mebibytes::new(4096)).unwrap();
        let line = line(topology, Accelerator::TcgSingle, 10).unwrap();
        for part in [
            "-accel tcg,thread=single",
            "-cpu max,+x2apic",
            "-smp 8,sockets=2,cores=4,threads=1",
            "-m 4096M",
            "-object memory-backend-ram,id=m1,size=2048M,reserve=off",
            "-numa node,nodeid=0,cpus=0-3,memdev=m0",
            "-numa node,nodeid=1,cpus=4-7,memdev=m1",
            "-device isa-debug-exit,iobase=0xf4,iosize=0x04",
            "-kernel boot -initrd bundle -append 'mode=test filter=a,b'",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        assert!(!line.contains("dist"));
    }

    #[test]
    fn one_node_has_no_tables() {
        let line = line(Topology::even(2, 1, Mebibytes::new(512)).unwrap(), Accelerator::Icount, 7).unwrap();
        assert!(line.contains("q35,memory-backend=m0") && !line.contains("-numa"), "{line}");
        assert!(line.contains("-icount shift=0,sleep=off") && line.contains("-cpu max -"), "{line}");
    }

    #[test]
    fn nodes_without_cores_or_memory_and_attributes() {
        let text = "tables = \"hmat\"\ndistances = [[10, 20, 30], [20, 10, 11], [30, 11, 10]]\n[[node]]\ncores = 2\n\
                    mem = \"1G\"\n[[node]]\ncores = 1\n[[node]]\nmem = \"512M\"\n";
        let line = line(Topology::parse(text).unwrap(), Accelerator::TcgMulti, 10).unwrap();
        for part in [
            "-machine q35,hmat=on",
            "node,nodeid=1,cpus=2-2,initiator=1",
            "node,nodeid=2,memdev=m2,initiator=1",
            "dist,src=0,dst=2,val=30",
            "hmat-lb,initiator=1,target=2,hierarchy=memory,data-type=access-latency,latency=110",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        assert!(!line.contains("initiator=2,"));
    }

    #[test]
    fn many_cores_need_a_newer_qemu() {
        let many = || Topology::even(288, 2, Mebibytes::new(4096)).unwrap();
        assert!(line(many(), Accelerator::TcgMulti, 7).is_err());
        assert!(line(many(), Accelerator::TcgMulti, 9).is_ok());
    }
}
