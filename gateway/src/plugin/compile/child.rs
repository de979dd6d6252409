//! Compiling in a process of its own: a file that makes the compiler run wild takes its own process with it, no other.
//!
//! The file goes in by standard input; out comes a line with a verdict and, if it is good, what was compiled. The process has
//! limits on memory and CPU time, which it sets itself before it reads; its parent ends it at the limit of wall time.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setpriority_process, setrlimit};

use super::{Bounds, Compiled, NICE, UnusablePlugin, engine};

/// The command of this program that compiles.
const COMMAND: &str = "compile-plugin";

/// First lines of its answer.
const GOOD: &[u8] = b"good\n";
const BAD: &[u8] = b"bad\n";
const OTHER: &[u8] = b"other engine\n";

/// Has a file compiled.
///
/// # Errors
///
/// There is no process that could do it.
pub(super) fn compile(
    program: &Path,
    bounds: Bounds,
    engine_hash: u64,
    file: &[u8],
) -> Result<Result<Compiled, UnusablePlugin>, String> {
    let mut child = Command::new(program)
        .arg(COMMAND)
        .args(["--memory-bytes", &bounds.memory_bytes.to_string()])
        .args(["--seconds", &bounds.time.as_secs().max(1).to_string()])
        .args(["--engine", &engine_hash.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{} does not start: {error}", program.display()))?;
    let (answer, is_late) = converse(&mut child, bounds, file);
    // Nothing it still does is of use.
    child.kill().unwrap_or_default();
    let status = child.wait().map_err(|error| format!("its process is lost: {error}"))?;
    if is_late {
        return Ok(Err(bounds.out_of_time()));
    }
    if let Some(body) = answer.strip_prefix(GOOD) {
        return Ok(Compiled::decode(body).ok_or_else(UnusablePlugin::crashed));
    }
    if let Some(problem) = answer.strip_prefix(BAD) {
        let problem = serde_json::from_slice(problem).unwrap_or(UnusablePlugin::Crashed);
        // Without memory some parts of the compiler panic, others end the process.
        let is_crash = matches!(problem, UnusablePlugin::Crashed);
        return Ok(Err(if is_crash { bounds.out_of_memory("a panic") } else { problem }));
    }
    if answer == OTHER {
        return Err(format!("{} has another engine than this process", program.display()));
    }
    died(status, bounds).map(Err)
}

/// Sends the file and takes the answer; late if that is not there in time.
fn converse(child: &mut Child, bounds: Bounds, file: &[u8]) -> (Vec<u8>, bool) {
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { return (Vec::new(), false) };
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        scope.spawn(move || {
            // A process that ends early does not read all; its answer says why.
            input.write_all(file).unwrap_or_default();
            drop(input);
            let mut answer = Vec::new();
            output.take(bounds.memory_bytes).read_to_end(&mut answer).unwrap_or_default();
            drop(sender.send(answer));
        });
        match receiver.recv_timeout(bounds.time) {
            Ok(answer) => (answer, false),
            Err(_) => {
                // It closes its pipes by that, and the thread ends.
                child.kill().unwrap_or_default();
                (Vec::new(), true)
            }
        }
    })
}

fn died(status: ExitStatus, bounds: Bounds) -> Result<UnusablePlugin, String> {
    const CPU_TIME: i32 = 24;
    match status.signal() {
        Some(CPU_TIME) => Ok(bounds.out_of_time()),
        Some(signal) => Ok(bounds.out_of_memory(&format!("signal {signal}"))),
        None => Err(format!("its process ended early ({status})")),
    }
}

/// The other side: compiles what standard input has, within limits, and answers by standard output.
///
/// # Errors
///
/// The limits cannot be set, or nobody listens.
pub fn work(memory_bytes: u64, seconds: u64, engine_hash: u64) -> io::Result<()> {
    let limit = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    setrlimit(Resource::As, limit(memory_bytes))?;
    setrlimit(Resource::Cpu, limit(seconds.saturating_mul(u64::try_from(cores).unwrap_or(1))))?;
    setrlimit(Resource::Core, limit(0))?;
    setpriority_process(None, NICE)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut file = Vec::new();
    io::stdin().read_to_end(&mut file)?;
    let engine = engine::for_compiling().map_err(|error| io::Error::other(format!("{error:#}")))?;
    let mut output = io::stdout().lock();
    if super::hash(&engine) != engine_hash {
        return output.write_all(OTHER);
    }
    match super::compile(&engine, &file) {
        Ok(compiled) => {
            output.write_all(GOOD)?;
            output.write_all(&compiled.encode())?;
        }
        Err(problem) => {
            output.write_all(BAD)?;
            output.write_all(&serde_json::to_vec(&problem)?)?;
        }
    }
    output.flush()
}
