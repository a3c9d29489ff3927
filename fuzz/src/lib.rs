//! What the targets share: a model of next to nothing, and a directory in memory to open it from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use actscope::{Input, Model, Run};

/// One block, C = 8, V = 16, a context of 8; see `make_seeds.py`.
pub const CONFIG: &[u8] = include_bytes!("../seeds/configs/plain");
pub const WEIGHTS: &[u8] = include_bytes!("../seeds/weights/plain");
/// The same as `torch.save` writes it.
pub const ARCHIVE: &[u8] = include_bytes!("../seeds/pickles/archive");

/// Opens a directory that holds these files and no others; what can be opened must also run.
pub fn open(files: &[(&str, &[u8])]) {
    let directory = directory();
    for file in fs::read_dir(directory).expect("it was made").flatten() {
        fs::remove_file(file.path()).expect("it was written here");
    }
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).expect("there is room");
    }
    if let Ok(model) = Model::open(&directory.to_string_lossy()) {
        run(&Arc::new(model));
    }
}

/// Runs a model on ids that it may or may not have.
pub fn run(model: &Arc<Model>) {
    let _ = Run::all(model, Input::ids([1, 0, 15]));
}

/// The model of the seeds, opened once.
pub fn plain() -> &'static Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| {
        let directory = directory();
        fs::write(directory.join("config.json"), CONFIG).expect("there is room");
        fs::write(directory.join("model.safetensors"), WEIGHTS).expect("there is room");
        Arc::new(Model::open(&directory.to_string_lossy()).expect("the seeds are a model"))
    })
}

/// Each process has its own, so that several can run at once.
fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = place.join(format!("actscope-fuzz-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory can be made");
        directory
    })
}
