//! Mistakes in a list of tasks: what is wrong, with which task, and how to mend it.

/// One mistake in a list of tasks.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mistake {
    /// An argument is the result of a task further down the list.
    #[error(
        "task #{task} `{name}` takes the result of task #{producer} `{producer_name}`, which comes later in the list: \
         move the producer before it"
    )]
    LaterInput {
        /// Index of the consumer.
        task: u32,
        /// Its name.
        name: String,
        /// Index of the producer.
        producer: u32,
        /// Its name.
        producer_name: String,
    },
    /// An argument is the result of a task that is in no list.
    #[error(
        "task #{task} `{name}` takes the result of `{producer_name}`, which is neither in the list nor started: \
         add it to the list before this task"
    )]
    UnlistedInput {
        /// Index of the consumer.
        task: u32,
        /// Its name.
        name: String,
        /// Name of the producer.
        producer_name: String,
    },
    /// An argument is the result of a task of another `Batch`.
    #[error(
        "task #{task} `{name}` takes the result of `{producer_name}`, which belongs to another batch: get() it there \
         and pass the value"
    )]
    ForeignInput {
        /// Index of the consumer.
        task: u32,
        /// Its name.
        name: String,
        /// Name of the producer.
        producer_name: String,
    },
    /// A task of another `Batch` is in the list.
    #[error("task #{task} `{name}` belongs to another batch: make it with the batch that compiles it")]
    ForeignTask {
        /// Its index.
        task: u32,
        /// Its name.
        name: String,
    },
    /// A datum made by another `Batch`.
    #[error(
        "task `{name}` declares {datum}, made by another batch: make the datum with the batch of the task"
    )]
    ForeignDatum {
        /// The task's name.
        name: String,
        /// The datum.
        datum: String,
    },
    /// A task is in the list twice, or was compiled or started before.
    #[error(
        "task #{task} `{name}` was already compiled, submitted or started: list the compiled batch it is in, or make a \
         new task"
    )]
    Relisted {
        /// Its index.
        task: u32,
        /// Its name.
        name: String,
    },
    /// A task or compiled batch is in the list more than once (a compiled batch inside itself, for example).
    #[error(
        "task #{task} `{name}` is in the list twice, first as #{first}: a task runs once per run of its list"
    )]
    Twice {
        /// The later index.
        task: u32,
        /// The earlier one.
        first: u32,
        /// Its name.
        name: String,
    },
    /// A datum without a name.
    #[error("task `{name}` declares a datum with an empty name: give it a name or a path")]
    EmptyDatum {
        /// The task's name.
        name: String,
    },
    /// A relative path, and no current directory to make it absolute.
    #[error("task `{name}` declares the relative path {path:?}, but there is no current directory: {why}")]
    NoCurrentDirectory {
        /// The task's name.
        name: String,
        /// The path.
        path: std::path::PathBuf,
        /// What the system said.
        why: String,
    },
    /// A task is to run on a rank that does not exist.
    #[error("task #{task} `{name}` is to run on rank {rank}, but there are {ranks}: 0 is the first")]
    NoSuchRank {
        /// Its index.
        task: u32,
        /// Its name.
        name: String,
        /// As given.
        rank: u32,
        /// How many there are.
        ranks: u32,
    },
    /// A task is to run on a rank that is lost.
    #[error(
        "task #{task} `{name}` is to run on rank {rank}, which is lost: {why}; let the engine choose its rank"
    )]
    LostRank {
        /// Its index.
        task: u32,
        /// Its name.
        name: String,
        /// As given.
        rank: u32,
        /// Why it is lost.
        why: String,
    },
    /// A task is to run on another rank, and must stay on the one of the program.
    #[error("task #{task} `{name}` is to run on rank {rank}, but must run on rank 0: {why}")]
    MustStay {
        /// Its index.
        task: u32,
        /// Its name.
        name: String,
        /// As given.
        rank: u32,
        /// What binds it.
        why: &'static str,
    },
    /// A function is to run on more ranks at once than there are.
    #[error(
        "task #{task} `{name}` is to run on {asked} ranks at once, but from rank {from} on there are {there}: start \
         the program with more, by `mpirun -n {asked}` say, or ask for fewer"
    )]
    TooFewRanks {
        /// Its index.
        task: u32,
        /// Its name.
        name: String,
        /// As given.
        asked: u32,
        /// The first that could be of them.
        from: u32,
        /// How many there are from there on.
        there: u32,
    },
    /// What cannot run on several ranks at once.
    #[error(
        "task #{task} `{name}` is to run on {asked} ranks at once, but is {what}: only a function can; an MPI program \
         is `batch.job(program, ranks)`"
    )]
    NoGang {
        /// Its index.
        task: u32,
        /// Its name.
        name: String,
        /// As given.
        asked: u32,
        /// What it is.
        what: &'static str,
    },
    /// More tasks than one list can hold.
    #[error("the list has {tasks} tasks, at most {max} fit in one: compile it in parts")]
    TooManyTasks {
        /// Tasks in the list.
        tasks: usize,
        /// The bound.
        max: usize,
    },
    /// More edges than one graph can hold.
    #[error(
        "the tasks have more than {max} dependences: compile the list in parts, or declare fewer accesses"
    )]
    TooManyEdges {
        /// The bound.
        max: u32,
    },
    /// An amount of a resource that is no positive number.
    #[error("task `{name}` asks for {amount} of {resource}: give a positive, finite amount")]
    BadAmount {
        /// The task's name.
        name: String,
        /// The resource.
        resource: String,
        /// As written.
        amount: String,
    },
    /// A number of GPUs that is none.
    #[error(
        "task `{name}` asks for {amount} gpus: give a whole number from 1, or a part of one, more than 0 and less \
         than 1"
    )]
    BadGpus {
        /// The task's name.
        name: String,
        /// As written.
        amount: String,
    },
    /// A resource that the batch does not have.
    #[error("task `{name}` asks for the resource `{resource}`, but the batch has {}", known_resources(known))]
    UnknownResource {
        /// The task's name.
        name: String,
        /// The resource.
        resource: String,
        /// Those the batch was built with.
        known: Vec<String>,
    },
    /// More than the batch will ever have.
    #[error(
        "task #{task} `{name}` asks for {asked} of {resource}, but the batch has {there}: it could never start"
    )]
    NeverEnough {
        /// Its index.
        task: u32,
        /// The task's name.
        name: String,
        /// The resource.
        resource: String,
        /// How much it asks for.
        asked: String,
        /// How much there is.
        there: String,
    },
    /// The program of a process cannot be run.
    #[error("task `{name}`: {what}")]
    BadProgram {
        /// The task's name.
        name: String,
        /// What is wrong, and with what.
        what: String,
    },
    /// The name of an environment variable that cannot be one.
    #[error("task `{name}` sets the variable {variable:?}: a name has no `=`, no NUL and is not empty")]
    BadVariable {
        /// The task's name.
        name: String,
        /// The variable.
        variable: String,
    },
    /// A NUL byte in what a process is given.
    #[error("task `{name}` has a NUL byte in {place}: processes cannot be given one")]
    Nul {
        /// The task's name.
        name: String,
        /// Where.
        place: String,
    },
    /// A task that cannot leave this process, of a batch that is in another.
    #[error(
        "task #{task} `{name}` is a closure, which stays in this process, and the batch is in process {pid}: make it a \
         function with arguments"
    )]
    StaysHere {
        /// Its index.
        task: u32,
        /// Its name.
        name: String,
        /// The process of the batch.
        pid: u32,
    },
    /// Tasks with code of this executable, of a batch whose process runs another one; said once for a list.
    #[error(
        "task #{task} `{name}`{} has code of {ours}, and the batch's process {pid} runs {theirs}, which is not the \
         same build: run the same executable on both sides, or submit processes, which need no code of ours",
        and_more(*more)
    )]
    OtherExecutable {
        /// Index of the first.
        task: u32,
        /// Its name.
        name: String,
        /// How many more there are.
        more: usize,
        /// The process of the batch.
        pid: u32,
        /// This program.
        ours: String,
        /// The batch's.
        theirs: String,
    },
    /// What the process of the batch, which is another, found wrong.
    #[error("{what}")]
    Refused {
        /// As said there; indices are those of the list there.
        what: String,
    },
    /// A cost that is no positive number.
    #[error("task `{name}` has a cost of {cost}: give a positive, finite number")]
    BadCost {
        /// The task's name.
        name: String,
        /// As written.
        cost: String,
    },
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (and {more} more)") }
}

fn known_resources(known: &[String]) -> String {
    if known.is_empty() {
        return "none: build it with `Batch::builder().resource(name, amount)`".to_string();
    }
    format!("only: {}", known.join(", "))
}
