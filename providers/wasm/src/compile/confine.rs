//! Takes away from the compile child what compiling does not need.
//!
//! The child reads what strangers made, so it is treated as if one of them had taken it over: it is nobody, has no
//! descriptor but its three, and its system calls are a short list. What it still can do is answer with bad code.

use std::io;
use std::os::fd::RawFd;

use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// A user and a group that own nothing, on every Linux.
const NOBODY: u32 = 65534;

/// What one compilation may use.
pub(super) struct Limits {
    /// Address space in bytes.
    pub(super) memory_bytes: Option<u64>,
    /// Processor time in seconds.
    pub(super) cpu_seconds: Option<u64>,
}

/// Confines this process, which has one thread, for good.
///
/// Limits are set here and not before `exec`: for that the standard library would have to fork, which copies the
/// thousands of mappings that a host of guests has.
pub(super) fn confine(limits: &Limits) -> io::Result<()> {
    // If the node runs out of memory all the same, this is what should go. Not everybody may ask for that.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let limit = |resource, value| setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    if let Some(bytes) = limits.memory_bytes {
        limit(Resource::As, bytes)?;
    }
    if let Some(seconds) = limits.cpu_seconds {
        limit(Resource::Cpu, seconds)?;
    }
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    // No descriptor beyond the three that are the parent's: no file, and no socket either.
    close_inherited();
    limit(Resource::Nofile, 0)?;
    rustix::process::nice(19)?;
    become_nobody()?;
    restrict_system_calls()
}

/// Closes what the agent itself was started with, by a shell or a service manager, and what therefore went on to here.
#[allow(unsafe_code)]
fn close_inherited() {
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else { return };
    let number = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let open: Vec<RawFd> = folder.filter_map(number).collect();
    // The folder itself was among them, and is closed by now.
    let is_open = |fd: &RawFd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok();
    for fd in open.into_iter().filter(|fd| *fd > 2 && is_open(fd)) {
        // SAFETY: it is open, and nobody's: this process has just begun, with one thread.
        unsafe { rustix::io::close(fd) };
    }
}

/// Gives up root, and with it all capabilities. An agent that is not root has nothing to give up.
fn become_nobody() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let become_it = || {
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)
    };
    match become_it() {
        // The root of a user namespace that has nobody else in it.
        Err(Errno::INVAL | Errno::PERM) => Ok(()),
        result => Ok(result?),
    }
}

/// From here on only what computing takes: memory, threads, and the descriptors that are open. Everything else is
/// answered with EPERM, which is no reason to end: the standard library asks for files where it can do without.
fn restrict_system_calls() -> io::Result<()> {
    let failed = |error: BackendError| io::Error::other(error.to_string());
    // The last one would not let another one in.
    for filter in [without_clone3().map_err(failed)?, allowed().map_err(failed)?] {
        seccompiler::apply_filter(&filter).map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(())
}

fn allowed() -> Result<BpfProgram, BackendError> {
    const ALWAYS: &[libc::c_long] = &[
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_clone3,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let no_code = MaskedEq(libc::PROT_EXEC as u64);
    let thread = MaskedEq(libc::CLONE_THREAD as u64);
    let itself = u64::from(std::process::id());
    let conditional = [
        // Code is written here, and run elsewhere.
        (libc::SYS_mmap, condition(2, no_code.clone(), 0)?),
        (libc::SYS_mprotect, condition(2, no_code, 0)?),
        // Threads and no processes.
        (libc::SYS_clone, condition(0, thread, libc::CLONE_THREAD as u64)?),
        // Their names.
        (libc::SYS_prctl, condition(0, Eq, libc::PR_SET_NAME as u64)?),
        // How it ends itself if memory runs out.
        (libc::SYS_tgkill, condition(0, Eq, itself)?),
    ];
    let always = ALWAYS.iter().map(|call| (*call, Vec::new()));
    let rules = always.chain(conditional.map(|(call, rule)| (call, vec![rule]))).collect();
    filter(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

/// `clone3` has its flags in memory, where no filter sees them. The C library falls back to `clone` where it is missing.
fn without_clone3() -> Result<BpfProgram, BackendError> {
    let rules = [(libc::SYS_clone3, Vec::new())].into();
    filter(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

fn filter(
    rules: std::collections::BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, matched, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, Dword, operator, value)?])
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const PARENT: &str = "CORACLE_TEST_PARENT";

    #[test]
    fn a_compiler_that_was_taken_over_can_do_nothing() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "compile::confine::tests::inside", "--ignored", "--nocapture"])
            .env(PARENT, std::process::id().to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
    }

    /// In a process of its own, since it does not come back from there.
    #[test]
    #[ignore = "it is run by the test before"]
    #[allow(unsafe_code)]
    fn inside() {
        let parent: i32 = std::env::var(PARENT).unwrap().parse().unwrap();
        confine(&Limits { memory_bytes: Some(8 << 30), cpu_seconds: Some(60) }).unwrap();

        let refused = |what: &str, result: io::Result<()>| {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM), "{what}");
        };
        // The number of descriptors is limited too; the filter comes before that.
        refused("open", std::fs::File::open("/etc/passwd").map(drop));
        refused("connect", std::net::TcpStream::connect("127.0.0.1:80").map(drop));
        refused("socket", std::os::unix::net::UnixDatagram::unbound().map(drop));
        refused("unlink", std::fs::remove_file("/nowhere"));
        refused(
            "rlimit",
            setrlimit(Resource::Nofile, Rlimit { current: None, maximum: None }).map_err(Into::into),
        );
        let parent = rustix::process::Pid::from_raw(parent).unwrap();
        refused("kill", rustix::process::test_kill_process(parent).map_err(Into::into));
        let code = libc::PROT_READ | libc::PROT_EXEC;
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: it maps nothing that is there, and is refused.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 4096, code, anonymous, -1, 0) };
        assert_eq!(mapped, libc::MAP_FAILED);
        // SAFETY: it has no effect on this process; there is none if it is refused.
        assert_eq!(unsafe { libc::fork() }, -1);

        // What compiling takes.
        let sum =
            std::thread::spawn(|| vec![1_u8; 64 << 20].iter().map(|byte| u64::from(*byte)).sum::<u64>());
        assert_eq!(sum.join().unwrap(), 64 << 20);
    }
}
