//! Corpora on schedulers: a real Slurm, started here, and GNU parallel. Skipped where they are not installed.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use actscope::corpus::Shard;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|found| found.status.success())
}

/// `PATH` with the program in front.
fn path() -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_actscope")).parent().unwrap();
    format!("{}:{}", program.display(), std::env::var("PATH").unwrap())
}

#[track_caller]
fn done(command: &mut Command) -> Output {
    let done = command.output().unwrap();
    let [out, error] = [&done.stdout, &done.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(done.status.success(), "{command:?}: {out}{error}");
    done
}

/// A folder with more documents than the fixtures have.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(root().join("tests/fixtures/corpus.jsonl")).unwrap();
    fs::write(place.path().join("docs.jsonl"), text.repeat(3)).unwrap();
    place
}

const OPTIONS: [&str; 6] = ["--hooks", "post.*", "--reduce", "top,loss", "--chunk", "300"];

/// What one process makes of it.
fn whole(place: &Path) -> PathBuf {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actscope"));
    done(command.current_dir(place).args(["corpus", "run", "docs.jsonl", "-o", "whole"]).args(OPTIONS));
    place.join("whole")
}

fn same(a: &Path, b: &Path) {
    for table in ["top.parquet", "loss.parquet"] {
        assert!(fs::read(a.join(table)).unwrap() == fs::read(b.join(table)).unwrap(), "{table}");
    }
}

#[test]
fn processes_of_gnu_parallel_give_what_one_gives() {
    if !has("parallel") {
        eprintln!("skipped: GNU parallel is not installed");
        return;
    }
    let place = place();
    let script = root().join("tools/cluster/parallel.sh");
    let mut command = Command::new("sh");
    command.current_dir(place.path()).env("PATH", path());
    done(command.arg(script).args(["3", "out", "docs.jsonl"]).args(OPTIONS));
    same(&place.path().join("out"), &whole(place.path()));
}

/// A Slurm of one machine in a folder; ends with the test.
struct Slurm {
    conf: PathBuf,
    place: PathBuf,
}

impl Slurm {
    fn start(place: &Path) -> Self {
        let host = String::from_utf8(done(Command::new("hostname").arg("-s")).stdout).unwrap();
        let (host, place) = (host.trim(), place.join("slurm"));
        for folder in ["state", "spool", "run"] {
            fs::create_dir_all(place.join(folder)).unwrap();
        }
        let dir = place.display();
        let conf = place.join("slurm.conf");
        let text = format!(
            "ClusterName=local\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort=26817\nSlurmdPort=26818\nSlurmUser=root\n\
             AuthType=auth/munge\nStateSaveLocation={dir}/state\nSlurmdSpoolDir={dir}/spool\n\
             SlurmctldPidFile={dir}/run/ctld.pid\nSlurmdPidFile={dir}/run/d.pid\nSlurmctldLogFile={dir}/ctld.log\n\
             SlurmdLogFile={dir}/d.log\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
             JobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nMpiDefault=none\nReturnToService=2\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN\n\
             PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP\n"
        );
        fs::write(&conf, text).unwrap();
        let munge = "mkdir -p /run/munge /var/log/munge && ([ -f /etc/munge/munge.key ] || mungekey -c) && \
                     chown munge: /run/munge /var/log/munge /etc/munge/munge.key && \
                     (munge -n >/dev/null 2>&1 || su -s /bin/sh munge -c munged)";
        done(Command::new("sh").args(["-c", munge]));
        let slurm = Self { conf, place };
        done(&mut slurm.command("slurmctld"));
        done(&mut slurm.command("slurmd"));
        slurm
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", &self.conf).env("PATH", path()).current_dir(self.place.parent().unwrap());
        command
    }

    fn logs(&self) -> String {
        let read = |name| fs::read_to_string(self.place.join(name)).unwrap_or_default();
        let queue = self
            .command("squeue")
            .args(["-o", "%i %T %r %S"])
            .output()
            .map(|done| done.stdout)
            .unwrap_or_default();
        format!("{}\n{}\n{}", String::from_utf8_lossy(&queue), read("ctld.log"), read("d.log"))
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        let _ = self.command("scontrol").arg("shutdown").output();
    }
}

#[test]
fn an_array_of_slurm_with_a_task_that_is_requeued_gives_what_one_process_gives() {
    let is_root = done(Command::new("id").arg("-u")).stdout.starts_with(b"0\n");
    if !is_root || !["slurmctld", "slurmd", "sbatch", "munged"].into_iter().all(has) {
        eprintln!("skipped: needs root and Slurm (apt-get install slurm-wlm munge)");
        return;
    }
    let place = place();
    let slurm = Slurm::start(place.path());
    let script = root().join("tools/cluster/slurm.sh");
    let submitted = done(slurm.command("sh").arg(script).args(["4", "out", "docs.jsonl"]).args(OPTIONS));
    let said = String::from_utf8(submitted.stdout).unwrap();
    let merge: u32 = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
    // The second task is killed after its first record, and begins anew.
    let out = place.path().join("out");
    let second = out.join("shard-2-of-4");
    let start = Instant::now();
    let wait = |what: &str, is_there: &dyn Fn() -> bool| {
        while !is_there() {
            assert!(start.elapsed() < Duration::from_mins(1), "no {what}: {}", slurm.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let recorded = || {
        let names = fs::read_dir(&second).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.map(|name| name.to_string_lossy().into_owned()).any(|name| name.starts_with("part-"))
    };
    wait("record of the second task", &|| recorded() || second.join("manifest.json").exists());
    let was_finished = second.join("manifest.json").exists();
    let task = format!("{}_2", merge - 1);
    done(slurm.command("scontrol").args(["requeue", &task]));
    // Slurm would wait two minutes before it runs it again.
    let at_once =
        || slurm.command("scontrol").args(["update", &format!("JobId={task}"), "StartTime=now"]).output();
    wait("merged result", &|| out.join("manifest.json").exists() || at_once().is_err());
    same(&out, &whole(place.path()));
    eprintln!(
        "the second task was {} when it was requeued",
        if was_finished { "finished" } else { "running" }
    );
}

#[test]
fn the_job_of_kubernetes_is_one_that_the_program_understands() {
    let text = fs::read_to_string(root().join("tools/cluster/kubernetes.yaml")).unwrap();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    let completions = field("completions").split(' ').next().unwrap().to_owned();
    assert!(field("env").contains(&format!("{{ name: JOB_COMPLETIONS, value: \"{completions}\" }}")));
    let args = field("args");
    let args: Vec<_> = args.trim_matches(['[', ']']).split(", ").collect();
    let place = place();
    let at = |arg: &&str| arg.replace("/corpus/", &format!("{}/", place.path().display()));
    for index in 0..2 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_actscope"));
        command.env("JOB_COMPLETION_INDEX", index.to_string()).env("JOB_COMPLETIONS", &completions);
        done(command.args(args.iter().map(at)));
        let shard = Shard { index: index + 1, of: completions.parse().unwrap() };
        assert!(
            actscope::corpus::run::shard_folder(&place.path().join("out"), shard)
                .join("manifest.json")
                .exists()
        );
    }
}
