//! A process as a task: program, arguments, environment, working directory, input; and what it leaves behind.
//!
//! Arguments and input may be results and output of other tasks; then those tasks run first. How a process is started
//! and watched is `attend`'s question.
#![expect(unsafe_code, reason = "reaches the command inside a record that `Code` has forgotten the type of")]

use super::builder::Task;
use super::input::Input;
use super::job::{Executable, JobSpec};
use super::record::{Ref, state};
use super::words::{Feed, ProcessArg, ProcessInput, Word};
use crate::body::{Call, Verdict, function as body};
use crate::cohort::Progress;
use crate::error::Mistake;
use crate::function::wire::{Decoder, Encoder, WireError};
use crate::function::{Code, Keep, Travel, travel};
use crate::outputs::{JOB, Which};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a process ended that succeeded, and what it used: the result of a process task.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code: 0, or one that the task accepts.
    pub code: i32,
    /// What it used.
    pub usage: Usage,
}

/// What a process and the children it waited for used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Largest resident set of the process or one of its children, in bytes.
    pub max_rss_bytes: u64,
    /// Time its code ran.
    pub user: Duration,
    /// Time the kernel ran for it.
    pub system: Duration,
    /// From start to end.
    pub wall: Duration,
}

/// What a process task was told to run.
pub(crate) struct Command {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<Word>,
    pub(crate) env: Variables,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) stdin: Feed,
    /// Files of the user's that get its standard output and error.
    pub(crate) files: [Option<PathBuf>; 2],
    pub(crate) accept: Vec<i32>,
    /// What is more than a process in it, if it is a job.
    pub(crate) job: Option<Box<JobSpec>>,
}

impl Command {
    pub(crate) fn new(program: &Path) -> Self {
        Self {
            program: program.to_path_buf(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            stdin: Feed::Nothing,
            files: [None, None],
            accept: Vec::new(),
            job: None,
        }
    }

    /// The program and its arguments in one line, for people: other tasks' results and output by name.
    pub(crate) fn line(&self) -> String {
        let words = self.args.iter().map(Word::shown);
        let program = super::words::quoted(&self.program.to_string_lossy());
        let line = std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ");
        self.job.as_ref().map_or(line.clone(), |job| job.line(&line))
    }

    /// Each argument that is another task's.
    fn words_mut(&mut self) -> impl Iterator<Item = &mut Word> {
        let env = self.env.iter_mut().filter_map(|(_, word)| word.as_mut());
        let more = self.job.iter_mut().flat_map(|job| job.words_mut());
        self.args.iter_mut().chain(env).chain(self.stdin.word_mut()).chain(more)
    }

    fn words(&self) -> impl Iterator<Item = &Word> {
        let env = self.env.iter().filter_map(|(_, word)| word.as_ref());
        let more = self.job.iter().flat_map(|job| job.words());
        self.args.iter().chain(env).chain(self.stdin.word()).chain(more)
    }
}

/// What belongs to one executable of a command.
struct Latest<'a> {
    args: &'a mut Vec<Word>,
    env: &'a mut Variables,
    cwd: &'a mut Option<PathBuf>,
}

/// The code of every process task, jobs among them.
pub(crate) static PROCESS: Code = Code {
    call: never,
    drop_args: drop_command,
    drop_value: keep_value,
    inputs: Some(inputs),
    pass,
    name: || "process",
    encode: None,
    describe: None,
    keep: None,
    travel: Some(Travel {
        code: || &PROCESS,
        pack: pack_command,
        unpack: |shared, from| {
            let command = Box::new(Command::decode(from)?);
            Ok(Ref::create::<Exit, (), Box<Command>>(shared, &PROCESS, (), command))
        },
        place: travel::place::<Exit>,
        value: Keep { write: body::write_value::<Exit>, read: body::read_value::<Exit> },
    }),
    command: Some(command),
    value_needs_drop: false,
    args_need_drop: true,
};

/// # Safety
/// The record is a process task's, and nobody changes its command now.
unsafe fn pack_command(task: Ref, out: &mut Encoder) -> Result<(), WireError> {
    // SAFETY: as demanded.
    unsafe { command(task) }.encode(&task.shared().cwd, out)
}

impl Command {
    /// Writes it for another rank, where paths are to mean what they mean in `cwd` here.
    fn encode(&self, cwd: &Path, out: &mut Encoder) -> Result<(), WireError> {
        let path = |path: &Path| cwd.join(path).into_os_string().into_vec();
        let program = program_from(&self.program, cwd);
        let home = path(self.cwd.as_deref().unwrap_or(Path::new("")));
        out.value(&(program, home, &self.accept, self.args.len(), self.env.len()))?;
        out.value(&self.files.each_ref().map(|file| file.as_deref().map(path)))?;
        encode_words(&self.args, &self.env, out)?;
        match &self.stdin {
            Feed::Nothing => out.value(&0u8),
            Feed::File(file) => out.value(&(1u8, path(file))),
            Feed::Word(word) => out.value(&2u8).and_then(|()| word.encode(out)),
        }?;
        out.value(&self.job.is_some())?;
        self.job.as_ref().map_or(Ok(()), |job| job.encode(cwd, out))
    }

    /// Reads what [`encode`](Self::encode) wrote.
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        let (program, home, accept, args, env) =
            from.value::<(Vec<u8>, Vec<u8>, Vec<i32>, usize, usize)>()?;
        let mut command = Self::new(&path(program));
        command.files = from.value::<[Option<Vec<u8>>; 2]>()?.map(|file| file.map(path));
        (command.cwd, command.accept) = (Some(path(home)), accept);
        (command.args, command.env) = decode_words(args, env, from)?;
        command.stdin = match from.value::<u8>()? {
            0 => Feed::Nothing,
            1 => Feed::File(path(from.value()?)),
            _ => Feed::Word(Word::decode(from)?),
        };
        command.job = if from.value()? { Some(Box::new(JobSpec::decode(from)?)) } else { None };
        Ok(command)
    }
}

/// The bytes of a program's name or, if it has a slash, of its absolute path: names are looked for along `PATH`.
pub(super) fn program_from(program: &Path, cwd: &Path) -> Vec<u8> {
    let is_name = !program.as_os_str().as_bytes().contains(&b'/');
    if is_name {
        program.as_os_str().as_bytes().to_vec()
    } else {
        cwd.join(program).into_os_string().into_vec()
    }
}

/// Changes to an environment; `None` removes.
pub(crate) type Variables = Vec<(OsString, Option<Word>)>;

pub(super) fn encode_words(args: &[Word], env: &Variables, out: &mut Encoder) -> Result<(), WireError> {
    args.iter().try_for_each(|word| word.encode(out))?;
    for (name, word) in env {
        out.value(&(name.as_bytes(), word.is_some()))?;
        word.iter().try_for_each(|word| word.encode(out))?;
    }
    Ok(())
}

pub(super) fn decode_words(
    args: usize,
    env: usize,
    from: &mut Decoder<'_>,
) -> Result<(Vec<Word>, Variables), WireError> {
    let (mut words, mut variables) = (Vec::new(), Vec::new());
    for _ in 0..args {
        words.push(Word::decode(from)?);
    }
    for _ in 0..env {
        let (name, is_set) = from.value::<(Vec<u8>, bool)>()?;
        let word = if is_set { Some(Word::decode(from)?) } else { None };
        variables.push((OsString::from_vec(name), word));
    }
    Ok((words, variables))
}

/// # Safety
/// The record is a process task's, and nobody changes its command while this borrow lives.
unsafe fn command<'a>(task: Ref) -> &'a Command {
    // SAFETY: as demanded; process tasks are made with these types.
    let full = unsafe { task.full::<Exit, (), Box<Command>>() };
    // SAFETY: as demanded.
    unsafe { &*full.slots.get() }
}

/// # Safety
/// The record is a process task's, and nobody else looks at its command while this borrow lives.
unsafe fn command_mut<'a>(task: Ref) -> &'a mut Command {
    // SAFETY: as demanded; process tasks are made with these types.
    let full = unsafe { task.full::<Exit, (), Box<Command>>() };
    // SAFETY: as demanded.
    unsafe { &mut *full.slots.get() }
}

/// # Safety
/// None to keep: a process is attended to, and never called.
unsafe fn never(_: Ref, _: &Call<'_>) -> Verdict {
    unreachable!("a process is started, not called")
}

/// # Safety
/// Nobody uses the record any more.
unsafe fn drop_command(task: Ref) {
    // SAFETY: process tasks are made with these types; the slots are dropped once, says the record's flag.
    unsafe { task.full::<Exit, (), Box<Command>>().slots.get().drop_in_place() };
}

/// # Safety
/// None to keep: an `Exit` needs no drop.
unsafe fn keep_value(_: Ref) {}

/// # Safety
/// Nobody executes the task now.
unsafe fn inputs(task: Ref, visit: &mut dyn FnMut(&mut Input)) {
    // SAFETY: as demanded.
    unsafe { command_mut(task) }.words_mut().filter_map(Word::input_mut).for_each(visit);
}

/// # Safety
/// The caller executes the task, and is done with it.
unsafe fn pass(task: Ref) {
    // SAFETY: as demanded.
    unsafe { command(task) }.words().filter_map(Word::input).for_each(|input| input.done());
}

impl Task<Exit> {
    /// Adds an argument: a value (text, path, number), or another task's `result()`, `stdout()` or `stderr()`, which
    /// makes it run first. Output is given without its trailing line ends, as a shell's `$(..)` does it.
    ///
    /// Nothing is split or expanded: no shell is involved.
    pub fn arg(mut self, arg: impl ProcessArg) -> Self {
        self.latest().args.push(arg.word());
        self
    }

    /// Adds arguments.
    pub fn args<A: ProcessArg>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.latest().args.extend(args.into_iter().map(ProcessArg::word));
        self
    }

    /// Sets a variable of its environment, which is otherwise that of this program when the batch was built, without
    /// what `mpirun` or `srun` has set for this program as a rank.
    pub fn env(mut self, name: impl Into<OsString>, value: impl ProcessArg) -> Self {
        let name = name.into();
        self.check_variable(&name);
        self.latest().env.push((name, Some(value.word())));
        self
    }

    /// Removes a variable from its environment.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        let name = name.into();
        self.check_variable(&name);
        self.latest().env.push((name, None));
        self
    }

    /// Where it runs; in the directory this program was in when the batch was built, when not given.
    pub fn cwd(mut self, directory: impl AsRef<Path>) -> Self {
        *self.latest().cwd = Some(directory.as_ref().to_path_buf());
        self
    }

    /// What it (of a job: rank 0) reads on its standard input: a file (which declares that it reads it), or another
    /// task's `stdout()`, `stderr()` or text result. Nothing when not given.
    pub fn stdin(mut self, input: impl ProcessInput) -> Self {
        let feed = input.feed();
        if let Feed::File(path) = &feed {
            let path = path.clone();
            self = self.reads(&path);
        }
        self.command().stdin = feed;
        self
    }

    /// Text that it reads on its standard input.
    pub fn stdin_text(mut self, text: impl Into<String>) -> Self {
        self.command().stdin = Feed::Word(Word::text(text.into()));
        self
    }

    /// The file that gets what it (of a job: all ranks) writes to its standard output, as it writes it; it is made anew
    /// by each attempt. Declares that the task writes it. [`stdout`](Self::stdout) reads it there.
    pub fn stdout_to(self, file: impl AsRef<Path>) -> Self {
        self.output_to(0, file.as_ref())
    }

    /// The same for its standard error.
    pub fn stderr_to(self, file: impl AsRef<Path>) -> Self {
        self.output_to(1, file.as_ref())
    }

    fn output_to(mut self, stream: usize, file: &Path) -> Self {
        self.command().files[stream] = Some(file.to_path_buf());
        self.writes(file)
    }

    /// An exit code that counts as success, beside 0.
    pub fn accept_exit(mut self, code: i32) -> Self {
        self.command().accept.push(code);
        self
    }

    fn check_variable(&mut self, name: &OsString) {
        let bytes = name.as_encoded_bytes();
        if bytes.is_empty() || bytes.contains(&b'=') || bytes.contains(&0) {
            let (task, variable) = (self.task().name(), name.to_string_lossy().into_owned());
            self.set(|extra| extra.mistakes.push(Mistake::BadVariable { name: task, variable }));
        }
    }

    /// The executable that was named last.
    fn latest(&mut self) -> Latest<'_> {
        let Command { args, env, cwd, job, .. } = self.command();
        match job.as_mut().and_then(|job| job.more.last_mut()) {
            Some(Executable { args, env, cwd, .. }) => Latest { args, env, cwd },
            None => Latest { args, env, cwd },
        }
    }

    pub(super) fn command(&mut self) -> &mut Command {
        assert!(
            self.task().head().code.command.is_some(),
            "this task is a function that returns `Exit`, not a process"
        );
        // SAFETY: the caller owns the task mutably, and it is not compiled, since compile borrows it.
        unsafe { command_mut(self.task()) }
    }
}

impl Ref {
    /// The command of a process task that is compiled.
    ///
    /// # Panics
    /// For a function.
    pub(crate) fn command_of<'a>(self) -> &'a Command {
        // SAFETY: commands change only before compile.
        unsafe { self.command() }.expect("a process task")
    }

    /// The folder of a job's own files, once it has started here.
    pub(crate) fn job_folder(self) -> Option<PathBuf> {
        self.command_of().job.as_ref()?;
        let out = self.cohort()?.with_output(self.index(), |output| output.path(Which::Out))??;
        Some(out.with_extension(JOB))
    }

    /// The result of a process that has succeeded. The caller executes the task, or keeps its value in place.
    pub(crate) fn exit_in_place(self) -> Exit {
        debug_assert!(self.head().code.command.is_some());
        // SAFETY: process tasks have this type of value, and the caller knows that it is there.
        unsafe { *self.value::<Exit>() }
    }

    /// The process has succeeded: its result is in place. The caller executes the task.
    pub(crate) fn put_exit(self, exit: Exit) {
        debug_assert!(self.head().code.command.is_some());
        // SAFETY: process tasks have this type of value; nobody reads it before its status is published.
        unsafe { self.value::<Exit>().write(exit) };
    }

    /// How a process exited that succeeded; `None` for functions. The caller has seen the task end well, and keeps it
    /// from running meanwhile.
    pub(crate) fn exit(self) -> Option<Exit> {
        self.head().code.command?;
        let cohort = self.cohort()?;
        let done =
            matches!(cohort.progress(self), Progress::Ended(state::DONE | state::EMPTY | state::TAKEN));
        // SAFETY: process tasks have this type of value. It was put there before the status said so, and it is plain
        // data, so whoever takes it leaves it as it is; the next run, which the caller keeps away, replaces it.
        done.then(|| unsafe { self.value::<Exit>().read() })
    }

    /// The command of a process task, for whoever executes it.
    ///
    /// # Safety
    /// The task is compiled, and is kept while this borrow lives.
    pub(crate) unsafe fn command<'a>(self) -> Option<&'a Command> {
        let command = self.head().code.command?;
        // SAFETY: as demanded.
        Some(unsafe { command(self) })
    }
}
